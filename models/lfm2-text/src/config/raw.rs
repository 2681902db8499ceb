//! From `config.json` to a [`TextConfig`]: the rules, key by key.

use lfm2_hub::{Error, Limits, Result};
use serde_json::Value;

use super::keys::{Keys, wrong};
use super::{Family, FfnRule, LayerKind, MoeSpec, RopeSpec, TextConfig};

/// Wider kernels than this are no short convolutions.
const MAX_CONV_WIDTH: usize = 1024;

pub(super) fn parse(json: &Value, limits: &Limits) -> Result<TextConfig> {
    let keys = Keys::new("config.json", json)?;
    refuse_repacks(keys)?;
    let family = family(keys)?;
    let vocab_size = positive(
        "vocab_size",
        keys.bounded("vocab_size", 65_536, limits.vocabulary)?,
    )?;
    let hidden_size = positive(
        "hidden_size",
        keys.bounded("hidden_size", 2560, limits.hidden_size)?,
    )?;
    let heads = Heads::parse(keys, hidden_size, limits)?;
    let layers = layers(keys, family, limits)?;
    let ffn_rule = ffn_rule(keys, family, limits)?;
    let ffn_width = ffn_rule.width();
    if ffn_width == 0 || ffn_width > limits.hidden_size {
        let detail = format!("a feed-forward width of {ffn_width} is out of range");
        return Err(Error::config("intermediate_size / block_ff_dim", detail));
    }
    let (rope, sliding_rope) = ropes(keys, family)?;
    let lfm3 = family == Family::Lfm3;
    Ok(TextConfig {
        family,
        vocab_size,
        hidden_size,
        heads: heads.query,
        kv_heads: heads.kv,
        head_dim: heads.dim,
        ffn_width,
        ffn_rule,
        moe: if family == Family::Lfm2Moe {
            Some(moe(keys, layers.len(), limits)?)
        } else {
            None
        },
        conv_width: positive(
            "conv_L_cache",
            keys.bounded("conv_L_cache", if lfm3 { 7 } else { 3 }, MAX_CONV_WIDTH)?,
        )?,
        conv_bias: keys.bool("conv_bias")?.unwrap_or(false),
        norm_eps: norm_eps(keys)?,
        rope,
        sliding_rope,
        sliding_window: positive(
            "sliding_window",
            keys.size("sliding_window")?.unwrap_or(256),
        )?,
        attention_gate: keys.bool("use_attention_gate")?.unwrap_or(lfm3),
        sandwich_norm: keys.bool("use_sandwich_norm")?.unwrap_or(lfm3),
        tied: tied(keys)?,
        bidirectional: bidirectional(keys)?,
        max_position_embeddings: keys.size("max_position_embeddings")?.unwrap_or(128_000),
        bos_token_id: keys.token_ids("bos_token_id", vocab_size)?.first().copied(),
        eos_token_ids: keys.token_ids("eos_token_id", vocab_size)?,
        pad_token_id: keys.token_ids("pad_token_id", vocab_size)?.first().copied(),
        layers,
    })
}

fn positive(key: &str, found: usize) -> Result<usize> {
    if found == 0 {
        Err(Error::config(key, "expected at least 1, found 0"))
    } else {
        Ok(found)
    }
}

fn refuse_repacks(keys: Keys<'_>) -> Result<()> {
    for key in ["quantization", "quantization_config"] {
        if keys.get(key).is_some() {
            return Err(Error::Unsupported {
                what: format!("a checkpoint repacked with \"{key}\""),
                hint: "use the original safetensors files or a GGUF file".into(),
            });
        }
    }
    Ok(())
}

fn family(keys: Keys<'_>) -> Result<Family> {
    const KNOWN: &str = "known model types are lfm2, lfm2_moe and lfm3";
    let Some(model_type) = keys.str("model_type")? else {
        return Err(Error::config("model_type", format!("missing; {KNOWN}")));
    };
    let family = [Family::Lfm2, Family::Lfm2Moe, Family::Lfm3]
        .into_iter()
        .find(|f| f.model_type() == model_type);
    let Some(family) = family else {
        return Err(Error::Unsupported {
            what: format!("model_type \"{model_type}\""),
            hint: KNOWN.into(),
        });
    };
    let names = architectures(keys)?;
    if let Some(other) = names
        .iter()
        .find(|n| !n.to_ascii_lowercase().starts_with("lfm"))
    {
        return Err(Error::Unsupported {
            what: format!("architecture \"{other}\""),
            hint: "known are Lfm2ForCausalLM, Lfm2MoeForCausalLM, Lfm2Model, Lfm2BidirectionalModel and Lfm3ForCausalLM"
                .into(),
        });
    }
    Ok(family)
}

fn architectures<'a>(keys: Keys<'a>) -> Result<Vec<&'a str>> {
    let list = keys.array("architectures")?.unwrap_or_default();
    list.iter()
        .map(|v| {
            v.as_str()
                .ok_or_else(|| wrong("architectures", "a list of names", v))
        })
        .collect()
}

fn bidirectional(keys: Keys<'_>) -> Result<bool> {
    Ok(architectures(keys)?.iter().any(|n| n.contains("Bidir")))
}

struct Heads {
    query: usize,
    kv: usize,
    dim: usize,
}

impl Heads {
    fn parse(keys: Keys<'_>, hidden: usize, limits: &Limits) -> Result<Self> {
        let query = positive(
            "num_attention_heads",
            keys.bounded("num_attention_heads", 32, limits.heads)?,
        )?;
        let kv = positive(
            "num_key_value_heads",
            keys.bounded("num_key_value_heads", 8, limits.heads)?,
        )?;
        let dim = match keys.size("head_dim")? {
            Some(dim) => dim,
            None if hidden.is_multiple_of(query) => hidden / query,
            None => {
                let detail = format!("{hidden} is not a multiple of {query}");
                return Err(Error::config("hidden_size, num_attention_heads", detail));
            }
        };
        if !query.is_multiple_of(kv) {
            let detail = format!("{query} is not a multiple of {kv}");
            return Err(Error::config(
                "num_attention_heads, num_key_value_heads",
                detail,
            ));
        }
        if dim == 0 || dim % 2 != 0 || dim > limits.hidden_size {
            let detail = format!("expected an even number from 2, found {dim}");
            return Err(Error::config(
                "head_dim (or hidden_size / num_attention_heads)",
                detail,
            ));
        }
        Ok(Self { query, kv, dim })
    }
}

fn layers(keys: Keys<'_>, family: Family, limits: &Limits) -> Result<Vec<LayerKind>> {
    let default = keys.array("layer_types")?.map_or(32, <[Value]>::len);
    let count = positive(
        "num_hidden_layers",
        keys.bounded("num_hidden_layers", default, limits.layers)?,
    )?;
    let listed = layer_types(keys, family, count)?;
    let indexed = full_attention_indices(keys, count)?;
    match (listed, indexed) {
        (Some(listed), Some(indexed)) if listed != indexed => Err(Error::config(
            "layer_types, full_attn_idxs",
            "they name different attention layers",
        )),
        (Some(kinds), _) | (None, Some(kinds)) => Ok(kinds),
        (None, None) if family == Family::Lfm3 => Ok((0..count).map(lfm3_default).collect()),
        (None, None) => Ok(vec![LayerKind::FullAttention; count]),
    }
}

fn lfm3_default(layer: usize) -> LayerKind {
    match layer % 4 {
        2 => LayerKind::FullAttention,
        0 if layer > 0 => LayerKind::SlidingAttention,
        _ => LayerKind::Conv,
    }
}

fn layer_types(keys: Keys<'_>, family: Family, count: usize) -> Result<Option<Vec<LayerKind>>> {
    let Some(list) = keys.array("layer_types")? else {
        return Ok(None);
    };
    if list.len() != count {
        let detail = format!("{} entries for {count} layers", list.len());
        return Err(Error::config("layer_types, num_hidden_layers", detail));
    }
    let known: &[LayerKind] = if family == Family::Lfm3 {
        &[
            LayerKind::Conv,
            LayerKind::FullAttention,
            LayerKind::SlidingAttention,
        ]
    } else {
        &[LayerKind::Conv, LayerKind::FullAttention]
    };
    let kind = |v: &Value| known.iter().copied().find(|k| Some(k.name()) == v.as_str());
    let names: Vec<&str> = known.iter().map(|k| k.name()).collect();
    let parsed = list
        .iter()
        .map(|v| kind(v).ok_or_else(|| wrong("layer_types", &names.join(" or "), v)));
    parsed.collect::<Result<_>>().map(Some)
}

fn full_attention_indices(keys: Keys<'_>, count: usize) -> Result<Option<Vec<LayerKind>>> {
    let Some(list) = keys.array("full_attn_idxs")? else {
        return Ok(None);
    };
    let mut kinds = vec![LayerKind::Conv; count];
    for value in list {
        let index = value.as_u64().and_then(|i| usize::try_from(i).ok());
        match index.and_then(|i| kinds.get_mut(i)) {
            Some(kind) => *kind = LayerKind::FullAttention,
            None => {
                return Err(wrong(
                    "full_attn_idxs",
                    &format!("layer numbers below {count}"),
                    value,
                ));
            }
        }
    }
    Ok(Some(kinds))
}

fn ffn_rule(keys: Keys<'_>, family: Family, limits: &Limits) -> Result<FfnRule> {
    let default = keys.bounded("intermediate_size", 12_288, limits.hidden_size)?;
    let stated = keys.bounded("block_ff_dim", default, limits.hidden_size)?;
    let dense = family == Family::Lfm2;
    let multiplier = keys.float("block_ffn_dim_multiplier")?;
    if multiplier.is_some_and(|m| m <= 0.0 || m > 1024.0) {
        return Err(Error::config(
            "block_ffn_dim_multiplier",
            "expected a number above 0 and at most 1024",
        ));
    }
    Ok(FfnRule {
        stated: positive("intermediate_size / block_ff_dim", stated)?,
        adjust: dense && keys.bool("block_auto_adjust_ff_dim")?.unwrap_or(true),
        multiplier: Some(multiplier.unwrap_or(1.0)),
        multiple_of: positive(
            "block_multiple_of",
            keys.bounded("block_multiple_of", 256, limits.hidden_size)?,
        )?,
    })
}

fn moe(keys: Keys<'_>, layers: usize, limits: &Limits) -> Result<MoeSpec> {
    let experts = positive(
        "num_experts",
        keys.bounded("num_experts", 32, limits.experts)?,
    )?;
    let per_token = positive(
        "num_experts_per_tok",
        keys.size("num_experts_per_tok")?.unwrap_or(4),
    )?;
    if per_token > experts {
        let detail = format!("{per_token} experts per token of {experts}");
        return Err(Error::config("num_experts_per_tok, num_experts", detail));
    }
    let num_dense_layers = keys.size("num_dense_layers")?.unwrap_or(2);
    if num_dense_layers > layers {
        let detail = format!("{num_dense_layers} dense layers of {layers}");
        return Err(Error::config("num_dense_layers, num_hidden_layers", detail));
    }
    let routed_scaling_factor = keys.float("routed_scaling_factor")?.unwrap_or(1.0);
    Ok(MoeSpec {
        num_dense_layers,
        width: positive(
            "moe_intermediate_size",
            keys.bounded("moe_intermediate_size", 1792, limits.hidden_size)?,
        )?,
        experts,
        per_token,
        expert_bias: keys.bool("use_expert_bias")?.unwrap_or(true),
        norm_topk_prob: keys.bool("norm_topk_prob")?.unwrap_or(true),
        routed_scaling_factor,
    })
}

fn norm_eps(keys: Keys<'_>) -> Result<f64> {
    let eps = keys.float("norm_eps")?.unwrap_or(1e-5);
    if !(0.0..1.0).contains(&eps) {
        return Err(Error::config(
            "norm_eps",
            format!("expected a number from 0 to 1, found {eps}"),
        ));
    }
    Ok(eps)
}

fn tied(keys: Keys<'_>) -> Result<bool> {
    match (
        keys.bool("tie_embedding")?,
        keys.bool("tie_word_embeddings")?,
    ) {
        (Some(a), Some(b)) if a != b => Err(Error::config(
            "tie_embedding, tie_word_embeddings",
            format!("{a} and {b} contradict each other"),
        )),
        (a, b) => Ok(a.or(b).unwrap_or(true)),
    }
}

/// Rotary parameters of full and of sliding attention.
fn ropes(keys: Keys<'_>, family: Family) -> Result<(RopeSpec, RopeSpec)> {
    if let Some(scaling) = keys.get("rope_scaling") {
        return Err(wrong(
            "rope_scaling",
            "no scaling (none of the family uses one)",
            scaling,
        ));
    }
    let nested = keys.object("rope_parameters")?;
    let flat_theta = match keys.float("rope_theta")? {
        Some(theta) => Some(theta),
        None => keys.float("theta")?,
    };
    let of_kind = |kind: &str, default: f64| -> Result<RopeSpec> {
        let own = nested.map(|n| n.object(kind)).transpose()?.flatten();
        rope_spec(own.or(nested), flat_theta.unwrap_or(default))
    };
    if family == Family::Lfm3 {
        return Ok((
            of_kind("full_attention", 1e6)?,
            of_kind("sliding_attention", 1e4)?,
        ));
    }
    let rope = rope_spec(nested, flat_theta.unwrap_or(1e6))?;
    Ok((rope, rope))
}

/// LFM3's released config calls the type "default" and gives a factor; the reference's own name for
/// what it computes is "proportional". Both mean the same here.
fn rope_spec(parameters: Option<Keys<'_>>, default_theta: f64) -> Result<RopeSpec> {
    let Some(keys) = parameters else {
        return checked_rope(default_theta, 1.0);
    };
    if let Some(kind) = keys.str("rope_type")?
        && !["default", "proportional"].contains(&kind)
    {
        let detail = format!("expected default or proportional, found {kind}");
        return Err(Error::config("rope_parameters.rope_type", detail));
    }
    let theta = keys.float("rope_theta")?.unwrap_or(default_theta);
    checked_rope(theta, keys.float("partial_rotary_factor")?.unwrap_or(1.0))
}

fn checked_rope(theta: f64, rotary_factor: f64) -> Result<RopeSpec> {
    if theta <= 0.0 {
        return Err(Error::config(
            "rope_theta",
            format!("expected a number above 0, found {theta}"),
        ));
    }
    if !(0.0..=1.0).contains(&rotary_factor) {
        let detail = format!("expected a number from 0 to 1, found {rotary_factor}");
        return Err(Error::config("partial_rotary_factor", detail));
    }
    Ok(RopeSpec {
        theta,
        rotary_factor,
    })
}
