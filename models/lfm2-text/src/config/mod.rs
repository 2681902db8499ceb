//! [`TextConfig`]: the facts of one text backbone, checked.
//!
//! `config.json` came in several spellings over time (LFM2's first files, transformers 4 and 5,
//! LFM3); `keys` reads single keys with good errors, `raw` turns a whole file into a [`TextConfig`].

mod keys;
mod raw;
mod tensors;

#[cfg(test)]
mod tests;

pub use keys::{Keys as ConfigKeys, wrong as wrong_config};
pub use tensors::{TensorRole, TensorSpec};

use lfm2_hub::{Error, Limits, Result};
use lfm2_nn::Weights;

/// The generations of the family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Family {
    /// LFM2 and LFM2.5, dense.
    Lfm2,
    /// LFM2 and LFM2.5, mixture of experts.
    Lfm2Moe,
    /// LFM3: sliding windows, attention gates, norms behind each operator.
    Lfm3,
}

impl Family {
    /// The `model_type` of `config.json`.
    pub fn model_type(self) -> &'static str {
        match self {
            Self::Lfm2 => "lfm2",
            Self::Lfm2Moe => "lfm2_moe",
            Self::Lfm3 => "lfm3",
        }
    }
}

/// What mixes tokens in a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerKind {
    /// Gated short convolution.
    Conv,
    /// Attention over the whole past.
    FullAttention,
    /// Attention over a window.
    SlidingAttention,
}

impl LayerKind {
    /// The name in `layer_types`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Conv => "conv",
            Self::FullAttention => "full_attention",
            Self::SlidingAttention => "sliding_attention",
        }
    }

    /// Whether the layer keeps keys and values.
    pub fn is_attention(self) -> bool {
        self != Self::Conv
    }
}

/// Rotary embedding of one kind of attention layer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RopeSpec {
    /// Base of the frequencies.
    pub theta: f64,
    /// Share of the frequencies that rotate; 1 is all.
    pub rotary_factor: f64,
}

/// Facts of the mixture-of-experts layers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MoeSpec {
    /// How many of the first layers have a dense feed-forward layer instead.
    pub num_dense_layers: usize,
    /// Width inside each expert.
    pub width: usize,
    /// Experts per layer.
    pub experts: usize,
    /// Experts per token.
    pub per_token: usize,
    /// Whether a learnt bias takes part in choosing experts.
    pub expert_bias: bool,
    /// Whether the chosen experts' weights are divided by their sum.
    pub norm_topk_prob: bool,
    /// Factor on the weights.
    pub routed_scaling_factor: f64,
}

/// How the width of dense feed-forward layers follows from the config's keys.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FfnRule {
    /// The stated width (`block_ff_dim`, else `intermediate_size`).
    pub stated: usize,
    /// `block_auto_adjust_ff_dim`: whether two thirds of it are taken at all.
    pub adjust: bool,
    /// `block_ffn_dim_multiplier`.
    pub multiplier: Option<f64>,
    /// `block_multiple_of`.
    pub multiple_of: usize,
}

impl FfnRule {
    /// The width the rule gives: 6656 becomes 4437, then 4608.
    pub fn width(&self) -> usize {
        if !self.adjust {
            return self.stated;
        }
        let two_thirds = 2 * self.stated / 3;
        let scaled = self
            .multiplier
            .map_or(two_thirds, |m| (m * two_thirds as f64) as usize);
        scaled.div_ceil(self.multiple_of) * self.multiple_of
    }
}

/// Shape facts of one text backbone. Holding one means they agree with each other.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct TextConfig {
    /// Generation.
    pub family: Family,
    /// Number of token ids, and of logits.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// The layers, first to last.
    pub layers: Vec<LayerKind>,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Numbers per head.
    pub head_dim: usize,
    /// Width of dense feed-forward layers.
    pub ffn_width: usize,
    /// Where that width comes from.
    pub ffn_rule: FfnRule,
    /// Mixture-of-experts layers, if any.
    pub moe: Option<MoeSpec>,
    /// Kernel width of the short convolutions (`conv_L_cache`).
    pub conv_width: usize,
    /// Bias in convolution layers.
    pub conv_bias: bool,
    /// Epsilon of every norm.
    pub norm_eps: f64,
    /// Rotary embedding of full attention.
    pub rope: RopeSpec,
    /// Rotary embedding of sliding attention.
    pub sliding_rope: RopeSpec,
    /// Keys a query of sliding attention sees, its own included.
    pub sliding_window: usize,
    /// Whether attention outputs are gated per head.
    pub attention_gate: bool,
    /// Whether norms stand behind operators, too.
    pub sandwich_norm: bool,
    /// Whether the output head is the embedding table.
    pub tied: bool,
    /// Whether tokens see later ones: encoders.
    pub bidirectional: bool,
    /// Longest context the config states; informational.
    pub max_position_embeddings: usize,
    /// Beginning-of-sequence id.
    pub bos_token_id: Option<u32>,
    /// End-of-sequence ids.
    pub eos_token_ids: Vec<u32>,
    /// Padding id.
    pub pad_token_id: Option<u32>,
}

impl TextConfig {
    /// Parses and checks a `config.json`, in any of the family's spellings.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`] naming the keys, [`Error::Unsupported`] for another architecture,
    /// [`Error::Limit`] for sizes beyond the default [`Limits`].
    pub fn from_json(json: &serde_json::Value) -> Result<Self> {
        Self::from_json_within(json, &Limits::default())
    }

    /// [`from_json`](Self::from_json) with other limits.
    ///
    /// # Errors
    /// As [`from_json`](Self::from_json).
    pub fn from_json_within(json: &serde_json::Value, limits: &Limits) -> Result<Self> {
        raw::parse(json, limits)
    }

    /// Whether layer `layer` has a mixture of experts.
    pub fn is_moe_layer(&self, layer: usize) -> bool {
        self.moe.is_some_and(|moe| layer >= moe.num_dense_layers)
    }

    /// Checks the width of dense feed-forward layers against the weights (`….layers`).
    ///
    /// Where the rule gives another width than `w1` has but the stated width is the one of `w1`, the
    /// weights win: repacked files exist whose stated width already is the final one.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`] showing the rule, its inputs, its result and what was found.
    pub fn reconcile_ffn(mut self, layers: &Weights) -> Result<Self> {
        let dense = (0..self.layers.len()).find(|&layer| !self.is_moe_layer(layer));
        let w1 = dense.and_then(|layer| layers.pp(layer).info("feed_forward.w1.weight"));
        let Some(&found) = w1.as_ref().and_then(|info| info.shape.first()) else {
            return Ok(self);
        };
        if found == self.ffn_width {
            return Ok(self);
        }
        let rule = self.ffn_rule;
        if found != rule.stated {
            return Err(Error::config(
                "intermediate_size / block_ff_dim, block_auto_adjust_ff_dim, block_ffn_dim_multiplier, block_multiple_of",
                format!(
                    "stated width {} with adjustment {}, multiplier {:?}, multiple of {} gives {}, but feed_forward.w1.weight has {found} rows",
                    rule.stated, rule.adjust, rule.multiplier, rule.multiple_of, self.ffn_width
                ),
            ));
        }
        tracing::warn!(
            rule = self.ffn_width,
            weights = found,
            "the stated feed-forward width already is the final one"
        );
        self.ffn_width = found;
        Ok(self)
    }
}

impl std::fmt::Display for TextConfig {
    /// The layers in one line, `c` conv, `A` attention, `s` sliding attention, as in `ccAccAccAcAcAcAc`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for kind in &self.layers {
            f.write_str(match kind {
                LayerKind::Conv => "c",
                LayerKind::FullAttention => "A",
                LayerKind::SlidingAttention => "s",
            })?;
        }
        Ok(())
    }
}
