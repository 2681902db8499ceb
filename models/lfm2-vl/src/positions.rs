//! [`PositionTable`]: where a patch is, for any number of rows and columns.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{DType, Device, Result, Tensor, bail};

use crate::resize::{Filter, Taps, axis};
use crate::view::PatchGrid;

/// How many resized tables are kept: most views are full tiles, and thumbnails repeat.
const KEPT: usize = 16;

/// A square table of vectors, stretched to the grid of each view as a picture would be.
///
/// Bilinear with antialiasing, in `f32`. Where an axis grows, this is plain interpolation.
#[derive(Clone)]
pub struct PositionTable {
    /// `(side, side, dim)`, row by row.
    table: Tensor,
    side: usize,
    kept: Arc<Mutex<HashMap<PatchGrid, Tensor>>>,
}

impl fmt::Debug for PositionTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PositionTable")
            .field("side", &self.side)
            .finish_non_exhaustive()
    }
}

impl PositionTable {
    /// From a table `(side * side, dim)`.
    ///
    /// # Errors
    /// When the rows are no square.
    pub fn new(table: Tensor) -> Result<Self> {
        let rows = table.dim(0)?;
        let side = rows.isqrt();
        if side * side != rows || rows == 0 {
            bail!("a position table of {rows} rows is no square");
        }
        Ok(Self {
            table,
            side,
            kept: Arc::default(),
        })
    }

    /// The vectors of a view's patches, `(patches, dim)`, in the type of the table.
    ///
    /// # Errors
    /// When the device fails.
    pub fn for_grid(&self, grid: PatchGrid) -> Result<Tensor> {
        if let Some(found) = self.lock().get(&grid) {
            return Ok(found.clone());
        }
        let resized = self.resized(grid)?;
        // A table that is learnt changes with every step.
        if !self.table.track_op() {
            let mut kept = self.lock();
            if kept.len() >= KEPT {
                kept.clear();
            }
            kept.insert(grid, resized.clone());
        }
        Ok(resized)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<PatchGrid, Tensor>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn resized(&self, grid: PatchGrid) -> Result<Tensor> {
        let dim = self.table.dim(1)?;
        if (grid.rows, grid.cols) == (self.side, self.side) {
            return Ok(self.table.clone());
        }
        let device = self.table.device();
        let matrix = |to: usize| weights(&axis(Filter::Bilinear, self.side, to), self.side, device);
        let table = self.table.to_dtype(DType::F32)?;
        // Columns first, as matrices: `(cols, side)` times each row's `(side, dim)`.
        let wide =
            matrix(grid.cols)?.broadcast_matmul(&table.reshape((self.side, self.side, dim))?)?;
        let tall = matrix(grid.rows)?.matmul(&wide.reshape((self.side, grid.cols * dim))?)?;
        tall.reshape((grid.patches(), dim))?
            .to_dtype(self.table.dtype())
    }
}

/// Taps as a matrix `(to, from)`.
fn weights(taps: &[Taps<f64>], from: usize, device: &Device) -> Result<Tensor> {
    let mut values = vec![0_f32; taps.len() * from];
    for (row, taps) in values.chunks_exact_mut(from).zip(taps) {
        for (value, weight) in row.iter_mut().skip(taps.first).zip(&taps.weights) {
            *value = *weight as f32;
        }
    }
    Tensor::from_vec(values, (taps.len(), from), device)
}

#[cfg(test)]
mod tests {
    use candle_core::Var;

    use super::*;

    fn table(side: usize) -> Result<Tensor> {
        Tensor::arange(0f32, (side * side * 2) as f32, &Device::Cpu)?.reshape((side * side, 2))
    }

    const fn grid(rows: usize, cols: usize) -> PatchGrid {
        PatchGrid { rows, cols }
    }

    #[test]
    fn rows_are_rows_and_the_same_grid_is_the_table() -> Result<()> {
        let positions = PositionTable::new(table(3)?)?;
        let same = positions.for_grid(grid(3, 3))?.to_vec2::<f32>()?;
        assert_eq!(same, table(3)?.to_vec2::<f32>()?);
        // One row is the mean of all three, which is the middle one.
        let one = positions.for_grid(grid(1, 3))?.to_vec2::<f32>()?;
        for (found, expected) in one.iter().flatten().zip([6., 7., 8., 9., 10., 11.]) {
            assert!((found - expected).abs() < 1e-5, "{found} {expected}");
        }
        // Twice as wide: between two columns a quarter and three quarters.
        let wide = positions.for_grid(grid(3, 6))?.to_vec2::<f32>()?;
        let expected = [0., 0.5, 1.5, 2.5, 3.5, 4.];
        for (found, expected) in wide.iter().map(|row| row[0]).zip(expected) {
            assert!((found - expected).abs() < 1e-5, "{found} {expected}");
        }
        Ok(())
    }

    #[test]
    fn only_so_many_are_kept_and_none_that_are_learnt() -> Result<()> {
        let positions = PositionTable::new(table(4)?)?;
        for cols in 1..=3 * KEPT {
            positions.for_grid(grid(2, cols))?;
        }
        assert!((1..=KEPT).contains(&positions.lock().len()));
        let learnt = Var::from_tensor(&table(4)?)?;
        let positions = PositionTable::new(learnt.as_tensor().clone())?;
        let found = positions.for_grid(grid(2, 3))?;
        assert!(positions.lock().is_empty());
        let grads = found.sum_all()?.backward()?;
        assert!(grads.get(learnt.as_tensor()).is_some());
        Ok(())
    }

    #[test]
    fn tables_that_are_no_square_are_refused() -> Result<()> {
        let rows = |n: usize| Tensor::zeros((n, 2), DType::F32, &Device::Cpu);
        assert!(PositionTable::new(rows(6)?).is_err());
        assert!(PositionTable::new(rows(0)?).is_err());
        Ok(())
    }
}
