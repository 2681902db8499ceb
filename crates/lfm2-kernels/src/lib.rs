//! CPU kernels of the LFM2 family: slices in, slices out.
//!
//! Every function takes the instruction set to use as an [`Isa`] (get one from [`Isa::from_env`] or
//! [`Isa::best`] and keep it), checks all shapes before it touches memory, and returns a
//! [`ShapeError`] when they disagree. Matrices are row-major. Activations are `f32`; weights and
//! key-value caches may be `f32`, `bf16` or `f16` (see [`Element`]) and are widened in registers.
//!
//! Large problems are split over [`threads`] of this crate's own at fixed borders, so a result never
//! depends on how many there are.
//!
//! | module | kernels |
//! |---|---|
//! | [`matmul`](mod@matmul) | `y = x · wᵀ` from one row (memory bound) to whole prompts (compute bound) |
//! | [`packed`] | the same with weights in GGUF's block formats |
//! | [`attention`](mod@attention) | grouped-query attention over a cache: decode, prefill, sliding window, bidirectional |
//! | [`conv`] | the gated short convolution, causal with state or centred |
//! | [`norm`] | RMS norm, also fused with a residual add; layer norm |
//! | [`gradients`] | backward passes of norm, gated unit and convolution |
//! | [`optim`] | what an optimiser does with all weights |
//! | [`bias`] | the bias of a linear layer, with or without GELU behind it |
//! | [`rope`](mod@rope) | rotary embedding in the halves form |
//! | [`activation`] | exp, sigmoid, SiLU, SwiGLU, GELU, softmax |
//! | [`logits`] | arg-max, top-k, log-sum-exp |
//! | [`max_sim`](mod@max_sim) | late interaction: a query of many vectors with many documents |
//!
//! Besides, [`limits`] measures what the machine can do, and [`profile`] collects where the time goes.
//!
//! How a kernel is written: once, generic over a crate-private vector trait; a capability token per
//! instruction set ([`isa`]) makes "does this CPU have the instruction" a question of types. Each
//! kernel is tested on every instruction set against a naive double-precision version.
//!
//! ```
//! use lfm2_kernels::{Isa, MatMut, MatRef, matmul};
//!
//! let x = [1.0, 2.0, 3.0];
//! let w = [1.0, 0.0, 0.0, 0.0, 1.0, 1.0_f32];
//! let mut y = [0.0; 2];
//! matmul(Isa::best(), MatRef::new(&x, 1, 3)?, MatRef::new(&w, 2, 3)?, MatMut::new(&mut y, 1, 2)?)?;
//! assert_eq!(y, [1.0, 5.0]);
//! # Ok::<(), lfm2_kernels::ShapeError>(())
//! ```
#![allow(
    unsafe_code,
    reason = "vector instructions and disjoint writes from several threads"
)]

pub mod activation;
pub mod attention;
pub mod bias;
pub mod conv;
pub mod gradients;
pub mod image;
pub mod isa;
pub mod limits;
pub mod logits;
pub mod matmul;
pub mod max_sim;
pub mod norm;
pub mod optim;
pub mod packed;
pub mod profile;
pub mod rope;
pub mod threads;

mod element;
mod error;
mod heap;
mod scratch;
mod simd;
mod view;

#[cfg(test)]
mod tests;

pub use activation::{exp, gelu_erf, gelu_tanh, scaled_softmax, sigmoid, silu, silu_mul, softmax};
pub use attention::{
    AttentionSpec, KvRef, KvShape, RelativeSpec, Visibility, append_kv, attention,
    encoder_attention_bf16, relative_attention,
};
pub use bias::{add_bias, add_bias_gelu_erf, add_bias_gelu_tanh, add_bias_silu};
pub use conv::{ConvKernel, short_conv, short_conv_centred};
pub use element::Element;
pub use error::ShapeError;
pub use heap::keep_freed_memory;
pub use image::{Behind, Image, conv_3x3_by_two};
pub use isa::{Isa, IsaError};
pub use logits::{argmax, log_sum_exp, log_sum_exp_wide, top_k};
pub use matmul::{Panels, Sum, matmul, matmul_bf16, matmul_nn, matmul_panels, matmul_tn};
pub use max_sim::{DocumentRows, Match, max_sim, max_sim_matches};
pub use norm::{add_rms_norm, layer_norm, rms_norm, rms_norm_in_place};
pub use rope::rope;
pub use scratch::{Scratch, with_scratch};
pub use view::{MatMut, MatRef};
