//! Random blocks of every format, and their weights by the formats' definition.

use half::f16;

use crate::packed::BlockType;
use crate::tests::Random;

/// Rows of random blocks whose scales are small positive numbers.
pub(super) fn random(kind: BlockType, rows: usize, cols: usize, seed: u64) -> Vec<u8> {
    let mut random = Random(seed);
    let mut bytes = Vec::new();
    for _ in 0..rows * cols / kind.block_len() {
        let start = bytes.len();
        let byte = |random: &mut Random| (random.next() * 128.0).floor() as i8 as u8;
        bytes.extend((0..kind.block_bytes()).map(|_| byte(&mut random)));
        for at in half_numbers(kind) {
            let value = f16::from_f32(0.01 + random.next().abs() * 0.02);
            bytes[start + at..start + at + 2].copy_from_slice(&value.to_le_bytes());
        }
    }
    bytes
}

/// Where the `f16` numbers of a block are.
fn half_numbers(kind: BlockType) -> Vec<usize> {
    match kind {
        BlockType::Q4_0 | BlockType::Q5_0 | BlockType::Q8_0 => vec![0],
        BlockType::Q4_1 | BlockType::Q5_1 | BlockType::Q4_K | BlockType::Q5_K => vec![0, 2],
        BlockType::Q6_K => vec![208],
    }
}

/// All weights.
pub(super) fn dequantize(kind: BlockType, bytes: &[u8]) -> Vec<f32> {
    bytes
        .chunks(kind.block_bytes())
        .flat_map(|block| one_block(kind, block))
        .collect()
}

fn half(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

/// Bit `index` of little-endian bytes.
fn bit(bytes: &[u8], index: usize) -> u8 {
    bytes[index / 8] >> (index % 8) & 1
}

/// Nibble `j` of 32 in 16 bytes: the low ones first.
fn nibble(bytes: &[u8], j: usize) -> u8 {
    bytes[j % 16] >> (4 * (j / 16)) & 15
}

/// The 6-bit scale and minimum of group `g` of a K block.
fn scale_and_minimum(scales: &[u8], g: usize) -> (f32, f32) {
    let (s, m) = if g < 4 {
        (scales[g] & 63, scales[g + 4] & 63)
    } else {
        (
            (scales[g + 4] & 15) | ((scales[g - 4] >> 6) << 4),
            (scales[g + 4] >> 4) | ((scales[g] >> 6) << 4),
        )
    };
    (f32::from(s), f32::from(m))
}

fn one_block(kind: BlockType, block: &[u8]) -> Vec<f32> {
    let weight = |j: usize| -> f32 {
        let d = half(block, 0);
        match kind {
            BlockType::Q4_0 => d * (f32::from(nibble(&block[2..], j)) - 8.0),
            BlockType::Q4_1 => d * f32::from(nibble(&block[4..], j)) + half(block, 2),
            BlockType::Q5_0 => {
                let q = nibble(&block[6..], j) | bit(&block[2..6], j) << 4;
                d * (f32::from(q) - 16.0)
            }
            BlockType::Q5_1 => {
                let q = nibble(&block[8..], j) | bit(&block[4..8], j) << 4;
                d * f32::from(q) + half(block, 2)
            }
            BlockType::Q8_0 => d * f32::from(block[2 + j] as i8),
            BlockType::Q4_K | BlockType::Q5_K => {
                let g = j / 32;
                let (s, m) = scale_and_minimum(&block[4..16], g);
                let low = if kind == BlockType::Q4_K { 16 } else { 48 };
                let mut q = block[low + j / 64 * 32 + j % 32] >> (4 * (g % 2)) & 15;
                if kind == BlockType::Q5_K {
                    q |= (block[16 + j % 32] >> g & 1) << 4;
                }
                d * s * f32::from(q) - half(block, 2) * m
            }
            BlockType::Q6_K => {
                let (part, l) = (j / 128, j % 32);
                let quarter = j % 128 / 32;
                let low = block[part * 64 + quarter % 2 * 32 + l] >> (quarter / 2 * 4) & 15;
                let high = block[128 + part * 32 + l] >> (2 * quarter) & 3;
                let scale = block[192 + j / 16] as i8;
                half(block, 208) * f32::from(scale) * (f32::from(low | high << 4) - 32.0)
            }
        }
    };
    (0..kind.block_len()).map(weight).collect()
}
