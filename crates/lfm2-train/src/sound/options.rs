//! What the run of a detokenizer is: [`SoundOptions`], the contents of its configuration file.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::file::read_json;
use crate::optim::AdamWOptions;
use crate::options::{ExportDtype, NonFinitePolicy};
use crate::run_loop::Pace;
use crate::schedule::Schedule;
use crate::variables::Init;
use crate::{Error, Result};

/// Says in a configuration file that it is one of a detokenizer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SoundTag {
    /// `"objective": "sound"`.
    Sound,
}

/// What training starts from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum SoundBase {
    /// New weights.
    Fresh {
        /// The `config.json` of `audio_detokenizer`.
        config: Value,
        /// How initial weights are drawn.
        #[serde(default)]
        init: Init,
    },
    /// The folder of a detokenizer: its weights and config.
    Checkpoint(PathBuf),
}

/// All settings of the run of a detokenizer. Two runs with equal options give equal weights, whatever the number of
/// threads.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct SoundOptions {
    /// The kind of run.
    pub objective: SoundTag,
    /// The model's name in the run's figures.
    pub name: String,
    /// What training starts from.
    pub base: SoundBase,
    /// Codes of a frame.
    pub codebooks: usize,
    /// A manifest as [`SpokenRows`](crate::speech::SpokenRows) reads it, of clips with codes at 24 kHz; a relative
    /// path starts at the folder of the run's configuration.
    pub data: PathBuf,
    /// The most frames of a clip that are learnt together; longer clips are cut at random.
    pub frames: usize,
    /// Clips it is measured on, kept out of training.
    pub validation_clips: usize,
    /// Clips of a micro-batch.
    pub micro_batch_clips: usize,
    /// Micro-batches whose gradients make one step; they run in parallel.
    pub micro_batches: usize,
    /// Optimiser steps.
    pub steps: u64,
    /// The learning rate.
    pub schedule: Schedule,
    /// The optimiser.
    #[serde(default)]
    pub optimizer: AdamWOptions,
    /// The largest norm of a gradient; larger ones are scaled down.
    #[serde(default)]
    pub clip: Option<f64>,
    /// What happens when a number is not finite.
    #[serde(default)]
    pub non_finite: NonFinitePolicy,
    /// Steps between validations; there is one at the end in any case.
    pub validate_every: u64,
    /// Steps between saved states; there is one at the end in any case.
    pub save_every: u64,
    /// Fixes initial weights and the order of clips.
    pub seed: u64,
    /// Number type of the exported weights.
    #[serde(default)]
    pub export_dtype: ExportDtype,
}

impl SoundOptions {
    /// Reads a configuration file.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::RunFolder`] when it is not the JSON expected, and as
    /// [`validate`](Self::validate).
    pub fn read(path: &Path) -> Result<Self> {
        let options: Self = read_json(path)?;
        options.validate()?;
        Ok(options)
    }

    /// Checks what can be checked without the model.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] naming the key.
    pub fn validate(&self) -> Result<()> {
        let counts = [
            ("codebooks", self.codebooks),
            ("validation_clips", self.validation_clips),
            ("micro_batch_clips", self.micro_batch_clips),
            ("micro_batches", self.micro_batches),
        ];
        if let Some((key, _)) = counts.iter().find(|(_, count)| *count == 0) {
            return Err(Error::option(*key, "expected at least 1, found 0"));
        }
        // Fewer do not fill the longest transform.
        if self.frames < 2 {
            let detail = format!("expected at least 2, found {}", self.frames);
            return Err(Error::option("frames", detail));
        }
        self.pace().validate()
    }

    /// The settings of the loop.
    pub(crate) fn pace(&self) -> Pace {
        Pace {
            name: self.name.clone(),
            steps: self.steps,
            schedule: self.schedule,
            optimizer: self.optimizer,
            clip: self.clip,
            non_finite: self.non_finite,
            validate_every: self.validate_every,
            save_every: self.save_every,
        }
    }
}
