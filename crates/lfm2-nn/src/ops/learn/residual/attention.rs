//! The layer of grouped-query attention.

use candle_core::{Error, Result, Tensor};
use lfm2_kernels::profile::{Op, Work, span};
use lfm2_kernels::{self as kernels, Scratch, Sum};

use super::super::attention::{Attention, Gradients};
use super::super::many::{self, Layer};
use super::super::view;
use super::{
    Back, Forth, Group, Kept, Norm, Normed, groups, isa, lost, parts, tallest, weight_gradient,
};
use crate::pass::Span;
use crate::rope::RopeTable;

/// The weights of an attention layer.
#[derive(Clone, Copy)]
pub(crate) struct AttentionWeights<'a> {
    /// Of queries, keys and values.
    pub(crate) inputs: [&'a Tensor; 3],
    pub(crate) q_norm: Norm<'a>,
    pub(crate) k_norm: Norm<'a>,
    pub(crate) output: &'a Tensor,
}

/// `x + out(attend(rope(norm(q)), rope(norm(k)), v))` with projections `q`, `k` and `v` of `norm(x)`,
/// inside every span.
pub(in crate::ops) fn attention(
    x: &Tensor,
    norm: Norm<'_>,
    weights: AttentionWeights<'_>,
    core: Attention,
    (rope, spans): (&RopeTable, &[Span]),
) -> Result<Tensor> {
    let AttentionWeights {
        inputs: [q, k, v],
        q_norm,
        k_norm,
        output,
    } = weights;
    let layer = AttentionLayer {
        eps: [norm.eps as f32, q_norm.eps as f32, k_norm.eps as f32],
        hidden: x.dim(1)?,
        core,
        groups: groups(spans),
        rope: rope.clone(),
        kept: Kept::default(),
        weights: Kept::default(),
    };
    let norms = (norm.weight, q_norm.weight, k_norm.weight);
    many::apply(layer, x, &[norms.0, q, k, v, norms.1, norms.2, output])
}

struct AttentionLayer {
    /// Of the norms of the input, the queries and the keys.
    eps: [f32; 3],
    hidden: usize,
    core: Attention,
    groups: Vec<Group>,
    rope: RopeTable,
    /// Of every group of rows: queries and keys before their norms, values, and what attention made.
    kept: Kept,
    /// Of every group: the weights of attention, unless they are many.
    weights: Kept,
}

/// The most weights that are kept between the passes; more are computed again.
const MOST_WEIGHTS: usize = 1 << 22;

#[derive(Clone, Copy)]
enum Turn {
    Forth,
    /// By the negative angles: the gradient of a rotation.
    Back,
}

impl AttentionLayer {
    /// The widths of queries and of keys.
    fn widths(&self) -> (usize, usize) {
        (
            self.core.heads.query * self.core.heads.dim,
            self.core.heads.kv * self.core.heads.dim,
        )
    }

    /// The lengths of what is kept of so many rows.
    fn lens(&self, rows: usize) -> [usize; 4] {
        let (wide, narrow) = self.widths();
        [rows * wide, rows * narrow, rows * narrow, rows * wide]
    }

    fn kept_width(&self) -> usize {
        self.lens(1).iter().sum()
    }

    /// Turns the heads of a group's rows.
    fn rotate(&self, values: &mut [f32], heads: usize, group: &Group, turn: Turn) -> Result<()> {
        let _span = span(Op::RopeCache, &[heads, self.core.heads.dim], Work::NONE);
        let (cos, sin) = (view(&self.rope.cos), view(&self.rope.sin));
        let (cos, sin) = (cos.slice::<f32>()?, sin.slice::<f32>()?);
        let own = group.of(self.rope.cos.dim(2)?);
        let dim = self.core.heads.dim;
        let (cos, sin) = (&cos[own.clone()], &sin[own]);
        match turn {
            Turn::Forth => kernels::rope(isa()?, values, cos, sin, heads, dim),
            Turn::Back => {
                let sin: Vec<f32> = sin.iter().map(|x| -x).collect();
                kernels::rope(isa()?, values, cos, &sin, heads, dim)
            }
        }
        .map_err(Error::wrap)
    }

    /// The norms of queries and keys.
    fn norms<'a>(&self, [q, k]: [&'a [f32]; 2], [of_q, of_k]: [&'a [f32]; 2]) -> [Normed<'a>; 2] {
        let norm = |x, weight, eps| Normed { x, weight, eps };
        [norm(q, of_q, self.eps[1]), norm(k, of_k, self.eps[2])]
    }

    /// Queries and keys, normed and turned.
    fn turned(&self, norms: &[Normed<'_>; 2], out: [&mut [f32]; 2], group: &Group) -> Result<()> {
        let heads = [self.core.heads.query, self.core.heads.kv];
        for ((norm, out), heads) in norms.iter().zip(out).zip(heads) {
            norm.apply(out)?;
            self.rotate(out, heads, group, Turn::Forth)?;
        }
        Ok(())
    }
}

impl Layer for AttentionLayer {
    const NAME: &'static str = "attention-layer";

    fn forward(&self, x: &[f32], weights: &[&[f32]]) -> Result<Vec<f32>> {
        let hidden = self.hidden;
        let (wide, narrow) = self.widths();
        let &[weight, q, k, v, q_norm, k_norm, output] = weights else {
            return Err(lost());
        };
        let inputs = [
            Forth::new(q, hidden)?,
            Forth::new(k, hidden)?,
            Forth::new(v, hidden)?,
        ];
        let output = Forth::new(output, wide)?;
        let mut y = x.to_vec();
        let mut kept = Scratch::new(x.len() / hidden.max(1) * self.kept_width());
        let mut scratch = Scratch::new(tallest(&self.groups) * (hidden + wide + narrow));
        let each = self.groups.iter().map(|g| self.core.weights_len(&g.spans));
        let count = each.sum::<usize>();
        let mut weights = (count <= MOST_WEIGHTS).then(|| Scratch::new(count));
        let mut room = weights.as_deref_mut();
        for group in &self.groups {
            let count = group.rows.len();
            let [normed, q_turned, k_turned] =
                parts(&mut scratch, [count * hidden, count * wide, count * narrow]);
            let own = &mut kept[group.of(self.kept_width())];
            let [q, k, v, mixed] = parts(own, self.lens(count));
            let (x, eps) = (&x[group.of(hidden)], self.eps[0]);
            Normed { x, weight, eps }.apply(normed)?;
            for (projection, out) in inputs.iter().zip([&mut *q, &mut *k, &mut *v]) {
                projection.apply(normed, out, Sum::Replace)?;
            }
            let norms = self.norms([q, k], [q_norm, k_norm]);
            self.turned(&norms, [&mut *q_turned, &mut *k_turned], group)?;
            let own = room.take().map(|rest| {
                let (own, rest) = rest.split_at_mut(self.core.weights_len(&group.spans));
                room = Some(rest);
                own
            });
            let qkv = [&*q_turned, &*k_turned, &*v];
            self.core.forward(qkv, &group.spans, mixed, own)?;
            output.apply(mixed, &mut y[group.of(hidden)], Sum::Add)?;
        }
        *self.kept.lock() = Some(kept);
        *self.weights.lock() = weights;
        Ok(y)
    }

    fn backward(
        &self,
        x: &[f32],
        weights: &[&[f32]],
        dy: &[f32],
        dweights: &mut [Option<Vec<f32>>],
    ) -> Result<Vec<f32>> {
        let hidden = self.hidden;
        let (wide, narrow) = self.widths();
        let (
            &[weight, w_q, w_k, w_v, q_norm, k_norm, output],
            [dnorm, dw_q, dw_k, dw_v, dq_norm, dk_norm, doutput],
        ) = (weights, dweights)
        else {
            return Err(lost());
        };
        let mut kept = self.kept.lock();
        let kept = kept.as_mut().ok_or_else(lost)?;
        let weights = self.weights.lock();
        let mut rest = weights.as_deref();
        let (w_q, w_k, w_v) = (
            Back::new(w_q, hidden)?,
            Back::new(w_k, hidden)?,
            Back::new(w_v, hidden)?,
        );
        let output = Back::new(output, wide)?;
        let mut dx = dy.to_vec();
        let row = 2 * hidden + 4 * wide + 4 * narrow;
        let mut scratch = Scratch::new(tallest(&self.groups) * row);
        for group in &self.groups {
            let count = group.rows.len();
            let (own, head, kv) = (count * hidden, count * wide, count * narrow);
            let lens = [own, own, head, kv, head, kv, kv, head, head, kv];
            let [
                normed,
                dnormed,
                q_turned,
                k_turned,
                dq_turned,
                dk_turned,
                dv,
                dmixed,
                dq,
                dk,
            ] = parts(&mut scratch, lens);
            let [q, k, v, mixed] = parts(&mut kept[group.of(self.kept_width())], self.lens(count));
            let (x, dy) = (&x[group.of(hidden)], &dy[group.of(hidden)]);
            let eps = self.eps[0];
            let norm = Normed { x, weight, eps };
            norm.apply(normed)?;
            let norms = self.norms([q, k], [q_norm, k_norm]);
            self.turned(&norms, [&mut *q_turned, &mut *k_turned], group)?;

            output.apply(dy, dmixed, Sum::Replace)?;
            weight_gradient(dy, mixed, count, doutput)?;
            let grads = Gradients {
                dq: &mut *dq_turned,
                dk: &mut *dk_turned,
                dv: &mut *dv,
            };
            let operands = [&*q_turned, &*k_turned, &*v];
            let own = rest.map(|all| {
                let (own, behind) = all.split_at(self.core.weights_len(&group.spans));
                rest = Some(behind);
                own
            });
            self.core
                .backward(operands, dmixed, &group.spans, own, grads)?;
            self.rotate(dq_turned, self.core.heads.query, group, Turn::Back)?;
            self.rotate(dk_turned, self.core.heads.kv, group, Turn::Back)?;
            norms[0].backward(dq_turned, dq, Sum::Replace, dq_norm)?;
            norms[1].backward(dk_turned, dk, Sum::Replace, dk_norm)?;

            for (dy, dweight) in [(&*dq, &mut *dw_q), (&*dk, &mut *dw_k), (&*dv, &mut *dw_v)] {
                weight_gradient(dy, normed, count, dweight)?;
            }
            w_q.apply(dq, dnormed, Sum::Replace)?;
            w_k.apply(dk, dnormed, Sum::Add)?;
            w_v.apply(dv, dnormed, Sum::Add)?;
            norm.backward(dnormed, &mut dx[group.of(hidden)], Sum::Add, dnorm)?;
        }
        Ok(dx)
    }
}
