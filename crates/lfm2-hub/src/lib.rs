//! Where LFM2 weights, configs and tokenizers come from.
//!
//! A [`ModelSource`] says where a checkpoint is, [`Checkpoint::open`] reads and checks it, and a
//! [`TensorSource`] hands out its tensors under the names of the published safetensors files,
//! whatever format they are stored in. This crate knows files and tensors, not layers.
//!
//! | I want | use |
//! |---|---|
//! | to open a folder, a GGUF file or a Hub repository | [`Checkpoint::open`] |
//! | its config without its weights | [`CheckpointInfo::open`] |
//! | files that only some models have, weights in folders of their own | [`CheckpointInfo::json`], [`Checkpoint::tensors_in`], [`Joined`] |
//! | to turn text into ids and back | [`Tokenizer`] |
//! | to write weights | [`write_safetensors`] |
//! | files from the Hub, with progress | [`fetch_checkpoint`], [`Progress`], feature `download` |
//! | packed weights to be found at the next start | [`PackedCache`] |
//! | weights of any shape without a file | [`SyntheticSource`] |

mod checkpoint;
mod error;
mod fetch;
mod files;
pub mod gguf;
mod in_blocks;
mod joined;
mod json;
mod limits;
mod mapped;
mod options;
mod packed;
mod safetensors;
mod source;
mod synthetic;
mod tensors;
mod tokenizer;

pub use checkpoint::{Checkpoint, CheckpointInfo, MemoryFiles};
pub use error::{Error, ErrorKind, Result};
#[cfg(feature = "download")]
pub use fetch::HubClient;
pub use fetch::{
    Fetch, HubCache, Parts, Progress, ProgressEvent, Snapshot, fetch_checkpoint, fetch_gguf,
};
pub use files::{Links, Overwrite, write_atomic};
pub use in_blocks::InBlocks;
pub use joined::Joined;
pub use limits::Limits;
pub use mapped::Mapping;
pub use options::{Network, OpenOptions, Refresh, Token};
pub use packed::{Fingerprint, PackedCache, PackedEntry, PackedFile, PackedTensor, Stored};
pub use safetensors::{
    PieceSink, SafetensorsSource, TensorPlan, write_safetensors, write_safetensors_streamed,
};
pub use source::{ModelSource, RepoId, Revision};
pub use synthetic::SyntheticSource;
pub use tensors::{StoredType, TensorInfo, TensorSource};
pub use tokenizer::{Bos, SpecialTokens, Specials, Tokenizer};
