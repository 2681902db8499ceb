//! A prompt being read and continued, token by token: [`Generation`].
//!
//! One sequence at a time, in one row of a cache. Knows neither chats nor templates; those are in
//! [`Chat`](crate::Chat).

use std::fmt;
use std::time::{Duration, Instant};

use candle_core::{CpuStorage, DType, Storage, Tensor};
use lfm2_hub::Tokenizer;
use lfm2_nn::{Cache, Input, Segment, Step, Want};

use crate::{
    Cancel, Error, GenerationOptions, Generator, Result, Sampler, SpecialText, StopCause,
    StopRules, TextStream, Token,
};

/// Prompt tokens per forward pass: enough for large matrices, few enough to be interrupted soon.
const DEFAULT_PREFILL_CHUNK: usize = 512;

/// Text that came with one token.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Piece {
    /// The text that became certain; empty while a character or a possible stop string is open.
    pub text: String,
    /// The drawn token; `None` for text that was held back when the generation was cancelled.
    pub token: Option<Token>,
}

impl fmt::Display for Piece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Why a generation is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FinishReason {
    /// The text came to its end.
    Stop(StopCause),
    /// The number of tokens asked for, or the context, is used up.
    Length,
    /// [`Cancel`] was used.
    Cancelled,
}

/// What a finished generation took.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finish {
    /// Why it is over.
    pub reason: FinishReason,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Tokens of the prompt that were in the cache already.
    pub reused_tokens: usize,
    /// Tokens drawn, an end token included.
    pub generated_tokens: usize,
    /// From the first forward pass to the first token.
    pub prefill_time: Duration,
    /// From the first token to the end.
    pub decode_time: Duration,
}

impl Finish {
    /// Tokens per second after the first; `None` when there was only one.
    pub fn decode_speed(&self) -> Option<f64> {
        let tokens = self.generated_tokens.checked_sub(1).filter(|n| *n > 0)?;
        Some(tokens as f64 / self.decode_time.as_secs_f64())
    }

    /// Prompt tokens per second, reused ones left out; `None` when all were reused.
    pub fn prefill_speed(&self) -> Option<f64> {
        let tokens = self
            .prompt_tokens
            .checked_sub(self.reused_tokens)
            .filter(|n| *n > 0)?;
        Some(tokens as f64 / self.prefill_time.as_secs_f64())
    }
}

/// A whole answer.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Output {
    /// The text.
    pub text: String,
    /// The drawn tokens.
    pub tokens: Vec<Token>,
    /// How it ended.
    pub finish: Finish,
}

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
    prompt: Vec<u32>,
    reused: usize,
    /// How many tokens may be drawn.
    room: usize,
    sampler: Sampler,
    stream: TextStream,
    stops: StopRules,
    cancel: Cancel,
    prefill_chunk: usize,
    on_prefill: Option<OnPrefill<'a>>,
    generated: Vec<u32>,
    logits: Vec<f32>,
    clock: Clock,
    state: State,
}

impl fmt::Debug for Generation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Generation")
            .field("prompt_tokens", &self.prompt.len())
            .field("generated", &self.generated)
            .field("room", &self.room)
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

#[derive(Debug, Default)]
struct Clock {
    started: Option<Instant>,
    first_token: Option<Instant>,
}

impl Clock {
    fn times(&self) -> (Duration, Duration) {
        let now = Instant::now();
        let started = self.started.unwrap_or(now);
        let first = self.first_token.unwrap_or(now);
        (first - started, now - first)
    }
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
        let vocab = generator.decoder().vocab_size();
        let mut sampler = Sampler::new(options, vocab)?;
        if prompt.is_empty() {
            return Err(Error::InvalidInput("the prompt has no tokens".to_owned()));
        }
        if let Some((at, id)) = prompt
            .iter()
            .enumerate()
            .find(|(_, id)| **id as usize >= vocab)
        {
            let text = format!("prompt token {at}: id {id} is outside the vocabulary of {vocab}");
            return Err(Error::InvalidInput(text));
        }
        let Some(left) = generator.context().checked_sub(prompt.len()) else {
            return Err(Error::PromptTooLong {
                prompt: prompt.len(),
                context: generator.context(),
            });
        };
        sampler.observe_prompt(&prompt);
        Ok(Self {
            generator,
            place,
            prompt,
            reused: 0,
            room: options.max_new_tokens.min(left),
            sampler,
            stream: TextStream::new(generator.tokenizer().clone(), SpecialText::Hidden),
            stops: StopRules::new(options, generator.stop_ids()),
            cancel: Cancel::new(),
            prefill_chunk: DEFAULT_PREFILL_CHUNK,
            on_prefill: None,
            generated: Vec::new(),
            logits: Vec::new(),
            clock: Clock::default(),
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
        self.stream = TextStream::new(self.generator.tokenizer().clone(), special);
        self
    }

    /// The tokenizer that turns its tokens into text.
    pub fn tokenizer(&self) -> &Tokenizer {
        self.generator.tokenizer()
    }

    /// The seed of the random stream, for doing the same again.
    pub fn seed(&self) -> u64 {
        self.sampler.seed()
    }

    /// The tokens drawn so far.
    pub fn generated(&self) -> &[u32] {
        &self.generated
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
            State::Running | State::Failed => self.report(FinishReason::Cancelled),
        };
        Ok(Output {
            text,
            tokens,
            finish,
        })
    }

    fn advance(&mut self) -> Result<Option<Piece>> {
        if self.generated.len() >= self.room {
            self.end(FinishReason::Length);
            return Ok(None);
        }
        self.clock.started.get_or_insert_with(Instant::now);
        if let Fed::Cancelled = self.feed()? {
            let text = self.rest();
            self.end(FinishReason::Cancelled);
            return Ok((!text.is_empty()).then_some(Piece { text, token: None }));
        }
        let token = self.sampler.sample(&mut self.logits)?;
        self.clock.first_token.get_or_insert_with(Instant::now);
        self.generated.push(token.id);
        let text = self.text_of(token.id)?;
        Ok(Some(Piece {
            text,
            token: Some(token),
        }))
    }

    /// The text that `id` makes certain; ends the generation when it is over with it.
    fn text_of(&mut self, id: u32) -> Result<String> {
        if self.stops.is_stop_id(id) {
            let text = self.rest();
            self.end(FinishReason::Stop(StopCause::Id(id)));
            return Ok(text);
        }
        // Embedding tables have rows that no token uses; a model may still choose one.
        let text = match self.generator.tokenizer().token_bytes(id) {
            Ok(_) => self.stream.push(id)?,
            Err(_) => String::new(),
        };
        let mut released = self.stops.push(&text);
        if let Some(stop) = released.stopped_by {
            self.end(FinishReason::Stop(StopCause::Text(stop)));
        } else if self.generated.len() >= self.room {
            released.text.push_str(&self.rest());
            self.end(FinishReason::Length);
        }
        Ok(released.text)
    }

    /// Everything held back, when no token follows.
    fn rest(&mut self) -> String {
        let unfinished = self.stream.finish();
        let mut released = self.stops.push(&unfinished);
        if released.stopped_by.is_none() {
            released.text.push_str(&self.stops.finish());
        }
        released.text
    }

    fn end(&mut self, reason: FinishReason) {
        self.state = State::Finished(self.report(reason));
    }

    fn report(&self, reason: FinishReason) -> Finish {
        let (prefill_time, decode_time) = self.clock.times();
        Finish {
            reason,
            prompt_tokens: self.prompt.len(),
            reused_tokens: self.reused,
            generated_tokens: self.generated.len(),
            prefill_time,
            decode_time,
        }
    }

    /// Brings the cache up to date and the logits of the next token into `self.logits`.
    fn feed(&mut self) -> Result<Fed> {
        if self.cancel.is_cancelled() {
            return Ok(Fed::Cancelled);
        }
        match self.generated.last() {
            None => self.prefill(),
            Some(&id) => {
                let logits = self.forward(&[id], Want::LastLogits)?;
                read_logits(&logits, &mut self.logits)?;
                Ok(Fed::Logits)
            }
        }
    }

    fn prefill(&mut self) -> Result<Fed> {
        self.reused = self.reuse()?;
        let prompt = std::mem::take(&mut self.prompt);
        let result = self.prefill_from(&prompt);
        self.prompt = prompt;
        result
    }

    fn prefill_from(&mut self, prompt: &[u32]) -> Result<Fed> {
        let total = prompt.len();
        let mut done = self.reused;
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
            let output = self.forward(&prompt[done..end], want)?;
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
        let fed = cache.fed_ids(row);
        let common = fed
            .iter()
            .zip(&self.prompt)
            .take_while(|(fed, id)| **fed == Some(**id))
            .count();
        let common = common.min(self.prompt.len() - 1);
        if common == 0 {
            cache.clear_row(row);
        } else if common < fed.len() {
            self.generator.decoder().rewind(cache, row, common)?;
        }
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

/// Copies the `(1, vocab)` logits of one sequence into `buffer`, which keeps its memory.
fn read_logits(logits: &Tensor, buffer: &mut Vec<f32>) -> Result<()> {
    let logits = logits.flatten_all()?.to_dtype(DType::F32)?;
    buffer.clear();
    {
        let (storage, layout) = logits.storage_and_layout();
        if let (Storage::Cpu(CpuStorage::F32(numbers)), Some((start, end))) =
            (&*storage, layout.contiguous_offsets())
        {
            buffer.extend_from_slice(&numbers[start..end]);
            return Ok(());
        }
    }
    buffer.extend(logits.to_vec1::<f32>()?);
    Ok(())
}
