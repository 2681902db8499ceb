//! Root-mean-square normalisation.

use candle_core::{Module, Result, Tensor};
use lfm2_hub::Result as LoadResult;

use crate::{Weights, ops};

/// `y = w * x / sqrt(mean(x^2) + eps)` over the last dimension; no "1 + w".
///
/// Statistics are `f32`; the normalised value takes the activation type before it meets `w`.
#[derive(Debug, Clone)]
pub struct RmsNorm {
    weight: Tensor,
    eps: f64,
}

impl RmsNorm {
    /// The norm whose `weight` is `[dim]`.
    ///
    /// # Errors
    /// When the weight is missing or has another shape.
    pub fn load(weights: &Weights, dim: usize, eps: f64) -> LoadResult<Self> {
        Ok(Self {
            weight: weights.tensor("weight", &[dim])?,
            eps,
        })
    }
}

impl RmsNorm {
    /// What a layer needs to norm its own input.
    pub(crate) fn parts(&self) -> ops::Norm<'_> {
        ops::Norm {
            weight: &self.weight,
            eps: self.eps,
        }
    }

    /// Normalises every `dim` values in place, on a CPU in `f32`.
    pub(crate) fn apply_in_place(&self, values: &mut [f32]) -> Result<()> {
        ops::fast::rms_norm_values(values, &self.weight, self.eps)
    }
}

impl Module for RmsNorm {
    /// `(.., dim)` to `(.., dim)`.
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        ops::rms_norm(x, &self.weight, self.eps)
    }
}
