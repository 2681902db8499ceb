//! What a speech run is: [`SpeechOptions`], the contents of its configuration file.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::augment::AugmentOptions;
use crate::file::read_json;
use crate::optim::AdamWOptions;
use crate::options::{Card, ExportDtype, NonFinitePolicy};
use crate::run_loop::Pace;
use crate::schedule::Schedule;
use crate::variables::Init;
use crate::{Error, Result};

/// Says in a configuration file that it is one of a speech run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SpeechTag {
    /// `"objective": "speech"`.
    Speech,
}

/// What training starts from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum SpeechBase {
    /// New weights, and a tokenizer trained on the transcripts.
    ///
    /// The statistics of the batch norms are those of the run's first clips in the new encoder, and stay as they
    /// are: a batch norm is a fixed scale and shift that its weight and bias go on from.
    Fresh {
        /// The model's `config.json`. Vocabulary size and special ids of `lfm` are filled in from the tokenizer.
        config: Value,
        /// The most tokens the tokenizer may have, those of speech included.
        vocab_size: usize,
        /// How initial weights are drawn.
        #[serde(default)]
        init: Init,
    },
    /// A checkpoint folder: its weights, config and tokenizer.
    Checkpoint(PathBuf),
}

/// Short transcripts first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LengthGrowth {
    /// The most words of a clip in the first step.
    pub from: usize,
    /// From this step on clips of all lengths are heard; the most words grow evenly until then.
    pub steps: u64,
}

impl LengthGrowth {
    /// How many of the rows whose numbers of words are `words`, in ascending order, are heard or said in step `step`:
    /// the shortest ones, or all.
    pub(super) fn count(growth: Option<Self>, step: u64, words: &[usize]) -> usize {
        let longest = words.last().copied().unwrap_or(0);
        let most = match growth {
            Some(Self { from, steps }) if step < steps && from < longest => {
                from + (longest - from) * step as usize / steps as usize
            }
            _ => longest,
        };
        match words.partition_point(|&count| count <= most) {
            0 => words.len(),
            few => few,
        }
    }
}

/// What a run learns from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpeechData {
    /// A manifest as [`SpokenRows`](super::SpokenRows) reads it; a relative path starts at the folder of the
    /// run's configuration.
    pub path: PathBuf,
    /// How clips are changed while they are learnt from.
    #[serde(default)]
    pub augment: AugmentOptions,
    /// Short transcripts first.
    #[serde(default)]
    pub growth: Option<LengthGrowth>,
}

/// Clips to learn to speak from, beside those to transcribe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpeakData {
    /// A manifest of clips with codes; a relative path starts at the folder of the run's configuration. Their sound
    /// is not read, but that of questions is: where a clip is the answer to one, it is learnt as that, too.
    pub path: PathBuf,
    /// Clips of a micro-batch.
    pub micro_batch_clips: usize,
    /// Micro-batches of a step, beside those of clips to transcribe.
    pub micro_batches: usize,
    /// Clips it is measured on, kept out of training.
    pub validation_clips: usize,
    /// Short texts first.
    #[serde(default)]
    pub growth: Option<LengthGrowth>,
}

/// How fast the parts of a model learn, relative to the schedule; a part at 0 stays as it is. The statistics of
/// batch norms stay in any case.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct SpeechRates {
    /// The encoder.
    pub encoder: f64,
    /// What joins encoder and text model.
    pub adapter: f64,
    /// The text model.
    pub text: f64,
    /// Tables and layers of what the model says; 0 where nothing is given. Those of a model that never spoke begin
    /// anew.
    pub speech: f64,
}

impl Default for SpeechRates {
    fn default() -> Self {
        Self {
            encoder: 1.0,
            adapter: 1.0,
            text: 1.0,
            speech: 0.0,
        }
    }
}

impl SpeechRates {
    /// The rate of the tensor called `name`.
    pub(crate) fn of(&self, name: &str) -> f64 {
        match name.split('.').next() {
            Some("conformer") if name.contains(".batch_norm.running_") => 0.0,
            Some("conformer") => self.encoder,
            Some("audio_adapter") => self.adapter,
            Some("lfm") => self.text,
            _ => self.speech,
        }
    }

    fn validate(&self) -> Result<()> {
        for (key, rate) in [
            ("rates.encoder", self.encoder),
            ("rates.adapter", self.adapter),
            ("rates.text", self.text),
            ("rates.speech", self.speech),
        ] {
            at_least_0(key, rate)?;
        }
        Ok(())
    }
}

/// All settings of a speech run. Two runs with equal options give equal weights, whatever the number of threads.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct SpeechOptions {
    /// The kind of run.
    pub objective: SpeechTag,
    /// The model's name in its card.
    pub name: String,
    /// What training starts from.
    pub base: SpeechBase,
    /// What it learns from.
    pub data: SpeechData,
    /// What it learns to speak from, if it does.
    #[serde(default)]
    pub speak: Option<SpeakData>,
    /// How fast each part learns.
    #[serde(default)]
    pub rates: SpeechRates,
    /// Where the manifest says when words are spoken, the row in the middle of a word is told the word, and rows
    /// between words that there is none; this is what a word counts beside a token of a transcript. 0 leaves it
    /// out. See [`Hints`](crate::Hints).
    #[serde(default)]
    pub hints: f64,
    /// Rows it is measured on, kept out of training.
    #[serde(default = "validation_clips")]
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
    /// Fixes initial weights, the order of clips and how they are changed.
    pub seed: u64,
    /// Number type of the exported weights.
    #[serde(default)]
    pub export_dtype: ExportDtype,
    /// Text for the model card.
    #[serde(default)]
    pub card: Card,
}

fn validation_clips() -> usize {
    64
}

fn at_least_0(key: &str, value: f64) -> Result<()> {
    if value.is_finite() && value >= 0.0 {
        return Ok(());
    }
    let detail = format!("expected a number of at least 0, found {value}");
    Err(Error::option(key, detail))
}

impl SpeechOptions {
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
            ("micro_batch_clips", self.micro_batch_clips),
            ("micro_batches", self.micro_batches),
            ("validation_clips", self.validation_clips),
            (
                "growth.from",
                self.data.growth.map_or(1, |growth| growth.from),
            ),
            (
                "speak.growth.from",
                self.speak
                    .as_ref()
                    .and_then(|speak| speak.growth)
                    .map_or(1, |growth| growth.from),
            ),
        ];
        if let Some((key, _)) = counts.iter().find(|(_, count)| *count == 0) {
            return Err(Error::option(*key, "expected at least 1, found 0"));
        }
        if let Some(speak) = &self.speak {
            let counts = [
                speak.micro_batch_clips,
                speak.micro_batches,
                speak.validation_clips,
            ];
            if counts.contains(&0) {
                let detail = format!("expected numbers of clips from 1, found {counts:?}");
                return Err(Error::option("speak", detail));
            }
        }
        self.data.augment.validate()?;
        self.rates.validate()?;
        at_least_0("hints", self.hints)?;
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
