//! Attention of encoders with relative positions: [`relative_attention`].

use std::sync::OnceLock;

use crate::activation::scaled_softmax;
use crate::matmul::{Output, Sum, matmul, matmul_nn};
use crate::scratch::with_scratch;
use crate::threads::{SharedMut, for_each_task};
use crate::{Isa, MatMut, MatRef, ShapeError};

/// Queries of a task: bounds the memory of scores, and leaves tasks enough for the threads.
const BLOCK: usize = 64;

/// What an attention layer with relative positions adds to the queries, and what they see.
#[derive(Debug, Clone, Copy)]
pub struct RelativeSpec<'a> {
    /// Query heads, as many as there are of keys and values.
    pub heads: usize,
    /// What scores are multiplied by before the softmax; positive.
    pub scale: f32,
    /// What is added to a query before it meets keys, `(heads, head_dim)`: `u` in the paper.
    pub content_bias: &'a [f32],
    /// What is added to a query before it meets distances, `(heads, head_dim)`: `v` in the paper.
    pub position_bias: &'a [f32],
    /// How many positions before and behind its own a query sees at most; `None` for all.
    pub context: [Option<usize>; 2],
}

impl RelativeSpec<'_> {
    fn sees(&self, query: usize, key: usize) -> bool {
        let [before, behind] = self.context;
        before.is_none_or(|before| key + before >= query)
            && behind.is_none_or(|behind| key <= query + behind)
    }
}

/// `softmax(scale ((q + u) k + (q + v) p)) v` of a clip whose tokens attend to each other, where `p` is the
/// row of the distance of query and key (Transformer-XL, arXiv 1901.02860, section 3.3).
///
/// `q`, `k`, `v` and `out` are `(tokens, heads, head_dim)`. `distances` has as columns `(heads, head_dim)` and a
/// row for every distance from the largest down to its negative: an odd number of rows, of which the middle one
/// means no distance, and at least `2 tokens - 1`.
///
/// # Errors
/// When shapes disagree or there are no heads.
pub fn relative_attention(
    isa: Isa,
    [q, k, v]: [&[f32]; 3],
    distances: MatRef<'_, f32>,
    spec: &RelativeSpec<'_>,
    out: &mut [f32],
) -> Result<(), ShapeError> {
    let width = distances.cols();
    if spec.heads == 0 || width == 0 {
        return Err(ShapeError::Zero {
            what: "heads and head dim",
        });
    }
    let dim = ShapeError::divide("width of relative attention", width, spec.heads)?;
    let tokens = ShapeError::divide("relative attention q", q.len(), width)?;
    ShapeError::check("relative attention k", q.len(), k.len())?;
    ShapeError::check("relative attention v", q.len(), v.len())?;
    ShapeError::check("relative attention output", q.len(), out.len())?;
    ShapeError::check(
        "content bias of relative attention",
        width,
        spec.content_bias.len(),
    )?;
    ShapeError::check(
        "position bias of relative attention",
        width,
        spec.position_bias.len(),
    )?;
    let longest = distances.rows() / 2 + 1;
    ShapeError::check("rows of distances", 2 * longest - 1, distances.rows())?;
    if tokens > longest {
        return Err(ShapeError::TooLarge {
            what: "tokens that have distances",
            limit: longest,
            found: tokens,
        });
    }
    let clip = Clip {
        qkv: [q, k, v],
        distances,
        spec,
        tokens,
        dim,
        out: Output {
            values: SharedMut::new(out),
            stride: width,
        },
    };
    let failure = OnceLock::new();
    let blocks = tokens.div_ceil(BLOCK);
    // Products with keys, values and, twice as many, distances.
    let work = 4 * tokens * tokens * width;
    for_each_task(spec.heads * blocks, work, |task| {
        let (head, first) = (task / blocks, task % blocks * BLOCK);
        if let Err(error) = clip.attend(isa, head, first, BLOCK.min(tokens - first)) {
            // The first one says it all.
            let _ = failure.set(error);
        }
    });
    failure.into_inner().map_or(Ok(()), Err)
}

/// A clip, and where its results go.
struct Clip<'a> {
    qkv: [&'a [f32]; 3],
    distances: MatRef<'a, f32>,
    spec: &'a RelativeSpec<'a>,
    tokens: usize,
    dim: usize,
    out: Output<'a>,
}

impl Clip<'_> {
    /// Some queries of a head, from number `first` on.
    fn attend(
        &self,
        isa: Isa,
        head: usize,
        first: usize,
        queries: usize,
    ) -> Result<(), ShapeError> {
        let Self { tokens, dim, .. } = *self;
        let reach = queries + tokens - 1;
        with_scratch(queries * (2 * dim + tokens + reach), |scratch| {
            let (content, rest) = scratch.split_at_mut(queries * dim);
            let (position, rest) = rest.split_at_mut(queries * dim);
            let (scores, relative) = rest.split_at_mut(queries * tokens);
            for row in 0..queries {
                let query = self.row(0, head, first + row);
                let at = row * dim..(row + 1) * dim;
                add(
                    query,
                    self.bias(self.spec.content_bias, head),
                    &mut content[at.clone()],
                );
                add(
                    query,
                    self.bias(self.spec.position_bias, head),
                    &mut position[at],
                );
            }
            // Distances from the last query to the first key, down to the first query to the last.
            let nearest = self.distances.rows() / 2 + 1 - (first + queries);
            matmul(
                isa,
                MatRef::new(content, queries, dim)?,
                self.head(1, head)?,
                MatMut::new(scores, queries, tokens)?,
            )?;
            let (distances, stride) = self.distances.starting_at(nearest, head * dim);
            matmul(
                isa,
                MatRef::new(position, queries, dim)?,
                MatRef::strided(distances, reach, dim, stride)?,
                MatMut::new(relative, queries, reach)?,
            )?;
            for (row, scores) in scores.chunks_exact_mut(tokens).enumerate() {
                let relative = &relative[row * reach + queries - 1 - row..][..tokens];
                self.weigh(isa, first + row, relative, scores);
            }
            matmul_nn(
                isa,
                MatRef::new(scores, queries, tokens)?,
                self.head(2, head)?,
                MatMut::new(content, queries, dim)?,
                Sum::Replace,
            )?;
            for (row, mixed) in content.chunks_exact(dim).enumerate() {
                // SAFETY: no other task has these queries of this head.
                let out = unsafe { self.out.part(first + row, head * dim, dim) };
                out.copy_from_slice(mixed);
            }
            Ok(())
        })
    }

    /// Turns scores of a query into weights.
    fn weigh(&self, isa: Isa, query: usize, relative: &[f32], scores: &mut [f32]) {
        for (key, (score, relative)) in scores.iter_mut().zip(relative).enumerate() {
            *score = if self.spec.sees(query, key) {
                *score + relative
            } else {
                f32::NEG_INFINITY
            };
        }
        scaled_softmax(isa, scores, self.spec.scale);
    }

    fn bias<'a>(&self, biases: &'a [f32], head: usize) -> &'a [f32] {
        &biases[head * self.dim..][..self.dim]
    }

    fn row(&self, which: usize, head: usize, token: usize) -> &[f32] {
        &self.qkv[which][(token * self.spec.heads + head) * self.dim..][..self.dim]
    }

    /// The keys or values of a head, `(tokens, head_dim)`.
    fn head(&self, which: usize, head: usize) -> Result<MatRef<'_, f32>, ShapeError> {
        let values = &self.qkv[which][head * self.dim..];
        MatRef::strided(values, self.tokens, self.dim, self.distances.cols())
    }
}

/// `out = a + b`
fn add(a: &[f32], b: &[f32], out: &mut [f32]) {
    for ((out, a), b) in out.iter_mut().zip(a).zip(b) {
        *out = a + b;
    }
}
