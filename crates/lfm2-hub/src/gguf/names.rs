//! The tensors of an LFM2 model: what GGUF calls them, what the published checkpoints call them,
//! and what shape they have. One table, used for reading, checking and writing.

use super::hyper::{Feed, Hyper, Mixer};

/// A dimension by meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dim {
    Vocab,
    Hidden,
    ThriceHidden,
    Heads,
    KvHeads,
    Head,
    Kernel,
    Ffn,
    Experts,
    ExpertFfn,
}

/// How a tensor may be stored in a file we write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Precision {
    /// Always `F32`: norms, kernels, biases and the router are tiny and sensitive.
    Full,
    /// The type of the file.
    Weight,
    /// The type chosen for the embedding table and the head.
    Embedding,
}

/// When a layer has a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Every,
    Conv,
    ConvBias,
    Attention,
    DenseFeed,
    MoeFeed,
    ExpertBias,
}

/// One kind of tensor.
#[derive(Debug)]
pub(super) struct Role {
    /// The name in GGUF, after `blk.N.` for tensors of a layer.
    pub(super) gguf: &'static str,
    /// The published name, after `model.layers.N.` for tensors of a layer.
    pub(super) published: &'static str,
    /// The shape in GGUF, outermost first.
    pub(super) dims: &'static [Dim],
    pub(super) precision: Precision,
}

const fn role(
    gguf: &'static str,
    published: &'static str,
    dims: &'static [Dim],
    precision: Precision,
) -> Role {
    Role {
        gguf,
        published,
        dims,
        precision,
    }
}

/// The head of a model that does not share it with the embedding.
pub(super) const OUTPUT: &str = "output.weight";

/// The second name of the final norm, which some writers use.
const FINAL_NORM_ALIAS: &str = "output_norm.weight";

use Dim::{ExpertFfn, Experts, Ffn, Head, Heads, Hidden, Kernel, KvHeads, ThriceHidden, Vocab};
use Part::{Attention, Conv, ConvBias, DenseFeed, Every, ExpertBias, MoeFeed};
use Precision::{Embedding, Full, Weight};

/// The tensors outside the layers.
#[rustfmt::skip] // One role per line.
static EMBEDDING: Role = role("token_embd.weight", "model.embed_tokens.weight", &[Vocab, Hidden], Embedding);
#[rustfmt::skip]
static FINAL_NORM: Role = role("token_embd_norm.weight", "model.embedding_norm.weight", &[Hidden], Full);
#[rustfmt::skip]
static HEAD: Role = role(OUTPUT, "lm_head.weight", &[Vocab, Hidden], Embedding);

/// The tensors of a layer, in the order they are written.
#[rustfmt::skip] // One role per line.
static LAYER: [(Part, Role); 22] = [
    (Every, role("attn_norm.weight", "operator_norm.weight", &[Hidden], Full)),
    (Every, role("ffn_norm.weight", "ffn_norm.weight", &[Hidden], Full)),
    (Conv, role("shortconv.conv.weight", "conv.conv.weight", &[Hidden, Kernel], Full)),
    (Conv, role("shortconv.in_proj.weight", "conv.in_proj.weight", &[ThriceHidden, Hidden], Weight)),
    (Conv, role("shortconv.out_proj.weight", "conv.out_proj.weight", &[Hidden, Hidden], Weight)),
    (ConvBias, role("shortconv.conv.bias", "conv.conv.bias", &[Hidden], Full)),
    (ConvBias, role("shortconv.in_proj.bias", "conv.in_proj.bias", &[ThriceHidden], Full)),
    (ConvBias, role("shortconv.out_proj.bias", "conv.out_proj.bias", &[Hidden], Full)),
    (Attention, role("attn_q.weight", "self_attn.q_proj.weight", &[Heads, Hidden], Weight)),
    (Attention, role("attn_k.weight", "self_attn.k_proj.weight", &[KvHeads, Hidden], Weight)),
    (Attention, role("attn_v.weight", "self_attn.v_proj.weight", &[KvHeads, Hidden], Weight)),
    (Attention, role("attn_output.weight", "self_attn.out_proj.weight", &[Hidden, Heads], Weight)),
    (Attention, role("attn_q_norm.weight", "self_attn.q_layernorm.weight", &[Head], Full)),
    (Attention, role("attn_k_norm.weight", "self_attn.k_layernorm.weight", &[Head], Full)),
    (DenseFeed, role("ffn_gate.weight", "feed_forward.w1.weight", &[Ffn, Hidden], Weight)),
    (DenseFeed, role("ffn_up.weight", "feed_forward.w3.weight", &[Ffn, Hidden], Weight)),
    (DenseFeed, role("ffn_down.weight", "feed_forward.w2.weight", &[Hidden, Ffn], Weight)),
    (MoeFeed, role("ffn_gate_inp.weight", "feed_forward.gate.weight", &[Experts, Hidden], Full)),
    (MoeFeed, role("ffn_gate_exps.weight", "feed_forward.experts.w1.weight", &[Experts, ExpertFfn, Hidden], Weight)),
    (MoeFeed, role("ffn_up_exps.weight", "feed_forward.experts.w3.weight", &[Experts, ExpertFfn, Hidden], Weight)),
    (MoeFeed, role("ffn_down_exps.weight", "feed_forward.experts.w2.weight", &[Experts, Hidden, ExpertFfn], Weight)),
    (ExpertBias, role("exp_probs_b.bias", "feed_forward.expert_bias", &[Experts], Full)),
];

/// A tensor that a model with given hyperparameters has.
#[derive(Debug)]
pub(super) struct Planned {
    pub(super) gguf: String,
    pub(super) published: String,
    /// The shape in GGUF, outermost first.
    pub(super) shape: Vec<usize>,
    pub(super) precision: Precision,
}

/// The published name of a GGUF tensor; `None` for one that LFM2 models do not have.
pub(super) fn published_name(gguf: &str) -> Option<String> {
    let gguf = if gguf == FINAL_NORM_ALIAS {
        FINAL_NORM.gguf
    } else {
        gguf
    };
    if let Some(role) = [&EMBEDDING, &FINAL_NORM, &HEAD]
        .into_iter()
        .find(|role| role.gguf == gguf)
    {
        return Some(role.published.to_owned());
    }
    let (layer, suffix) = gguf.strip_prefix("blk.")?.split_once('.')?;
    // Only the plain spelling, so that no two names become one.
    let layer = layer
        .parse::<usize>()
        .ok()
        .filter(|number| number.to_string() == layer)?;
    let (_, role) = LAYER.iter().find(|(_, role)| role.gguf == suffix)?;
    Some(format!("model.layers.{layer}.{}", role.published))
}

/// The shape under which a GGUF tensor is exposed: the kernel of a short convolution gets back the
/// middle dimension that GGUF drops.
pub(super) fn published_shape(gguf: &str, shape: &[usize]) -> Vec<usize> {
    match shape {
        &[channels, kernel] if gguf.ends_with(".shortconv.conv.weight") => {
            vec![channels, 1, kernel]
        }
        other => other.to_vec(),
    }
}

/// All tensors of a model, in the order they are written.
pub(super) fn plan(hyper: &Hyper) -> Vec<Planned> {
    let mut all = vec![
        planned(&EMBEDDING, None, hyper),
        planned(&FINAL_NORM, None, hyper),
    ];
    if !hyper.tied {
        all.push(planned(&HEAD, None, hyper));
    }
    for (index, layer) in hyper.layers.iter().enumerate() {
        let present = |part: Part| match part {
            Part::Every => true,
            Part::Conv => *layer == Mixer::Conv,
            Part::ConvBias => *layer == Mixer::Conv && hyper.conv_bias,
            Part::Attention => *layer == Mixer::Attention,
            Part::DenseFeed => hyper.feed(index) == Feed::Dense,
            Part::MoeFeed => hyper.feed(index) == Feed::Moe,
            Part::ExpertBias => hyper.feed(index) == Feed::Moe && hyper.expert_bias(),
        };
        let roles = LAYER.iter().filter(|(part, _)| present(*part));
        all.extend(roles.map(|(_, role)| planned(role, Some(index), hyper)));
    }
    all
}

fn planned(role: &Role, layer: Option<usize>, hyper: &Hyper) -> Planned {
    let (gguf, published) = match layer {
        Some(n) => (
            format!("blk.{n}.{}", role.gguf),
            format!("model.layers.{n}.{}", role.published),
        ),
        None => (role.gguf.to_owned(), role.published.to_owned()),
    };
    let shape = role.dims.iter().map(|dim| hyper.dimension(*dim)).collect();
    Planned {
        gguf,
        published,
        shape,
        precision: role.precision,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_translated_one_to_one() {
        let cases = [
            ("token_embd.weight", "model.embed_tokens.weight"),
            ("token_embd_norm.weight", "model.embedding_norm.weight"),
            ("output_norm.weight", "model.embedding_norm.weight"),
            ("output.weight", "lm_head.weight"),
            (
                "blk.12.attn_output.weight",
                "model.layers.12.self_attn.out_proj.weight",
            ),
            (
                "blk.0.ffn_up_exps.weight",
                "model.layers.0.feed_forward.experts.w3.weight",
            ),
            (
                "blk.3.exp_probs_b.bias",
                "model.layers.3.feed_forward.expert_bias",
            ),
        ];
        for (gguf, published) in cases {
            assert_eq!(published_name(gguf).as_deref(), Some(published));
        }
    }

    #[test]
    fn foreign_and_odd_names_stay_foreign() {
        for name in [
            "rope_freqs.weight",
            "blk.01.attn_q.weight",
            "blk.x.attn_q.weight",
            "blk.1.attn_q.bias",
            "blk.1",
        ] {
            assert_eq!(published_name(name), None, "{name}");
        }
    }

    #[test]
    fn only_the_kernel_gets_a_middle_dimension() {
        assert_eq!(
            published_shape("blk.0.shortconv.conv.weight", &[64, 3]),
            [64, 1, 3]
        );
        assert_eq!(
            published_shape("blk.0.shortconv.conv.weight", &[64, 1, 3]),
            [64, 1, 3]
        );
        assert_eq!(
            published_shape("blk.0.shortconv.in_proj.weight", &[192, 64]),
            [192, 64]
        );
    }
}
