//! The block formats of GGUF files, and how sixteen rows of each lie in a tile.
//!
//! A tile holds sixteen rows. For every 32 inputs it has a *unit*: the sixteen scales, then lines of
//! 64 bytes. Inputs are taken in eight groups of four; in a line, byte `4 r + j` belongs to row `r`
//! and input `j` of a group, so a line is an operand of the dot-product instruction as it is, or after
//! a mask and a shift:
//!
//! * bytes: line `G` holds group `G`;
//! * low four bits: line `g` of four holds group `g` in the low and group `g + 4` in the high nibbles;
//! * two more bits: line `h` of two holds groups `4 h .. 4 h + 4`, two bits each;
//! * one more bit: bit `G` of the one line belongs to group `G`.
//!
//! Formats whose blocks have 256 weights put the two numbers of a block before its eight units. All
//! levels are unsigned. A tile is as large as the rows are in the file, but for the scales and minima
//! of `Q4_K` and `Q5_K`, which take a byte each instead of six bits.
//!
//! A row of a format whose blocks have 32 weights may end within its last block; what is left of that
//! block meets nothing. Files have no such rows, but vision towers do have such layers.

use crate::simd::dot16::ROWS;
pub(crate) use crate::simd::dot16::UNIT;
use crate::{Isa, ShapeError};

/// Bytes of a line.
pub(crate) const LINE: usize = 64;

/// A block format of GGUF files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(non_camel_case_types, reason = "the formats' own names")]
pub enum BlockType {
    /// 32 weights `d (q - 8)` of 4 bits.
    Q4_0,
    /// 32 weights `d q + m` of 4 bits.
    Q4_1,
    /// 32 weights `d (q - 16)` of 5 bits.
    Q5_0,
    /// 32 weights `d q + m` of 5 bits.
    Q5_1,
    /// 32 weights `d q` of 8 bits.
    Q8_0,
    /// 256 weights `d s q - e m` of 4 bits; `s` and `m` are 6-bit numbers per 32 weights.
    Q4_K,
    /// 256 weights `d s q - e m` of 5 bits; `s` and `m` are 6-bit numbers per 32 weights.
    Q5_K,
    /// 256 weights `d s (q - 32)` of 6 bits; `s` is an 8-bit number per 16 weights.
    Q6_K,
}

impl BlockType {
    /// Every format.
    pub const ALL: [Self; 8] = [
        Self::Q4_0,
        Self::Q4_1,
        Self::Q5_0,
        Self::Q5_1,
        Self::Q8_0,
        Self::Q4_K,
        Self::Q5_K,
        Self::Q6_K,
    ];

    /// Weights per block.
    pub const fn block_len(self) -> usize {
        match self {
            Self::Q4_K | Self::Q5_K | Self::Q6_K => 256,
            _ => UNIT,
        }
    }

    /// Blocks of a row of `cols` weights.
    ///
    /// # Errors
    /// When the row ends within a block of more than 32 weights.
    pub fn blocks_per_row(self, cols: usize) -> Result<usize, ShapeError> {
        match self.block_len() {
            UNIT => Ok(cols.div_ceil(UNIT)),
            len => ShapeError::divide("columns of a packed matrix", cols, len),
        }
    }

    /// Bytes per block.
    pub const fn block_bytes(self) -> usize {
        match self {
            Self::Q4_0 => 18,
            Self::Q4_1 => 20,
            Self::Q5_0 => 22,
            Self::Q5_1 => 24,
            Self::Q8_0 => 34,
            Self::Q4_K => 144,
            Self::Q5_K => 176,
            Self::Q6_K => 210,
        }
    }

    /// The format's name in GGUF tools.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Q4_0 => "q4_0",
            Self::Q4_1 => "q4_1",
            Self::Q5_0 => "q5_0",
            Self::Q5_1 => "q5_1",
            Self::Q8_0 => "q8_0",
            Self::Q4_K => "q4_k",
            Self::Q5_K => "q5_k",
            Self::Q6_K => "q6_k",
        }
    }

    /// To how few bits activations can be rounded when they meet such weights.
    ///
    /// Weights of more than four bits deserve activations that add no error of their own. Those cost
    /// twice the arithmetic, which matters for whole prompts only.
    pub const fn precision(self) -> Precision {
        match self {
            Self::Q4_0 | Self::Q4_1 | Self::Q4_K => Precision::Int8,
            _ => Precision::Int16,
        }
    }

    /// To how few bits the kernels can round activations that meet such weights, for those who take the
    /// speed and say what it costs.
    pub const fn coarsest(self) -> Precision {
        match self {
            Self::Q4_0 | Self::Q4_1 | Self::Q4_K | Self::Q8_0 => Precision::Int8,
            _ => Precision::Int16,
        }
    }

    /// How activations that meet such weights are rounded for the most speed on these instructions: as
    /// [`coarsest`](Self::coarsest), but where words are multiplied faster than bytes of any size.
    pub fn fastest(self, isa: Isa) -> Precision {
        match (self, isa) {
            #[cfg(target_arch = "x86_64")]
            (Self::Q8_0, Isa::Avx2(_)) => Precision::Int16,
            _ => self.coarsest(),
        }
    }

    /// How the scales of a unit are stored.
    pub(super) const fn scales(self) -> Scales {
        match self {
            Self::Q4_0 | Self::Q5_0 | Self::Q8_0 => Scales::Half,
            Self::Q4_1 | Self::Q5_1 => Scales::HalfWithMinimum,
            Self::Q4_K | Self::Q5_K => Scales::ByteWithMinimum,
            Self::Q6_K => Scales::TwoBytes,
        }
    }

    /// How the levels of a unit are stored.
    pub(super) const fn levels(self) -> Levels {
        match self {
            Self::Q4_0 | Self::Q4_1 | Self::Q4_K => Levels::Four,
            Self::Q5_0 | Self::Q5_1 | Self::Q5_K => Levels::Five,
            Self::Q6_K => Levels::Six,
            Self::Q8_0 => Levels::Eight,
        }
    }

    /// The level that means zero, as a power of two; `None` for formats with minima.
    pub(super) const fn zero_bits(self) -> Option<u32> {
        match self {
            Self::Q4_0 => Some(3),
            Self::Q5_0 => Some(4),
            Self::Q6_K => Some(5),
            Self::Q8_0 => Some(7),
            Self::Q4_1 | Self::Q5_1 | Self::Q4_K | Self::Q5_K => None,
        }
    }

    /// Units per block.
    pub(super) const fn units(self) -> usize {
        self.block_len() / UNIT
    }

    /// Bytes before the units of a block, in a tile.
    pub(super) const fn head_bytes(self) -> usize {
        match self.scales() {
            Scales::Half | Scales::HalfWithMinimum => 0,
            Scales::ByteWithMinimum => 4 * ROWS,
            Scales::TwoBytes => 2 * ROWS,
        }
    }

    /// Bytes of a unit's scales and minima.
    pub(super) const fn scale_bytes(self) -> usize {
        match self.scales() {
            Scales::HalfWithMinimum => 4 * ROWS,
            Scales::Half | Scales::ByteWithMinimum | Scales::TwoBytes => 2 * ROWS,
        }
    }

    /// Bytes of a unit.
    pub(super) const fn unit_bytes(self) -> usize {
        let lines = match self.levels() {
            Levels::Four => 4,
            Levels::Five => 5,
            Levels::Six => 6,
            Levels::Eight => 8,
        };
        self.scale_bytes() + lines * LINE
    }

    /// Bytes of a tile with rows of `cols` weights.
    pub(super) const fn tile_bytes(self, cols: usize) -> usize {
        cols.div_ceil(self.block_len()) * (self.head_bytes() + self.units() * self.unit_bytes())
    }
}

impl std::fmt::Display for BlockType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// How activations are rounded, with one scale per 32 of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Precision {
    /// To whole numbers within 127: a relative error of about 0.5 %.
    Int8,
    /// To whole numbers within 16,256, kept as two bytes: a relative error of about 0.004 %.
    Int16,
}

/// How the scales of a unit are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scales {
    /// Sixteen `f16`.
    Half,
    /// Sixteen `f16`, then as many minima.
    HalfWithMinimum,
    /// Sixteen bytes, then as many minima; the head has the `f16` they are multiples of.
    ByteWithMinimum,
    /// Sixteen signed bytes for each half of the inputs; the head has the `f16` they are multiples of.
    TwoBytes,
}

/// How many bits a level has, and so which lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Levels {
    /// Four lines of nibbles.
    Four,
    /// Four lines of nibbles, one of bits.
    Five,
    /// Four lines of nibbles, two of pairs of bits.
    Six,
    /// Eight lines of bytes.
    Eight,
}
