//! [`EmbeddingModel`]: one vector per text.

use std::path::Path;
use std::sync::Arc;

use lfm2_hub::{Checkpoint, Error as HubError, ModelSource, OpenOptions, Tokenizer};
use lfm2_nn::{Cache, Decoder, FillerStates, Input, Tensor, Want};
use lfm2_text::{LoadOptions, TextModel};
use serde_json::Value;

use crate::identity::ModelId;
use crate::model::{SETTINGS, config_and_tokenizer, letters_of};
use crate::modules::Modules;
use crate::network::unit;
use crate::packing::{kept_rows, packed, values};
use crate::reader::{TokenInput, first_ids, strip};
use crate::settings::{Keys, Letters};
use crate::stream::{EncodeOptions, batches};
use crate::{Error, Result};

/// The file with the length of texts.
const TRANSFORMER: &str = "sentence_bert_config.json";
/// Tokens of a text where a model does not say.
const DEFAULT_LENGTH: usize = 512;

/// What is written in front of texts, and how much of them is read.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct EmbeddingSettings {
    /// In front of a query.
    pub query_prompt: String,
    /// In front of a document.
    pub document_prompt: String,
    /// The most tokens of a text, beginning and prompt included.
    pub length: usize,
    /// Capital letters.
    pub letters: Letters,
}

impl EmbeddingSettings {
    /// Reads what a checkpoint says. A GGUF file says nothing, so it has the prompts of the published
    /// model.
    fn of(checkpoint: &Checkpoint) -> Result<Self> {
        let info = checkpoint.info();
        let mut settings = Self {
            query_prompt: String::new(),
            document_prompt: String::new(),
            length: DEFAULT_LENGTH,
            letters: letters_of(checkpoint)?,
        };
        if info.gguf().is_some() {
            settings.query_prompt = "query: ".to_owned();
            settings.document_prompt = "document: ".to_owned();
        }
        if let Some(json) = info.json(SETTINGS)? {
            settings.read_prompts(&json, &info.path_of(SETTINGS))?;
        }
        if let Some(json) = info.json(TRANSFORMER)? {
            let path = info.path_of(TRANSFORMER);
            if let Some(length) = Keys::new(&json, &path)?.length("max_seq_length")? {
                settings.length = length;
            }
        }
        Ok(settings)
    }

    fn read_prompts(&mut self, json: &Value, path: &Path) -> Result<()> {
        let keys = Keys::new(json, path)?;
        let Some(prompts) = keys.get("prompts") else {
            return Ok(());
        };
        let prompts = Keys::new(prompts, path)?;
        if let Some(prompt) = prompts.str("query")? {
            self.query_prompt = prompt.to_owned();
        }
        if let Some(prompt) = prompts.str("document")? {
            self.document_prompt = prompt.to_owned();
        }
        Ok(())
    }
}

/// A model with one vector per text, compared by [`cosine`]. Immutable, shareable between threads, cheap
/// to clone.
#[derive(Debug, Clone)]
pub struct EmbeddingModel {
    trunk: TextModel,
    tokenizer: Tokenizer,
    settings: EmbeddingSettings,
    normalised: bool,
    id: ModelId,
    origin: Arc<str>,
}

impl EmbeddingModel {
    /// Opens a model: a folder in the layout of sentence-transformers, a repository of the Hub, or a
    /// GGUF file of llama.cpp.
    ///
    /// # Errors
    /// As [`Checkpoint::open`] and [`from_checkpoint`](Self::from_checkpoint).
    pub fn open(source: &ModelSource) -> Result<Self> {
        let checkpoint = Checkpoint::open(source, &OpenOptions::default())?;
        Self::from_checkpoint(&checkpoint, &LoadOptions::default())
    }

    /// Builds the model of an opened checkpoint.
    ///
    /// # Errors
    /// When files are missing, contradict each other, or ask for something that is not known; the
    /// file and the key are named.
    pub fn from_checkpoint(checkpoint: &Checkpoint, options: &LoadOptions) -> Result<Self> {
        Self::with_modules(checkpoint, &Modules::read(checkpoint)?, options)
    }

    pub(crate) fn with_modules(
        checkpoint: &Checkpoint,
        modules: &Modules,
        options: &LoadOptions,
    ) -> Result<Self> {
        if modules.pooling.is_none() {
            return Err(HubError::Unsupported {
                what: format!("{} as a model of one vector per text", checkpoint.origin()),
                hint: "it has one per token; open it as a ColbertModel".to_owned(),
            }
            .into());
        }
        let (config, tokenizer) = config_and_tokenizer(checkpoint)?;
        let tensors = checkpoint.tensors();
        Ok(Self {
            id: ModelId::of("single vector", &config, &*tensors)?,
            trunk: TextModel::from_tensors(config, tensors, options)?,
            tokenizer,
            settings: EmbeddingSettings::of(checkpoint)?,
            normalised: modules.normalised,
            origin: checkpoint.origin().into(),
        })
    }

    /// The same model with other settings; weights are shared.
    ///
    /// # Errors
    /// When the length is 0.
    pub fn with_settings(mut self, settings: EmbeddingSettings) -> Result<Self> {
        if settings.length == 0 {
            return Err(Error::input("a text needs at least one token"));
        }
        self.settings = settings;
        Ok(self)
    }

    /// The vectors of queries, in their order.
    ///
    /// # Errors
    /// When a text cannot be tokenised, or the weights are damaged so that a vector is not a number.
    pub fn encode_queries<T: AsRef<str>>(&self, texts: &[T]) -> Result<Vec<Vec<f32>>> {
        self.encode(&self.settings.query_prompt, texts)
    }

    /// The vectors of documents, in their order.
    ///
    /// # Errors
    /// As [`encode_queries`](Self::encode_queries).
    pub fn encode_documents<T: AsRef<str>>(&self, texts: &[T]) -> Result<Vec<Vec<f32>>> {
        self.encode(&self.settings.document_prompt, texts)
    }

    fn encode<T: AsRef<str>>(&self, prompt: &str, texts: &[T]) -> Result<Vec<Vec<f32>>> {
        let read = |text: &T| self.read(prompt, text.as_ref());
        let inputs: Vec<TokenInput> = texts.iter().map(read).collect::<Result<_>>()?;
        let mut vectors = Vec::with_capacity(inputs.len());
        for batch in batches(&inputs, EncodeOptions::default().batch_tokens) {
            let (ids, step) = packed(batch, FillerStates::Flow, self.trunk.device())?;
            let mut cache = Cache::stateless(step.segments().len());
            let input = Input::Ids(&ids);
            let hidden = self.trunk.forward(input, &step, &mut cache, Want::Hidden)?;
            let first = Tensor::new(kept_rows(batch), hidden.device())?;
            let mut rows = hidden.index_select(&first, 0)?;
            if self.normalised {
                rows = unit(&rows)?;
            }
            vectors.extend(values(&rows)?.chunks_exact(self.dim()).map(<[f32]>::to_vec));
        }
        Ok(vectors)
    }

    fn read(&self, prompt: &str, text: &str) -> Result<TokenInput> {
        let text = format!("{prompt}{text}");
        let text = match self.settings.letters {
            Letters::Keep => strip(&text).to_owned(),
            Letters::Lower => strip(&text).to_lowercase(),
        };
        let (ids, cut) = first_ids(&self.tokenizer, &text, self.settings.length)?;
        if ids.is_empty() {
            return Err(Error::input("a text without any token has no vector"));
        }
        Ok(TokenInput::keeping_first(ids, cut))
    }

    /// Numbers per vector.
    pub fn dim(&self) -> usize {
        self.trunk.config().hidden_size
    }

    /// The settings.
    pub fn settings(&self) -> &EmbeddingSettings {
        &self.settings
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The network.
    pub fn trunk(&self) -> &TextModel {
        &self.trunk
    }

    /// What tells this model from others.
    pub fn id(&self) -> &ModelId {
        &self.id
    }

    /// Where the model came from, for people.
    pub fn origin(&self) -> &str {
        &self.origin
    }
}

/// The cosine of the angle between two vectors; 0 where one has no length.
pub fn cosine(a: &[f32], b: &[f32]) -> f32 {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        let products = a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b));
        products.sum()
    };
    let lengths = (dot(a, a) * dot(b, b)).sqrt();
    if lengths == 0.0 {
        0.0
    } else {
        (dot(a, b) / lengths) as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cosines_do_not_depend_on_lengths() {
        assert_eq!(cosine(&[1., 0.], &[0., 2.]), 0.0);
        assert!((cosine(&[1., 2.], &[-2., -4.]) + 1.0).abs() < 1e-6);
        assert_eq!(cosine(&[0., 0.], &[1., 2.]), 0.0);
    }
}
