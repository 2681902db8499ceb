//! The operations of the layers, each in three forms with one result.
//!
//! * the plain form: Candle operations that run on every device and carry gradients;
//! * the fast form: a kernel of `lfm2-kernels` on the slices of CPU tensors, without gradients;
//! * the learning form: the same kernels with a backward pass in closed form, for whole packed
//!   matrices.
//!
//! Each function chooses by itself: where the tensors are `f32` on a CPU, the learning form runs if
//! something tracks a gradient and the fast form if nothing does ([`Tensor::track_op`]). So training and inference call the same code,
//! and a gradient cannot get lost in an operation without a backward pass.

pub(crate) mod fast;
mod learn;
pub(crate) mod packed;
mod plain;

#[cfg(test)]
mod tests;

pub(crate) use learn::{Attention, AttentionWeights, ConvWeights, Norm};

use candle_core::{Module, Result, Tensor};
use lfm2_kernels::conv::ConvKernel;

use crate::attention::Visibility;
use crate::pass::Span;
use crate::rope::RopeTable;
use crate::short_conv::Window;
use crate::{Accuracy, Activation};

/// Which keys the queries of one segment see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mask {
    pub(crate) visibility: Visibility,
    /// Keys before the first query.
    pub(crate) past: usize,
    /// Valid keys.
    pub(crate) keys: usize,
}

/// What follows a product.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Tail<'a> {
    /// `(out)`
    pub(crate) bias: Option<&'a Tensor>,
    /// Behind the bias.
    pub(crate) activation: Option<Activation>,
}

impl Tail<'_> {
    /// Whether its fast form applies.
    fn fits(&self) -> bool {
        self.bias
            .is_none_or(|bias| fast::fits(&[bias]) && bias.is_contiguous())
    }

    /// What it makes of a product.
    pub(crate) fn apply(&self, mut y: Tensor) -> Result<Tensor> {
        if let Some(bias) = self.bias {
            y = add_bias(&y, bias)?;
        }
        match self.activation {
            Some(activation) => activation.forward(&y),
            None => Ok(y),
        }
    }
}

/// [`matmul_t`], and what follows it.
pub(crate) fn linear(
    x: &Tensor,
    weight: &Tensor,
    accuracy: Accuracy,
    tail: Tail<'_>,
) -> Result<Tensor> {
    let weights = fast::readable(weight) && weight.is_contiguous();
    if weights && fast::fits(&[x]) && tail.fits() {
        return fast::linear(x, weight, accuracy, tail);
    }
    tail.apply(matmul_t(x, weight, accuracy)?)
}

/// `x W^T`: `(tokens, in)` and `(out, in)` to `(tokens, out)` in the type of `x`.
pub(crate) fn matmul_t(x: &Tensor, weight: &Tensor, accuracy: Accuracy) -> Result<Tensor> {
    if fast::fits(&[x]) && fast::readable(weight) && weight.is_contiguous() {
        return fast::linear(x, weight, accuracy, Tail::default());
    }
    if learn::fits(&[x, weight]) {
        return learn::matmul_t(x, weight);
    }
    plain::matmul_t(x, weight)
}

/// `w * x / sqrt(mean(x^2) + eps)` over the last dimension.
pub(crate) fn rms_norm(x: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor> {
    if fast::fits(&[x, weight]) {
        return fast::rms_norm(x, weight, eps);
    }
    if learn::fits(&[x, weight]) {
        return learn::rms_norm(x, weight, eps);
    }
    plain::rms_norm(x, weight, eps)
}

/// `w * (x - mean(x)) / sqrt(var(x) + eps) + b` over the last dimension.
pub(crate) fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<Tensor> {
    if fast::fits(&[x, weight, bias]) {
        return fast::layer_norm(x, weight, bias, eps);
    }
    if learn::fits(&[x, weight, bias]) {
        return learn::layer_norm(x, weight, bias, eps);
    }
    plain::layer_norm(x, weight, bias, eps)
}

/// Rotates `(tokens, heads, head_dim)` by the table's angles.
pub(crate) fn rope(x: &Tensor, table: &RopeTable) -> Result<Tensor> {
    if fast::fits(&[x, &table.cos, &table.sin]) {
        return fast::rope(x, table);
    }
    if learn::fits(&[x, &table.cos]) {
        return learn::rope(x, table);
    }
    plain::rope(x, table)
}

/// `silu(gate) * up`, element by element.
pub(crate) fn silu_mul(gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    if fast::fits(&[gate, up]) {
        return fast::silu_mul(gate, up);
    }
    if learn::fits(&[gate, up]) {
        return learn::silu_mul(gate, up);
    }
    plain::silu_mul(gate, up)
}

/// A function of single values, of any shape.
pub(crate) fn activate(x: &Tensor, activation: Activation) -> Result<Tensor> {
    if fast::fits(&[x]) {
        return fast::activate(x, activation);
    }
    match activation {
        Activation::GeluTanh if learn::fits(&[x]) => learn::gelu_tanh(x),
        Activation::GeluTanh => x.gelu(),
        Activation::Gelu => x.gelu_erf(),
        Activation::Silu => x.silu(),
    }
}

/// `x (tokens, out)` plus `bias (out)`.
pub(crate) fn add_bias(x: &Tensor, bias: &Tensor) -> Result<Tensor> {
    if learn::fits(&[x, bias]) {
        return learn::add_bias(x, bias);
    }
    x.broadcast_add(bias)
}

/// `x + y`, element by element.
pub(crate) fn add(x: &Tensor, y: &Tensor) -> Result<Tensor> {
    if fast::fits(&[x, y]) && x.dims() == y.dims() {
        return fast::add(x, y);
    }
    x + y
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
    if fast::fits(&[q]) && fast::readable(k) && fast::readable(v) {
        return fast::attention(q, k, v, scale, mask);
    }
    plain::attention(q, k, v, scale, mask)
}

/// Writes new keys or values `(len, kv_heads, head_dim)` into `cache (kv_heads, capacity, head_dim)` from
/// position `past` on.
pub(crate) fn append_kv(cache: &Tensor, new: &Tensor, past: usize) -> Result<()> {
    if fast::fits(&[new]) && fast::readable(cache) {
        return fast::append_kv(cache, new, past);
    }
    let new = new.transpose(0, 1)?.contiguous()?.to_dtype(cache.dtype())?;
    cache.slice_set(&new, 1, past)
}

/// Attention inside every span of `q (tokens, heads, d)`, `k` and `v (tokens, kv_heads, d)`, all spans
/// at once, in the fast or the learning form; `None` where neither applies.
pub(crate) fn packed_attention(
    qkv: [&Tensor; 3],
    spans: &[Span],
    scale: f64,
    visibility: Visibility,
) -> Option<Result<Tensor>> {
    if fast::fits(&qkv) {
        return Some(fast::packed_attention(qkv, spans, scale, visibility));
    }
    learn::fits(&qkv).then(|| learn::attention(qkv, spans, scale, visibility))
}

/// Attention of encoders inside every span, with everything rounded to `bf16`; `None` where that is not
/// faster, or the fast form does not apply.
pub(crate) fn rounded_attention(
    qkv: [&Tensor; 3],
    spans: &[Span],
    scale: f64,
) -> Result<Option<Tensor>> {
    match fast::fits(&qkv) {
        true => fast::rounded_attention(qkv, spans, scale),
        false => Ok(None),
    }
}

/// The gated convolution inside every span of `bcu (tokens, 3 * channels)`, from empty states, in the
/// learning form; `kernel` is `(channels, width)`. `None` where the form does not apply.
pub(crate) fn packed_short_conv(
    bcu: &Tensor,
    kernel: &Tensor,
    bias: Option<&Tensor>,
    spans: &[Span],
    window: Window,
) -> Option<Result<Tensor>> {
    let tensors: Vec<&Tensor> = [bcu, kernel].into_iter().chain(bias).collect();
    learn::fits(&tensors).then(|| learn::short_conv(bcu, kernel, bias, spans, window))
}

/// The gated convolution inside every span of `bcu (tokens, 3 * channels)`, from empty states, in its
/// fast form; `None` where there is none.
pub(crate) fn packed_short_conv_fast(
    bcu: &Tensor,
    kernel: &ConvKernel,
    spans: &[Span],
    window: Window,
) -> Option<Result<Tensor>> {
    fast::fits(&[bcu]).then(|| fast::packed_conv(bcu, kernel, spans, window))
}

/// Prepares a convolution kernel `(channels, width)` for the fast form, where there is one.
pub(crate) fn conv_kernel(kernel: &Tensor, bias: Option<&Tensor>) -> Result<Option<ConvKernel>> {
    let tensors: Vec<&Tensor> = std::iter::once(kernel).chain(bias).collect();
    if fast::fits(&tensors) {
        fast::conv_kernel(kernel, bias).map(Some)
    } else {
        Ok(None)
    }
}

/// The gated causal convolution of one segment `bcu (len, 3 * channels)` in its fast form, from
/// `state`, which is moved on. `None` where there is no fast form.
pub(crate) fn short_conv(
    bcu: &Tensor,
    kernel: &ConvKernel,
    state: &mut Tensor,
) -> Option<Result<Tensor>> {
    fast::fits(&[bcu, state]).then(|| {
        let (y, moved) = fast::short_conv(bcu, kernel, state)?;
        *state = moved;
        Ok(y)
    })
}

/// The gated centred convolution of one segment in its fast form; `None` where there is none.
pub(crate) fn short_conv_centred(bcu: &Tensor, kernel: &ConvKernel) -> Option<Result<Tensor>> {
    fast::fits(&[bcu]).then(|| fast::short_conv_centred(bcu, kernel))
}

/// `x + w2(silu(w1 n) * w3 n)` with `n = norm(x)`, as one operation of the learning form; `None` where
/// that does not apply.
pub(crate) fn feed_forward_layer(
    x: &Tensor,
    norm: Norm<'_>,
    weights: [&Tensor; 3],
) -> Option<Result<Tensor>> {
    let [w1, w2, w3] = weights;
    learn::fits(&[x, norm.weight, w1, w2, w3]).then(|| learn::feed_forward(x, norm, weights))
}

/// `x + out(C * conv(B * u))` with `[B, C, u] = in(norm(x))` inside every span, from empty states, as one
/// operation of the learning form; `None` where that does not apply.
pub(crate) fn conv_layer(
    x: &Tensor,
    norm: Norm<'_>,
    weights: ConvWeights<'_>,
    spans: &[Span],
    window: Window,
) -> Option<Result<Tensor>> {
    let ConvWeights {
        input,
        kernel,
        output,
    } = weights;
    learn::fits(&[x, norm.weight, input, kernel, output])
        .then(|| learn::conv_layer(x, norm, weights, spans, window))
}

/// `x` plus the output of an attention layer of `norm(x)`, inside every span, as one operation of the
/// learning form; `None` where that does not apply.
pub(crate) fn attention_layer(
    x: &Tensor,
    norm: Norm<'_>,
    weights: AttentionWeights<'_>,
    core: Attention,
    places: (&RopeTable, &[Span]),
) -> Option<Result<Tensor>> {
    let [q, k, v] = weights.inputs;
    let norms = [norm.weight, weights.q_norm.weight, weights.k_norm.weight];
    let all = [&[x, q, k, v, weights.output][..], &norms].concat();
    learn::fits(&all).then(|| learn::attention_layer(x, norm, weights, core, places))
}
