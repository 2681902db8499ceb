//! Activations as whole numbers: [`with_quantized`].
//!
//! Rows are kept in panels of twelve, the last one as high as there are rows. A panel has a record per
//! 32 inputs, and a record has for each of its `h` rows
//!
//! * the scale (`f32`),
//! * the scale times the sum of the whole numbers (`f32`),
//! * minus the sum of the whole numbers (`i32`), eightfold in [`Precision::Int8`],
//! * only in [`Precision::Int8`]: the same, 128-fold (`i32`),
//! * only in [`Precision::Int16`]: minus the sums of the first and of the last sixteen (`i32`),
//!
//! each as `h` numbers one after another, then the whole numbers: eight groups of four inputs, in each
//! group four bytes per row. [`Precision::Int16`] has two planes of such groups, one behind the other; what
//! is in them depends on the instructions ([`Dot16::planes`](crate::simd::dot16::Dot16::planes)).

use super::format::{Precision, UNIT};
use crate::scratch::with_scratch;
use crate::simd::{Kernel, Simd};
use crate::threads::{SharedMut, for_each_task};
use crate::{Isa, MatRef, ShapeError};

/// Rows of a full panel.
pub(super) const PANEL: usize = 12;

/// Where a record has the scales, in words per row.
pub(super) const SCALE: usize = 0;
/// Where it has the scaled sums.
pub(super) const SUM: usize = 1;
/// Where it has the negative sums.
pub(super) const OFFSET: usize = 2;
/// Where it has 128 times the negative sums.
pub(super) const BYTE_OFFSET: usize = 3;
/// Where it has the negative sums of the first half; the second half's follow.
pub(super) const HALF_OFFSETS: usize = 3;

/// Rounded activations `(rows, cols)`.
#[derive(Debug, Clone, Copy)]
pub struct QuantizedRows<'a> {
    words: &'a [f32],
    rows: usize,
    cols: usize,
    precision: Precision,
}

impl Precision {
    /// Bytes of a whole number.
    pub(super) const fn bytes(self) -> usize {
        match self {
            Self::Int8 => 1,
            Self::Int16 => 2,
        }
    }

    /// Where a record has its whole numbers, in words per row.
    pub(super) const fn numbers(self) -> usize {
        match self {
            Self::Int8 => 4,
            Self::Int16 => 5,
        }
    }

    /// Four-byte words of a row in a record.
    pub(super) const fn record_words(self) -> usize {
        self.numbers() + UNIT / 4 * self.bytes()
    }
}

impl<'a> QuantizedRows<'a> {
    /// The number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The length of a row.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Units of 32 in a row, the last of which may be incomplete.
    pub(super) fn units(&self) -> usize {
        self.cols.div_ceil(UNIT)
    }

    /// How they are rounded.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Panel `index`: its records, and how many rows it has.
    pub(super) fn panel(&self, index: usize) -> (&'a [f32], usize) {
        let height = PANEL.min(self.rows - index * PANEL);
        let row = self.units() * self.precision.record_words();
        (&self.words[index * PANEL * row..][..height * row], height)
    }

    /// The number of panels.
    pub(super) fn panels(&self) -> usize {
        self.rows.div_ceil(PANEL)
    }
}

/// Rows of activations to round.
#[derive(Debug, Clone, Copy)]
pub enum Rows<'a> {
    /// All rows of a matrix.
    All(MatRef<'a, f32>),
    /// Some rows of a matrix, by number, in this order.
    Picked(MatRef<'a, f32>, &'a [u32]),
}

impl<'a> Rows<'a> {
    fn count(&self) -> usize {
        match self {
            Self::All(matrix) => matrix.rows(),
            Self::Picked(_, numbers) => numbers.len(),
        }
    }

    fn cols(&self) -> usize {
        match self {
            Self::All(matrix) | Self::Picked(matrix, _) => matrix.cols(),
        }
    }

    /// Units of a row, the last of which may be incomplete.
    fn units(&self) -> usize {
        self.cols().div_ceil(UNIT)
    }

    #[inline(always)]
    fn row(&self, index: usize) -> &'a [f32] {
        match self {
            Self::All(matrix) => matrix.row(index),
            Self::Picked(matrix, numbers) => matrix.row(numbers[index] as usize),
        }
    }

    fn check(&self) -> Result<(), ShapeError> {
        if let Self::Picked(matrix, numbers) = self
            && let Some(&found) = numbers.iter().find(|n| **n as usize >= matrix.rows())
        {
            return Err(ShapeError::TooLarge {
                what: "row of activations",
                limit: matrix.rows().saturating_sub(1),
                found: found as usize,
            });
        }
        Ok(())
    }
}

/// Rounds `x` and calls `f` with the result.
///
/// Every 32 values of a row get a scale, and so do those that are left at its end. A row with a value that is not finite has a scale of NaN, so that every result of it is NaN.
///
pub fn with_quantized<R>(
    isa: Isa,
    x: MatRef<'_, f32>,
    precision: Precision,
    f: impl FnOnce(&QuantizedRows<'_>) -> R,
) -> R {
    quantized(isa, &[Rows::All(x)], precision, |each| f(&each[0]))
}

/// As [`with_quantized`], for several inputs at once.
///
/// # Errors
/// When a picked row does not exist.
pub fn with_quantized_each<R>(
    isa: Isa,
    inputs: &[Rows<'_>],
    precision: Precision,
    f: impl FnOnce(&[QuantizedRows<'_>]) -> R,
) -> Result<R, ShapeError> {
    inputs.iter().try_for_each(Rows::check)?;
    Ok(quantized(isa, inputs, precision, f))
}

/// Rounds `inputs`, whose rows exist.
fn quantized<R>(
    isa: Isa,
    inputs: &[Rows<'_>],
    precision: Precision,
    f: impl FnOnce(&[QuantizedRows<'_>]) -> R,
) -> R {
    let mut jobs = Vec::new();
    let (mut words, mut values) = (0, 0);
    for input in inputs {
        let row_words = input.units() * precision.record_words();
        for first in (0..input.count()).step_by(PANEL) {
            let height = PANEL.min(input.count() - first);
            jobs.push((input, first, height, words));
            words += height * row_words;
        }
        values += input.count() * input.cols();
    }
    with_scratch(words, |scratch| {
        let shared = SharedMut::new(scratch);
        // Rounding a value costs as much as some four multiply-adds.
        for_each_task(jobs.len(), 4 * values, |task| {
            let (rows, first, height, start) = jobs[task];
            let len = height * rows.units() * precision.record_words();
            isa.run(MakePanel {
                rows,
                first,
                height,
                precision,
                // SAFETY: panels are disjoint.
                words: unsafe { shared.slice(start, len) },
            });
        });
        let mut rest = &*scratch;
        let each: Vec<QuantizedRows<'_>> = inputs
            .iter()
            .map(|input| {
                let (rows, cols) = (input.count(), input.cols());
                let own;
                (own, rest) = rest.split_at(rows * input.units() * precision.record_words());
                QuantizedRows {
                    words: own,
                    rows,
                    cols,
                    precision,
                }
            })
            .collect();
        f(&each)
    })
}

/// Rounds the rows of one panel.
struct MakePanel<'a> {
    rows: &'a Rows<'a>,
    first: usize,
    height: usize,
    precision: Precision,
    words: &'a mut [f32],
}

impl Kernel for MakePanel<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let words = self.precision.record_words();
        for row in 0..self.height {
            let (units, rest) = self.rows.row(self.first + row).as_chunks::<UNIT>();
            // What is missing in the last unit is zero.
            let mut last = [0.0; UNIT];
            last[..rest.len()].copy_from_slice(rest);
            let units = units.iter().chain((!rest.is_empty()).then_some(&last));
            let records = self.words.chunks_exact_mut(words * self.height);
            for (values, record) in units.zip(records) {
                let record = Record {
                    words: record,
                    height: self.height,
                    row,
                };
                match self.precision {
                    Precision::Int8 => record.fill::<S, false>(s, values),
                    Precision::Int16 => record.fill::<S, true>(s, values),
                }
            }
        }
    }
}

/// One row's share of a record.
struct Record<'a> {
    words: &'a mut [f32],
    height: usize,
    row: usize,
}

/// Adding this to a number below 2^22 leaves the nearest whole number in the low bits.
const ROUND: f32 = 12_582_912.0;

impl Record<'_> {
    fn put(&mut self, number: usize, value: f32) {
        self.words[number * self.height + self.row] = value;
    }

    fn put_whole(&mut self, number: usize, value: i32) {
        self.put(number, f32::from_bits(value.cast_unsigned()));
    }

    /// Sets the four-byte groups of a plane of whole numbers.
    #[inline(always)]
    fn put_plane(&mut self, first: usize, plane: &[u8; UNIT]) {
        let words = &mut self.words[first * self.height + self.row..];
        let groups = plane.as_chunks::<4>().0;
        for (word, four) in words.iter_mut().step_by(self.height).zip(groups) {
            *word = f32::from_bits(u32::from_ne_bytes(*four));
        }
    }

    #[inline(always)]
    fn fill<S: Simd, const WIDE: bool>(mut self, s: S, values: &[f32; UNIT]) {
        let precision = if WIDE {
            Precision::Int16
        } else {
            Precision::Int8
        };
        let mut numbers = [0.0; UNIT];
        let limit = if WIDE { 127.0 * 128.0 } else { 127.0 };
        let scale = Scale::of(s, values, limit);
        // Whole numbers up to 2^24 add up exactly.
        let mut halves = [s.zero(); 2];
        for at in (0..UNIT).step_by(S::LANES) {
            let whole = scale.round(s, &values[at..]);
            let half = &mut halves[at / (UNIT / 2)];
            *half = s.add(*half, whole);
            s.store(&mut numbers[at..], whole);
        }
        // No closures: the compiler may leave them without the instruction set.
        let mut whole = [0; UNIT];
        for (whole, number) in whole.iter_mut().zip(numbers) {
            *whole = (number + ROUND).to_bits() as i16;
        }
        let halves = [s.sum(halves[0]) as i32, s.sum(halves[1]) as i32];
        let sum = halves[0] + halves[1];
        self.put(SCALE, scale.step);
        self.put(SUM, scale.step * sum as f32);
        if WIDE {
            self.put_whole(OFFSET, -sum);
            self.put_whole(HALF_OFFSETS, -halves[0]);
            self.put_whole(HALF_OFFSETS + 1, -halves[1]);
            let [first, second] = S::planes(&whole);
            self.put_plane(precision.numbers(), &first);
            self.put_plane(precision.numbers() + UNIT / 4, &second);
        } else {
            self.put_whole(OFFSET, -8 * sum);
            self.put_whole(BYTE_OFFSET, -128 * sum);
            let mut plane = [0; UNIT];
            for (byte, number) in plane.iter_mut().zip(whole) {
                *byte = number as u8;
            }
            self.put_plane(precision.numbers(), &plane);
        }
    }
}

/// `v * factor`, rounded to the nearest whole number; the result is below 2^22.
#[inline(always)]
fn nearest<S: Simd>(s: S, v: S::V, factor: S::V) -> S::V {
    s.sub(s.mul_add(v, factor, s.splat(ROUND)), s.splat(ROUND))
}

/// The step between whole numbers, and its inverse.
struct Scale {
    step: f32,
    inverse: f32,
}

impl Scale {
    /// The scale that brings `values` within `limit`.
    #[inline(always)]
    fn of<S: Simd>(s: S, values: &[f32; UNIT], limit: f32) -> Self {
        let mut largest = s.zero();
        let mut finite = s.zero();
        for at in (0..UNIT).step_by(S::LANES) {
            let v = s.load(&values[at..]);
            largest = s.max(s.max(v, s.sub(s.zero(), v)), largest);
            // Anything but a finite value leaves a NaN.
            finite = s.mul_add(v, s.zero(), finite);
        }
        if s.sum(finite) != 0.0 {
            return Self {
                step: f32::NAN,
                inverse: 0.0,
            };
        }
        let largest = s.largest(largest);
        let inverse = limit / largest;
        if inverse.is_finite() {
            Self {
                step: largest / limit,
                inverse,
            }
        } else {
            // All zero, or so small that it counts as zero.
            Self {
                step: 0.0,
                inverse: 0.0,
            }
        }
    }

    /// `S::LANES` whole numbers; zeros where values are not finite.
    #[inline(always)]
    fn round<S: Simd>(&self, s: S, values: &[f32]) -> S::V {
        if self.inverse == 0.0 {
            return s.zero();
        }
        nearest(s, s.load(values), s.splat(self.inverse))
    }
}
