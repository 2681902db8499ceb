//! Layer normalisation with a bias, as encoders have it.

use candle_core::{Module, Result, Tensor};
use lfm2_hub::Result as LoadResult;

use crate::{Weights, ops};

/// `y = w * (x - mean(x)) / sqrt(var(x) + eps) + b` over the last dimension; the variance divides by
/// the number of values.
///
/// Statistics are `f32`; the normalised value takes the activation type before it meets `w`.
#[derive(Debug, Clone)]
pub struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
    eps: f64,
}

impl LayerNorm {
    /// The norm whose `weight` and `bias` are `[dim]`.
    ///
    /// # Errors
    /// When one of them is missing or has another shape.
    pub fn load(weights: &Weights, dim: usize, eps: f64) -> LoadResult<Self> {
        Ok(Self {
            weight: weights.tensor("weight", &[dim])?,
            bias: weights.tensor("bias", &[dim])?,
            eps,
        })
    }
}

impl Module for LayerNorm {
    /// `(.., dim)` to `(.., dim)`.
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        ops::layer_norm(x, &self.weight, &self.bias, self.eps)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device, Var};

    use super::*;

    fn norm() -> Result<LayerNorm> {
        Ok(LayerNorm {
            weight: Tensor::new(&[1f32, 2., 0.5, -1.], &Device::Cpu)?,
            bias: Tensor::new(&[0f32, 1., 0., 3.], &Device::Cpu)?,
            eps: 1e-5,
        })
    }

    #[test]
    fn rows_lose_their_mean_and_get_unit_variance_before_weight_and_bias() -> Result<()> {
        // Mean 2, variance 5: the eps does not show at this accuracy.
        let x = Tensor::new(&[[5f32, 3., 1., -1.], [10., 10., 10., 10.]], &Device::Cpu)?;
        let y = norm()?.forward(&x)?.to_vec2::<f32>()?;
        let root = 5f32.sqrt();
        let expected = [3. / root, 1. + 2. / root, -0.5 / root, 3. + 3. / root];
        for (found, expected) in y[0].iter().zip(expected) {
            assert!((found - expected).abs() < 1e-5, "{found} {expected}");
        }
        assert_eq!(y[1], [0., 1., 0., 3.], "a constant row is the bias");
        Ok(())
    }

    #[test]
    fn the_form_with_gradients_gives_the_same_and_reaches_the_input() -> Result<()> {
        let x = Var::from_tensor(&Tensor::randn(0f32, 3., (5, 4), &Device::Cpu)?)?;
        let norm = norm()?;
        let learnt = norm.forward(x.as_tensor())?;
        let fast = norm.forward(&x.as_tensor().detach())?;
        let difference = (&learnt - &fast)?.abs()?.max_all()?.to_scalar::<f32>()?;
        assert!(difference < 1e-5, "{difference}");
        let grads = learnt.sqr()?.sum_all()?.backward()?;
        let grad = grads.get(x.as_tensor()).map(|g| g.dtype());
        assert_eq!(grad, Some(DType::F32));
        Ok(())
    }
}
