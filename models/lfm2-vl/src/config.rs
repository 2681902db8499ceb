//! [`VlConfig`]: the facts of a vision-language model, checked.

use lfm2_hub::{Error, Limits, Result};
use lfm2_nn::Activation;
use lfm2_text::{ConfigKeys, TextConfig};
use serde_json::{Map, Value};

use crate::picture::CHANNELS;

/// Longer sides of position tables than this cannot be meant.
const MAX_TABLE: usize = 1 << 16;
const MAX_PATCH: usize = 64;
const MAX_FACTOR: usize = 8;

const FACTOR: &str = "downsample_factor";
const PROJECTOR_HIDDEN: &str = "projector_hidden_size";

/// Facts of the vision tower.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct VisionConfig {
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width inside the feed-forward layers.
    pub ffn_width: usize,
    /// Layers.
    pub layers: usize,
    /// Attention heads.
    pub heads: usize,
    /// Pixels per side of a patch.
    pub patch_size: usize,
    /// Rows of the position table; a square.
    pub num_patches: usize,
    /// What the feed-forward layers compute between their matrices.
    pub activation: Activation,
    /// Epsilon of every norm.
    pub norm_eps: f64,
}

/// Facts of the projector between tower and text model.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ProjectorConfig {
    /// Patches per side that become one token.
    pub factor: usize,
    /// Width inside.
    pub hidden_size: usize,
    /// Whether the matrices have a bias.
    pub bias: bool,
    /// Whether a norm comes first.
    pub norm: bool,
    /// What it computes between its matrices.
    pub activation: Activation,
}

/// Facts of a vision-language model. Holding one means they agree with each other.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct VlConfig {
    /// The text model.
    pub text: TextConfig,
    /// The vision tower.
    pub vision: VisionConfig,
    /// What joins them.
    pub projector: ProjectorConfig,
    /// The token of pictures, where the config says so; the tokenizer knows it better.
    pub image_token_id: Option<u32>,
}

impl VlConfig {
    /// Parses and checks a `config.json`, in the spellings of all published files.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`] naming the keys, [`Error::Unsupported`] for another architecture,
    /// [`Error::Limit`] for sizes beyond `limits`.
    pub fn from_json(json: &Value, limits: &Limits) -> Result<Self> {
        let keys = ConfigKeys::new("config.json", json)?;
        match keys.str("model_type")? {
            Some("lfm2_vl" | "lfm2-vl") => {}
            other => {
                return Err(Error::Unsupported {
                    what: format!("model_type \"{}\"", other.unwrap_or("missing")),
                    hint: "vision-language models have lfm2_vl".to_owned(),
                });
            }
        }
        if let Some(layer) = keys
            .get("vision_feature_layer")
            .filter(|v| v.as_i64() != Some(-1))
        {
            return Err(Error::Unsupported {
                what: format!("vision_feature_layer {layer}"),
                hint: "the last layer, -1, is".to_owned(),
            });
        }
        let text = text_config(json)?;
        let text = TextConfig::from_json_within(&text, limits)?;
        let ids =
            ["image_token_id", "image_token_index"].map(|key| keys.token_ids(key, text.vocab_size));
        let [first, second] = ids;
        let image_token_id = match (first?.first(), second?.first()) {
            (Some(a), Some(b)) if a != b => {
                let detail = format!("{a} and {b} contradict each other");
                return Err(Error::config("image_token_id, image_token_index", detail));
            }
            (a, b) => a.or(b).copied(),
        };
        Ok(Self {
            vision: VisionConfig::from_json(json.get("vision_config"), limits)?,
            projector: ProjectorConfig::from_keys(keys, limits)?,
            text,
            image_token_id,
        })
    }
}

/// `text_config` with what the whole config says of shared embeddings.
fn text_config(json: &Value) -> Result<Value> {
    const TIED: &str = "tie_word_embeddings";
    const EARLY_TIED: &str = "tie_embedding";
    let top = ConfigKeys::new("config.json", json)?;
    let Some(text) = top.get("text_config") else {
        return Err(Error::config("text_config", "missing"));
    };
    ConfigKeys::new("text_config", text)?;
    let mut text = text.as_object().cloned().unwrap_or_default();
    text.entry("model_type").or_insert_with(|| "lfm2".into());
    let tied = match (top.bool(TIED)?, top.bool(EARLY_TIED)?) {
        (Some(a), Some(b)) if a != b => {
            let detail = format!("{a} and {b} contradict each other");
            return Err(Error::config(format!("{EARLY_TIED}, {TIED}"), detail));
        }
        (a, b) => a.or(b),
    };
    if let Some(tied) = tied {
        text.remove(EARLY_TIED);
        text.insert(TIED.to_owned(), tied.into());
    }
    Ok(Value::Object(text))
}

impl VisionConfig {
    /// Parses and checks a `vision_config`; what it lacks, or all of it, are the defaults of the
    /// published base tower.
    ///
    /// # Errors
    /// As [`VlConfig::from_json`].
    pub fn from_json(json: Option<&Value>, limits: &Limits) -> Result<Self> {
        let nothing = Value::Object(Map::new());
        let json = json.filter(|json| !json.is_null()).unwrap_or(&nothing);
        let keys = ConfigKeys::new("vision_config", json)?;
        let size = |key: &str, default, limit| positive(key, keys.bounded(key, default, limit)?);
        let channels = size("num_channels", CHANNELS, CHANNELS)?;
        if channels != CHANNELS {
            return Err(Error::config(
                "num_channels",
                format!("expected {CHANNELS}, found {channels}"),
            ));
        }
        let vision = Self {
            hidden_size: size("hidden_size", 768, limits.hidden_size)?,
            ffn_width: size("intermediate_size", 3072, limits.hidden_size)?,
            layers: size("num_hidden_layers", 12, limits.layers)?,
            heads: size("num_attention_heads", 12, limits.heads)?,
            patch_size: size("patch_size", 16, MAX_PATCH)?,
            num_patches: size("num_patches", 256, MAX_TABLE)?,
            activation: activation(keys, "hidden_act", Activation::GeluTanh)?,
            norm_eps: keys.float("layer_norm_eps")?.unwrap_or(1e-6),
        };
        vision.check()?;
        Ok(vision)
    }

    pub(crate) fn check(&self) -> Result<()> {
        if !self.hidden_size.is_multiple_of(self.heads) {
            let detail = format!("{} is not a multiple of {}", self.hidden_size, self.heads);
            return Err(Error::config("hidden_size, num_attention_heads", detail));
        }
        if self.num_patches.isqrt().pow(2) != self.num_patches {
            let detail = format!("expected a square, found {}", self.num_patches);
            return Err(Error::config("num_patches", detail));
        }
        if !(0.0..1.0).contains(&self.norm_eps) {
            let detail = format!("expected a number from 0 to 1, found {}", self.norm_eps);
            return Err(Error::config("layer_norm_eps", detail));
        }
        Ok(())
    }

    /// Values of a patch.
    pub fn patch_values(&self) -> usize {
        self.patch_size.pow(2) * CHANNELS
    }
}

impl ProjectorConfig {
    fn from_keys(keys: ConfigKeys<'_>, limits: &Limits) -> Result<Self> {
        let projector = Self {
            factor: keys.size(FACTOR)?.unwrap_or(2),
            hidden_size: keys.size(PROJECTOR_HIDDEN)?.unwrap_or(2560),
            bias: keys.bool("projector_bias")?.unwrap_or(true),
            norm: keys.bool("projector_use_layernorm")?.unwrap_or(true),
            activation: activation(keys, "projector_hidden_act", Activation::Gelu)?,
        };
        projector.check(limits)?;
        Ok(projector)
    }

    pub(crate) fn check(&self, limits: &Limits) -> Result<()> {
        for (key, found, limit) in [
            (FACTOR, self.factor, MAX_FACTOR),
            (PROJECTOR_HIDDEN, self.hidden_size, limits.hidden_size),
        ] {
            positive(key, found)?;
            if found > limit {
                return Err(Error::Limit {
                    what: format!("config: {key}"),
                    limit: limit as u64,
                    found: found as u64,
                });
            }
        }
        Ok(())
    }
}

fn activation(keys: ConfigKeys<'_>, key: &str, default: Activation) -> Result<Activation> {
    match keys.str(key)? {
        None => Ok(default),
        Some(name) => Activation::from_name(name).ok_or_else(|| Error::Unsupported {
            what: format!("{key} \"{name}\""),
            hint: format!("known are {}", Activation::NAMES.join(", ")),
        }),
    }
}

fn positive(key: &str, found: usize) -> Result<usize> {
    match found {
        0 => Err(Error::config(key, "expected at least 1, found 0")),
        _ => Ok(found),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(change: impl FnOnce(&mut Value)) -> Result<VlConfig> {
        let mut json = json!({
            "model_type": "lfm2_vl",
            "text_config": {
                "model_type": "lfm2", "vocab_size": 400, "hidden_size": 64, "num_attention_heads": 4,
                "num_key_value_heads": 2, "num_hidden_layers": 2, "intermediate_size": 96,
            },
        });
        change(&mut json);
        VlConfig::from_json(&json, &Limits::default())
    }

    #[test]
    fn absent_keys_have_the_published_defaults() {
        let config = parse(|_| ()).unwrap();
        assert_eq!(config.vision.hidden_size, 768);
        assert_eq!(config.vision.activation, Activation::GeluTanh);
        assert_eq!(config.vision.patch_values(), 768);
        let projector = config.projector;
        assert!(projector.bias && projector.norm && projector.activation == Activation::Gelu);
        assert_eq!((projector.factor, projector.hidden_size), (2, 2560));
        assert!(config.text.tied && config.image_token_id.is_none());
    }

    #[test]
    fn the_whole_config_decides_whether_embeddings_are_shared() {
        let config = parse(|json| {
            json["tie_word_embeddings"] = false.into();
            json["text_config"]["tie_embedding"] = true.into();
        });
        assert!(!config.unwrap().text.tied);
        let config = parse(|json| json["text_config"]["tie_embedding"] = false.into());
        assert!(!config.unwrap().text.tied);
    }

    #[test]
    fn early_names_are_read() {
        let config = parse(|json| {
            json["model_type"] = "lfm2-vl".into();
            json["image_token_index"] = 7.into();
            json["vision_feature_layer"] = (-1).into();
            json["text_config"]
                .as_object_mut()
                .unwrap()
                .remove("model_type");
        });
        assert_eq!(config.unwrap().image_token_id, Some(7));
    }

    #[test]
    fn cf_14_configs_that_cannot_be_are_refused_by_key() {
        let vision = |key: &str, value: Value| {
            let key = key.to_owned();
            move |json: &mut Value| json["vision_config"] = json!({ key: value })
        };
        type Change = Box<dyn FnOnce(&mut Value)>;
        let cases: [(&str, Change); 12] = [
            ("patch_size", Box::new(vision("patch_size", json!(0)))),
            ("num_patches", Box::new(vision("num_patches", json!(255)))),
            ("hidden_act", Box::new(vision("hidden_act", json!("relu")))),
            ("num_channels", Box::new(vision("num_channels", json!(1)))),
            (
                "num_attention_heads",
                Box::new(vision("num_attention_heads", json!(5))),
            ),
            (
                "layer_norm_eps",
                Box::new(vision("layer_norm_eps", json!(-1))),
            ),
            (
                "downsample_factor",
                Box::new(|json| json["downsample_factor"] = 0.into()),
            ),
            (
                "text_config",
                Box::new(|json| json["text_config"] = Value::Null),
            ),
            (
                "model_type",
                Box::new(|json| json["model_type"] = "llava".into()),
            ),
            (
                "image_token_id",
                Box::new(|json| json["image_token_id"] = 400.into()),
            ),
            (
                "image_token_index",
                Box::new(|json| {
                    json["image_token_id"] = 4.into();
                    json["image_token_index"] = 5.into();
                }),
            ),
            (
                "vision_feature_layer",
                Box::new(|json| json["vision_feature_layer"] = (-2).into()),
            ),
        ];
        for (key, change) in cases {
            let error = parse(change).unwrap_err();
            assert!(error.to_string().contains(key), "{key}: {error}");
        }
    }
}
