//! [`PackedMatrix`]: weights sorted into tiles.

use super::format::BlockType;
use super::memory::WeightBytes;
use super::pack::unpack_row;
use super::stack::PackedStack;
use crate::ShapeError;
use crate::simd::dot16::ROWS;

/// A weight matrix `(rows, cols)`, outputs by inputs, in tiles of sixteen rows. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct PackedMatrix {
    kind: BlockType,
    rows: usize,
    cols: usize,
    bytes: WeightBytes,
}

impl PackedMatrix {
    /// Sorts the blocks of a GGUF tensor, row after row, on all threads.
    ///
    /// # Errors
    /// When a row has a part of a block that it must not have (see [`BlockType::blocks_per_row`]), or `blocks`
    /// is not as long as the shape says.
    pub fn from_blocks(
        kind: BlockType,
        rows: usize,
        cols: usize,
        blocks: &[u8],
    ) -> Result<Self, ShapeError> {
        let stack = PackedStack::from_blocks(kind, [1, rows, cols], blocks)?;
        Self::from_packed(kind, rows, cols, stack.bytes().clone())
    }

    /// A matrix that was packed before; `bytes` are what [`bytes`](Self::bytes) gave.
    ///
    /// # Errors
    /// When `bytes` is not as long as a packed matrix of this shape.
    pub fn from_packed(
        kind: BlockType,
        rows: usize,
        cols: usize,
        bytes: WeightBytes,
    ) -> Result<Self, ShapeError> {
        let expected = Self::packed_len(kind, rows, cols)?;
        ShapeError::check("bytes of a packed matrix", expected, bytes.len())?;
        Ok(Self {
            kind,
            rows,
            cols,
            bytes,
        })
    }

    /// How many bytes a packed matrix of this shape has.
    ///
    /// # Errors
    /// As [`BlockType::blocks_per_row`], and when the matrix does not fit in memory.
    pub fn packed_len(kind: BlockType, rows: usize, cols: usize) -> Result<usize, ShapeError> {
        kind.blocks_per_row(cols)?;
        ShapeError::product("packed matrix", &[rows, cols])?;
        let tiles = rows.div_ceil(ROWS);
        ShapeError::product("packed matrix", &[tiles, kind.tile_bytes(cols)])
    }

    /// The format of the weights.
    pub fn kind(&self) -> BlockType {
        self.kind
    }

    /// Outputs.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Inputs.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// The tiles. Their arrangement may change between versions of this crate, see
    /// [`LAYOUT_VERSION`](Self::LAYOUT_VERSION).
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Changes whenever the arrangement of packed bytes does.
    pub const LAYOUT_VERSION: u32 = 1;

    /// Writes row `row` as numbers.
    ///
    /// # Errors
    /// When there is no such row, or `out` is not as long as a row.
    pub fn dequantize_row(&self, row: usize, out: &mut [f32]) -> Result<(), ShapeError> {
        if row >= self.rows {
            return Err(ShapeError::TooLarge {
                what: "row of a packed matrix",
                limit: self.rows.saturating_sub(1),
                found: row,
            });
        }
        ShapeError::check("values of a row", self.cols, out.len())?;
        unpack_row(self.kind, self.tile(row / ROWS), row % ROWS, out);
        Ok(())
    }

    /// The number of tiles.
    pub(super) fn tiles(&self) -> usize {
        self.rows.div_ceil(ROWS)
    }

    /// Bytes of a tile.
    pub(super) fn tile_bytes(&self) -> usize {
        self.kind.tile_bytes(self.cols)
    }

    /// Tile `index`.
    fn tile(&self, index: usize) -> &[u8] {
        self.tile_range(index..index + 1)
    }

    /// Some tiles, one after the other.
    pub(super) fn tile_range(&self, tiles: std::ops::Range<usize>) -> &[u8] {
        let size = self.tile_bytes();
        &self.bytes[tiles.start * size..tiles.end * size]
    }
}
