//! The model's description as a `config.json`: made from GGUF metadata, and read to write a GGUF file.

use serde_json::{Map, Value, json};

use super::hyper::{Hyper, Mixer, Moe, Normalise, Sight};
use super::tokens::TokenIds;
use crate::{Error, Limits, Result};

const CONV: &str = "conv";
const ATTENTION: &str = "full_attention";

/// A `config.json` with the keys of current checkpoints.
pub(super) fn to_config(hyper: &Hyper, ids: &TokenIds) -> Value {
    let (family, model_type) = match hyper.moe {
        Some(_) => ("Lfm2Moe", "lfm2_moe"),
        None => ("Lfm2", "lfm2"),
    };
    let class = match hyper.sight {
        Sight::Causal => "ForCausalLM",
        Sight::Bidirectional => "BidirectionalModel",
    };
    let kind = |mixer: &Mixer| {
        if *mixer == Mixer::Attention {
            ATTENTION
        } else {
            CONV
        }
    };
    let mut config = json!({
        "architectures": [format!("{family}{class}")],
        "model_type": model_type,
        "vocab_size": hyper.vocab,
        "hidden_size": hyper.hidden,
        "intermediate_size": hyper.ffn,
        "num_hidden_layers": hyper.layers.len(),
        "num_attention_heads": hyper.heads,
        "num_key_value_heads": hyper.kv_heads,
        "layer_types": hyper.layers.iter().map(kind).collect::<Vec<_>>(),
        "conv_L_cache": hyper.kernel,
        "conv_bias": hyper.conv_bias,
        "norm_eps": hyper.epsilon,
        "rope_parameters": { "rope_theta": hyper.theta, "rope_type": "default" },
        "max_position_embeddings": hyper.context,
        "tie_word_embeddings": hyper.tied,
    });
    let mut put = |key: &str, value: Value| config[key] = value;
    if hyper.head_dim != hyper.hidden / hyper.heads {
        put("head_dim", hyper.head_dim.into());
    }
    for (key, id) in [("bos_token_id", ids.bos), ("pad_token_id", ids.pad)] {
        if let Some(id) = id {
            put(key, id.into());
        }
    }
    match ids.eos.as_slice() {
        [] => {}
        [id] => put("eos_token_id", (*id).into()),
        several => put("eos_token_id", several.into()),
    }
    match &hyper.moe {
        // The width in a GGUF file is the final one.
        None => put("block_auto_adjust_ff_dim", false.into()),
        Some(moe) => {
            put("moe_intermediate_size", moe.width.into());
            put("num_experts", moe.experts.into());
            put("num_experts_per_tok", moe.used.into());
            put("num_dense_layers", moe.dense_layers.into());
            put("use_expert_bias", moe.bias.into());
            put("norm_topk_prob", (moe.normalise == Normalise::Yes).into());
            put("routed_scaling_factor", moe.scale.into());
        }
    }
    config
}

/// Reads a `config.json`, in any spelling of its keys.
///
/// `dense_width` is the width of the dense feed-forward layers as the weights have it, which is
/// right where the config's own number still has to go through a rule.
///
/// # Errors
/// [`Error::Unsupported`] for another family or an unknown rotary scaling,
/// [`Error::InvalidConfig`] for keys of a wrong type or missing ones, [`Error::Limit`].
pub(super) fn from_config(
    config: &Value,
    dense_width: Option<usize>,
    limits: &Limits,
) -> Result<Hyper> {
    let keys = Keys::new(config)?;
    let moe = match keys.str("model_type")? {
        Some("lfm2") => None,
        Some("lfm2_moe") => Some(keys.moe()?),
        other => {
            return Err(Error::Unsupported {
                what: format!(
                    "model_type \"{}\" in a GGUF file",
                    other.unwrap_or("missing")
                ),
                hint: "lfm2 and lfm2_moe can be written".to_owned(),
            });
        }
    };
    let hidden = keys.usize("hidden_size", None)?;
    let heads = keys.usize("num_attention_heads", None)?;
    let head_dim = match keys.usize_opt("head_dim")? {
        Some(head_dim) => head_dim,
        None if heads > 0 && hidden.is_multiple_of(heads) => hidden / heads,
        None => {
            return Err(Error::config(
                "hidden_size, num_attention_heads",
                format!("{hidden} is no multiple of {heads}"),
            ));
        }
    };
    Hyper {
        layers: keys.layers(limits)?,
        context: keys.usize("max_position_embeddings", Some(128_000))?,
        vocab: keys.usize("vocab_size", None)?,
        hidden,
        ffn: match dense_width {
            Some(width) => width,
            None => keys.first_usize(&["block_ff_dim", "intermediate_size"])?,
        },
        heads,
        kv_heads: keys.usize("num_key_value_heads", Some(8))?,
        head_dim,
        kernel: keys.usize("conv_L_cache", Some(3))?,
        theta: keys.theta()?,
        epsilon: keys.float("norm_eps", 1e-5)?,
        sight: keys.sight(),
        tied: keys
            .bool_opt("tie_embedding")?
            .or(keys.bool_opt("tie_word_embeddings")?)
            .unwrap_or(true),
        conv_bias: keys.bool_opt("conv_bias")?.unwrap_or(false),
        moe,
    }
    .check(limits)
}

/// Typed access to a JSON object; `null` counts as absent.
struct Keys<'a>(&'a Map<String, Value>);

impl<'a> Keys<'a> {
    fn new(config: &'a Value) -> Result<Self> {
        config
            .as_object()
            .map(Self)
            .ok_or_else(|| Error::config("config.json", "expected an object"))
    }

    fn get<T>(
        &self,
        key: &str,
        expected: &str,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>> {
        match self.0.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match read(value) {
                Some(read) => Ok(Some(read)),
                None => Err(Error::config(
                    key,
                    format!("expected {expected}, found {value}"),
                )),
            },
        }
    }

    fn usize_opt(&self, key: &str) -> Result<Option<usize>> {
        self.get(key, "an integer", |value| {
            value.as_u64().and_then(|n| usize::try_from(n).ok())
        })
    }

    fn usize(&self, key: &str, default: Option<usize>) -> Result<usize> {
        self.usize_opt(key)?
            .or(default)
            .ok_or_else(|| Error::config(key, "is missing"))
    }

    fn first_usize(&self, keys: &[&str]) -> Result<usize> {
        for key in keys {
            if let Some(found) = self.usize_opt(key)? {
                return Ok(found);
            }
        }
        Err(Error::config(keys.join(", "), "one of them is needed"))
    }

    fn bool_opt(&self, key: &str) -> Result<Option<bool>> {
        self.get(key, "a boolean", Value::as_bool)
    }

    fn float(&self, key: &str, default: f64) -> Result<f64> {
        Ok(self.get(key, "a number", Value::as_f64)?.unwrap_or(default))
    }

    fn str(&self, key: &str) -> Result<Option<&'a str>> {
        self.get(key, "a string", Value::as_str)
    }

    fn layers(&self, limits: &Limits) -> Result<Vec<Mixer>> {
        let count = self.usize("num_hidden_layers", None)?;
        if count > limits.layers {
            let (limit, found) = (limits.layers as u64, count as u64);
            return Err(Error::Limit {
                what: "num_hidden_layers".to_owned(),
                limit,
                found,
            });
        }
        let Some(types) = self.get("layer_types", "a list", Value::as_array)? else {
            return self.layers_by_index(count);
        };
        if types.len() != count {
            let detail = format!("{} kinds for {count} layers", types.len());
            return Err(Error::config("layer_types, num_hidden_layers", detail));
        }
        let mixer = |kind: &Value| match kind.as_str() {
            Some(CONV) => Ok(Mixer::Conv),
            Some(ATTENTION) => Ok(Mixer::Attention),
            _ => Err(Error::config(
                "layer_types",
                format!("expected {CONV} or {ATTENTION}, found {kind}"),
            )),
        };
        types.iter().map(mixer).collect()
    }

    /// Early configs list the attention layers; without any list, every layer is one.
    fn layers_by_index(&self, count: usize) -> Result<Vec<Mixer>> {
        let Some(attention) = self.get("full_attn_idxs", "a list", Value::as_array)? else {
            return Ok(vec![Mixer::Attention; count]);
        };
        let mut layers = vec![Mixer::Conv; count];
        for index in attention {
            let layer = index
                .as_u64()
                .and_then(|n| usize::try_from(n).ok())
                .and_then(|n| layers.get_mut(n));
            *layer.ok_or_else(|| {
                Error::config(
                    "full_attn_idxs, num_hidden_layers",
                    format!("{index} is no layer of {count}"),
                )
            })? = Mixer::Attention;
        }
        Ok(layers)
    }

    fn theta(&self) -> Result<f64> {
        let nested = self
            .get("rope_parameters", "an object", Value::as_object)?
            .map(Keys);
        if let Some(rope) = &nested
            && let Some(kind) = rope.str("rope_type")?.filter(|kind| *kind != "default")
        {
            return Err(Error::Unsupported {
                what: format!("rope_type \"{kind}\" in a GGUF file"),
                hint: "only default can be written".to_owned(),
            });
        }
        let nested = nested
            .map(|rope| rope.get("rope_theta", "a number", Value::as_f64))
            .transpose()?
            .flatten();
        match nested.or(self.get("rope_theta", "a number", Value::as_f64)?) {
            Some(theta) => Ok(theta),
            None => self.float("theta", 1e6),
        }
    }

    fn sight(&self) -> Sight {
        let names = self
            .0
            .get("architectures")
            .and_then(Value::as_array)
            .into_iter()
            .flatten();
        match names
            .filter_map(Value::as_str)
            .any(|name| name.contains("Bidirectional"))
        {
            true => Sight::Bidirectional,
            false => Sight::Causal,
        }
    }

    fn moe(&self) -> Result<Moe> {
        Ok(Moe {
            experts: self.usize("num_experts", Some(32))?,
            used: self.usize("num_experts_per_tok", Some(4))?,
            width: self.usize("moe_intermediate_size", Some(1792))?,
            dense_layers: self.usize("num_dense_layers", Some(2))?,
            bias: self.bool_opt("use_expert_bias")?.unwrap_or(true),
            normalise: match self.bool_opt("norm_topk_prob")? {
                Some(false) => Normalise::No,
                Some(true) | None => Normalise::Yes,
            },
            scale: self.float("routed_scaling_factor", 1.0)?,
        })
    }
}
