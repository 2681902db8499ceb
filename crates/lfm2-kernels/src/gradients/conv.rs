//! The gradient of the gated short convolution.

use crate::conv::ConvKernel;
use crate::scratch::with_scratch;
use crate::simd::{Kernel, Simd};
use crate::{Isa, ShapeError};

/// Where the results of [`short_conv_gradient`] go.
#[derive(Debug)]
pub struct ConvGradient<'a> {
    /// The gradient of the input, `(tokens, 3 * channels)`.
    pub bcx: &'a mut [f32],
    /// The convolution's result once more, `(tokens, channels)`: the layer behind it needs it.
    pub y: &'a mut [f32],
    /// What the gradient of the taps is added to, `(taps, channels)`.
    pub taps: &'a mut [f32],
    /// What the gradient of the bias is added to, `(channels)`.
    pub bias: &'a mut [f32],
}

/// The gradients of the convolution of one sequence from an empty state, whose result has the gradient
/// `dy (tokens, channels)`. Tap `j` of output `t` sees token `t - before + j`, zero outside the sequence.
///
/// With `g = B u`, `s = conv(g) + bias` and `ds = dy C`: `dC = dy s`; each tap adds `ds` times its weight
/// to `dg` of the token it met, and `ds g` to its own gradient; `dB = dg u`, `du = dg B`.
///
/// # Errors
/// When `dy` is not whole tokens, or another length does not follow from it.
pub fn short_conv_gradient(
    isa: Isa,
    bcx: &[f32],
    kernel: &ConvKernel,
    before: usize,
    dy: &[f32],
    out: ConvGradient<'_>,
) -> Result<(), ShapeError> {
    let channels = kernel.channels();
    let tokens = ShapeError::divide("short_conv dy", dy.len(), channels)?;
    let wide = ShapeError::product("short_conv bcx", &[tokens, 3, channels])?;
    ShapeError::check("short_conv bcx", wide, bcx.len())?;
    ShapeError::check("short_conv dbcx", wide, out.bcx.len())?;
    ShapeError::check("short_conv y", dy.len(), out.y.len())?;
    ShapeError::check("short_conv dtaps", kernel.taps() * channels, out.taps.len())?;
    ShapeError::check("short_conv dbias", channels, out.bias.len())?;
    with_scratch(2 * dy.len(), |scratch| {
        let (g, ds) = scratch.split_at_mut(dy.len());
        isa.run(Sequence {
            bcx,
            kernel,
            before,
            dy,
            g,
            ds,
            out,
        });
    });
    Ok(())
}

struct Sequence<'a> {
    bcx: &'a [f32],
    kernel: &'a ConvKernel,
    before: usize,
    dy: &'a [f32],
    g: &'a mut [f32],
    ds: &'a mut [f32],
    out: ConvGradient<'a>,
}

/// `[B, C, u]` of a token.
#[inline(always)]
fn parts(row: &[f32], channels: usize) -> (&[f32], &[f32], &[f32]) {
    let (b, rest) = row.split_at(channels);
    let (c, u) = rest.split_at(channels);
    (b, c, u)
}

impl Kernel for Sequence<'_> {
    type Output = ();

    // Plain loops: they are compiled with the instruction set switched on.
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let channels = self.kernel.channels();
        let rows = || self.bcx.chunks_exact(3 * channels);
        let products = self.g.chunks_exact_mut(channels);
        let sums = self.ds.chunks_exact_mut(channels);
        let upstream = self.dy.chunks_exact(channels);
        for (((row, g), ds), dy) in rows().zip(products).zip(sums).zip(upstream) {
            let (b, c, u) = parts(row, channels);
            multiply_into(b, u, g);
            multiply_into(dy, c, ds);
            add(self.out.bias, ds);
        }
        let tokens = self.dy.len() / channels;
        let row_of = |t: usize| t * channels..(t + 1) * channels;
        for (t, row) in rows().enumerate() {
            let (b, c, u) = parts(row, channels);
            let dbcx = &mut self.out.bcx[t * 3 * channels..][..3 * channels];
            let (db, rest) = dbcx.split_at_mut(channels);
            let (dc, du) = rest.split_at_mut(channels);
            let y = &mut self.out.y[row_of(t)];
            // The sum of the convolution, which is not kept.
            y.copy_from_slice(self.kernel.bias());
            db.fill(0.0);
            let taps = self
                .kernel
                .tap_rows()
                .zip(self.out.taps.chunks_exact_mut(channels));
            for (tap, (weight, dweight)) in taps.enumerate() {
                if let Some(met) = (t + tap).checked_sub(self.before).filter(|&m| m < tokens) {
                    let g = &self.g[row_of(met)];
                    add_product(y, weight, g);
                    add_product(dweight, &self.ds[row_of(t)], g);
                }
                // The token that sees this one through this tap.
                if let Some(by) = (t + self.before).checked_sub(tap).filter(|&m| m < tokens) {
                    add_product(db, weight, &self.ds[row_of(by)]);
                }
            }
            multiply_into(&self.dy[row_of(t)], y, dc);
            multiply_into(db, b, du);
            for (db, u) in db.iter_mut().zip(u) {
                *db *= u;
            }
            for (y, c) in y.iter_mut().zip(c) {
                *y *= c;
            }
        }
    }
}

#[inline(always)]
fn multiply_into(a: &[f32], b: &[f32], out: &mut [f32]) {
    for ((out, a), b) in out.iter_mut().zip(a).zip(b) {
        *out = a * b;
    }
}

#[inline(always)]
fn add_product(sum: &mut [f32], a: &[f32], b: &[f32]) {
    for ((sum, a), b) in sum.iter_mut().zip(a).zip(b) {
        *sum += a * b;
    }
}

#[inline(always)]
fn add(sum: &mut [f32], a: &[f32]) {
    for (sum, a) in sum.iter_mut().zip(a) {
        *sum += a;
    }
}
