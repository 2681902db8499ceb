//! The convolutional halves of the codec: sound to latents and back.

use candle_core::Result;
use lfm2_nn::{Tensor, Weights};

use super::MimiConfig;
use super::conv::{CausalConv, ConvState, Upsampling, UpsamplingState};

/// Latents to sound.
#[derive(Debug, Clone)]
pub(super) struct SeanetDecoder {
    first: CausalConv,
    stages: Vec<(Upsampling, Residual)>,
    last: CausalConv,
}

/// Where a [`SeanetDecoder`] stopped.
#[derive(Debug, Clone, Default)]
pub(super) struct DecoderState {
    first: ConvState,
    stages: Vec<(UpsamplingState, ConvState)>,
    last: ConvState,
}

impl SeanetDecoder {
    pub(super) fn load(config: &MimiConfig, weights: &Weights) -> lfm2_hub::Result<Self> {
        let model = weights.pp("model");
        let conv = |i: usize| model.pp(i).pp("conv").pp("conv");
        let mut channels = config.widest();
        let first = CausalConv::load(&conv(0), [config.dimension, channels], config.kernel, 1)?;
        let mut stages = Vec::with_capacity(config.ratios.len());
        for (i, &ratio) in config.ratios.iter().enumerate() {
            // An activation stands before each stage, and has a number of its own.
            let at = 2 + 3 * i;
            let convtr = model.pp(at).pp("convtr").pp("convtr");
            let up = Upsampling::load(&convtr, [channels, channels / 2], ratio)?;
            channels /= 2;
            let residual = Residual::load(config, channels, &model.pp(at + 1))?;
            stages.push((up, residual));
        }
        let last = conv(2 + 3 * config.ratios.len());
        Ok(Self {
            first,
            stages,
            last: CausalConv::load(&last, [channels, 1], config.last_kernel, 1)?,
        })
    }

    pub(super) fn state(&self) -> DecoderState {
        DecoderState {
            stages: vec![Default::default(); self.stages.len()],
            ..DecoderState::default()
        }
    }

    /// `(steps, dimension)` to `(steps * ratios, 1)`.
    pub(super) fn forward(&self, x: &Tensor, state: &mut DecoderState) -> Result<Tensor> {
        let mut x = self.first.forward(x, &mut state.first)?;
        for ((up, residual), (up_state, residual_state)) in
            self.stages.iter().zip(&mut state.stages)
        {
            x = up.forward(&x.elu(1.0)?, up_state)?;
            x = residual.forward(&x, residual_state)?;
        }
        self.last.forward(&x.elu(1.0)?, &mut state.last)
    }
}

impl DecoderState {
    pub(super) fn bytes(&self) -> usize {
        let stages = self
            .stages
            .iter()
            .map(|(up, conv)| up.bytes() + conv.bytes());
        self.first.bytes() + stages.sum::<usize>() + self.last.bytes()
    }
}

/// Sound to latents.
#[derive(Debug, Clone)]
pub(super) struct SeanetEncoder {
    first: CausalConv,
    stages: Vec<(Residual, CausalConv)>,
    last: CausalConv,
}

/// Where a [`SeanetEncoder`] stopped.
#[derive(Debug, Clone, Default)]
pub(super) struct EncoderState {
    first: ConvState,
    stages: Vec<(ConvState, ConvState)>,
    last: ConvState,
}

impl SeanetEncoder {
    pub(super) fn load(config: &MimiConfig, weights: &Weights) -> lfm2_hub::Result<Self> {
        let model = weights.pp("model");
        let conv = |i: usize| model.pp(i).pp("conv").pp("conv");
        let mut channels = config.filters;
        let first = CausalConv::load(&conv(0), [1, channels], config.kernel, 1)?;
        let mut stages = Vec::with_capacity(config.ratios.len());
        for (i, &ratio) in config.ratios.iter().rev().enumerate() {
            let at = 1 + 3 * i;
            let residual = Residual::load(config, channels, &model.pp(at))?;
            let shape = [channels, 2 * channels];
            let down = CausalConv::load(&conv(at + 2), shape, 2 * ratio, ratio)?;
            channels *= 2;
            stages.push((residual, down));
        }
        let last = conv(2 + 3 * config.ratios.len());
        let shape = [channels, config.dimension];
        Ok(Self {
            first,
            stages,
            last: CausalConv::load(&last, shape, config.last_kernel, 1)?,
        })
    }

    pub(super) fn state(&self) -> EncoderState {
        EncoderState {
            stages: vec![Default::default(); self.stages.len()],
            ..EncoderState::default()
        }
    }

    /// `(samples, 1)` to `(samples / ratios, dimension)`.
    pub(super) fn forward(&self, x: &Tensor, state: &mut EncoderState) -> Result<Tensor> {
        let mut x = self.first.forward(x, &mut state.first)?;
        for ((residual, down), (residual_state, down_state)) in
            self.stages.iter().zip(&mut state.stages)
        {
            x = residual.forward(&x, residual_state)?;
            x = down.forward(&x.elu(1.0)?, down_state)?;
        }
        self.last.forward(&x.elu(1.0)?, &mut state.last)
    }
}

/// `x + conv1(elu(conv3(elu(x))))`, narrower inside.
#[derive(Debug, Clone)]
struct Residual {
    conv: CausalConv,
    pointwise: CausalConv,
}

impl Residual {
    fn load(config: &MimiConfig, channels: usize, weights: &Weights) -> lfm2_hub::Result<Self> {
        let inner = channels / config.compress;
        let block = |i: usize| weights.pp("block").pp(i).pp("conv").pp("conv");
        Ok(Self {
            conv: CausalConv::load(&block(1), [channels, inner], config.residual_kernel, 1)?,
            pointwise: CausalConv::load(&block(3), [inner, channels], 1, 1)?,
        })
    }

    fn forward(&self, x: &Tensor, state: &mut ConvState) -> Result<Tensor> {
        let inner = self.conv.forward(&x.elu(1.0)?, state)?;
        // A kernel of one step leaves nothing behind.
        let inner = self
            .pointwise
            .forward(&inner.elu(1.0)?, &mut ConvState::default())?;
        x + inner
    }
}
