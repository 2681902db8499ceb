//! The layer of a gated short convolution.

use candle_core::{Result, Tensor};
use lfm2_kernels::{Scratch, Sum};

use super::super::conv::{backward, prepared};
use super::super::many::{self, Layer};
use super::{
    Back, Forth, Group, Kept, Matrix, Norm, Normed, groups, lost, parts, tallest, weight_gradient,
};
use crate::ops::fast;
use crate::pass::Span;
use crate::short_conv::Window;

/// The weights of a convolution layer.
#[derive(Clone, Copy)]
pub(crate) struct ConvWeights<'a> {
    pub(crate) input: &'a Tensor,
    /// `(channels, width)`
    pub(crate) kernel: &'a Tensor,
    pub(crate) output: &'a Tensor,
}

/// `x + out(C * conv(B * u))` with `[B, C, u] = in(norm(x))`, inside every span.
pub(in crate::ops) fn short_conv(
    x: &Tensor,
    norm: Norm<'_>,
    weights: ConvWeights<'_>,
    spans: &[Span],
    window: Window,
) -> Result<Tensor> {
    let layer = ShortConv {
        eps: norm.eps as f32,
        channels: x.dim(1)?,
        groups: groups(spans),
        window,
        kept: Kept::default(),
    };
    let ConvWeights {
        input,
        kernel,
        output,
    } = weights;
    many::apply(layer, x, &[norm.weight, input, kernel, output])
}

struct ShortConv {
    eps: f32,
    channels: usize,
    groups: Vec<Group>,
    window: Window,
    /// `[B, C, u]` of every row.
    kept: Kept,
}

impl Layer for ShortConv {
    const NAME: &'static str = "short-conv-layer";

    fn forward(&self, x: &[f32], weights: &[&[f32]]) -> Result<Vec<f32>> {
        let channels = self.channels;
        let &[weight, input, kernel, output] = weights else {
            return Err(lost());
        };
        let (input, output) = (Forth::new(input, channels)?, Forth::new(output, channels)?);
        let kernel = prepared(kernel, channels)?;
        let mut y = x.to_vec();
        let mut kept = Scratch::new(3 * x.len());
        let mut scratch = Scratch::new(2 * tallest(&self.groups) * channels);
        for group in &self.groups {
            let len = group.rows.len() * channels;
            let [normed, mixed] = parts(&mut scratch, [len, len]);
            let bcu = &mut kept[group.of(3 * channels)];
            let (x, eps) = (&x[group.of(channels)], self.eps);
            Normed { x, weight, eps }.apply(normed)?;
            input.apply(normed, bcu, Sum::Replace)?;
            fast::span_conv(bcu, &kernel, &group.spans, self.window, mixed)?;
            output.apply(mixed, &mut y[group.of(channels)], Sum::Add)?;
        }
        *self.kept.lock() = Some(kept);
        Ok(y)
    }

    fn backward(
        &self,
        x: &[f32],
        weights: &[&[f32]],
        dy: &[f32],
        dweights: &mut [Option<Vec<f32>>],
    ) -> Result<Vec<f32>> {
        let channels = self.channels;
        let (&[weight, input, kernel, output], [dnorm, dinput, dkernel, doutput]) =
            (weights, dweights)
        else {
            return Err(lost());
        };
        let kept = self.kept.lock();
        let kept = kept.as_ref().ok_or_else(lost)?;
        let kernel = prepared(kernel, channels)?;
        let mut dtaps = vec![0.0; kernel.taps() * channels];
        let (input, output) = (Back::new(input, channels)?, Back::new(output, channels)?);
        let mut dx = dy.to_vec();
        let mut scratch = Scratch::new(7 * tallest(&self.groups) * channels);
        for group in &self.groups {
            let (count, len) = (group.rows.len(), group.rows.len() * channels);
            let [normed, dnormed, mixed, dmixed, dbcu] =
                parts(&mut scratch, [len, len, len, len, 3 * len]);
            let (x, dy) = (&x[group.of(channels)], &dy[group.of(channels)]);
            let eps = self.eps;
            let norm = Normed { x, weight, eps };
            norm.apply(normed)?;
            output.apply(dy, dmixed, Sum::Replace)?;
            let bcu = &kept[group.of(3 * channels)];
            let out = [&mut *dbcu, &mut *mixed, &mut dtaps[..]];
            backward(&group.spans, (bcu, &kernel, self.window), dmixed, out)?;
            weight_gradient(dy, mixed, count, doutput)?;
            weight_gradient(dbcu, normed, count, dinput)?;
            input.apply(dbcu, dnormed, Sum::Replace)?;
            norm.backward(dnormed, &mut dx[group.of(channels)], Sum::Add, dnorm)?;
        }
        if let Some(dkernel) = dkernel {
            Matrix::new(&dtaps, kernel.taps(), channels).transpose_into(dkernel);
        }
        Ok(dx)
    }
}
