//! Sorting GGUF blocks into tiles, and reading rows back.

use super::format::{BlockType, LINE, Levels, Scales, UNIT};
use crate::simd::dot16::ROWS;

/// Groups of four levels in a unit.
const GROUPS: usize = UNIT / 4;

/// A mask with the same byte four times.
const fn every(byte: u8) -> u32 {
    u32::from_ne_bytes([byte; 4])
}

/// 32 weights of one row.
struct Unit {
    /// Four levels per word, one in each byte, in the order of memory.
    levels: [u32; GROUPS],
    /// The stored bytes of the scale or scales.
    scale: [u8; 2],
    /// The stored bytes of the minimum, of the width of a scale.
    minimum: [u8; 2],
}

/// Word `index` of `bytes`.
fn word(bytes: &[u8], index: usize) -> u32 {
    let at = 4 * index;
    u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// Bits `4 * group ..` of `bits`, one in each byte.
fn spread(bits: u32, group: usize) -> u32 {
    let four = (bits >> (4 * group)) & 15;
    // Bit i lands at i + 7 k for every k; byte k keeps the one at its bottom.
    (four.wrapping_mul(0x0020_4081) & 0x0101_0101).to_le()
}

/// Scale and minimum `index` of a block whose 6-bit numbers are in `bytes`.
fn six_bit_pair(bytes: &[u8], index: usize) -> (u8, u8) {
    if index < 4 {
        (bytes[index] & 63, bytes[index + 4] & 63)
    } else {
        let both = bytes[index + 4];
        let top = |byte: u8| byte >> 6 << 4;
        (
            both & 15 | top(bytes[index - 4]),
            both >> 4 | top(bytes[index]),
        )
    }
}

/// The minimum of formats that store what is added.
fn negated(half: [u8; 2]) -> [u8; 2] {
    [half[0], half[1] ^ 0x80]
}

impl Unit {
    /// Unit `index` of a block.
    #[inline(always)]
    fn read(kind: BlockType, block: &[u8], index: usize) -> Self {
        let nibbles = |bytes: &[u8]| {
            std::array::from_fn(|g| (word(bytes, g % 4) >> (4 * (g / 4))) & every(15))
        };
        let with_fifth = |levels: [u32; GROUPS], bits: u32| {
            std::array::from_fn(|g| levels[g] | spread(bits, g) << 4)
        };
        let pair = |at: usize| [block[at], block[at + 1]];
        let bits = |at: usize| {
            u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]])
        };
        // Two units of these formats share 32 bytes of nibbles.
        let shared = |bytes: &[u8]| {
            let bytes = &bytes[index / 2 * UNIT..];
            std::array::from_fn(|g| (word(bytes, g) >> (4 * (index % 2))) & every(15))
        };
        let (levels, scale, minimum) = match kind {
            BlockType::Q4_0 => (nibbles(&block[2..]), pair(0), [0; 2]),
            BlockType::Q4_1 => (nibbles(&block[4..]), pair(0), negated(pair(2))),
            BlockType::Q5_0 => (with_fifth(nibbles(&block[6..]), bits(2)), pair(0), [0; 2]),
            BlockType::Q5_1 => {
                let levels = with_fifth(nibbles(&block[8..]), bits(4));
                (levels, pair(0), negated(pair(2)))
            }
            BlockType::Q8_0 => {
                let levels = std::array::from_fn(|g| word(&block[2..], g) ^ every(0x80));
                (levels, pair(0), [0; 2])
            }
            BlockType::Q4_K => {
                let (s, m) = six_bit_pair(&block[4..16], index);
                (shared(&block[16..]), [s, 0], [m, 0])
            }
            BlockType::Q5_K => {
                let (s, m) = six_bit_pair(&block[4..16], index);
                let low: [u32; GROUPS] = shared(&block[48..]);
                let fifth = |g| (word(&block[16..], g) >> index) & every(1);
                (
                    std::array::from_fn(|g| low[g] | fifth(g) << 4),
                    [s, 0],
                    [m, 0],
                )
            }
            BlockType::Q6_K => {
                let (half, quarter) = (index / 4, index % 4);
                let low = &block[half * 64 + quarter % 2 * UNIT..];
                let high = &block[128 + half * UNIT..];
                let levels = std::array::from_fn(|g| {
                    let low = (word(low, g) >> (quarter / 2 * 4)) & every(15);
                    low | ((word(high, g) >> (2 * quarter)) & every(3)) << 4
                });
                (levels, pair(192 + 2 * index), [0; 2])
            }
        };
        Self {
            levels,
            scale,
            minimum,
        }
    }

    /// Writes row `row` of a unit of a tile.
    #[inline(always)]
    fn write(&self, kind: BlockType, unit: &mut [u8], row: usize) {
        let (scales, lines) = unit.split_at_mut(kind.scale_bytes());
        match kind.scales() {
            Scales::Half | Scales::HalfWithMinimum => {
                scales[2 * row..][..2].copy_from_slice(&self.scale);
                if let Some(minima) = scales.get_mut(2 * ROWS..).filter(|m| !m.is_empty()) {
                    minima[2 * row..][..2].copy_from_slice(&self.minimum);
                }
            }
            Scales::ByteWithMinimum => {
                scales[row] = self.scale[0];
                scales[ROWS + row] = self.minimum[0];
            }
            Scales::TwoBytes => {
                scales[row] = self.scale[0];
                scales[ROWS + row] = self.scale[1];
            }
        }
        let mut put = |line: usize, value: u32| {
            lines[line * LINE + 4 * row..][..4].copy_from_slice(&value.to_ne_bytes());
        };
        let q = &self.levels;
        if kind.levels() == Levels::Eight {
            (0..GROUPS).for_each(|g| put(g, q[g]));
            return;
        }
        for g in 0..4 {
            put(g, q[g] & every(15) | (q[g + 4] & every(15)) << 4);
        }
        match kind.levels() {
            Levels::Five => put(
                4,
                (0..GROUPS).fold(0, |bits, g| bits | (q[g] >> 4 & every(1)) << g),
            ),
            Levels::Six => {
                for h in 0..2 {
                    let bits = |f: usize| (q[4 * h + f] >> 4 & every(3)) << (2 * f);
                    put(4 + h, bits(0) | bits(1) | bits(2) | bits(3));
                }
            }
            Levels::Four | Levels::Eight => {}
        }
    }

    /// The levels in order.
    fn levels(&self) -> impl Iterator<Item = f32> {
        self.levels
            .iter()
            .flat_map(|word| word.to_ne_bytes())
            .map(f32::from)
    }

    /// Reads row `row` of a unit of a tile back.
    fn read_back(kind: BlockType, unit: &[u8], row: usize) -> Self {
        let (scales, lines) = unit.split_at(kind.scale_bytes());
        let line = |line: usize| word(&lines[line * LINE..], row);
        let nibbles = |g: usize| (line(g % 4) >> (4 * (g / 4))) & every(15);
        let levels = std::array::from_fn(|g| match kind.levels() {
            Levels::Eight => line(g),
            Levels::Four => nibbles(g),
            Levels::Five => nibbles(g) | ((line(4) >> g) & every(1)) << 4,
            Levels::Six => nibbles(g) | ((line(4 + g / 4) >> (2 * (g % 4))) & every(3)) << 4,
        });
        let pair = |at: usize| [scales[at + 2 * row], scales[at + 2 * row + 1]];
        let bytes = [scales[row], scales[ROWS + row]];
        let (scale, minimum) = match kind.scales() {
            Scales::Half => (pair(0), [0; 2]),
            Scales::HalfWithMinimum => (pair(0), pair(2 * ROWS)),
            Scales::ByteWithMinimum => ([bytes[0], 0], [bytes[1], 0]),
            Scales::TwoBytes => (bytes, [0; 2]),
        };
        Self {
            levels,
            scale,
            minimum,
        }
    }
}

/// Where the `f16` numbers of a block are in the file's blocks, if tiles keep them in a head.
fn head_numbers(kind: BlockType) -> &'static [usize] {
    match kind.scales() {
        Scales::Half | Scales::HalfWithMinimum => &[],
        Scales::ByteWithMinimum => &[0, 2],
        Scales::TwoBytes => &[208],
    }
}

/// Writes the blocks of up to sixteen rows as a tile, which was zero.
pub(super) fn pack_tile<'a>(
    kind: BlockType,
    rows: impl Iterator<Item = &'a [u8]>,
    tile: &mut [u8],
) {
    // Each format gets a loop of its own, in which every choice by format is gone.
    macro_rules! each {
        ($($name:ident)+) => {
            match kind {
                $(BlockType::$name => pack_tile_of(BlockType::$name, rows, tile),)+
            }
        };
    }
    each!(Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q4_K Q5_K Q6_K);
}

#[inline(always)]
fn pack_tile_of<'a>(kind: BlockType, rows: impl Iterator<Item = &'a [u8]>, tile: &mut [u8]) {
    let head_bytes = kind.head_bytes();
    let block_in_tile = head_bytes + kind.units() * kind.unit_bytes();
    for (row, blocks) in rows.enumerate() {
        let blocks = blocks.chunks_exact(kind.block_bytes());
        for (block, target) in blocks.zip(tile.chunks_exact_mut(block_in_tile)) {
            let (head, units) = target.split_at_mut(head_bytes);
            for (number, &at) in head_numbers(kind).iter().enumerate() {
                head[2 * (number * ROWS + row)..][..2].copy_from_slice(&block[at..at + 2]);
            }
            for (index, unit) in units.chunks_exact_mut(kind.unit_bytes()).enumerate() {
                Unit::read(kind, block, index).write(kind, unit, row);
            }
        }
    }
}

/// The weights of row `row` of a tile.
pub(super) fn unpack_row(kind: BlockType, tile: &[u8], row: usize, out: &mut [f32]) {
    let half = |bytes: [u8; 2]| half::f16::from_le_bytes(bytes).to_f32();
    let head_bytes = kind.head_bytes();
    let block_in_tile = head_bytes + kind.units() * kind.unit_bytes();
    let zero = kind.zero_bits().map_or(0.0, |bits| (1_u32 << bits) as f32);
    let blocks = tile.chunks_exact(block_in_tile);
    for (block, out) in blocks.zip(out.chunks_mut(kind.block_len())) {
        let (head, units) = block.split_at(head_bytes);
        let number = |index: usize| {
            let at = 2 * (index * ROWS + row);
            half([head[at], head[at + 1]])
        };
        let units = units.chunks_exact(kind.unit_bytes());
        for (unit, out) in units.zip(out.chunks_mut(UNIT)) {
            let unit = Unit::read_back(kind, unit, row);
            let (scales, minimum) = match kind.scales() {
                Scales::Half => ([half(unit.scale); 2], 0.0),
                Scales::HalfWithMinimum => ([half(unit.scale); 2], half(unit.minimum)),
                Scales::ByteWithMinimum => (
                    [number(0) * f32::from(unit.scale[0]); 2],
                    number(1) * f32::from(unit.minimum[0]),
                ),
                Scales::TwoBytes => (
                    unit.scale.map(|s| number(0) * f32::from(s.cast_signed())),
                    0.0,
                ),
            };
            for ((i, level), out) in unit.levels().enumerate().zip(out) {
                *out = scales[i / (UNIT / 2)] * (level - zero) - minimum;
            }
        }
    }
}
