//! GGUF files: opened with [`GgufFile`], or [`OtherGguf`] for other architectures, written with
//! [`quantize`].
//!
//! The head of a file is read by this crate's own strict reader, which checks every count, length
//! and offset against the file before anything is allocated. What a file says is then offered in
//! the terms of the published checkpoints: a `config.json` value, the published tensor names, a
//! tokenizer.

mod config;
mod cursor;
mod header;
mod hyper;
mod k_blocks;
mod metadata;
mod names;
mod other;
mod quantization;
mod quantize;
mod source;
mod split;
mod tokens;
mod write;

pub use metadata::{Array, Metadata, Value, ValueType};
pub use other::OtherGguf;
pub use quantization::Quantization;
pub(crate) use quantize::encode;
pub use quantize::{
    Fallback, QuantizeInput, QuantizeOptions, QuantizeProgress, QuantizeReport, quantize,
};
pub use source::GgufFile;
pub use tokens::TokenIds;
pub use write::{NewTensor, write_gguf};
