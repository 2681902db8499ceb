//! The gradient of the RMS norm.

use super::{load_part, store_part};
use crate::simd::{Kernel, Simd};
use crate::{Isa, ShapeError, Sum};

/// The arguments of an [`rms_norm`](crate::rms_norm).
#[derive(Debug, Clone, Copy)]
pub struct RmsNormed<'a> {
    /// `(rows, dim)`
    pub x: &'a [f32],
    /// `(dim)`
    pub weight: &'a [f32],
    /// What was added to the mean of squares.
    pub eps: f32,
}

/// The gradients of a norm whose result has the gradient `dy (rows, dim)`: that of its input replaces or
/// is added to `dx (rows, dim)`, as `sum` says, and that of its weight is added to `dweight (dim)`.
///
/// With `r = 1 / sqrt(mean(x²) + eps)`: `dx = r (dy w - x r² mean(dy w x))`, `dw = sum of dy x r`.
///
/// # Errors
/// When the weight is empty, `x` is not whole rows, or other lengths differ from those.
pub fn rms_norm_gradient(
    isa: Isa,
    of: RmsNormed<'_>,
    dy: &[f32],
    dx: &mut [f32],
    sum: Sum,
    dweight: &mut [f32],
) -> Result<(), ShapeError> {
    ShapeError::divide("rms_norm x", of.x.len(), of.weight.len())?;
    ShapeError::check("rms_norm dy", of.x.len(), dy.len())?;
    ShapeError::check("rms_norm dx", of.x.len(), dx.len())?;
    ShapeError::check("rms_norm dweight", of.weight.len(), dweight.len())?;
    isa.run(Rows {
        of,
        dy,
        dx,
        sum,
        dweight,
    });
    Ok(())
}

struct Rows<'a> {
    of: RmsNormed<'a>,
    dy: &'a [f32],
    dx: &'a mut [f32],
    sum: Sum,
    dweight: &'a mut [f32],
}

impl Kernel for Rows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let RmsNormed { x, weight, eps } = self.of;
        let dim = weight.len();
        let rows = x.chunks_exact(dim).zip(self.dy.chunks_exact(dim));
        for ((x, dy), dx) in rows.zip(self.dx.chunks_exact_mut(dim)) {
            let (mut squares, mut pulls) = (s.zero(), s.zero());
            let parts = x.chunks(S::LANES).zip(dy.chunks(S::LANES));
            for ((x, dy), w) in parts.zip(weight.chunks(S::LANES)) {
                let x = load_part(s, x);
                let upstream = s.mul(load_part(s, dy), load_part(s, w));
                squares = s.mul_add(x, x, squares);
                pulls = s.mul_add(upstream, x, pulls);
            }
            let r = (s.sum(squares) / dim as f32 + eps).sqrt().recip();
            let pull = s.splat(-(r * r * s.sum(pulls) / dim as f32));
            let r = s.splat(r);
            let inputs = x.chunks(S::LANES).zip(dy.chunks(S::LANES));
            let inputs = inputs.zip(weight.chunks(S::LANES));
            let outputs = dx
                .chunks_mut(S::LANES)
                .zip(self.dweight.chunks_mut(S::LANES));
            for (((x, dy), w), (dx, dw)) in inputs.zip(outputs) {
                let (x, dy, w) = (load_part(s, x), load_part(s, dy), load_part(s, w));
                let inner = s.mul_add(x, pull, s.mul(dy, w));
                let value = match self.sum {
                    Sum::Replace => s.mul(r, inner),
                    Sum::Add => s.mul_add(r, inner, load_part(s, dx)),
                };
                store_part(s, dx, value);
                let sum = s.mul_add(s.mul(dy, x), r, load_part(s, dw));
                store_part(s, dw, sum);
            }
        }
    }
}
