//! Products whose right side lies as the result does: the two gradients of a linear layer.
//!
//! Vectors run along the columns of `w` and `y`, so nothing is transposed. A piece of `w` is copied
//! into panels of two vectors, which stay in the second-level cache while all rows of a task meet
//! them.

use std::ops::Range;

use super::{Output, Sum};
use crate::scratch::{Scratch, with_scratch};
use crate::simd::tile::{Broadcast, Columns, Tile, accumulate, with_tile_rows};
use crate::simd::{Kernel, MAX_LANES, Simd};
use crate::threads::for_each_task;
use crate::{Isa, MatRef};

/// Steps of the sum done at a time: a panel of them stays in the nearest cache.
const STEPS: usize = 256;

/// From one row of copied values of `x` to the next; odd lines, see `blocked`.
const X_STRIDE: usize = STEPS + MAX_LANES;

/// Columns whose panels are there at the same time.
const COLUMNS: usize = 512;

/// Up to so many columns of `w`, columns of `x` are read where they lie.
const COPY_COLUMNS: usize = 128;

/// The height of the tallest tile.
const TILE_ROWS: usize = 12;

/// Rows per task: enough to make up for the copy of `w`.
const TASK_ROWS: usize = 192;

/// The left side of a product.
#[derive(Clone, Copy)]
pub(super) enum Left<'a> {
    /// `(m, k)`
    Rows(MatRef<'a, f32>),
    /// `(k, m)`, to be read as its transpose.
    Columns(MatRef<'a, f32>),
}

impl Left<'_> {
    /// `(m, k)`
    pub(super) fn shape(&self) -> (usize, usize) {
        match self {
            Self::Rows(x) => (x.rows(), x.cols()),
            Self::Columns(x) => (x.cols(), x.rows()),
        }
    }
}

pub(super) fn run(isa: Isa, x: Left<'_>, w: MatRef<'_, f32>, y: &Output<'_>, sum: Sum) {
    let (m, k) = x.shape();
    let width = isa.run(PanelWidth);
    for_each_task(m.div_ceil(TASK_ROWS), m * k * w.cols(), |task| {
        let first = task * TASK_ROWS;
        let rows = first..(first + TASK_ROWS).min(m);
        for columns in pieces(w.cols(), COLUMNS) {
            with_scratch(STEPS * columns.len().next_multiple_of(width), |packed| {
                for steps in pieces(k, STEPS) {
                    isa.run(CopyPanels {
                        w,
                        steps: &steps,
                        columns: &columns,
                        packed: &mut *packed,
                    });
                    let (rows, columns) = (rows.clone(), columns.clone());
                    block(isa, x, y, [rows, columns, steps], packed, sum);
                }
            });
        }
    });
}

/// [`run`] with a right side that is packed already.
pub(super) fn run_panels(isa: Isa, x: Left<'_>, w: &Panels, y: &Output<'_>, sum: Sum) {
    let (m, k) = x.shape();
    for_each_task(m.div_ceil(TASK_ROWS), m * k * w.cols, |task| {
        let first = task * TASK_ROWS;
        let rows = first..(first + TASK_ROWS).min(m);
        for columns in pieces(w.cols, COLUMNS) {
            for steps in pieces(k, STEPS) {
                let packed = &w.values[w.place(&columns, &steps)];
                let (rows, columns) = (rows.clone(), columns.clone());
                block(isa, x, y, [rows, columns, steps], packed, sum);
            }
        }
    });
}

/// Parts of `0..len` of at most `most`.
fn pieces(len: usize, most: usize) -> impl Iterator<Item = Range<usize>> {
    (0..len)
        .step_by(most)
        .map(move |start| start..(start + most).min(len))
}

/// Some rows of `x` against a packed part of `w`.
fn block(
    isa: Isa,
    x: Left<'_>,
    y: &Output<'_>,
    [rows, columns, steps]: [Range<usize>; 3],
    packed: &[f32],
    sum: Sum,
) {
    with_scratch(TILE_ROWS * X_STRIDE, |copied| {
        isa.run(Block {
            x,
            y,
            rows,
            columns,
            fresh: steps.start == 0 && sum == Sum::Replace,
            steps,
            packed,
            copied,
        });
    });
}

/// The right side of products, `(k, n)`, in the order they read it in: for several left sides.
pub struct Panels {
    values: Scratch,
    rows: usize,
    cols: usize,
    /// Columns of a panel.
    width: usize,
}

impl std::fmt::Debug for Panels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Panels({}, {})", self.rows, self.cols)
    }
}

impl Panels {
    /// Of `w (k, n)`.
    pub fn new(isa: Isa, w: MatRef<'_, f32>) -> Self {
        let mut panels = Self::empty(isa, w.rows(), w.cols());
        panels.fill(|steps, columns, packed| {
            isa.run(CopyPanels {
                w,
                steps,
                columns,
                packed,
            });
        });
        panels
    }

    /// Of the transpose of `w (n, k)`.
    pub fn across(isa: Isa, w: MatRef<'_, f32>) -> Self {
        let mut panels = Self::empty(isa, w.cols(), w.rows());
        let width = panels.width;
        panels.fill(|steps, columns, packed| {
            let panels = packed.chunks_exact_mut(steps.len() * width);
            for (first, panel) in columns.clone().step_by(width).zip(panels) {
                let present = first..(first + width).min(columns.end);
                copy_across(w, steps, &present, width, panel);
            }
        });
        panels
    }

    /// Rows `k`.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Columns `n`.
    pub fn cols(&self) -> usize {
        self.cols
    }

    fn empty(isa: Isa, rows: usize, cols: usize) -> Self {
        let width = isa.run(PanelWidth);
        Self {
            values: Scratch::new(rows * cols.next_multiple_of(width)),
            rows,
            cols,
            width,
        }
    }

    /// Where the panels of a part are. Parts begin at whole panels.
    fn place(&self, columns: &Range<usize>, steps: &Range<usize>) -> Range<usize> {
        let padded = columns.len().next_multiple_of(self.width);
        let start = columns.start * self.rows + steps.start * padded;
        start..start + steps.len() * padded
    }

    /// Calls `pack` with every part and the place for its panels.
    fn fill(&mut self, mut pack: impl FnMut(&Range<usize>, &Range<usize>, &mut [f32])) {
        for columns in pieces(self.cols, COLUMNS) {
            for steps in pieces(self.rows, STEPS) {
                let place = self.place(&columns, &steps);
                pack(&steps, &columns, &mut self.values[place]);
            }
        }
    }
}

/// Some rows of `w`, as the columns of one panel `(steps, width)`, with zeros behind them.
fn copy_across(
    w: MatRef<'_, f32>,
    steps: &Range<usize>,
    rows: &Range<usize>,
    width: usize,
    panel: &mut [f32],
) {
    /// Rows whose values become neighbours at a time.
    const ROWS: usize = 4;
    if rows.len() < width {
        panel.fill(0.0);
    }
    for first in rows.clone().step_by(ROWS) {
        let column = first - rows.start;
        if first + ROWS <= rows.end {
            let source: [&[f32]; ROWS] = std::array::from_fn(|r| &w.row(first + r)[steps.clone()]);
            let [a, b, c, d] = source;
            let values = a.iter().zip(b).zip(c.iter().zip(d));
            for (target, ((a, b), (c, d))) in panel.chunks_exact_mut(width).zip(values) {
                target[column..column + ROWS].copy_from_slice(&[*a, *b, *c, *d]);
            }
        } else {
            for row in first..rows.end {
                let source = &w.row(row)[steps.clone()];
                for (target, value) in panel.chunks_exact_mut(width).zip(source) {
                    target[row - rows.start] = *value;
                }
            }
        }
    }
}

/// Copies a part of `w` to panels `(steps, width)`, with zeros behind its last column.
struct CopyPanels<'a> {
    w: MatRef<'a, f32>,
    steps: &'a Range<usize>,
    columns: &'a Range<usize>,
    packed: &'a mut [f32],
}

impl Kernel for CopyPanels<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let width = 2 * S::LANES;
        for (step, row) in self.steps.clone().enumerate() {
            let row = &self.w.row(row)[self.columns.clone()];
            for (panel, source) in row.chunks(width).enumerate() {
                let at = (panel * self.steps.len() + step) * width;
                let target = &mut self.packed[at..][..width];
                for (target, source) in target
                    .chunks_exact_mut(S::LANES)
                    .zip(source.chunks(S::LANES))
                {
                    s.store(target, load_head(s, source));
                }
                if source.len() <= S::LANES {
                    s.store(&mut target[S::LANES..], s.zero());
                }
            }
        }
    }
}

/// How many columns of `w` a panel has.
struct PanelWidth;

impl Kernel for PanelWidth {
    type Output = usize;

    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> usize {
        2 * S::LANES
    }
}

/// Some rows of `x` against a packed part of `w`.
struct Block<'a> {
    x: Left<'a>,
    y: &'a Output<'a>,
    rows: Range<usize>,
    columns: Range<usize>,
    steps: Range<usize>,
    /// Whether what is in `y` counts for nothing.
    fresh: bool,
    packed: &'a [f32],
    copied: &'a mut [f32],
}

impl Kernel for Block<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        with_tile_rows!(S::LANES, ROWS => self.tiles::<S, ROWS>(s));
    }
}

impl<'a> Block<'a> {
    #[inline(always)]
    fn tiles<S: Simd, const R: usize>(&mut self, s: S) {
        let steps = self.steps.len();
        for row in self.rows.clone().step_by(R) {
            let rows = row..(row + R).min(self.rows.end);
            let straight = self.straight::<R>(&rows);
            if straight.is_none() {
                self.copy_rows::<R>(&rows);
            }
            let panels = self.packed.chunks_exact(2 * S::LANES * steps);
            for (column, panel) in self.columns.clone().step_by(2 * S::LANES).zip(panels) {
                let columns = column..(column + 2 * S::LANES).min(self.columns.end);
                match (self.x, straight) {
                    (Left::Rows(_), _) => {
                        self.tile::<S, R, X_STRIDE>(s, panel, &rows, &columns, (&*self.copied, 1));
                    }
                    (Left::Columns(_), Some((values, stride))) => {
                        self.tile::<S, R, 1>(s, panel, &rows, &columns, (values, stride));
                    }
                    (Left::Columns(_), None) => {
                        self.tile::<S, R, 1>(s, panel, &rows, &columns, (&*self.copied, R));
                    }
                }
            }
        }
    }

    /// The values of `rows` where they lie, and the stride of steps, if a copy would not be read often
    /// enough to pay: `R` columns that lie side by side, for few panels.
    #[inline(always)]
    fn straight<const R: usize>(&self, rows: &Range<usize>) -> Option<(&'a [f32], usize)> {
        let Left::Columns(x) = self.x else {
            return None;
        };
        let few = self.columns.len() <= COPY_COLUMNS;
        (few && rows.len() == R).then(|| x.starting_at(self.steps.start, rows.start))
    }

    /// Copies rows of `x` in the order they lie in, so that a tile reads them at strides it knows.
    #[inline(always)]
    fn copy_rows<const R: usize>(&mut self, rows: &Range<usize>) {
        match self.x {
            Left::Rows(x) => {
                for (row, target) in rows.clone().zip(self.copied.chunks_exact_mut(X_STRIDE)) {
                    let source = &x.row(row)[self.steps.clone()];
                    target[..source.len()].copy_from_slice(source);
                }
            }
            Left::Columns(x) => {
                let (targets, _) = self.copied.as_chunks_mut::<R>();
                for (step, target) in self.steps.clone().zip(targets) {
                    let source = &x.row(step)[rows.clone()];
                    match <&[f32; R]>::try_from(source) {
                        // Of a known length, which takes a few instructions instead of a call.
                        Ok(source) => *target = *source,
                        Err(_) => target[..source.len()].copy_from_slice(source),
                    }
                }
            }
        }
    }

    /// One tile of the values of `x` that are given with the stride of steps; `ROW` is that of rows.
    #[inline(always)]
    fn tile<S: Simd, const R: usize, const ROW: usize>(
        &self,
        s: S,
        panel: &[f32],
        rows: &Range<usize>,
        columns: &Range<usize>,
        (values, step): (&[f32], usize),
    ) {
        let steps = self.steps.len();
        assert!(panel.len() >= steps * 2 * S::LANES && steps <= STEPS);
        assert!(values.len() > (R - 1) * ROW + (steps - 1) * step);
        let mut tile: Tile<S, R, 2> = [[s.zero(); 2]; R];
        if !self.fresh {
            for (row, tile) in rows.clone().zip(&mut tile) {
                // SAFETY: this task alone touches these rows of `y`.
                let y = unsafe { self.y.part(row, columns.start, columns.len()) };
                for (values, vector) in y.chunks(S::LANES).zip(tile) {
                    *vector = load_head(s, values);
                }
            }
        }
        let a = Broadcast {
            start: values.as_ptr(),
            row: ROW,
            step,
        };
        let b = Columns {
            start: panel.as_ptr(),
            step: 2 * S::LANES,
        };
        // SAFETY: by the checks above all strides stay inside the two buffers.
        let tile = unsafe { accumulate(s, tile, steps, a, b) };
        for (row, tile) in rows.clone().zip(tile) {
            // SAFETY: as above; no other part of `y` is held.
            let y = unsafe { self.y.part(row, columns.start, columns.len()) };
            for (values, vector) in y.chunks_mut(S::LANES).zip(tile) {
                if values.len() == S::LANES {
                    s.store(values, vector);
                } else {
                    s.store_head(values, vector);
                }
            }
        }
    }
}

/// Up to `LANES` values, with zeros behind them.
#[inline(always)]
fn load_head<S: Simd>(s: S, values: &[f32]) -> S::V {
    if values.len() == S::LANES {
        s.load(values)
    } else {
        s.load_some(values)
    }
}
