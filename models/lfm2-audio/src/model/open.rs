//! Opening a checkpoint: a folder in the released layout, or the GGUF files of llama.cpp's.

use std::path::Path;
use std::sync::Arc;

use lfm2_hub::{
    Checkpoint, Error, ErrorKind, ModelSource, OpenOptions, Result, TensorSource, Tokenizer,
    fetch_gguf,
};
use lfm2_text::{LoadOptions, TextModel};

use super::{AudioModel, SpecialIds, Vocoder};
use crate::config::{AudioConfig, CODE_ROWS, DetokenizerConfig};
use crate::gguf::AudioGguf;
use crate::layout::AsMatrices;
use crate::types::{self, Holds};
use crate::{Adapter, Depthformer, Detokenizer, Encoder, MelFrontEnd, Mimi, MimiConfig};

/// The file of the Mimi codec.
const MIMI_FILE: &str = "tokenizer-e351c8d8-checkpoint125.safetensors";
/// The folder of the detokenizer.
const DETOKENIZER_FOLDER: &str = "audio_detokenizer";
/// Tensors of a checkpoint that play no part in what the model does.
const UNUSED: [&str; 4] = [
    "audio_embedding.embedding_norm.weight",
    "audio_embedding.to_logits.weight",
    "audio_loss_weights",
    "codebook_offsets",
];

/// Which decoder of sound to load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Output {
    /// The detokenizer where there is one, else Mimi where there is that, else none.
    #[default]
    Best,
    /// The detokenizer.
    Detokenizer,
    /// Mimi.
    Mimi,
    /// None: the model writes only.
    TextOnly,
}

/// How to open an audio model.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct AudioOptions {
    /// How files are found and read.
    pub open: OpenOptions,
    /// How weights are loaded.
    pub load: LoadOptions,
    /// Which decoder of sound to load.
    pub output: Output,
    /// Sizes of the Mimi codec.
    pub mimi: MimiConfig,
}

impl AudioOptions {
    /// Loads weights like this.
    pub fn with_load(mut self, load: LoadOptions) -> Self {
        self.load = load;
        self
    }

    /// Finds and reads files like this.
    pub fn with_open(mut self, open: OpenOptions) -> Self {
        self.open = open;
        self
    }

    /// Loads this decoder of sound.
    pub fn with_output(mut self, output: Output) -> Self {
        self.output = output;
        self
    }

    /// Expects a Mimi codec of these sizes.
    pub fn with_mimi(mut self, mimi: MimiConfig) -> Self {
        self.mimi = mimi;
        self
    }
}

impl AudioModel {
    /// Opens the checkpoint at `source`.
    ///
    /// # Errors
    /// [`Error::NotFound`] for files that are not there, [`Error::Unsupported`] for another
    /// architecture, and whatever reading and checking a checkpoint gives.
    pub fn open(source: &ModelSource, options: &AudioOptions) -> Result<Self> {
        match source {
            ModelSource::Gguf(path) => Self::open_gguf(path, options),
            ModelSource::HubGguf { id, revision, file } => {
                let path = fetch_gguf(id, revision, file, &options.open)?;
                for part in crate::gguf::PARTS {
                    // What is missing is an error where it is opened, unless it need not be there.
                    match fetch_gguf(id, revision, &format!("{part}-{file}"), &options.open) {
                        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                        _ => {}
                    }
                }
                Self::open_gguf(&path, options)
            }
            ModelSource::Dir(_) | ModelSource::Hub { .. } => {
                Self::from_checkpoint(&Checkpoint::open(source, &options.open)?, options)
            }
        }
    }

    /// Builds the model of an opened checkpoint in the released layout.
    ///
    /// # Errors
    /// As [`AudioModel::open`].
    pub fn from_checkpoint(checkpoint: &Checkpoint, options: &AudioOptions) -> Result<Self> {
        let limits = checkpoint.info().limits();
        let config = AudioConfig::from_json(checkpoint.config(), limits)?;
        let tokenizer = checkpoint.tokenizer()?;
        let vocoder = vocoder(checkpoint, &config, options)?;
        Self::from_tensors(config, checkpoint.tensors(), tokenizer, &options.load)
            .map(|model| model.with_vocoder(vocoder))
    }

    /// Opens the backbone at `path` and what belongs to it.
    fn open_gguf(path: &Path, options: &AudioOptions) -> Result<Self> {
        let limits = options.open.chosen_limits();
        let files = AudioGguf::open(path, limits, options.open.chosen_mapping())?;
        let config = AudioConfig::from_json(&files.config()?, limits)?;
        let vocoder = match (options.output, files.detokenizer()?) {
            (Output::TextOnly, _) | (Output::Best, None) => None,
            (Output::Best | Output::Detokenizer, Some((facts, tensors))) => {
                let facts = DetokenizerConfig::from_json(&facts, limits)?;
                let load = &options.load;
                let loaded = Detokenizer::from_tensors(facts, config.codebooks, tensors, load)?;
                Some(Vocoder::Detokenizer(Box::new(loaded)))
            }
            (output, _) => {
                return Err(Error::NotFound {
                    what: format!("the {output:?} output of {}", path.display()),
                    hint: "gguf files have the detokenizer in a file tokenizer-*.gguf".to_owned(),
                });
            }
        };
        Self::from_tensors(config, files.tensors(), files.tokenizer()?, &options.load)
            .map(|model| model.with_vocoder(vocoder))
    }

    /// Builds a model that writes only from its config, tensors and tokenizer.
    ///
    /// # Errors
    /// When a tensor is missing or contradicts the config, or tensors are left over and the options are
    /// [strict](LoadOptions::strict).
    pub fn from_tensors(
        config: AudioConfig,
        tensors: Arc<dyn TensorSource>,
        tokenizer: Tokenizer,
        options: &LoadOptions,
    ) -> Result<Self> {
        let tensors = Arc::new(AsMatrices::without(tensors, unused(&config)));
        let weights = types::weights(options, tensors, Holds::Model);
        let hidden = config.text.hidden_size;
        let rows = config.codebooks * CODE_ROWS;
        let model = Self {
            front: MelFrontEnd::new(config.mel)?,
            text: TextModel::load(config.text.clone(), &weights)?,
            encoder: Encoder::load(&config.encoder, &weights.pp("conformer").coarse())?,
            adapter: Adapter::load(
                config.encoder.width,
                hidden,
                &weights.pp("audio_adapter").coarse(),
            )?,
            codes: weights
                .pp("audio_embedding")
                .pp("embedding")
                .embedding(rows, hidden)?,
            depth: Depthformer::load(&config.depth, config.codebooks, hidden, &weights)?,
            special: SpecialIds::of(&tokenizer),
            tokenizer,
            vocoder: None,
            config,
        };
        options.finish(&weights)?;
        Ok(model)
    }

    /// The same model with this decoder of sound.
    pub fn with_vocoder(mut self, vocoder: Option<Vocoder>) -> Self {
        self.vocoder = vocoder;
        self
    }
}

/// Names of tensors that a checkpoint may have and nobody asks for: besides [`UNUSED`] the heads that
/// are tied to a table and stored once more.
fn unused(config: &AudioConfig) -> Vec<String> {
    let heads = (0..config.codebooks).filter(|_| config.depth.tied);
    let heads = heads.map(|k| format!("depth_embeddings.{k}.to_logits.weight"));
    UNUSED.into_iter().map(str::to_owned).chain(heads).collect()
}

/// The decoder of sound of a checkpoint.
fn vocoder(
    checkpoint: &Checkpoint,
    config: &AudioConfig,
    options: &AudioOptions,
) -> Result<Option<Vocoder>> {
    let found = match options.output {
        Output::TextOnly => return Ok(None),
        Output::Detokenizer => detokenizer(checkpoint, config, options)?,
        Output::Mimi => mimi(checkpoint, options)?,
        Output::Best => {
            return match detokenizer(checkpoint, config, options)? {
                Some(found) => Ok(Some(found)),
                None => mimi(checkpoint, options),
            };
        }
    };
    found.map(Some).ok_or_else(|| Error::NotFound {
        what: format!("the {:?} output of {}", options.output, checkpoint.origin()),
        hint: format!("it is {DETOKENIZER_FOLDER}/ for the detokenizer, {MIMI_FILE} for mimi"),
    })
}

fn detokenizer(
    checkpoint: &Checkpoint,
    config: &AudioConfig,
    options: &AudioOptions,
) -> Result<Option<Vocoder>> {
    let info = checkpoint.info();
    let Some(facts) = info.json(&format!("{DETOKENIZER_FOLDER}/config.json"))? else {
        return Ok(None);
    };
    let facts = DetokenizerConfig::from_json(&facts, info.limits())?;
    let tensors = checkpoint.tensors_in(DETOKENIZER_FOLDER)?;
    let loaded = Detokenizer::from_tensors(facts, config.codebooks, tensors, &options.load)?;
    Ok(Some(Vocoder::Detokenizer(Box::new(loaded))))
}

fn mimi(checkpoint: &Checkpoint, options: &AudioOptions) -> Result<Option<Vocoder>> {
    let Some(tensors) = checkpoint.tensors_of(MIMI_FILE)? else {
        return Ok(None);
    };
    let loaded = Mimi::from_tensors(&options.mimi, tensors)?;
    Ok(Some(Vocoder::Mimi(Box::new(loaded))))
}
