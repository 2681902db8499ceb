//! Attention with relative positions, in the form of Transformer-XL.

use candle_core::{D, DType, Device, Result};
use lfm2_nn::{Bias, Linear, Module, Tensor, Weights};

use crate::EncoderConfig;

/// Queries that meet all keys at a time; bounds the memory of scores.
const BLOCK: usize = 256;

/// Sine and cosine of all distances from `longest - 1` down to `1 - longest`, `(distances, width)`.
pub(super) struct Positions {
    longest: usize,
    table: Tensor,
}

impl Positions {
    pub(super) fn new(longest: usize, width: usize, dtype: DType, device: &Device) -> Result<Self> {
        let distances = (2 * longest).saturating_sub(1);
        let mut values = Vec::with_capacity(distances * width);
        let frequency = |pair: usize| 10_000f64.powf(-2.0 * pair as f64 / width as f64);
        let begin = |pair: usize| {
            let frequency = frequency(pair);
            let angle = (longest as f64 - 1.0) * frequency;
            (angle.sin_cos(), frequency.sin_cos())
        };
        // From one distance to the next every angle falls by its frequency: a rotation, which is a fraction of the
        // work of a sine.
        let mut pairs: Vec<_> = (0..width / 2).map(begin).collect();
        for _ in 0..distances {
            for ((sin, cos), step) in &mut pairs {
                values.extend([*sin as f32, *cos as f32]);
                (*sin, *cos) = (*sin * step.1 - *cos * step.0, *cos * step.1 + *sin * step.0);
            }
        }
        let table = Tensor::from_vec(values, (distances, width), device)?.to_dtype(dtype)?;
        Ok(Self { longest, table })
    }
}

/// `softmax(((q + u) k + (q + v) p) / sqrt(d)) v`, where `p` belongs to the distance of query and key.
#[derive(Debug, Clone)]
pub(super) struct Attention {
    heads: usize,
    head_dim: usize,
    context: [Option<usize>; 2],
    q: Linear,
    k: Linear,
    v: Linear,
    out: Linear,
    position: Linear,
    /// `(heads, 1, head_dim)` each.
    bias_u: Tensor,
    bias_v: Tensor,
}

impl Attention {
    pub(super) fn load(config: &EncoderConfig, weights: &Weights) -> lfm2_hub::Result<Self> {
        let (width, heads) = (config.width, config.heads);
        let head_dim = width / heads;
        let linear = |name: &str| weights.pp(name).linear(width, width, Bias::With);
        let bias = |name: &str| -> lfm2_hub::Result<Tensor> {
            Ok(weights.tensor(name, &[heads, head_dim])?.unsqueeze(1)?)
        };
        Ok(Self {
            heads,
            head_dim,
            context: config.context,
            q: linear("linear_q")?,
            k: linear("linear_k")?,
            v: linear("linear_v")?,
            out: linear("linear_out")?,
            position: weights
                .pp("linear_pos")
                .linear(width, width, Bias::Without)?,
            bias_u: bias("pos_bias_u")?,
            bias_v: bias("pos_bias_v")?,
        })
    }

    /// `(tokens, width)` to `(tokens, width)`; every clip of `steps` attends to itself.
    pub(super) fn forward(
        &self,
        x: &Tensor,
        steps: &[usize],
        positions: &Positions,
    ) -> Result<Tensor> {
        let [q, k, v] = Linear::forward_each([&self.q, &self.k, &self.v], x)?;
        let (q, k, v) = (self.by_head(&q)?, self.by_head(&k)?, self.by_head(&v)?);
        let p = self.by_head(&self.position.forward(&positions.table)?)?;
        let (content, relative) = (
            q.broadcast_add(&self.bias_u)?,
            q.broadcast_add(&self.bias_v)?,
        );
        let mut mixed = Vec::new();
        let mut start = 0;
        for &len in steps {
            let own = |t: &Tensor| t.narrow(1, start, len)?.contiguous();
            let (k, v) = (own(&k)?.transpose(1, 2)?, own(&v)?);
            for first in (0..len).step_by(BLOCK) {
                let block = BLOCK.min(len - first);
                let queries = |t: &Tensor| t.narrow(1, start + first, block)?.contiguous();
                // Distances from the last query to the first key, down to the first query to the last.
                let nearest = positions.longest - (first + block);
                let p = p.narrow(1, nearest, block + len - 1)?.contiguous()?;
                let relative = queries(&relative)?.matmul(&p.transpose(1, 2)?)?;
                let scores = (queries(&content)?.matmul(&k)? + shift(&relative, len)?)?;
                let scores = (scores / (self.head_dim as f64).sqrt())?;
                let scores = match self.mask(first, block, len, x)? {
                    Some(mask) => scores.broadcast_add(&mask)?,
                    None => scores,
                };
                mixed.push(softmax(&scores)?.matmul(&v)?);
            }
            start += len;
        }
        let mixed = match &mixed[..] {
            [whole] => whole.clone(),
            _ => Tensor::cat(&mixed, 1)?,
        };
        let mixed = mixed.transpose(0, 1)?.contiguous()?.flatten_from(1)?;
        self.out.forward(&mixed)
    }

    /// `(tokens, width)` to `(heads, tokens, head_dim)`.
    fn by_head(&self, x: &Tensor) -> Result<Tensor> {
        x.reshape((x.dim(0)?, self.heads, self.head_dim))?
            .transpose(0, 1)?
            .contiguous()
    }

    /// Minus infinity where a query does not see a key, `(queries, keys)`.
    fn mask(
        &self,
        first: usize,
        block: usize,
        len: usize,
        like: &Tensor,
    ) -> Result<Option<Tensor>> {
        let [left, right] = self.context;
        if left.is_none() && right.is_none() {
            return Ok(None);
        }
        let sees = |query: usize, key: usize| {
            left.is_none_or(|left| key + left >= query)
                && right.is_none_or(|right| key <= query + right)
        };
        let values = (first..first + block).flat_map(|query| {
            (0..len).map(move |key| {
                if sees(query, key) {
                    0.0
                } else {
                    f32::NEG_INFINITY
                }
            })
        });
        let mask = Tensor::from_iter(values, like.device())?;
        Ok(Some(mask.reshape((block, len))?.to_dtype(like.dtype())?))
    }
}

/// Row `i` of `(heads, queries, distances)` begins with the distance of the last query to the first
/// key; moved so that column `j` is the distance of query `i` to key `j`.
///
/// One row further down, a key is one column further right: the same values in order, read in rows
/// that are one shorter.
fn shift(x: &Tensor, keys: usize) -> Result<Tensor> {
    let (heads, queries, distances) = x.dims3()?;
    if distances == 1 {
        return Ok(x.clone());
    }
    x.contiguous()?
        .flatten_from(1)?
        .narrow(1, queries - 1, queries * (distances - 1))?
        .contiguous()?
        .reshape((heads, queries, distances - 1))?
        .narrow(2, 0, keys)?
        .contiguous()
}

/// Softmax over the last dimension. Candle's fused one has no backward pass.
fn softmax(scores: &Tensor) -> Result<Tensor> {
    if scores.track_op() {
        candle_nn::ops::softmax(scores, D::Minus1)
    } else {
        candle_nn::ops::softmax_last_dim(scores)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shifted_columns_are_keys() -> Result<()> {
        // Two queries (positions 3 and 4 of 5) and five keys: each value is its own distance.
        let distances: Vec<f32> = (0..6).map(|i| 4.0 - i as f32).collect();
        let rows = Tensor::new(distances.as_slice(), &Device::Cpu)?.repeat((1, 2, 1))?;
        let found = shift(&rows, 5)?.to_vec3::<f32>()?;
        assert_eq!(found[0][0], [3., 2., 1., 0., -1.]);
        assert_eq!(found[0][1], [4., 3., 2., 1., 0.]);
        Ok(())
    }

    #[test]
    fn one_query_and_one_key_need_no_shift() -> Result<()> {
        let one = Tensor::new(&[[[7f32]]], &Device::Cpu)?;
        assert_eq!(shift(&one, 1)?.to_vec3::<f32>()?, [[[7.]]]);
        Ok(())
    }
}
