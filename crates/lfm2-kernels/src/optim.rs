//! What an optimiser does with all weights: the size of a gradient, and the update of AdamW.
//!
//! Both run on the calling thread and take a tensor at a time.

use crate::simd::{Kernel, Simd};
use crate::{Isa, ShapeError};

/// The sum of the squares of all values, in double precision.
pub fn sum_of_squares(isa: Isa, values: &[f32]) -> f64 {
    isa.run(SumOfSquares { values })
}

struct SumOfSquares<'a> {
    values: &'a [f32],
}

impl Kernel for SumOfSquares<'_> {
    type Output = f64;

    // A plain loop: it is compiled with the instruction set switched on.
    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> f64 {
        const LANES: usize = 32;
        let square = |x: &f32| f64::from(*x) * f64::from(*x);
        let (blocks, rest) = self.values.as_chunks::<LANES>();
        let mut lanes = [0.0; LANES];
        for block in blocks {
            for (lane, x) in lanes.iter_mut().zip(block) {
                *lane += square(x);
            }
        }
        lanes.iter().sum::<f64>() + rest.iter().map(square).sum::<f64>()
    }
}

/// Everything the update of a weight by [`adamw`] needs besides its gradient and moments.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamWFactors {
    /// Decay of the mean of gradients.
    pub beta1: f32,
    /// Decay of the mean of squared gradients.
    pub beta2: f32,
    /// `1 - beta1`, rounded once.
    pub rest1: f32,
    /// `1 - beta2`, rounded once.
    pub rest2: f32,
    /// Added to the root of the second moment.
    pub eps: f32,
    /// What gradients are multiplied by first.
    pub scale: f32,
    /// Learning rate over the bias correction of the first moment.
    pub step: f32,
    /// Bias correction of the root of the second moment.
    pub root: f32,
    /// What decay leaves of a weight.
    pub keep: f32,
}

/// One update of `weights` by their `gradient`, and of the moments `[first, second]`: with `g = scale
/// gradient`, `m = beta1 m + rest1 g`, `v = beta2 v + rest2 g²`,
/// `w = keep w - step m / (sqrt(v) root + eps)`.
///
/// # Errors
/// When the lengths differ.
pub fn adamw(
    isa: Isa,
    factors: AdamWFactors,
    gradient: &[f32],
    [first, second]: [&mut [f32]; 2],
    weights: &mut [f32],
) -> Result<(), ShapeError> {
    ShapeError::check("adamw gradient", weights.len(), gradient.len())?;
    ShapeError::check("adamw first moment", weights.len(), first.len())?;
    ShapeError::check("adamw second moment", weights.len(), second.len())?;
    isa.run(AdamW {
        factors,
        gradient,
        first,
        second,
        weights,
    });
    Ok(())
}

struct AdamW<'a> {
    factors: AdamWFactors,
    gradient: &'a [f32],
    first: &'a mut [f32],
    second: &'a mut [f32],
    weights: &'a mut [f32],
}

impl Kernel for AdamW<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let f = self.factors;
        let moments = self.first.iter_mut().zip(self.second);
        for ((w, &g), (m, v)) in self.weights.iter_mut().zip(self.gradient).zip(moments) {
            let g = g * f.scale;
            *m = f.beta1 * *m + f.rest1 * g;
            *v = f.beta2 * *v + f.rest2 * g * g;
            *w = f.keep * *w - f.step * *m / (v.sqrt() * f.root + f.eps);
        }
    }
}
