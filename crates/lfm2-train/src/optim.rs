//! AdamW with decoupled weight decay, and clipping by the global norm.
//!
//! Written on plain slices: one pass over each tensor updates both moments and the weights, where
//! tensor operations would make ten. The state can be taken out and put back exactly, so that a
//! resumed run continues bit for bit.

use std::sync::Mutex;

use candle_core::backprop::GradStore;
use candle_core::{CpuStorage, InplaceOp1, Layout, bail};
use lfm2_kernels::Isa;
use lfm2_kernels::optim::{AdamWFactors, adamw, sum_of_squares};
use lfm2_kernels::profile::{Op, Work, span};
use lfm2_text::TensorRole;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::isa::isa;
use crate::variables::Parameters;
use crate::{Error, Result};

/// Settings of [`AdamW`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct AdamWOptions {
    /// Decay of the mean of gradients.
    pub beta1: f64,
    /// Decay of the mean of squared gradients.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Share of the learning rate by which linear weights shrink per step.
    pub weight_decay: f64,
    /// The same for norms, biases, the embedding and convolution kernels, which as a rule do not decay.
    pub other_weight_decay: f64,
}

impl Default for AdamWOptions {
    fn default() -> Self {
        Self {
            beta1: 0.9,
            beta2: 0.95,
            eps: 1e-8,
            weight_decay: 0.1,
            other_weight_decay: 0.0,
        }
    }
}

impl AdamWOptions {
    /// Sets both decay rates of the moments.
    pub fn with_betas(mut self, beta1: f64, beta2: f64) -> Self {
        (self.beta1, self.beta2) = (beta1, beta2);
        self
    }

    /// Sets the decay of linear weights.
    pub fn with_weight_decay(mut self, weight_decay: f64) -> Self {
        self.weight_decay = weight_decay;
        self
    }

    /// Checks that every setting is in its range.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] naming the field.
    pub fn validate(&self) -> Result<()> {
        for (key, beta) in [
            ("optimizer.beta1", self.beta1),
            ("optimizer.beta2", self.beta2),
        ] {
            if !(0.0..1.0).contains(&beta) {
                return Err(Error::option(
                    key,
                    format!("expected 0 <= beta < 1, found {beta}"),
                ));
            }
        }
        let decays = [
            ("optimizer.eps", self.eps),
            ("optimizer.weight_decay", self.weight_decay),
            ("optimizer.other_weight_decay", self.other_weight_decay),
        ];
        for (key, value) in decays {
            if !(value.is_finite() && value >= 0.0) {
                return Err(Error::option(
                    key,
                    format!("expected a number of at least 0, found {value}"),
                ));
            }
        }
        Ok(())
    }

    fn decay_of(&self, role: TensorRole) -> f64 {
        match role {
            TensorRole::Embedding
            | TensorRole::Norm
            | TensorRole::ConvKernel
            | TensorRole::Bias => self.other_weight_decay,
            _ => self.weight_decay,
        }
    }
}

/// Gradients of all parameters, in the order of [`Parameters::iter`].
#[derive(Debug, Clone, PartialEq)]
pub struct Gradients {
    /// One gradient per parameter, row-major.
    pub tensors: Vec<Vec<f32>>,
}

impl Gradients {
    /// Those in `store`; zero for a parameter that took no part.
    ///
    /// # Errors
    /// When one is not `f32`.
    pub fn of(store: &GradStore, parameters: &Parameters) -> candle_core::Result<Self> {
        let _span = span(Op::Gradients, &[], Work::NONE);
        let tensors = parameters.iter().map(|p| match store.get(p.tensor()) {
            Some(gradient) => gradient.flatten_all()?.to_vec1::<f32>(),
            None => Ok(vec![0.0; p.elements()]),
        });
        Ok(Self {
            tensors: tensors.collect::<candle_core::Result<_>>()?,
        })
    }

    /// Adds `other` element by element; both must be of the same model.
    pub fn add(&mut self, other: &Self) {
        let _span = span(Op::Gradients, &[], Work::NONE);
        self.tensors
            .par_iter_mut()
            .zip(&other.tensors)
            .for_each(|(sum, more)| {
                for (sum, more) in sum.iter_mut().zip(more) {
                    *sum += more;
                }
            });
    }

    /// The Euclidean norm over all tensors together.
    pub fn norm(&self) -> f64 {
        let _span = span(Op::Optimizer, &[], Work::NONE);
        let isa = isa();
        let squares = self.tensors.par_iter().map(|t| sum_of_squares(isa, t));
        // Collected first: the order of a parallel sum may vary.
        squares.collect::<Vec<_>>().iter().sum::<f64>().sqrt()
    }
}

/// The factor that brings a gradient of norm `norm` down to `clip`; 1 where it is smaller.
pub fn clip_factor(norm: f64, clip: Option<f64>) -> f64 {
    clip.map_or(1.0, |clip| (clip / (norm + 1e-6)).min(1.0))
}

/// The moments of one parameter.
#[derive(Debug, Clone, PartialEq)]
pub struct Moments {
    /// Running mean of the gradient.
    pub first: Vec<f32>,
    /// Running mean of the squared gradient.
    pub second: Vec<f32>,
}

/// The optimiser: its settings, the number of updates and the moments.
#[derive(Debug, Clone)]
pub struct AdamW {
    options: AdamWOptions,
    updates: u64,
    moments: Vec<Moments>,
}

impl AdamW {
    /// An optimiser that has not updated `parameters` yet.
    pub fn new(options: AdamWOptions, parameters: &Parameters) -> Self {
        let zeros = parameters.iter().map(|p| {
            let n = p.elements();
            Moments {
                first: vec![0.0; n],
                second: vec![0.0; n],
            }
        });
        Self {
            options,
            updates: 0,
            moments: zeros.collect(),
        }
    }

    /// An optimiser that goes on after `updates` updates with the moments it had then.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] when the moments are not those of `parameters`.
    pub fn from_state(
        options: AdamWOptions,
        updates: u64,
        moments: Vec<Moments>,
        parameters: &Parameters,
    ) -> Result<Self> {
        let sizes = || parameters.iter().map(|p| p.elements());
        if moments.len() != sizes().count() {
            let detail = format!(
                "expected {} tensors, found {}",
                sizes().count(),
                moments.len()
            );
            return Err(Error::option("optimiser state", detail));
        }
        for ((size, m), p) in sizes().zip(&moments).zip(parameters.iter()) {
            if m.first.len() != size || m.second.len() != size {
                let detail = format!(
                    "{}: expected {size} numbers, found {}",
                    p.name(),
                    m.first.len()
                );
                return Err(Error::option("optimiser state", detail));
            }
        }
        Ok(Self {
            options,
            updates,
            moments,
        })
    }

    /// The number of updates made.
    pub fn updates(&self) -> u64 {
        self.updates
    }

    /// The moments, in the order of [`Parameters::iter`].
    pub fn moments(&self) -> &[Moments] {
        &self.moments
    }

    /// One update of every parameter with learning rate `rate` times its own. The gradients are multiplied by
    /// `scale` first ([`clip_factor`]).
    ///
    /// # Errors
    /// When a parameter is not an `f32` tensor on the CPU, or a gradient has another size.
    pub fn update(
        &mut self,
        parameters: &Parameters,
        gradients: &Gradients,
        rate: f64,
        scale: f64,
    ) -> candle_core::Result<()> {
        if gradients.tensors.len() != self.moments.len() {
            bail!(
                "{} gradients for {} parameters",
                gradients.tensors.len(),
                self.moments.len()
            );
        }
        let _span = span(Op::Optimizer, &[], Work::NONE);
        self.updates += 1;
        let t = self.updates.min(i32::MAX as u64) as i32;
        let (o, isa) = (self.options, isa());
        let shared = AdamWFactors {
            beta1: o.beta1 as f32,
            beta2: o.beta2 as f32,
            // (1-beta) rounded from f64: 1.0f32 - 0.95f32 is off in the seventh digit.
            rest1: (1.0 - o.beta1) as f32,
            rest2: (1.0 - o.beta2) as f32,
            eps: o.eps as f32,
            scale: scale as f32,
            step: (rate / (1.0 - o.beta1.powi(t))) as f32,
            root: (1.0 - o.beta2.powi(t)).sqrt().recip() as f32,
            keep: 1.0,
        };
        let work: Vec<_> = parameters
            .iter()
            .zip(&mut self.moments)
            .zip(&gradients.tensors)
            .collect();
        work.into_par_iter()
            .try_for_each(|((parameter, moments), gradient)| {
                let own = parameter.rate();
                let factors = AdamWFactors {
                    step: (f64::from(shared.step) * own) as f32,
                    keep: (1.0 - rate * own * o.decay_of(parameter.role())) as f32,
                    ..shared
                };
                parameter.tensor().inplace_op1(&Update {
                    factors,
                    isa,
                    gradient,
                    moments: Mutex::new(moments),
                })
            })
    }
}

/// The update of one parameter's storage. The lock only carries the moments through the shared
/// reference that Candle passes; nobody waits for it.
struct Update<'a> {
    factors: AdamWFactors,
    isa: Isa,
    gradient: &'a [f32],
    moments: Mutex<&'a mut Moments>,
}

impl InplaceOp1 for Update<'_> {
    fn name(&self) -> &'static str {
        "adamw"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
        let CpuStorage::F32(data) = storage else {
            bail!("parameters are trained in f32")
        };
        let Some((start, end)) = layout.contiguous_offsets() else {
            bail!("parameters must be contiguous")
        };
        let weights = &mut data[start..end];
        let Ok(mut moments) = self.moments.lock() else {
            bail!("the moments are gone after a panic")
        };
        let Moments { first, second } = &mut **moments;
        let moments = [&mut first[..], &mut second[..]];
        adamw(self.isa, self.factors, self.gradient, moments, weights)
            .map_err(candle_core::Error::wrap)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lfm2_text::TensorSpec;

    fn spec(name: &str, len: usize, role: TensorRole) -> TensorSpec {
        TensorSpec {
            name: name.into(),
            shape: vec![len],
            role,
        }
    }

    fn one(values: &[f32]) -> Parameters {
        let spec = spec("w1", values.len(), TensorRole::Projection);
        Parameters::from_values(vec![(spec, values.to_vec())]).unwrap()
    }

    #[test]
    fn the_first_update_moves_by_the_rate_whatever_the_gradient() {
        let parameters = one(&[1.0, -1.0, 0.5]);
        let options = AdamWOptions::default().with_weight_decay(0.0);
        let gradients = Gradients {
            tensors: vec![vec![1e-3, -5.0, 100.0]],
        };
        AdamW::new(options, &parameters)
            .update(&parameters, &gradients, 0.01, 1.0)
            .unwrap();
        let moved = parameters.values().unwrap();
        for (w, expected) in moved[0].iter().zip([0.99, -0.99, 0.49]) {
            assert!((w - expected).abs() < 1e-6, "{w} and {expected}");
        }
    }

    #[test]
    fn decay_shrinks_linear_weights_and_leaves_norms_alone() {
        let specs = [
            spec("w1", 1, TensorRole::Projection),
            spec("norm", 1, TensorRole::Norm),
        ];
        let parameters = Parameters::from_values(specs.map(|s| (s, vec![2.0])).to_vec()).unwrap();
        let zero = Gradients {
            tensors: vec![vec![0.0], vec![0.0]],
        };
        let options = AdamWOptions::default().with_weight_decay(0.5);
        AdamW::new(options, &parameters)
            .update(&parameters, &zero, 0.1, 1.0)
            .unwrap();
        let by_name: Vec<_> = parameters
            .iter()
            .map(|p| (p.role(), p.values().unwrap()[0]))
            .collect();
        assert_eq!(
            by_name,
            [(TensorRole::Norm, 2.0), (TensorRole::Projection, 1.9)]
        );
    }

    #[test]
    fn state_taken_out_and_put_back_continues_bit_for_bit() {
        let gradients = |k: u32| Gradients {
            tensors: vec![vec![0.1 * k as f32, -1.0 / k as f32]],
        };
        let options = AdamWOptions::default();
        let whole = one(&[0.3, -0.7]);
        let mut adam = AdamW::new(options, &whole);
        (1..=6).for_each(|k| adam.update(&whole, &gradients(k), 0.01, 0.9).unwrap());

        let parts = one(&[0.3, -0.7]);
        let mut first = AdamW::new(options, &parts);
        (1..=3).for_each(|k| first.update(&parts, &gradients(k), 0.01, 0.9).unwrap());
        let saved = first.moments().to_vec();
        let mut second = AdamW::from_state(options, first.updates(), saved, &parts).unwrap();
        (4..=6).for_each(|k| second.update(&parts, &gradients(k), 0.01, 0.9).unwrap());
        assert_eq!(whole.values().unwrap(), parts.values().unwrap());
    }

    #[test]
    fn moments_of_another_model_are_refused() {
        let short = vec![Moments {
            first: vec![0.0],
            second: vec![0.0],
        }];
        let error =
            AdamW::from_state(AdamWOptions::default(), 1, short, &one(&[1.0, 2.0])).unwrap_err();
        assert!(
            error.to_string().contains("expected 2 numbers, found 1"),
            "{error}"
        );
    }

    #[test]
    fn clipping_only_ever_shrinks() {
        assert_eq!(clip_factor(0.5, Some(1.0)), 1.0);
        assert_eq!(clip_factor(1e9, None), 1.0);
        assert!((clip_factor(4.0, Some(1.0)) - 0.25).abs() < 1e-6);
        assert_eq!(clip_factor(0.0, Some(0.0)), 0.0);
    }

    #[test]
    fn settings_out_of_range_are_refused_by_name() {
        let bad = AdamWOptions::default().with_betas(0.9, 1.0);
        assert!(
            bad.validate()
                .unwrap_err()
                .to_string()
                .contains("optimizer.beta2")
        );
        assert!(
            AdamWOptions::default()
                .with_weight_decay(f64::NAN)
                .validate()
                .is_err()
        );
    }
}
