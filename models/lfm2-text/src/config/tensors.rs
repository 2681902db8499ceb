//! Which tensors a model has, from its config alone.

use super::{Family, LayerKind, TextConfig};

/// What a tensor is for; decides how it is initialised, quantised and counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TensorRole {
    /// The embedding table, also the head when tied.
    Embedding,
    /// An untied output head.
    Head,
    /// Scale of a norm.
    Norm,
    /// A projection into a block.
    Projection,
    /// A projection back into the residual stream.
    OutputProjection,
    /// Kernel of a short convolution.
    ConvKernel,
    /// A bias vector.
    Bias,
    /// Scores of the experts.
    Router,
    /// Bias of the choice of experts; not trained by gradients.
    ExpertBias,
    /// A projection of one expert, into it or out of it.
    Expert,
}

/// Name and shape of one tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSpec {
    /// Name as in the published safetensors files.
    pub name: String,
    /// Shape as in those files.
    pub shape: Vec<usize>,
    /// Its purpose.
    pub role: TensorRole,
}

impl TensorSpec {
    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }
}

impl TextConfig {
    /// Every tensor of a causal language model of this shape.
    pub fn tensors(&self) -> Vec<TensorSpec> {
        let mut list = TensorList::default();
        let hidden = self.hidden_size;
        list.add(
            "model.embed_tokens.weight",
            &[self.vocab_size, hidden],
            TensorRole::Embedding,
        );
        for (i, kind) in self.layers.iter().enumerate() {
            list.prefix = format!("model.layers.{i}.");
            self.norms(&mut list);
            match kind {
                LayerKind::Conv => self.conv(&mut list),
                LayerKind::FullAttention | LayerKind::SlidingAttention => self.attention(&mut list),
            }
            self.feed_forward(i, &mut list);
        }
        list.prefix.clear();
        list.add("model.embedding_norm.weight", &[hidden], TensorRole::Norm);
        if !self.tied {
            list.add(
                "lm_head.weight",
                &[self.vocab_size, hidden],
                TensorRole::Head,
            );
        }
        list.specs
    }

    fn norms(&self, list: &mut TensorList) {
        let names: &[&str] = if self.sandwich_norm {
            &[
                "operator_norm",
                "post_operator_norm",
                "ffn_norm",
                "post_ffn_norm",
            ]
        } else {
            &["operator_norm", "ffn_norm"]
        };
        for name in names {
            list.add(
                &format!("{name}.weight"),
                &[self.hidden_size],
                TensorRole::Norm,
            );
        }
    }

    fn conv(&self, list: &mut TensorList) {
        let d = self.hidden_size;
        list.add("conv.in_proj.weight", &[3 * d, d], TensorRole::Projection);
        list.add(
            "conv.conv.weight",
            &[d, 1, self.conv_width],
            TensorRole::ConvKernel,
        );
        list.add(
            "conv.out_proj.weight",
            &[d, d],
            TensorRole::OutputProjection,
        );
        if self.conv_bias {
            list.add("conv.in_proj.bias", &[3 * d], TensorRole::Bias);
            list.add("conv.conv.bias", &[d], TensorRole::Bias);
            list.add("conv.out_proj.bias", &[d], TensorRole::Bias);
        }
    }

    fn attention(&self, list: &mut TensorList) {
        let (d, q, kv) = (
            self.hidden_size,
            self.heads * self.head_dim,
            self.kv_heads * self.head_dim,
        );
        let (q_norm, k_norm, out) = match self.family {
            Family::Lfm3 => ("q_norm", "k_norm", "o_proj"),
            Family::Lfm2 | Family::Lfm2Moe => ("q_layernorm", "k_layernorm", "out_proj"),
        };
        list.add("self_attn.q_proj.weight", &[q, d], TensorRole::Projection);
        list.add("self_attn.k_proj.weight", &[kv, d], TensorRole::Projection);
        list.add("self_attn.v_proj.weight", &[kv, d], TensorRole::Projection);
        list.add(
            &format!("self_attn.{out}.weight"),
            &[d, q],
            TensorRole::OutputProjection,
        );
        list.add(
            &format!("self_attn.{q_norm}.weight"),
            &[self.head_dim],
            TensorRole::Norm,
        );
        list.add(
            &format!("self_attn.{k_norm}.weight"),
            &[self.head_dim],
            TensorRole::Norm,
        );
        if self.attention_gate {
            list.add(
                "self_attn.gate_proj.weight",
                &[self.heads, d],
                TensorRole::Projection,
            );
        }
    }

    fn feed_forward(&self, layer: usize, list: &mut TensorList) {
        let d = self.hidden_size;
        let Some(moe) = self.moe.filter(|_| self.is_moe_layer(layer)) else {
            list.add(
                "feed_forward.w1.weight",
                &[self.ffn_width, d],
                TensorRole::Projection,
            );
            list.add(
                "feed_forward.w3.weight",
                &[self.ffn_width, d],
                TensorRole::Projection,
            );
            list.add(
                "feed_forward.w2.weight",
                &[d, self.ffn_width],
                TensorRole::OutputProjection,
            );
            return;
        };
        list.add(
            "feed_forward.gate.weight",
            &[moe.experts, d],
            TensorRole::Router,
        );
        if moe.expert_bias {
            list.add(
                "feed_forward.expert_bias",
                &[moe.experts],
                TensorRole::ExpertBias,
            );
        }
        for e in 0..moe.experts {
            list.add(
                &format!("feed_forward.experts.{e}.w1.weight"),
                &[moe.width, d],
                TensorRole::Expert,
            );
            list.add(
                &format!("feed_forward.experts.{e}.w3.weight"),
                &[moe.width, d],
                TensorRole::Expert,
            );
            list.add(
                &format!("feed_forward.experts.{e}.w2.weight"),
                &[d, moe.width],
                TensorRole::Expert,
            );
        }
    }

    /// Number of parameters.
    pub fn parameters(&self) -> u64 {
        self.tensors().iter().map(|t| t.elements() as u64).sum()
    }

    /// Parameters that take part in one token: all but the experts not chosen.
    pub fn active_parameters(&self) -> u64 {
        let Some(moe) = self.moe else {
            return self.parameters();
        };
        let experts: u64 = self
            .tensors()
            .iter()
            .filter(|t| t.role == TensorRole::Expert)
            .map(|t| t.elements() as u64)
            .sum();
        self.parameters() - experts / moe.experts as u64 * (moe.experts - moe.per_token) as u64
    }
}

#[derive(Default)]
struct TensorList {
    prefix: String,
    specs: Vec<TensorSpec>,
}

impl TensorList {
    fn add(&mut self, name: &str, shape: &[usize], role: TensorRole) {
        self.specs.push(TensorSpec {
            name: format!("{}{name}", self.prefix),
            shape: shape.to_vec(),
            role,
        });
    }
}
