//! The shapes of the published text models, for measuring without their weights.
//!
//! ```no_run
//! use lfm2_hub::gguf::Quantization;
//! use lfm2_text::{LoadOptions, shapes};
//!
//! # fn main() -> lfm2_hub::Result<()> {
//! let shape = shapes::find("lfm2-1.2b")?;
//! let model = shape.synthetic(Quantization::Q4_0, 0, &LoadOptions::default())?;
//! # Ok(())
//! # }
//! ```

use std::sync::Arc;

use lfm2_hub::gguf::{Quantization, QuantizeOptions};
use lfm2_hub::{Error, Result, SyntheticSource};
use serde_json::{Value, json};

use crate::{Family, LayerKind, LoadOptions, TextConfig, TextModel};

/// Shape facts of one published text model.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shape {
    name: &'static str,
    /// `c` conv, `A` attention, `s` sliding attention.
    layers: &'static str,
    hidden: usize,
    heads: Heads,
    ffn: usize,
    vocab: usize,
    theta: f64,
    moe: Option<Experts>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Heads {
    query: usize,
    kv: usize,
    dim: usize,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Experts {
    count: usize,
    width: usize,
}

const DENSE_16: &str = "ccAccAccAcAcAcAc";
const DENSE_14: &str = "ccAcAcAcAcAcAc";
const DENSE_30: &str = "ccAccAcccAcccAcccAcccAccAccAcc";
const MOE_24: &str = "ccAcccAcccAcccAcccAccAcc";
const MOE_40: &str = "ccAcccAcccAcccAcccAcccAcccAcccAcccAcccAc";
const LFM3_24: &str = "ccAcscAcscAcscAcscAcscAc";

const fn shape(
    name: &'static str,
    layers: &'static str,
    (hidden, query, ffn): (usize, usize, usize),
    (vocab, theta): (usize, f64),
    moe: Option<Experts>,
) -> Shape {
    let heads = Heads {
        query,
        kv: 8,
        dim: 64,
    };
    Shape {
        name,
        layers,
        hidden,
        heads,
        ffn,
        vocab,
        theta,
        moe,
    }
}

const fn experts(count: usize, width: usize) -> Option<Experts> {
    Some(Experts { count, width })
}

/// Every published shape, smallest first within a generation.
#[rustfmt::skip] // One model per line.
const SHAPES: [Shape; 12] = [
    shape("LFM2-350M", DENSE_16, (1024, 16, 4608), (65_536, 1e6), None),
    shape("LFM2-700M", DENSE_16, (1536, 24, 6912), (65_536, 1e6), None),
    shape("LFM2-1.2B", DENSE_16, (2048, 32, 8192), (65_536, 1e6), None),
    shape("LFM2-2.6B", DENSE_30, (2048, 32, 10_752), (65_536, 1e6), None),
    shape("LFM2-8B-A1B", MOE_24, (2048, 32, 7168), (65_536, 1e6), experts(32, 1792)),
    shape("LFM2-24B-A2B", MOE_40, (2048, 32, 11_776), (65_536, 1e6), experts(64, 1536)),
    shape("LFM2.5-230M", DENSE_14, (1024, 16, 2560), (65_536, 1e6), None),
    shape("LFM2.5-350M", DENSE_16, (1024, 16, 4608), (65_536, 1e6), None),
    shape("LFM2.5-1.2B", DENSE_16, (2048, 32, 8192), (65_536, 1e6), None),
    shape("LFM2.5-2.6B", DENSE_30, (2048, 32, 10_752), (128_000, 1e7), None),
    shape("LFM2.5-8B-A1B", MOE_24, (2048, 32, 7168), (128_000, 5e6), experts(32, 1792)),
    Shape {
        heads: Heads { query: 16, kv: 4, dim: 128 },
        ..shape("LFM3-1.7B", LFM3_24, (2048, 16, 7680), (128_000, 1e6), None)
    },
];

/// Every published shape.
pub fn all() -> &'static [Shape] {
    &SHAPES
}

/// The shape called `name`, in any case.
///
/// # Errors
/// [`Error::NotFound`] with the list of names.
pub fn find(name: &str) -> Result<&'static Shape> {
    let found = SHAPES
        .iter()
        .find(|shape| shape.name.eq_ignore_ascii_case(name));
    found.ok_or_else(|| {
        let names: Vec<&str> = SHAPES.iter().map(|shape| shape.name).collect();
        Error::NotFound {
            what: format!("a model shape called {name:?}"),
            hint: format!("known are {}", names.join(", ")),
        }
    })
}

impl Shape {
    /// The model's name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The `config.json` of the model, as far as its shape is concerned.
    pub fn config_json(&self) -> Value {
        let family = self.family();
        let layers: Vec<&str> = self.layers.chars().map(|c| kind(c).name()).collect();
        let mut config = json!({
            "model_type": family.model_type(),
            "vocab_size": self.vocab,
            "hidden_size": self.hidden,
            "num_hidden_layers": layers.len(),
            "layer_types": layers,
            "num_attention_heads": self.heads.query,
            "num_key_value_heads": self.heads.kv,
            "head_dim": self.heads.dim,
            "intermediate_size": self.ffn,
            "block_auto_adjust_ff_dim": false,
            "conv_L_cache": if family == Family::Lfm3 { 7 } else { 3 },
            "norm_eps": 1e-5,
            "max_position_embeddings": 128_000,
            "rope_parameters": self.rope(),
            "tie_word_embeddings": true,
        });
        if family == Family::Lfm3 {
            config["sliding_window"] = 256.into();
        }
        if let Some(experts) = self.moe {
            config["num_experts"] = experts.count.into();
            config["num_experts_per_tok"] = 4.into();
            config["num_dense_layers"] = 2.into();
            config["moe_intermediate_size"] = experts.width.into();
        }
        config
    }

    /// The model's checked config.
    ///
    /// # Errors
    /// None for the shapes of this module; a test holds that.
    pub fn config(&self) -> Result<TextConfig> {
        TextConfig::from_json(&self.config_json())
    }

    /// Random weights of this shape, stored as [`lfm2_hub::gguf::quantize`] would store real ones.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a storage that random weights do not come in.
    pub fn tensors(&self, storage: Quantization, seed: u64) -> Result<SyntheticSource> {
        let tensors = self.config()?.tensors().into_iter();
        let shapes = tensors.map(|tensor| (tensor.name, tensor.shape));
        let embedding = QuantizeOptions::new(storage, self.name).embedding;
        SyntheticSource::new(shapes, storage.stored(), embedding.stored(), seed)
    }

    /// The model with [random weights](Self::tensors).
    ///
    /// # Errors
    /// As [`tensors`](Self::tensors).
    pub fn synthetic(
        &self,
        storage: Quantization,
        seed: u64,
        options: &LoadOptions,
    ) -> Result<TextModel> {
        let source = self.tensors(storage, seed)?;
        TextModel::from_tensors(self.config()?, Arc::new(source), options)
    }

    fn family(&self) -> Family {
        match self.moe {
            Some(_) => Family::Lfm2Moe,
            None if self.layers.contains('s') => Family::Lfm3,
            None => Family::Lfm2,
        }
    }

    fn rope(&self) -> Value {
        let default = |theta: f64| json!({"rope_theta": theta, "rope_type": "default"});
        if self.family() != Family::Lfm3 {
            return default(self.theta);
        }
        let mut full = default(self.theta);
        full["partial_rotary_factor"] = json!(0.5);
        json!({"full_attention": full, "sliding_attention": default(1e4)})
    }
}

/// The layer that a letter of the table stands for.
fn kind(letter: char) -> LayerKind {
    match letter {
        'A' => LayerKind::FullAttention,
        's' => LayerKind::SlidingAttention,
        _ => LayerKind::Conv,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shape_is_the_published_one() {
        let parameters = |name: &str| find(name).unwrap().config().unwrap().parameters();
        assert_eq!(parameters("LFM2-350M"), 354_483_968);
        assert_eq!(parameters("LFM2-700M"), 742_489_344);
        assert_eq!(parameters("LFM2-1.2B"), 1_170_340_608);
        assert_eq!(parameters("LFM2-2.6B"), 2_569_272_320);
        assert_eq!(parameters("LFM2-8B-A1B"), 8_339_930_560);
        assert_eq!(parameters("LFM2.5-230M"), 229_693_184);
        assert_eq!(parameters("LFM2.5-2.6B"), 2_697_198_592);
        assert_eq!(parameters("LFM2.5-8B-A1B"), 8_467_856_832);
        assert_eq!(parameters("LFM3-1.7B"), 1_728_801_536);
        let big = find("LFM2-24B-A2B").unwrap().config().unwrap();
        // Published with three digits only.
        let billions = |n: u64| format!("{:.2}", n as f64 / 1e9);
        assert_eq!(billions(big.parameters()), "23.84");
        assert_eq!(billions(big.active_parameters()), "2.33");
    }

    #[test]
    fn configs_say_what_the_table_says() {
        for shape in all() {
            let config = shape.config().unwrap();
            assert_eq!(config.to_string(), shape.layers, "{}", shape.name);
            assert_eq!(config.ffn_width, shape.ffn, "{}", shape.name);
            assert_eq!(config.rope.theta, shape.theta, "{}", shape.name);
        }
    }

    #[test]
    fn names_are_found_in_any_case_and_listed_otherwise() {
        assert_eq!(find("lfm2-8b-a1b").unwrap().name(), "LFM2-8B-A1B");
        let error = find("lfm2-3b").unwrap_err();
        assert_eq!(error.kind(), lfm2_hub::ErrorKind::NotFound);
        assert!(error.to_string().contains("LFM2.5-230M"), "{error}");
    }
}
