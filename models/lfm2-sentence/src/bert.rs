//! [`BertNetwork`]: the encoder of BERT, on packed tokens.
//!
//! `x = norm(words + positions + type 0)`, then in each layer `h = norm(x + attention(x))` and
//! `x = norm(h + mlp(h))`: norms stand behind the sums, and there is none at the end.

use std::sync::Arc;

use candle_core::{DType, Device, Module, Tensor};
use lfm2_hub::{Error as HubError, Limits, Result as HubResult};
use lfm2_nn::{Activation, Bias, Embedding, LayerNorm, Linear, Observer, Weights, attend_within};
use lfm2_text::{ConfigKeys, wrong_config};

/// Where the encoder begins in checkpoints that contain one.
const PREFIXES: [&str; 2] = ["", "bert"];

/// Facts of a BERT encoder, which agree with each other.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct BertConfig {
    /// Number of token ids.
    pub vocab_size: usize,
    /// Width.
    pub hidden_size: usize,
    /// Layers.
    pub layers: usize,
    /// Attention heads.
    pub heads: usize,
    /// Width inside feed-forward layers.
    pub ffn_width: usize,
    /// Their activation.
    pub activation: Activation,
    /// Longest text, in tokens.
    pub positions: usize,
    /// Rows of the table of token types.
    pub token_types: usize,
    /// Added to variances.
    pub norm_eps: f64,
}

impl BertConfig {
    /// Reads a `config.json` of the model type `bert`.
    ///
    /// # Errors
    /// When a key is missing, out of its limit, contradicts another, or asks for a variant that is not
    /// known; the key is named.
    pub fn from_json_within(json: &serde_json::Value, limits: &Limits) -> HubResult<Self> {
        let keys = ConfigKeys::new("config", json)?;
        let size = |key: &str, limit: usize| match keys.bounded(key, 0, limit)? {
            0 => Err(HubError::config(key, "expected a number from 1")),
            found => Ok(found),
        };
        let name = keys.str("hidden_act")?.unwrap_or("gelu");
        let activation = Activation::from_name(name).ok_or_else(|| HubError::Unsupported {
            what: format!("config: hidden_act \"{name}\""),
            hint: format!("known are {}", Activation::NAMES.join(", ")),
        })?;
        let kind = keys.str("position_embedding_type")?.unwrap_or("absolute");
        if kind != "absolute" {
            return Err(HubError::Unsupported {
                what: format!("config: position_embedding_type \"{kind}\""),
                hint: "absolute is".to_owned(),
            });
        }
        if keys.bool("is_decoder")?.unwrap_or(false) {
            return Err(HubError::Unsupported {
                what: "config: is_decoder true".to_owned(),
                hint: "encoders are".to_owned(),
            });
        }
        let norm_eps = keys.float("layer_norm_eps")?.unwrap_or(1e-12);
        if norm_eps <= 0.0 {
            return Err(wrong_config(
                "layer_norm_eps",
                "a number above 0",
                &norm_eps.into(),
            ));
        }
        let config = Self {
            vocab_size: size("vocab_size", limits.vocabulary)?,
            hidden_size: size("hidden_size", limits.hidden_size)?,
            layers: size("num_hidden_layers", limits.layers)?,
            heads: size("num_attention_heads", limits.heads)?,
            ffn_width: size("intermediate_size", limits.hidden_size)?,
            activation,
            positions: size("max_position_embeddings", limits.vocabulary)?,
            token_types: keys
                .bounded("type_vocab_size", 2, limits.vocabulary)?
                .max(1),
            norm_eps,
        };
        if !config.hidden_size.is_multiple_of(config.heads) {
            let (hidden, heads) = (config.hidden_size, config.heads);
            let detail = format!("{heads} heads do not divide a width of {hidden}");
            return Err(HubError::config("num_attention_heads, hidden_size", detail));
        }
        Ok(config)
    }
}

/// A BERT encoder. Immutable, shareable between threads, cheap to clone.
#[derive(Debug, Clone)]
pub struct BertNetwork {
    config: Arc<BertConfig>,
    words: Embedding,
    positions: Tensor,
    token_type: Tensor,
    norm: LayerNorm,
    layers: Arc<[Layer]>,
    device: Device,
}

impl BertNetwork {
    /// Loads the encoder whose `embeddings` and `encoder` are under `weights`, or under `bert` there.
    ///
    /// # Errors
    /// When a tensor is missing or contradicts the config; both are named.
    pub fn load(config: BertConfig, weights: &Weights) -> HubResult<Self> {
        let holds = |prefix: &&&str| {
            weights
                .pp(prefix)
                .contains("embeddings.word_embeddings.weight")
        };
        let prefix = PREFIXES.iter().find(holds).unwrap_or(&PREFIXES[0]);
        let root = weights.pp(prefix);
        let (table, hidden) = (root.pp("embeddings"), config.hidden_size);
        let types = table.pp("token_type_embeddings");
        let types = types.tensor("weight", &[config.token_types, hidden])?;
        let layers: Vec<Layer> = (0..config.layers)
            .map(|layer| Layer::load(&config, &root.pp("encoder.layer").pp(layer)))
            .collect::<HubResult<_>>()?;
        let positions = table.pp("position_embeddings");
        Ok(Self {
            words: table
                .pp("word_embeddings")
                .embedding(config.vocab_size, hidden)?,
            positions: positions.tensor("weight", &[config.positions, hidden])?,
            // A text is of one type: the first.
            token_type: types.narrow(0, 0, 1)?,
            norm: LayerNorm::load(&table.pp("LayerNorm"), hidden, config.norm_eps)?,
            layers: layers.into(),
            device: weights.device().clone(),
            config: Arc::new(config),
        })
    }

    /// The encoder's facts.
    pub fn config(&self) -> &BertConfig {
        &self.config
    }

    /// Where the encoder runs.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// States `(tokens, hidden)` of the ids of texts, `lens` tokens long, one after another. The
    /// observer, if any, sees the embedded tokens and what every layer makes of them.
    ///
    /// # Errors
    /// When an id is outside the vocabulary, a text is longer than the encoder reads, the lengths do not
    /// add up, the device fails, or what the observer returns.
    pub fn forward(
        &self,
        ids: &Tensor,
        lens: &[usize],
        mut observer: Option<&mut dyn Observer>,
    ) -> candle_core::Result<Tensor> {
        if let Some(len) = lens.iter().find(|&&len| len > self.config.positions) {
            candle_core::bail!(
                "a text of {len} tokens, at most {} are read",
                self.config.positions
            );
        }
        let places: Vec<u32> = lens.iter().flat_map(|&len| (0u32..).take(len)).collect();
        let places = Tensor::new(places.as_slice(), &self.device)?;
        let x = (self.words.forward(ids)? + self.positions.index_select(&places, 0)?)?;
        let mut x = self.norm.forward(&x.broadcast_add(&self.token_type)?)?;
        if let Some(observer) = &mut observer {
            observer.embedded(&x)?;
        }
        for (index, layer) in self.layers.iter().enumerate() {
            x = layer.forward(&x, lens)?;
            if let Some(observer) = &mut observer {
                observer.layer(index, &x)?;
            }
        }
        x.to_dtype(DType::F32)
    }
}

#[derive(Debug, Clone)]
struct Layer {
    /// Queries, keys, values.
    qkv: [Linear; 3],
    output: Linear,
    attention_norm: LayerNorm,
    widen: Linear,
    activation: Activation,
    narrow: Linear,
    output_norm: LayerNorm,
    heads: usize,
}

impl Layer {
    fn load(config: &BertConfig, weights: &Weights) -> HubResult<Self> {
        let (hidden, ffn) = (config.hidden_size, config.ffn_width);
        let norm =
            |weights: &Weights| LayerNorm::load(&weights.pp("LayerNorm"), hidden, config.norm_eps);
        let linear = |name: &str, input, output| weights.pp(name).linear(input, output, Bias::With);
        let own = |name: &str| linear(&format!("attention.self.{name}"), hidden, hidden);
        Ok(Self {
            qkv: [own("query")?, own("key")?, own("value")?],
            output: linear("attention.output.dense", hidden, hidden)?,
            attention_norm: norm(&weights.pp("attention.output"))?,
            widen: linear("intermediate.dense", hidden, ffn)?,
            activation: config.activation,
            narrow: linear("output.dense", ffn, hidden)?,
            output_norm: norm(&weights.pp("output"))?,
            heads: config.heads,
        })
    }

    fn forward(&self, x: &Tensor, lens: &[usize]) -> candle_core::Result<Tensor> {
        let (tokens, hidden) = x.dims2()?;
        let head = hidden / self.heads;
        let by_head = |y: &Tensor| y.reshape((tokens, self.heads, head));
        let [q, k, v] = Linear::forward_each(self.qkv.each_ref(), x)?;
        let (q, k, v) = (by_head(&q)?, by_head(&k)?, by_head(&v)?);
        let mixed = attend_within([&q, &k, &v], lens, 1.0 / (head as f64).sqrt())?;
        let mixed = self.output.forward(&mixed.reshape((tokens, hidden))?)?;
        let h = self.attention_norm.forward(&(x + mixed)?)?;
        let wide = self.activation.forward(&self.widen.forward(&h)?)?;
        let narrow = self.narrow.forward(&wide)?;
        self.output_norm.forward(&(h + narrow)?)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn config() -> Value {
        json!({
            "model_type": "bert", "vocab_size": 20, "hidden_size": 12, "num_hidden_layers": 1,
            "num_attention_heads": 3, "intermediate_size": 8, "max_position_embeddings": 16,
        })
    }

    fn with(key: &str, value: Value) -> HubResult<BertConfig> {
        let mut json = config();
        json[key] = value;
        BertConfig::from_json_within(&json, &Limits::default())
    }

    #[test]
    fn missing_keys_have_the_references_defaults() {
        let config = BertConfig::from_json_within(&config(), &Limits::default()).unwrap();
        assert_eq!((config.token_types, config.norm_eps), (2, 1e-12));
        assert_eq!(config.activation, Activation::Gelu);
    }

    #[test]
    fn wrong_values_name_their_keys() {
        let cases = [
            ("hidden_size", json!(0)),
            ("vocab_size", json!("many")),
            ("num_hidden_layers", json!(1_000_000)),
            ("num_attention_heads", json!(5)),
            ("hidden_act", json!("relu")),
            ("position_embedding_type", json!("relative_key")),
            ("is_decoder", json!(true)),
            ("layer_norm_eps", json!(-1.0)),
        ];
        for (key, value) in cases {
            let text = with(key, value).unwrap_err().to_string();
            assert!(text.contains(key), "{key}: {text}");
        }
    }
}
