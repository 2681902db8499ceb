//! Norms, row by row: RMS norm, `y = x / sqrt(mean(x²) + eps) * weight`, and layer norm, which takes the mean
//! off before and adds a bias.

use crate::element::load_head;
use crate::simd::{Kernel, Simd, math};
use crate::threads::{SharedMut, for_each_task};
use crate::{Isa, ShapeError};

/// Rows that one thread takes at a time hold about this many values.
const TASK_VALUES: usize = 1 << 13;

/// RMS norm of the rows of `x (rows, dim)` into `out (rows, dim)`; `weight (dim)` gives `dim`.
///
/// # Errors
/// When `weight` is empty, `x` is not whole rows, or `out` has another length than `x`.
pub fn rms_norm(
    isa: Isa,
    x: &[f32],
    weight: &[f32],
    eps: f32,
    out: &mut [f32],
) -> Result<(), ShapeError> {
    ShapeError::divide("rms_norm x", x.len(), weight.len())?;
    ShapeError::check("rms_norm out", x.len(), out.len())?;
    let dim = weight.len();
    each_block(out, dim, |first, out| {
        let x = &x[first..first + out.len()];
        isa.run(NormRows {
            x,
            weight,
            eps,
            out,
        });
    });
    Ok(())
}

/// [`rms_norm`] that replaces its input.
///
/// # Errors
/// When `weight` is empty or `x` is not whole rows.
pub fn rms_norm_in_place(
    isa: Isa,
    x: &mut [f32],
    weight: &[f32],
    eps: f32,
) -> Result<(), ShapeError> {
    ShapeError::divide("rms_norm x", x.len(), weight.len())?;
    let dim = weight.len();
    each_block(x, dim, |_, rows| {
        isa.run(NormRowsInPlace { rows, weight, eps });
    });
    Ok(())
}

/// Adds `delta` to the residual stream and norms the sum: `residual += delta`,
/// `out = rms_norm(residual)`. All three are `(rows, dim)`.
///
/// # Errors
/// When `weight` is empty, `residual` is not whole rows, or the lengths differ.
pub fn add_rms_norm(
    isa: Isa,
    residual: &mut [f32],
    delta: &[f32],
    weight: &[f32],
    eps: f32,
    out: &mut [f32],
) -> Result<(), ShapeError> {
    ShapeError::divide("add_rms_norm residual", residual.len(), weight.len())?;
    ShapeError::check("add_rms_norm delta", residual.len(), delta.len())?;
    ShapeError::check("add_rms_norm out", residual.len(), out.len())?;
    let dim = weight.len();
    let residual = SharedMut::new(residual);
    each_block(out, dim, |first, out| {
        // SAFETY: blocks are disjoint ranges of `out`, and this is the same range.
        let residual = unsafe { residual.slice(first, out.len()) };
        let rows = residual
            .chunks_exact_mut(dim)
            .zip(delta[first..].chunks_exact(dim));
        for ((residual, delta), out) in rows.zip(out.chunks_exact_mut(dim)) {
            isa.run(AddRow {
                sum: residual,
                delta,
            });
            isa.run(NormRows {
                x: residual,
                weight,
                eps,
                out,
            });
        }
    });
    Ok(())
}

/// Layer norm of the rows of `x (rows, dim)` into `out (rows, dim)`:
/// `(x - mean(x)) / sqrt(var(x) + eps) * weight + bias`, with `weight` and `bias (dim)`.
///
/// # Errors
/// When `weight` is empty, `x` is not whole rows, or another length differs.
pub fn layer_norm(
    isa: Isa,
    x: &[f32],
    [weight, bias]: [&[f32]; 2],
    eps: f32,
    out: &mut [f32],
) -> Result<(), ShapeError> {
    ShapeError::divide("layer_norm x", x.len(), weight.len())?;
    ShapeError::check("layer_norm bias", weight.len(), bias.len())?;
    ShapeError::check("layer_norm out", x.len(), out.len())?;
    let dim = weight.len();
    each_block(out, dim, |first, out| {
        let x = &x[first..first + out.len()];
        for (x, out) in x.chunks_exact(dim).zip(out.chunks_exact_mut(dim)) {
            let affine = [weight, bias];
            isa.run(LayerNormRow {
                x,
                affine,
                eps,
                out,
            });
        }
    });
    Ok(())
}

/// Calls `f` with the first index and the content of every block of whole rows, in parallel.
pub(crate) fn each_block(out: &mut [f32], dim: usize, f: impl Fn(usize, &mut [f32]) + Sync) {
    let len = out.len();
    let block = (TASK_VALUES / dim).max(1) * dim;
    let shared = SharedMut::new(out);
    for_each_task(len.div_ceil(block), len, |task| {
        let first = task * block;
        // SAFETY: tasks take disjoint ranges.
        f(first, unsafe {
            shared.slice(first, block.min(len - first))
        });
    });
}

/// What each value of a row is multiplied by before its weight.
#[inline(always)]
fn inverse_rms<S: Simd>(s: S, row: &[f32], eps: f32) -> f32 {
    1.0 / (math::dot(s, row, row) / row.len() as f32 + eps).sqrt()
}

/// Rows of `x` into `out`, which is as long.
struct NormRows<'a> {
    x: &'a [f32],
    weight: &'a [f32],
    eps: f32,
    out: &'a mut [f32],
}

impl Kernel for NormRows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let dim = self.weight.len();
        for (x, out) in self.x.chunks_exact(dim).zip(self.out.chunks_exact_mut(dim)) {
            let factor = s.splat(inverse_rms(s, x, self.eps));
            let inputs = x.chunks(S::LANES).zip(self.weight.chunks(S::LANES));
            for (out, (x, weight)) in out.chunks_mut(S::LANES).zip(inputs) {
                if out.len() == S::LANES {
                    s.store(out, s.mul(s.mul(s.load(x), factor), s.load(weight)));
                } else {
                    let y = s.mul(s.mul(load_head(s, x), factor), load_head(s, weight));
                    s.store_head(out, y);
                }
            }
        }
    }
}

struct LayerNormRow<'a> {
    x: &'a [f32],
    affine: [&'a [f32]; 2],
    eps: f32,
    out: &'a mut [f32],
}

impl Kernel for LayerNormRow<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let count = self.x.len() as f32;
        let (vectors, tail) = self.x.split_at(self.x.len() - self.x.len() % S::LANES);
        let mut sums = [s.zero(); 2];
        for (i, x) in vectors.chunks_exact(S::LANES).enumerate() {
            sums[i % 2] = s.add(sums[i % 2], s.load(x));
        }
        let mean = (s.sum(s.add(sums[0], sums[1])) + tail.iter().sum::<f32>()) / count;
        let middle = s.splat(mean);
        let mut squares = [s.zero(); 2];
        for (i, x) in vectors.chunks_exact(S::LANES).enumerate() {
            let x = s.sub(s.load(x), middle);
            squares[i % 2] = s.mul_add(x, x, squares[i % 2]);
        }
        let rest: f32 = tail.iter().map(|x| (x - mean) * (x - mean)).sum();
        let variance = (s.sum(s.add(squares[0], squares[1])) + rest) / count;
        let factor = s.splat(1.0 / (variance + self.eps).sqrt());
        let [weight, bias] = self.affine.map(|values| values.chunks(S::LANES));
        let inputs = self.x.chunks(S::LANES).zip(weight).zip(bias);
        for (out, ((x, w), b)) in self.out.chunks_mut(S::LANES).zip(inputs) {
            if out.len() == S::LANES {
                let normed = s.mul(s.sub(s.load(x), middle), factor);
                s.store(out, s.mul_add(normed, s.load(w), s.load(b)));
            } else {
                let normed = s.mul(s.sub(load_head(s, x), middle), factor);
                s.store_head(out, s.mul_add(normed, load_head(s, w), load_head(s, b)));
            }
        }
    }
}

struct NormRowsInPlace<'a> {
    rows: &'a mut [f32],
    weight: &'a [f32],
    eps: f32,
}

impl Kernel for NormRowsInPlace<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for row in self.rows.chunks_exact_mut(self.weight.len()) {
            let factor = s.splat(inverse_rms(s, row, self.eps));
            for (x, weight) in row.chunks_mut(S::LANES).zip(self.weight.chunks(S::LANES)) {
                if x.len() == S::LANES {
                    s.store(x, s.mul(s.mul(s.load(x), factor), s.load(weight)));
                } else {
                    let y = s.mul(s.mul(load_head(s, x), factor), load_head(s, weight));
                    s.store_head(x, y);
                }
            }
        }
    }
}

struct AddRow<'a> {
    sum: &'a mut [f32],
    delta: &'a [f32],
}

impl Kernel for AddRow<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let mut sums = self.sum.chunks_exact_mut(S::LANES);
        let mut deltas = self.delta.chunks_exact(S::LANES);
        for (sum, delta) in (&mut sums).zip(&mut deltas) {
            s.store(sum, s.add(s.load(sum), s.load(delta)));
        }
        for (sum, delta) in sums.into_remainder().iter_mut().zip(deltas.remainder()) {
            *sum += delta;
        }
    }
}
