//! Attention inside every segment of a packed matrix.

use std::ops::Range;

use candle_core::{CpuStorage, CustomOp3, Error, Layout, Result, Shape, Tensor, bail};
use lfm2_kernels::gradients::softmax_gradient;
use lfm2_kernels::profile::{self, Op, Work};
use lfm2_kernels::{self as kernels, Scratch, Sum};

use super::{Matrix, add_product_tn, isa, multiply_nn, operand, result, tensor_like, view};
use crate::attention::Visibility;
use crate::ops::fast::Heads;
use crate::pass::Span;

/// Queries whose weights are there at the same time: few, so that under a causal mask little is computed
/// that nobody sees. A multiple of the height of a register tile.
const QUERIES: usize = 48;

/// `q (tokens, heads, d)`, `k` and `v (tokens, kv_heads, d)`; `(tokens, heads, d)`. The tokens of a
/// span see those of the same span only.
pub(in crate::ops) fn attention(
    [q, k, v]: [&Tensor; 3],
    spans: &[Span],
    scale: f64,
    visibility: Visibility,
) -> Result<Tensor> {
    let ((_, query, dim), kv) = (q.dims3()?, k.dim(1)?);
    let op = Packed {
        spans: spans.to_vec(),
        core: Attention {
            heads: Heads { query, kv, dim },
            scale: scale as f32,
            visibility,
        },
    };
    q.contiguous()?
        .apply_op3(&k.contiguous()?, &v.contiguous()?, op)
}

/// Attention inside segments: of `q (tokens, heads, d)` to `k` and `v (tokens, kv_heads, d)`.
#[derive(Clone, Copy)]
pub(crate) struct Attention {
    pub(crate) heads: Heads,
    pub(crate) scale: f32,
    pub(crate) visibility: Visibility,
}

/// Where the gradients go; `dq` like `q`, `dk` like `k`, `dv` like `v`.
pub(super) struct Gradients<'a> {
    pub(super) dq: &'a mut [f32],
    pub(super) dk: &'a mut [f32],
    pub(super) dv: &'a mut [f32],
}

/// What the gradients of a block follow from.
struct Operands<'a> {
    q: &'a [f32],
    k: &'a [f32],
    /// The values of the head, `(d, len)`.
    v_across: &'a [f32],
    /// The block's attention weights.
    p: &'a [f32],
    dy: &'a [f32],
}

/// One head of one segment: where its numbers begin in the packed queries and keys.
#[derive(Clone, Copy)]
struct Head {
    len: usize,
    /// Tokens that are attended to.
    keys: usize,
    q: usize,
    kv: usize,
}

/// Some queries of a segment, and the keys that any of them sees.
struct Block {
    queries: Range<usize>,
    keys: Range<usize>,
}

impl Block {
    /// How many weights it has.
    fn size(&self) -> usize {
        self.queries.len() * self.keys.len()
    }
}

impl Attention {
    fn timed(&self) -> profile::Span {
        let Heads { query, kv, dim } = self.heads;
        profile::span(Op::Attention, &[query, kv, dim], Work::NONE)
    }

    /// Every head that has keys of its own, with the heads that share them.
    fn heads(&self, spans: &[Span]) -> impl Iterator<Item = (usize, Vec<Head>)> {
        let Heads {
            query: heads,
            kv: kv_heads,
            dim,
        } = self.heads;
        let group = heads / kv_heads;
        let each = spans
            .iter()
            .flat_map(move |span| (0..kv_heads).map(move |kv| (*span, kv)));
        each.map(move |(span, kv_head)| {
            let kv = (span.start * kv_heads + kv_head) * dim;
            let head = |head| Head {
                len: span.len,
                keys: span.keys,
                q: (span.start * heads + head) * dim,
                kv,
            };
            let shared = (kv_head * group..(kv_head + 1) * group).map(head);
            (span.len, shared.collect())
        })
    }

    /// The keys that a query sees.
    fn seen(&self, query: usize, head: &Head) -> Range<usize> {
        let (first, end) = match self.visibility {
            Visibility::Causal => (0, query + 1),
            Visibility::Sliding { window } => ((query + 1).saturating_sub(window), query + 1),
            Visibility::Bidirectional => (0, head.len),
        };
        first.min(head.keys)..end.min(head.keys)
    }

    fn blocks(&self, head: &Head) -> impl Iterator<Item = Block> {
        let (own, head) = (*self, *head);
        (0..head.len).step_by(QUERIES).map(move |start| {
            let queries = start..(start + QUERIES).min(head.len);
            let keys = own.seen(start, &head).start..own.seen(queries.end - 1, &head).end;
            Block { queries, keys }
        })
    }

    /// The rows `rows` of a head in packed queries (or outputs).
    fn queries<'a>(&self, values: &'a [f32], head: &Head, rows: &Range<usize>) -> Matrix<'a> {
        let stride = self.heads.query * self.heads.dim;
        Matrix::strided(
            &values[head.q + rows.start * stride..],
            rows.len(),
            self.heads.dim,
            stride,
        )
    }

    /// The rows `rows` of a head in packed keys (or values).
    fn keys<'a>(&self, values: &'a [f32], head: &Head, rows: &Range<usize>) -> Matrix<'a> {
        let stride = self.heads.kv * self.heads.dim;
        // Without a row the part may begin behind the last value.
        let start = (head.kv + rows.start * stride).min(values.len());
        Matrix::strided(&values[start..], rows.len(), self.heads.dim, stride)
    }

    /// The keys (or values) of a head as `(d, len)`.
    fn across(&self, values: &[f32], head: &Head) -> Scratch {
        let mut across = Scratch::new(head.len * self.heads.dim);
        self.keys(values, head, &(0..head.len))
            .transpose_into(&mut across);
        across
    }

    /// The products of a block's queries with its keys, both as `queries` and `across` say.
    fn products(
        &self,
        queries: Matrix<'_>,
        across: &[f32],
        head: &Head,
        block: &Block,
        out: &mut [f32],
    ) -> Result<()> {
        let columns = &across[block.keys.start.min(across.len())..];
        let columns = Matrix::strided(columns, self.heads.dim, block.keys.len(), head.len);
        multiply_nn(queries, columns, out, block.keys.len(), Sum::Replace)
    }

    /// The attention weights of a block, `(queries, keys)`; 0 where a query does not see a key.
    fn weights(
        &self,
        q: &[f32],
        k_across: &[f32],
        head: &Head,
        block: &Block,
        out: &mut [f32],
    ) -> Result<()> {
        let (isa, width) = (isa()?, block.keys.len());
        self.products(
            self.queries(q, head, &block.queries),
            k_across,
            head,
            block,
            out,
        )?;
        if width == 0 {
            return Ok(());
        }
        for (query, row) in block.queries.clone().zip(out.chunks_exact_mut(width)) {
            let seen = self.seen(query, head);
            let (first, end) = (seen.start - block.keys.start, seen.end - block.keys.start);
            kernels::scaled_softmax(isa, &mut row[first..end], self.scale);
            row[..first].fill(0.0);
            row[end..].fill(0.0);
        }
        Ok(())
    }

    /// How many weights the blocks of all heads have.
    pub(super) fn weights_len(&self, spans: &[Span]) -> usize {
        let heads = self.heads(spans).flat_map(|(_, heads)| heads);
        let of = |head: Head| self.blocks(&head).map(|block| block.size()).sum::<usize>();
        heads.map(of).sum()
    }

    /// Fills `y` like `q`, and `kept`, if there is room, with the weights of all blocks for the backward pass.
    pub(super) fn forward(
        &self,
        [q, k, v]: [&[f32]; 3],
        spans: &[Span],
        y: &mut [f32],
        mut kept: Option<&mut [f32]>,
    ) -> Result<()> {
        let _span = self.timed();
        let stride = self.heads.query * self.heads.dim;
        for (len, heads) in self.heads(spans) {
            let Some(first) = heads.first() else { continue };
            let k_across = self.across(k, first);
            let mut scratch = Scratch::new(QUERIES * len);
            for (head, block) in self.each_block(&heads) {
                let weights = match kept.take() {
                    Some(rest) => {
                        let (own, rest) = rest.split_at_mut(block.size());
                        kept = Some(rest);
                        own
                    }
                    None => &mut scratch[..block.size()],
                };
                self.weights(q, &k_across, &head, &block, weights)?;
                let weights = Matrix::new(weights, block.queries.len(), block.keys.len());
                let y = &mut y[head.q + block.queries.start * stride..];
                let v = self.keys(v, &head, &block.keys);
                multiply_nn(weights, v, y, stride, Sum::Replace)?;
            }
        }
        Ok(())
    }

    fn each_block(&self, heads: &[Head]) -> Vec<(Head, Block)> {
        let of = |head: &Head| {
            let head = *head;
            self.blocks(&head)
                .map(move |block| (head, block))
                .collect::<Vec<_>>()
        };
        heads.iter().flat_map(of).collect()
    }

    /// The gradients of [`forward`](Self::forward) where its result has `dy`. Without the weights that it
    /// kept, they are computed again.
    pub(super) fn backward(
        &self,
        qkv: [&[f32]; 3],
        dy: &[f32],
        spans: &[Span],
        mut kept: Option<&[f32]>,
        mut grads: Gradients<'_>,
    ) -> Result<()> {
        let _span = self.timed();
        grads.dk.fill(0.0);
        grads.dv.fill(0.0);
        for (len, heads) in self.heads(spans) {
            let Some(first) = heads.first() else { continue };
            let v_across = self.across(qkv[2], first);
            let k_across = kept.is_none().then(|| self.across(qkv[1], first));
            let mut buffers = Scratch::new(2 * QUERIES * len);
            for (head, block) in self.each_block(&heads) {
                let (again, rest) = buffers.split_at_mut(block.size());
                let weights = match (&mut kept, &k_across) {
                    (Some(rest), _) => {
                        let (own, behind) = rest.split_at(block.size());
                        *rest = behind;
                        own
                    }
                    (None, Some(across)) => {
                        self.weights(qkv[0], across, &head, &block, again)?;
                        &*again
                    }
                    (None, None) => bail!("attention without its weights"),
                };
                let slopes = &mut rest[..block.size()];
                let operands = Operands {
                    q: qkv[0],
                    k: qkv[1],
                    v_across: &v_across,
                    p: weights,
                    dy,
                };
                self.block_backward(&head, &block, &operands, slopes, &mut grads)?;
            }
        }
        Ok(())
    }

    /// The gradients of a block, added to `dk` and `dv`, which several blocks and heads share.
    fn block_backward(
        &self,
        head: &Head,
        block: &Block,
        operands: &Operands<'_>,
        slopes: &mut [f32],
        grads: &mut Gradients<'_>,
    ) -> Result<()> {
        let Operands {
            q,
            k,
            v_across,
            p,
            dy,
        } = *operands;
        let (rows, keys) = (block.queries.len(), block.keys.len());
        let stride = self.heads.query * self.heads.dim;
        let kv_stride = self.heads.kv * self.heads.dim;
        let at = (head.kv + block.keys.start * kv_stride).min(grads.dv.len());
        let dy = self.queries(dy, head, &block.queries);
        let dv = &mut grads.dv[at..];
        add_product_tn(Matrix::new(p, rows, keys), dy, dv, kv_stride)?;

        // dp = dy vᵀ, then in its place: ds = p (dp - sum(dp p)) scale.
        self.products(dy, v_across, head, block, slopes)?;
        if keys > 0 {
            let isa = isa()?;
            for (p, dp) in p.chunks_exact(keys).zip(slopes.chunks_exact_mut(keys)) {
                softmax_gradient(isa, p, dp, self.scale).map_err(Error::wrap)?;
            }
        }
        let ds = Matrix::new(slopes, rows, keys);
        let dq = &mut grads.dq[head.q + block.queries.start * stride..];
        multiply_nn(
            ds,
            self.keys(k, head, &block.keys),
            dq,
            stride,
            Sum::Replace,
        )?;
        let q = self.queries(q, head, &block.queries);
        add_product_tn(ds, q, &mut grads.dk[at..], kv_stride)
    }
}

struct Packed {
    spans: Vec<Span>,
    core: Attention,
}

impl CustomOp3 for Packed {
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
        let q = operand(q, q_layout)?;
        let qkv = [q, operand(k, k_layout)?, operand(v, v_layout)?];
        let mut y = vec![0.0; q.len()];
        self.core.forward(qkv, &self.spans, &mut y, None)?;
        result(y, q_layout.shape().clone())
    }

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
        let qkv = [views[0].slice()?, views[1].slice()?, views[2].slice()?];
        let [mut dq, mut dk, mut dv] = qkv.map(|like| vec![0.0; like.len()]);
        let grads = Gradients {
            dq: &mut dq,
            dk: &mut dk,
            dv: &mut dv,
        };
        self.core
            .backward(qkv, views[3].slice()?, &self.spans, None, grads)?;
        Ok((
            Some(tensor_like(dq, q)?),
            Some(tensor_like(dk, k)?),
            Some(tensor_like(dv, v)?),
        ))
    }
}
