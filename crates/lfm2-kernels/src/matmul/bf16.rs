//! Many activation rows and `bf16` weights: the dot-product instruction for pairs of `bf16`.
//!
//! As in `blocked`, vectors run along the rows of `x`, with a pair of inputs in the place of one: a
//! piece of `x` is rounded to `bf16` and packed into panels of 32 rows, a pair of inputs of every row after
//! the other. Weights keep their order; twelve rows at a time are copied to where they stay in the nearest
//! cache while they meet every panel.

use std::arch::x86_64::*;
use std::hint::black_box;
use std::ops::Range;
use std::sync::OnceLock;
use std::time::Instant;

use half::bf16;

use super::Output;
use super::blocked::Ahead;
use crate::isa::{Avx512, Avx512Bf16};
use crate::scratch::with_scratch;
use crate::threads::{SharedMut, for_each_task};
use crate::{Isa, MatRef};

/// Activation rows packed at a time: their panels should stay in the second-level cache.
const X_ROWS: usize = 256;

/// Pairs of inputs done at a time.
const PAIRS: usize = 1 << 10;

/// Pairs between two looks ahead.
const STRETCH: usize = 32;

/// Activation rows of a panel: two registers.
const PANEL: usize = 32;

/// Weight rows of a tile: with two registers of sums each they leave room for the rest.
const TILE: usize = 12;

/// From a copied weight row to the next. The odd lines keep rows out of each other's cache sets.
const STRIDE: usize = PAIRS + 24;

/// Weight rows per task; a multiple of the tile's.
const TASK_ROWS: usize = 24;

/// Numbers of a register.
pub(crate) const LANES: usize = 16;

/// Proof that pairs of `bf16` can be multiplied with `isa`, and are faster than numbers of full width.
pub(crate) fn tokens(isa: Isa) -> Option<(Avx512, Avx512Bf16)> {
    let Isa::Avx512(wide) = isa else {
        return None;
    };
    let token = Avx512Bf16::detect()?;
    // Tests run it wherever it runs.
    (cfg!(test) || is_fast(token)).then_some((wide, token))
}

/// Whether the dot product of pairs is faster here than multiply-adds of `f32`, which do half as much.
///
/// There are processors, and machines that imitate them, where it takes several times as long. The two
/// differ by a factor of two or more either way, so a short look decides it for the whole process.
fn is_fast(token: Avx512Bf16) -> bool {
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
    let all = x.cols().div_ceil(2);
    for first in (0..x.rows()).step_by(X_ROWS) {
        let rows = first..(first + X_ROWS).min(x.rows());
        for start in (0..all).step_by(PAIRS) {
            let pairs = start..(start + PAIRS).min(all);
            let words = rows.len().next_multiple_of(PANEL) * pairs.len();
            with_scratch(words, |packed| {
                pack(token, x, &rows, &pairs, packed);
                let piece = Piece {
                    packed,
                    rows: rows.clone(),
                    pairs: pairs.clone(),
                };
                multiply(token, &piece, w, y);
            });
        }
    }
}

/// A part of `x`, rounded and packed.
struct Piece<'a> {
    packed: &'a [f32],
    /// Of `x` and `y`.
    rows: Range<usize>,
    /// Of the sum: half the columns of `x` and `w`.
    pairs: Range<usize>,
}

fn multiply(token: Avx512Bf16, x: &Piece<'_>, w: MatRef<'_, bf16>, y: &Output<'_>) {
    let work = 2 * x.rows.len() * x.pairs.len() * w.rows();
    for_each_task(w.rows().div_ceil(TASK_ROWS), work, |task| {
        let start = task * TASK_ROWS;
        let end = (start + TASK_ROWS).min(w.rows());
        with_scratch(TILE * STRIDE, |copied| {
            for row in (start..end).step_by(TILE) {
                let rows = row..(row + TILE).min(end);
                Block { x, w, y, rows }.run(token, copied);
            }
        });
    });
}

/// Rounds to the nearest `bf16`, ties to even, and keeps the result as `f32`.
pub(super) fn round_into(_token: Avx512Bf16, x: &[f32], out: &mut [f32]) {
    for (out, &v) in out.iter_mut().zip(x) {
        *out = bf16::from_f32(v).to_f32();
    }
}

/// Fills the panels: `(pairs, PANEL)` words each. A half of a panel that no row falls into stays as it is.
fn pack(
    token: Avx512Bf16,
    x: MatRef<'_, f32>,
    rows: &Range<usize>,
    pairs: &Range<usize>,
    packed: &mut [f32],
) {
    let len = packed.len();
    let panel_words = PANEL * pairs.len();
    let shared = SharedMut::new(packed);
    for_each_task(len / panel_words, len, |panel| {
        // SAFETY: panels are disjoint.
        let words = unsafe { shared.slice(panel * panel_words, panel_words) };
        let first = rows.start + panel * PANEL;
        for half in [0, LANES] {
            let present = first + half..(first + half + LANES).min(rows.end);
            if present.is_empty() {
                continue;
            }
            for start in (0..pairs.len()).step_by(LANES) {
                let count = LANES.min(pairs.len() - start);
                let input = 2 * (pairs.start + start);
                let mut sources: [&[f32]; LANES] = [&[]; LANES];
                for (source, row) in sources.iter_mut().zip(present.clone()) {
                    let values = &x.row(row)[input..];
                    *source = &values[..values.len().min(2 * count)];
                }
                let lines = words[start * PANEL..].chunks_exact_mut(PANEL).take(count);
                // SAFETY: the token proves that the CPU has the instructions.
                let columns = unsafe { rounded_columns(token, &sources) };
                for (line, column) in lines.zip(columns) {
                    line[half..half + LANES].copy_from_slice(&column);
                }
            }
        }
    });
}

/// Column `p` of the result has pair `p` of every row, rounded; rows end with zeros.
///
/// # Safety
/// The CPU must have AVX-512 F, BW and BF16.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub(crate) unsafe fn rounded_columns(
    _token: Avx512Bf16,
    rows: &[&[f32]; LANES],
) -> [[f32; LANES]; LANES] {
    let mut words = [_mm512_setzero_ps(); LANES];
    for (word, row) in words.iter_mut().zip(rows) {
        let mask = |len: usize| ((1_u32 << len.min(LANES)) - 1) as u16;
        let (low, high) = row.split_at(row.len().min(LANES));
        // SAFETY: masked lanes are not read, and as many as the slices are long are not masked. Words of
        // `f32` and of pairs of `bf16` have the same bits.
        unsafe {
            let low = _mm512_maskz_loadu_ps(mask(low.len()), low.as_ptr());
            let high = _mm512_maskz_loadu_ps(mask(high.len()), high.as_ptr());
            *word = std::mem::transmute::<__m512bh, __m512>(_mm512_cvtne2ps_pbh(high, low));
        }
    }
    let mut values = [[0.0; LANES]; LANES];
    // SAFETY: forwarded from the caller; there is room for sixteen values each time.
    unsafe {
        for (values, column) in values.iter_mut().zip(transposed(words)) {
            _mm512_storeu_ps(values.as_mut_ptr(), column);
        }
    }
    values
}

/// Sixteen columns of sixteen rows.
///
/// # Safety
/// The CPU must have AVX-512 F.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn transposed(rows: [__m512; LANES]) -> [__m512; LANES] {
    let mut pairs = rows;
    for i in 0..LANES / 2 {
        let (a, b) = (rows[2 * i], rows[2 * i + 1]);
        pairs[2 * i] = _mm512_unpacklo_ps(a, b);
        pairs[2 * i + 1] = _mm512_unpackhi_ps(a, b);
    }
    // Lane `l` of `fours[4 * i + c]` has column `4 * l + c` of the rows from `4 * i`.
    let mut fours = pairs;
    for i in 0..LANES / 4 {
        for j in 0..2 {
            let a = _mm512_castps_pd(pairs[4 * i + j]);
            let b = _mm512_castps_pd(pairs[4 * i + 2 + j]);
            fours[4 * i + 2 * j] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, b));
            fours[4 * i + 2 * j + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, b));
        }
    }
    let mut columns = fours;
    for c in 0..4 {
        let [a, b, d, e] = [fours[c], fours[4 + c], fours[8 + c], fours[12 + c]];
        let even = [
            _mm512_shuffle_f32x4::<0x88>(a, b),
            _mm512_shuffle_f32x4::<0x88>(d, e),
        ];
        let odd = [
            _mm512_shuffle_f32x4::<0xdd>(a, b),
            _mm512_shuffle_f32x4::<0xdd>(d, e),
        ];
        columns[c] = _mm512_shuffle_f32x4::<0x88>(even[0], even[1]);
        columns[4 + c] = _mm512_shuffle_f32x4::<0x88>(odd[0], odd[1]);
        columns[8 + c] = _mm512_shuffle_f32x4::<0xdd>(even[0], even[1]);
        columns[12 + c] = _mm512_shuffle_f32x4::<0xdd>(odd[0], odd[1]);
    }
    columns
}

/// Up to twelve rows of `w` against all packed rows of `x`.
struct Block<'a> {
    x: &'a Piece<'a>,
    w: MatRef<'a, bf16>,
    y: &'a Output<'a>,
    /// The rows of `w`.
    rows: Range<usize>,
}

impl Block<'_> {
    fn run(&self, token: Avx512Bf16, copied: &mut [f32]) {
        let pairs = self.x.pairs.len();
        let inputs = 2 * self.x.pairs.start..(2 * self.x.pairs.end).min(self.w.cols());
        // Rows that are not there are multiplied as well, whatever they hold, and dropped.
        for (row, target) in self.rows.clone().zip(copied.chunks_exact_mut(STRIDE)) {
            let source = &self.w.row(row)[inputs.clone()];
            // The last pair may have one number.
            target[pairs - 1] = 0.0;
            // SAFETY: `source` has `2 * pairs` values at most, which is as much as `pairs` words hold, of
            // which any bits are valid.
            unsafe {
                let target = target[..pairs].as_mut_ptr().cast::<bf16>();
                std::ptr::copy_nonoverlapping(source.as_ptr(), target, source.len());
            }
        }
        let panels = self.x.packed.chunks_exact(PANEL * pairs);
        let fetches = panels.len() * pairs.div_ceil(STRETCH);
        let next = self.rows.start + TILE..self.rows.start + 2 * TILE;
        let mut ahead = Ahead::new(self.w, next, &inputs, fetches);
        for (panel, packed) in panels.enumerate() {
            let first = panel * PANEL;
            let present = PANEL.min(self.x.rows.len() - first);
            for row in first..first + present {
                // SAFETY: this task alone writes columns `self.rows` of `y`.
                let y = unsafe { self.part(row) };
                // SAFETY: a hint, which reads nothing.
                unsafe { _mm_prefetch::<_MM_HINT_T0>(y.as_ptr().cast()) };
            }
            assert!(packed.len() == pairs * PANEL && pairs <= PAIRS);
            assert!(copied.len() >= TILE * STRIDE);
            let (words, packed) = (copied.as_ptr(), packed.as_ptr());
            let mut values = [[0.0; LANES]; PANEL];
            // SAFETY: the token proves that the CPU has the instructions; by the checks above every pair
            // has a word in each of the twelve rows and a line in the panel.
            unsafe {
                if present > LANES {
                    columns::<2>(token, (words, packed), pairs, &mut ahead, &mut values);
                } else {
                    columns::<1>(token, (words, packed), pairs, &mut ahead, &mut values);
                }
            }
            for (row, values) in values.iter().take(present).enumerate() {
                self.write(first + row, values);
            }
        }
    }

    /// Where results of a packed row go.
    ///
    /// # Safety
    /// As [`Output::part`].
    #[allow(clippy::mut_from_ref, reason = "disjointness is the caller's promise")]
    unsafe fn part(&self, row: usize) -> &mut [f32] {
        // SAFETY: forwarded from the caller.
        unsafe {
            let row = self.x.rows.start + row;
            self.y.part(row, self.rows.start, self.rows.len())
        }
    }

    /// Writes the results of a packed row, or adds them to what the pairs before gave.
    #[inline(always)]
    fn write(&self, row: usize, values: &[f32; LANES]) {
        // SAFETY: this task alone writes columns `self.rows` of `y`.
        let y = unsafe { self.part(row) };
        let add = self.x.pairs.start > 0;
        match <&mut [f32; TILE]>::try_from(&mut *y) {
            // Of a known length, which takes a few instructions instead of a loop.
            Ok(y) if add => (0..TILE).for_each(|i| y[i] += values[i]),
            Ok(y) => y.copy_from_slice(&values[..TILE]),
            Err(_) if add => y.iter_mut().zip(values).for_each(|(y, v)| *y += v),
            Err(_) => y.copy_from_slice(&values[..y.len()]),
        }
    }
}

/// The products of twelve rows of weights with `C` registers of a panel: for each of its rows, twelve
/// numbers.
///
/// # Safety
/// The CPU must have AVX-512 F and BF16. `pairs` words must be readable at `rows` and at every `STRIDE`
/// words from there, twelve times; `pairs` lines of `PANEL` words at `panel`.
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn columns<const C: usize>(
    _token: Avx512Bf16,
    (rows, panel): (*const f32, *const f32),
    pairs: usize,
    ahead: &mut Ahead<bf16>,
    values: &mut [[f32; LANES]; PANEL],
) {
    let mut sums = [[_mm512_setzero_ps(); TILE]; C];
    for start in (0..pairs).step_by(STRETCH) {
        ahead.each(|line| _mm_prefetch::<_MM_HINT_T0>(line.cast()));
        for pair in start..(start + STRETCH).min(pairs) {
            // SAFETY: by the contract.
            unsafe {
                let mut lines = [to_pairs(_mm512_setzero_ps()); C];
                for c in 0..C {
                    lines[c] = to_pairs(_mm512_loadu_ps(panel.add(pair * PANEL + c * LANES)));
                }
                for r in 0..TILE {
                    let w = to_pairs(_mm512_set1_ps(*rows.add(r * STRIDE + pair)));
                    for c in 0..C {
                        sums[c][r] = _mm512_dpbf16_ps(sums[c][r], w, lines[c]);
                    }
                }
            }
        }
    }
    for (sums, values) in sums.iter().zip(values.chunks_exact_mut(LANES)) {
        let mut rows = [_mm512_setzero_ps(); LANES];
        rows[..TILE].copy_from_slice(sums);
        // SAFETY: forwarded from the caller; there is room for sixteen values each time.
        unsafe {
            for (values, column) in values.iter_mut().zip(transposed(rows)) {
                _mm512_storeu_ps(values.as_mut_ptr(), column);
            }
        }
    }
}

/// The same bits as pairs of `bf16`.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
pub(crate) fn to_pairs(bits: __m512) -> __m512bh {
    // SAFETY: both types are 64 bytes without invalid values.
    unsafe { std::mem::transmute(bits) }
}
