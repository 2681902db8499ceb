//! Files with random weights that every contender can open.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use lfm2::hub::gguf::{Quantization, QuantizeInput, QuantizeOptions, quantize};
use lfm2::hub::{Overwrite, StoredType, SyntheticSource, TensorSource, write_safetensors};
use lfm2::text::{TextConfig, shapes};
use lfm2::{DType, Device, Tensor};
use serde_json::{Value, json};

use crate::WeightsArgs;

/// The numbers that weights of one shape start from, whatever they are stored as.
const SEED: u64 = 1;

/// Writes a GGUF file or a folder. In every format the weights come from the same numbers.
pub fn write(args: &WeightsArgs) -> Result<()> {
    let config = config(&args.shape)?;
    if args.out.extension().is_some_and(|extension| extension == "gguf") {
        write_gguf(args, &config)
    } else {
        write_folder(args, config)
    }
}

fn random(config: &Value, dtype: DType) -> Result<SyntheticSource> {
    let tensors = TextConfig::from_json(config)?.tensors();
    let shapes = tensors.into_iter().map(|tensor| (tensor.name, tensor.shape));
    let stored = StoredType::Dense(dtype);
    Ok(SyntheticSource::new(shapes, stored, stored, SEED)?)
}

fn write_gguf(args: &WeightsArgs, config: &Value) -> Result<()> {
    let vocab = config["vocab_size"].as_u64().context("a config without vocab_size")?;
    let tokenizer = tokenizer(vocab).to_string();
    let input = QuantizeInput {
        config,
        generation_config: None,
        tokenizer: tokenizer.as_bytes(),
        chat_template: None,
        tensors: &random(config, DType::F32)?,
    };
    let mut options = QuantizeOptions::new(args.storage, "random");
    options.embedding = args.embedding.unwrap_or(match args.storage {
        // What users get from the usual quantiser.
        Quantization::Q4_0 | Quantization::Q4K => Quantization::Q6K,
        _ => options.embedding,
    });
    quantize(&input, &args.out, &options, |_| ())?;
    Ok(())
}

fn write_folder(args: &WeightsArgs, mut config: Value) -> Result<()> {
    let (dtype, name) = match args.storage {
        Quantization::F32 => (DType::F32, "float32"),
        Quantization::BF16 => (DType::BF16, "bfloat16"),
        other => bail!("a folder holds f32 or bf16, not {other}"),
    };
    let source = random(&config, dtype)?;
    let mut tensors: Vec<(String, Tensor)> = Vec::new();
    for name in source.names() {
        let tensor = source.dense(&name, dtype, &Device::Cpu)?;
        tensors.push((name, tensor));
    }
    std::fs::create_dir_all(&args.out).with_context(|| args.out.display().to_string())?;
    let named = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor));
    let weights = args.out.join("model.safetensors");
    write_safetensors(&weights, named, &BTreeMap::new(), Overwrite::Refuse)?;
    config["dtype"] = name.into();
    let path = args.out.join("config.json");
    std::fs::write(&path, config.to_string()).with_context(|| path.display().to_string())
}

/// The config of a shape, with the keys that the others ask for.
fn config(shape: &str) -> Result<Value> {
    let mut config = shapes::find(shape)?.config_json();
    config["rope_theta"] = config["rope_parameters"]["rope_theta"].clone();
    config["tie_embedding"] = config["tie_word_embeddings"].clone();
    let tokens = [("bos_token_id", 1), ("eos_token_id", 7), ("pad_token_id", 0)];
    for (key, id) in tokens {
        config[key] = id.into();
    }
    Ok(config)
}

/// A tokenizer with one token per byte and no words: no text is read or written here, but readers of
/// GGUF look for these.
fn tokenizer(vocab: u64) -> Value {
    const SPLIT: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
    const SPECIAL: [&str; 8] = [
        "<|pad|>",
        "<|startoftext|>",
        "<|endoftext|>",
        "<|fim_pre|>",
        "<|fim_mid|>",
        "<|fim_suf|>",
        "<|im_start|>",
        "<|im_end|>",
    ];
    let mut words: Vec<String> = SPECIAL.map(str::to_owned).to_vec();
    words.extend(byte_letters().map(String::from));
    words.push("ab".to_owned());
    words.extend((words.len() as u64..vocab).map(|id| format!("tok{id}")));
    let vocab: BTreeMap<&str, usize> = words.iter().enumerate().map(|(id, word)| (word.as_str(), id)).collect();
    let added = |(id, content): (usize, &&str)| {
        json!({
            "id": id, "content": content, "special": true, "normalized": false,
            "single_word": false, "lstrip": false, "rstrip": false,
        })
    };
    json!({
        "version": "1.0",
        "added_tokens": SPECIAL.iter().enumerate().map(added).collect::<Vec<_>>(),
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": SPLIT}, "behavior": "Isolated", "invert": false},
            {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false},
        ]},
        "post_processor": null,
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "vocab": vocab, "merges": [["a", "b"]]},
    })
}

/// The letter that stands for each byte in byte-level vocabularies: itself when it can be printed,
/// else the next one from 256 on.
fn byte_letters() -> impl Iterator<Item = char> {
    let mut next = 256;
    (0..=255_u8).map(move |byte| match byte {
        b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff => char::from(byte),
        _ => {
            let letter = char::from_u32(next).unwrap_or(char::REPLACEMENT_CHARACTER);
            next += 1;
            letter
        }
    })
}
