//! Many activation rows: a register tile over packed panels.
//!
//! Vectors run along the rows of `x`. A piece of those is packed into panels of two vectors,
//! transposed, so that a step of the sum is one contiguous read; weights keep their order and are only
//! widened, a few rows at a time, into a buffer that stays in the nearest cache while it meets every
//! panel. Long sums are done a stretch at a time, for all weights, so that the packed piece stays in the
//! second-level cache.

use std::ops::Range;

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

/// Steps between two looks ahead.
const STRETCH: usize = 32;

/// From a widened weight row to the next. The odd line keeps rows out of each other's cache sets.
const W_STRIDE: usize = STEPS + MAX_LANES;

/// The height of the tallest tile.
const TILE_ROWS: usize = 12;

/// Weight rows per task; a multiple of every tile height.
const TASK_ROWS: usize = 24;

pub(super) fn run<W: Element>(isa: Isa, x: MatRef<'_, f32>, w: MatRef<'_, W>, y: &Output<'_>) {
    let width = isa.run(PanelWidth);
    let k = x.cols();
    for first in (0..x.rows()).step_by(X_ROWS) {
        let rows = first..(first + X_ROWS).min(x.rows());
        for start in (0..k).step_by(STEPS) {
            let steps = start..(start + STEPS).min(k);
            with_scratch(rows.len().next_multiple_of(width) * steps.len(), |packed| {
                pack(x, rows.clone(), steps.clone(), width, packed);
                multiply(
                    isa,
                    w,
                    y,
                    &Piece {
                        packed,
                        rows: rows.clone(),
                        steps,
                    },
                );
            });
        }
    }
}

/// A part of `x`, packed.
struct Piece<'a> {
    packed: &'a [f32],
    /// Of `x` and `y`.
    rows: Range<usize>,
    /// Of the sum: the columns of `x` and `w`.
    steps: Range<usize>,
}

fn multiply<W: Element>(isa: Isa, w: MatRef<'_, W>, y: &Output<'_>, x: &Piece<'_>) {
    let work = x.rows.len() * x.steps.len() * w.rows();
    for_each_task(w.rows().div_ceil(TASK_ROWS), work, |task| {
        let start = task * TASK_ROWS;
        let rows = start..(start + TASK_ROWS).min(w.rows());
        with_scratch(TILE_ROWS * W_STRIDE, |widened| {
            isa.run(Block {
                x,
                w,
                y,
                rows,
                widened,
            });
        });
    });
}

/// Transposes a part of `x` into panels `(columns, width)`, with zeros for rows that are not there.
pub(crate) fn pack(
    x: MatRef<'_, f32>,
    rows: Range<usize>,
    columns: Range<usize>,
    width: usize,
    packed: &mut [f32],
) {
    let k = columns.len();
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
                let source = &x.row(first + column)[columns.start + start..][..steps];
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
    x: &'a Piece<'a>,
    w: MatRef<'a, W>,
    y: &'a Output<'a>,
    /// The rows of `w`.
    rows: Range<usize>,
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
        let steps = self.x.steps.len();
        for row in self.rows.clone().step_by(R) {
            let rows = R.min(self.rows.end - row);
            for r in 0..rows {
                let source = &self.w.row(row + r)[self.x.steps.clone()];
                widen_into(s, source, &mut self.widened[r * W_STRIDE..][..steps]);
            }
            let panels = self.x.packed.chunks_exact(2 * S::LANES * steps);
            let fetches = panels.len() * steps.div_ceil(STRETCH);
            let mut ahead = Ahead::new(self.w, row + R..row + 2 * R, &self.x.steps, fetches);
            for (panel, packed) in panels.enumerate() {
                let column = panel * 2 * S::LANES;
                let target = Target {
                    row,
                    rows,
                    column,
                    columns: self.x.rows.len() - column,
                };
                if target.columns > S::LANES {
                    self.tile::<S, R, 2>(s, packed, &target, &mut ahead);
                } else {
                    self.tile::<S, R, 1>(s, packed, &target, &mut ahead);
                }
            }
        }
    }

    #[inline(always)]
    fn tile<S: Simd, const R: usize, const C: usize>(
        &self,
        s: S,
        packed: &[f32],
        target: &Target,
        ahead: &mut Ahead<W>,
    ) {
        let steps = self.x.steps.len();
        assert!(packed.len() >= steps * 2 * S::LANES && steps <= STEPS && C <= 2 && R <= TILE_ROWS);
        assert!(self.widened.len() >= R * W_STRIDE);
        let columns = target.columns.min(C * S::LANES);
        for column in 0..columns {
            // SAFETY: this task alone writes columns `self.rows` of `y`.
            let y = unsafe {
                self.y.part(
                    self.x.rows.start + target.column + column,
                    target.row,
                    target.rows,
                )
            };
            // Where the results go arrives while they are computed.
            s.prefetch(y.as_ptr());
        }
        let mut tile: Tile<S, R, C> = [[s.zero(); C]; R];
        for start in (0..steps).step_by(STRETCH) {
            ahead.fetch(s);
            let a = Broadcast {
                start: self.widened[start..].as_ptr(),
                row: W_STRIDE,
                step: 1,
            };
            let b = Columns {
                start: packed[start * 2 * S::LANES..].as_ptr(),
                step: 2 * S::LANES,
            };
            let count = STRETCH.min(steps - start);
            // SAFETY: by the checks above all strides stay inside the two buffers.
            tile = unsafe { accumulate(s, tile, count, a, b) };
        }
        let mut values = [[0.0; 2 * MAX_LANES]; TILE_ROWS];
        for r in 0..R {
            for c in 0..C {
                s.store(&mut values[r][c * S::LANES..], tile[r][c]);
            }
        }
        let add = self.x.steps.start > 0;
        for column in 0..columns {
            let row = self.x.rows.start + target.column + column;
            // SAFETY: this task alone writes columns `self.rows` of `y`.
            let y = unsafe { self.y.part(row, target.row, target.rows) };
            for (y, values) in y.iter_mut().zip(&values) {
                *y = if add { *y } else { 0.0 } + values[column];
            }
        }
    }
}

/// The weights that are next, asked for a few at a time while others are multiplied: the memory takes no
/// more requests at once than a few rows have, and all others would wait.
pub(super) struct Ahead<W> {
    /// The line that is next.
    line: *const W,
    /// How many lines of its row are left with it.
    left: usize,
    /// Of a row.
    lines: usize,
    /// How many rows are left behind it.
    rows: usize,
    /// From the line behind the last of a row to the next row.
    gap: usize,
    /// How many are asked for at a time.
    each: usize,
}

impl<W: Element> Ahead<W> {
    /// How many weights a line of the cache has.
    const LINE: usize = 64 / size_of::<W>();

    /// All of `rows` and `steps` that `w` has, in that many parts.
    pub(super) fn new(
        w: MatRef<'_, W>,
        rows: Range<usize>,
        steps: &Range<usize>,
        parts: usize,
    ) -> Self {
        let rows = rows.start.min(w.rows())..rows.end.min(w.rows());
        let lines = steps.len().div_ceil(Self::LINE);
        let none = rows.is_empty();
        Self {
            line: if none {
                std::ptr::null()
            } else {
                w.row(rows.start)[steps.clone()].as_ptr()
            },
            left: if none { 0 } else { lines },
            lines,
            rows: rows.len().saturating_sub(1),
            gap: w.cols().wrapping_sub(lines * Self::LINE),
            each: (rows.len() * lines).div_ceil(parts.max(1)),
        }
    }

    #[inline(always)]
    fn fetch<S: Simd>(&mut self, s: S) {
        self.each(|line| s.prefetch(line));
    }

    /// Calls `fetch` with the lines that are next.
    #[inline(always)]
    pub(super) fn each(&mut self, fetch: impl Fn(*const W)) {
        for _ in 0..self.each {
            if self.left == 0 {
                if self.rows == 0 {
                    return;
                }
                self.rows -= 1;
                self.left = self.lines;
                self.line = self.line.wrapping_add(self.gap);
            }
            fetch(self.line);
            self.line = self.line.wrapping_add(Self::LINE);
            self.left -= 1;
        }
    }
}

/// Which part of the result a tile is.
struct Target {
    /// Of `w`: the column of `y`.
    row: usize,
    rows: usize,
    /// Among the packed rows of `x`.
    column: usize,
    /// How many rows of `x` are left from there.
    columns: usize,
}
