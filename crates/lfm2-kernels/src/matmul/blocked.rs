//! Many activation rows: a register tile over packed panels.
//!
//! Vectors run along the rows of `x`. Those are packed once into panels of two vectors, transposed,
//! so that a step of the sum is one contiguous read; weights keep their order and are only widened,
//! a few rows at a time, into a buffer that stays in the nearest cache while it meets every panel.

use super::Output;
use crate::element::widen_into;
use crate::scratch::with_scratch;
use crate::simd::tile::{Broadcast, Columns, Tile, accumulate, with_tile_rows};
use crate::simd::{Kernel, MAX_LANES, Simd};
use crate::threads::{SharedMut, for_each_task};
use crate::{Element, Isa, MatRef};

/// Activation rows packed at a time: their panels should stay in the second-level cache.
const X_ROWS: usize = 256;

/// Steps of the sum done at a time.
const STEPS: usize = 1024;

/// From a widened weight row to the next. The odd line keeps rows out of each other's cache sets.
const W_STRIDE: usize = STEPS + MAX_LANES;

/// The height of the tallest tile.
const TILE_ROWS: usize = 12;

/// Weight rows per task; a multiple of every tile height.
const TASK_ROWS: usize = 24;

pub(super) fn run<W: Element>(isa: Isa, x: MatRef<'_, f32>, w: MatRef<'_, W>, y: &Output<'_>) {
    let panel = isa.run(PanelWidth);
    let k = x.cols();
    for first in (0..x.rows()).step_by(X_ROWS) {
        let count = X_ROWS.min(x.rows() - first);
        let panels = count.div_ceil(panel);
        with_scratch(panels * panel * k, |packed| {
            pack(x, first..first + count, panel, packed);
            let packed = &*packed;
            for_each_task(w.rows().div_ceil(TASK_ROWS), count * k * w.rows(), |task| {
                let start = task * TASK_ROWS;
                let rows = start..(start + TASK_ROWS).min(w.rows());
                with_scratch(TILE_ROWS * W_STRIDE, |widened| {
                    isa.run(Block {
                        packed,
                        w,
                        y,
                        rows,
                        first,
                        count,
                        widened,
                    });
                });
            });
        });
    }
}

/// Transposes rows of `x` into panels `(k, width)`, with zeros for rows that are not there.
pub(crate) fn pack(
    x: MatRef<'_, f32>,
    rows: std::ops::Range<usize>,
    width: usize,
    packed: &mut [f32],
) {
    let k = x.cols();
    let len = packed.len();
    let packed = SharedMut::new(packed);
    for_each_task(len / (width * k), len, |panel| {
        // SAFETY: each task has a panel of its own.
        let packed = unsafe { packed.slice(panel * width * k, width * k) };
        let first = rows.start + panel * width;
        let present = width.min(rows.end - first);
        if present < width {
            packed.fill(0.0);
        }
        // By blocks, so that both sides stay in the nearest cache.
        for start in (0..k).step_by(MAX_LANES) {
            let steps = MAX_LANES.min(k - start);
            for column in 0..present {
                let source = &x.row(first + column)[start..start + steps];
                let target = packed[start * width..]
                    .iter_mut()
                    .skip(column)
                    .step_by(width);
                for (target, &value) in target.zip(source) {
                    *target = value;
                }
            }
        }
    });
}

/// How many rows of `x` a panel has.
pub(crate) struct PanelWidth;

impl Kernel for PanelWidth {
    type Output = usize;

    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> usize {
        2 * S::LANES
    }
}

/// Some rows of `w` against all packed rows of `x`.
struct Block<'a, W> {
    packed: &'a [f32],
    w: MatRef<'a, W>,
    y: &'a Output<'a>,
    /// The rows of `w`.
    rows: std::ops::Range<usize>,
    /// The row of `x` and `y` packed first.
    first: usize,
    /// How many rows are packed.
    count: usize,
    widened: &'a mut [f32],
}

impl<W: Element> Kernel for Block<'_, W> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        with_tile_rows!(S::LANES, ROWS => self.tiles::<S, ROWS>(s));
    }
}

impl<W: Element> Block<'_, W> {
    #[inline(always)]
    fn tiles<S: Simd, const R: usize>(&mut self, s: S) {
        let k = self.w.cols();
        for step in (0..k).step_by(STEPS) {
            let steps = STEPS.min(k - step);
            for row in self.rows.clone().step_by(R) {
                let rows = R.min(self.rows.end - row);
                for r in 0..rows {
                    let source = &self.w.row(row + r)[step..step + steps];
                    // The next rows arrive while these are multiplied.
                    for at in (0..steps).step_by(64 / size_of::<W>()) {
                        s.prefetch(source.as_ptr().wrapping_add(R * k + at));
                    }
                    widen_into(s, source, &mut self.widened[r * W_STRIDE..][..steps]);
                }
                for (panel, packed) in self.packed.chunks_exact(2 * S::LANES * k).enumerate() {
                    let column = panel * 2 * S::LANES;
                    let target = Target {
                        row,
                        rows,
                        column,
                        columns: self.count - column,
                        step,
                    };
                    let packed = &packed[step * 2 * S::LANES..];
                    if target.columns > S::LANES {
                        self.tile::<S, R, 2>(s, packed, steps, &target);
                    } else {
                        self.tile::<S, R, 1>(s, packed, steps, &target);
                    }
                }
            }
        }
    }

    #[inline(always)]
    fn tile<S: Simd, const R: usize, const C: usize>(
        &self,
        s: S,
        packed: &[f32],
        steps: usize,
        target: &Target,
    ) {
        assert!(packed.len() >= steps * 2 * S::LANES && steps <= STEPS && C <= 2 && R <= TILE_ROWS);
        assert!(self.widened.len() >= R * W_STRIDE);
        let a = Broadcast {
            start: self.widened.as_ptr(),
            row: W_STRIDE,
            step: 1,
        };
        let b = Columns {
            start: packed.as_ptr(),
            step: 2 * S::LANES,
        };
        let zero: Tile<S, R, C> = [[s.zero(); C]; R];
        // SAFETY: by the checks above all strides stay inside the two buffers.
        let tile = unsafe { accumulate(s, zero, steps, a, b) };
        let mut values = [[0.0; 2 * MAX_LANES]; TILE_ROWS];
        for r in 0..R {
            for c in 0..C {
                s.store(&mut values[r][c * S::LANES..], tile[r][c]);
            }
        }
        for column in 0..target.columns.min(C * S::LANES) {
            let row = self.first + target.column + column;
            // SAFETY: this task alone writes columns `self.rows` of `y`.
            let y = unsafe { self.y.part(row, target.row, target.rows) };
            if target.step == 0 {
                for r in 0..y.len() {
                    y[r] = values[r][column];
                }
            } else {
                for r in 0..y.len() {
                    y[r] += values[r][column];
                }
            }
        }
    }
}

/// Which part of the result a tile is.
struct Target {
    /// Of `w`: the column of `y`.
    row: usize,
    rows: usize,
    /// Among the packed rows of `x`: the row of `y`.
    column: usize,
    /// How many rows of `x` are left from there.
    columns: usize,
    /// Where in the sum: the first part overwrites, later ones add.
    step: usize,
}
