//! [`VisionTower`]: the SigLIP 2 encoder, on views of any shape.
//!
//! The patches of several views are packed one after another, each view at its true length; views do
//! not see each other and nothing is padded.

use std::sync::Arc;

use candle_core::Module;
use lfm2_hub::Result as LoadResult;
use lfm2_nn::{
    Activation, Bias, LayerNorm, Linear, Observer, Tensor, Weights, attend_within,
    attend_within_coarse,
};

use crate::config::VisionConfig;
use crate::positions::PositionTable;
use crate::view::PatchGrid;

/// The encoder of pictures. Immutable, shareable between threads, cheap to clone.
#[derive(Debug, Clone)]
pub struct VisionTower {
    patch_embedding: Linear,
    positions: PositionTable,
    layers: Arc<[EncoderLayer]>,
    post_norm: LayerNorm,
}

impl VisionTower {
    /// The tower whose `embeddings`, `encoder` and `post_layernorm` are under `weights`.
    ///
    /// # Errors
    /// When a tensor is missing or contradicts the config; both are named.
    pub fn load(config: &VisionConfig, weights: &Weights) -> LoadResult<Self> {
        let hidden = config.hidden_size;
        let embeddings = weights.pp("embeddings");
        let table = embeddings.pp("position_embedding");
        let table = table.tensor("weight", &[config.num_patches, hidden])?;
        let layers = weights.pp("encoder.layers").coarse();
        let layers: Vec<EncoderLayer> = (0..config.layers)
            .map(|layer| EncoderLayer::load(config, &layers.pp(layer)))
            .collect::<LoadResult<_>>()?;
        Ok(Self {
            patch_embedding: embeddings.pp("patch_embedding").linear(
                config.patch_values(),
                hidden,
                Bias::With,
            )?,
            positions: PositionTable::new(table)?,
            layers: layers.into(),
            post_norm: LayerNorm::load(&weights.pp("post_layernorm"), hidden, config.norm_eps)?,
        })
    }

    /// Patches `(patches, values)` of views with these grids, one after another, to `(patches, hidden)`.
    /// The observer, if any, sees the embedded patches and what every layer makes of them.
    ///
    /// # Errors
    /// When the grids do not add up to the patches, the device fails, or what the observer returns.
    pub fn forward(
        &self,
        patches: &Tensor,
        grids: &[PatchGrid],
        mut observer: Option<&mut dyn Observer>,
    ) -> candle_core::Result<Tensor> {
        let positions = grids
            .iter()
            .map(|grid| self.positions.for_grid(*grid))
            .collect::<candle_core::Result<Vec<_>>>()?;
        let mut x = (self.patch_embedding.forward(patches)? + Tensor::cat(&positions, 0)?)?;
        if let Some(observer) = &mut observer {
            observer.embedded(&x)?;
        }
        let lens: Vec<usize> = grids.iter().map(|grid| grid.patches()).collect();
        for (index, layer) in self.layers.iter().enumerate() {
            x = layer.forward(&x, &lens)?;
            if let Some(observer) = &mut observer {
                observer.layer(index, &x)?;
            }
        }
        self.post_norm.forward(&x)
    }
}

/// `h = x + attention(norm(x)); y = h + mlp(norm(h))`.
#[derive(Debug, Clone)]
struct EncoderLayer {
    norm1: LayerNorm,
    /// Queries, keys, values.
    qkv: [Linear; 3],
    output: Linear,
    norm2: LayerNorm,
    widen: Linear,
    activation: Activation,
    narrow: Linear,
    heads: usize,
}

impl EncoderLayer {
    fn load(config: &VisionConfig, weights: &Weights) -> LoadResult<Self> {
        let (hidden, ffn) = (config.hidden_size, config.ffn_width);
        let norm = |name: &str| LayerNorm::load(&weights.pp(name), hidden, config.norm_eps);
        let attention = weights.pp("self_attn");
        let square = |name: &str| attention.pp(name).linear(hidden, hidden, Bias::With);
        let mlp = weights.pp("mlp");
        Ok(Self {
            norm1: norm("layer_norm1")?,
            qkv: [square("q_proj")?, square("k_proj")?, square("v_proj")?],
            output: square("out_proj")?,
            norm2: norm("layer_norm2")?,
            widen: mlp.pp("fc1").linear(hidden, ffn, Bias::With)?,
            activation: config.activation,
            narrow: mlp.pp("fc2").linear(ffn, hidden, Bias::With)?,
            heads: config.heads,
        })
    }

    fn forward(&self, x: &Tensor, lens: &[usize]) -> candle_core::Result<Tensor> {
        let (patches, hidden) = x.dims2()?;
        let head = hidden / self.heads;
        let normed = self.norm1.forward(x)?;
        let by_head = |y: &Tensor| y.reshape((patches, self.heads, head));
        let [q, k, v] = Linear::forward_each(self.qkv.each_ref(), &normed)?;
        let (q, k, v) = (by_head(&q)?, by_head(&k)?, by_head(&v)?);
        let scale = 1.0 / (head as f64).sqrt();
        let mixed = match self.qkv.iter().all(Linear::is_coarse) {
            true => attend_within_coarse([&q, &k, &v], lens, scale)?,
            false => attend_within([&q, &k, &v], lens, scale)?,
        };
        let mixed = self.output.forward(&mixed.reshape((patches, hidden))?)?;
        let h = (x + mixed)?;
        let wide = (self.widen).forward_activated(&self.norm2.forward(&h)?, self.activation)?;
        h + self.narrow.forward(&wide)?
    }
}
