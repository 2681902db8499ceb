//! Many activation rows and `bf16` weights: the dot-product instruction for pairs of `bf16`.
//!
//! Activations are rounded to `bf16` once and kept in panels of twelve rows, a pair of inputs of every
//! row after the other. Weights keep their order in memory; 32 rows at a time are turned into lines
//! that hold a pair of inputs for sixteen rows, which stay in the second-level cache while they meet
//! every panel.

use std::arch::x86_64::*;
use std::hint::black_box;
use std::ops::Range;
use std::sync::OnceLock;
use std::time::Instant;

use half::bf16;

use super::Output;
use crate::MatRef;
use crate::isa::Avx512Bf16;
use crate::scratch::with_scratch;
use crate::threads::{SharedMut, for_each_task};

/// Weight rows of a task: two registers.
const ROWS: usize = 32;

/// Activation rows of a panel: with two registers of sums each they leave room for the rest.
const PANEL: usize = 12;

/// Pairs of inputs whose lines are made at a time: 128 KiB.
const PAIRS: usize = 1 << 10;

/// Whether the dot product of pairs is faster here than multiply-adds of `f32`, which do half as much.
///
/// There are processors, and machines that imitate them, where it takes several times as long. The two
/// differ by a factor of two or more either way, so a short look decides it for the whole process.
pub(super) fn is_fast(token: Avx512Bf16) -> bool {
    static FAST: OnceLock<bool> = OnceLock::new();
    *FAST.get_or_init(|| {
        let shortest = |f: &dyn Fn() -> f32| {
            let time = || {
                let start = Instant::now();
                black_box(f());
                start.elapsed()
            };
            (0..5).map(|_| time()).min().unwrap_or_default()
        };
        // SAFETY: the token proves that the CPU has the instructions of both.
        let pairs = shortest(&|| unsafe { time_pairs(token) });
        // SAFETY: as above.
        let singles = shortest(&|| unsafe { time_singles(token) });
        pairs < 2 * singles
    })
}

/// Steps of a trial, with enough independent sums to keep every unit busy.
const TRIAL: usize = 500;

/// # Safety
/// The CPU must have AVX-512 F and BF16.
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn time_pairs(_token: Avx512Bf16) -> f32 {
    let x = to_pairs(_mm512_set1_ps(black_box(1.0)));
    let mut sums = [_mm512_setzero_ps(); 16];
    for _ in 0..TRIAL {
        for sum in &mut sums {
            *sum = _mm512_dpbf16_ps(*sum, x, x);
        }
    }
    sums.into_iter().map(|sum| _mm512_reduce_add_ps(sum)).sum()
}

/// # Safety
/// The CPU must have AVX-512 F.
#[target_feature(enable = "avx512f")]
unsafe fn time_singles(_token: Avx512Bf16) -> f32 {
    let x = _mm512_set1_ps(black_box(0.5));
    let mut sums = [x; 16];
    for _ in 0..TRIAL {
        for sum in &mut sums {
            *sum = _mm512_fmadd_ps(*sum, x, x);
        }
    }
    sums.into_iter().map(|sum| _mm512_reduce_add_ps(sum)).sum()
}

/// `y = x wᵀ`, with `x` rounded to `bf16`. The shapes agree, and neither is empty.
pub(super) fn run(token: Avx512Bf16, x: MatRef<'_, f32>, w: MatRef<'_, bf16>, y: &Output<'_>) {
    let pairs = x.cols().div_ceil(2);
    with_scratch(x.rows() * pairs, |words| {
        round(x, pairs, words);
        let words = &*words;
        let work = x.rows() * x.cols() * w.rows();
        for_each_task(w.rows().div_ceil(ROWS), work, |task| {
            let rows = task * ROWS..((task + 1) * ROWS).min(w.rows());
            with_scratch(PAIRS * ROWS, |lines| {
                let block = Block {
                    x: words,
                    count: x.rows(),
                    pairs,
                    w,
                    rows,
                    y,
                };
                block.run(token, lines);
            });
        });
    });
}

/// Rounds to the nearest `bf16`, ties to even, and keeps the result as `f32`.
pub(super) fn round_into(_token: Avx512Bf16, x: &[f32], out: &mut [f32]) {
    for (out, &v) in out.iter_mut().zip(x) {
        *out = bf16::from_f32(v).to_f32();
    }
}

/// Fills the panels: `(pairs, height)` words for every panel, the last as high as rows are left.
fn round(x: MatRef<'_, f32>, pairs: usize, words: &mut [f32]) {
    let len = words.len();
    let shared = SharedMut::new(words);
    for_each_task(x.rows().div_ceil(PANEL), 4 * len, |panel| {
        let first = panel * PANEL;
        let height = PANEL.min(x.rows() - first);
        // SAFETY: panels are disjoint.
        let words = unsafe { shared.slice(first * pairs, height * pairs) };
        for row in 0..height {
            let values = x.row(first + row);
            for (pair, values) in values.chunks(2).enumerate() {
                let low = bf16::from_f32(values[0]).to_bits();
                let high = values.get(1).map_or(0, |&v| bf16::from_f32(v).to_bits());
                words[pair * height + row] = f32::from_bits(u32::from(high) << 16 | u32::from(low));
            }
        }
    });
}

/// Some rows of `w` against all panels.
struct Block<'a> {
    x: &'a [f32],
    count: usize,
    pairs: usize,
    w: MatRef<'a, bf16>,
    rows: Range<usize>,
    y: &'a Output<'a>,
}

impl Block<'_> {
    fn run(&self, token: Avx512Bf16, lines: &mut [f32]) {
        for first in (0..self.pairs).step_by(PAIRS) {
            let pairs = first..(first + PAIRS).min(self.pairs);
            self.make_lines(&pairs, lines);
            for start in (0..self.count).step_by(PANEL) {
                let height = PANEL.min(self.count - start);
                let panel = &self.x[start * self.pairs..][..height * self.pairs];
                let panel = &panel[pairs.start * height..pairs.end * height];
                let mut row = 0;
                macro_rules! rows {
                    ($count:literal) => {
                        while height - row >= $count {
                            let sums = accumulate::<$count>(token, lines, panel, height, row);
                            for (m, sums) in sums.iter().enumerate() {
                                self.write(start + row + m, sums, first > 0);
                            }
                            row += $count;
                        }
                    };
                }
                rows!(12);
                rows!(8);
                rows!(4);
                rows!(2);
                rows!(1);
            }
        }
    }

    /// Line `p` gets pair `p` of every row; rows and inputs that are not there count as zero.
    fn make_lines(&self, pairs: &Range<usize>, lines: &mut [f32]) {
        let cols = self.w.cols();
        let lines = &mut lines[..pairs.len() * ROWS];
        if self.rows.len() < ROWS {
            lines.fill(0.0);
        }
        // Sixteen pairs of a row at a time: both sides stay in the nearest cache.
        for start in (0..pairs.len()).step_by(16) {
            let count = 16.min(pairs.len() - start);
            let input = 2 * (pairs.start + start);
            for (row, index) in self.rows.clone().enumerate() {
                let values = &self.w.row(index)[input..(input + 2 * count).min(cols)];
                let lines = lines[start * ROWS + row..].iter_mut().step_by(ROWS);
                for (line, pair) in lines.zip(values.chunks(2)) {
                    let high = pair.get(1).map_or(0, |v| v.to_bits());
                    *line = f32::from_bits(u32::from(high) << 16 | u32::from(pair[0].to_bits()));
                }
            }
        }
    }

    /// Writes one row of results, or adds to it.
    fn write(&self, row: usize, sums: &[f32; ROWS], add: bool) {
        // SAFETY: this task alone writes the columns of its rows of `w`.
        let y = unsafe { self.y.part(row, self.rows.start, self.rows.len()) };
        if add {
            y.iter_mut().zip(sums).for_each(|(y, sum)| *y += sum);
        } else {
            y.copy_from_slice(&sums[..y.len()]);
        }
    }
}

/// The sums of `M` rows of a panel of `height` rows, from row `row` on, with all lines.
fn accumulate<const M: usize>(
    _token: Avx512Bf16,
    lines: &[f32],
    panel: &[f32],
    height: usize,
    row: usize,
) -> [[f32; ROWS]; M] {
    let pairs = panel.len() / height;
    assert!(row + M <= height && lines.len() >= pairs * ROWS);
    // SAFETY: the token proves that the CPU has the instructions; by the check above every pair has a
    // line and `M` words from `row` on.
    unsafe { accumulate_unchecked(lines.as_ptr(), panel.as_ptr().add(row), pairs, height) }
}

/// # Safety
/// The CPU must have AVX-512 F and BF16. `pairs` lines must be readable at `lines`, and `M` words at
/// `words` and at every `height` words from there, `pairs` times.
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn accumulate_unchecked<const M: usize>(
    lines: *const f32,
    words: *const f32,
    pairs: usize,
    height: usize,
) -> [[f32; ROWS]; M] {
    let mut sums = [[_mm512_setzero_ps(); 2]; M];
    for pair in 0..pairs {
        // SAFETY: by the contract. Registers of `f32` and of pairs of `bf16` have the same bits.
        unsafe {
            let line = lines.add(pair * ROWS);
            let low = to_pairs(_mm512_loadu_ps(line));
            let high = to_pairs(_mm512_loadu_ps(line.add(ROWS / 2)));
            for m in 0..M {
                let x = to_pairs(_mm512_set1_ps(*words.add(pair * height + m)));
                sums[m][0] = _mm512_dpbf16_ps(sums[m][0], low, x);
                sums[m][1] = _mm512_dpbf16_ps(sums[m][1], high, x);
            }
        }
    }
    let mut values = [[0.0; ROWS]; M];
    for m in 0..M {
        // SAFETY: each half has room for sixteen values.
        unsafe {
            _mm512_storeu_ps(values[m].as_mut_ptr(), sums[m][0]);
            _mm512_storeu_ps(values[m].as_mut_ptr().add(ROWS / 2), sums[m][1]);
        }
    }
    values
}

/// The same bits as pairs of `bf16`.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
fn to_pairs(bits: __m512) -> __m512bh {
    // SAFETY: both types are 64 bytes without invalid values.
    unsafe { std::mem::transmute(bits) }
}
