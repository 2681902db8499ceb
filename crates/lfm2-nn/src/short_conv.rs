//! The gated short convolution, LFM2's main mixer.

use std::sync::Arc;

use candle_core::{Module, Result, Tensor, bail};

use lfm2_kernels::conv::ConvKernel;

use crate::cache::LayerCache;
use crate::ops::fast;
use crate::{Bias, Linear, Pass, RmsNorm, Weights, ops};

/// Which positions a convolution window covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Window {
    /// The position itself and the `L - 1` before.
    Causal,
    /// `L / 2` before and the rest from the position on: encoders.
    Centred,
}

impl Window {
    /// How many positions before its own a kernel of this width begins.
    pub(crate) fn before(self, width: usize) -> usize {
        match self {
            Self::Causal => width - 1,
            Self::Centred => width / 2,
        }
    }
}

/// The facts of one convolution layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShortConvConfig {
    /// Width of the residual stream, also the number of channels.
    pub hidden: usize,
    /// Kernel width L.
    pub width: usize,
    /// Bias on both projections and on the kernel.
    pub bias: Bias,
    /// Which positions the window covers.
    pub window: Window,
}

/// `[B, C, u] = in_proj(x); y = out_proj(C * conv(B * u))`, depthwise over time, with no activation
/// function anywhere (LFM2 report, section on the architecture).
#[derive(Debug, Clone)]
pub struct ShortConv {
    config: ShortConvConfig,
    in_proj: Linear,
    out_proj: Linear,
    /// `(hidden, width)`; the last column meets the newest value of a causal window.
    kernel: Tensor,
    bias: Option<Tensor>,
    /// Kernel and bias for the fast form of the convolution, where there is one.
    fast: Option<Arc<ConvKernel>>,
}

impl ShortConv {
    /// Loads the layer under `weights` (`….conv`).
    ///
    /// # Errors
    /// When a tensor is missing or has another shape.
    pub fn load(config: ShortConvConfig, weights: &Weights) -> lfm2_hub::Result<Self> {
        let ShortConvConfig {
            hidden,
            width,
            bias,
            ..
        } = config;
        let conv = weights.pp("conv");
        let kernel = conv.conv_kernel(hidden, width)?;
        let kernel_bias = match bias {
            Bias::With => Some(conv.tensor("bias", &[hidden])?),
            Bias::Without => None,
        };
        Ok(Self {
            config,
            in_proj: weights
                .pp("in_proj")
                .fine_linear(hidden, 3 * hidden, bias)?,
            out_proj: weights.pp("out_proj").fine_linear(hidden, hidden, bias)?,
            fast: ops::conv_kernel(&kernel, kernel_bias.as_ref())?.map(Arc::new),
            kernel,
            bias: kernel_bias,
        })
    }

    /// `x + forward(norm(x))` where this is one operation with a gradient; `None` where it is not.
    pub(crate) fn residual(
        &self,
        x: &Tensor,
        norm: &RmsNorm,
        pass: &Pass<'_>,
    ) -> Option<Result<Tensor>> {
        if self.bias.is_some() || pass.zeroes_filler() || !pass.cache.is_stateless() {
            return None;
        }
        let weights = ops::ConvWeights {
            input: self.in_proj.dense()?,
            kernel: &self.kernel,
            output: self.out_proj.dense()?,
        };
        ops::conv_layer(x, norm.parts(), weights, pass.spans(), self.config.window)
    }

    /// `(tokens, hidden)` to `(tokens, hidden)`; every segment continues from its own state.
    ///
    /// # Errors
    /// When shapes disagree or the device fails.
    pub fn forward(&self, x: &Tensor, layer: usize, pass: &mut Pass<'_>) -> Result<Tensor> {
        let x = pass.without_filler(x)?;
        if let Some(y) = self.forward_packed(&x, layer, pass) {
            return y;
        }
        let bcu = self.in_proj.forward(&x)?;
        let mixed = if pass.cache.is_stateless() {
            self.mix_stateless(&bcu, pass)?
        } else {
            self.mix_cached(&bcu, layer, pass)?
        };
        self.out_proj.forward(&mixed)
    }

    /// The whole layer in working memory: packed projections, a kernel on the CPU, and either no states
    /// or causal ones that nobody watches. `None` where it is not that simple.
    fn forward_packed(
        &self,
        x: &Tensor,
        layer: usize,
        pass: &mut Pass<'_>,
    ) -> Option<Result<Tensor>> {
        let (input, output) = (self.in_proj.packed()?, self.out_proj.packed()?);
        let kernel = self.fast.as_deref()?;
        let spans = pass.spans().to_vec();
        let watched = || spans.iter().any(|span| pass.cache.in_trial(span.row));
        let (hidden, window) = (self.config.hidden, self.config.window);
        let stateless = pass.cache.is_stateless();
        let plain = stateless || (window == Window::Causal && !watched());
        if !plain || !fast::fits(&[x]) {
            return None;
        }
        Some(ops::packed::mixer(x, [input], output, |[bcu], mixed| {
            if stateless {
                return fast::span_conv(bcu, kernel, &spans, window, mixed);
            }
            for span in &spans {
                let Some(LayerCache::Conv(state)) = pass.cache.slot(span.row, layer) else {
                    bail!("layer {layer} is a convolution, its cache is not");
                };
                let bcu = &bcu[span.start * 3 * hidden..][..span.len * 3 * hidden];
                let mixed = &mut mixed[span.start * hidden..][..span.len * hidden];
                *state = fast::short_conv_values(bcu, kernel, state, mixed)?;
            }
            Ok(())
        }))
    }

    /// Offset of the position that tap `tap` of the kernel meets.
    fn offset(&self, tap: usize) -> isize {
        tap as isize - self.config.window.before(self.config.width) as isize
    }

    /// All segments at once from empty states: a kernel, or `width` shifted products, masked at the
    /// borders. Every operation has a gradient where one is tracked.
    fn mix_stateless(&self, bcu: &Tensor, pass: &mut Pass<'_>) -> Result<Tensor> {
        let kernel = self.fast.as_deref();
        let fast = kernel.and_then(|kernel| {
            ops::packed_short_conv_fast(bcu, kernel, pass.spans(), self.config.window)
        });
        if let Some(y) = fast {
            return y;
        }
        let (bias, window) = (self.bias.as_ref(), self.config.window);
        if let Some(y) = ops::packed_short_conv(bcu, &self.kernel, bias, pass.spans(), window) {
            return y;
        }
        let gates = Gates::split(bcu, self.config.hidden)?;
        let mut sum: Option<Tensor> = None;
        for tap in 0..self.config.width {
            let offset = self.offset(tap);
            if offset.unsigned_abs() >= bcu.dim(0)? {
                continue;
            }
            let mut g = shift(&gates.gated, offset)?;
            if offset != 0 {
                g = g.broadcast_mul(&pass.tap_mask(offset, &g)?)?;
            }
            let term = g.broadcast_mul(&self.tap(tap)?)?;
            sum = Some(sum.map_or_else(|| Ok(term.clone()), |s| s + &term)?);
        }
        let Some(sum) = sum else {
            bail!("a convolution of width 0")
        };
        gates.close(&sum, self.bias.as_ref())
    }

    /// One segment after another, each from its state, which is moved on.
    fn mix_cached(&self, bcu: &Tensor, layer: usize, pass: &mut Pass<'_>) -> Result<Tensor> {
        let spans = pass.spans().to_vec();
        let mut mixed = Vec::with_capacity(spans.len());
        for span in &spans {
            let own = bcu.narrow(0, span.start, span.len)?;
            if pass.cache.in_trial(span.row) {
                let gated = Gates::split(&own, self.config.hidden)?.gated;
                pass.cache.keep_inputs(span.row, layer, gated)?;
            }
            let Some(LayerCache::Conv(state)) = pass.cache.slot(span.row, layer) else {
                bail!("layer {layer} is a convolution, its cache is not");
            };
            if self.config.window == Window::Centred && span.past > 0 {
                bail!(
                    "a bidirectional model reads a sequence at once, row {} has {} tokens",
                    span.row,
                    span.past
                );
            }
            let fast = self
                .fast
                .as_deref()
                .and_then(|kernel| match self.config.window {
                    Window::Causal => ops::short_conv(&own, kernel, state),
                    Window::Centred => ops::short_conv_centred(&own, kernel),
                });
            let y = match fast {
                Some(y) => y?,
                None => self.mix_generic(&own, state)?,
            };
            mixed.push(y);
        }
        if let [one] = &mixed[..] {
            Ok(one.clone())
        } else {
            Tensor::cat(&mixed, 0)
        }
    }

    /// One segment in plain tensor operations, for every device.
    fn mix_generic(&self, bcu: &Tensor, state: &mut Tensor) -> Result<Tensor> {
        let gates = Gates::split(bcu, self.config.hidden)?;
        let len = bcu.dim(0)?;
        let before = self.offset(0).unsigned_abs();
        let after = self.config.width - 1 - before;
        let history = match self.config.window {
            Window::Causal => state.clone(),
            Window::Centred => {
                Tensor::zeros((before, self.config.hidden), bcu.dtype(), bcu.device())?
            }
        };
        let mut g = if before > 0 {
            Tensor::cat(&[&history, &gates.gated], 0)?
        } else {
            gates.gated.clone()
        };
        if after > 0 {
            g = g.pad_with_zeros(0, 0, after)?;
        }
        let mut sum = g.narrow(0, 0, len)?.broadcast_mul(&self.tap(0)?)?;
        for tap in 1..self.config.width {
            sum = (sum + g.narrow(0, tap, len)?.broadcast_mul(&self.tap(tap)?)?)?;
        }
        if self.config.window == Window::Causal && before > 0 {
            *state = g.narrow(0, len, before)?.contiguous()?;
        }
        gates.close(&sum, self.bias.as_ref())
    }

    /// Column `tap` of the kernel as a row, `(1, hidden)`.
    fn tap(&self, tap: usize) -> Result<Tensor> {
        self.kernel.narrow(1, tap, 1)?.t()
    }
}

/// The two gates around the convolution.
struct Gates {
    /// `B * u`, what is convolved.
    gated: Tensor,
    /// `C`, what the result is multiplied by.
    c: Tensor,
}

impl Gates {
    fn split(bcu: &Tensor, hidden: usize) -> Result<Self> {
        let part = |i: usize| bcu.narrow(1, i * hidden, hidden);
        Ok(Self {
            gated: (part(0)? * part(2)?)?,
            c: part(1)?,
        })
    }

    fn close(&self, convolved: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
        match bias {
            Some(bias) => &self.c * convolved.broadcast_add(bias)?,
            None => &self.c * convolved,
        }
    }
}

/// Row `t` of the result is row `t + offset` of `x`, zero outside.
fn shift(x: &Tensor, offset: isize) -> Result<Tensor> {
    let (len, by) = (x.dim(0)?, offset.unsigned_abs());
    match offset {
        0 => Ok(x.clone()),
        ..0 => x.narrow(0, 0, len - by)?.pad_with_zeros(0, by, 0),
        _ => x.narrow(0, by, len - by)?.pad_with_zeros(0, 0, by),
    }
}
