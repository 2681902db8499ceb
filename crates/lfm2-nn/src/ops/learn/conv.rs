//! The gated short convolution inside every segment of a packed matrix.

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor};

use super::{Matrix, operand, result, tensor_like, view};
use crate::pass::Span;

/// `C * (conv(B * u) + bias)` from empty states: `bcu (tokens, 3 * channels)`, `kernel (channels,
/// width)`; `(tokens, channels)`. Tap `j` meets the position `j - before` places away, 0 outside the
/// token's own span.
pub(in crate::ops) fn short_conv(
    bcu: &Tensor,
    kernel: &Tensor,
    bias: Option<&Tensor>,
    spans: &[Span],
    before: usize,
) -> Result<Tensor> {
    let spans = spans.to_vec();
    let bcu = bcu.contiguous()?;
    let y = bcu.apply_op2(&kernel.contiguous()?, ShortConv { spans, before })?;
    match bias {
        None => Ok(y),
        Some(bias) => {
            let channels = bias.dim(0)?;
            y + bcu.narrow(1, channels, channels)?.broadcast_mul(bias)?
        }
    }
}

struct ShortConv {
    spans: Vec<Span>,
    before: usize,
}

/// The three parts of a row of `bcu`.
fn parts(row: &[f32]) -> (&[f32], &[f32], &[f32]) {
    let channels = row.len() / 3;
    let (b, rest) = row.split_at(channels);
    let (c, u) = rest.split_at(channels);
    (b, c, u)
}

/// `B * u` of every token.
fn gated(bcu: &[f32], channels: usize) -> Vec<f32> {
    let mut g = vec![0.0; bcu.len() / 3];
    for (g, row) in g
        .chunks_exact_mut(channels)
        .zip(bcu.chunks_exact(3 * channels))
    {
        let (b, _, u) = parts(row);
        for ((g, b), u) in g.iter_mut().zip(b).zip(u) {
            *g = b * u;
        }
    }
    g
}

impl ShortConv {
    /// Every pair of a token and the token that tap `tap` meets, as packed indices.
    fn pairs(&self, tap: usize) -> impl Iterator<Item = (usize, usize)> {
        let spans = self.spans.iter();
        spans.flat_map(move |span| {
            let met = move |t: usize| (t + tap).checked_sub(self.before).filter(|&s| s < span.len);
            (0..span.len).filter_map(move |t| Some((span.start + t, span.start + met(t)?)))
        })
    }

    /// The convolution of `g`; `taps` is the kernel as `(width, channels)`.
    fn convolve(&self, g: &[f32], taps: &[f32], channels: usize) -> Vec<f32> {
        let mut sums = vec![0.0; g.len()];
        for (tap, weights) in taps.chunks_exact(channels).enumerate() {
            for (to, from) in self.pairs(tap) {
                let (sum, g) = (
                    &mut sums[to * channels..][..channels],
                    &g[from * channels..][..channels],
                );
                for ((sum, g), w) in sum.iter_mut().zip(g).zip(weights) {
                    *sum += g * w;
                }
            }
        }
        sums
    }
}

impl CustomOp2 for ShortConv {
    fn name(&self) -> &'static str {
        "packed-short-conv"
    }

    fn cpu_fwd(
        &self,
        bcu: &CpuStorage,
        bcu_layout: &Layout,
        kernel: &CpuStorage,
        kernel_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (channels, width) = kernel_layout.shape().dims2()?;
        let bcu = operand(bcu, bcu_layout)?;
        let taps = Matrix::new(operand(kernel, kernel_layout)?, channels, width).transposed();
        let mut y = self.convolve(&gated(bcu, channels), &taps, channels);
        for (y, row) in y
            .chunks_exact_mut(channels)
            .zip(bcu.chunks_exact(3 * channels))
        {
            let (_, c, _) = parts(row);
            y.iter_mut().zip(c).for_each(|(y, c)| *y *= c);
        }
        result(y, (bcu_layout.shape().dims2()?.0, channels))
    }

    /// With `g = B u`, `s = conv(g)` and `ds = dy C`: `dC = dy s`; each tap adds `ds` times its weight
    /// to `dg` of the token it met, and `ds g` to its own gradient; `dB = dg u`, `du = dg B`.
    fn bwd(
        &self,
        bcu: &Tensor,
        kernel: &Tensor,
        _y: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (channels, width) = kernel.dims2()?;
        let dy = dy.contiguous()?;
        let (bcu_view, kernel_view, dy_view) = (view(bcu), view(kernel), view(&dy));
        let (rows, dys) = (bcu_view.slice::<f32>()?, dy_view.slice::<f32>()?);
        let taps = Matrix::new(kernel_view.slice()?, channels, width).transposed();
        let g = gated(rows, channels);
        let sums = self.convolve(&g, &taps, channels);
        let mut ds = dys.to_vec();
        for (ds, row) in ds
            .chunks_exact_mut(channels)
            .zip(rows.chunks_exact(3 * channels))
        {
            let (_, c, _) = parts(row);
            ds.iter_mut().zip(c).for_each(|(ds, c)| *ds *= c);
        }
        let (mut dg, mut dtaps) = (vec![0.0; g.len()], vec![0.0; taps.len()]);
        for tap in 0..width {
            let at = tap * channels;
            let (weights, dweights) = (&taps[at..][..channels], &mut dtaps[at..][..channels]);
            for (to, from) in self.pairs(tap) {
                let ds = &ds[to * channels..][..channels];
                let (g, dg) = (
                    &g[from * channels..][..channels],
                    &mut dg[from * channels..][..channels],
                );
                for i in 0..channels {
                    dg[i] += ds[i] * weights[i];
                    dweights[i] += ds[i] * g[i];
                }
            }
        }
        let mut dbcu = vec![0.0; rows.len()];
        for (token, out) in dbcu.chunks_exact_mut(3 * channels).enumerate() {
            let (b, _, u) = parts(&rows[token * 3 * channels..][..3 * channels]);
            let own = |values: &'_ [f32], i: usize| values[token * channels + i];
            for i in 0..channels {
                out[i] = own(&dg, i) * u[i];
                out[channels + i] = own(dys, i) * own(&sums, i);
                out[2 * channels + i] = own(&dg, i) * b[i];
            }
        }
        let dkernel = Matrix::new(&dtaps, width, channels).transposed();
        Ok((
            Some(tensor_like(dbcu, bcu)?),
            Some(tensor_like(dkernel, kernel)?),
        ))
    }
}
