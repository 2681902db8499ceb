//! [`ColbertModel`]: texts in, vectors out.

use std::sync::Arc;

use lfm2_hub::{Checkpoint, Error as HubError, ModelSource, OpenOptions, Tokenizer};
use lfm2_nn::{Decoder, Step, Tensor};
use lfm2_text::{LoadOptions, TextConfig};

use crate::identity::ModelId;
use crate::modules::Modules;
use crate::network::{ColbertNetwork, joined};
use crate::packing::{kept_rows, packed, values};
use crate::reader::{TextReader, TokenInput, filler_of};
use crate::stream::{DocumentStream, EncodeOptions, batches};
use crate::{Error, Result, RetrievalSettings, TokenVectors};

/// The file with the settings.
pub(crate) const SETTINGS: &str = "config_sentence_transformers.json";
/// The file that says whether capitals matter.
const TRANSFORMER: &str = "sentence_bert_config.json";

/// A late-interaction model with its tokenizer and settings. Immutable, shareable between threads, cheap
/// to clone.
///
/// ```no_run
/// use lfm2_colbert::ColbertModel;
///
/// # fn main() -> lfm2_colbert::Result<()> {
/// let model = ColbertModel::open(&"LiquidAI/LFM2.5-ColBERT-350M".parse()?)?;
/// let query = model.encode_query("who wrote the first program?")?;
/// let documents = model.encode_documents(&["Ada Lovelace did.", "It rained."])?;
/// assert_eq!(query.dim(), documents[0].dim());
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct ColbertModel {
    network: ColbertNetwork,
    reader: Arc<TextReader>,
    id: ModelId,
    origin: Arc<str>,
}

impl ColbertModel {
    /// Opens a model: a folder in the layout of sentence-transformers and PyLate, a repository of the
    /// Hub, or a GGUF file of llama.cpp.
    ///
    /// # Errors
    /// As [`Checkpoint::open`] and [`from_checkpoint`](Self::from_checkpoint).
    pub fn open(source: &ModelSource) -> Result<Self> {
        let checkpoint = Checkpoint::open(source, &OpenOptions::default())?;
        Self::from_checkpoint(&checkpoint, &LoadOptions::default())
    }

    /// Builds the model of an opened checkpoint. A GGUF file says nothing of settings, so they are the
    /// [defaults](RetrievalSettings::default).
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
        let info = checkpoint.info();
        if modules.pooling.is_some() {
            return Err(HubError::Unsupported {
                what: format!("{} as a late-interaction model", info.origin()),
                hint: "it has one vector per text; open it as an EmbeddingModel".to_owned(),
            }
            .into());
        }
        let (config, tokenizer) = config_and_tokenizer(checkpoint)?;
        let settings = settings_of(checkpoint)?;
        let filler = filler_of(info, &tokenizer, &config)?;
        let reader = TextReader::new(tokenizer, settings, filler)?;

        let folders = modules.folders.iter();
        let folders = folders.map(|name| Ok((name.clone(), checkpoint.tensors_in(name)?)));
        let tensors = joined(checkpoint.tensors(), folders.collect::<Result<_>>()?);
        let id = ModelId::of("late interaction", &config, &*tensors)?;
        let weights = options.weights(tensors);
        let network = ColbertNetwork::load(config, &modules.dense, &weights)?;
        options.finish(&weights)?;
        Ok(Self {
            network,
            reader: Arc::new(reader),
            id,
            origin: info.origin().into(),
        })
    }

    /// The same model with other settings; weights are shared.
    ///
    /// # Errors
    /// As [`TextReader::new`].
    pub fn with_settings(mut self, settings: RetrievalSettings) -> Result<Self> {
        self.reader = Arc::new(self.reader.with_settings(settings)?);
        Ok(self)
    }

    /// The vectors of a query.
    ///
    /// # Errors
    /// When the text cannot be tokenised, or the weights are damaged so that a vector is not a number.
    pub fn encode_query(&self, text: &str) -> Result<TokenVectors> {
        let input = self.reader.query(text)?;
        let mut vectors = self.encode(std::slice::from_ref(&input))?;
        vectors.pop().ok_or_else(no_vectors)
    }

    /// The vectors of queries, in their order.
    ///
    /// # Errors
    /// As [`encode_query`](Self::encode_query).
    pub fn encode_queries<T: AsRef<str>>(&self, texts: &[T]) -> Result<Vec<TokenVectors>> {
        let inputs = texts.iter().map(|text| self.reader.query(text.as_ref()));
        self.encode(&inputs.collect::<Result<Vec<_>>>()?)
    }

    /// The vectors of documents, in their order. Of more than memory holds, use
    /// [`stream`](Self::stream).
    ///
    /// # Errors
    /// As [`encode_query`](Self::encode_query).
    pub fn encode_documents<T: AsRef<str>>(&self, texts: &[T]) -> Result<Vec<TokenVectors>> {
        let inputs = texts.iter().map(|text| self.reader.document(text.as_ref()));
        self.encode(&inputs.collect::<Result<Vec<_>>>()?)
    }

    /// The vectors of documents that come one after another, in their order and as they are ready. No
    /// more texts are held than fit into a batch. To stop, stop asking.
    ///
    /// ```no_run
    /// # fn index(model: &lfm2_colbert::ColbertModel, texts: Vec<String>) -> lfm2_colbert::Result<()> {
    /// for (number, vectors) in model.stream(texts, Default::default()).enumerate() {
    ///     println!("document {number}: {} vectors", vectors?.rows());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn stream<I>(&self, texts: I, options: EncodeOptions) -> DocumentStream<'_, I::IntoIter>
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        DocumentStream::new(self, texts.into_iter(), options)
    }

    /// The vectors of texts that were read already, in batches of bounded size.
    ///
    /// # Errors
    /// As [`encode_query`](Self::encode_query).
    pub fn encode(&self, inputs: &[TokenInput]) -> Result<Vec<TokenVectors>> {
        let mut vectors = Vec::with_capacity(inputs.len());
        for batch in batches(inputs, EncodeOptions::default().batch_tokens) {
            vectors.extend(self.encode_batch(batch)?);
        }
        Ok(vectors)
    }

    /// The vectors of texts in one pass: one packed matrix, attention and convolutions inside each
    /// text, and so no text sees another.
    pub(crate) fn encode_batch(&self, inputs: &[TokenInput]) -> Result<Vec<TokenVectors>> {
        let dim = self.dim();
        let kept = kept_rows(inputs);
        let values = if kept.is_empty() {
            Vec::new()
        } else {
            let hidden = self.trunk_hidden(inputs)?;
            let kept = Tensor::new(kept.as_slice(), hidden.device())?;
            values(&self.network.project(&hidden.index_select(&kept, 0)?)?)?
        };
        let mut rest = &values[..];
        let split = inputs.iter().map(|input| {
            let (own, behind) = rest
                .split_at_checked(input.kept().len() * dim)
                .ok_or_else(no_vectors)?;
            rest = behind;
            let positions = input.kept().to_vec();
            let vectors =
                TokenVectors::with_positions(own.to_vec(), dim, input.kept_ids(), positions)?;
            Ok(vectors.cut_if(input.is_cut()))
        });
        split.collect()
    }

    /// States behind the trunk's final norm for every id of texts that were read already, one text
    /// after another, `(tokens, hidden)`.
    ///
    /// # Errors
    /// When there are no ids, or one is outside the vocabulary.
    pub fn trunk_hidden(&self, inputs: &[TokenInput]) -> Result<Tensor> {
        let (ids, step) = self.packed(inputs)?;
        Ok(self.network.hidden(&ids, &step)?)
    }

    /// The ids of texts one after another, and where each begins and ends.
    ///
    /// # Errors
    /// When the device fails.
    pub fn packed(&self, inputs: &[TokenInput]) -> Result<(Tensor, Step)> {
        let (device, states) = (self.network.trunk().device(), self.settings().filler_states);
        Ok(packed(inputs, states, device)?)
    }

    /// Numbers per vector.
    pub fn dim(&self) -> usize {
        self.network.dim()
    }

    /// How texts become ids.
    pub fn reader(&self) -> &TextReader {
        &self.reader
    }

    /// The settings.
    pub fn settings(&self) -> &RetrievalSettings {
        self.reader.settings()
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        self.reader.tokenizer()
    }

    /// The network.
    pub fn network(&self) -> &ColbertNetwork {
        &self.network
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

fn no_vectors() -> Error {
    candle_core::Error::msg("a pass gave fewer vectors than there are texts").into()
}

/// The trunk's config and the tokenizer, which fit each other.
pub(crate) fn config_and_tokenizer(checkpoint: &Checkpoint) -> Result<(TextConfig, Tokenizer)> {
    let info = checkpoint.info();
    let config = TextConfig::from_json_within(info.config(), info.limits())?;
    let tokenizer = checkpoint.tokenizer()?;
    if tokenizer.vocab_size() > config.vocab_size {
        let (tokens, rows) = (tokenizer.vocab_size(), config.vocab_size);
        return Err(HubError::invalid_file(
            info.path_of("tokenizer.json"),
            format!("{tokens} tokens for a vocab_size of {rows} in config.json"),
        )
        .into());
    }
    Ok((config, tokenizer))
}

/// The settings of a checkpoint.
fn settings_of(checkpoint: &Checkpoint) -> Result<RetrievalSettings> {
    let info = checkpoint.info();
    let settings = match info.json(SETTINGS)? {
        Some(json) => RetrievalSettings::from_json(&json, &info.path_of(SETTINGS))?,
        None => RetrievalSettings::default(),
    };
    Ok(settings.with_letters(letters_of(checkpoint)?))
}

/// What a checkpoint does with capitals.
pub(crate) fn letters_of(checkpoint: &Checkpoint) -> Result<crate::Letters> {
    let info = checkpoint.info();
    let Some(json) = info.json(TRANSFORMER)? else {
        return Ok(crate::Letters::Keep);
    };
    let path = info.path_of(TRANSFORMER);
    let lower = crate::settings::Keys::new(&json, &path)?.bool("do_lower_case")?;
    Ok(match lower {
        Some(true) => crate::Letters::Lower,
        Some(false) | None => crate::Letters::Keep,
    })
}
