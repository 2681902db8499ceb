//! Layers of the LFM2 family on Candle.
//!
//! | concept | type |
//! |---|---|
//! | named tensors of a checkpoint | [`Weights`] |
//! | matrices, dense or quantised | [`Linear`], [`Embedding`], [`Matrix`] |
//! | token mixers | [`Attention`], [`ShortConv`] |
//! | feature mixers | [`SwiGlu`], [`MoeFeedForward`] |
//! | a decoder layer | [`HybridBlock`] |
//! | which tokens belong together | [`Step`], [`PaddedBatch`] |
//! | state of running sequences | [`Cache`] |
//! | the seam to everything that generates | [`Decoder`] |
//! | how many threads kernels run on | [`threads`] |
//! | what the machine can do, where the time goes | [`limits`], [`profile`] |
//!
//! Layers are immutable and cheap to clone; state is in the [`Cache`]. Shapes in the documentation
//! use `tokens` for the packed tokens of all sequences of a pass (see [`Step`]).

mod activation;
mod attention;
mod block;
mod cache;
mod cache_file;
mod decoder;
mod encoder_attention;
mod ffn;
mod layer_norm;
mod linear;
mod loading;
mod norm;
mod observer;
mod ops;
mod pass;
mod rope;
mod short_conv;
mod step;
mod trial;
mod weights;

pub use activation::Activation;
pub use attention::{Attention, AttentionConfig, AttentionNames, Visibility};
pub use block::{FeedForward, HybridBlock, Mixer};
pub use cache::{Cache, CacheLayout, CacheSpec, KvSlot, LayerCache, LayerShape, Mark, Row};
pub use candle_core::{DType, Device, Module, Tensor};
pub use decoder::{Decoder, Input, Want};
pub use encoder_attention::{attend_within, attend_within_coarse};
pub use ffn::{MoeConfig, MoeFeedForward, Routing, SwiGlu, expert_load};
pub use layer_norm::LayerNorm;
pub use lfm2_kernels::{Isa, keep_freed_memory, limits, profile, threads};
pub use linear::{Embedding, Linear};
pub use loading::{LoadEvent, LoadProgress};
pub use norm::RmsNorm;
pub use observer::Observer;
pub use pass::{Pass, PassKind, Span};
pub use rope::{Rope, RopeTable};
pub use short_conv::{ShortConv, ShortConvConfig, Window};
pub use step::{FillerStates, PaddedBatch, Segment, Step};
pub use weights::{Accuracy, Bias, Matrix, Weights};
