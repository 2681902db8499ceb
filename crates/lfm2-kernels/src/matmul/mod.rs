//! `y (m, n) = x (m, k) · w (n, k)ᵀ`: activations times weights stored as `(out, in)`.
//!
//! Few rows of `x` read the weights once, at the speed of memory (`dot`: each weight vector is
//! widened in a register and serves all rows). Many rows are bound by arithmetic (`blocked`:
//! panels of weights are widened to `f32` once per block of rows, and a register tile does the
//! rest). Where the CPU has a dot product of `bf16` pairs, many rows and `bf16` weights can use it
//! ([`matmul_bf16`]).
//!
//! The gradients of that product are products, too, of matrices that lie otherwise: [`matmul_nn`] and
//! [`matmul_tn`] read them as they are (`straight`).

#[cfg(target_arch = "x86_64")]
pub(crate) mod bf16;
pub(crate) mod blocked;
mod dot;
mod straight;

pub use straight::Panels;

use crate::threads::SharedMut;
use crate::{Element, Isa, MatMut, MatRef, ShapeError};

/// Up to this many rows of `x` the weights are read straight from memory.
const DOT_ROWS: usize = 8;

/// `y (m, n) = x (m, k) · w (n, k)ᵀ`, accumulated in `f32`.
///
/// The order of the sums depends on the instruction set and on whether `m` exceeds 8, but not on
/// the number of threads.
///
/// # Errors
/// When the shapes disagree.
pub fn matmul<W: Element>(
    isa: Isa,
    x: MatRef<'_, f32>,
    w: MatRef<'_, W>,
    mut y: MatMut<'_, f32>,
) -> Result<(), ShapeError> {
    ShapeError::check("matmul w columns", x.cols(), w.cols())?;
    ShapeError::check("matmul y rows", x.rows(), y.rows())?;
    ShapeError::check("matmul y columns", w.rows(), y.cols())?;
    if x.cols() == 0 {
        (0..y.rows()).for_each(|row| y.row_mut(row).fill(0.0));
    } else if x.rows() > 0 && w.rows() > 0 {
        let stride = y.stride();
        let y = Output {
            values: SharedMut::new(y.into_slice()),
            stride,
        };
        if x.rows() <= DOT_ROWS {
            dot::run(isa, x, w, &y);
        } else {
            blocked::run(isa, x, w, &y);
        }
    }
    Ok(())
}

/// [`matmul`] with `x` rounded to `bf16`, which is as fine as such weights and much faster for many
/// rows; `false`, and nothing done, where the CPU does not multiply pairs of `bf16`, or not faster than
/// numbers of full width (which is measured once).
///
/// # Errors
/// When the shapes disagree.
pub fn matmul_bf16(
    isa: Isa,
    x: MatRef<'_, f32>,
    w: MatRef<'_, half::bf16>,
    y: MatMut<'_, f32>,
) -> Result<bool, ShapeError> {
    #[cfg(target_arch = "x86_64")]
    if let Some((_, token)) = bf16::tokens(isa) {
        if x.rows() <= DOT_ROWS || w.rows() == 0 || x.cols() == 0 {
            // As many bits, and the weights are read once all the same.
            return crate::scratch::with_scratch(x.rows() * x.cols(), |rounded| {
                for (row, out) in rounded.chunks_exact_mut(x.cols().max(1)).enumerate() {
                    bf16::round_into(token, x.row(row), out);
                }
                matmul(isa, MatRef::new(rounded, x.rows(), x.cols())?, w, y)
            })
            .map(|()| true);
        }
        ShapeError::check("matmul w columns", x.cols(), w.cols())?;
        ShapeError::check("matmul y rows", x.rows(), y.rows())?;
        ShapeError::check("matmul y columns", w.rows(), y.cols())?;
        let stride = y.stride();
        let y = Output {
            values: SharedMut::new(y.into_slice()),
            stride,
        };
        bf16::run(token, x, w, &y);
        return Ok(true);
    }
    let _ = (isa, x, w, y);
    Ok(false)
}

/// What becomes of the values that are in the result already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sum {
    /// They are replaced.
    Replace,
    /// The product is added to them.
    Add,
}

/// `y (m, n) = x (m, k) · w (k, n)`, accumulated in `f32`.
///
/// # Errors
/// When the shapes disagree.
pub fn matmul_nn(
    isa: Isa,
    x: MatRef<'_, f32>,
    w: MatRef<'_, f32>,
    y: MatMut<'_, f32>,
    sum: Sum,
) -> Result<(), ShapeError> {
    straight(isa, straight::Left::Rows(x), w, y, sum)
}

/// `y (m, n) = x (k, m)ᵀ · w (k, n)`, accumulated in `f32`.
///
/// # Errors
/// When the shapes disagree.
pub fn matmul_tn(
    isa: Isa,
    x: MatRef<'_, f32>,
    w: MatRef<'_, f32>,
    y: MatMut<'_, f32>,
    sum: Sum,
) -> Result<(), ShapeError> {
    straight(isa, straight::Left::Columns(x), w, y, sum)
}

/// [`matmul_nn`] with a right side that was packed before.
///
/// # Errors
/// When the shapes disagree.
pub fn matmul_panels(
    isa: Isa,
    x: MatRef<'_, f32>,
    w: &Panels,
    mut y: MatMut<'_, f32>,
    sum: Sum,
) -> Result<(), ShapeError> {
    ShapeError::check("matmul w rows", x.cols(), w.rows())?;
    ShapeError::check("matmul y rows", x.rows(), y.rows())?;
    ShapeError::check("matmul y columns", w.cols(), y.cols())?;
    if x.cols() == 0 {
        if sum == Sum::Replace {
            (0..x.rows()).for_each(|row| y.row_mut(row).fill(0.0));
        }
    } else if x.rows() > 0 && w.cols() > 0 {
        let stride = y.stride();
        let y = Output {
            values: SharedMut::new(y.into_slice()),
            stride,
        };
        straight::run_panels(isa, straight::Left::Rows(x), w, &y, sum);
    }
    Ok(())
}

fn straight(
    isa: Isa,
    x: straight::Left<'_>,
    w: MatRef<'_, f32>,
    mut y: MatMut<'_, f32>,
    sum: Sum,
) -> Result<(), ShapeError> {
    let (m, k) = x.shape();
    ShapeError::check("matmul w rows", k, w.rows())?;
    ShapeError::check("matmul y rows", m, y.rows())?;
    ShapeError::check("matmul y columns", w.cols(), y.cols())?;
    if k == 0 {
        if sum == Sum::Replace {
            (0..m).for_each(|row| y.row_mut(row).fill(0.0));
        }
    } else if m > 0 && w.cols() > 0 {
        let stride = y.stride();
        let y = Output {
            values: SharedMut::new(y.into_slice()),
            stride,
        };
        straight::run(isa, x, w, &y, sum);
    }
    Ok(())
}

/// The result matrix while several threads write to it.
pub(crate) struct Output<'a> {
    pub(crate) values: SharedMut<'a, f32>,
    pub(crate) stride: usize,
}

impl Output<'_> {
    /// `len` values of row `row` from column `column`.
    ///
    /// # Safety
    /// While the result lives, no other call may give out any of the same values.
    #[inline(always)]
    #[allow(clippy::mut_from_ref, reason = "disjointness is the caller's promise")]
    pub(crate) unsafe fn part(&self, row: usize, column: usize, len: usize) -> &mut [f32] {
        // SAFETY: forwarded from the caller.
        unsafe { self.values.slice(row * self.stride + column, len) }
    }
}
