//! Products with weights in GGUF's block formats.
//!
//! Weights are sorted once, when a model is loaded, into tiles of sixteen rows whose lines of 64 bytes
//! are operands of the dot-product instruction ([`PackedMatrix`]); they are as large as the blocks were.
//! Activations are rounded to whole numbers when they arrive ([`with_quantized`]), once for all
//! matrices that read them. Then every product is whole numbers, exact in 32 bits, but for one
//! multiplication with the scales per 32 inputs.
//!
//! The same code runs from one row of activations, where the weights are read at the speed of memory,
//! to whole prompts, where eight rows share every weight that is unpacked.

mod format;
mod matrix;
pub(crate) mod memory;
mod multiply;
mod pack;
mod rows;
mod stack;
mod sums;

pub use format::{BlockType, Precision};
pub(crate) use memory::Pages;

pub use matrix::PackedMatrix;
pub use memory::WeightBytes;
pub use multiply::{GatedProduct, Product, Sum, multiply, multiply_gated};
pub use rows::{QuantizedRows, Rows, with_quantized, with_quantized_each};
pub use stack::PackedStack;
