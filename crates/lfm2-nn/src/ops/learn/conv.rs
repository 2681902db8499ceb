//! The gated short convolution inside every segment of a packed matrix.

use candle_core::{CpuStorage, CustomOp2, Error, Layout, Result, Shape, Tensor};
use lfm2_kernels::conv::ConvKernel;
use lfm2_kernels::gradients::{ConvGradient, short_conv_gradient};
use lfm2_kernels::profile::{Op, Work, span};

use super::{Matrix, isa, operand, result, tensor_like, view};
use crate::ops::fast::span_conv;
use crate::pass::Span;
use crate::short_conv::Window;

/// `C * (conv(B * u) + bias)` from empty states: `bcu (tokens, 3 * channels)`, `kernel (channels,
/// width)`; `(tokens, channels)`.
pub(in crate::ops) fn short_conv(
    bcu: &Tensor,
    kernel: &Tensor,
    bias: Option<&Tensor>,
    spans: &[Span],
    window: Window,
) -> Result<Tensor> {
    let spans = spans.to_vec();
    let bcu = bcu.contiguous()?;
    let y = bcu.apply_op2(&kernel.contiguous()?, ShortConv { spans, window })?;
    match bias {
        None => Ok(y),
        Some(bias) => {
            let channels = bias.dim(0)?;
            y + bcu.narrow(1, channels, channels)?.broadcast_mul(bias)?
        }
    }
}

/// `(channels, width)` values as the kernels want them.
pub(super) fn prepared(kernel: &[f32], channels: usize) -> Result<ConvKernel> {
    ConvKernel::new(kernel, None, channels).map_err(Error::wrap)
}

/// The gradients of the convolutions of some segments, the first of which begins at row 0: that of `bcu`,
/// the result once more, and that of the taps, `(width, channels)`, which is added.
pub(super) fn backward(
    spans: &[Span],
    (bcu, kernel, window): (&[f32], &ConvKernel, Window),
    dy: &[f32],
    [dbcu, y, dtaps]: [&mut [f32]; 3],
) -> Result<()> {
    let channels = kernel.channels();
    let _span = span(Op::ShortConv, &[channels], Work::NONE);
    let mut dbias = vec![0.0; channels];
    for span in spans {
        let narrow = span.start * channels..(span.start + span.len) * channels;
        let wide = 3 * narrow.start..3 * narrow.end;
        let out = ConvGradient {
            bcx: &mut dbcu[wide.clone()],
            y: &mut y[narrow.clone()],
            taps: dtaps,
            bias: &mut dbias,
        };
        let before = window.before(kernel.taps());
        short_conv_gradient(isa()?, &bcu[wide], kernel, before, &dy[narrow], out)
            .map_err(Error::wrap)?;
    }
    Ok(())
}

struct ShortConv {
    spans: Vec<Span>,
    window: Window,
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
        let (channels, _) = kernel_layout.shape().dims2()?;
        let bcu = operand(bcu, bcu_layout)?;
        let kernel = prepared(operand(kernel, kernel_layout)?, channels)?;
        let mut y = vec![0.0; bcu.len() / 3];
        span_conv(bcu, &kernel, &self.spans, self.window, &mut y)?;
        result(y, (bcu_layout.shape().dims2()?.0, channels))
    }

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
        let taps = prepared(kernel_view.slice()?, channels)?;
        let (mut dbcu, mut y) = (vec![0.0; rows.len()], vec![0.0; dys.len()]);
        let mut dtaps = vec![0.0; width * channels];
        let out = [&mut dbcu[..], &mut y[..], &mut dtaps[..]];
        backward(&self.spans, (rows, &taps, self.window), dys, out)?;
        let dkernel = Matrix::new(&dtaps, width, channels).transposed();
        Ok((
            Some(tensor_like(dbcu, bcu)?),
            Some(tensor_like(dkernel, kernel)?),
        ))
    }
}
