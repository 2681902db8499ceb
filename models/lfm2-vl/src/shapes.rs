//! The tensors of a model from its config alone, and the shapes of the published models, for measuring
//! without their weights and for training from nothing.
//!
//! ```no_run
//! use lfm2_hub::gguf::Quantization;
//! use lfm2_nn::Weights;
//! use lfm2_vl::{VisionTower, shapes};
//!
//! # fn main() -> lfm2_hub::Result<()> {
//! let shape = shapes::find("lfm2-vl-450m")?;
//! let source = std::sync::Arc::new(shape.tensors(Quantization::BF16, 0)?);
//! let weights = lfm2_text::LoadOptions::default().weights(source);
//! let tower = VisionTower::load(&shape.config()?.vision, &weights.pp("model.vision_tower"))?;
//! # Ok(())
//! # }
//! ```

use lfm2_hub::gguf::{Quantization, QuantizeOptions};
use lfm2_hub::{Error, Limits, Result, SyntheticSource, Tokenizer};
use lfm2_text::{TensorRole, TensorSpec, shapes};
use serde_json::{Map, Value, json};

use crate::config::VlConfig;
use crate::mmproj::{PROJECTOR, TOWER};

/// Shape facts of one published model.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shape {
    name: &'static str,
    /// The text model inside.
    text: &'static str,
    tower: Tower,
    projector: usize,
    projector_norm: bool,
}

/// Width, feed-forward width, layers and heads of a tower.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Tower(usize, usize, usize, usize);

const BASE: Tower = Tower(768, 3072, 12, 12);
const SO400M: Tower = Tower(1152, 4304, 27, 16);

const fn shape(
    name: &'static str,
    text: &'static str,
    tower: Tower,
    (projector, projector_norm): (usize, bool),
) -> Shape {
    Shape {
        name,
        text,
        tower,
        projector,
        projector_norm,
    }
}

/// The published shapes that are known in full, smallest first within a generation.
const SHAPES: [Shape; 5] = [
    shape("LFM2-VL-450M", "LFM2-350M", BASE, (2560, true)),
    shape("LFM2-VL-1.6B", "LFM2-1.2B", SO400M, (2560, true)),
    shape("LFM2.5-VL-450M", "LFM2.5-350M", BASE, (2048, false)),
    shape("LFM2.5-VL-1.6B", "LFM2.5-1.2B", SO400M, (2048, false)),
    shape("LFM2.5-VL-3B", "LFM2.5-2.6B", SO400M, (2048, false)),
];

/// Every shape.
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

/// A stand-in for the tokenizer of such a model: one token per byte, and those of pictures under the ids
/// they have in a vocabulary of 65,536. For measuring, where what a text says makes no difference.
///
/// # Errors
/// None; a test holds that.
pub fn tokenizer() -> Result<Tokenizer> {
    /// The ids of the image token and of the first byte.
    const IMAGE: u32 = 396;
    const BYTES: u32 = 512;
    let places = (1..=10).flat_map(|row| (1..=10).map(move |col| (row, col)));
    let tiles = places.map(|(row, col)| format!("<|img_row_{row}_col_{col}|>"));
    let others = ["<|img_thumbnail|>", "<|image_start|>", "<|image_end|>"];
    let names = std::iter::once("<image>".to_owned())
        .chain(tiles)
        .chain(others.map(str::to_owned));
    let specials: Vec<(u32, String)> = (IMAGE..).zip(names).collect();
    let added: Vec<Value> = specials
        .iter()
        .map(|(id, content)| {
            json!({"id": id, "content": content, "single_word": false, "lstrip": false,
                "rstrip": false, "normalized": false, "special": true})
        })
        .collect();
    // How byte-level tokenizers spell bytes that are no printable characters.
    let mut spare = '\u{100}'..;
    let letters = (0..=255u8).map(|byte| match byte {
        b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff => Some(char::from(byte)),
        _ => spare.next(),
    });
    let vocab: Map<String, Value> = (BYTES..)
        .zip(letters.flatten())
        .map(|(id, letter)| (id, letter.to_string()))
        .chain(specials)
        .map(|(id, token)| (token, id.into()))
        .collect();
    let json = json!({
        "version": "1.0",
        "added_tokens": added,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
            "use_regex": false},
        "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
            "use_regex": false},
        "model": {"type": "BPE", "vocab": vocab, "merges": []},
    });
    Tokenizer::from_bytes(json.to_string(), &Limits::default())
}

impl Shape {
    /// The model's name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The model's checked config.
    ///
    /// # Errors
    /// None for the shapes of this module; a test holds that.
    pub fn config(&self) -> Result<VlConfig> {
        let Tower(hidden, ffn, layers, heads) = self.tower;
        let config = json!({
            "model_type": "lfm2_vl",
            "text_config": shapes::find(self.text)?.config_json(),
            "vision_config": {
                "hidden_size": hidden,
                "intermediate_size": ffn,
                "num_hidden_layers": layers,
                "num_attention_heads": heads,
            },
            "projector_hidden_size": self.projector,
            "projector_use_layernorm": self.projector_norm,
        });
        VlConfig::from_json(&config, &Limits::default())
    }

    /// Random weights of this shape.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a storage that random weights do not come in.
    pub fn tensors(&self, storage: Quantization, seed: u64) -> Result<SyntheticSource> {
        let tensors = self.config()?.tensors().into_iter();
        let shapes = tensors.map(|tensor| (tensor.name, tensor.shape));
        let embedding = QuantizeOptions::new(storage, self.name).embedding;
        SyntheticSource::new(shapes, storage.stored(), embedding.stored(), seed)
    }
}

impl VlConfig {
    /// Every tensor of such a model, under the names of the published safetensors files.
    pub fn tensors(&self) -> Vec<TensorSpec> {
        let inside = |mut spec: TensorSpec| {
            if let Some(rest) = spec.name.strip_prefix("model.") {
                spec.name = format!("model.language_model.{rest}");
            }
            spec
        };
        let mut specs: Vec<TensorSpec> = self.text.tensors().into_iter().map(inside).collect();
        self.add_tower(&mut specs);
        self.add_projector(&mut specs);
        specs
    }

    fn add_tower(&self, specs: &mut Vec<TensorSpec>) {
        let vision = &self.vision;
        let (hidden, ffn) = (vision.hidden_size, vision.ffn_width);
        let embeddings = format!("{TOWER}.embeddings");
        let patches = vision.patch_values();
        let name = format!("{embeddings}.patch_embedding");
        linear(specs, &name, [hidden, patches], TensorRole::Projection);
        bias(specs, &name, hidden);
        specs.push(TensorSpec {
            name: format!("{embeddings}.position_embedding.weight"),
            shape: vec![vision.num_patches, hidden],
            role: TensorRole::Embedding,
        });
        for layer in 0..vision.layers {
            let layer = format!("{TOWER}.encoder.layers.{layer}");
            norm(specs, &format!("{layer}.layer_norm1"), hidden);
            norm(specs, &format!("{layer}.layer_norm2"), hidden);
            for (part, shape, role) in [
                ("self_attn.q_proj", [hidden, hidden], TensorRole::Projection),
                ("self_attn.k_proj", [hidden, hidden], TensorRole::Projection),
                ("self_attn.v_proj", [hidden, hidden], TensorRole::Projection),
                (
                    "self_attn.out_proj",
                    [hidden, hidden],
                    TensorRole::OutputProjection,
                ),
                ("mlp.fc1", [ffn, hidden], TensorRole::Projection),
                ("mlp.fc2", [hidden, ffn], TensorRole::OutputProjection),
            ] {
                let name = format!("{layer}.{part}");
                linear(specs, &name, shape, role);
                bias(specs, &name, shape[0]);
            }
        }
        norm(specs, &format!("{TOWER}.post_layernorm"), hidden);
    }

    fn add_projector(&self, specs: &mut Vec<TensorSpec>) {
        let projector = &self.projector;
        let joined = projector.factor.pow(2) * self.vision.hidden_size;
        if projector.norm {
            norm(specs, &format!("{PROJECTOR}.layer_norm"), joined);
        }
        for (part, shape) in [
            ("linear_1", [projector.hidden_size, joined]),
            ("linear_2", [self.text.hidden_size, projector.hidden_size]),
        ] {
            let name = format!("{PROJECTOR}.{part}");
            linear(specs, &name, shape, TensorRole::Projection);
            if projector.bias {
                bias(specs, &name, shape[0]);
            }
        }
    }
}

fn linear(specs: &mut Vec<TensorSpec>, name: &str, shape: [usize; 2], role: TensorRole) {
    specs.push(TensorSpec {
        name: format!("{name}.weight"),
        shape: shape.to_vec(),
        role,
    });
}

fn bias(specs: &mut Vec<TensorSpec>, name: &str, len: usize) {
    specs.push(TensorSpec {
        name: format!("{name}.bias"),
        shape: vec![len],
        role: TensorRole::Bias,
    });
}

fn norm(specs: &mut Vec<TensorSpec>, name: &str, len: usize) {
    specs.push(TensorSpec {
        name: format!("{name}.weight"),
        shape: vec![len],
        role: TensorRole::Norm,
    });
    bias(specs, name, len);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_models_have_as_many_tensors() {
        for (name, count) in [
            ("LFM2.5-VL-450M", 349),
            ("lfm2.5-vl-1.6b", 589),
            ("LFM2.5-VL-3B", 707),
            ("LFM2-VL-450M", 351),
        ] {
            let config = find(name).unwrap().config().unwrap();
            assert_eq!(config.tensors().len(), count, "{name}");
        }
        assert!(all().iter().all(|shape| shape.config().is_ok()));
    }

    #[test]
    fn towers_have_their_published_weights() {
        let millions = |name: &str| {
            let config = find(name).unwrap().config().unwrap();
            let tower = config.tensors().into_iter();
            let tower = tower.filter(|spec| spec.name.starts_with(TOWER));
            tower.map(|spec| spec.elements()).sum::<usize>() / 1_000_000
        };
        assert_eq!(
            (millions("LFM2-VL-450M"), millions("LFM2-VL-1.6B")),
            (85, 412)
        );
    }

    #[test]
    fn the_stand_in_tokenizer_has_bytes_and_pictures() {
        use lfm2_hub::{Bos, SpecialTokens, Specials};
        let tokenizer = tokenizer().unwrap();
        assert_eq!(tokenizer.id_of("<image>"), Some(396));
        assert_eq!(tokenizer.id_of("<|img_row_10_col_10|>"), Some(496));
        assert_eq!(tokenizer.id_of("<|image_end|>"), Some(499));
        let text = "<image>a é\0";
        let ids = tokenizer
            .encode(text, SpecialTokens::Parse, Bos::Omit)
            .unwrap();
        assert_eq!((ids.len(), ids[1]), (6, 512 + u32::from(b'a')));
        assert_eq!(tokenizer.decode(&ids, Specials::Keep).unwrap(), text);
    }

    #[test]
    fn unknown_names_are_answered_with_those_that_are_known() {
        let error = find("LFM2-VL-7B").unwrap_err();
        assert!(error.to_string().contains("LFM2-VL-450M"), "{error}");
    }
}
