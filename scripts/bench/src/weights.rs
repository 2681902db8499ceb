//! Files with random weights that both sides can open.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::ValueEnum;
use lfm2::hub::gguf::{Quantization, QuantizeInput, QuantizeOptions, quantize};
use lfm2::hub::{Overwrite, StoredType, SyntheticSource, TensorSource, write_safetensors};
use lfm2::text::TextConfig;
use lfm2::text::shapes;
use lfm2::{DType, Device, Tensor};
use serde_json::{Value, json};
use tempfile::TempDir;

/// How weights are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    F32,
    Bf16,
    #[value(name = "q8_0")]
    Q8_0,
    #[value(name = "q4_0")]
    Q4_0,
}

impl Format {
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::Q8_0 => "q8_0",
            Self::Q4_0 => "q4_0",
        }
    }
}

/// Where the weights are. The files go away with this value.
pub struct Weights {
    folder: TempDir,
    pub config: Value,
    pub format: Format,
}

impl Weights {
    /// Writes weights of a published shape, or of its first `layers` layers, for sequences of at
    /// most `context` tokens.
    pub fn write(shape: &str, layers: Option<usize>, format: Format, context: usize) -> Result<Self> {
        let config = config(shape, layers, context.max(1024))?;
        let weights = Self {
            folder: TempDir::new()?,
            config,
            format,
        };
        let path = weights.path();
        match format {
            Format::F32 => weights.write_dense(DType::F32)?,
            Format::Bf16 => weights.write_dense(DType::BF16)?,
            Format::Q8_0 => weights.write_blocks(Quantization::Q8_0)?,
            Format::Q4_0 => weights.write_blocks(Quantization::Q4_0)?,
        }
        std::fs::write(weights.folder.path().join("config.json"), weights.config.to_string())
            .with_context(|| path.display().to_string())?;
        Ok(weights)
    }

    /// The file with the weights.
    pub fn path(&self) -> PathBuf {
        self.folder.path().join(match self.format {
            Format::F32 | Format::Bf16 => "model.safetensors",
            Format::Q8_0 | Format::Q4_0 => "model.gguf",
        })
    }

    /// What opens as a checkpoint: the folder, or the file that holds everything.
    pub fn checkpoint(&self) -> PathBuf {
        match self.format {
            Format::F32 | Format::Bf16 => self.folder.path().to_owned(),
            Format::Q8_0 | Format::Q4_0 => self.path(),
        }
    }

    fn random(&self, dtype: DType) -> Result<SyntheticSource> {
        let tensors = TextConfig::from_json(&self.config)?.tensors();
        let shapes = tensors.into_iter().map(|tensor| (tensor.name, tensor.shape));
        let stored = StoredType::Dense(dtype);
        Ok(SyntheticSource::new(shapes, stored, stored, 1)?)
    }

    fn write_dense(&self, dtype: DType) -> Result<()> {
        let source = self.random(dtype)?;
        let mut tensors: Vec<(String, Tensor)> = Vec::new();
        for name in source.names() {
            let tensor = source.dense(&name, dtype, &Device::Cpu)?;
            tensors.push((name, tensor));
        }
        let named = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor));
        Ok(write_safetensors(
            &self.path(),
            named,
            &BTreeMap::new(),
            Overwrite::Refuse,
        )?)
    }

    fn write_blocks(&self, kind: Quantization) -> Result<()> {
        let tokenizer = tokenizer().to_string();
        let input = QuantizeInput {
            config: &self.config,
            generation_config: None,
            tokenizer: tokenizer.as_bytes(),
            chat_template: None,
            tensors: &self.random(DType::F32)?,
        };
        quantize(&input, &self.path(), &QuantizeOptions::new(kind, "random"), |_| ())?;
        Ok(())
    }
}

/// The config of a shape, with the keys that the peer asks for.
fn config(shape: &str, layers: Option<usize>, context: usize) -> Result<Value> {
    let mut config = shapes::find(shape)?.config_json();
    let kinds = config["layer_types"]
        .as_array_mut()
        .context("a config without layer_types")?;
    kinds.truncate(layers.unwrap_or(usize::MAX));
    config["num_hidden_layers"] = kinds.len().into();
    config["max_position_embeddings"] = context.into();
    config["rope_theta"] = config["rope_parameters"]["rope_theta"].clone();
    config["tie_embedding"] = config["tie_word_embeddings"].clone();
    Ok(config)
}

/// The smallest tokenizer that a GGUF file of the family can carry; no text is read or written here.
fn tokenizer() -> Value {
    const SPLIT: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
    json!({
        "version": "1.0",
        "added_tokens": [],
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": SPLIT}, "behavior": "Isolated", "invert": false},
            {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false},
        ]},
        "post_processor": null,
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": []},
    })
}
