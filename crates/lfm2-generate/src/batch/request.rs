//! What goes into a [`Batch`](super::Batch) and what comes out of it.

use std::fmt;

use lfm2_nn::DType;

use crate::sequence::Sequence;
use crate::{
    Cancel, ChatPrompt, Error, Finish, GenerationOptions, Generator, Piece, Result, SpecialText,
};

/// How many texts are written together, and how their prompts are read.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct BatchOptions {
    /// Texts written together at most; at least 1. Each takes its share of memory for keys and
    /// values, also for a while after it is over.
    pub max_rows: usize,
    /// Requests that may wait beyond those; more are refused with [`Error::Busy`].
    pub max_waiting: usize,
    /// Prompt tokens read per step, of all prompts together; 0 counts as 1. More read prompts
    /// faster, fewer let the texts that are being written wait less for them.
    pub prefill_chunk: usize,
    /// Number type of keys and values, `F32`, `F16` or `BF16`; `None` is the model's own.
    pub kv_dtype: Option<DType>,
}

impl Default for BatchOptions {
    fn default() -> Self {
        Self {
            max_rows: 8,
            max_waiting: 1024,
            prefill_chunk: 256,
            kv_dtype: None,
        }
    }
}

impl BatchOptions {
    /// Sets [`max_rows`](Self::max_rows).
    pub fn with_max_rows(mut self, rows: usize) -> Self {
        self.max_rows = rows;
        self
    }

    /// Sets [`max_waiting`](Self::max_waiting).
    pub fn with_max_waiting(mut self, requests: usize) -> Self {
        self.max_waiting = requests;
        self
    }

    /// Sets [`prefill_chunk`](Self::prefill_chunk).
    pub fn with_prefill_chunk(mut self, tokens: usize) -> Self {
        self.prefill_chunk = tokens;
        self
    }

    /// Sets [`kv_dtype`](Self::kv_dtype).
    pub fn with_kv_dtype(mut self, dtype: DType) -> Self {
        self.kv_dtype = Some(dtype);
        self
    }

    /// Checks every option.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] names the first option without a meaning.
    pub fn validate(&self) -> Result<()> {
        if self.max_rows == 0 {
            return Err(Error::option("max_rows", "at least 1", &self.max_rows));
        }
        match self.kv_dtype {
            None | Some(DType::F32 | DType::F16 | DType::BF16) => Ok(()),
            Some(other) => Err(Error::option(
                "kv_dtype",
                "F32, F16 or BF16",
                &format!("{other:?}"),
            )),
        }
    }
}

#[derive(Debug, Clone)]
enum Prompt {
    Text(String),
    Ids(Vec<u32>),
    Chat(ChatPrompt),
}

/// A prompt with the way to continue it.
#[derive(Debug, Clone)]
pub struct Request {
    prompt: Prompt,
    options: GenerationOptions,
    special: Option<SpecialText>,
    cancel: Cancel,
}

impl Request {
    fn new(prompt: Prompt, options: GenerationOptions) -> Self {
        Self {
            prompt,
            options,
            special: None,
            cancel: Cancel::new(),
        }
    }

    /// Continues plain text, as [`Generator::generate`].
    pub fn text(prompt: impl Into<String>, options: GenerationOptions) -> Self {
        Self::new(Prompt::Text(prompt.into()), options)
    }

    /// Continues a sequence of tokens, as [`Generator::generate_ids`].
    pub fn ids(prompt: Vec<u32>, options: GenerationOptions) -> Self {
        Self::new(Prompt::Ids(prompt), options)
    }

    /// Answers a conversation. The text has the marks that [`ChatPrompt::answer_stream`] reads.
    pub fn chat(prompt: ChatPrompt, options: GenerationOptions) -> Self {
        Self::new(Prompt::Chat(prompt), options)
    }

    /// Stops when `cancel` is used, between two steps. Several requests may share one switch;
    /// [`Batch::cancel`](super::Batch::cancel) stops one alone.
    pub fn with_cancel(mut self, cancel: &Cancel) -> Self {
        self.cancel = cancel.clone();
        self
    }

    /// Chooses which special tokens become text; by default none, or those that the reader of a
    /// conversation needs.
    pub fn with_special_text(mut self, special: SpecialText) -> Self {
        self.special = Some(special);
        self
    }

    /// Checks prompt and options.
    pub(super) fn into_task(self, id: RequestId, generator: &Generator) -> Result<Task> {
        let mut special = self.special;
        let ids = match self.prompt {
            Prompt::Text(text) => generator.encode_prompt(&text)?,
            Prompt::Ids(ids) => ids,
            Prompt::Chat(prompt) => {
                special.get_or_insert_with(|| prompt.special_text(generator.tokenizer()));
                prompt.ids().to_vec()
            }
        };
        let mut sequence = Sequence::new(generator, ids, &self.options)?;
        if let Some(special) = special {
            sequence.show_special(special);
        }
        Ok(Task {
            id,
            sequence,
            cancel: self.cancel,
            is_dropped: false,
            is_suspect: false,
        })
    }
}

/// The name of a request in its batch; later requests have larger ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub(super) u64);

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What happened to a request in one step.
#[derive(Debug)]
#[non_exhaustive]
pub enum BatchEvent {
    /// A token was drawn, or text that was held back came free.
    Piece(Piece),
    /// The text is over; the last event of its request.
    Finished(Finish),
    /// It could not go on; the last event of its request. Others are not concerned.
    Failed(Error),
}

/// A request that was accepted and is not over.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) id: RequestId,
    pub(super) sequence: Sequence,
    cancel: Cancel,
    pub(super) is_dropped: bool,
    /// Whether it was in a pass that failed, perhaps because of it; it then runs alone until it has
    /// caught up.
    pub(super) is_suspect: bool,
}

impl Task {
    pub(super) fn is_cancelled(&self) -> bool {
        self.is_dropped || self.cancel.is_cancelled()
    }
}
