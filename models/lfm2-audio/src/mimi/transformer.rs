//! The transformers between convolutions and codes: causal, with a window of fixed size.

use std::num::NonZeroUsize;

use candle_core::{Error, Result};
use lfm2_kernels::{AttentionSpec, KvRef, KvShape, Visibility, append_kv, attention};
use lfm2_nn::{Bias, LayerNorm, Linear, Module, Tensor, Weights};

use super::MimiConfig;
use crate::rotary::PairRotary;

const EPS: f64 = 1e-5;

/// `x += s1 * attn(LN x); x += s2 * linear2(gelu(linear1(LN x)))`, layer by layer.
#[derive(Debug, Clone)]
pub(super) struct Transformer {
    layers: Vec<Layer>,
    rotary: PairRotary,
    window: NonZeroUsize,
    shape: KvShape,
}

#[derive(Debug, Clone)]
struct Layer {
    norm1: LayerNorm,
    norm2: LayerNorm,
    qkv: Linear,
    out: Linear,
    linear1: Linear,
    linear2: Linear,
    scale1: Tensor,
    scale2: Tensor,
}

/// Keys and values in sight, and how many steps there have been.
#[derive(Debug, Clone)]
pub(super) struct TransformerState {
    position: usize,
    layers: Vec<Sight>,
}

/// What one layer still sees.
#[derive(Debug, Clone)]
struct Sight {
    keys: Vec<f32>,
    values: Vec<f32>,
    shape: KvShape,
    len: usize,
}

impl Transformer {
    pub(super) fn load(config: &MimiConfig, weights: &Weights) -> lfm2_hub::Result<Self> {
        let head_dim = config.dimension / config.heads;
        let layers = weights.pp("transformer").pp("layers");
        Ok(Self {
            layers: (0..config.layers)
                .map(|i| Layer::load(config, &layers.pp(i)))
                .collect::<lfm2_hub::Result<_>>()?,
            rotary: PairRotary::new(head_dim, config.max_period),
            window: NonZeroUsize::new(config.context).unwrap_or(NonZeroUsize::MIN),
            shape: KvShape {
                kv_heads: config.heads,
                capacity: 0,
                head_dim,
            },
        })
    }

    pub(super) fn state(&self) -> TransformerState {
        TransformerState {
            position: 0,
            layers: vec![Sight::empty(self.shape); self.layers.len()],
        }
    }

    /// `(steps, width)` to `(steps, width)`.
    pub(super) fn forward(&self, x: &Tensor, state: &mut TransformerState) -> Result<Tensor> {
        let mut x = x.clone();
        for (layer, sight) in self.layers.iter().zip(&mut state.layers) {
            let mixed = self.attend(layer, &layer.norm1.forward(&x)?, state.position, sight)?;
            x = (x + mixed.broadcast_mul(&layer.scale1)?)?;
            let normed = layer.norm2.forward(&x)?;
            let fed = layer
                .linear1
                .forward_activated(&normed, lfm2_nn::Activation::Gelu)?;
            let fed = layer.linear2.forward(&fed)?;
            x = (x + fed.broadcast_mul(&layer.scale2)?)?;
        }
        state.position += x.dim(0)?;
        Ok(x)
    }

    fn attend(
        &self,
        layer: &Layer,
        x: &Tensor,
        position: usize,
        sight: &mut Sight,
    ) -> Result<Tensor> {
        let (steps, width) = x.dims2()?;
        let qkv = layer.qkv.forward(x)?;
        let part = |i: usize| -> Result<Vec<f32>> {
            qkv.narrow(1, i * width, width)?
                .flatten_all()?
                .to_vec1::<f32>()
        };
        let (mut q, mut k, v) = (part(0)?, part(1)?, part(2)?);
        for rows in [&mut q, &mut k] {
            for (row, at) in rows.chunks_exact_mut(width.max(1)).zip(position..) {
                self.rotary.rotate(row, at);
            }
        }
        sight.push(&k, &v, steps, self.window)?;
        let spec = AttentionSpec {
            heads: self.shape.kv_heads,
            scale: 1.0 / (self.shape.head_dim as f32).sqrt(),
            past: sight.len - steps,
            visibility: Visibility::Window(self.window),
        };
        let kv = KvRef::new(&sight.keys, &sight.values, sight.shape, sight.len);
        let mut mixed = vec![0.0; q.len()];
        attention(
            crate::isa()?,
            &q,
            kv.map_err(Error::wrap)?,
            &spec,
            &mut mixed,
        )
        .map_err(Error::wrap)?;
        let mixed = Tensor::from_vec(mixed, (steps, width), x.device())?;
        layer.out.forward(&mixed)
    }
}

impl TransformerState {
    pub(super) fn bytes(&self) -> usize {
        let layers = self.layers.iter();
        layers
            .map(|sight| size_of_val(&sight.keys[..]) + size_of_val(&sight.values[..]))
            .sum()
    }
}

impl Sight {
    fn empty(shape: KvShape) -> Self {
        Self {
            keys: Vec::new(),
            values: Vec::new(),
            shape,
            len: 0,
        }
    }

    /// Appends the keys and values of `steps` steps, and forgets those no later query will see.
    fn push(&mut self, k: &[f32], v: &[f32], steps: usize, window: NonZeroUsize) -> Result<()> {
        // The first new query sees itself and this many before.
        let kept = self.len.min(window.get() - 1);
        if self.len + steps > self.shape.capacity {
            // Room for as many steps again, so that moving is rare.
            let room = (kept + steps).max(2 * window.get());
            self.rearrange(kept, room.max(self.shape.capacity));
        }
        for (cache, new) in [(&mut self.keys, k), (&mut self.values, v)] {
            append_kv(new, self.shape, self.len, cache).map_err(Error::wrap)?;
        }
        self.len += steps;
        Ok(())
    }

    /// Keeps the newest `kept` steps, in a cache of `capacity`.
    fn rearrange(&mut self, kept: usize, capacity: usize) {
        let KvShape {
            kv_heads,
            capacity: old,
            head_dim,
        } = self.shape;
        let start = self.len - kept;
        for cache in [&mut self.keys, &mut self.values] {
            let mut moved = vec![0.0; kv_heads * capacity * head_dim];
            let to = moved.chunks_exact_mut((capacity * head_dim).max(1));
            for (to, from) in to.zip(cache.chunks_exact((old * head_dim).max(1))) {
                to[..kept * head_dim].copy_from_slice(&from[start * head_dim..][..kept * head_dim]);
            }
            *cache = moved;
        }
        self.shape.capacity = capacity;
        self.len = kept;
    }
}

impl Layer {
    fn load(config: &MimiConfig, weights: &Weights) -> lfm2_hub::Result<Self> {
        let width = config.dimension;
        let norm = |name: &str| LayerNorm::load(&weights.pp(name), width, EPS);
        let scale = |name: &str| weights.pp(name).tensor("scale", &[width]);
        let linear = |name: &str, input, output| -> lfm2_hub::Result<Linear> {
            Ok(weights
                .pp(name)
                .linear(input, output, Bias::Without)?
                .exact())
        };
        let attention = weights.pp("self_attn");
        let qkv = attention.matrix("in_proj_weight", &[3 * width, width])?;
        Ok(Self {
            norm1: norm("norm1")?,
            norm2: norm("norm2")?,
            qkv: Linear::new(qkv, None)?.exact(),
            out: attention
                .pp("out_proj")
                .linear(width, width, Bias::Without)?
                .exact(),
            linear1: linear("linear1", width, config.ffn)?,
            linear2: linear("linear2", config.ffn, width)?,
            scale1: scale("layer_scale_1")?,
            scale2: scale("layer_scale_2")?,
        })
    }
}
