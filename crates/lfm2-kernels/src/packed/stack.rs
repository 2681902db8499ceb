//! [`PackedStack`]: several matrices of one shape in one piece of memory, such as those of experts.

use super::format::BlockType;
use super::matrix::PackedMatrix;
use super::memory::{Pages, WeightBytes};
use super::pack::pack_tile;
use crate::ShapeError;
use crate::simd::dot16::ROWS;
use crate::threads::{SharedMut, for_each_task};

/// Matrices `(count, rows, cols)` in tiles, one matrix after another. Cloning is cheap.
///
/// Together they lie in large pages, for which each may be too small.
#[derive(Debug, Clone)]
pub struct PackedStack {
    kind: BlockType,
    shape: [usize; 3],
    bytes: WeightBytes,
}

/// Tiles one task packs.
const TASK_TILES: usize = 8;

impl PackedStack {
    /// Sorts the blocks of a GGUF tensor `(count, rows, cols)` on all threads.
    ///
    /// # Errors
    /// As [`PackedMatrix::from_blocks`].
    pub fn from_blocks(
        kind: BlockType,
        shape: [usize; 3],
        blocks: &[u8],
    ) -> Result<Self, ShapeError> {
        let len = Self::packed_len(kind, shape)?;
        let [count, rows, cols] = shape;
        let row_bytes = kind.blocks_per_row(cols)? * kind.block_bytes();
        let expected = ShapeError::product("bytes of packed matrices", &[count, rows, row_bytes])?;
        ShapeError::check("bytes of packed matrices", expected, blocks.len())?;

        let mut pages = Pages::zeroed(len);
        let tile_bytes = kind.tile_bytes(cols);
        if len > 0 {
            let shared = SharedMut::new(&mut pages[..len]);
            let (tiles, per_matrix) = (len / tile_bytes, rows.div_ceil(ROWS));
            for_each_task(tiles.div_ceil(TASK_TILES), len, |task| {
                for tile in task * TASK_TILES..tiles.min((task + 1) * TASK_TILES) {
                    let (matrix, first) = (tile / per_matrix, tile % per_matrix * ROWS);
                    let present = ROWS.min(rows - first);
                    let own = &blocks[(matrix * rows + first) * row_bytes..];
                    let own = own[..present * row_bytes].chunks_exact(row_bytes);
                    // SAFETY: tiles are disjoint.
                    let target = unsafe { shared.slice(tile * tile_bytes, tile_bytes) };
                    pack_tile(kind, own, target);
                }
            });
        }
        let bytes = pages.into();
        Ok(Self { kind, shape, bytes })
    }

    /// Matrices that were packed before; `bytes` are what [`bytes`](Self::bytes) gave.
    ///
    /// # Errors
    /// When `bytes` is not as long as packed matrices of this shape.
    pub fn from_packed(
        kind: BlockType,
        shape: [usize; 3],
        bytes: WeightBytes,
    ) -> Result<Self, ShapeError> {
        let expected = Self::packed_len(kind, shape)?;
        ShapeError::check("bytes of packed matrices", expected, bytes.len())?;
        Ok(Self { kind, shape, bytes })
    }

    /// How many bytes packed matrices of this shape have.
    ///
    /// # Errors
    /// As [`PackedMatrix::packed_len`].
    pub fn packed_len(kind: BlockType, shape: [usize; 3]) -> Result<usize, ShapeError> {
        let [count, rows, cols] = shape;
        let each = PackedMatrix::packed_len(kind, rows, cols)?;
        ShapeError::product("packed matrices", &[count, each])
    }

    /// The format of the weights.
    pub fn kind(&self) -> BlockType {
        self.kind
    }

    /// The tiles, see [`PackedMatrix::bytes`].
    pub fn bytes(&self) -> &WeightBytes {
        &self.bytes
    }

    /// Matrix `index`, which shares the memory of the stack; `None` when there are fewer.
    pub fn matrix(&self, index: usize) -> Option<PackedMatrix> {
        let [count, rows, cols] = self.shape;
        let each = self.bytes.len().checked_div(count)?;
        let bytes = self.bytes.part(index.checked_mul(each)?, each);
        let bytes = bytes.filter(|_| index < count)?;
        PackedMatrix::from_packed(self.kind, rows, cols, bytes).ok()
    }
}
