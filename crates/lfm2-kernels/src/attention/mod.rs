//! Grouped-query attention of one sequence over its key-value cache.
//!
//! Few queries (`decode`) read the cache once, at the speed of memory: each key and value is
//! widened in registers and serves all query heads of its group, and deep caches are split into
//! ranges of keys for several threads. Many queries (`prefill`) are bound by arithmetic: blocks
//! of queries meet blocks of keys in register tiles. Both keep a running maximum and sum per query
//! (online softmax), so no matrix of scores ever exists.

mod decode;
mod prefill;
mod relative;
#[cfg(target_arch = "x86_64")]
mod rounded;

pub use relative::{RelativeSpec, relative_attention};

use std::num::NonZeroUsize;
use std::ops::Range;

use crate::{Element, Isa, ShapeError};

/// Up to this many queries per key-value head (tokens times heads of the group) count as few.
const DECODE_ROWS: usize = 16;

/// The layout of a key or value cache: `(kv_heads, capacity, head_dim)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KvShape {
    /// Heads with keys and values of their own.
    pub kv_heads: usize,
    /// Positions there is room for.
    pub capacity: usize,
    /// Values per head.
    pub head_dim: usize,
}

impl KvShape {
    /// How many values one cache has.
    ///
    /// # Errors
    /// When the sizes are zero (capacity may be) or their product does not fit in memory.
    pub fn size(&self) -> Result<usize, ShapeError> {
        if self.kv_heads == 0 || self.head_dim == 0 {
            return Err(ShapeError::Zero {
                what: "kv heads and head dim",
            });
        }
        ShapeError::product("kv cache", &[self.kv_heads, self.capacity, self.head_dim])
    }
}

/// Keys and values of the positions so far.
#[derive(Debug, Clone, Copy)]
pub struct KvRef<'a, T> {
    keys: &'a [T],
    values: &'a [T],
    shape: KvShape,
    len: usize,
}

impl<'a, T: Element> KvRef<'a, T> {
    /// The first `len` positions of two caches of the same shape.
    ///
    /// # Errors
    /// When a cache has another size than `shape` says, or `len` exceeds its capacity.
    pub fn new(
        keys: &'a [T],
        values: &'a [T],
        shape: KvShape,
        len: usize,
    ) -> Result<Self, ShapeError> {
        let expected = shape.size()?;
        ShapeError::check("key cache", expected, keys.len())?;
        ShapeError::check("value cache", expected, values.len())?;
        if len > shape.capacity {
            return Err(ShapeError::TooLarge {
                what: "kv length",
                limit: shape.capacity,
                found: len,
            });
        }
        Ok(Self {
            keys,
            values,
            shape,
            len,
        })
    }

    /// The keys of `positions` of one head, one after another.
    #[inline(always)]
    fn keys(&self, kv_head: usize, positions: &Range<usize>) -> &'a [T] {
        let start = (kv_head * self.shape.capacity + positions.start) * self.shape.head_dim;
        &self.keys[start..][..positions.len() * self.shape.head_dim]
    }

    /// The values of `positions` of one head, one after another.
    #[inline(always)]
    fn values(&self, kv_head: usize, positions: &Range<usize>) -> &'a [T] {
        let start = (kv_head * self.shape.capacity + positions.start) * self.shape.head_dim;
        &self.values[start..][..positions.len() * self.shape.head_dim]
    }
}

/// Which positions a query sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Visibility {
    /// All of the cache.
    All,
    /// Its own position and those before.
    Causal,
    /// Its own position and as many before as make this number.
    Window(NonZeroUsize),
}

/// How queries relate to the cache.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AttentionSpec {
    /// Query heads; a multiple of the cache's heads. Query head `h` belongs to key-value head
    /// `h / (heads / kv_heads)`.
    pub heads: usize,
    /// What scores are multiplied by before the softmax.
    pub scale: f32,
    /// The position of the first query.
    pub past: usize,
    /// Which positions a query sees.
    pub visibility: Visibility,
}

impl AttentionSpec {
    /// The positions the query at `past + token` sees, of `len` in the cache.
    #[inline(always)]
    fn visible(&self, token: usize, len: usize) -> Range<usize> {
        let end = (self.past + token + 1).min(len);
        match self.visibility {
            Visibility::All => 0..len,
            Visibility::Causal => 0..end,
            Visibility::Window(size) => {
                (self.past + token + 1).saturating_sub(size.get()).min(end)..end
            }
        }
    }
}

/// Attention of the queries `q (tokens, heads, head_dim)` into `out` of the same shape.
///
/// The keys and values of the queries' own positions must already be in the cache (see
/// [`append_kv`]). Positions at or beyond the length of `kv` are seen by nobody, so the keys at the
/// end of a sequence can be masked by a shorter length. A query that sees nothing gets zeros.
///
/// # Errors
/// When `heads` is not a positive multiple of the cache's heads, `q` is not whole tokens, or `out`
/// has another length.
pub fn attention<T: Element>(
    isa: Isa,
    q: &[f32],
    kv: KvRef<'_, T>,
    spec: &AttentionSpec,
    out: &mut [f32],
) -> Result<(), ShapeError> {
    let group = ShapeError::divide("attention heads", spec.heads, kv.shape.kv_heads)?;
    let row = ShapeError::product(
        "attention heads * head_dim",
        &[spec.heads, kv.shape.head_dim],
    )?;
    let tokens = ShapeError::divide("attention q", q.len(), row)?;
    ShapeError::check("attention out", q.len(), out.len())?;
    ShapeError::product("attention past", &[2, spec.past])?;
    if tokens == 0 {
        return Ok(());
    }
    let layout = Layout {
        q,
        group,
        tokens,
        spec: *spec,
    };
    if tokens * group <= DECODE_ROWS {
        decode::run(isa, &layout, kv, out);
    } else {
        prefill::run(isa, &layout, kv, out);
    }
    Ok(())
}

/// Attention of an encoder, in which every query sees every key: [`attention`] of `q (tokens, heads,
/// head_dim)` to `k` and `v (tokens, kv_heads, head_dim)`, with `kv.capacity` for the tokens. Queries, keys,
/// values and weights are rounded to `bf16`; `false`, and nothing done, where the CPU does not multiply pairs
/// of those, or not faster than numbers of full width.
///
/// # Errors
/// When lengths and shape disagree.
pub fn encoder_attention_bf16(
    isa: Isa,
    [q, k, v]: [&[f32]; 3],
    (heads, kv): (usize, KvShape),
    scale: f32,
    out: &mut [f32],
) -> Result<bool, ShapeError> {
    #[cfg(target_arch = "x86_64")]
    if let Some(tokens) = crate::matmul::bf16::tokens(isa) {
        let group = ShapeError::divide("attention heads", heads, kv.kv_heads)?;
        let row = ShapeError::product("attention heads * head_dim", &[heads, kv.head_dim])?;
        let count = ShapeError::divide("attention q", q.len(), row)?;
        ShapeError::check("tokens of attention k", count, kv.capacity)?;
        ShapeError::check("attention k", kv.size()?, k.len())?;
        ShapeError::check("attention v", kv.size()?, v.len())?;
        ShapeError::check("attention out", q.len(), out.len())?;
        if count > 0 {
            let layout = Layout {
                q,
                group,
                tokens: count,
                spec: AttentionSpec {
                    heads,
                    scale,
                    past: 0,
                    visibility: Visibility::All,
                },
            };
            rounded::run(tokens, &layout, [k, v], kv, out);
        }
        return Ok(true);
    }
    let _ = (isa, q, k, v, heads, kv, scale, out);
    Ok(false)
}

/// The queries as rows per key-value head: row `r` is head `r % group` of the group at token
/// `r / group`.
struct Layout<'a> {
    q: &'a [f32],
    /// Query heads per key-value head.
    group: usize,
    tokens: usize,
    spec: AttentionSpec,
}

impl Layout<'_> {
    /// Rows of every key-value head.
    #[inline(always)]
    fn rows(&self) -> usize {
        self.tokens * self.group
    }

    /// Where row `row` of a key-value head starts in `q` and in the output.
    #[inline(always)]
    fn start(&self, kv_head: usize, row: usize, head_dim: usize) -> usize {
        let (token, member) = (row / self.group, row % self.group);
        (token * self.spec.heads + kv_head * self.group + member) * head_dim
    }

    /// The positions row `row` sees, of `len` in the cache.
    #[inline(always)]
    fn visible(&self, row: usize, len: usize) -> Range<usize> {
        self.spec.visible(row / self.group, len)
    }

    /// A range of positions that holds everything rows `rows` see.
    #[inline(always)]
    fn span(&self, rows: &Range<usize>, len: usize) -> Range<usize> {
        if rows.is_empty() {
            return 0..0;
        }
        self.visible(rows.start, len).start..self.visible(rows.end - 1, len).end
    }
}

/// Writes new keys (or values) `new (tokens, kv_heads, head_dim)` into a cache from position
/// `offset`, rounded to the cache's format. Called once for keys and once for values.
///
/// # Errors
/// When the cache has another size than `shape` says, `new` is not whole tokens, or they do not fit
/// between `offset` and the capacity.
pub fn append_kv<T: Element>(
    new: &[f32],
    shape: KvShape,
    offset: usize,
    cache: &mut [T],
) -> Result<(), ShapeError> {
    ShapeError::check("kv cache", shape.size()?, cache.len())?;
    let dim = shape.head_dim;
    let tokens = ShapeError::divide("new keys or values", new.len(), shape.kv_heads * dim)?;
    let room = shape.capacity.saturating_sub(offset);
    if tokens > room {
        return Err(ShapeError::TooLarge {
            what: "new positions",
            limit: room,
            found: tokens,
        });
    }
    if tokens == 0 {
        return Ok(());
    }
    for (head, cache) in cache.chunks_exact_mut(shape.capacity * dim).enumerate() {
        let cache = &mut cache[offset * dim..][..tokens * dim];
        for (new, cache) in new
            .chunks_exact(shape.kv_heads * dim)
            .zip(cache.chunks_exact_mut(dim))
        {
            T::narrow(&new[head * dim..][..dim], cache);
        }
    }
    Ok(())
}
