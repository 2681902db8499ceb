//! Resizing as the reference does it: antialiased, on 8-bit values, in fixed-point arithmetic.
//!
//! Two passes, along the rows and then down the columns; what the first one makes is rounded to 8 bits,
//! and a pass that would not change the size is left out. Another filter, or the same one in floats,
//! gives other pixels: up to 24 levels away for the cubic one, which is enough to change answers.

use std::borrow::Cow;

use lfm2_hub::Result;

use crate::picture::{CHANNELS, Picture};

/// Rows that go through a pass along the rows together, so that their values fill whole vectors.
const ROWS: usize = 16;

/// The finest that fixed-point weights can be.
const MAX_PRECISION: u32 = 22;

/// Weights stay below this, so that they would fit into 16 bits.
const WEIGHT_LIMIT: i64 = 1 << 15;

/// How pixels between pixels are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Filter {
    /// A triangle, two pixels wide where nothing shrinks.
    Bilinear,
    /// The cubic convolution with coefficient -0.5, four pixels wide where nothing shrinks.
    Bicubic,
}

impl Filter {
    /// The filter that processor settings call `code`, which are Pillow's numbers.
    pub fn from_code(code: u64) -> Option<Self> {
        match code {
            2 => Some(Self::Bilinear),
            3 => Some(Self::Bicubic),
            _ => None,
        }
    }

    fn half_width(self) -> f64 {
        match self {
            Self::Bilinear => 1.0,
            Self::Bicubic => 2.0,
        }
    }

    fn weight(self, x: f64) -> f64 {
        const A: f64 = -0.5;
        let x = x.abs();
        match self {
            Self::Bilinear if x < 1.0 => 1.0 - x,
            Self::Bicubic if x < 1.0 => ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0,
            Self::Bicubic if x < 2.0 => (((x - 5.0) * x + 8.0) * x - 4.0) * A,
            _ => 0.0,
        }
    }
}

/// What one place of a resized axis is made of.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Taps<W> {
    /// The first place of the original axis.
    pub(crate) first: usize,
    /// One weight for this place and those behind it.
    pub(crate) weights: Vec<W>,
}

/// The taps of every place of an axis that goes from `from` places to `to`; weights add up to 1.
pub(crate) fn axis(filter: Filter, from: usize, to: usize) -> Vec<Taps<f64>> {
    let scale = from as f64 / to as f64;
    let stretch = scale.max(1.0);
    let half = filter.half_width() * stretch;
    let taps = |place: usize| {
        let centre = scale * (place as f64 + 0.5);
        // Casts of negative numbers give 0 here, which is the border.
        let first = (centre - half + 0.5) as usize;
        let end = ((centre + half + 0.5) as usize).min(from);
        let at = |tap: usize| filter.weight((tap as f64 - centre + 0.5) * stretch.recip());
        let mut weights: Vec<f64> = (first..end).map(at).collect();
        let sum: f64 = weights.iter().sum();
        if sum != 0.0 {
            weights.iter_mut().for_each(|w| *w /= sum);
        }
        Taps { first, weights }
    };
    (0..to).map(taps).collect()
}

/// An axis in fixed-point numbers with `precision` bits behind the point.
struct FixedAxis {
    taps: Vec<Taps<i32>>,
    precision: u32,
}

impl FixedAxis {
    fn new(filter: Filter, from: usize, to: usize) -> Self {
        let taps = axis(filter, from, to);
        let weights = taps.iter().flat_map(|t| &t.weights);
        let largest = weights.fold(0.0, |max: f64, &w| max.max(w));
        let too_large =
            |bits: &u32| (0.5 + largest * f64::from(1_u32 << (bits + 1))) as i64 >= WEIGHT_LIMIT;
        let precision = (0..MAX_PRECISION).find(too_large).unwrap_or(MAX_PRECISION);
        let one = f64::from(1_u32 << precision);
        // `round` goes away from zero at halves, as it has to.
        let fixed = |t: Taps<f64>| Taps {
            first: t.first,
            weights: t.weights.iter().map(|w| (w * one).round() as i32).collect(),
        };
        Self {
            taps: taps.into_iter().map(fixed).collect(),
            precision,
        }
    }

    /// The value that a sum of weighted values stands for.
    fn round(&self, sum: i32) -> u8 {
        let half = (1_i32 << self.precision) >> 1;
        ((sum + half) >> self.precision).clamp(0, 255) as u8
    }
}

/// `picture` stretched to `width` x `height`, bit for bit as torchvision does it with antialiasing.
///
/// # Errors
/// When a side is 0.
pub fn resize(picture: &Picture, width: usize, height: usize, filter: Filter) -> Result<Picture> {
    if width == 0 || height == 0 {
        return Picture::new(width, height, Vec::new());
    }
    let mut resized = Cow::Borrowed(picture);
    if width != picture.width() {
        let axis = FixedAxis::new(filter, picture.width(), width);
        let pixels = along_rows(picture.pixels(), picture.width(), &axis);
        resized = Cow::Owned(Picture::new(width, picture.height(), pixels)?);
    }
    if height != picture.height() {
        let axis = FixedAxis::new(filter, picture.height(), height);
        let pixels = down_columns(&resized, &axis);
        resized = Cow::Owned(Picture::new(width, height, pixels)?);
    }
    Ok(resized.into_owned())
}

/// Rows of `width` pixels to rows of as many as `axis` has places.
///
/// A few rows at a time are turned so that the values of one column are neighbours: a tap is then one
/// multiplication of whole vectors, however short the rows and whatever the filter.
fn along_rows(pixels: &[u8], width: usize, axis: &FixedAxis) -> Vec<u8> {
    const LANES: usize = ROWS * CHANNELS;
    let places = axis.taps.len();
    let rows = pixels.len() / (width * CHANNELS);
    let mut out = vec![0; rows * places * CHANNELS];
    let mut turned = vec![0_u8; width * LANES];
    let sources = pixels.chunks(ROWS * width * CHANNELS);
    for (source, out) in sources.zip(out.chunks_mut(ROWS * places * CHANNELS)) {
        for (lane, row) in source.chunks_exact(width * CHANNELS).enumerate() {
            let columns = turned.chunks_exact_mut(LANES);
            for (column, pixel) in columns.zip(row.chunks_exact(CHANNELS)) {
                column[lane * CHANNELS..][..CHANNELS].copy_from_slice(pixel);
            }
        }
        for (place, taps) in axis.taps.iter().enumerate() {
            let mut sums = [0_i32; LANES];
            let columns = turned.chunks_exact(LANES).skip(taps.first);
            for (&weight, column) in taps.weights.iter().zip(columns) {
                for (sum, &value) in sums.iter_mut().zip(column) {
                    *sum += weight * i32::from(value);
                }
            }
            let rows = out.chunks_exact_mut(places * CHANNELS);
            for (row, sums) in rows.zip(sums.chunks_exact(CHANNELS)) {
                let pixel = row[place * CHANNELS..].iter_mut();
                for (value, &sum) in pixel.zip(sums) {
                    *value = axis.round(sum);
                }
            }
        }
    }
    out
}

/// As many rows as `axis` has places.
fn down_columns(picture: &Picture, axis: &FixedAxis) -> Vec<u8> {
    let len = picture.width() * CHANNELS;
    let mut out = vec![0; axis.taps.len() * len];
    let mut sums = vec![0_i32; len];
    for (taps, out) in axis.taps.iter().zip(out.chunks_exact_mut(len)) {
        sums.fill(0);
        for (&weight, y) in taps.weights.iter().zip(taps.first..) {
            for (sum, &value) in sums.iter_mut().zip(picture.row(y)) {
                *sum += weight * i32::from(value);
            }
        }
        for (value, &sum) in out.iter_mut().zip(&sums) {
            *value = axis.round(sum);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The definition, pixel by pixel, in 64-bit integers.
    fn naive(picture: &Picture, width: usize, height: usize, filter: Filter) -> Vec<u8> {
        let pass = |values: &dyn Fn(usize, usize, usize) -> u8,
                    (from, to): (usize, usize),
                    others: usize,
                    across: bool| {
            let axis = FixedAxis::new(filter, from, to);
            let mut out = Vec::new();
            let (rows, columns) = if across { (others, to) } else { (to, others) };
            for y in 0..rows {
                for x in 0..columns {
                    for c in 0..CHANNELS {
                        let taps = &axis.taps[if across { x } else { y }];
                        let mut sum = 1_i64 << (axis.precision - 1);
                        for (i, &w) in taps.weights.iter().enumerate() {
                            let at = taps.first + i;
                            let value = if across {
                                values(at, y, c)
                            } else {
                                values(x, at, c)
                            };
                            sum += i64::from(w) * i64::from(value);
                        }
                        out.push((sum >> axis.precision).clamp(0, 255) as u8);
                    }
                }
            }
            out
        };
        let (w, h) = (picture.width(), picture.height());
        let get =
            |pixels: &[u8], w: usize, x: usize, y: usize, c: usize| pixels[(y * w + x) * 3 + c];
        let mut pixels = picture.pixels().to_vec();
        if w != width {
            let source = pixels.clone();
            pixels = pass(&|x, y, c| get(&source, w, x, y, c), (w, width), h, true);
        }
        if h != height {
            let source = pixels.clone();
            pixels = pass(
                &|x, y, c| get(&source, width, x, y, c),
                (h, height),
                width,
                false,
            );
        }
        pixels
    }

    fn noise(width: usize, height: usize, seed: u64) -> Picture {
        let mut state = seed;
        Picture::from_fn(width, height, |_, _| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let bytes = state.to_be_bytes();
            [bytes[0], bytes[1], bytes[2]]
        })
        .unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn every_pixel_is_that_of_the_definition(
            (w, h) in (1usize..60, 1usize..60), (width, height) in (1usize..60, 1usize..60), seed in any::<u64>(), cubic in any::<bool>(),
        ) {
            let filter = if cubic { Filter::Bicubic } else { Filter::Bilinear };
            let picture = noise(w, h, seed);
            let found = resize(&picture, width, height, filter).unwrap();
            prop_assert_eq!(found.pixels(), naive(&picture, width, height, filter));
        }

        #[test]
        fn one_colour_stays_that_colour(
            (w, h) in (1usize..200, 1usize..40), (width, height) in (1usize..200, 1usize..40), colour in any::<[u8; 3]>(),
        ) {
            let picture = Picture::from_fn(w, h, |_, _| colour).unwrap();
            for filter in [Filter::Bilinear, Filter::Bicubic] {
                let found = resize(&picture, width, height, filter).unwrap();
                prop_assert!(found.pixels().chunks_exact(3).all(|pixel| pixel == colour));
            }
        }

        #[test]
        fn weights_add_up_and_stay_inside((from, to) in (1usize..3000, 1usize..300)) {
            for filter in [Filter::Bilinear, Filter::Bicubic] {
                for taps in axis(filter, from, to) {
                    prop_assert!((taps.weights.iter().sum::<f64>() - 1.0).abs() < 1e-12);
                    prop_assert!(taps.first + taps.weights.len() <= from);
                }
                let fixed = FixedAxis::new(filter, from, to);
                let largest = fixed.taps.iter().flat_map(|t| &t.weights).max().copied();
                prop_assert!(largest.is_some_and(|w| i64::from(w) < WEIGHT_LIMIT));
            }
        }
    }

    #[test]
    fn the_same_size_is_the_same_picture() {
        let picture = noise(33, 7, 1);
        assert_eq!(resize(&picture, 33, 7, Filter::Bicubic).unwrap(), picture);
    }

    #[test]
    fn sides_of_0_are_refused() {
        let picture = noise(3, 3, 1);
        assert!(resize(&picture, 0, 3, Filter::Bilinear).is_err());
        assert!(resize(&picture, 3, 0, Filter::Bilinear).is_err());
    }

    #[test]
    fn only_two_of_pillows_numbers_are_filters() {
        assert_eq!(Filter::from_code(2), Some(Filter::Bilinear));
        assert_eq!(Filter::from_code(3), Some(Filter::Bicubic));
        assert!(
            [0, 1, 4, 5]
                .into_iter()
                .all(|code| Filter::from_code(code).is_none())
        );
    }
}
