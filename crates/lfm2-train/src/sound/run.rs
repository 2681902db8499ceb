//! [`SoundRun`]: from a configuration file to the folder of a detokenizer.

use std::path::Path;
use std::sync::Arc;

use candle_core::DType;
use lfm2_audio::{Detokenizer, DetokenizerConfig};
use lfm2_generate::Cancel;
use lfm2_hub::{Checkpoint, Limits, ModelSource, OpenOptions, TensorSource};
use lfm2_text::LoadOptions;
use serde_json::Value;

use super::export;
use super::objective::SoundObjective;
use super::options::{SoundBase, SoundOptions};
use super::waves::Waves;
use crate::Result;
use crate::progress::TrainProgress;
use crate::run::{Resume, identity};
use crate::run_loop::{RunFolder, RunLoop};
use crate::speech::SpokenRows;
use crate::speech::start::detokenizer_specs;
use crate::variables::Parameters;

/// A run that trains a detokenizer, as [`Trainer`](crate::Trainer) is for language models.
#[derive(Debug)]
pub struct SoundRun {
    options: SoundOptions,
    run: RunLoop<SoundObjective>,
    config_json: Value,
}

impl SoundRun {
    /// Prepares a run in the folder `run`, or continues the one that is there. Relative paths of `options` start at
    /// `base`; `threads` 0 means one per core and does not change any result.
    ///
    /// # Errors
    /// Of options, manifest and base; [`Error::RunMismatch`](crate::Error::RunMismatch) and
    /// [`Error::RunFolder`](crate::Error::RunFolder) as [`Trainer::open`](crate::Trainer::open).
    pub fn open(
        options: SoundOptions,
        base: &Path,
        run: &Path,
        resume: Resume,
        threads: usize,
    ) -> Result<Self> {
        options.validate()?;
        let folder = RunFolder::open(run, resume)?;
        let rows = SpokenRows::read(&base.join(&options.data))?;
        let (config_json, config, parameters) = start(&options, base)?;
        let manifest = (rows.name(), rows.sha256().to_string());
        let identity = identity(&options, &[manifest], "")?;
        let source: Arc<dyn TensorSource> = Arc::new(parameters.clone());
        let load = LoadOptions::default().with_dtype(DType::F32);
        let waves = Waves::new(config.output)?;
        let model = Detokenizer::from_tensors(config, options.codebooks, source, &load)?;
        let objective = SoundObjective::new(&options, model, waves, rows)?;
        let pace = options.pace();
        Ok(Self {
            run: RunLoop::open(&folder, identity, pace, parameters, objective, threads)?,
            config_json,
            options,
        })
    }

    /// What is optimised.
    pub fn objective(&self) -> &SoundObjective {
        self.run.objective()
    }

    /// The trainable parameters.
    pub fn parameters(&self) -> &Parameters {
        self.run.parameters()
    }

    /// Trains until the last step, saving and validating as the options say.
    ///
    /// # Errors
    /// As [`Trainer::train`](crate::Trainer::train).
    pub fn train(&mut self, progress: &dyn TrainProgress, cancel: &Cancel) -> Result<()> {
        self.run.train(&[], 0, progress, cancel)
    }

    /// Writes the folder `audio_detokenizer` of a speech model: config and weights.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn export(&self, folder: &Path) -> Result<()> {
        let dtype = self.options.export_dtype;
        export::export(folder, &self.config_json, self.run.parameters(), dtype)
    }
}

type Start = (Value, DetokenizerConfig, Parameters);

fn start(options: &SoundOptions, base: &Path) -> Result<Start> {
    match &options.base {
        SoundBase::Fresh { config, init } => {
            let facts = DetokenizerConfig::from_json(config, &Limits::default())?;
            let specs = detokenizer_specs(&facts, options.codebooks);
            let layers = facts.text.layers.len();
            let parameters = Parameters::init(specs, layers, *init, options.seed)?;
            Ok((config.clone(), facts, parameters))
        }
        SoundBase::Checkpoint(path) => {
            let source = ModelSource::Dir(base.join(path));
            let checkpoint = Checkpoint::open(&source, &OpenOptions::default())?;
            let json = checkpoint.config().clone();
            let facts = DetokenizerConfig::from_json(&json, checkpoint.info().limits())?;
            let specs = detokenizer_specs(&facts, options.codebooks);
            let parameters = Parameters::from_source(specs, &*checkpoint.tensors())?;
            Ok((json, facts, parameters))
        }
    }
}
