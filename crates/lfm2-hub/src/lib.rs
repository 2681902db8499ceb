//! Where LFM2 weights, configs and tokenizers come from.
//!
//! A [`ModelSource`] says where a checkpoint is, [`Checkpoint::open`] reads and checks it, and a
//! [`TensorSource`] hands out its tensors under the names of the published safetensors files,
//! whatever format they are stored in. This crate knows files and tensors, not layers.

mod error;
mod tensors;

pub use error::{Error, ErrorKind, Result};
pub use tensors::{StoredType, TensorInfo, TensorSource};
