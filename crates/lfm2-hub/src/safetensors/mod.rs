//! Safetensors files: checked before anything of them is trusted, one file or many with an index.
//!
//! The header is read by our own code instead of the `safetensors` crate's because that one takes
//! the last of two equal keys, and because errors here name the file and the tensor.

mod header;
mod index;
mod source;
mod write;

pub(crate) use index::ShardIndex;
pub use source::SafetensorsSource;
pub(crate) use source::{INDEX_FILE, SINGLE_FILE};
pub use write::{PieceSink, TensorPlan, write_safetensors, write_safetensors_streamed};
