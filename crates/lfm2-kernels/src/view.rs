//! Matrix views: shapes checked once, so that kernels need not.

use crate::ShapeError;

/// A read-only row-major matrix whose rows may lie further apart than they are long.
#[derive(Debug, Clone, Copy)]
pub struct MatRef<'a, T> {
    data: &'a [T],
    rows: usize,
    cols: usize,
    stride: usize,
}

/// A writable row-major matrix whose rows may lie further apart than they are long.
#[derive(Debug)]
pub struct MatMut<'a, T> {
    data: &'a mut [T],
    rows: usize,
    cols: usize,
    stride: usize,
}

/// `Ok` when `len` values hold `rows` rows of `cols` values, `stride` apart.
fn check_strided(len: usize, rows: usize, cols: usize, stride: usize) -> Result<(), ShapeError> {
    if stride < cols {
        return Err(ShapeError::Size {
            what: "row stride of a matrix",
            expected: cols,
            found: stride,
        });
    }
    let before = ShapeError::product("matrix", &[rows.saturating_sub(1), stride])?;
    let needed = if rows == 0 {
        0
    } else {
        before.saturating_add(cols)
    };
    if len < needed {
        return Err(ShapeError::Size {
            what: "values of a matrix",
            expected: needed,
            found: len,
        });
    }
    Ok(())
}

impl<'a, T> MatRef<'a, T> {
    /// All of `data` as `(rows, cols)`.
    ///
    /// # Errors
    /// When `data` does not have exactly `rows * cols` values.
    pub fn new(data: &'a [T], rows: usize, cols: usize) -> Result<Self, ShapeError> {
        let expected = ShapeError::product("matrix", &[rows, cols])?;
        ShapeError::check("values of a matrix", expected, data.len())?;
        Ok(Self {
            data,
            rows,
            cols,
            stride: cols,
        })
    }

    /// `(rows, cols)` with rows that start `stride` values apart.
    ///
    /// # Errors
    /// When `stride < cols`, or `data` ends before the last row does.
    pub fn strided(
        data: &'a [T],
        rows: usize,
        cols: usize,
        stride: usize,
    ) -> Result<Self, ShapeError> {
        check_strided(data.len(), rows, cols, stride)?;
        Ok(Self {
            data,
            rows,
            cols,
            stride,
        })
    }

    /// The number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The length of a row.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Everything from one value on, and the distance of rows.
    pub(crate) fn starting_at(&self, row: usize, column: usize) -> (&'a [T], usize) {
        (&self.data[row * self.stride + column..], self.stride)
    }

    /// Row `index`.
    ///
    /// # Panics
    /// When there is no such row.
    #[inline(always)]
    pub fn row(&self, index: usize) -> &'a [T] {
        assert!(
            index < self.rows,
            "row {index} of a matrix with {} rows",
            self.rows
        );
        &self.data[index * self.stride..][..self.cols]
    }
}

impl<'a, T> MatMut<'a, T> {
    /// All of `data` as `(rows, cols)`.
    ///
    /// # Errors
    /// When `data` does not have exactly `rows * cols` values.
    pub fn new(data: &'a mut [T], rows: usize, cols: usize) -> Result<Self, ShapeError> {
        let expected = ShapeError::product("matrix", &[rows, cols])?;
        ShapeError::check("values of a matrix", expected, data.len())?;
        Ok(Self {
            data,
            rows,
            cols,
            stride: cols,
        })
    }

    /// `(rows, cols)` with rows that start `stride` values apart; what lies between is not touched.
    ///
    /// # Errors
    /// When `stride < cols`, or `data` ends before the last row does.
    pub fn strided(
        data: &'a mut [T],
        rows: usize,
        cols: usize,
        stride: usize,
    ) -> Result<Self, ShapeError> {
        check_strided(data.len(), rows, cols, stride)?;
        Ok(Self {
            data,
            rows,
            cols,
            stride,
        })
    }

    /// The number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The length of a row.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// The same view for a shorter time.
    pub fn reborrow(&mut self) -> MatMut<'_, T> {
        MatMut {
            data: self.data,
            rows: self.rows,
            cols: self.cols,
            stride: self.stride,
        }
    }

    /// How far apart rows start.
    pub(crate) fn stride(&self) -> usize {
        self.stride
    }

    /// Row `index`.
    ///
    /// # Panics
    /// When there is no such row.
    pub fn row_mut(&mut self, index: usize) -> &mut [T] {
        assert!(
            index < self.rows,
            "row {index} of a matrix with {} rows",
            self.rows
        );
        &mut self.data[index * self.stride..][..self.cols]
    }

    /// The values under the view, gaps between the rows included.
    pub(crate) fn into_slice(self) -> &'a mut [T] {
        self.data
    }
}
