//! MaxSim: how well a query of many vectors meets documents of many vectors.
//!
//! `score(q, d) = sum over rows i of q of (max over rows j of d of q_i · d_j)`. The query is packed
//! once with its rows along the vectors, so that a document row is a few broadcasts per step of the
//! sum and a maximum needs no exchange between lanes.

use std::ops::Range;

use half::f16;

use crate::element::sealed::Load;
use crate::element::widen_into;
use crate::matmul::blocked::{PanelWidth, pack};
use crate::scratch::with_scratch;
use crate::simd::tile::{Broadcast, Columns, Tile, accumulate, with_tile_rows};
use crate::simd::{Kernel, MAX_LANES, Simd};
use crate::threads::{SharedMut, for_each_task};
use crate::{Isa, MatRef, ShapeError};

/// Steps of the sum done at a time.
const STEPS: usize = 1024;

/// From a widened document row to the next. The odd line keeps rows out of each other's cache sets.
const STRIDE: usize = STEPS + MAX_LANES;

/// The height of the tallest tile.
const TILE_ROWS: usize = 12;

/// A task takes documents of about this many rows.
const TASK_ROWS: usize = 1024;

/// The rows of all documents, one document after another: `(rows, dim)`.
#[derive(Debug, Clone, Copy)]
pub enum DocumentRows<'a> {
    /// Full numbers.
    F32(MatRef<'a, f32>),
    /// Half the bytes, with errors too small to matter for unit vectors.
    F16(MatRef<'a, f16>),
    /// A quarter: each row is whole numbers times a scale of its own.
    I8 {
        /// The whole numbers.
        values: MatRef<'a, i8>,
        /// One factor for each row.
        scales: &'a [f32],
    },
}

impl<'a> From<MatRef<'a, f32>> for DocumentRows<'a> {
    fn from(rows: MatRef<'a, f32>) -> Self {
        Self::F32(rows)
    }
}

impl<'a> From<MatRef<'a, f16>> for DocumentRows<'a> {
    fn from(rows: MatRef<'a, f16>) -> Self {
        Self::F16(rows)
    }
}

/// Where a query row found its maximum.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Match {
    /// The document row, the first of equals.
    pub row: usize,
    /// Its scalar product with the query row.
    pub similarity: f32,
}

/// MaxSim of `query (rows, dim)` with every document, each a range of `rows`, into `scores`.
///
/// A document without rows scores 0, and so does every document when the query has none. A maximum
/// may be negative. NaN is never a maximum. Products are summed in `f32`.
///
/// # Errors
/// When the widths differ, a range is not inside `rows`, there is not one scale for each row, or not
/// one score for each document.
pub fn max_sim(
    isa: Isa,
    query: MatRef<'_, f32>,
    rows: DocumentRows<'_>,
    documents: &[Range<usize>],
    scores: &mut [f32],
) -> Result<(), ShapeError> {
    ShapeError::check("max_sim scores", documents.len(), scores.len())?;
    rows.check(query)?;
    for document in documents {
        within("start of a document", document.end, document.start)?;
        within("end of a document", rows.rows(), document.end)?;
    }
    if query.rows() == 0 || query.cols() == 0 {
        scores.fill(0.0);
        return Ok(());
    }
    with_packed(isa, query, |query| match rows {
        DocumentRows::F32(rows) => score_all(isa, query, rows, documents, scores),
        DocumentRows::F16(rows) => score_all(isa, query, rows, documents, scores),
        DocumentRows::I8 { values, scales } => {
            score_all(isa, query, Scaled { values, scales }, documents, scores);
        }
    });
    Ok(())
}

/// For every row of `query (rows, dim)`, the row of one document that is most similar to it: what
/// [`max_sim`] adds up.
///
/// Empty when the document has no rows.
///
/// # Errors
/// When the widths differ or there is not one scale for each row.
pub fn max_sim_matches(
    isa: Isa,
    query: MatRef<'_, f32>,
    document: DocumentRows<'_>,
) -> Result<Vec<Match>, ShapeError> {
    document.check(query)?;
    if document.rows() == 0 {
        return Ok(Vec::new());
    }
    let nowhere = Match {
        row: 0,
        similarity: if query.cols() == 0 {
            0.0
        } else {
            f32::NEG_INFINITY
        },
    };
    let mut matches = vec![nowhere; query.rows()];
    if query.rows() > 0 && query.cols() > 0 {
        with_packed(isa, query, |query| {
            with_scratch(TILE_ROWS * STRIDE, |widened| {
                let matches = &mut matches;
                match document {
                    DocumentRows::F32(rows) => isa.run(Matches {
                        query,
                        rows,
                        widened,
                        matches,
                    }),
                    DocumentRows::F16(rows) => isa.run(Matches {
                        query,
                        rows,
                        widened,
                        matches,
                    }),
                    DocumentRows::I8 { values, scales } => {
                        let rows = Scaled { values, scales };
                        isa.run(Matches {
                            query,
                            rows,
                            widened,
                            matches,
                        });
                    }
                }
            });
        });
    }
    Ok(matches)
}

impl DocumentRows<'_> {
    fn rows(&self) -> usize {
        match self {
            Self::F32(rows) => rows.rows(),
            Self::F16(rows) => rows.rows(),
            Self::I8 { values, .. } => values.rows(),
        }
    }

    fn check(&self, query: MatRef<'_, f32>) -> Result<(), ShapeError> {
        let columns = match self {
            Self::F32(rows) => rows.cols(),
            Self::F16(rows) => rows.cols(),
            Self::I8 { values, scales } => {
                ShapeError::check("max_sim scales", values.rows(), scales.len())?;
                values.cols()
            }
        };
        ShapeError::check("max_sim document columns", query.cols(), columns)
    }
}

fn within(what: &'static str, limit: usize, found: usize) -> Result<(), ShapeError> {
    if found <= limit {
        Ok(())
    } else {
        Err(ShapeError::TooLarge { what, limit, found })
    }
}

/// Rows that can be widened piece by piece.
trait Source: Copy + Sync {
    fn count(self) -> usize;

    /// Values `from..from + out.len()` of row `row`.
    fn widen<S: Simd>(self, s: S, row: usize, from: usize, out: &mut [f32]);
}

impl<T: Load> Source for MatRef<'_, T> {
    #[inline(always)]
    fn count(self) -> usize {
        self.rows()
    }

    #[inline(always)]
    fn widen<S: Simd>(self, s: S, row: usize, from: usize, out: &mut [f32]) {
        widen_into(s, &self.row(row)[from..from + out.len()], out);
    }
}

#[derive(Clone, Copy)]
struct Scaled<'a> {
    values: MatRef<'a, i8>,
    scales: &'a [f32],
}

impl Source for Scaled<'_> {
    #[inline(always)]
    fn count(self) -> usize {
        self.values.rows()
    }

    #[inline(always)]
    fn widen<S: Simd>(self, _: S, row: usize, from: usize, out: &mut [f32]) {
        let scale = self.scales[row];
        for (out, &value) in out.iter_mut().zip(&self.values.row(row)[from..]) {
            *out = f32::from(value) * scale;
        }
    }
}

/// A query in panels of two vectors, transposed: each `(dim, 2 * S::LANES)`, with zeros for rows that
/// are not there.
#[derive(Clone, Copy)]
struct Packed<'a> {
    values: &'a [f32],
    rows: usize,
    dim: usize,
}

impl Packed<'_> {
    /// Rows in whole panels.
    fn padded(&self) -> usize {
        self.values.len() / self.dim
    }
}

fn with_packed<R>(isa: Isa, query: MatRef<'_, f32>, f: impl FnOnce(Packed<'_>) -> R) -> R {
    let width = isa.run(PanelWidth);
    let (rows, dim) = (query.rows(), query.cols());
    with_scratch(rows.next_multiple_of(width) * dim, |values| {
        pack(query, 0..rows, 0..dim, width, values);
        f(Packed { values, rows, dim })
    })
}

/// Scores documents in parallel. Where tasks begin depends on the documents alone.
fn score_all<D: Source>(
    isa: Isa,
    query: Packed<'_>,
    rows: D,
    documents: &[Range<usize>],
    scores: &mut [f32],
) {
    let mut tasks = vec![0];
    let (mut task, mut total) = (0, 0);
    for (index, document) in documents.iter().enumerate() {
        task += document.len();
        total += document.len();
        if task >= TASK_ROWS {
            tasks.push(index + 1);
            task = 0;
        }
    }
    tasks.push(documents.len());
    let scores = SharedMut::new(scores);
    let work = total.saturating_mul(query.rows).saturating_mul(query.dim);
    for_each_task(tasks.len() - 1, work, |task| {
        let (start, end) = (tasks[task], tasks[task + 1]);
        // SAFETY: tasks take disjoint ranges.
        let scores = unsafe { scores.slice(start, end - start) };
        with_scratch(TILE_ROWS * STRIDE + query.padded(), |scratch| {
            let (widened, best) = scratch.split_at_mut(TILE_ROWS * STRIDE);
            isa.run(Scores {
                query,
                rows,
                documents: &documents[start..end],
                widened,
                best,
                scores,
            });
        });
    });
}

/// Takes the products of some document rows with all query rows of a panel.
trait Sink {
    /// `tile[r][c]` belongs to document row `row + r`; rows after the last one repeat it.
    fn take<S: Simd, const R: usize>(
        &mut self,
        s: S,
        row: usize,
        panel: usize,
        tile: &Tile<S, R, 2>,
    );
}

/// Feeds the products of document rows `rows` with all query rows to `sink`.
#[inline(always)]
fn products<S: Simd, D: Source, K: Sink, const R: usize>(
    s: S,
    query: Packed<'_>,
    (source, rows): (D, Range<usize>),
    widened: &mut [f32],
    sink: &mut K,
) {
    let width = 2 * S::LANES;
    assert!(widened.len() >= TILE_ROWS * STRIDE && R <= TILE_ROWS);
    for row in rows.clone().step_by(R) {
        for (panel, packed) in query.values.chunks_exact(width * query.dim).enumerate() {
            let mut tile: Tile<S, R, 2> = [[s.zero(); 2]; R];
            for step in (0..query.dim).step_by(STEPS) {
                let steps = STEPS.min(query.dim - step);
                // Short rows stay widened while they meet every panel.
                if panel == 0 || query.dim > STEPS {
                    for r in 0..R {
                        let row = (row + r).min(rows.end - 1);
                        source.widen(s, row, step, &mut widened[r * STRIDE..][..steps]);
                    }
                }
                let a = Broadcast {
                    start: widened.as_ptr(),
                    row: STRIDE,
                    step: 1,
                };
                let b = Columns {
                    start: packed[step * width..(step + steps) * width].as_ptr(),
                    step: width,
                };
                // SAFETY: `widened` has `R` rows of `STRIDE >= steps` values by the check above, and
                // `b` starts `steps` rows of `width` values.
                tile = unsafe { accumulate(s, tile, steps, a, b) };
            }
            sink.take(s, row, panel, &tile);
        }
    }
}

struct Scores<'a, D> {
    query: Packed<'a>,
    rows: D,
    documents: &'a [Range<usize>],
    widened: &'a mut [f32],
    /// One value for each query row, padded ones included.
    best: &'a mut [f32],
    scores: &'a mut [f32],
}

impl<D: Source> Kernel for Scores<'_, D> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let mut best = Best(self.best);
        for (document, score) in self.documents.iter().zip(self.scores) {
            *score = 0.0;
            if document.is_empty() {
                continue;
            }
            best.0.fill(f32::NEG_INFINITY);
            let rows = (self.rows, document.clone());
            with_tile_rows!(S::LANES, ROWS => {
                products::<S, D, _, ROWS>(s, self.query, rows, self.widened, &mut best);
            });
            *score = best.0[..self.query.rows].iter().sum();
        }
    }
}

/// The largest product of each query row so far.
struct Best<'a>(&'a mut [f32]);

impl Sink for Best<'_> {
    #[inline(always)]
    fn take<S: Simd, const R: usize>(
        &mut self,
        s: S,
        _row: usize,
        panel: usize,
        tile: &Tile<S, R, 2>,
    ) {
        for c in 0..2 {
            let best = &mut self.0[(2 * panel + c) * S::LANES..];
            let mut largest = s.load(best);
            for products in tile {
                largest = s.max(products[c], largest);
            }
            s.store(best, largest);
        }
    }
}

struct Matches<'a, D> {
    query: Packed<'a>,
    rows: D,
    widened: &'a mut [f32],
    matches: &'a mut [Match],
}

impl<D: Source> Kernel for Matches<'_, D> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let rows = (self.rows, 0..self.rows.count());
        let mut best = BestRows(self.matches);
        with_tile_rows!(S::LANES, ROWS => {
            products::<S, D, _, ROWS>(s, self.query, rows, self.widened, &mut best);
        });
    }
}

/// The largest product of each query row so far, and where it was.
struct BestRows<'a>(&'a mut [Match]);

impl Sink for BestRows<'_> {
    #[inline(always)]
    fn take<S: Simd, const R: usize>(
        &mut self,
        s: S,
        row: usize,
        panel: usize,
        tile: &Tile<S, R, 2>,
    ) {
        for (r, products) in tile.iter().enumerate() {
            for c in 0..2 {
                let mut lanes = [0.0; MAX_LANES];
                s.store(&mut lanes, products[c]);
                let matches = self.0.iter_mut().skip((2 * panel + c) * S::LANES);
                for (best, &similarity) in matches.zip(&lanes[..S::LANES]) {
                    // A row repeated to fill the tile is no better than itself.
                    if similarity > best.similarity {
                        *best = Match {
                            row: row + r,
                            similarity,
                        };
                    }
                }
            }
        }
    }
}
