//! What a run optimises: the seam between the loop and the methods of training.
//!
//! [`RunLoop`](crate::RunLoop) knows steps, gradients, the optimiser and files; an [`Objective`] knows
//! data, models and losses. Next-token prediction, distillation, preferences and retrieval differ
//! only in their objective.

use candle_core::Tensor;

use crate::Result;
use crate::optim::Gradients;
use crate::variables::Parameters;

/// What the loss of one batch came to.
#[derive(Debug)]
pub struct Outcome {
    /// A scalar with its graph: this batch's part of the step's loss.
    pub loss: Tensor,
    /// Further figures, each this batch's part of a mean over the step, as the loss is.
    pub figures: Vec<(&'static str, f64)>,
    /// How many tokens every expert got, for every mixture layer in order; empty for dense models.
    pub loads: Vec<Vec<u64>>,
}

impl Outcome {
    /// A loss alone.
    pub fn new(loss: Tensor) -> Self {
        Self {
            loss,
            figures: Vec::new(),
            loads: Vec::new(),
        }
    }
}

/// What a batch consists of.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct BatchSize {
    /// Tokens the model reads.
    pub tokens: usize,
    /// Things that are scored: predicted tokens, pairs, queries.
    pub scored: usize,
    /// Their weight in the step's mean.
    pub weight: f64,
}

/// What a loss is a mean over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LossUnit {
    /// Predicted tokens: the exponential of the loss is a perplexity.
    Token,
    /// Something larger: pairs of answers, queries.
    Item,
}

/// Batches kept out of training, by the name of their source.
pub type ValidationSet<B> = (String, Vec<B>);

/// A method of training: where its batches come from and what their loss is.
///
/// The model inside is built over the [`Parameters`] of the run, so that it sees every update.
pub trait Objective: Sync {
    /// A part of a step that is computed on one thread.
    type Batch: Send + Sync;

    /// The batches of step `step`, from 1. Steps are asked for in order; a resumed run asks for the
    /// earlier ones again, so this must not depend on anything but the data and the seed.
    ///
    /// # Errors
    /// When data that is read as it goes cannot be read.
    fn next_step(&mut self, step: u64) -> Result<Vec<Self::Batch>>;

    /// Goes past step `step` of a resumed run: what [`next_step`](Self::next_step) does to the place in
    /// the data, for those who can do it with less.
    ///
    /// # Errors
    /// As [`next_step`](Self::next_step).
    fn skip(&mut self, step: u64) -> Result<()> {
        self.next_step(step).map(drop)
    }

    /// What was kept out of training.
    fn validation(&self) -> &[ValidationSet<Self::Batch>];

    /// What a batch consists of.
    fn size(&self, batch: &Self::Batch) -> BatchSize;

    /// What the loss is a mean over.
    fn unit(&self) -> LossUnit;

    /// The loss of one batch: a sum over what is scored in it, divided by `divisor`, which is the
    /// weight of all batches of the step (or of the validation set).
    ///
    /// # Errors
    /// When the model fails, for example at an id outside its vocabulary.
    fn loss(&self, batch: &Self::Batch, divisor: f64) -> candle_core::Result<Outcome>;

    /// The loss of one batch and its gradient with respect to every parameter. By default from the graph
    /// of [`loss`](Self::loss), which holds all activations at once.
    ///
    /// # Errors
    /// As [`loss`](Self::loss).
    fn gradients(
        &self,
        batch: &Self::Batch,
        divisor: f64,
        parameters: &Parameters,
    ) -> candle_core::Result<(Outcome, Gradients)> {
        let outcome = self.loss(batch, divisor)?;
        let gradients = Gradients::of(&outcome.loss.backward()?, parameters)?;
        Ok((outcome, gradients))
    }

    /// Called after every update: the place for what changes without a gradient. `loads` are those of
    /// all batches of the step together.
    ///
    /// # Errors
    /// When a tensor operation fails.
    fn updated(&mut self, _parameters: &mut Parameters, _loads: &[Vec<u64>]) -> Result<()> {
        Ok(())
    }

    /// Called when the parameters hold the values of a saved state, before the first step.
    ///
    /// # Errors
    /// When the model cannot be built.
    fn restored(&mut self, _parameters: &Parameters) -> Result<()> {
        Ok(())
    }
}
