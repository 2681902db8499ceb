//! Many queries: blocks of queries meet blocks of keys in register tiles.
//!
//! Scores are kept transposed, `(keys, queries)`. Keys then need no transposition (their values are
//! broadcast), maxima and sums run down the columns without any horizontal step, and hidden scores
//! are runs at the ends of rows.

use std::ops::Range;

use super::{KvRef, Layout};
use crate::element::widen_into;
use crate::scratch::with_scratch;
use crate::simd::tile::{Broadcast, Columns, Tile, accumulate, with_tile_rows};
use crate::simd::{Kernel, MAX_LANES, Simd, math};
use crate::threads::{SharedMut, for_each_task};
use crate::{Element, Isa};

/// Queries and keys of a block: a multiple of every tile height and of two vectors.
pub(super) const BLOCK: usize = 96;

/// Head values widened at a time.
const DIM_BLOCK: usize = 128;

/// From a widened key to the next. The odd line keeps keys out of each other's cache sets.
const KEY_STRIDE: usize = DIM_BLOCK + MAX_LANES;

pub(super) fn run<T: Element>(isa: Isa, layout: &Layout<'_>, kv: KvRef<'_, T>, out: &mut [f32]) {
    let dim = kv.shape.head_dim;
    let rows = layout.rows();
    let blocks = rows.div_ceil(BLOCK);
    let work = rows * layout.span(&(0..rows), kv.len).len() * dim * kv.shape.kv_heads;
    let sizes = Sizes {
        dim,
        padded: dim.next_multiple_of(MAX_LANES),
    };
    let shared = SharedMut::new(out);
    for_each_task(kv.shape.kv_heads * blocks, work, |task| {
        let (kv_head, block) = (task % kv.shape.kv_heads, task / kv.shape.kv_heads);
        let first = block * BLOCK;
        let rows = first..(first + BLOCK).min(rows);
        with_scratch(sizes.total(), |scratch| {
            let buffers = Buffers::split(scratch, sizes);
            isa.run(Block {
                layout,
                kv,
                kv_head,
                rows,
                sizes,
                buffers,
                out: &shared,
            });
        });
    });
}

/// The head size, and what it is in whole vectors.
#[derive(Clone, Copy)]
struct Sizes {
    dim: usize,
    padded: usize,
}

impl Sizes {
    fn total(self) -> usize {
        BLOCK * (self.dim + KEY_STRIDE + BLOCK + 2 * self.padded + 3)
    }
}

/// What a task works with.
struct Buffers<'a> {
    /// Scaled queries `(dim, BLOCK)`.
    queries: &'a mut [f32],
    /// Widened keys `(BLOCK, KEY_STRIDE)`.
    keys: &'a mut [f32],
    /// Scores, later weights `(BLOCK keys, BLOCK queries)`.
    scores: &'a mut [f32],
    /// Widened values `(BLOCK, padded)`.
    values: &'a mut [f32],
    /// Sums of weighted values `(BLOCK, padded)`.
    sums: &'a mut [f32],
    /// Per query: the largest score so far.
    maxima: &'a mut [f32],
    /// Per query: the sum of weights so far.
    totals: &'a mut [f32],
    /// Per query: what the sums so far must be multiplied by.
    factors: &'a mut [f32],
}

impl<'a> Buffers<'a> {
    fn split(scratch: &'a mut [f32], sizes: Sizes) -> Self {
        let mut rest = scratch;
        let mut take = |len: usize| {
            let (part, tail) = std::mem::take(&mut rest).split_at_mut(len);
            rest = tail;
            part
        };
        Self {
            queries: take(sizes.dim * BLOCK),
            keys: take(BLOCK * KEY_STRIDE),
            scores: take(BLOCK * BLOCK),
            values: take(BLOCK * sizes.padded),
            sums: take(BLOCK * sizes.padded),
            maxima: take(BLOCK),
            totals: take(BLOCK),
            factors: take(BLOCK),
        }
    }
}

/// A block of queries of one key-value head.
struct Block<'a, T> {
    layout: &'a Layout<'a>,
    kv: KvRef<'a, T>,
    kv_head: usize,
    rows: Range<usize>,
    sizes: Sizes,
    buffers: Buffers<'a>,
    out: &'a SharedMut<'a, f32>,
}

impl<T: Element> Kernel for Block<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        self.load_queries();
        // Columns beyond `dim` stay zero in both.
        self.buffers.values.fill(0.0);
        self.buffers.sums.fill(0.0);
        self.buffers.maxima.fill(f32::MIN);
        self.buffers.totals.fill(0.0);
        let span = self.layout.span(&self.rows, self.kv.len);
        let mut start = span.start;
        while start < span.end {
            let keys = start..(start + BLOCK).min(span.end);
            with_tile_rows!(S::LANES, ROWS => self.score::<S, ROWS>(s, &keys));
            self.hide(&keys);
            let mut running = Running {
                maxima: &mut *self.buffers.maxima,
                totals: &mut *self.buffers.totals,
                factors: &mut *self.buffers.factors,
            };
            for column in (0..self.rows.len()).step_by(S::LANES) {
                let scores = (&mut *self.buffers.scores, keys.len());
                weigh(s, scores, column, &mut running);
            }
            with_tile_rows!(S::LANES, ROWS => self.add_values::<S, ROWS>(s, &keys));
            start = keys.end;
        }
        self.write_out();
    }
}

impl<T: Element> Block<'_, T> {
    /// Copies the queries, scaled and transposed, with zeros for those that are not there.
    fn load_queries(&mut self) {
        let dim = self.sizes.dim;
        self.buffers.queries.fill(0.0);
        for (column, row) in self.rows.clone().enumerate() {
            let source = &self.layout.q[self.layout.start(self.kv_head, row, dim)..][..dim];
            let targets = self.buffers.queries.iter_mut().skip(column).step_by(BLOCK);
            for (target, value) in targets.zip(source) {
                *target = value * self.layout.spec.scale;
            }
        }
    }

    #[inline(always)]
    fn score<S: Simd, const R: usize>(&mut self, s: S, keys: &Range<usize>) {
        let dim = self.sizes.dim;
        let source = self.kv.keys(self.kv_head, keys);
        for start in (0..dim).step_by(DIM_BLOCK) {
            let steps = DIM_BLOCK.min(dim - start);
            let targets = self.buffers.keys.chunks_exact_mut(KEY_STRIDE);
            for (key, target) in source.chunks_exact(dim).zip(targets) {
                widen_into(s, &key[start..start + steps], &mut target[..steps]);
            }
            for key in (0..keys.len()).step_by(R) {
                for column in (0..self.rows.len()).step_by(2 * S::LANES) {
                    self.score_tile::<S, R>(s, key, column, start..start + steps);
                }
            }
        }
    }

    /// Adds the products of the head values `part` to a tile of scores.
    #[inline(always)]
    fn score_tile<S: Simd, const R: usize>(
        &mut self,
        s: S,
        key: usize,
        column: usize,
        part: Range<usize>,
    ) {
        let Buffers {
            queries,
            keys,
            scores,
            ..
        } = &mut self.buffers;
        assert!(key + R <= BLOCK && column + 2 * S::LANES <= BLOCK && part.len() <= DIM_BLOCK);
        assert!(keys.len() >= BLOCK * KEY_STRIDE && queries.len() >= part.end * BLOCK);
        let mut tile: Tile<S, R, 2> = [[s.zero(); 2]; R];
        if part.start > 0 {
            for r in 0..R {
                for c in 0..2 {
                    tile[r][c] = s.load(&scores[(key + r) * BLOCK + column + c * S::LANES..]);
                }
            }
        }
        let a = Broadcast {
            start: keys[key * KEY_STRIDE..].as_ptr(),
            row: KEY_STRIDE,
            step: 1,
        };
        let b = Columns {
            start: queries[part.start * BLOCK + column..].as_ptr(),
            step: BLOCK,
        };
        // SAFETY: by the checks above, rows `key..key + R` and columns `column..` stay inside.
        let tile = unsafe { accumulate(s, tile, part.len(), a, b) };
        for r in 0..R {
            for c in 0..2 {
                s.store(
                    &mut scores[(key + r) * BLOCK + column + c * S::LANES..],
                    tile[r][c],
                );
            }
        }
    }

    /// Sets the scores of positions a query does not see to negative infinity.
    fn hide(&mut self, keys: &Range<usize>) {
        for (column, row) in self.rows.clone().enumerate() {
            let visible = self.layout.visible(row, self.kv.len);
            let from = visible.start.clamp(keys.start, keys.end);
            let to = visible.end.clamp(from, keys.end);
            for position in (keys.start..from).chain(to..keys.end) {
                self.buffers.scores[(position - keys.start) * BLOCK + column] = f32::NEG_INFINITY;
            }
        }
    }

    #[inline(always)]
    fn add_values<S: Simd, const R: usize>(&mut self, s: S, keys: &Range<usize>) {
        let Sizes { dim, padded } = self.sizes;
        let source = self.kv.values(self.kv_head, keys);
        let targets = self.buffers.values.chunks_exact_mut(padded);
        for (value, target) in source.chunks_exact(dim).zip(targets) {
            widen_into(s, value, &mut target[..dim]);
        }
        for row in (0..self.rows.len()).step_by(R) {
            let mut column = 0;
            while column + 2 * S::LANES <= padded {
                self.value_tile::<S, R, 2>(s, row, column, keys.len());
                column += 2 * S::LANES;
            }
            while column < padded {
                self.value_tile::<S, R, 1>(s, row, column, keys.len());
                column += S::LANES;
            }
        }
    }

    /// Rescales a tile of sums and adds the weighted values of all keys of the block.
    #[inline(always)]
    fn value_tile<S: Simd, const R: usize, const C: usize>(
        &mut self,
        s: S,
        row: usize,
        column: usize,
        keys: usize,
    ) {
        let padded = self.sizes.padded;
        let Buffers {
            scores,
            values,
            sums,
            factors,
            ..
        } = &mut self.buffers;
        assert!(row + R <= BLOCK && column + C * S::LANES <= padded && keys <= BLOCK);
        assert!(scores.len() >= BLOCK * BLOCK && values.len() >= BLOCK * padded);
        let mut tile: Tile<S, R, C> = [[s.zero(); C]; R];
        for r in 0..R {
            let factor = s.splat(factors[row + r]);
            for c in 0..C {
                let sum = s.load(&sums[(row + r) * padded + column + c * S::LANES..]);
                tile[r][c] = s.mul(sum, factor);
            }
        }
        let a = Broadcast {
            start: scores[row..].as_ptr(),
            row: 1,
            step: BLOCK,
        };
        let b = Columns {
            start: values[column..].as_ptr(),
            step: padded,
        };
        // SAFETY: by the checks above, rows `row..row + R` and columns `column..` stay inside.
        let tile = unsafe { accumulate(s, tile, keys, a, b) };
        for r in 0..R {
            for c in 0..C {
                s.store(
                    &mut sums[(row + r) * padded + column + c * S::LANES..],
                    tile[r][c],
                );
            }
        }
    }

    /// Divides the sums by the totals.
    fn write_out(&mut self) {
        let Sizes { dim, padded } = self.sizes;
        for (column, row) in self.rows.clone().enumerate() {
            let start = self.layout.start(self.kv_head, row, dim);
            // SAFETY: rows and key-value heads of different tasks are different parts of the output.
            let out = unsafe { self.out.slice(start, dim) };
            let total = self.buffers.totals[column];
            let factor = if total == 0.0 { 0.0 } else { 1.0 / total };
            for (out, sum) in out.iter_mut().zip(&self.buffers.sums[column * padded..]) {
                *out = sum * factor;
            }
        }
    }
}

/// What is kept of the keys so far, per query.
pub(super) struct Running<'a> {
    /// The largest score.
    pub(super) maxima: &'a mut [f32],
    /// The sum of weights.
    pub(super) totals: &'a mut [f32],
    /// What the sums of values must be multiplied by.
    pub(super) factors: &'a mut [f32],
}

/// Turns one vector of columns from scores into weights relative to the running maxima.
/// `scores` has a line of `BLOCK` for each key.
#[inline(always)]
pub(super) fn weigh<S: Simd>(
    s: S,
    (scores, keys): (&mut [f32], usize),
    column: usize,
    running: &mut Running<'_>,
) {
    let old = s.load(&running.maxima[column..]);
    let mut max = old;
    for row in scores.chunks_exact(BLOCK).take(keys) {
        max = s.max(s.load(&row[column..]), max);
    }
    // The maxima start at the least finite number, so that differences are never NaN.
    let factor = math::exp(s, s.sub(old, max));
    let mut total = s.zero();
    for row in scores.chunks_exact_mut(BLOCK).take(keys) {
        let weight = math::exp(s, s.sub(s.load(&row[column..]), max));
        total = s.add(total, weight);
        s.store(&mut row[column..], weight);
    }
    s.store(&mut running.maxima[column..], max);
    s.store(&mut running.factors[column..], factor);
    let sum = s.mul_add(s.load(&running.totals[column..]), factor, total);
    s.store(&mut running.totals[column..], sum);
}
