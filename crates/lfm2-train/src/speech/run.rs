//! [`SpeechRun`]: from a configuration file to a speech model's folder.

use std::path::Path;
use std::sync::Arc;

use candle_core::DType;
use lfm2_audio::{AudioConfig, AudioModel};
use lfm2_generate::Cancel;
use lfm2_hub::{Checkpoint, Limits, ModelSource, OpenOptions, TensorSource, Tokenizer};
use lfm2_text::LoadOptions;
use serde_json::Value;

use super::export;
use super::feed::{SpeechFeed, SpeechReader};
use super::objective::{Speaking, SpeechObjective};
use super::options::{SpeechBase, SpeechOptions};
use super::rows::SpokenRows;
use super::start;
use crate::bpe;
use crate::file::write_text;
use crate::prepare::{TEXT_FILES, sha256, text_files};
use crate::progress::TrainProgress;
use crate::run::{Resume, identity};
use crate::run_loop::{RunFolder, RunLoop};
use crate::variables::{Init, Parameters};
use crate::{Error, Result};

/// The tokens of a speech model beside those of text models.
const SPEECH_TOKENS: [&str; 2] = ["<|audio_start|>", "<|text_end|>"];

/// What every sample says beside its transcript, for the tokenizer.
const FORMAT: [&str; 4] = ["system\n", "Perform ASR.", "user\n", "assistant\n"];

/// Clips whose statistics a new encoder's batch norms get.
const STATISTICS_OF: usize = 64;

/// What a model's folder says besides its weights.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) config: AudioConfig,
    pub(super) config_json: Value,
    pub(super) tokenizer: Tokenizer,
    /// Files of the folder by name: tokenizer and what belongs to it.
    pub(super) files: Vec<(String, String)>,
    /// Name and hash of the manifest.
    pub(super) manifest: (String, String),
}

/// A run that trains a speech model to transcribe: its clips, its model and its folder, as
/// [`Trainer`](crate::Trainer) is for language models.
#[derive(Debug)]
pub struct SpeechRun {
    options: SpeechOptions,
    run: RunLoop<SpeechObjective>,
    facts: Facts,
}

impl SpeechRun {
    /// Prepares a run in the folder `run`, or continues the one that is there. Relative paths of `options` start
    /// at `base`; `threads` 0 means one per core and does not change any result.
    ///
    /// # Errors
    /// Of options, manifest and base checkpoint; [`Error::RunMismatch`] when the folder's run had other settings
    /// and `resume` does not force it; [`Error::RunFolder`] when it has a state and `resume` forbids that.
    pub fn open(
        options: SpeechOptions,
        base: &Path,
        run: &Path,
        resume: Resume,
        threads: usize,
    ) -> Result<Self> {
        options.validate()?;
        let folder = RunFolder::open(run, resume)?;
        let rows = SpokenRows::read(&base.join(&options.data.path))?;
        let (facts, parameters) = match &options.base {
            SpeechBase::Fresh {
                config,
                vocab_size,
                init,
            } => fresh(config, &rows, (*vocab_size, *init), options.seed)?,
            SpeechBase::Checkpoint(path) => from_checkpoint(&base.join(path), &rows)?,
        };
        let parameters = parameters.with_rates(|name| options.rates.of(name));
        if options.rates.speech > 0.0 {
            start::give_voice(&parameters, (init_of(&options.base), options.seed))?;
        }
        let spoken = match &options.speak {
            Some(data) => Some((data, SpokenRows::read(&base.join(&data.path))?)),
            None => None,
        };
        let mut hashes = vec![facts.manifest.clone()];
        hashes.extend(
            spoken
                .iter()
                .map(|(_, rows)| (rows.name(), rows.sha256().to_string())),
        );
        let tokenizer = sha256(&facts.tokenizer.to_json()?);
        let identity = identity(&options, &hashes, &tokenizer)?;
        let config_text = format!("{:#}\n", facts.config_json);
        write_text(&run.join("config.json"), &config_text)?;

        let model = learnt(&facts, &parameters)?;
        let reader = SpeechReader {
            front: model.front_end().clone(),
            tokenizer: facts.tokenizer.clone(),
        };
        let said = match spoken {
            Some((data, rows)) => Some(Speaking::new(
                data,
                rows,
                &reader,
                (&facts.config, options.seed),
            )?),
            None => None,
        };
        let feed = SpeechFeed::new(&options, rows, reader)?;
        if let SpeechBase::Fresh { .. } = options.base {
            start::statistics(&model, &parameters, &feed.some(STATISTICS_OF)?)?;
        }
        let objective = SpeechObjective::new(model, feed, said, options.hints)?;
        let pace = options.pace();
        Ok(Self {
            run: RunLoop::open(&folder, identity, pace, parameters, objective, threads)?,
            facts,
            options,
        })
    }

    /// What is optimised.
    pub fn objective(&self) -> &SpeechObjective {
        self.run.objective()
    }

    /// The model in its present state.
    pub fn model(&self) -> &AudioModel {
        self.objective().model()
    }

    /// The last finished step.
    pub fn step(&self) -> u64 {
        self.run.step()
    }

    /// The trainable parameters.
    pub fn parameters(&self) -> &Parameters {
        self.run.parameters()
    }

    /// Trains until the last step, saving and validating as the options say.
    ///
    /// # Errors
    /// [`Error::NonFinite`] and [`Error::Cancelled`], both after saving the last good state; errors of files and
    /// tensors.
    pub fn train(&mut self, progress: &dyn TrainProgress, cancel: &Cancel) -> Result<()> {
        let vocab_size = self.facts.config.text.vocab_size;
        self.run.train(&[], vocab_size, progress, cancel)
    }

    /// Writes a complete model folder, in the layout of published speech models.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn export(&self, folder: &Path) -> Result<()> {
        let (parameters, metrics) = (self.run.parameters(), self.run.metrics());
        export::export(folder, &self.options, &self.facts, parameters, metrics)
    }
}

/// How new weights are drawn.
fn init_of(base: &SpeechBase) -> Init {
    match base {
        SpeechBase::Fresh { init, .. } => *init,
        SpeechBase::Checkpoint(_) => Init { std: 0.1 },
    }
}

/// The model over the parameters.
fn learnt(facts: &Facts, parameters: &Parameters) -> Result<AudioModel> {
    let source: Arc<dyn TensorSource> = Arc::new(parameters.clone());
    let load = LoadOptions::default().with_dtype(DType::F32);
    let (config, tokenizer) = (facts.config.clone(), facts.tokenizer.clone());
    Ok(AudioModel::from_tensors(config, source, tokenizer, &load)?)
}

fn fresh(
    config: &Value,
    rows: &SpokenRows,
    (vocab_size, init): (usize, Init),
    seed: u64,
) -> Result<(Facts, Parameters)> {
    let texts = rows.rows().iter().map(|row| row.text.as_str());
    let texts: Vec<&str> = texts
        .flat_map(|text| FORMAT.into_iter().chain([text]))
        .collect();
    let words = vocab_size.saturating_sub(SPEECH_TOKENS.len());
    let trained = bpe::train_tokenizer(texts.into_iter(), words)?;
    let tokenizer = bpe::with_added(&trained, &SPEECH_TOKENS, bpe::Added::Special)?;
    let config_json = filled_in(config, &tokenizer)?;
    let config = AudioConfig::from_json(&config_json, &Limits::default())?;
    let layers = config.text.layers.len().max(config.encoder.layers);
    let parameters = Parameters::init(start::specs(&config), layers, init, seed)?;
    start::silence(&parameters)?;
    let facts = Facts {
        config,
        config_json,
        files: bpe::tokenizer_files(&tokenizer, bpe::CHAT_TEMPLATE)?,
        tokenizer,
        manifest: (rows.name(), rows.sha256().to_string()),
    };
    Ok((facts, parameters))
}

/// The config with the facts of its tokenizer.
fn filled_in(config: &Value, tokenizer: &Tokenizer) -> Result<Value> {
    let mut json = config.clone();
    let text = json.get_mut("lfm").and_then(Value::as_object_mut);
    let Some(text) = text else {
        let detail = "expected an object, found something else";
        return Err(Error::option("base.fresh.config.lfm", detail));
    };
    for (key, value) in bpe::config_facts(tokenizer) {
        text.insert(key.into(), value);
    }
    Ok(json)
}

fn from_checkpoint(path: &Path, rows: &SpokenRows) -> Result<(Facts, Parameters)> {
    let source = ModelSource::Dir(path.to_path_buf());
    let checkpoint = Checkpoint::open(&source, &OpenOptions::default())?;
    let config_json = checkpoint.config().clone();
    let config = AudioConfig::from_json(&config_json, checkpoint.info().limits())?;
    let parameters = Parameters::from_source(start::specs(&config), &*checkpoint.tensors())?;
    let mut files = text_files(path, &TEXT_FILES)?;
    files.extend(text_files(path, &["chat_template.jinja"])?);
    let facts = Facts {
        tokenizer: checkpoint.tokenizer()?,
        config,
        config_json,
        files,
        manifest: (rows.name(), rows.sha256().to_string()),
    };
    Ok((facts, parameters))
}
