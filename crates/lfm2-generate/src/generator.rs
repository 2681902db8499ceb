//! What it takes to write text with a model: [`Generator`].

use std::fmt;
use std::sync::Arc;

use lfm2_hub::{Bos, Checkpoint, SpecialTokens, Tokenizer};
use lfm2_nn::{Cache, CacheSpec, Decoder};
use serde_json::Value;

use crate::place::Place;
use crate::{Error, Generation, GenerationOptions, Result, stop_ids};

/// The context that every published config of the family states.
const DEFAULT_CONTEXT: usize = 128_000;

/// A decoder with its tokenizer: all that writing text takes. Cloning is cheap.
#[derive(Clone)]
pub struct Generator {
    decoder: Arc<dyn Decoder>,
    tokenizer: Tokenizer,
    stop_ids: Vec<u32>,
    context: usize,
    draft: Option<Arc<dyn Decoder>>,
}

impl fmt::Debug for Generator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Generator")
            .field("vocab_size", &self.decoder.vocab_size())
            .field("tokenizer", &self.tokenizer)
            .field("stop_ids", &self.stop_ids)
            .field("context", &self.context)
            .field("has_draft", &self.draft.is_some())
            .finish_non_exhaustive()
    }
}

impl Generator {
    /// A generator without end tokens and with the context of 128,000 tokens that all checkpoints of
    /// the family state.
    pub fn new(decoder: Arc<dyn Decoder>, tokenizer: Tokenizer) -> Self {
        Self {
            decoder,
            tokenizer,
            stop_ids: Vec::new(),
            context: DEFAULT_CONTEXT,
            draft: None,
        }
    }

    /// A generator with the tokenizer, the end tokens and the context of a checkpoint.
    ///
    /// # Errors
    /// When the tokenizer cannot be read, or an end token is not in the vocabulary.
    pub fn for_checkpoint(decoder: Arc<dyn Decoder>, checkpoint: &Checkpoint) -> Result<Self> {
        let tokenizer = checkpoint.tokenizer()?;
        let config = checkpoint.config();
        let stop_ids = stop_ids(
            checkpoint.generation_config(),
            config,
            &tokenizer,
            decoder.vocab_size(),
        )?;
        let context = config
            .get("max_position_embeddings")
            .and_then(Value::as_u64);
        let context = context
            .and_then(|tokens| usize::try_from(tokens).ok())
            .unwrap_or(DEFAULT_CONTEXT);
        Ok(Self {
            decoder,
            tokenizer,
            stop_ids,
            context,
            draft: None,
        })
    }

    /// Sets the tokens that end a text; see [`stop_ids`](crate::stop_ids).
    pub fn with_stop_ids(mut self, ids: Vec<u32>) -> Self {
        self.stop_ids = ids;
        self
    }

    /// Sets how many tokens prompt and output may have together.
    pub fn with_context(mut self, tokens: usize) -> Self {
        self.context = tokens;
        self
    }

    /// Sets a smaller model that guesses tokens ahead where
    /// [`Speculation::DraftModel`](crate::Speculation::DraftModel) is chosen. `tokenizer` is that
    /// model's own, where known.
    ///
    /// # Errors
    /// When the two vocabularies differ.
    pub fn with_draft(
        mut self,
        draft: Arc<dyn Decoder>,
        tokenizer: Option<&Tokenizer>,
    ) -> Result<Self> {
        let (vocab, found) = (self.decoder.vocab_size(), draft.vocab_size());
        if found != vocab {
            return Err(Error::InvalidInput(format!(
                "draft model: expected a vocabulary of {vocab} like the model's, found {found}"
            )));
        }
        if let Some(tokenizer) = tokenizer {
            same_tokens(&self.tokenizer, tokenizer)?;
        }
        self.draft = Some(draft);
        Ok(self)
    }

    /// The smaller model that guesses tokens ahead, if there is one.
    pub fn draft(&self) -> Option<&dyn Decoder> {
        self.draft.as_deref()
    }

    /// The model.
    pub fn decoder(&self) -> &dyn Decoder {
        self.decoder.as_ref()
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The tokens that end a text.
    pub fn stop_ids(&self) -> &[u32] {
        &self.stop_ids
    }

    /// How many tokens prompt and output may have together.
    pub fn context(&self) -> usize {
        self.context
    }

    /// Continues `prompt`, with the beginning-of-sequence token put before it. Special tokens spelled
    /// in the prompt count as such.
    ///
    /// # Errors
    /// When the prompt is empty or longer than the context, or an option is not valid.
    pub fn generate(&self, prompt: &str, options: &GenerationOptions) -> Result<Generation<'_>> {
        self.generate_ids(self.encode_prompt(prompt)?, options)
    }

    /// The tokens of a prompt of plain text.
    pub(crate) fn encode_prompt(&self, prompt: &str) -> Result<Vec<u32>> {
        if prompt.is_empty() {
            return Err(Error::InvalidInput("the prompt is empty".to_owned()));
        }
        Ok(self
            .tokenizer
            .encode(prompt, SpecialTokens::Parse, Bos::Add)?)
    }

    /// Continues the sequence `ids` exactly as given.
    ///
    /// # Errors
    /// As [`Generator::generate`], and when an id is outside the vocabulary.
    pub fn generate_ids(
        &self,
        ids: Vec<u32>,
        options: &GenerationOptions,
    ) -> Result<Generation<'_>> {
        let cache = self.decoder.new_cache(CacheSpec::rows(1));
        Generation::new(self, Place::Own(cache), ids, options)
    }

    /// Continues the sequence `ids` in row `row` of `cache`. The tokens that the row holds already,
    /// from the start up to the first difference, are not fed again; what differs is cut off.
    ///
    /// # Errors
    /// As [`Generator::generate_ids`], and when the cache has no such row.
    pub fn generate_in<'a>(
        &'a self,
        cache: &'a mut Cache,
        row: usize,
        ids: Vec<u32>,
        options: &GenerationOptions,
    ) -> Result<Generation<'a>> {
        Generation::new(self, Place::lent(cache, row)?, ids, options)
    }
}

/// Checks that every id means the same to both.
fn same_tokens(model: &Tokenizer, draft: &Tokenizer) -> Result<()> {
    let size = model.vocab_size().max(draft.vocab_size());
    let size = u32::try_from(size).unwrap_or(u32::MAX);
    let differs = |id: &u32| model.token_bytes(*id).ok() != draft.token_bytes(*id).ok();
    let Some(id) = (0..size).find(differs) else {
        return Ok(());
    };
    let name = |tokenizer: &Tokenizer| match tokenizer.token_text(id) {
        Some(text) => format!("{text:?}"),
        None => "none".to_owned(),
    };
    Err(Error::InvalidInput(format!(
        "draft model: token {id}: expected {}, found {}",
        name(model),
        name(draft)
    )))
}
