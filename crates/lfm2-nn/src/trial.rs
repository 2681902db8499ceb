//! Taking back the newest tokens of a row at no cost: [`Cache::begin_trial`].
//!
//! Attention can be cut anywhere, as the keys and values of a token stay what they are. A convolution
//! keeps only its newest inputs, so that going back means computing older ones again. During a trial
//! they are kept besides: a state is then a window of them, bit by bit the one that was there.

use candle_core::{Result, Tensor, bail};

use crate::Cache;
use crate::cache::{LayerCache, Row};

/// What the convolutions of a row have read since the trial began.
#[derive(Debug)]
pub(crate) struct Trial {
    /// Tokens in the row when it began.
    start: usize,
    /// Per layer its state at the start and the gated inputs since, `(tokens, channels)` each. Empty
    /// for attention, and until the first pass.
    inputs: Vec<Vec<Tensor>>,
}

impl Cache {
    /// Starts a trial in row `row`: until [`end_trial`](Self::end_trial), going back to any length
    /// from the present one on ([`Decoder::rewind`](crate::Decoder::rewind)) takes no computation and
    /// needs no ids. A trial that was running is ended.
    ///
    /// Every token fed meanwhile takes one vector per convolution layer, so trials should be short.
    ///
    /// # Errors
    /// When there is no such row, or the cache is stateless.
    pub fn begin_trial(&mut self, row: usize) -> Result<()> {
        let count = self.rows();
        let layers = self.layout().layers.len();
        let Some(row) = self.row_mut(row) else {
            bail!("row {row} is outside a cache of {count} rows, or the cache is stateless")
        };
        row.trial = Some(Trial {
            start: row.len(),
            inputs: vec![Vec::new(); layers],
        });
        Ok(())
    }

    /// Ends the trial of row `row`, if there is one. The tokens stay.
    pub fn end_trial(&mut self, row: usize) {
        if let Some(row) = self.row_mut(row) {
            row.trial = None;
        }
    }

    /// Whether the convolutions of row `row` have to [keep](Self::keep_inputs) what they read.
    pub(crate) fn in_trial(&self, row: usize) -> bool {
        self.row(row).is_some_and(|row| row.trial.is_some())
    }

    /// Keeps the gated inputs `(tokens, channels)` that layer `layer` is about to move its state by.
    pub(crate) fn keep_inputs(&mut self, row: usize, layer: usize, gated: Tensor) -> Result<()> {
        let Some(row) = self.row_mut(row) else {
            return Ok(());
        };
        if let (Some(trial), Some(LayerCache::Conv(state))) =
            (&mut row.trial, row.layers.get(layer))
            && let Some(inputs) = trial.inputs.get_mut(layer)
        {
            if inputs.is_empty() {
                // A copy, since states may be moved on in place.
                inputs.push(state.force_contiguous()?);
            }
            inputs.push(gated);
        }
        Ok(())
    }
}

impl Row {
    /// Cuts the row to `len` tokens by what the trial kept; `false`, with nothing changed, when there
    /// is no trial that knows this length.
    pub(crate) fn take_back(&mut self, len: usize) -> Result<bool> {
        let Some(trial) = &self.trial else {
            return Ok(false);
        };
        let (Some(keep), Some(read)) = (
            len.checked_sub(trial.start),
            self.len().checked_sub(trial.start),
        ) else {
            return Ok(false);
        };
        let mut states = Vec::new();
        for (layer, state) in self.layers.iter().enumerate() {
            let LayerCache::Conv(state) = state else {
                continue;
            };
            let width = state.dim(0)?;
            if width == 0 {
                continue;
            }
            let Some(inputs) = trial.inputs.get(layer).filter(|inputs| !inputs.is_empty()) else {
                return Ok(false);
            };
            let all = Tensor::cat(inputs, 0)?;
            if all.dim(0)? != width + read {
                return Ok(false);
            }
            states.push((layer, all.narrow(0, 0, width + keep)?, width));
        }
        for (layer, kept, width) in states {
            let state = kept.narrow(0, kept.dim(0)? - width, width)?;
            if let Some(LayerCache::Conv(slot)) = self.layers.get_mut(layer) {
                *slot = state.force_contiguous()?;
            }
            if let Some(inputs) = self.trial.as_mut().and_then(|t| t.inputs.get_mut(layer)) {
                *inputs = vec![kept];
            }
        }
        self.fed.truncate(len);
        Ok(true)
    }
}
