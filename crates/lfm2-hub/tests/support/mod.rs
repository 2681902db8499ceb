//! Builders of small files for the tests.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)] // Every test binary uses its own part.

use std::path::Path;

use serde_json::{Value, json};

/// A safetensors file of `header`, then `data` zero bytes.
pub fn safetensors(header: &str, data: usize) -> Vec<u8> {
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header.as_bytes());
    file.resize(file.len() + data, 0);
    file
}

/// A header entry of an F32 tensor at `begin`.
pub fn f32_entry(shape: &[u64], begin: u64) -> Value {
    let bytes = 4 * shape.iter().product::<u64>();
    json!({"dtype": "F32", "shape": shape, "data_offsets": [begin, begin + bytes]})
}

/// A valid file of F32 tensors with the given names, each of shape `[2, 3]`.
pub fn valid(names: &[&str]) -> Vec<u8> {
    let entry = |(position, name): (usize, &&str)| {
        ((*name).to_owned(), f32_entry(&[2, 3], 24 * position as u64))
    };
    let header: serde_json::Map<String, Value> = names.iter().enumerate().map(entry).collect();
    safetensors(&Value::Object(header).to_string(), 24 * names.len())
}

/// Writes the smallest folder that opens: a config and one tensor.
pub fn write_checkpoint(folder: &Path) {
    std::fs::write(folder.join("config.json"), r#"{"model_type": "lfm2"}"#).unwrap();
    std::fs::write(folder.join("model.safetensors"), valid(&["a"])).unwrap();
}

/// A tokenizer of the four letters of "abcd" and the special tokens `<s>` (0, also BOS) and `<e>`.
pub fn tokenizer_json() -> String {
    json!({
        "version": "1.0",
        "added_tokens": [
            {"id": 0, "content": "<s>", "single_word": false, "lstrip": false, "rstrip": false,
             "normalized": false, "special": true},
            {"id": 1, "content": "<e>", "single_word": false, "lstrip": false, "rstrip": false,
             "normalized": false, "special": true},
        ],
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [0], "tokens": ["<s>"]}},
        },
        "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false},
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            "vocab": {"<s>": 0, "<e>": 1, "a": 2, "b": 3, "c": 4, "d": 5, "<": 6, ">": 7, "s": 8, "e": 9, "ab": 10},
            "merges": [["a", "b"]],
        },
    })
    .to_string()
}
