//! A prompt being read and continued, token by token: [`Generation`].
//!
//! One sequence at a time, in one row of a cache. Knows neither chats nor templates; those are in
//! [`Chat`](crate::Chat).

use std::fmt;

use candle_core::Tensor;
use lfm2_hub::Tokenizer;
use lfm2_nn::{Cache, Input, Segment, Step, Want};

use crate::logits::read_logits;
use crate::sequence::Sequence;
use crate::{
    Cancel, Finish, FinishReason, GenerationOptions, Generator, Output, Piece, Result, SpecialText,
    prefix,
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

/// The row of a cache that a generation works in.
pub(crate) enum Place<'a> {
    Own(Cache),
    Lent { cache: &'a mut Cache, row: usize },
}

impl Place<'_> {
    fn row(&self) -> usize {
        match self {
            Self::Own(_) => 0,
            Self::Lent { row, .. } => *row,
        }
    }

    fn cache(&mut self) -> &mut Cache {
        match self {
            Self::Own(cache) => cache,
            Self::Lent { cache, .. } => cache,
        }
    }
}

#[derive(Debug)]
enum State {
    Running,
    Finished(Finish),
    Failed,
}

/// Whether there is something to go on with.
enum Fed {
    Logits,
    Cancelled,
}

impl<'a> Generation<'a> {
    pub(crate) fn new(
        generator: &'a Generator,
        place: Place<'a>,
        prompt: Vec<u32>,
        options: &GenerationOptions,
    ) -> Result<Self> {
        Ok(Self {
            generator,
            place,
            sequence: Sequence::new(generator, prompt, options)?,
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
        let mut text = String::new();
        let mut tokens = Vec::new();
        for piece in self.by_ref() {
            let piece = piece?;
            text.push_str(&piece.text);
            tokens.extend(piece.token);
        }
        let finish = match self.state {
            State::Finished(finish) => finish,
            State::Running | State::Failed => self.sequence.finish(FinishReason::Cancelled),
        };
        Ok(Output {
            text,
            tokens,
            finish,
        })
    }

    fn advance(&mut self) -> Result<Option<Piece>> {
        if self.sequence.is_full() {
            self.end(FinishReason::Length);
            return Ok(None);
        }
        self.sequence.start_clock();
        if let Fed::Cancelled = self.feed()? {
            let text = self.sequence.rest();
            self.end(FinishReason::Cancelled);
            return Ok((!text.is_empty()).then_some(Piece { text, token: None }));
        }
        let drawn = self.sequence.draw(&mut self.logits)?;
        if let Some(reason) = drawn.ended_by {
            self.end(reason);
        }
        Ok(Some(drawn.piece))
    }

    fn end(&mut self, reason: FinishReason) {
        self.state = State::Finished(self.sequence.finish(reason));
    }

    /// Brings the cache up to date and the logits of the next token into `self.logits`.
    fn feed(&mut self) -> Result<Fed> {
        if self.cancel.is_cancelled() {
            return Ok(Fed::Cancelled);
        }
        match self.sequence.generated().last() {
            None => self.prefill(),
            Some(&id) => {
                let logits = self.forward(&[id], Want::LastLogits)?;
                read_logits(&logits, &mut self.logits)?;
                Ok(Fed::Logits)
            }
        }
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
        let row = self.place.row();
        let step = Step::segments_of(vec![Segment {
            row,
            len: ids.len(),
        }]);
        let decoder = self.generator.decoder();
        let input = Tensor::new(ids, decoder.device())?;
        Ok(decoder.forward(Input::Ids(&input), &step, self.place.cache(), want)?)
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
            // A failed pass leaves the row half fed.
            let row = self.place.row();
            self.place.cache().clear_row(row);
        }
        result.transpose()
    }
}
