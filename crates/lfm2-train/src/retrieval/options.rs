//! What a retrieval run is: [`RetrievalOptions`], the contents of its configuration file.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::queries::QueryShares;
use crate::data::Share;
use crate::file::read_json;
use crate::optim::AdamWOptions;
use crate::options::{Card, ExportDtype, NonFinitePolicy};
use crate::run_loop::Pace;
use crate::schedule::Schedule;
use crate::variables::Init;
use crate::{Error, Result};

/// Says in a configuration file that it is one of a retrieval run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RetrievalTag {
    /// `"objective": "retrieval"`.
    Retrieval,
}

/// A new encoder, and a tokenizer trained on the run's own data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FreshEncoder {
    /// The trunk's `config.json`. Vocabulary size and special ids are filled in from the tokenizer.
    pub config: Value,
    /// The contents of `config_sentence_transformers.json`.
    pub settings: Value,
    /// The most tokens the tokenizer may have, both prefixes included.
    pub vocab_size: usize,
    /// Numbers per vector.
    pub dimensions: usize,
    /// How initial weights are drawn.
    #[serde(default)]
    pub init: Init,
    /// Deviation of the initial embedding table. Where it is large beside what the blocks add, equal
    /// words have similar vectors from the first step on.
    #[serde(default = "embedding_std")]
    pub embedding_std: f64,
}

fn embedding_std() -> f64 {
    0.5
}

/// A text that passages are cut from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PassageSource {
    /// The file, plain or gzip: a paragraph a line, an empty line between sections. Relative paths
    /// start at the folder of the run's configuration.
    pub path: PathBuf,
    /// Its part of all passages.
    #[serde(default)]
    pub share: Share,
}

/// Learning from BM25: how a ranking by shared words orders the documents of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LexicalTeacher {
    /// Its part of the loss; the rest is the contrastive loss.
    pub weight: f64,
    /// What its scores are divided by.
    pub temperature: f64,
    /// What the model's scores are divided by beside them.
    pub student_temperature: f64,
}

/// All settings of a retrieval run. Two runs with equal options and equal data give equal weights,
/// whatever the number of threads.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct RetrievalOptions {
    /// The kind of run.
    pub objective: RetrievalTag,
    /// The model's name in its card.
    pub name: String,
    /// What training starts from.
    pub base: FreshEncoder,
    /// What it learns from.
    pub data: Vec<PassageSource>,
    /// Texts it is measured on.
    #[serde(default)]
    pub validation: Vec<PathBuf>,
    /// Batches made of each of those texts.
    #[serde(default = "validation_batches")]
    pub validation_batches: usize,
    /// The least and the most words of a passage.
    pub passage_words: [usize; 2],
    /// Which queries are made.
    #[serde(default)]
    pub queries: QueryShares,
    /// Pairs in a micro-batch; every query is compared with all its documents.
    pub micro_batch_pairs: usize,
    /// Passages that are drawn together since they share words: the harder to tell apart.
    pub neighbours: usize,
    /// Share of batches in which every word is replaced by another one that is as rare, so that
    /// the model does not only learn the words of its texts.
    #[serde(default)]
    pub disguised: f64,
    /// Micro-batches whose gradients make one step; they run in parallel.
    pub micro_batches: usize,
    /// The most tokens of a document in training.
    pub document_tokens: usize,
    /// What scores are divided by in the contrastive loss.
    pub temperature: f64,
    /// A teacher beside it.
    #[serde(default)]
    pub lexical: Option<LexicalTeacher>,
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
    /// Fixes initial weights and batches.
    pub seed: u64,
    /// Number type of the exported weights.
    #[serde(default)]
    pub export_dtype: ExportDtype,
    /// Text for the model card.
    #[serde(default)]
    pub card: Card,
}

fn validation_batches() -> usize {
    8
}

impl RetrievalOptions {
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
        let [least, most] = self.passage_words;
        let counts = [
            ("data", self.data.len(), 1),
            ("base.dimensions", self.base.dimensions, 1),
            ("micro_batch_pairs", self.micro_batch_pairs, 2),
            ("micro_batches", self.micro_batches, 1),
            ("neighbours", self.neighbours, 1),
            ("document_tokens", self.document_tokens, 3),
            ("passage_words", least, 1),
        ];
        for (key, found, expected) in counts {
            if found < expected {
                let detail = format!("expected at least {expected}, found {found}");
                return Err(Error::option(key, detail));
            }
        }
        if most < least {
            let detail = format!("expected the smaller number first, found {least} and {most}");
            return Err(Error::option("passage_words", detail));
        }
        let lexical = self.lexical.iter().flat_map(|teacher| {
            [
                ("lexical.temperature", teacher.temperature),
                ("lexical.student_temperature", teacher.student_temperature),
            ]
        });
        let positive = [
            ("temperature", self.temperature),
            ("base.embedding_std", self.base.embedding_std),
        ];
        for (key, found) in positive.into_iter().chain(lexical) {
            if !(found.is_finite() && found > 0.0) {
                let detail = format!("expected a number above 0, found {found}");
                return Err(Error::option(key, detail));
            }
        }
        let weight = self.lexical.map_or(0.0, |teacher| teacher.weight);
        for (key, found) in [("lexical.weight", weight), ("disguised", self.disguised)] {
            if !(0.0..=1.0).contains(&found) {
                let detail = format!("expected a number from 0 to 1, found {found}");
                return Err(Error::option(key, detail));
            }
        }
        self.queries.validate()?;
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
