//! A run of any kind, from its configuration file.

use std::path::Path;

use lfm2_generate::Cancel;
use serde_json::Value;

use crate::options::TrainOptions;
use crate::progress::TrainProgress;
use crate::retrieval::{RetrievalOptions, RetrievalRun};
use crate::run::Resume;
use crate::sound::{SoundOptions, SoundRun};
use crate::speech::{SpeechOptions, SpeechRun};
use crate::trainer::Trainer;
use crate::vision::{VisionOptions, VisionRun};
use crate::{Error, Result};

/// A run of whatever its configuration says.
#[derive(Debug)]
pub enum AnyRun {
    /// A text model.
    Text(Box<Trainer>),
    /// A retrieval model: `"objective": "retrieval"`.
    Retrieval(Box<RetrievalRun>),
    /// A vision-language model: `"objective": "vision"`.
    Vision(Box<VisionRun>),
    /// A speech model: `"objective": "speech"`.
    Speech(Box<SpeechRun>),
    /// The detokenizer of a speech model: `"objective": "sound"`.
    Sound(Box<SoundRun>),
}

impl AnyRun {
    /// Prepares the run of the configuration file `config` in the folder `run`, or continues the one
    /// that is there; see [`Trainer::open`].
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::RunFolder`] when the file is not the JSON expected, and as
    /// [`Trainer::open`], [`RetrievalRun::open`], [`VisionRun::open`], [`SpeechRun::open`] and
    /// [`SoundRun::open`].
    pub fn open(config: &Path, run: &Path, resume: Resume, threads: usize) -> Result<Self> {
        let base = config.parent().unwrap_or(Path::new("."));
        Ok(match objective(config)?.as_deref() {
            Some("retrieval") => {
                let options = RetrievalOptions::read(config)?;
                let run = RetrievalRun::open(options, base, run, resume, threads)?;
                Self::Retrieval(Box::new(run))
            }
            Some("vision") => {
                let options = VisionOptions::read(config)?;
                let run = VisionRun::open(options, base, run, resume, threads)?;
                Self::Vision(Box::new(run))
            }
            Some("speech") => {
                let options = SpeechOptions::read(config)?;
                let run = SpeechRun::open(options, base, run, resume, threads)?;
                Self::Speech(Box::new(run))
            }
            Some("sound") => {
                let options = SoundOptions::read(config)?;
                let run = SoundRun::open(options, base, run, resume, threads)?;
                Self::Sound(Box::new(run))
            }
            _ => {
                let options = TrainOptions::read(config)?;
                let run = Trainer::open(options, base, run, resume, threads)?;
                Self::Text(Box::new(run))
            }
        })
    }

    /// Trains until the last step.
    ///
    /// # Errors
    /// As [`Trainer::train`].
    pub fn train(&mut self, progress: &dyn TrainProgress, cancel: &Cancel) -> Result<()> {
        match self {
            Self::Text(run) => run.train(progress, cancel),
            Self::Retrieval(run) => run.train(progress, cancel),
            Self::Vision(run) => run.train(progress, cancel),
            Self::Speech(run) => run.train(progress, cancel),
            Self::Sound(run) => run.train(progress, cancel),
        }
    }

    /// Writes a complete model folder.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn export(&self, folder: &Path) -> Result<()> {
        match self {
            Self::Text(run) => run.export(folder),
            Self::Retrieval(run) => run.export(folder),
            Self::Vision(run) => run.export(folder),
            Self::Speech(run) => run.export(folder),
            Self::Sound(run) => run.export(folder),
        }
    }
}

/// The objective that a configuration names by a word; those of text models are no words.
fn objective(config: &Path) -> Result<Option<String>> {
    let text = std::fs::read_to_string(config).map_err(|e| Error::io(config, e))?;
    let json: Value =
        serde_json::from_str(&text).map_err(|e| Error::run_folder(config, e.to_string()))?;
    let objective = json.get("objective").and_then(Value::as_str);
    Ok(objective.map(str::to_string))
}
