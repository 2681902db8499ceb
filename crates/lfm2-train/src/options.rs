//! What a run is: [`TrainOptions`], the contents of a run's configuration file.

use std::path::{Path, PathBuf};

use candle_core::DType;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::balance::Balance;
use crate::data::SourceOptions;
use crate::file::read_json;
use crate::lora::LoraOptions;
use crate::loss::{Distillation, Preference};
use crate::optim::AdamWOptions;
use crate::run_loop::Pace;
use crate::schedule::Schedule;
use crate::variables::Init;
use crate::{Error, Result};

/// What training starts from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Base {
    /// New weights and a tokenizer trained on the run's own data.
    Fresh {
        /// The model's `config.json`. Vocabulary size and special ids are filled in from the
        /// tokenizer where they are absent.
        config: Value,
        /// The most tokens the tokenizer may have.
        vocab_size: usize,
        /// How initial weights are drawn.
        #[serde(default)]
        init: Init,
        /// A template file, or the built-in one.
        #[serde(default)]
        chat_template: Option<PathBuf>,
    },
    /// A checkpoint folder: its weights, config, tokenizer and template.
    Checkpoint(PathBuf),
}

/// What to do when the loss or a gradient is not a finite number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NonFinitePolicy {
    /// Save the state before the step and end with an error that names the step.
    #[default]
    Stop,
    /// Leave the step out, count it and go on.
    Skip,
}

/// Number type of the exported weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExportDtype {
    /// 16 bits, as published checkpoints.
    #[default]
    Bf16,
    /// 32 bits, as trained.
    F32,
}

impl ExportDtype {
    /// Candle's name of it.
    pub fn dtype(self) -> DType {
        match self {
            Self::Bf16 => DType::BF16,
            Self::F32 => DType::F32,
        }
    }

    /// The spelling in a `config.json`.
    pub fn config_name(self) -> &'static str {
        match self {
            Self::Bf16 => "bfloat16",
            Self::F32 => "float32",
        }
    }
}

/// What becomes of the numbers inside the layers between a forward and a backward pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activations {
    /// They are kept.
    #[default]
    Keep,
    /// Only the inputs of the layers are kept; the rest is computed anew, layer by layer. Memory grows
    /// with one layer instead of all, time by about a third.
    Recompute,
}

impl Activations {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// What is asked of the model.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Method {
    /// The next token, as far as the data say it is scored: pre-training and fine-tuning.
    #[default]
    NextToken,
    /// The next token and the likeliest tokens of a teacher.
    Distill {
        /// The teacher's output, as [`teach`](crate::teach) writes it.
        teacher: PathBuf,
        /// The teacher's share of the loss.
        #[serde(default = "half")]
        share: f64,
        /// How teacher and student are compared.
        #[serde(default)]
        loss: Distillation,
    },
    /// One answer before another.
    Preference {
        /// Which member of the family.
        #[serde(default)]
        loss: Preference,
    },
}

fn half() -> f64 {
    0.5
}

impl Method {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }

    fn validate(&self) -> Result<()> {
        match self {
            Self::NextToken => Ok(()),
            Self::Distill { share, loss, .. } => {
                if !(0.0..=1.0).contains(share) {
                    let detail = format!("expected a number from 0 to 1, found {share}");
                    return Err(Error::option("objective.share", detail));
                }
                loss.validate()
            }
            Self::Preference { loss } => loss.validate(),
        }
    }
}

/// What the model card says besides facts of the run.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Card {
    /// SPDX name of the licence of the weights.
    pub licence: Option<String>,
    /// Markdown text under the title.
    pub about: String,
}

/// All settings of a run. Two runs with equal options and equal data give equal weights, whatever
/// the number of threads.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct TrainOptions {
    /// The model's name in its card.
    pub name: String,
    /// What training starts from.
    pub base: Base,
    /// What is asked of the model.
    #[serde(default, skip_serializing_if = "Method::is_default")]
    pub objective: Method,
    /// Adapters that are trained instead of the weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lora: Option<LoraOptions>,
    /// How the experts of a mixture are kept in even use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub balance: Option<Balance>,
    /// Whether memory or time is spent on the backward pass; the result is the same up to rounding.
    #[serde(default, skip_serializing_if = "Activations::is_default")]
    pub activations: Activations,
    /// What it learns from.
    pub data: Vec<SourceOptions>,
    /// Optimiser steps.
    pub steps: u64,
    /// The most tokens in one micro-batch; also the longest document.
    pub micro_batch_tokens: usize,
    /// Micro-batches whose gradients make one step; they run in parallel.
    pub micro_batches: usize,
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
    /// Fixes initial weights, holdout and order.
    pub seed: u64,
    /// Number type of the exported weights.
    #[serde(default)]
    pub export_dtype: ExportDtype,
    /// Text for the model card.
    #[serde(default)]
    pub card: Card,
}

impl TrainOptions {
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

    /// Checks what can be checked without the data.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] naming the key.
    pub fn validate(&self) -> Result<()> {
        let counts = [
            ("micro_batch_tokens", self.micro_batch_tokens),
            ("micro_batches", self.micro_batches),
            ("data", self.data.len()),
        ];
        if let Some((key, _)) = counts.iter().find(|(_, count)| *count == 0) {
            return Err(Error::option(*key, "expected at least 1, found 0"));
        }
        if let Some(lora) = &self.lora {
            lora.validate()?;
            if !matches!(self.base, Base::Checkpoint(_)) {
                let detail = "adapters need a checkpoint to be added to";
                return Err(Error::option("lora", detail));
            }
            if self.balance.is_some() {
                let detail = "expected none beside lora, which leaves the experts as they are";
                return Err(Error::option("balance", detail));
            }
        }
        if let Some(balance) = self.balance {
            balance.validate()?;
        }
        self.objective.validate()?;
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
