//! Attention inside every segment of a packed matrix.

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor};
use lfm2_kernels as kernels;

use super::{
    Matrix, add_product_tn, isa, multiply_nn, multiply_nt, operand, result, tensor_like, view,
};
use crate::attention::Visibility;
use crate::pass::Span;

/// `q (tokens, heads, d)`, `k` and `v (tokens, kv_heads, d)`; `(tokens, heads, d)`. The tokens of a
/// span see those of the same span only.
pub(in crate::ops) fn attention(
    [q, k, v]: [&Tensor; 3],
    spans: &[Span],
    scale: f64,
    visibility: Visibility,
) -> Result<Tensor> {
    let (_, heads, dim) = q.dims3()?;
    let op = Attention {
        spans: spans.to_vec(),
        heads,
        kv_heads: k.dim(1)?,
        dim,
        scale: scale as f32,
        visibility,
    };
    q.contiguous()?
        .apply_op3(&k.contiguous()?, &v.contiguous()?, op)
}

struct Attention {
    spans: Vec<Span>,
    heads: usize,
    kv_heads: usize,
    dim: usize,
    scale: f32,
    visibility: Visibility,
}

/// One head of one segment: where its numbers begin in the packed queries and keys.
struct Head {
    len: usize,
    /// Tokens that are attended to.
    keys: usize,
    q: usize,
    kv: usize,
}

impl Attention {
    fn heads(&self) -> impl Iterator<Item = Head> {
        let group = self.heads / self.kv_heads;
        let heads = self
            .spans
            .iter()
            .flat_map(|span| (0..self.heads).map(move |head| (span, head)));
        heads.map(move |(span, head)| Head {
            len: span.len,
            keys: span.keys,
            q: (span.start * self.heads + head) * self.dim,
            kv: (span.start * self.kv_heads + head / group) * self.dim,
        })
    }

    /// The part of packed queries (or outputs) that belongs to `head`.
    fn queries<'a>(&self, values: &'a [f32], head: &Head) -> Matrix<'a> {
        Matrix::strided(&values[head.q..], head.len, self.dim, self.heads * self.dim)
    }

    /// The part of packed keys (or values) that belongs to `head`.
    fn keys<'a>(&self, values: &'a [f32], head: &Head) -> Matrix<'a> {
        Matrix::strided(
            &values[head.kv..],
            head.len,
            self.dim,
            self.kv_heads * self.dim,
        )
    }

    /// The attention weights `(len, len)`; 0 where a query does not see a key.
    fn weights(&self, q: &[f32], k: &[f32], head: &Head) -> Result<Vec<f32>> {
        let (isa, len) = (isa()?, head.len);
        let mut weights = vec![0.0; len * len];
        multiply_nt(self.queries(q, head), self.keys(k, head), &mut weights, len)?;
        for (query, row) in weights.chunks_exact_mut(len).enumerate() {
            let (first, end) = match self.visibility {
                Visibility::Causal => (0, query + 1),
                Visibility::Sliding { window } => ((query + 1).saturating_sub(window), query + 1),
                Visibility::Bidirectional => (0, len),
            };
            let (first, end) = (first.min(head.keys), end.min(head.keys));
            let seen = &mut row[first..end];
            seen.iter_mut().for_each(|s| *s *= self.scale);
            kernels::softmax(isa, seen);
            row[..first].fill(0.0);
            row[end..].fill(0.0);
        }
        Ok(weights)
    }

    /// Gradients of one head, added to `dk` and `dv`, which several query heads share.
    fn head_backward(
        &self,
        head: &Head,
        operands: &Operands<'_>,
        grads: &mut Gradients,
    ) -> Result<()> {
        let Operands { q, k, v, dy } = *operands;
        let len = head.len;
        let mut p = self.weights(q, k, head)?;
        let dy = self.queries(dy, head);
        let kv_stride = self.kv_heads * self.dim;
        let dv = &mut grads.dv[head.kv..];
        add_product_tn(Matrix::new(&p, len, len), dy, dv, kv_stride)?;

        // dp = dy vᵀ, then in place of p: ds = p (dp - sum(dp p)) scale.
        let mut dp = vec![0.0; len * len];
        multiply_nt(dy, self.keys(v, head), &mut dp, len)?;
        for (p, dp) in p.chunks_exact_mut(len).zip(dp.chunks_exact(len)) {
            let mean: f32 = p.iter().zip(dp).map(|(p, dp)| p * dp).sum();
            for (p, dp) in p.iter_mut().zip(dp) {
                *p *= (dp - mean) * self.scale;
            }
        }
        let ds = Matrix::new(&p, len, len);
        let dq = &mut grads.dq[head.q..];
        multiply_nn(ds, self.keys(k, head), dq, self.heads * self.dim)?;
        let dk = &mut grads.dk[head.kv..];
        add_product_tn(ds, self.queries(q, head), dk, kv_stride)
    }
}

#[derive(Clone, Copy)]
struct Operands<'a> {
    q: &'a [f32],
    k: &'a [f32],
    v: &'a [f32],
    dy: &'a [f32],
}

struct Gradients {
    dq: Vec<f32>,
    dk: Vec<f32>,
    dv: Vec<f32>,
}

impl CustomOp3 for Attention {
    fn name(&self) -> &'static str {
        "packed-attention"
    }

    fn cpu_fwd(
        &self,
        q: &CpuStorage,
        q_layout: &Layout,
        k: &CpuStorage,
        k_layout: &Layout,
        v: &CpuStorage,
        v_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (q, k, v) = (
            operand(q, q_layout)?,
            operand(k, k_layout)?,
            operand(v, v_layout)?,
        );
        let mut y = vec![0.0; q.len()];
        for head in self.heads() {
            let weights = self.weights(q, k, &head)?;
            let weights = Matrix::new(&weights, head.len, head.len);
            let y = &mut y[head.q..];
            multiply_nn(weights, self.keys(v, &head), y, self.heads * self.dim)?;
        }
        result(y, q_layout.shape().clone())
    }

    /// The weights are computed again rather than kept: they would be the largest tensors of all.
    fn bwd(
        &self,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        _y: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let dy = dy.contiguous()?;
        let views = [q, k, v, &dy].map(view);
        let operands = Operands {
            q: views[0].slice()?,
            k: views[1].slice()?,
            v: views[2].slice()?,
            dy: views[3].slice()?,
        };
        let zeros = |like: &[f32]| vec![0.0; like.len()];
        let mut grads = Gradients {
            dq: zeros(operands.q),
            dk: zeros(operands.k),
            dv: zeros(operands.v),
        };
        for head in self.heads() {
            self.head_backward(&head, &operands, &mut grads)?;
        }
        Ok((
            Some(tensor_like(grads.dq, q)?),
            Some(tensor_like(grads.dk, k)?),
            Some(tensor_like(grads.dv, v)?),
        ))
    }
}
