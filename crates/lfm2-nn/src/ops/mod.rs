//! The operations of the layers, each in two forms with one result.
//!
//! * the plain form: Candle operations that run on every device and carry gradients;
//! * the fast form: a kernel of `lfm2-kernels` on the slices of CPU tensors, without gradients.
//!
//! Each function chooses by itself: the fast form runs where the tensors are `f32` on a CPU and
//! nothing tracks a gradient ([`Tensor::track_op`]). So training and inference call the same code,
//! and a gradient cannot get lost in an operation without a backward pass.

mod plain;

use candle_core::{Result, Tensor};

use crate::attention::Visibility;
use crate::rope::RopeTable;

/// Which keys the queries of one segment see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mask {
    pub(crate) visibility: Visibility,
    /// Keys before the first query.
    pub(crate) past: usize,
    /// Valid keys.
    pub(crate) keys: usize,
}

/// `x W^T`: `(tokens, in)` and `(out, in)` to `(tokens, out)` in the type of `x`.
pub(crate) fn matmul_t(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    plain::matmul_t(x, weight)
}

/// `w * x / sqrt(mean(x^2) + eps)` over the last dimension.
pub(crate) fn rms_norm(x: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor> {
    plain::rms_norm(x, weight, eps)
}

/// Rotates `(tokens, heads, head_dim)` by the table's angles.
pub(crate) fn rope(x: &Tensor, table: &RopeTable) -> Result<Tensor> {
    plain::rope(x, table)
}

/// `silu(gate) * up`, element by element.
pub(crate) fn silu_mul(gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    plain::silu_mul(gate, up)
}

/// `1 / (1 + exp(-x))`.
pub(crate) fn sigmoid(x: &Tensor) -> Result<Tensor> {
    candle_nn::ops::sigmoid(x)
}

/// Attention of `q (len, heads, d)` to `k`, `v (kv_heads, capacity, d)`; `(len, heads, d)`.
pub(crate) fn attention(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    scale: f64,
    mask: Mask,
) -> Result<Tensor> {
    plain::attention(q, k, v, scale, mask)
}

/// The gated convolution of one segment `bcu (len, 3 * channels)` from `state`, moved on in place;
/// `None` state is a centred window. Returns `None` where there is no fast form.
pub(crate) fn short_conv(
    _bcu: &Tensor,
    _kernel: &Tensor,
    _bias: Option<&Tensor>,
    _state: Option<&Tensor>,
) -> Option<Result<Tensor>> {
    None
}
