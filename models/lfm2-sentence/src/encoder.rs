//! [`SentenceEncoder`]: whichever encoder a checkpoint holds.

use std::ops::ControlFlow;
use std::sync::Arc;

use candle_core::{Device, Tensor};
use lfm2_colbert::{ColbertModel, TokenInput};
use lfm2_hub::{Checkpoint, Error as HubError, ModelSource, OpenOptions, Tokenizer};
use lfm2_nn::{Cache, Decoder, Input, Step, Want};
use lfm2_text::{LoadOptions, TextModel};

use crate::bert::{BertConfig, BertNetwork};
use crate::cache::{EmbeddingCache, Key};
use crate::identity::id_of;
use crate::means::Means;
use crate::read::{self, Sentence, WordPieces, transformer_settings};
use crate::site::{Frame, Site, SiteVectors};
use crate::{Error, Result};

/// What an encoder is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum EncoderKind {
    /// An LFM2 text model, or the trunk of a model with one vector per text.
    Text,
    /// A retrieval model with a vector per token.
    LateInteraction,
    /// A BERT-style encoder.
    Bert,
}

/// How sentences become vectors.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct EncodeOptions {
    /// Whether tokens around a text take part in means.
    pub frame: Frame,
    /// The most tokens of a sentence; an encoder that reads fewer has its own limit.
    pub max_tokens: usize,
    /// Tokens of a batch. A longer sentence is a batch of its own.
    pub batch_tokens: usize,
    /// Where vectors are kept from one time to the next.
    pub cache: Option<EmbeddingCache>,
}

impl Default for EncodeOptions {
    fn default() -> Self {
        Self {
            frame: Frame::In,
            max_tokens: 512,
            batch_tokens: 2048,
            cache: None,
        }
    }
}

impl EncodeOptions {
    /// Sets whether tokens around a text take part in means.
    pub fn with_frame(mut self, frame: Frame) -> Self {
        self.frame = frame;
        self
    }

    /// Keeps vectors in `cache`, and takes them from there.
    pub fn with_cache(mut self, cache: EmbeddingCache) -> Self {
        self.cache = Some(cache);
        self
    }
}

/// The vectors of some sentences.
#[derive(Debug, Clone, PartialEq)]
pub struct Encoded {
    /// One entry for each place asked for, in that order.
    pub vectors: Vec<SiteVectors>,
    /// Sentences that were longer than is read. None is counted where all vectors were kept ones.
    pub cut: usize,
    /// Places whose vectors were kept ones.
    pub kept: usize,
}

/// An encoder of sentences. Immutable, shareable between threads, cheap to clone.
#[derive(Debug, Clone)]
pub struct SentenceEncoder {
    network: Network,
    id: Arc<str>,
    origin: Arc<str>,
}

#[derive(Debug, Clone)]
enum Network {
    Text(TextModel, Tokenizer),
    Colbert(ColbertModel),
    Bert(BertNetwork, Arc<WordPieces>),
}

impl SentenceEncoder {
    /// Opens an encoder: a folder, a GGUF file, or a repository of the Hub.
    ///
    /// # Errors
    /// As [`Checkpoint::open`] and [`from_checkpoint`](Self::from_checkpoint).
    pub fn open(source: &ModelSource) -> Result<Self> {
        let checkpoint = Checkpoint::open(source, &OpenOptions::default())?;
        Self::from_checkpoint(&checkpoint, &LoadOptions::default())
    }

    /// Builds the encoder of an opened checkpoint.
    ///
    /// # Errors
    /// When the model is of a kind that is not known, or its files contradict each other.
    pub fn from_checkpoint(checkpoint: &Checkpoint, options: &LoadOptions) -> Result<Self> {
        let kind = kind_of(checkpoint)?;
        let mut parts = vec![checkpoint.tensors()];
        let network = match kind {
            EncoderKind::Text => {
                let model = TextModel::from_checkpoint(checkpoint, options)?;
                Network::Text(model, checkpoint.tokenizer()?)
            }
            EncoderKind::LateInteraction => {
                let model = ColbertModel::from_checkpoint(checkpoint, options)?;
                // Its id stands for the layers behind the trunk, which lie in folders of their own.
                parts.clear();
                Network::Colbert(model)
            }
            EncoderKind::Bert => bert(checkpoint, options)?,
        };
        let name = match &network {
            Network::Colbert(model) => {
                format!("late interaction {} {:?}", model.id(), model.settings())
            }
            Network::Text(..) => "text".to_owned(),
            Network::Bert(..) => format!("bert {:?}", transformer_settings(checkpoint.info())?),
        };
        Ok(Self {
            network,
            id: id_of(&name, checkpoint, &parts, options)?.into(),
            origin: checkpoint.origin().into(),
        })
    }

    /// What kind of encoder it is.
    pub fn kind(&self) -> EncoderKind {
        match &self.network {
            Network::Text(..) => EncoderKind::Text,
            Network::Colbert(_) => EncoderKind::LateInteraction,
            Network::Bert(..) => EncoderKind::Bert,
        }
    }

    /// The retrieval model, if it is one.
    pub fn colbert(&self) -> Option<&ColbertModel> {
        match &self.network {
            Network::Colbert(model) => Some(model),
            Network::Text(..) | Network::Bert(..) => None,
        }
    }

    /// Number of layers.
    pub fn layers(&self) -> usize {
        match &self.network {
            Network::Text(model, _) => model.config().layers.len(),
            Network::Colbert(model) => model.network().trunk().config().layers.len(),
            Network::Bert(network, _) => network.config().layers,
        }
    }

    /// Every place, first to last. That behind the last layer is left out where it is the end.
    pub fn sites(&self) -> Vec<Site> {
        let numbered = match self.kind() {
            EncoderKind::Text | EncoderKind::LateInteraction => self.layers() + 1,
            EncoderKind::Bert => self.layers(),
        };
        (0..numbered)
            .map(Site::Layer)
            .chain([Site::Final])
            .collect()
    }

    /// What tells this encoder from others: 64 hexadecimal digits.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Where the encoder came from, for people.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// The vectors of `texts` at `sites`. `progress` is told how many texts are done, after each batch,
    /// and may stop the work.
    ///
    /// # Errors
    /// When there are no texts or no such place, a sentence cannot be read or has no token that a mean could be over,
    /// vectors cannot be kept, or the caller stopped.
    pub fn encode<T: AsRef<str>>(
        &self,
        texts: &[T],
        sites: &[Site],
        options: &EncodeOptions,
        progress: &mut dyn FnMut(usize) -> ControlFlow<()>,
    ) -> Result<Encoded> {
        if let Some(site) = sites.iter().find(|site| !self.has(**site)) {
            let (layers, origin) = (self.layers(), &self.origin);
            return Err(Error::input(format!(
                "layer {site}: {origin} has {layers} layers, named 0 (the embeddings) to {layers} and \"final\""
            )));
        }
        if texts.is_empty() {
            return Err(Error::input("there is no sentence to encode"));
        }
        let settings = format!("{:?} {}", options.frame, options.max_tokens);
        let key = Key::new(&self.id, &settings, texts);
        let cache = options.cache.as_ref();
        let load = |&site: &Site| cache.and_then(|cache| cache.load(&key, site, texts.len()));
        let mut found: Vec<Option<SiteVectors>> = sites.iter().map(load).collect();
        let kept = found.iter().flatten().count();
        let wanted = sites
            .iter()
            .zip(&found)
            .filter(|(_, found)| found.is_none());
        let wanted: Vec<Site> = wanted.map(|(site, _)| *site).collect();
        let (fresh, cut) = self.encode_fresh(texts, &wanted, options, progress)?;
        for vectors in &fresh {
            if let Some(cache) = cache {
                cache.store(&key, vectors)?;
            }
        }
        let mut fresh = fresh.into_iter();
        for slot in found.iter_mut().filter(|slot| slot.is_none()) {
            *slot = fresh.next();
        }
        Ok(Encoded {
            vectors: found.into_iter().flatten().collect(),
            cut,
            kept,
        })
    }

    fn has(&self, site: Site) -> bool {
        match site {
            Site::Layer(number) => number <= self.layers(),
            Site::Final => true,
        }
    }

    /// Runs the network over all texts, and how many of them were cut.
    fn encode_fresh<T: AsRef<str>>(
        &self,
        texts: &[T],
        sites: &[Site],
        options: &EncodeOptions,
        progress: &mut dyn FnMut(usize) -> ControlFlow<()>,
    ) -> Result<(Vec<SiteVectors>, usize)> {
        let mut all: Vec<SiteVectors> = Vec::new();
        if sites.is_empty() {
            return Ok((all, 0));
        }
        let (mut batch, mut tokens, mut done, mut cut) = (Batch::default(), 0, 0, 0);
        for (at, text) in texts.iter().enumerate() {
            let (sentence, input) = self.read(text.as_ref(), options)?;
            let length = sentence.ids.len();
            if tokens > 0 && tokens + length > options.batch_tokens {
                extend(&mut all, self.run(&std::mem::take(&mut batch), sites)?);
                (tokens, done) = (0, at);
                if progress(done).is_break() {
                    return Err(Error::Cancelled);
                }
            }
            tokens += length;
            cut += usize::from(sentence.cut);
            batch.sentences.push(sentence);
            batch.inputs.extend(input);
        }
        if done < texts.len() {
            extend(&mut all, self.run(&batch, sites)?);
            if progress(texts.len()).is_break() {
                return Err(Error::Cancelled);
            }
        }
        Ok((all, cut))
    }

    fn read(&self, text: &str, options: &EncodeOptions) -> Result<(Sentence, Option<TokenInput>)> {
        let frame = options.frame;
        Ok(match &self.network {
            Network::Text(_, tokenizer) => (
                read::text(tokenizer, text, frame, options.max_tokens)?,
                None,
            ),
            Network::Colbert(model) => {
                let (sentence, input) = read::document(model, text, frame)?;
                (sentence, Some(input))
            }
            Network::Bert(_, pieces) => (pieces.read(text, frame)?, None),
        })
    }

    /// One pass over a batch.
    fn run(&self, batch: &Batch, sites: &[Site]) -> Result<Vec<SiteVectors>> {
        let mut means = Means::new(&batch.sentences, sites);
        let last = match &self.network {
            Network::Text(model, _) => {
                let (ids, lens) = batch.packed(model.device())?;
                states(model, &ids, &Step::rows(&lens), &mut means)?
            }
            Network::Colbert(model) => {
                let (ids, step) = model.packed(&batch.inputs)?;
                let states = states(model.network().trunk(), &ids, &step, &mut means)?;
                model.network().project(&states)?
            }
            Network::Bert(network, _) => {
                let (ids, lens) = batch.packed(network.device())?;
                network.forward(&ids, &lens, Some(&mut means))?
            }
        };
        means.take(Site::Final, &last)?;
        Ok(means.finish()?)
    }
}

/// Texts that go through a network together.
#[derive(Debug, Default)]
struct Batch {
    sentences: Vec<Sentence>,
    /// The same texts as retrieval models know them.
    inputs: Vec<TokenInput>,
}

impl Batch {
    /// The ids one after another, and how many of them each text has.
    fn packed(&self, device: &Device) -> Result<(Tensor, Vec<usize>)> {
        let ids: Vec<u32> = self
            .sentences
            .iter()
            .flat_map(|text| text.ids.iter().copied())
            .collect();
        let lens = self.sentences.iter().map(|text| text.ids.len()).collect();
        Ok((Tensor::new(ids.as_slice(), device)?, lens))
    }
}

/// States behind the final norm of a text model, with somebody watching.
fn states(model: &TextModel, ids: &Tensor, step: &Step, means: &mut Means<'_>) -> Result<Tensor> {
    let mut cache = Cache::stateless(step.segments().len());
    let input = Input::Ids(ids);
    Ok(model.forward_observed(input, step, &mut cache, Want::Hidden, Some(means))?)
}

fn extend(all: &mut Vec<SiteVectors>, batch: Vec<SiteVectors>) {
    if all.is_empty() {
        *all = batch;
        return;
    }
    for (all, batch) in all.iter_mut().zip(batch) {
        all.values.extend(batch.values);
    }
}

/// What the files of a checkpoint say it is.
fn kind_of(checkpoint: &Checkpoint) -> Result<EncoderKind> {
    const DENSE: &str = "Dense";
    let info = checkpoint.info();
    let model_type = checkpoint
        .config()
        .get("model_type")
        .and_then(|value| value.as_str());
    if model_type == Some("bert") {
        return Ok(EncoderKind::Bert);
    }
    if info.gguf().is_some() {
        let has_dense = checkpoint.tensors().info("dense_2.weight").is_some();
        return Ok(if has_dense {
            EncoderKind::LateInteraction
        } else {
            EncoderKind::Text
        });
    }
    let modules = info.json("modules.json")?;
    let modules = modules
        .as_ref()
        .and_then(|json| json.as_array())
        .into_iter()
        .flatten();
    let mut types = modules.filter_map(|module| module.get("type")?.as_str());
    if types.any(|kind| kind.rsplit('.').next() == Some(DENSE)) {
        return Ok(EncoderKind::LateInteraction);
    }
    match model_type {
        Some(name) if !name.starts_with("lfm") => Err(HubError::Unsupported {
            what: format!("an encoder of model_type \"{name}\" ({})", info.origin()),
            hint: "lfm2, lfm2_moe, lfm3 and bert are".to_owned(),
        }
        .into()),
        _ => Ok(EncoderKind::Text),
    }
}

fn bert(checkpoint: &Checkpoint, options: &LoadOptions) -> Result<Network> {
    let info = checkpoint.info();
    let config = BertConfig::from_json_within(checkpoint.config(), info.limits())?;
    let (stated, lower) = transformer_settings(info)?;
    let length = stated.unwrap_or(config.positions).min(config.positions);
    let pieces = WordPieces::open(info, length, lower)?;
    if pieces.size() > config.vocab_size {
        let detail = format!(
            "{} tokens for a vocab_size of {} in config.json",
            pieces.size(),
            config.vocab_size
        );
        return Err(HubError::invalid_file(info.path_of("tokenizer.json"), detail).into());
    }
    let weights = options.weights(checkpoint.tensors());
    let network = BertNetwork::load(config, &weights)?;
    options.finish(&weights)?;
    Ok(Network::Bert(network, Arc::new(pieces)))
}
