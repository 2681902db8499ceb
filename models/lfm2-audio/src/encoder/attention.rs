//! Attention with relative positions, in the form of Transformer-XL.

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{D, DType, Device, Error, Result};
use lfm2_kernels::{MatRef, RelativeSpec, relative_attention};
use lfm2_nn::{Bias, Linear, Module, Tensor, Weights};

use super::pointwise::{plain, values};
use crate::EncoderConfig;

/// Queries that meet all keys at a time; bounds the memory of scores.
const BLOCK: usize = 256;

/// Steps of the longest clip whose projected distances are kept: 41 seconds, and 2 MB a layer of 512 values.
const KEPT: usize = 512;

/// Sine and cosine of all distances from `longest - 1` down to `1 - longest`, `(distances, width)`.
pub(super) struct Positions {
    longest: usize,
    table: Tensor,
}

impl Positions {
    pub(super) fn new(longest: usize, width: usize, dtype: DType, device: &Device) -> Result<Self> {
        let distances = (2 * longest).saturating_sub(1);
        let mut values = vec![0.0; distances * width];
        // From one distance to the next every angle grows by its frequency: a rotation, which is a fraction of the
        // work of a sine. It begins in the middle, so that a distance has the same values in every table.
        let step = |pair: usize| 10_000f64.powf(-2.0 * pair as f64 / width as f64).sin_cos();
        let steps: Vec<(f64, f64)> = (0..width / 2).map(step).collect();
        let mut angles = vec![(0.0, 1.0); steps.len()];
        for distance in 0..longest {
            for (pair, (sin, cos)) in angles.iter().enumerate() {
                let at = |row: usize| row * width + 2 * pair;
                let (before, behind) = (at(longest - 1 - distance), at(longest - 1 + distance));
                values[before..before + 2].copy_from_slice(&[*sin as f32, *cos as f32]);
                values[behind..behind + 2].copy_from_slice(&[-*sin as f32, *cos as f32]);
            }
            for ((sin, cos), (sin_step, cos_step)) in angles.iter_mut().zip(&steps) {
                let turned = *sin * cos_step + *cos * sin_step;
                (*sin, *cos) = (turned, *cos * cos_step - *sin * sin_step);
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
    /// What `position` makes of the distances of the longest clip so far, `(distances, width)`: a tenth of
    /// the layer's work, and the same for every clip.
    projected: Arc<Mutex<Option<Arc<[f32]>>>>,
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
            projected: Arc::default(),
        })
    }

    /// `(tokens, width)` to `(tokens, width)`; every clip of `steps` attends to itself.
    pub(super) fn forward(
        &self,
        x: &Tensor,
        steps: &[usize],
        positions: &Positions,
    ) -> Result<Tensor> {
        let qkv = Linear::forward_each([&self.q, &self.k, &self.v], x)?;
        let [q, k, v] = &qkv;
        let mixed = if plain(&[q, k, v, &self.bias_u, &self.bias_v]) && self.position.is_constant()
        {
            self.mix_values(&qkv, &self.projected(positions)?, steps)?
        } else {
            let p = self.position.forward(&positions.table)?;
            self.mix_tensors(&qkv, &p, steps, positions)?
        };
        self.out.forward(&mixed)
    }

    /// The projected distances of `positions`, or of more; with weights that do not change.
    fn projected(&self, positions: &Positions) -> Result<Arc<[f32]>> {
        let mut kept = self
            .projected
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let needed = positions.table.elem_count();
        if let Some(p) = kept.as_ref().filter(|p| p.len() >= needed) {
            return Ok(p.clone());
        }
        let p: Arc<[f32]> = values(&self.position.forward(&positions.table)?)?.into();
        if positions.longest <= KEPT {
            *kept = Some(p.clone());
        }
        Ok(p)
    }

    /// Everything between the projections, on plain values.
    fn mix_values(&self, qkv: &[Tensor; 3], p: &[f32], steps: &[usize]) -> Result<Tensor> {
        let (tokens, width) = qkv[0].dims2()?;
        let (u, v) = (values(&self.bias_u)?, values(&self.bias_v)?);
        let spec = RelativeSpec {
            heads: self.heads,
            scale: 1.0 / (self.head_dim as f32).sqrt(),
            content_bias: &u,
            position_bias: &v,
            context: self.context,
        };
        let distances = MatRef::new(p, p.len() / width.max(1), width).map_err(Error::wrap)?;
        let [q, k, v] = [values(&qkv[0])?, values(&qkv[1])?, values(&qkv[2])?];
        let mut mixed = vec![0.0; tokens * width];
        let mut start = 0;
        for len in steps.iter().filter(|len| **len > 0) {
            let own = start..start + len * width;
            let qkv = [&q[own.clone()], &k[own.clone()], &v[own.clone()]];
            relative_attention(crate::isa()?, qkv, distances, &spec, &mut mixed[own])
                .map_err(Error::wrap)?;
            start += len * width;
        }
        Tensor::from_vec(mixed, (tokens, width), qkv[0].device())
    }

    /// The same with Candle, for other devices and gradients.
    fn mix_tensors(
        &self,
        [q, k, v]: &[Tensor; 3],
        p: &Tensor,
        steps: &[usize],
        positions: &Positions,
    ) -> Result<Tensor> {
        let (q, k, v) = (self.by_head(q)?, self.by_head(k)?, self.by_head(v)?);
        let p = self.by_head(p)?;
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
                let scores = match self.mask(first, block, len, &scores)? {
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
        mixed.transpose(0, 1)?.contiguous()?.flatten_from(1)
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

    /// On plain values and with tensors, clips of several lengths, with and without a limited context.
    #[test]
    fn both_forms_mix_the_same() -> Result<()> {
        let (heads, head_dim) = (2, 6);
        let width = heads * head_dim;
        let random = |shape: &[usize]| Tensor::randn(0f32, 1., shape, &Device::Cpu);
        for context in [[None, None], [Some(3), Some(1)]] {
            let linear = || {
                let weight = lfm2_nn::Matrix::Dense(random(&[width, width])?);
                Linear::new(weight, None).map_err(Error::wrap)
            };
            let attention = Attention {
                heads,
                head_dim,
                context,
                q: linear()?,
                k: linear()?,
                v: linear()?,
                out: linear()?,
                position: linear()?,
                bias_u: random(&[heads, 1, head_dim])?,
                bias_v: random(&[heads, 1, head_dim])?,
                projected: Arc::default(),
            };
            let steps = [5, 1, 300];
            let positions = Positions::new(300, width, DType::F32, &Device::Cpu)?;
            let p = attention.position.forward(&positions.table)?;
            let tokens = steps.iter().sum::<usize>();
            let qkv = [
                random(&[tokens, width])?,
                random(&[tokens, width])?,
                random(&[tokens, width])?,
            ];
            let plain = attention.mix_values(&qkv, &values(&p)?, &steps)?;
            let tensors = attention.mix_tensors(&qkv, &p, &steps, &positions)?;
            let difference = (plain - tensors)?.abs()?.max_all()?.to_scalar::<f32>()?;
            assert!(difference < 1e-4, "{context:?}: {difference}");
        }
        Ok(())
    }

    /// Exactly, so that it does not matter which clips were heard before.
    #[test]
    fn a_distance_is_the_same_in_every_table() -> Result<()> {
        let table = |longest| Positions::new(longest, 10, DType::F32, &Device::Cpu);
        let (short, long) = (table(7)?.table, table(300)?.table);
        let inner = long.narrow(0, 293, 13)?;
        assert_eq!(inner.to_vec2::<f32>()?, short.to_vec2::<f32>()?);
        // Rows are sines and cosines of distances from the largest down.
        let row = short.get(1)?.to_vec1::<f32>()?;
        assert!((row[0] - 5f32.sin()).abs() < 1e-6 && (row[1] - 5f32.cos()).abs() < 1e-6);
        Ok(())
    }

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
