//! Attention of encoders in pairs of `bf16`: every query sees every key.
//!
//! As in `prefill`, blocks of queries meet blocks of keys, scores are kept as `(keys, queries)`, and
//! maxima and sums run along. Queries, keys, weights and values are rounded to `bf16`, and a step of a sum
//! takes two of them; sums stay `f32`. Keys and values are rounded once, for all blocks of queries.

use std::arch::x86_64::*;
use std::ops::Range;

use super::prefill::{BLOCK, Running, weigh};
use super::{KvShape, Layout};
use crate::isa::{Avx512, Avx512Bf16};
use crate::matmul::bf16::{LANES, rounded_columns, to_pairs};
use crate::scratch::with_scratch;
use crate::simd::{Kernel, Simd};
use crate::threads::{SharedMut, for_each_task};

/// Keys, and later queries, of a tile.
const TILE: usize = 12;

/// The sizes that follow from a head's.
#[derive(Clone, Copy)]
struct Sizes {
    dim: usize,
    /// Pairs of head values.
    pairs: usize,
    /// Head values in whole registers.
    padded: usize,
    /// Keys.
    keys: usize,
}

impl Sizes {
    /// Words of a head's keys: groups of twelve, `(pairs, 12)` each.
    fn key_words(self) -> usize {
        self.keys.next_multiple_of(TILE) * self.pairs
    }

    /// Words of a head's values: `(pairs of keys, padded)`.
    fn value_words(self) -> usize {
        self.keys.div_ceil(2) * self.padded
    }

    /// What a task works with.
    fn block_words(self) -> usize {
        BLOCK * (self.pairs + BLOCK + BLOCK / 2 + self.padded + 3)
    }
}

/// Attention of the queries of `layout` to `k` and `v (tokens, kv_heads, head_dim)`; none is empty.
pub(super) fn run(
    isa: (Avx512, Avx512Bf16),
    layout: &Layout<'_>,
    [k, v]: [&[f32]; 2],
    shape: KvShape,
    out: &mut [f32],
) {
    let sizes = Sizes {
        dim: shape.head_dim,
        pairs: shape.head_dim.div_ceil(2),
        padded: shape.head_dim.next_multiple_of(LANES),
        keys: shape.capacity,
    };
    let heads = shape.kv_heads;
    let (key_words, value_words) = (sizes.key_words(), sizes.value_words());
    with_scratch(heads * (key_words + value_words), |words| {
        let (keys, values) = words.split_at_mut(heads * key_words);
        let (all_keys, all_values) = (SharedMut::new(keys), SharedMut::new(values));
        for_each_task(heads, 4 * k.len(), |head| {
            let rows = HeadRows { head, heads, sizes };
            // SAFETY: heads are disjoint.
            let (keys, values) = unsafe {
                (
                    all_keys.slice(head * key_words, key_words),
                    all_values.slice(head * value_words, value_words),
                )
            };
            rows.pack_keys(isa.1, k, keys);
            rows.pack_values(isa.1, v, values);
        });
        let (keys, values) = (&*keys, &*values);
        let rows = layout.rows();
        let blocks = rows.div_ceil(BLOCK);
        let work = rows * sizes.keys * sizes.dim * heads;
        let out = SharedMut::new(out);
        for_each_task(heads * blocks, work, |task| {
            let (kv_head, block) = (task % heads, task / heads);
            let first = block * BLOCK;
            with_scratch(sizes.block_words(), |scratch| {
                let block = Block {
                    layout,
                    kv_head,
                    rows: first..(first + BLOCK).min(rows),
                    sizes,
                    keys: &keys[kv_head * key_words..][..key_words],
                    values: &values[kv_head * value_words..][..value_words],
                };
                block.run(isa, scratch, &out);
            });
        });
    });
}

/// The rows of one head in `(tokens, heads, dim)`.
struct HeadRows {
    head: usize,
    heads: usize,
    sizes: Sizes,
}

impl HeadRows {
    fn row<'a>(&self, all: &'a [f32], token: usize) -> &'a [f32] {
        let start = (token * self.heads + self.head) * self.sizes.dim;
        &all[start..][..self.sizes.dim]
    }

    /// Keys that are not there are zero.
    fn pack_keys(&self, token: Avx512Bf16, k: &[f32], words: &mut [f32]) {
        let Sizes { pairs, keys, .. } = self.sizes;
        let groups = words.chunks_exact_mut(TILE * pairs);
        for (group, words) in groups.enumerate() {
            let first = group * TILE;
            let present = TILE.min(keys - first);
            for start in (0..pairs).step_by(LANES) {
                let mut sources: [&[f32]; LANES] = [&[]; LANES];
                for (row, source) in sources.iter_mut().enumerate().take(present) {
                    let values = &self.row(k, first + row)[2 * start..];
                    *source = &values[..values.len().min(2 * LANES)];
                }
                // SAFETY: the token proves that the CPU has the instructions.
                let columns = unsafe { rounded_columns(token, &sources) };
                let lines = words[start * TILE..].chunks_exact_mut(TILE);
                for (line, column) in lines.zip(&columns) {
                    line.copy_from_slice(&column[..TILE]);
                }
            }
        }
    }

    fn pack_values(&self, token: Avx512Bf16, v: &[f32], words: &mut [f32]) {
        for (pair, words) in words.chunks_exact_mut(self.sizes.padded).enumerate() {
            let first = self.row(v, 2 * pair);
            let second = match 2 * pair + 1 {
                key if key < self.sizes.keys => self.row(v, key),
                _ => &[],
            };
            // SAFETY: the token proves that the CPU has the instructions.
            unsafe { pair_up(token, first, second, words) };
        }
    }
}

/// A block of queries of one key-value head.
struct Block<'a> {
    layout: &'a Layout<'a>,
    kv_head: usize,
    rows: Range<usize>,
    sizes: Sizes,
    /// Of the head, packed.
    keys: &'a [f32],
    values: &'a [f32],
}

impl Block<'_> {
    fn run(&self, (s, token): (Avx512, Avx512Bf16), scratch: &mut [f32], out: &SharedMut<'_, f32>) {
        let Sizes {
            pairs,
            padded,
            keys: all,
            ..
        } = self.sizes;
        let (queries, rest) = scratch.split_at_mut(BLOCK * pairs);
        let (scores, rest) = rest.split_at_mut(BLOCK * BLOCK);
        let (weights, rest) = rest.split_at_mut(BLOCK * BLOCK / 2);
        let (sums, rest) = rest.split_at_mut(BLOCK * padded);
        let (maxima, rest) = rest.split_at_mut(BLOCK);
        let (totals, factors) = rest.split_at_mut(BLOCK);
        self.pack_queries(token, queries);
        sums.fill(0.0);
        maxima.fill(f32::MIN);
        totals.fill(0.0);
        for start in (0..all).step_by(BLOCK) {
            let keys = BLOCK.min(all - start);
            self.score(token, queries, start..start + keys, scores);
            let running = Running {
                maxima: &mut *maxima,
                totals: &mut *totals,
                factors: &mut *factors,
            };
            s.vectorize(Weigh {
                scores: &mut *scores,
                running,
                columns: self.rows.len(),
                keys,
            });
            for (pair, words) in weights
                .chunks_exact_mut(BLOCK)
                .enumerate()
                .take(keys.div_ceil(2))
            {
                let (first, second) = scores[2 * pair * BLOCK..][..2 * BLOCK].split_at(BLOCK);
                let second = if 2 * pair + 1 < keys { second } else { &[] };
                // SAFETY: the token proves that the CPU has the instructions.
                unsafe { pair_up(token, first, second, words) };
            }
            let values = &self.values[start / 2 * padded..][..keys.div_ceil(2) * padded];
            self.add_values(token, (&*weights, &*factors), values, sums);
        }
        self.write_out(totals, sums, out);
    }

    /// Scaled queries `(pairs, BLOCK)`, with zeros for those that are not there.
    fn pack_queries(&self, token: Avx512Bf16, queries: &mut [f32]) {
        let Sizes { dim, pairs, .. } = self.sizes;
        let mut scaled = [[0.0; 2 * LANES]; LANES];
        for column in (0..BLOCK).step_by(LANES) {
            for start in (0..pairs).step_by(LANES) {
                let count = (dim - 2 * start).min(2 * LANES);
                let mut sources: [&[f32]; LANES] = [&[]; LANES];
                let rows = self.rows.clone().skip(column);
                for ((scaled, source), row) in scaled.iter_mut().zip(&mut sources).zip(rows) {
                    let at = self.layout.start(self.kv_head, row, dim) + 2 * start;
                    for (scaled, q) in scaled.iter_mut().zip(&self.layout.q[at..][..count]) {
                        *scaled = q * self.layout.spec.scale;
                    }
                    *source = &scaled[..count];
                }
                // SAFETY: the token proves that the CPU has the instructions.
                let columns = unsafe { rounded_columns(token, &sources) };
                let lines = queries[start * BLOCK..].chunks_exact_mut(BLOCK);
                for (line, values) in lines.zip(&columns) {
                    line[column..column + LANES].copy_from_slice(values);
                }
            }
        }
    }

    /// The scores of some keys, from a whole block of them on.
    fn score(&self, token: Avx512Bf16, queries: &[f32], keys: Range<usize>, scores: &mut [f32]) {
        let pairs = self.sizes.pairs;
        let groups = self.keys[keys.start * pairs..].chunks_exact(TILE * pairs);
        let targets = scores.chunks_exact_mut(TILE * BLOCK);
        let count = keys.len().div_ceil(TILE);
        for (group, scores) in groups.zip(targets).take(count) {
            for column in (0..self.rows.len()).step_by(2 * LANES) {
                assert!(group.len() >= pairs * TILE && column + 2 * LANES <= BLOCK);
                assert!(queries.len() >= pairs * BLOCK && scores.len() >= TILE * BLOCK);
                // SAFETY: the token proves that the CPU has the instructions; by the checks above each
                // pair has twelve words in the group and a line of queries, and the scores twelve lines.
                unsafe {
                    score_tile(
                        token,
                        (group.as_ptr(), queries.as_ptr().add(column)),
                        pairs,
                        scores.as_mut_ptr().add(column),
                    );
                }
            }
        }
    }

    /// Rescales the sums and adds the weighted values of some keys.
    fn add_values(
        &self,
        token: Avx512Bf16,
        (weights, factors): (&[f32], &[f32]),
        values: &[f32],
        sums: &mut [f32],
    ) {
        let padded = self.sizes.padded;
        let pairs = values.len() / padded;
        for row in (0..self.rows.len()).step_by(TILE) {
            let mut column = 0;
            while column < padded {
                let registers = ((padded - column) / LANES).min(2);
                assert!(row + TILE <= BLOCK && column + registers * LANES <= padded);
                assert!(weights.len() >= pairs * BLOCK && factors.len() >= BLOCK);
                assert!(sums.len() >= BLOCK * padded && values.len() >= pairs * padded);
                // SAFETY: the token proves that the CPU has the instructions; by the checks above rows
                // `row..row + 12` and the columns of the registers are inside.
                unsafe {
                    let inputs = (
                        weights.as_ptr().add(row),
                        factors.as_ptr().add(row),
                        values.as_ptr().add(column),
                    );
                    let sums = sums.as_mut_ptr().add(row * padded + column);
                    match registers {
                        2 => value_tile::<2>(token, inputs, (pairs, padded), sums),
                        _ => value_tile::<1>(token, inputs, (pairs, padded), sums),
                    }
                }
                column += registers * LANES;
            }
        }
    }

    fn write_out(&self, totals: &[f32], sums: &[f32], out: &SharedMut<'_, f32>) {
        let Sizes { dim, padded, .. } = self.sizes;
        let rows = self.rows.clone().zip(totals);
        for ((row, total), sums) in rows.zip(sums.chunks_exact(padded)) {
            let start = self.layout.start(self.kv_head, row, dim);
            // SAFETY: rows and key-value heads of different tasks are different parts of the output.
            let out = unsafe { out.slice(start, dim) };
            for (out, sum) in out.iter_mut().zip(sums) {
                *out = sum / total;
            }
        }
    }
}

/// Turns scores into weights, all columns that are there.
struct Weigh<'a> {
    scores: &'a mut [f32],
    running: Running<'a>,
    columns: usize,
    keys: usize,
}

impl Kernel for Weigh<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        for column in (0..self.columns).step_by(S::LANES) {
            let scores = (&mut *self.scores, self.keys);
            weigh(s, scores, column, &mut self.running);
        }
    }
}

/// Word `i` gets number `i` of both, rounded; zero where a slice has ended.
///
/// # Safety
/// The CPU must have AVX-512 F, BW and BF16.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn pair_up(_token: Avx512Bf16, first: &[f32], second: &[f32], words: &mut [f32]) {
    for (start, words) in (0..).step_by(LANES).zip(words.chunks_exact_mut(LANES)) {
        let half = |values: &[f32]| {
            let values = values.get(start..).unwrap_or_default();
            let mask = ((1_u32 << values.len().min(LANES)) - 1) as u16;
            // SAFETY: masked lanes are not read. Both types are 32 bytes without invalid values.
            unsafe {
                let values = _mm512_maskz_loadu_ps(mask, values.as_ptr());
                let rounded = _mm512_cvtneps_pbh(values);
                _mm512_cvtepu16_epi32(std::mem::transmute::<__m256bh, __m256i>(rounded))
            }
        };
        let pairs = _mm512_or_si512(half(first), _mm512_slli_epi32::<16>(half(second)));
        // SAFETY: there is room for sixteen words.
        unsafe { _mm512_storeu_ps(words.as_mut_ptr(), _mm512_castsi512_ps(pairs)) };
    }
}

/// Scores of twelve keys `(pairs, 12)` and two registers of queries `(pairs, BLOCK)`.
///
/// # Safety
/// The CPU must have AVX-512 F and BF16; all of these words must be readable, and 32 writable at `out` and
/// at every `BLOCK` from there, twelve times.
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn score_tile(
    _token: Avx512Bf16,
    (keys, queries): (*const f32, *const f32),
    pairs: usize,
    out: *mut f32,
) {
    let mut sums = [[_mm512_setzero_ps(); 2]; TILE];
    for pair in 0..pairs {
        // SAFETY: by the contract.
        unsafe {
            let line = queries.add(pair * BLOCK);
            let low = to_pairs(_mm512_loadu_ps(line));
            let high = to_pairs(_mm512_loadu_ps(line.add(LANES)));
            for r in 0..TILE {
                let key = to_pairs(_mm512_set1_ps(*keys.add(pair * TILE + r)));
                sums[r][0] = _mm512_dpbf16_ps(sums[r][0], key, low);
                sums[r][1] = _mm512_dpbf16_ps(sums[r][1], key, high);
            }
        }
    }
    for r in 0..TILE {
        for c in 0..2 {
            // SAFETY: by the contract.
            unsafe { _mm512_storeu_ps(out.add(r * BLOCK + c * LANES), sums[r][c]) };
        }
    }
}

/// `sums = sums * factors + weights · values` for twelve queries and `C` registers of head values.
///
/// # Safety
/// The CPU must have AVX-512 F and BF16. Readable must be twelve words at `weights` and at every `BLOCK`
/// from there, twelve `factors`, and the registers' words at `values` and at every `padded` from there, each
/// as often as there are pairs; writable the registers' words at `sums` and at every `padded` from there,
/// twelve times.
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn value_tile<const C: usize>(
    _token: Avx512Bf16,
    (weights, factors, values): (*const f32, *const f32, *const f32),
    (pairs, padded): (usize, usize),
    sums: *mut f32,
) {
    // SAFETY: by the contract, for all reads and writes.
    unsafe {
        let mut tile = [[_mm512_setzero_ps(); C]; TILE];
        for r in 0..TILE {
            let factor = _mm512_set1_ps(*factors.add(r));
            for c in 0..C {
                let sum = _mm512_loadu_ps(sums.add(r * padded + c * LANES));
                tile[r][c] = _mm512_mul_ps(sum, factor);
            }
        }
        for pair in 0..pairs {
            let mut line = [to_pairs(_mm512_setzero_ps()); C];
            for c in 0..C {
                line[c] = to_pairs(_mm512_loadu_ps(values.add(pair * padded + c * LANES)));
            }
            for r in 0..TILE {
                let weight = to_pairs(_mm512_set1_ps(*weights.add(pair * BLOCK + r)));
                for c in 0..C {
                    tile[r][c] = _mm512_dpbf16_ps(tile[r][c], weight, line[c]);
                }
            }
        }
        for r in 0..TILE {
            for c in 0..C {
                _mm512_storeu_ps(sums.add(r * padded + c * LANES), tile[r][c]);
            }
        }
    }
}
