//! Making `Q4_K` and `Q5_K` blocks.
//!
//! A block holds 256 weights in eight groups of 32. A weight is `scale * level - minimum`, where
//! scale and minimum of a group are 6-bit multiples of two numbers of the block. The search for
//! them follows the reference implementation of the format: each of several stretches of the range
//! gives levels, the best scale and minimum for these levels come from weighted least squares, and
//! the stretch with the smallest error wins. Candle's own search is coarser, its error 4 % larger.

use half::f16;

const BLOCK: usize = 256;
const GROUP: usize = 32;
const GROUPS: usize = BLOCK / GROUP;
/// The largest 6-bit multiple.
const MULTIPLES: f32 = 63.0;

/// The levels of a type, and the stretches that are tried.
struct Search {
    /// The highest level.
    top: f32,
    /// The first stretch, in levels more than `top`.
    first: f32,
    /// How many stretches are tried, a tenth of a level apart.
    stretches: u8,
}

const Q4: Search = Search {
    top: 15.0,
    first: -1.0,
    stretches: 21,
};
const Q5: Search = Search {
    top: 31.0,
    first: -0.5,
    stretches: 16,
};

/// Scale and minimum (the amount below zero) of a group.
#[derive(Clone, Copy, Default)]
struct Range {
    scale: f32,
    minimum: f32,
}

/// The parts of a block that both types share.
struct Quantized {
    scale: f16,
    minimum: f16,
    /// Scales and minima of the groups, as multiples of the two above.
    multiples: [(u8, u8); GROUPS],
    levels: [u8; BLOCK],
}

/// The bytes of `Q4_K` blocks for whole blocks of values.
pub(super) fn q4_k(values: &[f32]) -> Vec<u8> {
    let mut out = Vec::with_capacity(values.len() / BLOCK * 144);
    for block in values.as_chunks::<BLOCK>().0 {
        let block = Quantized::new(block, &Q4);
        block.put_head(&mut out);
        block.put_low_bits(&mut out);
    }
    out
}

/// The bytes of `Q5_K` blocks for whole blocks of values.
pub(super) fn q5_k(values: &[f32]) -> Vec<u8> {
    let mut out = Vec::with_capacity(values.len() / BLOCK * 176);
    for block in values.as_chunks::<BLOCK>().0 {
        let block = Quantized::new(block, &Q5);
        block.put_head(&mut out);
        block.put_high_bits(&mut out);
        block.put_low_bits(&mut out);
    }
    out
}

impl Quantized {
    fn new(values: &[f32; BLOCK], search: &Search) -> Self {
        let groups = values.as_chunks::<GROUP>().0;
        let mut ranges = [Range::default(); GROUPS];
        for (range, group) in ranges.iter_mut().zip(groups) {
            *range = search.best(group);
        }
        let largest = |of: fn(&Range) -> f32| ranges.iter().map(of).fold(0.0, f32::max);
        let (scale, minimum) = (largest(|range| range.scale), largest(|range| range.minimum));
        let multiple = |part: f32, whole: f32| match whole > 0.0 {
            true => (MULTIPLES / whole * part)
                .round_ties_even()
                .clamp(0.0, MULTIPLES) as u8,
            false => 0,
        };
        let multiples = ranges.map(|range| {
            (
                multiple(range.scale, scale),
                multiple(range.minimum, minimum),
            )
        });
        let (scale, minimum) = (
            f16::from_f32(scale / MULTIPLES),
            f16::from_f32(minimum / MULTIPLES),
        );

        let mut levels = [0; BLOCK];
        for ((levels, group), (s, m)) in levels
            .as_chunks_mut::<GROUP>()
            .0
            .iter_mut()
            .zip(groups)
            .zip(multiples)
        {
            let (step, offset) = (
                scale.to_f32() * f32::from(s),
                minimum.to_f32() * f32::from(m),
            );
            if step == 0.0 {
                continue;
            }
            for (level, value) in levels.iter_mut().zip(group) {
                *level = ((value + offset) / step)
                    .round_ties_even()
                    .clamp(0.0, search.top) as u8;
            }
        }
        Self {
            scale,
            minimum,
            multiples,
            levels,
        }
    }

    /// The two numbers of the block and twelve bytes with the 6-bit multiples: the first four
    /// scales and minima in the low bits of eight bytes, the last four spread over the nibbles of
    /// four bytes and the two high bits of the eight.
    fn put_head(&self, out: &mut Vec<u8>) {
        out.extend(self.scale.to_le_bytes());
        out.extend(self.minimum.to_le_bytes());
        let (first, last) = self.multiples.split_at(GROUPS / 2);
        out.extend(
            first
                .iter()
                .zip(last)
                .map(|((scale, _), (high, _))| scale | (high >> 4) << 6),
        );
        out.extend(
            first
                .iter()
                .zip(last)
                .map(|((_, minimum), (_, high))| minimum | (high >> 4) << 6),
        );
        out.extend(
            last.iter()
                .map(|(scale, minimum)| (scale & 15) | (minimum & 15) << 4),
        );
    }

    /// The low four bits of the levels, two groups to a run of bytes.
    fn put_low_bits(&self, out: &mut Vec<u8>) {
        for pair in self.levels.as_chunks::<{ 2 * GROUP }>().0 {
            let (low, high) = pair.split_at(GROUP);
            out.extend(
                low.iter()
                    .zip(high)
                    .map(|(low, high)| (low & 15) | (high & 15) << 4),
            );
        }
    }

    /// The fifth bits of the levels, one bit of each byte per group.
    fn put_high_bits(&self, out: &mut Vec<u8>) {
        let mut bits = [0; GROUP];
        for (number, group) in self.levels.as_chunks::<GROUP>().0.iter().enumerate() {
            for (bits, level) in bits.iter_mut().zip(group) {
                *bits |= (level >> 4) << number;
            }
        }
        out.extend(bits);
    }
}

impl Search {
    /// The range of a group with the smallest weighted error. Large weights count more.
    fn best(&self, values: &[f32; GROUP]) -> Range {
        let mean_square = values.iter().map(|value| value * value).sum::<f32>() / GROUP as f32;
        let weights = values.map(|value| mean_square.sqrt() + value.abs());
        let lowest = values.iter().copied().fold(0.0, f32::min);
        let highest = values.iter().copied().fold(f32::MIN, f32::max);
        if highest <= lowest {
            return Range {
                scale: 0.0,
                minimum: -lowest,
            };
        }
        let width = highest - lowest;
        let mut best = Range {
            scale: width / self.top,
            minimum: -lowest,
        };
        let mut least = error(
            best,
            values,
            &weights,
            &self.levels(values, self.top / width, lowest),
        );
        for stretch in 0..self.stretches {
            let inverse = (self.top + self.first + 0.1 * f32::from(stretch)) / width;
            let levels = self.levels(values, inverse, lowest);
            let Some(range) = fit(values, &weights, &levels) else {
                continue;
            };
            let found = error(range, values, &weights, &levels);
            if found < least {
                (best, least) = (range, found);
            }
        }
        best
    }

    /// The nearest level of each value when the lowest value is level 0.
    fn levels(&self, values: &[f32; GROUP], inverse_scale: f32, lowest: f32) -> [f32; GROUP] {
        // Adding this leaves no bits for a fraction, which rounds ties to even like the library
        // function; that one is a call on CPUs without SSE4.1.
        const ROUND: f32 = 8_388_608.0;
        let mut levels = [0.0; GROUP];
        for i in 0..GROUP {
            let level = (inverse_scale * (values[i] - lowest)).clamp(0.0, self.top);
            levels[i] = (level + ROUND) - ROUND;
        }
        levels
    }
}

/// The weighted squared error of levels in a range.
fn error(
    range: Range,
    values: &[f32; GROUP],
    weights: &[f32; GROUP],
    levels: &[f32; GROUP],
) -> f32 {
    let mut sum = 0.0;
    for i in 0..GROUP {
        let difference = range.scale * levels[i] - range.minimum - values[i];
        sum += weights[i] * difference * difference;
    }
    sum
}

/// The range that fits values best for given levels; `None` when the levels are all the same.
fn fit(values: &[f32; GROUP], weights: &[f32; GROUP], levels: &[f32; GROUP]) -> Option<Range> {
    let (mut w, mut x, mut l, mut ll, mut lx) = (0f32, 0f32, 0f32, 0f32, 0f32);
    for i in 0..GROUP {
        let weighted_level = weights[i] * levels[i];
        w += weights[i];
        x += weights[i] * values[i];
        l += weighted_level;
        ll += weighted_level * levels[i];
        lx += weighted_level * values[i];
    }
    let determinant = w * ll - l * l;
    if determinant <= 0.0 {
        return None;
    }
    let minimum = (l * lx - ll * x) / determinant;
    // The format has no minimum above zero.
    Some(match minimum < 0.0 {
        true => Range {
            scale: lx / ll,
            minimum: 0.0,
        },
        false => Range {
            scale: (w * lx - x * l) / determinant,
            minimum,
        },
    })
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use candle_core::quantized::{GgmlDType, QStorage, QTensor};
    use candle_core::{Device, Tensor};

    use super::*;

    type Quantize = fn(&[f32]) -> Vec<u8>;
    const KINDS: [(GgmlDType, Quantize); 2] = [(GgmlDType::Q4K, q4_k), (GgmlDType::Q5K, q5_k)];

    /// What a reader of the format makes of the bytes.
    fn read(bytes: Vec<u8>, kind: GgmlDType, count: usize) -> Vec<f32> {
        let storage = QStorage::from_data(Cow::Owned(bytes), &Device::Cpu, kind).unwrap();
        let tensor = QTensor::new(storage, count)
            .unwrap()
            .dequantize(&Device::Cpu)
            .unwrap();
        tensor.to_vec1().unwrap()
    }

    fn error(values: &[f32], read: &[f32]) -> f32 {
        let sum: f32 = values
            .iter()
            .zip(read)
            .map(|(a, b)| (a - b) * (a - b))
            .sum();
        (sum / values.len() as f32).sqrt()
    }

    /// Sums of uniform numbers, which is close to how weights are spread.
    fn weights(count: usize) -> Vec<f32> {
        let mut state = 1u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 24) as f32 - 0.5
        };
        (0..count).map(|_| (0..12).map(|_| next()).sum()).collect()
    }

    #[test]
    fn the_error_is_that_of_the_reference_and_below_candles() {
        let values = weights(64 * BLOCK);
        let tensor = Tensor::from_slice(&values, values.len(), &Device::Cpu).unwrap();
        // Measured with the reference implementation on normal numbers.
        for ((kind, quantize), bound) in KINDS.into_iter().zip([0.073, 0.037]) {
            let ours = error(&values, &read(quantize(&values), kind, values.len()));
            let theirs = QTensor::quantize(&tensor, kind)
                .unwrap()
                .dequantize(&Device::Cpu)
                .unwrap();
            let theirs = error(&values, &theirs.to_vec1::<f32>().unwrap());
            assert!(
                ours < bound && ours < theirs,
                "{kind:?}: {ours}, candle {theirs}"
            );
        }
    }

    #[test]
    fn constant_and_one_sided_blocks_read_back() {
        for value in [0.0, 0.25, -0.25, 1e-8, -1e4] {
            for (kind, quantize) in KINDS {
                let read = read(quantize(&[value; BLOCK]), kind, BLOCK);
                let worst = read.iter().map(|r| (r - value).abs()).fold(0.0, f32::max);
                assert!(
                    worst <= value.abs() * 0.01 + 1e-6,
                    "{kind:?} {value}: {worst}"
                );
            }
        }
    }

    #[test]
    fn groups_of_very_different_size_do_not_disturb_each_other() {
        let mut values = weights(BLOCK);
        values[..GROUP].iter_mut().for_each(|value| *value *= 60.0);
        for (kind, quantize) in KINDS {
            let read = read(quantize(&values), kind, BLOCK);
            assert!(error(&values[GROUP..], &read[GROUP..]) < 0.5, "{kind:?}");
        }
    }
}
