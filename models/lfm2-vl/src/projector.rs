//! [`Projector`]: from patches to the rows that stand where text has embeddings.

use candle_core::{Module, Result, Tensor};
use lfm2_hub::Result as LoadResult;
use lfm2_nn::{Activation, Bias, LayerNorm, Linear, Weights};

use crate::config::ProjectorConfig;
use crate::view::PatchGrid;

/// Epsilon of the norm, which no config states.
const NORM_EPS: f64 = 1e-5;

/// Squares of patches joined into one vector each, then two matrices. Immutable, cheap to clone.
#[derive(Debug, Clone)]
pub struct Projector {
    factor: usize,
    norm: Option<LayerNorm>,
    widen: Linear,
    activation: Activation,
    narrow: Linear,
}

impl Projector {
    /// The projector from vectors of `input` to vectors of `output` numbers under `weights`.
    ///
    /// # Errors
    /// When a tensor is missing or contradicts the config; both are named.
    pub fn load(
        config: &ProjectorConfig,
        input: usize,
        output: usize,
        weights: &Weights,
    ) -> LoadResult<Self> {
        let joined = config.factor.pow(2) * input;
        let bias = Bias::from(config.bias);
        // Some files have a norm that the config switches off; then it is not used.
        let norm = match config.norm {
            true => Some(LayerNorm::load(
                &weights.pp("layer_norm"),
                joined,
                NORM_EPS,
            )?),
            false => None,
        };
        let linear = |name: &str, from, to| weights.pp(name).linear(from, to, bias);
        Ok(Self {
            factor: config.factor,
            norm,
            widen: linear("linear_1", joined, config.hidden_size)?,
            activation: config.activation,
            narrow: linear("linear_2", config.hidden_size, output)?,
        })
    }

    /// Patches `(patches, input)` of views with these grids, one after another, to `(tokens, output)`.
    ///
    /// # Errors
    /// When the grids do not add up to the patches, a side is no multiple of the factor, or the device
    /// fails.
    pub fn forward(&self, patches: &Tensor, grids: &[PatchGrid]) -> Result<Tensor> {
        let mut start = 0;
        let mut joined = Vec::with_capacity(grids.len());
        for grid in grids {
            joined.push(self.join(&patches.narrow(0, start, grid.patches())?, *grid)?);
            start += grid.patches();
        }
        let mut x = Tensor::cat(&joined, 0)?;
        if let Some(norm) = &self.norm {
            x = norm.forward(&x)?;
        }
        let x = self.widen.forward_activated(&x, self.activation)?;
        self.narrow.forward(&x)
    }

    /// The vectors of each square of patches, one after another: left to right, then down.
    fn join(&self, patches: &Tensor, grid: PatchGrid) -> Result<Tensor> {
        let (factor, dim) = (self.factor, patches.dim(1)?);
        let (rows, cols) = (grid.rows / factor, grid.cols / factor);
        patches
            .reshape((rows, factor, cols, factor * dim))?
            .transpose(1, 2)?
            .contiguous()?
            .reshape((rows * cols, factor * factor * dim))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn a_square_is_joined_left_to_right_and_then_down() -> Result<()> {
        let linear = Linear::new(
            lfm2_nn::Matrix::Dense(Tensor::zeros(
                (1, 4),
                candle_core::DType::F32,
                &Device::Cpu,
            )?),
            None,
        );
        let linear = linear.map_err(candle_core::Error::wrap)?;
        let projector = Projector {
            factor: 2,
            norm: None,
            widen: linear.clone(),
            activation: Activation::Gelu,
            narrow: linear,
        };
        // Two rows of four patches, with one number each.
        let patches = Tensor::arange(0f32, 8., &Device::Cpu)?.reshape((8, 1))?;
        let joined = projector.join(&patches, PatchGrid { rows: 2, cols: 4 })?;
        assert_eq!(
            joined.to_vec2::<f32>()?,
            [[0., 1., 4., 5.], [2., 3., 6., 7.]]
        );
        Ok(())
    }
}
