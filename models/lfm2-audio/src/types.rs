//! [`PartTypes`]: which number type each part of a model gets when dense weights are quantised while
//! they are loaded.

use std::sync::Arc;

use lfm2_hub::gguf::Quantization;
use lfm2_hub::{InBlocks, TensorSource};
use lfm2_nn::Weights;
use lfm2_text::LoadOptions;

/// The number types of the parts of a model.
///
/// Only the matrices of the backbone's layers are many enough for 4 bits to pay, and robust enough for
/// them. What chooses codes makes another choice now and then with 4 bits, and hardly ever with 8; and
/// what hears and what sounds would be no faster with fewer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct PartTypes {
    /// Matrices of the backbone's layers.
    pub backbone: Quantization,
    /// The table of tokens, which is the head as well.
    pub tokens: Quantization,
    /// Encoder and adapter.
    pub encoder: Quantization,
    /// The depth model with its tables and heads.
    pub depth: Quantization,
    /// The tables of codes that the backbone reads.
    pub codes: Quantization,
    /// The detokenizer.
    pub detokenizer: Quantization,
}

impl PartTypes {
    /// The types for a backbone of type `matrices`: 8 bits for everything else, or `matrices` where that
    /// is a type of plain numbers.
    pub fn of(matrices: Quantization) -> Self {
        let finer = matrices.at_least_8_bits();
        Self {
            backbone: matrices,
            tokens: finer,
            encoder: finer,
            depth: finer,
            codes: finer,
            detokenizer: finer,
        }
    }

    /// With another type for the depth model.
    pub fn with_depth(mut self, depth: Quantization) -> Self {
        self.depth = depth;
        self
    }

    /// With another type for the detokenizer.
    pub fn with_detokenizer(mut self, detokenizer: Quantization) -> Self {
        self.detokenizer = detokenizer;
        self
    }

    /// The type of a tensor of `model.safetensors`; `None` for one that stays as it is.
    pub fn of_model(&self, name: &str) -> Option<Quantization> {
        let module = name.strip_suffix(".weight")?;
        let (part, rest) = module.split_once('.').unwrap_or((module, ""));
        match part {
            "lfm" if rest == "embed_tokens" => Some(self.tokens),
            "lfm" => is_matrix(rest).then_some(self.backbone),
            "conformer" | "audio_adapter" => Some(self.encoder),
            "depthformer" | "depth_linear" | "depth_embeddings" => Some(self.depth),
            "audio_embedding" => Some(self.codes),
            _ => None,
        }
    }

    /// The type of a tensor of the detokenizer; `None` for one that stays as it is.
    pub fn of_detokenizer(&self, name: &str) -> Option<Quantization> {
        let module = name.strip_suffix(".weight")?;
        let wanted = is_matrix(module) || matches!(module, "emb.emb" | "lin");
        wanted.then_some(self.detokenizer)
    }
}

/// Whether a module of an LFM2 stack is a matrix that inputs are multiplied with.
fn is_matrix(module: &str) -> bool {
    let last = module.rsplit('.').next().unwrap_or_default();
    matches!(last, "w1" | "w2" | "w3") || last.ends_with("_proj")
}

/// The part of a model that a source of tensors holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Holds {
    Model,
    Detokenizer,
}

/// A view of `tensors` as `options` want them, with the types of [`PartTypes`] where they quantise.
pub(crate) fn weights(
    options: &LoadOptions,
    tensors: Arc<dyn TensorSource>,
    holds: Holds,
) -> Weights {
    let mut options = options.clone();
    let Some(matrices) = options.quantize.take() else {
        return options.weights(tensors);
    };
    let types = PartTypes::of(matrices);
    let way = format!("{holds:?} {types:?}");
    let tensors = InBlocks::by_rule(tensors, way, move |name| match holds {
        Holds::Model => types.of_model(name),
        Holds::Detokenizer => types.of_detokenizer(name),
    });
    options.weights(Arc::new(tensors))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_has_its_type() {
        use Quantization::{BF16, Q4_0, Q6K, Q8_0};
        let types = PartTypes::of(Q4_0).with_depth(Q6K);
        for (name, kind) in [
            ("lfm.layers.0.conv.in_proj.weight", Some(Q4_0)),
            ("lfm.layers.2.feed_forward.w3.weight", Some(Q4_0)),
            ("lfm.layers.0.conv.conv.weight", None),
            ("lfm.layers.2.self_attn.q_layernorm.weight", None),
            ("lfm.embed_tokens.weight", Some(Q8_0)),
            (
                "conformer.layers.0.feed_forward1.linear1.weight",
                Some(Q8_0),
            ),
            ("conformer.layers.0.feed_forward1.linear1.bias", None),
            ("audio_adapter.model.1.weight", Some(Q8_0)),
            ("depthformer.layers.0.operator.qkv_proj.weight", Some(Q6K)),
            ("depth_linear.weight", Some(Q6K)),
            ("depth_embeddings.3.to_logits.weight", Some(Q6K)),
            ("audio_embedding.embedding.weight", Some(Q8_0)),
            ("codebook_offsets", None),
        ] {
            assert_eq!(types.of_model(name), kind, "{name}");
        }
        for (name, kind) in [
            ("lfm.layers.0.conv.in_proj.weight", Some(Q8_0)),
            ("emb.emb.weight", Some(Q8_0)),
            ("lin.weight", Some(Q8_0)),
            ("lin.bias", None),
            ("istft.window", None),
            ("lfm.embedding_norm.weight", None),
        ] {
            assert_eq!(types.of_detokenizer(name), kind, "{name}");
        }
        assert_eq!(PartTypes::of(BF16).depth, BF16);
    }
}
