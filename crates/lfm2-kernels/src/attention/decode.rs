//! Few queries: every key and value is read once.

use std::ops::Range;

use super::{DECODE_ROWS, KvRef, Layout};
use crate::element::load_head;
use crate::scratch::with_scratch;
use crate::simd::{Kernel, MAX_LANES, Simd, math};
use crate::threads::{SharedMut, for_each_task};
use crate::{Element, Isa};

/// Positions one task walks; their partial results are merged in order afterwards.
const SPLIT: usize = 512;

/// Positions between two updates of the running maximum. One block of keys stays in the nearest
/// cache.
const BLOCK: usize = 128;

/// Bytes of a cache line.
const LINE: usize = 64;

/// Keys whose scores are summed together.
const KEYS: usize = 4;

pub(super) fn run<T: Element>(isa: Isa, layout: &Layout<'_>, kv: KvRef<'_, T>, out: &mut [f32]) {
    let dim = kv.shape.head_dim;
    let rows = layout.rows();
    let span = layout.span(&(0..rows), kv.len);
    // At least one split, so that a query that sees nothing gets its zeros.
    let splits = span.len().div_ceil(SPLIT).max(1);
    let partial = PartialShape {
        rows,
        padded: dim.next_multiple_of(MAX_LANES),
    };
    let work = span.len() * rows * dim * kv.shape.kv_heads * 2;
    with_scratch(kv.shape.kv_heads * splits * partial.len(), |partials| {
        let shared = SharedMut::new(partials);
        for_each_task(kv.shape.kv_heads * splits, work, |task| {
            let (kv_head, split) = (task / splits, task % splits);
            let start = span.start + split * SPLIT;
            let keys = start..(start + SPLIT).min(span.end);
            // SAFETY: each task has a range of its own.
            let partial_of_task = unsafe { shared.slice(task * partial.len(), partial.len()) };
            with_scratch(rows * partial.padded, |queries| {
                isa.run(Split {
                    layout,
                    kv,
                    kv_head,
                    keys,
                    queries,
                    partial: partial_of_task,
                });
            });
        });
        for (kv_head, partials) in partials
            .chunks_exact_mut(splits * partial.len())
            .enumerate()
        {
            for row in 0..rows {
                let start = layout.start(kv_head, row, dim);
                isa.run(Merge {
                    partials,
                    shape: partial,
                    row,
                    out: &mut out[start..start + dim],
                });
            }
        }
    });
}

/// The result of some rows over a range of keys: sums of weighted values `(rows, padded)`, then the
/// maxima and the sums of weights.
#[derive(Clone, Copy)]
struct PartialShape {
    rows: usize,
    padded: usize,
}

impl PartialShape {
    fn len(self) -> usize {
        (self.rows * (self.padded + 2)).next_multiple_of(MAX_LANES)
    }
}

struct Split<'a, T> {
    layout: &'a Layout<'a>,
    kv: KvRef<'a, T>,
    kv_head: usize,
    keys: Range<usize>,
    /// `(rows, padded)`
    queries: &'a mut [f32],
    partial: &'a mut [f32],
}

impl<T: Element> Kernel for Split<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        let dim = self.kv.shape.head_dim;
        let padded = dim.next_multiple_of(MAX_LANES);
        let rows = self.layout.rows();
        self.load_queries(dim, padded);
        self.partial[..rows * padded].fill(0.0);
        self.partial[rows * padded..][..rows].fill(f32::MIN);
        self.partial[rows * (padded + 1)..][..rows].fill(0.0);

        let mut scores = [[0.0; BLOCK]; DECODE_ROWS];
        let mut start = self.keys.start;
        while start < self.keys.end {
            let keys = start..(start + BLOCK).min(self.keys.end);
            self.each_row_group(s, Stage::Scores, &keys, &mut scores);
            for (row, scores) in scores[..rows].iter_mut().enumerate() {
                self.weigh(s, row, &keys, scores);
            }
            self.each_row_group(s, Stage::Values, &keys, &mut scores);
            start = keys.end;
        }
    }
}

/// The two passes over a block of positions.
#[derive(Clone, Copy)]
enum Stage {
    Scores,
    Values,
}

impl<T: Element> Split<'_, T> {
    /// Copies the queries, scaled and padded with zeros.
    fn load_queries(&mut self, dim: usize, padded: usize) {
        for (row, query) in self.queries.chunks_exact_mut(padded).enumerate() {
            let source = &self.layout.q[self.layout.start(self.kv_head, row, dim)..][..dim];
            for (query, value) in query.iter_mut().zip(source) {
                *query = value * self.layout.spec.scale;
            }
            query[dim..].fill(0.0);
        }
    }

    /// Runs a pass for all rows, as many together as registers allow.
    #[inline(always)]
    fn each_row_group<S: Simd>(
        &mut self,
        s: S,
        stage: Stage,
        keys: &Range<usize>,
        scores: &mut [[f32; BLOCK]; DECODE_ROWS],
    ) {
        let rows = self.layout.rows();
        let mut row = 0;
        if S::LANES == 16 {
            while row + 4 <= rows {
                self.pass::<S, 4>(s, stage, keys, row, scores);
                row += 4;
            }
        }
        while row + 2 <= rows {
            self.pass::<S, 2>(s, stage, keys, row, scores);
            row += 2;
        }
        if row < rows {
            self.pass::<S, 1>(s, stage, keys, row, scores);
        }
    }

    #[inline(always)]
    fn pass<S: Simd, const R: usize>(
        &mut self,
        s: S,
        stage: Stage,
        keys: &Range<usize>,
        row: usize,
        scores: &mut [[f32; BLOCK]; DECODE_ROWS],
    ) {
        match stage {
            Stage::Scores => {
                let mut key = 0;
                while key + KEYS <= keys.len() {
                    self.score::<S, R, KEYS>(s, keys, key, row, scores);
                    key += KEYS;
                }
                while key < keys.len() {
                    self.score::<S, R, 1>(s, keys, key, row, scores);
                    key += 1;
                }
            }
            Stage::Values => {
                let dim = self.kv.shape.head_dim;
                let mut column = 0;
                if S::LANES == 16 {
                    while column + 4 * S::LANES <= dim {
                        self.add_values::<S, R, 4>(s, keys, column, row, scores);
                        column += 4 * S::LANES;
                    }
                }
                while column + 2 * S::LANES <= dim {
                    self.add_values::<S, R, 2>(s, keys, column, row, scores);
                    column += 2 * S::LANES;
                }
                while column < dim {
                    self.add_values::<S, R, 1>(s, keys, column, row, scores);
                    column += S::LANES;
                }
            }
        }
    }

    /// Scores of `R` rows with `N` neighbouring keys from number `key` of the block.
    #[inline(always)]
    fn score<S: Simd, const R: usize, const N: usize>(
        &self,
        s: S,
        keys: &Range<usize>,
        key: usize,
        row: usize,
        scores: &mut [[f32; BLOCK]; DECODE_ROWS],
    ) {
        let dim = self.kv.shape.head_dim;
        let padded = dim.next_multiple_of(MAX_LANES);
        let block = &self.kv.keys(self.kv_head, keys)[key * dim..][..N * dim];
        let queries = &self.queries[row * padded..][..R * padded];
        let mut sums = [[s.zero(); N]; R];
        if row == 0 {
            // The values of the same positions are read next.
            let values = self.kv.values(self.kv_head, keys).as_ptr();
            ask_for(s, values.wrapping_add(key * dim), N * dim);
        }
        for at in (0..dim).step_by(S::LANES) {
            let mut vectors = [s.zero(); N];
            for n in 0..N {
                vectors[n] = if at + S::LANES <= dim {
                    // SAFETY: `LANES` values from `at` are inside key `n` of the block.
                    unsafe { T::load(s, block.as_ptr().add(n * dim + at)) }
                } else {
                    load_head(s, &block[n * dim + at..(n + 1) * dim])
                };
            }
            for r in 0..R {
                // SAFETY: `padded` is a multiple of `LANES` and exceeds `at`.
                let query = unsafe { s.load_f32(queries.as_ptr().add(r * padded + at)) };
                for n in 0..N {
                    sums[r][n] = s.mul_add(vectors[n], query, sums[r][n]);
                }
            }
        }
        for r in 0..R {
            let scores = &mut scores[row + r][key..key + N];
            if N == KEYS {
                let sums = [sums[r][0], sums[r][1 % N], sums[r][2 % N], sums[r][3 % N]];
                scores.copy_from_slice(&s.sum4(sums));
            } else {
                for n in 0..N {
                    scores[n] = s.sum(sums[r][n]);
                }
            }
        }
    }

    /// Turns scores into weights relative to the running maximum, and rescales what was summed
    /// relative to the old one.
    #[inline(always)]
    fn weigh<S: Simd>(&mut self, s: S, row: usize, keys: &Range<usize>, scores: &mut [f32; BLOCK]) {
        let visible = self.layout.visible(row, self.kv.len);
        let from = visible.start.clamp(keys.start, keys.end) - keys.start;
        let to = visible.end.clamp(keys.start, keys.end) - keys.start;
        // Also what lies beyond the keys, so that only whole vectors are left.
        scores[..from].fill(f32::NEG_INFINITY);
        scores[to.max(from)..].fill(f32::NEG_INFINITY);
        let scores = &mut scores[..keys.len().next_multiple_of(S::LANES)];

        let rows = self.layout.rows();
        let padded = self.kv.shape.head_dim.next_multiple_of(MAX_LANES);
        let (sums, statistics) = self.partial.split_at_mut(rows * padded);
        let (maxima, totals) = statistics.split_at_mut(rows);
        // The maxima start at the least finite number, so that differences are never NaN.
        let max = maxima[row].max(math::max(s, scores));
        let factor = math::exp(s, s.splat(maxima[row] - max));
        let mut total = s.zero();
        for chunk in scores.chunks_exact_mut(S::LANES) {
            let weights = math::exp(s, s.sub(s.load(chunk), s.splat(max)));
            total = s.add(total, weights);
            s.store(chunk, weights);
        }
        maxima[row] = max;
        totals[row] = totals[row] * s.max_lane(factor) + s.sum(total);
        for chunk in sums[row * padded..][..padded].chunks_exact_mut(S::LANES) {
            s.store(chunk, s.mul(s.load(chunk), factor));
        }
    }

    /// Adds weighted values of `C` vectors of columns to the sums of `R` rows.
    #[inline(always)]
    fn add_values<S: Simd, const R: usize, const C: usize>(
        &mut self,
        s: S,
        keys: &Range<usize>,
        column: usize,
        row: usize,
        scores: &[[f32; BLOCK]; DECODE_ROWS],
    ) {
        let dim = self.kv.shape.head_dim;
        let padded = dim.next_multiple_of(MAX_LANES);
        let block = self.kv.values(self.kv_head, keys);
        let whole = column + C * S::LANES <= dim;
        let mut sums = [[s.zero(); C]; R];
        let next = self
            .kv
            .keys(self.kv_head, keys)
            .as_ptr()
            .wrapping_add(keys.len() * dim);
        for (key, values) in block.chunks_exact(dim).enumerate() {
            if row == 0 && column == 0 {
                // The keys of the next block are read next.
                ask_for(s, next.wrapping_add(key * dim), dim);
            }
            let mut vectors = [s.zero(); C];
            for c in 0..C {
                vectors[c] = if whole {
                    // SAFETY: `C` vectors from `column` are inside a row of `dim` values.
                    unsafe { T::load(s, values.as_ptr().add(column + c * S::LANES)) }
                } else {
                    load_head(s, &values[column..])
                };
            }
            for r in 0..R {
                let weight = s.splat(scores[row + r][key]);
                for c in 0..C {
                    sums[r][c] = s.mul_add(weight, vectors[c], sums[r][c]);
                }
            }
        }
        for r in 0..R {
            let target = &mut self.partial[(row + r) * padded + column..];
            for (c, target) in target.chunks_exact_mut(S::LANES).take(C).enumerate() {
                s.store(target, s.add(s.load(target), sums[r][c]));
            }
        }
    }
}

/// Asks for the cache lines of `len` values at `p`, which need not be readable. Rows of a cache are too
/// short for the processor to guess them in time.
#[inline(always)]
fn ask_for<S: Simd, T>(s: S, p: *const T, len: usize) {
    for at in (0..len).step_by(LINE / size_of::<T>()) {
        s.prefetch(p.wrapping_add(at));
    }
}

/// Merges the partial results of one row, first split first.
struct Merge<'a> {
    partials: &'a [f32],
    shape: PartialShape,
    row: usize,
    out: &'a mut [f32],
}

impl Kernel for Merge<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let PartialShape { rows, padded } = self.shape;
        let splits = || self.partials.chunks_exact(self.shape.len());
        let maximum = |split: &[f32]| split[rows * padded + self.row];
        let max = splits().map(maximum).fold(f32::MIN, f32::max);
        let mut total = 0.0;
        self.out.fill(0.0);
        for split in splits() {
            let factor = s.max_lane(math::exp(s, s.splat(maximum(split) - max)));
            total += split[rows * (padded + 1) + self.row] * factor;
            for (out, sum) in self.out.iter_mut().zip(&split[self.row * padded..]) {
                *out += sum * factor;
            }
        }
        if total != 0.0 {
            self.out.iter_mut().for_each(|out| *out /= total);
        }
    }
}
