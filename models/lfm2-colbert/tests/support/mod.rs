//! Small models with random weights, made by code.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)] // Every test binary uses its own part.

use std::collections::HashMap;

use lfm2_colbert::ColbertModel;
use lfm2_hub::{Checkpoint, Limits, MemoryFiles, Tokenizer};
use lfm2_nn::{DType, Device, Tensor};
use lfm2_text::{LoadOptions, TensorRole, TextConfig};
use serde_json::{Map, Value, json};

/// The tokens of [`tokenizer_json`] in front of single characters.
const SPECIALS: [&str; 2] = ["<s>", "<e>"];

/// Characters, "ab", `<s>` in front of every text, and two prefixes.
pub fn tokenizer_json() -> String {
    let mut vocabulary = Map::new();
    let blanks = ['Ġ', 'Ċ', 'ĉ', 'Ã', '¤'];
    let characters = (b'!'..=b'~').map(char::from).chain(blanks);
    let tokens = SPECIALS.into_iter().map(str::to_owned);
    for token in tokens
        .chain(characters.map(String::from))
        .chain(["ab".to_owned()])
    {
        vocabulary.insert(token, vocabulary.len().into());
    }
    let added = |id: usize, content: &str, special: bool| {
        json!({"id": id, "content": content, "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false, "special": special})
    };
    let n = vocabulary.len();
    json!({
        "version": "1.0",
        "added_tokens": [added(0, "<s>", true), added(1, "<e>", true),
            added(n, "[Q] ", false), added(n + 1, "[D] ", false)],
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "post_processor": {"type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [0], "tokens": ["<s>"]}}},
        "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            "vocab": vocabulary, "merges": [["a", "b"]]},
    })
    .to_string()
}

pub fn tokenizer() -> Tokenizer {
    Tokenizer::from_bytes(tokenizer_json(), &Limits::default()).unwrap()
}

/// Which way tokens see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sight {
    Back,
    Both,
}

/// A small model to be.
#[derive(Debug, Clone, Copy)]
pub struct Recipe {
    pub sight: Sight,
    pub kernel: usize,
    pub layers: &'static [&'static str],
    pub prefix: &'static str,
    pub seed: u64,
}

pub const CONV: &str = "conv";
pub const ATTENTION: &str = "full_attention";

impl Recipe {
    pub fn new(sight: Sight, kernel: usize) -> Self {
        Self {
            sight,
            kernel,
            layers: &[CONV, ATTENTION, CONV, CONV],
            prefix: "",
            seed: 1,
        }
    }

    pub fn config(&self) -> Value {
        let architecture = match self.sight {
            Sight::Back => "Lfm2Model",
            Sight::Both => "Lfm2BidirectionalModel",
        };
        json!({
            "architectures": [architecture], "model_type": "lfm2",
            "vocab_size": tokenizer().vocab_size(), "hidden_size": 32,
            "num_hidden_layers": self.layers.len(), "layer_types": self.layers,
            "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 48,
            "block_auto_adjust_ff_dim": false, "conv_L_cache": self.kernel, "norm_eps": 1e-5,
            "eos_token_id": 1, "rope_theta": 10000.0, "tie_embedding": true,
        })
    }

    /// The trunk's tensors.
    pub fn tensors(&self) -> HashMap<String, Tensor> {
        let config = TextConfig::from_json(&self.config()).unwrap();
        let mut random = Random(self.seed);
        let tensors = config.tensors().into_iter().map(|spec| {
            let values: Vec<f32> = (0..spec.elements())
                .map(|_| match spec.role {
                    TensorRole::Norm => 1.0 + 0.2 * random.next(),
                    TensorRole::Embedding => random.next(),
                    TensorRole::ConvKernel => 0.6 * random.next(),
                    _ => 0.3 * random.next(),
                })
                .collect();
            let tensor = Tensor::from_vec(values, spec.shape, &Device::Cpu).unwrap();
            let bare = spec.name.strip_prefix("model.").unwrap();
            (format!("{}{bare}", self.prefix), tensor)
        });
        tensors.collect()
    }

    /// The files of a late-interaction model of 16 numbers per vector.
    pub fn files(&self) -> MemoryFiles {
        let modules = json!([
            {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
            {"idx": 1, "name": "1", "path": "1_Dense", "type": "pylate.models.Dense.Dense"},
        ]);
        let settings = json!({"query_length": 12, "document_length": 40});
        let dense = json!({"in_features": 32, "out_features": 16, "bias": false, "use_residual": false,
            "activation_function": "torch.nn.modules.linear.Identity"});
        let mut random = Random(self.seed + 99);
        let weight: Vec<f32> = (0..16 * 32).map(|_| 0.2 * random.next()).collect();
        let weight = Tensor::from_vec(weight, (16, 32), &Device::Cpu).unwrap();
        let mut files = MemoryFiles {
            config: self.config().to_string().into_bytes().into(),
            weights: safetensors(&self.tensors()).into(),
            tokenizer: Some(tokenizer_json().into_bytes().into()),
            ..MemoryFiles::default()
        };
        put(&mut files, "modules.json", &modules);
        put(&mut files, "config_sentence_transformers.json", &settings);
        put(&mut files, "1_Dense/config.json", &dense);
        let weight = safetensors(&HashMap::from([("linear.weight".to_owned(), weight)]));
        files
            .more
            .insert("1_Dense/model.safetensors".into(), weight.into());
        files
    }

    pub fn model(&self) -> ColbertModel {
        open(self.files()).unwrap()
    }
}

pub fn put(files: &mut MemoryFiles, name: &'static str, json: &Value) {
    files
        .more
        .insert(name.into(), json.to_string().into_bytes().into());
}

/// One file of `files` with some keys changed; null removes.
pub fn change(files: &mut MemoryFiles, name: &'static str, changes: &Value) {
    let old: Value = serde_json::from_slice(&files.more[name]).unwrap();
    let mut map = old.as_object().unwrap().clone();
    for (key, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => drop(map.remove(key)),
            value => drop(map.insert(key.clone(), value.clone())),
        }
    }
    put(files, name, &Value::Object(map));
}

pub fn checkpoint(files: MemoryFiles) -> Checkpoint {
    Checkpoint::from_memory("model", files, &Limits::default()).unwrap()
}

pub fn open(files: MemoryFiles) -> lfm2_colbert::Result<ColbertModel> {
    ColbertModel::from_checkpoint(&checkpoint(files), &LoadOptions::default())
}

/// The bytes of a safetensors file of `f32` tensors.
pub fn safetensors(tensors: &HashMap<String, Tensor>) -> Vec<u8> {
    let wide: HashMap<String, Tensor> = tensors
        .iter()
        .map(|(name, tensor)| (name.clone(), tensor.to_dtype(DType::F32).unwrap()))
        .collect();
    safetensors::serialize(&wide, None).unwrap()
}

/// Numbers of about the spread of a normal distribution.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> f32 {
        let mut sum = 0.0;
        for _ in 0..3 {
            self.0 = self
                .0
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            sum += (self.0 >> 40) as f32 / (1u64 << 23) as f32 - 1.0;
        }
        sum
    }
}

/// The largest difference of two lists of numbers of the same length.
pub fn difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter()
        .zip(b)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f32::max)
}
