//! One Conformer layer: half a feed-forward layer, attention, a convolution, the other half.

use candle_core::Result;
use lfm2_nn::{Activation, Bias, LayerNorm, Linear, Module, Tensor, Weights};

use super::attention::{Attention, Positions};
use super::{EPS, pointwise};
use crate::EncoderConfig;

/// `x += FF1(LN x)/2; x += Attn(LN x); x += Conv(LN x); x += FF2(LN x)/2; LN x`.
#[derive(Debug, Clone)]
pub(super) struct Layer {
    norms: Norms,
    first: FeedForward,
    attention: Attention,
    conv: ConvModule,
    second: FeedForward,
}

#[derive(Debug, Clone)]
struct Norms {
    first: LayerNorm,
    attention: LayerNorm,
    conv: LayerNorm,
    second: LayerNorm,
    out: LayerNorm,
}

impl Layer {
    pub(super) fn load(config: &EncoderConfig, weights: &Weights) -> lfm2_hub::Result<Self> {
        let norm = |name: &str| LayerNorm::load(&weights.pp(name), config.width, EPS);
        Ok(Self {
            norms: Norms {
                first: norm("norm_feed_forward1")?,
                attention: norm("norm_self_att")?,
                conv: norm("norm_conv")?,
                second: norm("norm_feed_forward2")?,
                out: norm("norm_out")?,
            },
            first: FeedForward::load(config, &weights.pp("feed_forward1"))?,
            attention: Attention::load(config, &weights.pp("self_attn"))?,
            conv: ConvModule::load(config, &weights.pp("conv"))?,
            second: FeedForward::load(config, &weights.pp("feed_forward2"))?,
        })
    }

    /// `(tokens, width)` to `(tokens, width)` for clips of `steps` steps each.
    pub(super) fn forward(
        &self,
        x: &Tensor,
        steps: &[usize],
        positions: &Positions,
    ) -> Result<Tensor> {
        let norms = &self.norms;
        let x = self.until_conv(x, steps, positions)?;
        let x = (&x + self.conv.forward(&norms.conv.forward(&x)?, steps)?)?;
        let x = self.second.half(&norms.second, &x)?;
        norms.out.forward(&x)
    }

    /// What the batch norm sees, `(tokens, width)`.
    pub(super) fn before_norm(
        &self,
        x: &Tensor,
        steps: &[usize],
        positions: &Positions,
    ) -> Result<Tensor> {
        let x = self.until_conv(x, steps, positions)?;
        let x = self.conv.gated(&self.norms.conv.forward(&x)?)?;
        self.conv
            .convolved(&x, steps, (&self.conv.taps_first()?, &self.conv.bias))
    }

    /// The layer up to its convolution.
    fn until_conv(&self, x: &Tensor, steps: &[usize], positions: &Positions) -> Result<Tensor> {
        let norms = &self.norms;
        let x = self.first.half(&norms.first, x)?;
        let attended = norms.attention.forward(&x)?;
        &x + self.attention.forward(&attended, steps, positions)?
    }
}

/// `linear2(silu(linear1(x)))`.
#[derive(Debug, Clone)]
struct FeedForward {
    linear1: Linear,
    linear2: Linear,
}

impl FeedForward {
    fn load(config: &EncoderConfig, weights: &Weights) -> lfm2_hub::Result<Self> {
        let inner = config.width * config.expansion;
        let (first, second) = (weights.pp("linear1"), weights.pp("linear2"));
        Ok(Self {
            linear1: first.linear(config.width, inner, Bias::With)?,
            linear2: second.linear(inner, config.width, Bias::With)?,
        })
    }

    /// `x` and half of what this adds to it.
    fn half(&self, norm: &LayerNorm, x: &Tensor) -> Result<Tensor> {
        x + (self.forward(&norm.forward(x)?)? * 0.5)?
    }
}

impl Module for FeedForward {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let x = self.linear1.forward_activated(x, Activation::Silu)?;
        self.linear2.forward(&x)
    }
}

/// Pointwise, gate, depthwise with batch norm, SiLU, pointwise.
#[derive(Debug, Clone)]
struct ConvModule {
    width: usize,
    /// Values of the depthwise kernel.
    taps: usize,
    gate: Linear,
    /// `(width, 1, taps)`.
    kernel: Tensor,
    bias: Tensor,
    norm: BatchNorm,
    out: Linear,
}

#[derive(Debug, Clone)]
struct BatchNorm {
    weight: Tensor,
    bias: Tensor,
    mean: Tensor,
    variance: Tensor,
}

impl ConvModule {
    fn load(config: &EncoderConfig, weights: &Weights) -> lfm2_hub::Result<Self> {
        let (width, taps) = (config.width, config.kernel);
        let (depthwise, norm) = (weights.pp("depthwise_conv"), weights.pp("batch_norm"));
        let vector = |name: &str| norm.tensor(name, &[width]);
        Ok(Self {
            width,
            taps,
            gate: weights
                .pp("pointwise_conv1")
                .linear(width, 2 * width, Bias::With)?,
            kernel: depthwise.conv_kernel(width, taps)?,
            bias: depthwise.tensor("bias", &[width])?,
            norm: BatchNorm {
                weight: vector("weight")?,
                bias: vector("bias")?,
                mean: vector("running_mean")?,
                variance: vector("running_var")?,
            },
            out: weights
                .pp("pointwise_conv2")
                .linear(width, width, Bias::With)?,
        })
    }

    fn forward(&self, x: &Tensor, steps: &[usize]) -> Result<Tensor> {
        let (kernel, bias) = self.folded()?;
        let x = self.convolved(&self.gated(x)?, steps, (&kernel, &bias))?;
        self.out.forward(&Activation::Silu.forward(&x)?)
    }

    fn gated(&self, x: &Tensor) -> Result<Tensor> {
        pointwise::gate(&self.gate.forward(x)?)
    }

    /// Every clip of `steps` with a kernel `(taps, width)` and a bias.
    fn convolved(
        &self,
        x: &Tensor,
        steps: &[usize],
        (kernel, bias): (&Tensor, &Tensor),
    ) -> Result<Tensor> {
        let mut start = 0;
        let mut mixed = Vec::with_capacity(steps.len());
        for &len in steps {
            let clip = x.narrow(0, start, len)?;
            mixed.push(pointwise::depthwise(&clip, kernel, bias)?);
            start += len;
        }
        match &mixed[..] {
            [whole] => Ok(whole.clone()),
            _ => Tensor::cat(&mixed, 0),
        }
    }

    /// The depthwise kernel as `(taps, width)`.
    fn taps_first(&self) -> Result<Tensor> {
        self.kernel
            .reshape((self.width, self.taps))?
            .t()?
            .contiguous()
    }

    /// The depthwise kernel `(taps, width)` and its bias with the batch norm behind it.
    ///
    /// A few numbers, so they are computed with every pass: the parts may be trained.
    fn folded(&self) -> Result<(Tensor, Tensor)> {
        let norm = &self.norm;
        let scale = (&norm.weight / (&norm.variance + EPS)?.sqrt()?)?;
        let kernel = self.taps_first()?.broadcast_mul(&scale)?;
        let bias = (((&self.bias - &norm.mean)? * scale)? + &norm.bias)?;
        Ok((kernel, bias))
    }
}
