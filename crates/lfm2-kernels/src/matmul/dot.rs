//! Few activation rows: dot products with weights read once.

use std::ops::Range;

use super::Output;
use crate::element::load_head;
use crate::simd::{Kernel, Simd};
use crate::threads::for_each_task;
use crate::{Element, Isa, MatRef};

/// A task takes about this many weights.
const TASK_WEIGHTS: usize = 1 << 16;

/// Weight rows walked side by side: enough independent sums to hide the latency of multiply-adds.
const ROWS: usize = 4;

/// Rows walked together that hold more bytes than this are not asked for as a whole.
const PREFETCH_GROUP: usize = 1 << 16;

/// How far ahead within a row weights are asked for then, in bytes.
const PREFETCH_WITHIN: usize = 1 << 10;

/// How many weights ahead to prefetch when `rows` rows of `k` are walked side by side.
///
/// Hardware stops at the end of a page, which is about where a short row ends, so the next rows are
/// asked for instead; the distance must not reach into rows of the same group.
fn prefetch_distance<W>(rows: usize, k: usize) -> usize {
    if rows * k * size_of::<W>() <= PREFETCH_GROUP {
        rows * k
    } else {
        PREFETCH_WITHIN / size_of::<W>()
    }
}

pub(super) fn run<W: Element>(isa: Isa, x: MatRef<'_, f32>, w: MatRef<'_, W>, y: &Output<'_>) {
    let block = (TASK_WEIGHTS / w.cols()).next_multiple_of(ROWS).max(ROWS);
    let work = w.rows() * w.cols() * x.rows();
    for_each_task(w.rows().div_ceil(block), work, |task| {
        let rows = task * block..((task + 1) * block).min(w.rows());
        isa.run(Block { x, w, y, rows });
    });
}

/// Output columns `rows` (rows of `w`) for all rows of `x`.
struct Block<'a, W> {
    x: MatRef<'a, f32>,
    w: MatRef<'a, W>,
    y: &'a Output<'a>,
    rows: Range<usize>,
}

impl<W: Element> Kernel for Block<'_, W> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let mut row = self.rows.start;
        while row + ROWS <= self.rows.end {
            self.weight_rows::<S, ROWS>(s, row);
            row += ROWS;
        }
        while row < self.rows.end {
            self.weight_rows::<S, 1>(s, row);
            row += 1;
        }
    }
}

impl<W: Element> Block<'_, W> {
    /// `R` weight rows against all activation rows, as many of these at a time as there are
    /// registers; the weights are in the nearest cache from the second time on.
    #[inline(always)]
    fn weight_rows<S: Simd, const R: usize>(&self, s: S, row: usize) {
        let mut i = 0;
        if S::LANES == 16 {
            while i + 4 <= self.x.rows() {
                self.dots::<S, R, 4>(s, row, i);
                i += 4;
            }
        }
        while i + 2 <= self.x.rows() {
            self.dots::<S, R, 2>(s, row, i);
            i += 2;
        }
        if i < self.x.rows() {
            self.dots::<S, R, 1>(s, row, i);
        }
    }

    #[inline(always)]
    fn dots<S: Simd, const R: usize, const M: usize>(&self, s: S, row: usize, i: usize) {
        let k = self.x.cols();
        let mut w: [&[W]; R] = [&[]; R];
        for r in 0..R {
            w[r] = self.w.row(row + r);
        }
        let mut x: [&[f32]; M] = [&[]; M];
        for m in 0..M {
            x[m] = self.x.row(i + m);
        }
        let mut sums = [[s.zero(); R]; M];
        let whole = k - k % S::LANES;
        let ahead = prefetch_distance::<W>(R, k);
        let mut at = 0;
        while at < whole {
            let mut weights = [s.zero(); R];
            for r in 0..R {
                // SAFETY: `at + LANES <= whole <= k`, the length of every row.
                weights[r] = unsafe { W::load(s, w[r].as_ptr().add(at)) };
                if i == 0 {
                    s.prefetch(w[r].as_ptr().wrapping_add(ahead + at));
                }
            }
            for m in 0..M {
                // SAFETY: as above.
                let x = unsafe { s.load_f32(x[m].as_ptr().add(at)) };
                for r in 0..R {
                    sums[m][r] = s.mul_add(weights[r], x, sums[m][r]);
                }
            }
            at += S::LANES;
        }
        if whole < k {
            for r in 0..R {
                let weights = load_head(s, &w[r][whole..]);
                for m in 0..M {
                    sums[m][r] = s.mul_add(weights, load_head(s, &x[m][whole..]), sums[m][r]);
                }
            }
        }
        for m in 0..M {
            // SAFETY: this task alone writes columns `self.rows`, and each column once.
            let y = unsafe { self.y.part(i + m, row, R) };
            if R == ROWS {
                y.copy_from_slice(&s.sum4([
                    sums[m][0],
                    sums[m][1 % R],
                    sums[m][2 % R],
                    sums[m][3 % R],
                ]));
            } else {
                for r in 0..R {
                    y[r] = s.sum(sums[m][r]);
                }
            }
        }
    }
}
