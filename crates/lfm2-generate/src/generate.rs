//! A prompt being read and continued, token by token: [`Generation`].
//!
//! One sequence at a time, in one row of a cache. Knows neither chats nor templates; those are in
//! [`Chat`](crate::Chat).

use std::fmt;

use candle_core::Tensor;
use lfm2_hub::Tokenizer;
use lfm2_nn::{Cache, Want};

use crate::logits::read_logits;
use crate::place::{Fed, Place};
use crate::sequence::{Drawn, Sequence};
use crate::speculate::{Drafter, Speculation, Speculator, Target};
use crate::{
    Cancel, Error, Finish, FinishReason, GenerationOptions, Generator, Output, Piece, Result,
    SpecialText, prefix,
};

/// Prompt tokens per forward pass: enough for large matrices, few enough to be interrupted soon.
const DEFAULT_PREFILL_CHUNK: usize = 512;

/// How far a prompt was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PrefillProgress {
    /// Tokens of the prompt in the cache.
    pub done: usize,
    /// Tokens of the prompt.
    pub total: usize,
}

type OnPrefill<'a> = Box<dyn FnMut(PrefillProgress) + Send + 'a>;

/// A running generation: an iterator over [`Piece`]s, one per token.
///
/// Nothing is computed before the first call of `next`. Dropping it stops the work. After an error
/// the row of the cache is empty and the iterator is at its end.
pub struct Generation<'a> {
    generator: &'a Generator,
    place: Place<'a>,
    sequence: Sequence,
    speculator: Option<Speculator<'a>>,
    cancel: Cancel,
    prefill_chunk: usize,
    on_prefill: Option<OnPrefill<'a>>,
    logits: Vec<f32>,
    state: State,
}

impl fmt::Debug for Generation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Generation")
            .field("sequence", &self.sequence)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

#[derive(Debug)]
enum State {
    Running,
    Finished(Finish),
    Failed,
}

impl<'a> Generation<'a> {
    pub(crate) fn new(
        generator: &'a Generator,
        place: Place<'a>,
        prompt: Vec<u32>,
        options: &GenerationOptions,
    ) -> Result<Self> {
        let sequence = Sequence::new(generator, prompt, options)?;
        Ok(Self {
            generator,
            place,
            speculator: speculator(generator, &sequence, options)?,
            sequence,
            cancel: Cancel::new(),
            prefill_chunk: DEFAULT_PREFILL_CHUNK,
            on_prefill: None,
            logits: Vec::new(),
            state: State::Running,
        })
    }

    /// Stops when `cancel` is used: between chunks of the prompt and between tokens.
    pub fn with_cancel(mut self, cancel: &Cancel) -> Self {
        self.cancel = cancel.clone();
        self
    }

    /// Reads the prompt in chunks of this many tokens; 0 counts as 1. The result is the same.
    pub fn with_prefill_chunk(mut self, tokens: usize) -> Self {
        self.prefill_chunk = tokens.max(1);
        self
    }

    /// Calls `report` after every chunk of the prompt.
    pub fn on_prefill(mut self, report: impl FnMut(PrefillProgress) + Send + 'a) -> Self {
        self.on_prefill = Some(Box::new(report));
        self
    }

    /// Chooses which special tokens become text; by default none.
    pub fn with_special_text(mut self, special: SpecialText) -> Self {
        self.sequence.show_special(special);
        self
    }

    /// Lets the draft model, if [one is used](crate::Speculation::DraftModel), work in row `row` of
    /// `cache`, which is a cache of that model. What it holds already is not read again, as with
    /// [`Generator::generate_in`](crate::Generator::generate_in).
    ///
    /// # Errors
    /// When the cache has no such row.
    pub fn with_draft_cache(mut self, cache: &'a mut Cache, row: usize) -> Result<Self> {
        let place = Place::lent(cache, row)?;
        if let Some(speculator) = &mut self.speculator {
            speculator.set_draft_place(place);
        }
        Ok(self)
    }

    /// The tokenizer that turns its tokens into text.
    pub fn tokenizer(&self) -> &Tokenizer {
        self.generator.tokenizer()
    }

    /// The seed of the random stream, for doing the same again.
    pub fn seed(&self) -> u64 {
        self.sequence.seed()
    }

    /// The tokens drawn so far.
    pub fn generated(&self) -> &[u32] {
        self.sequence.generated()
    }

    /// How it ended; `None` while it goes on, and after an error.
    pub fn finish(&self) -> Option<&Finish> {
        match &self.state {
            State::Finished(finish) => Some(finish),
            State::Running | State::Failed => None,
        }
    }

    /// Runs to the end and collects everything.
    ///
    /// # Errors
    /// When the model fails, or its logits cannot be drawn from.
    pub fn complete(mut self) -> Result<Output> {
        let pieces = self.by_ref().collect::<Result<Vec<_>>>()?;
        let finish = match self.finish() {
            Some(finish) => finish.clone(),
            None => self.sequence.finish(FinishReason::Cancelled),
        };
        Ok(Output::new(pieces, finish))
    }

    fn advance(&mut self) -> Result<Option<Piece>> {
        if self.sequence.is_full() {
            self.end(FinishReason::Length)?;
            return Ok(None);
        }
        self.sequence.start_clock();
        if let Fed::Cancelled = self.feed()? {
            let text = self.sequence.rest();
            self.end(FinishReason::Cancelled)?;
            return Ok((!text.is_empty()).then_some(Piece { text, token: None }));
        }
        let drawn = self.draw()?;
        if let Some(reason) = drawn.ended_by {
            self.end(reason)?;
        }
        Ok(Some(drawn.piece))
    }

    fn draw(&mut self) -> Result<Drawn> {
        let (mut target, speculator) = self.parts();
        match speculator {
            Some(speculator) => speculator.draw(&mut target),
            None => target.sequence.draw(target.logits),
        }
    }

    fn end(&mut self, reason: FinishReason) -> Result<()> {
        self.settle()?;
        self.state = State::Finished(self.sequence.finish(reason));
        Ok(())
    }

    /// Takes back what was fed ahead of the text.
    fn settle(&mut self) -> Result<()> {
        let (mut target, speculator) = self.parts();
        match speculator {
            Some(speculator) => speculator.settle(&mut target),
            None => Ok(()),
        }
    }

    fn parts(&mut self) -> (Target<'_, 'a>, Option<&mut Speculator<'a>>) {
        let target = Target {
            decoder: self.generator.decoder(),
            place: &mut self.place,
            sequence: &mut self.sequence,
            logits: &mut self.logits,
        };
        (target, self.speculator.as_mut())
    }

    /// Brings the cache up to date and the logits of the next token into `self.logits`.
    fn feed(&mut self) -> Result<Fed> {
        if self.cancel.is_cancelled() {
            return Ok(Fed::Cancelled);
        }
        let Some(&newest) = self.sequence.generated().last() else {
            return self.prefill();
        };
        let cancel = self.cancel.clone();
        let (mut target, speculator) = self.parts();
        if let Some(speculator) = speculator {
            return speculator.feed(&mut target, newest, &cancel);
        }
        let logits = self.forward(&[newest], Want::LastLogits)?;
        read_logits(&logits, &mut self.logits)?;
        Ok(Fed::Logits)
    }

    fn prefill(&mut self) -> Result<Fed> {
        let total = self.sequence.prompt().len();
        let mut done = self.reuse()?;
        self.sequence.set_reused(done);
        while done < total {
            if self.cancel.is_cancelled() {
                return Ok(Fed::Cancelled);
            }
            let end = total.min(done + self.prefill_chunk);
            // Only the last chunk needs the large multiplication with the vocabulary.
            let want = if end == total {
                Want::LastLogits
            } else {
                Want::Hidden
            };
            let ids = self.sequence.prompt()[done..end].to_vec();
            let output = self.forward(&ids, want)?;
            done = end;
            if done == total {
                read_logits(&output, &mut self.logits)?;
            }
            if let Some(report) = &mut self.on_prefill {
                report(PrefillProgress { done, total });
            }
        }
        Ok(Fed::Logits)
    }

    /// Cuts the row to what it has in common with the prompt and returns its length. The last token
    /// of the prompt is always fed, since its logits are needed.
    fn reuse(&mut self) -> Result<usize> {
        let row = self.place.row();
        let cache = self.place.cache();
        let common = prefix::known_len(cache, row, self.sequence.prompt());
        prefix::keep(self.generator.decoder(), cache, row, common)?;
        Ok(common)
    }

    fn forward(&mut self, ids: &[u32], want: Want) -> Result<Tensor> {
        self.place.feed(self.generator.decoder(), ids, want)
    }

    /// Empties the row: a failed pass leaves it half fed.
    fn abandon(&mut self) {
        self.speculator = None;
        let row = self.place.row();
        self.place.cache().clear_row(row);
    }
}

/// Leaves a borrowed cache with the text alone, whenever that is.
impl Drop for Generation<'_> {
    fn drop(&mut self) {
        if self.settle().is_err() {
            self.abandon();
        }
    }
}

impl Iterator for Generation<'_> {
    type Item = Result<Piece>;

    fn next(&mut self) -> Option<Self::Item> {
        if !matches!(self.state, State::Running) {
            return None;
        }
        let result = self.advance();
        if result.is_err() {
            self.state = State::Failed;
            self.abandon();
        }
        result.transpose()
    }
}

fn speculator<'a>(
    generator: &'a Generator,
    sequence: &Sequence,
    options: &GenerationOptions,
) -> Result<Option<Speculator<'a>>> {
    let prompt = sequence.prompt();
    Ok(match options.speculation {
        Speculation::Off => None,
        Speculation::PromptLookup { max_draft, pace } => {
            Some(Speculator::from_text(prompt, max_draft, pace))
        }
        Speculation::DraftModel {
            max_draft,
            pace,
            choice,
        } => {
            let Some(draft) = generator.draft() else {
                let found = "a generator without a draft model";
                return Err(Error::option("speculation", "a draft model", &found));
            };
            let drafter = Drafter::new(draft, options, sequence.seed(), choice)?;
            Some(Speculator::from_model(drafter, prompt, max_draft, pace))
        }
    })
}
