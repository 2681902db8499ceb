//! The plain forms: every device, every float type, with gradients.
//!
//! Candle's fused `rms_norm`, `softmax_last_dim` and `rope` have no backward pass and say nothing
//! about it, so they are not used here.

use candle_core::{D, DType, Result, Tensor};

use super::Mask;
use crate::attention::Visibility;
use crate::rope::RopeTable;

pub(super) fn matmul_t(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    let weight = weight.to_dtype(x.dtype())?;
    x.contiguous()?.matmul(&weight.t()?)
}

pub(super) fn rms_norm(x: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor> {
    let wide = x.to_dtype(DType::F32)?;
    let mean = wide.sqr()?.mean_keepdim(D::Minus1)?;
    let normed = wide.broadcast_div(&(mean + eps)?.sqrt()?)?;
    normed.to_dtype(x.dtype())?.broadcast_mul(weight)
}

pub(super) fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<Tensor> {
    let wide = x.to_dtype(DType::F32)?;
    let centred = wide.broadcast_sub(&wide.mean_keepdim(D::Minus1)?)?;
    let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
    let normed = centred.broadcast_div(&(variance + eps)?.sqrt()?)?;
    normed
        .to_dtype(x.dtype())?
        .broadcast_mul(weight)?
        .broadcast_add(bias)
}

pub(super) fn rope(x: &Tensor, table: &RopeTable) -> Result<Tensor> {
    let half = x.dim(D::Minus1)? / 2;
    let (a, b) = (
        x.narrow(D::Minus1, 0, half)?,
        x.narrow(D::Minus1, half, half)?,
    );
    let (cos, sin) = (&table.cos, &table.sin);
    let first = (a.broadcast_mul(cos)? - b.broadcast_mul(sin)?)?;
    let second = (b.broadcast_mul(cos)? + a.broadcast_mul(sin)?)?;
    Tensor::cat(&[first, second], D::Minus1)
}

pub(super) fn silu_mul(gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    gate.silu()? * up
}

pub(super) fn attention(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    scale: f64,
    mask: Mask,
) -> Result<Tensor> {
    let (len, heads, dim) = q.dims3()?;
    let kv_heads = k.dim(0)?;
    let group = heads / kv_heads;
    let keys = |t: &Tensor| t.narrow(1, 0, mask.keys)?.contiguous()?.to_dtype(q.dtype());
    let (k, v) = (keys(k)?, keys(v)?);

    // Query heads that share keys are stacked, so keys are never copied per query head.
    let q = q
        .reshape((len, kv_heads, group, dim))?
        .permute((1, 2, 0, 3))?;
    let q = q.contiguous()?.reshape((kv_heads, group * len, dim))?;
    let scores = (q.matmul(&k.t()?)?.to_dtype(DType::F32)? * scale)?;
    let scores = scores.reshape((kv_heads, group, len, mask.keys))?;
    let scores = match mask.bias(len) {
        Some(bias) => {
            scores.broadcast_add(&Tensor::from_vec(bias, (1, 1, len, mask.keys), q.device())?)?
        }
        None => scores,
    };
    let weights = candle_nn::ops::softmax(&scores, D::Minus1)?.to_dtype(v.dtype())?;
    let mixed = weights
        .reshape((kv_heads, group * len, mask.keys))?
        .matmul(&v)?;
    let mixed = mixed
        .reshape((kv_heads, group, len, dim))?
        .permute((2, 0, 1, 3))?;
    mixed.contiguous()?.reshape((len, heads, dim))
}

impl Mask {
    /// Minus infinity where a query does not see a key, `(len, keys)`; `None` when all see all.
    fn bias(&self, len: usize) -> Option<Vec<f32>> {
        let sees = |query: usize, key: usize| match self.visibility {
            Visibility::Bidirectional => true,
            Visibility::Causal => key <= query,
            Visibility::Sliding { window } => key <= query && key + window > query,
        };
        let rows =
            (self.past..self.past + len).flat_map(|q| (0..self.keys).map(move |k| sees(q, k)));
        let mask: Vec<f32> = rows
            .map(|sees| if sees { 0.0 } else { f32::NEG_INFINITY })
            .collect();
        mask.iter().any(|&m| m != 0.0).then_some(mask)
    }
}
