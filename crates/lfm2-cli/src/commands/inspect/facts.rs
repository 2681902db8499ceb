//! What is known of a model, in the form that `--json` writes.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Result;
use lfm2::hub::{CheckpointInfo, Error, StoredType, TensorSource};
use lfm2::nn::Weights;
use lfm2::text::TextConfig;
use lfm2::vl::VlConfig;
use lfm2::{DType, Device, VlModel};
use serde::Serialize;

use super::Parts;
use super::values::Values;

/// Context lengths whose memory is shown, besides the longest one.
const CONTEXTS: [usize; 4] = [1024, 4096, 32_768, 131_072];

#[derive(Debug, Serialize)]
pub(super) struct Facts {
    pub(super) source: String,
    pub(super) model_type: &'static str,
    /// `c` conv, `A` attention, `s` sliding attention.
    pub(super) layers: String,
    pub(super) parameters: u64,
    pub(super) active_parameters: u64,
    #[serde(flatten)]
    pub(super) shape: Shape,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) vision: Option<VisionFacts>,
    pub(super) memory: Vec<Memory>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) weights: Option<WeightFacts>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tokenizer: Option<TokenizerFacts>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) values: Option<Values>,
}

#[derive(Debug, Serialize)]
pub(super) struct Shape {
    pub(super) hidden_size: usize,
    pub(super) heads: usize,
    pub(super) kv_heads: usize,
    pub(super) head_dim: usize,
    pub(super) ffn_dim: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) expert_dim: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) experts: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) experts_per_token: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) dense_layers: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) sliding_window: Option<usize>,
    pub(super) conv_width: usize,
    pub(super) vocab_size: usize,
    pub(super) tied_embedding: bool,
    pub(super) rope_theta: f64,
    pub(super) context: usize,
}

/// What reads pictures.
#[derive(Debug, Serialize)]
pub(super) struct VisionFacts {
    pub(super) layers: usize,
    pub(super) hidden_size: usize,
    pub(super) heads: usize,
    pub(super) ffn_dim: usize,
    pub(super) patch_size: usize,
    /// Patches a side that become one token.
    pub(super) downsample_factor: usize,
    pub(super) projector_hidden_size: usize,
    /// Of tower and projector.
    pub(super) parameters: u64,
}

/// Bytes of the state of one sequence.
#[derive(Debug, Serialize)]
pub(super) struct Memory {
    pub(super) context: usize,
    pub(super) kv_f32_bytes: usize,
    pub(super) kv_f16_bytes: usize,
    pub(super) conv_state_bytes: usize,
}

#[derive(Debug, Serialize)]
pub(super) struct WeightFacts {
    pub(super) bytes: u64,
    pub(super) bits_per_weight: f64,
    pub(super) types: Vec<TypeFacts>,
}

#[derive(Debug, Serialize)]
pub(super) struct TypeFacts {
    #[serde(rename = "type")]
    pub(super) name: String,
    pub(super) tensors: usize,
    pub(super) parameters: u64,
    pub(super) bytes: u64,
}

#[derive(Debug, Serialize)]
pub(super) struct TokenizerFacts {
    pub(super) tokens: usize,
    pub(super) special_tokens: usize,
    pub(super) end_tokens: Vec<String>,
    pub(super) chat_template: bool,
}

impl Facts {
    pub(super) fn gather(parts: &Parts) -> Result<Self> {
        let vl = match VlModel::is_config(&parts.config) {
            true => Some(VlConfig::from_json(&parts.config, &parts.limits())?),
            false => None,
        };
        let mut config = match &vl {
            Some(vl) => vl.text.clone(),
            None => TextConfig::from_json_within(&parts.config, &parts.limits())?,
        };
        let mut weights = None;
        if let Some(checkpoint) = &parts.weights {
            let tensors = checkpoint.tensors();
            let named = Weights::new(Arc::clone(&tensors), DType::F32, &Device::Cpu);
            if vl.is_none() {
                config = config.reconcile_ffn(&named.pp("model").pp("layers"))?;
            }
            weights = Some(weight_facts(tensors.as_ref()));
        }
        let vision = vl.as_ref().map(vision);
        let vision_parameters = vision.as_ref().map_or(0, |vision| vision.parameters);
        Ok(Self {
            source: parts.name.clone(),
            model_type: config.family.model_type(),
            layers: config.to_string(),
            parameters: config.parameters() + vision_parameters,
            active_parameters: config.active_parameters() + vision_parameters,
            shape: shape(&config),
            vision,
            memory: memory(&config),
            weights,
            tokenizer: parts
                .info()
                .map(|info| tokenizer(info, &config))
                .transpose()?
                .flatten(),
            values: None,
        })
    }
}

fn vision(config: &VlConfig) -> VisionFacts {
    let all: usize = config
        .tensors()
        .iter()
        .map(|tensor| tensor.elements())
        .sum();
    let text: usize = config
        .text
        .tensors()
        .iter()
        .map(|tensor| tensor.elements())
        .sum();
    let (tower, projector) = (&config.vision, &config.projector);
    VisionFacts {
        layers: tower.layers,
        hidden_size: tower.hidden_size,
        heads: tower.heads,
        ffn_dim: tower.ffn_width,
        patch_size: tower.patch_size,
        downsample_factor: projector.factor,
        projector_hidden_size: projector.hidden_size,
        parameters: all.saturating_sub(text) as u64,
    }
}

fn shape(config: &TextConfig) -> Shape {
    Shape {
        hidden_size: config.hidden_size,
        heads: config.heads,
        kv_heads: config.kv_heads,
        head_dim: config.head_dim,
        ffn_dim: config.ffn_width,
        expert_dim: config.moe.map(|moe| moe.width),
        experts: config.moe.map(|moe| moe.experts),
        experts_per_token: config.moe.map(|moe| moe.per_token),
        dense_layers: config.moe.map(|moe| moe.num_dense_layers),
        sliding_window: config
            .to_string()
            .contains('s')
            .then_some(config.sliding_window),
        conv_width: config.conv_width,
        vocab_size: config.vocab_size,
        tied_embedding: config.tied,
        rope_theta: config.rope.theta,
        context: config.max_position_embeddings,
    }
}

fn memory(config: &TextConfig) -> Vec<Memory> {
    let layout = config.cache_layout();
    let longest = config.max_position_embeddings;
    let shorter = CONTEXTS.into_iter().filter(|context| *context < longest);
    let conv_state_bytes = layout.bytes(0, DType::F32);
    let at = |context| Memory {
        context,
        kv_f32_bytes: layout.bytes(context, DType::F32) - conv_state_bytes,
        kv_f16_bytes: layout.bytes(context, DType::F16) - conv_state_bytes,
        conv_state_bytes,
    };
    shorter.chain([longest]).map(at).collect()
}

fn weight_facts(tensors: &dyn TensorSource) -> WeightFacts {
    let mut types: BTreeMap<String, TypeFacts> = BTreeMap::new();
    for info in tensors.names().iter().filter_map(|name| tensors.info(name)) {
        let parameters: u64 = info.shape.iter().map(|&size| size as u64).product();
        let (name, bytes) = match info.stored {
            StoredType::Dense(dtype) => (
                dtype.as_str().to_uppercase(),
                parameters * dtype.size_in_bytes() as u64,
            ),
            StoredType::Quantized(kind) => {
                let blocks = parameters / kind.block_size() as u64;
                (
                    quantized_name(info.stored),
                    blocks * kind.type_size() as u64,
                )
            }
        };
        let facts = types.entry(name.clone()).or_insert(TypeFacts {
            name,
            tensors: 0,
            parameters: 0,
            bytes: 0,
        });
        facts.tensors += 1;
        facts.parameters += parameters;
        facts.bytes += bytes;
    }
    let mut types: Vec<TypeFacts> = types.into_values().collect();
    types.sort_by_key(|facts| std::cmp::Reverse(facts.bytes));
    let bytes: u64 = types.iter().map(|facts| facts.bytes).sum();
    let parameters: u64 = types.iter().map(|facts| facts.parameters).sum();
    WeightFacts {
        bytes,
        bits_per_weight: (bytes * 8) as f64 / parameters.max(1) as f64,
        types,
    }
}

/// The name that other GGUF programs use.
fn quantized_name(stored: StoredType) -> String {
    let known = lfm2::hub::gguf::Quantization::ALL
        .into_iter()
        .find(|kind| kind.stored() == stored);
    known.map_or_else(|| format!("{stored:?}"), |kind| kind.name().to_owned())
}

/// `None` when there is no tokenizer.
fn tokenizer(info: &CheckpointInfo, config: &TextConfig) -> Result<Option<TokenizerFacts>> {
    let tokenizer = match info.tokenizer() {
        Ok(tokenizer) => tokenizer,
        Err(Error::NotFound { .. }) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let ends = lfm2::generate::stop_ids(
        info.generation_config(),
        VlModel::text_config(info.config()),
        &tokenizer,
        config.vocab_size,
    )?;
    let spelled = |id: u32| {
        tokenizer
            .token_text(id)
            .map_or_else(|| id.to_string(), |text| format!("{text} ({id})"))
    };
    Ok(Some(TokenizerFacts {
        tokens: tokenizer.vocab_size(),
        special_tokens: tokenizer.special_ids().len(),
        end_tokens: ends.into_iter().map(spelled).collect(),
        chat_template: info.chat_template()?.is_some(),
    }))
}
