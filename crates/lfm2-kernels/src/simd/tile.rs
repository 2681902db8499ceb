//! The register tile all compute-bound kernels are made of.

use super::Simd;

/// Rows of a matrix whose values are broadcast one by one.
#[derive(Clone, Copy)]
pub(crate) struct Broadcast {
    pub(crate) start: *const f32,
    /// From a row to the next.
    pub(crate) row: usize,
    /// From a step of the sum to the next.
    pub(crate) step: usize,
}

/// Columns of a matrix, read a few vectors at a time.
#[derive(Clone, Copy)]
pub(crate) struct Columns {
    pub(crate) start: *const f32,
    /// From a step of the sum to the next.
    pub(crate) step: usize,
}

/// Accumulators: `R` rows of `C` vectors.
pub(crate) type Tile<S, const R: usize, const C: usize> = [[<S as Simd>::V; C]; R];

/// `tile[r][c] += sum over steps of a[r][step] * b[step][c]`
///
/// Each step reads `C` vectors and `R` scalars for `R * C` multiply-adds, all of which stay in
/// registers when `R * C + C + 1` of them exist. Callers make the strides of `a` constants, so that
/// one pointer and fixed offsets address all rows.
///
/// # Safety
/// For each `r < R` and `step < steps`, a value must be readable at `a.start + r * a.row +
/// step * a.step` and `C * S::LANES` values at `b.start + step * b.step`.
#[inline(always)]
pub(crate) unsafe fn accumulate<S: Simd, const R: usize, const C: usize>(
    s: S,
    mut tile: Tile<S, R, C>,
    steps: usize,
    a: Broadcast,
    b: Columns,
) -> Tile<S, R, C> {
    for step in 0..steps {
        let mut columns = [s.zero(); C];
        for c in 0..C {
            // SAFETY: readable by the contract.
            columns[c] = unsafe { s.load_f32(b.start.add(step * b.step + c * S::LANES)) };
        }
        for r in 0..R {
            // SAFETY: readable by the contract.
            let value = s.splat(unsafe { *a.start.add(r * a.row + step * a.step) });
            for c in 0..C {
                tile[r][c] = s.mul_add(value, columns[c], tile[r][c]);
            }
        }
    }
    tile
}

/// Calls `$body` with the tile's number of rows bound to `$rows`: as many as the registers of the
/// instruction set hold beside two columns. All of them divide 96.
macro_rules! with_tile_rows {
    ($lanes:expr, $rows:ident => $body:expr) => {
        match $lanes {
            16 => {
                const $rows: usize = 12;
                $body
            }
            8 => {
                const $rows: usize = 6;
                $body
            }
            _ => {
                const $rows: usize = 4;
                $body
            }
        }
    };
}
pub(crate) use with_tile_rows;
