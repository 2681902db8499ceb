//! What a run tells its caller while it works. Nothing here prints.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::data::SourceReport;

/// One optimiser step, as written to `metrics.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct StepReport {
    /// The step, from 1.
    pub step: u64,
    /// Weighted mean loss per scored token, or per pair or query.
    pub loss: f64,
    /// Learning rate.
    pub rate: f64,
    /// Norm of the gradient before clipping.
    pub grad_norm: f64,
    /// Tokens read.
    pub tokens: usize,
    /// Tokens predicted, or pairs or queries scored.
    pub scored: usize,
    /// Wall time of the step.
    pub seconds: f64,
    /// Whether the step was left out since a number was not finite.
    pub skipped: bool,
    /// Further figures of the method, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub figures: BTreeMap<String, f64>,
}

/// The loss on one source's documents that were kept out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ValidationReport {
    /// The step after which it was measured.
    pub step: u64,
    /// The data file's name.
    pub source: String,
    /// Weighted mean loss per scored token, or per pair or query.
    pub loss: f64,
    /// `exp` of the loss, where that is per token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub perplexity: Option<f64>,
    /// Further figures of the method, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub figures: BTreeMap<String, f64>,
}

/// Something that happened in a run.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum TrainEvent<'a> {
    /// Data, tokenizer and model are ready.
    Prepared {
        /// Trainable numbers of the model.
        parameters: usize,
        /// Tokens of the vocabulary.
        vocab_size: usize,
        /// Counts of each source.
        sources: &'a [SourceReport],
        /// The last finished step; 0 for a new run.
        step: u64,
        /// Steps of the whole run.
        steps: u64,
    },
    /// A step is finished.
    Step(&'a StepReport),
    /// A validation is finished.
    Validation(&'a [ValidationReport]),
    /// The state is on disk.
    Saved {
        /// The step it belongs to.
        step: u64,
    },
}

/// Receives the events of a run, on the thread that runs it.
pub trait TrainProgress {
    /// Called for every event, in order.
    fn event(&self, event: &TrainEvent<'_>);
}

/// Listens to nothing.
impl TrainProgress for () {
    fn event(&self, _event: &TrainEvent<'_>) {}
}
