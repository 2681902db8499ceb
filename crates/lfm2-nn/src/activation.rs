//! What makes the values of a layer's middle: a function of each.

use candle_core::{Module, Result, Tensor};

use crate::ops;

/// A function of single values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// `x * P(normal < x)`, with the error function: `gelu` in configs.
    Gelu,
    /// `x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3))) / 2`: `gelu_pytorch_tanh` in configs.
    GeluTanh,
    /// `x / (1 + e^-x)`: `silu` or `swish` in configs.
    Silu,
}

impl Activation {
    /// Every name that [`from_name`](Self::from_name) knows.
    pub const NAMES: [&str; 5] = ["gelu", "gelu_new", "gelu_pytorch_tanh", "silu", "swish"];

    /// The one that a config calls `name`.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "gelu" => Some(Self::Gelu),
            "gelu_pytorch_tanh" | "gelu_new" => Some(Self::GeluTanh),
            "silu" | "swish" => Some(Self::Silu),
            _ => None,
        }
    }
}

impl Module for Activation {
    /// Any shape.
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        ops::activate(x, *self)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;

    #[test]
    fn every_name_means_one() {
        assert!(
            Activation::NAMES
                .iter()
                .all(|name| Activation::from_name(name).is_some())
        );
        assert_eq!(Activation::from_name("relu"), None);
    }

    #[test]
    fn all_give_the_values_of_their_formulas() -> Result<()> {
        let x = Tensor::new(&[-40f32, -3., -1., -0.1, 0., 0.5, 2., 40.], &Device::Cpu)?;
        // scipy: x * norm.cdf(x), and the formulas with tanh and exp in double precision.
        let exact = [
            0.,
            -0.004_049_694,
            -0.158_655_25,
            -0.046_017_22,
            0.,
            0.345_731_23,
            1.954_499_7,
            40.,
        ];
        let tanh = [
            0.,
            -0.003_637_392,
            -0.158_808_01,
            -0.046_017_25,
            0.,
            0.345_714,
            1.954_597_7,
            40.,
        ];
        let silu = [
            0.,
            -0.142_277_62,
            -0.268_941_42,
            -0.047_502_08,
            0.,
            0.311_229_67,
            1.761_594_2,
            40.,
        ];
        for (form, expected) in [
            (Activation::Gelu, exact),
            (Activation::GeluTanh, tanh),
            (Activation::Silu, silu),
        ] {
            let found = form.forward(&x)?.to_vec1::<f32>()?;
            for (found, expected) in found.iter().zip(expected) {
                assert!(
                    (found - expected).abs() < 2e-6,
                    "{form:?} {found} {expected}"
                );
            }
        }
        Ok(())
    }

    #[test]
    fn the_form_with_gradients_gives_the_same() -> Result<()> {
        let x = Var::from_tensor(&Tensor::randn(0f32, 4., (7, 33), &Device::Cpu)?)?;
        for form in [Activation::Gelu, Activation::GeluTanh, Activation::Silu] {
            let fast = form.forward(&x.as_tensor().detach())?;
            let learnt = form.forward(x.as_tensor())?;
            let error = (&fast - &learnt)?.abs()?.max_all()?.to_scalar::<f32>()?;
            assert!(error < 3e-6, "{form:?} {error}");
            let grads = learnt.sum_all()?.backward()?;
            assert!(grads.get(x.as_tensor()).is_some());
        }
        Ok(())
    }
}
