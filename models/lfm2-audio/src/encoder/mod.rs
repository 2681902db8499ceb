//! The FastConformer encoder: from log-mel features to one vector per 80 ms.
//!
//! Clips of any lengths go through the layers together, packed one after another without padding, so
//! that none can see another.

mod attention;
mod layer;
mod pointwise;
mod subsample;

use std::ops::Range;

use candle_core::Result;
use lfm2_nn::{Module, Tensor, Weights};

use crate::EncoderConfig;
use attention::Positions;
use layer::Layer;
use subsample::Subsampling;

/// Mel frames per output step.
pub const FRAMES_PER_STEP: usize = 8;
/// The epsilon of all norms.
const EPS: f64 = 1e-5;

/// Steps that every table of distances is made for at least. Products with up to eight rows are added up
/// in another order, and what a clip becomes shall not depend on which were heard before.
const SHORTEST_TABLE: usize = 5;

/// The FastConformer encoder. Immutable, and cheap to share.
#[derive(Debug, Clone)]
pub struct Encoder {
    config: EncoderConfig,
    subsampling: Subsampling,
    layers: Vec<Layer>,
}

impl Encoder {
    /// Loads the encoder under `weights` (`conformer`).
    ///
    /// # Errors
    /// When a tensor is missing or has another shape than the config says.
    pub fn load(config: &EncoderConfig, weights: &Weights) -> lfm2_hub::Result<Self> {
        let layer = |i| Layer::load(config, &weights.pp("layers").pp(i));
        Ok(Self {
            subsampling: Subsampling::load(config, &weights.pp("pre_encode"))?,
            layers: (0..config.layers)
                .map(layer)
                .collect::<lfm2_hub::Result<_>>()?,
            config: config.clone(),
        })
    }

    /// Steps that come out for a clip of this many mel frames.
    pub fn steps(frames: usize) -> usize {
        frames.div_ceil(FRAMES_PER_STEP)
    }

    /// Encodes clips of features `(frames, features)`: one `(steps, width)` for each.
    ///
    /// # Errors
    /// When shapes disagree or the device fails.
    pub fn forward(&self, clips: &[Tensor]) -> Result<Vec<Tensor>> {
        let clips: Vec<Tensor> = clips
            .iter()
            .map(|mel| self.subsample(mel))
            .collect::<Result<_>>()?;
        let steps = clips.iter().map(|x| x.dim(0)).collect::<Result<Vec<_>>>()?;
        if steps.is_empty() {
            return Ok(Vec::new());
        }
        let x = self.run_layers(&Tensor::cat(&clips, 0)?, &steps, 0..self.layers.len())?;
        let mut start = 0;
        let mut encoded = Vec::with_capacity(steps.len());
        for len in steps {
            encoded.push(x.narrow(0, start, len)?);
            start += len;
        }
        Ok(encoded)
    }

    /// The first part alone: features `(frames, features)` to `(steps, width)`.
    ///
    /// # Errors
    /// When shapes disagree or the device fails.
    pub fn subsample(&self, mel: &Tensor) -> Result<Tensor> {
        let x = self.subsampling.forward(mel)?;
        if self.config.scaled {
            x * (self.config.width as f64).sqrt()
        } else {
            Ok(x)
        }
    }

    /// Some of the layers: `x (steps, width)` of clips of `steps` steps each, one after another.
    ///
    /// # Errors
    /// When shapes disagree or the device fails.
    pub fn run_layers(&self, x: &Tensor, steps: &[usize], layers: Range<usize>) -> Result<Tensor> {
        let positions = self.positions(x, steps)?;
        let layers = self.layers.get(layers).unwrap_or_default();
        layers
            .iter()
            .try_fold(x.clone(), |x, layer| layer.forward(&x, steps, &positions))
    }

    /// The table of distances for clips of `steps` steps, in the type and place of `x`.
    fn positions(&self, x: &Tensor, steps: &[usize]) -> Result<Positions> {
        let longest = steps.iter().copied().max().unwrap_or(0).max(SHORTEST_TABLE);
        Positions::new(longest, self.config.width, x.dtype(), x.device())
    }

    /// What the batch norm of layer `layer` sees of clips `(frames, features)`: `(steps, width)` of all
    /// clips together, one after another. For whoever sets its statistics.
    ///
    /// # Errors
    /// When there is no such layer or no clip, shapes disagree or the device fails.
    pub fn before_norm(&self, clips: &[Tensor], layer: usize) -> Result<Tensor> {
        let clips: Vec<Tensor> = clips
            .iter()
            .map(|mel| self.subsample(mel))
            .collect::<Result<_>>()?;
        let steps = clips.iter().map(|x| x.dim(0)).collect::<Result<Vec<_>>>()?;
        let x = self.run_layers(&Tensor::cat(&clips, 0)?, &steps, 0..layer)?;
        let Some(layer) = self.layers.get(layer) else {
            candle_core::bail!("no layer {layer} in {} layers", self.layers.len())
        };
        layer.before_norm(&x, &steps, &self.positions(&x, &steps)?)
    }

    /// Number of layers.
    pub fn layers(&self) -> usize {
        self.layers.len()
    }
}

/// From the encoder's width to that of the backbone.
#[derive(Debug, Clone)]
pub struct Adapter {
    norm: lfm2_nn::LayerNorm,
    up: lfm2_nn::Linear,
    out: lfm2_nn::Linear,
}

impl Adapter {
    /// Loads the adapter under `weights` (`audio_adapter`) from `width` to `hidden`.
    ///
    /// # Errors
    /// When a tensor is missing or has another shape.
    pub fn load(width: usize, hidden: usize, weights: &Weights) -> lfm2_hub::Result<Self> {
        let model = weights.pp("model");
        let bias = lfm2_nn::Bias::With;
        Ok(Self {
            norm: lfm2_nn::LayerNorm::load(&model.pp(0), width, EPS)?,
            up: model.pp(1).linear(width, hidden, bias)?,
            out: model.pp(3).linear(hidden, hidden, bias)?,
        })
    }
}

impl Module for Adapter {
    /// `(steps, width)` to `(steps, hidden)`.
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let x = (self.up).forward_activated(&self.norm.forward(x)?, lfm2_nn::Activation::Gelu)?;
        self.out.forward(&x)
    }
}
