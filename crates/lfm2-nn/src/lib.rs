//! Layers of the LFM2 family on Candle.

mod cache;
mod decoder;
mod step;

pub use cache::{Cache, CacheLayout, CacheSpec, KvSlot, LayerCache, LayerShape, Mark, Row};
pub use candle_core::{DType, Device, Tensor};
pub use decoder::{Decoder, Input, Want};
pub use step::{PaddedBatch, Segment, Step};
