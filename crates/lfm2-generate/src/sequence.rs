//! One text in the making, apart from the model that writes it: [`Sequence`].
//!
//! Knows the prompt, what was drawn, and when it is over; whoever owns one feeds a model and brings
//! the logits. Knows nothing of caches and devices.

use std::fmt;
use std::time::{Duration, Instant};

use lfm2_hub::Tokenizer;

use crate::{
    Error, Finish, FinishReason, GenerationOptions, Generator, Piece, Proposal, Result, Sampler,
    SpecialText, StopCause, StopRules, TextStream, Token,
};

/// A prompt, the tokens drawn behind it, and the rules that make text of them and end it.
pub(crate) struct Sequence {
    prompt: Vec<u32>,
    reused: usize,
    generated: Vec<u32>,
    /// How many tokens may be drawn.
    room: usize,
    sampler: Sampler,
    tokenizer: Tokenizer,
    stream: TextStream,
    stops: StopRules,
    drafted: usize,
    accepted: usize,
    clock: Clock,
}

/// A token that was taken up.
#[derive(Debug)]
pub(crate) struct Drawn {
    pub(crate) piece: Piece,
    /// Why no token follows; `None` while the text goes on.
    pub(crate) ended_by: Option<FinishReason>,
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

impl fmt::Debug for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sequence")
            .field("prompt_tokens", &self.prompt.len())
            .field("generated", &self.generated)
            .field("room", &self.room)
            .finish_non_exhaustive()
    }
}

impl Sequence {
    /// Checks prompt and options for the generator's model.
    pub(crate) fn new(
        generator: &Generator,
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
            .find(|(_, id)| !generator.decoder().accepts(**id))
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
        let tokenizer = generator.tokenizer().clone();
        Ok(Self {
            prompt,
            reused: 0,
            generated: Vec::new(),
            room: options.max_new_tokens.min(left),
            sampler,
            stream: TextStream::new(tokenizer.clone(), SpecialText::Hidden),
            tokenizer,
            stops: StopRules::new(options, generator.stop_ids()),
            drafted: 0,
            accepted: 0,
            clock: Clock::default(),
        })
    }

    /// Chooses which special tokens become text; by default none.
    pub(crate) fn show_special(&mut self, special: SpecialText) {
        self.stream = TextStream::new(self.tokenizer.clone(), special);
    }

    /// The tokens of the prompt; at least one.
    pub(crate) fn prompt(&self) -> &[u32] {
        &self.prompt
    }

    /// The tokens drawn so far.
    pub(crate) fn generated(&self) -> &[u32] {
        &self.generated
    }

    /// Tokens of the prompt and those drawn.
    pub(crate) fn len(&self) -> usize {
        self.prompt.len() + self.generated.len()
    }

    /// `len` tokens of prompt and output from position `start` on, as far as there are any.
    pub(crate) fn tokens(&self, start: usize, len: usize) -> impl Iterator<Item = u32> {
        let all = self.prompt.iter().chain(&self.generated);
        all.skip(start).take(len).copied()
    }

    pub(crate) fn seed(&self) -> u64 {
        self.sampler.seed()
    }

    /// Whether no further token may be drawn.
    pub(crate) fn is_full(&self) -> bool {
        self.generated.len() >= self.room
    }

    /// How many tokens may still be drawn.
    pub(crate) fn room_left(&self) -> usize {
        self.room.saturating_sub(self.generated.len())
    }

    /// What draws the tokens.
    pub(crate) fn sampler(&self) -> &Sampler {
        &self.sampler
    }

    /// Notes that `drafted` tokens were guessed and `accepted` of them became text.
    pub(crate) fn count_drafts(&mut self, drafted: usize, accepted: usize) {
        self.drafted += drafted;
        self.accepted += accepted;
    }

    /// Notes how many tokens of the prompt the cache held already.
    pub(crate) fn set_reused(&mut self, tokens: usize) {
        self.reused = tokens;
    }

    /// Starts counting the time of the prompt; later calls do nothing.
    pub(crate) fn start_clock(&mut self) {
        self.clock.started.get_or_insert_with(Instant::now);
    }

    /// Draws the next token from its logits, which are changed, and takes it up.
    pub(crate) fn draw(&mut self, logits: &mut [f32]) -> Result<Drawn> {
        let token = self.sampler.sample(logits)?;
        self.take_up(token)
    }

    /// Draws the next token where `proposal` was guessed, and takes it up.
    pub(crate) fn draw_proposed(
        &mut self,
        logits: &mut [f32],
        proposal: &Proposal,
    ) -> Result<Drawn> {
        let token = self.sampler.sample_proposed(logits, proposal)?;
        self.take_up(token)
    }

    /// Appends a drawn token.
    fn take_up(&mut self, token: Token) -> Result<Drawn> {
        self.clock.first_token.get_or_insert_with(Instant::now);
        self.generated.push(token.id);
        let (text, ended_by) = self.text_of(token.id)?;
        let token = Some(token);
        Ok(Drawn {
            piece: Piece { text, token },
            ended_by,
        })
    }

    /// The text that `id` makes certain, and whether the text is over with it.
    fn text_of(&mut self, id: u32) -> Result<(String, Option<FinishReason>)> {
        if self.stops.is_stop_id(id) {
            let reason = FinishReason::Stop(StopCause::Id(id));
            return Ok((self.rest(), Some(reason)));
        }
        // Embedding tables have rows that no token uses; a model may still choose one.
        let text = match self.tokenizer.token_bytes(id) {
            Ok(_) => self.stream.push(id)?,
            Err(_) => String::new(),
        };
        let mut released = self.stops.push(&text);
        let ended_by = match released.stopped_by {
            Some(stop) => Some(FinishReason::Stop(StopCause::Text(stop))),
            None if self.is_full() => {
                released.text.push_str(&self.rest());
                Some(FinishReason::Length)
            }
            None => None,
        };
        Ok((released.text, ended_by))
    }

    /// Everything held back, when no token follows.
    pub(crate) fn rest(&mut self) -> String {
        let unfinished = self.stream.finish();
        let mut released = self.stops.push(&unfinished);
        if released.stopped_by.is_none() {
            released.text.push_str(&self.stops.finish());
        }
        released.text
    }

    /// What it took until now.
    pub(crate) fn finish(&self, reason: FinishReason) -> Finish {
        let (prefill_time, decode_time) = self.clock.times();
        Finish {
            reason,
            prompt_tokens: self.prompt.len(),
            reused_tokens: self.reused,
            generated_tokens: self.generated.len(),
            drafted_tokens: self.drafted,
            accepted_tokens: self.accepted,
            prefill_time,
            decode_time,
        }
    }
}
