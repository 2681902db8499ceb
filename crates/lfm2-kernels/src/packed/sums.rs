//! Sums of products of levels and rounded activations, while they grow.

use super::format::{Levels, Precision};
use super::multiply::Format;
use crate::simd::Simd;

/// How levels and activations are multiplied: a [`Precision`] of the activations and a size of the levels.
pub(super) trait Sums: 'static {
    const PRECISION: Precision;
    const WIDE: bool = matches!(Self::PRECISION, Precision::Int16);
    /// Sixteen sums while they grow.
    type Of<S: Simd>: Copy;

    /// Sums that begin with `start`.
    fn start<S: Simd>(s: S, start: S::Ints) -> Self::Of<S>;

    /// Adds the products with the four activations at `x`, which go on at `second` if they are wide.
    ///
    /// # Safety
    /// Four bytes must be readable at `x`, and of wide activations at `second`; the levels must be those of
    /// format `F` and small enough for these sums.
    unsafe fn add<S: Simd, F: Format>(
        s: S,
        sums: Self::Of<S>,
        levels: S::Bytes,
        x: *const i8,
        second: *const i8,
    ) -> Self::Of<S>;

    /// The sums, which began with `start`.
    fn end<S: Simd>(s: S, sums: Self::Of<S>, start: S::Ints) -> S::Ints;
}

/// Levels of four bits and activations of eight.
pub(super) struct Small;
/// Levels of eight bits and activations of eight.
pub(super) struct Bytes;
/// Any levels and activations of sixteen bits.
pub(super) struct Wide;

impl Sums for Small {
    const PRECISION: Precision = Precision::Int8;
    type Of<S: Simd> = S::Small;

    #[inline(always)]
    fn start<S: Simd>(s: S, start: S::Ints) -> S::Small {
        s.small(start)
    }

    #[inline(always)]
    unsafe fn add<S: Simd, F: Format>(
        s: S,
        sums: S::Small,
        levels: S::Bytes,
        x: *const i8,
        _: *const i8,
    ) -> S::Small {
        const { assert!(matches!(F::TYPE.levels(), Levels::Four)) };
        // SAFETY: forwarded from the caller.
        unsafe { s.dot_small(sums, levels, x) }
    }

    #[inline(always)]
    fn end<S: Simd>(s: S, sums: S::Small, start: S::Ints) -> S::Ints {
        s.small_sum(sums, start)
    }
}

impl Sums for Bytes {
    const PRECISION: Precision = Precision::Int8;
    type Of<S: Simd> = S::Ints;

    #[inline(always)]
    fn start<S: Simd>(_: S, start: S::Ints) -> S::Ints {
        start
    }

    #[inline(always)]
    unsafe fn add<S: Simd, F: Format>(
        s: S,
        sums: S::Ints,
        levels: S::Bytes,
        x: *const i8,
        _: *const i8,
    ) -> S::Ints {
        // SAFETY: forwarded from the caller.
        unsafe { s.dot(sums, levels, x) }
    }

    #[inline(always)]
    fn end<S: Simd>(_: S, sums: S::Ints, _: S::Ints) -> S::Ints {
        sums
    }
}

impl Sums for Wide {
    const PRECISION: Precision = Precision::Int16;
    type Of<S: Simd> = S::Words;

    #[inline(always)]
    fn start<S: Simd>(s: S, start: S::Ints) -> S::Words {
        s.wide(start)
    }

    #[inline(always)]
    unsafe fn add<S: Simd, F: Format>(
        s: S,
        sums: S::Words,
        levels: S::Bytes,
        x: *const i8,
        second: *const i8,
    ) -> S::Words {
        // SAFETY: forwarded from the caller.
        unsafe {
            match F::TYPE.levels() {
                Levels::Eight => s.dot_words(sums, levels, x, second),
                Levels::Four | Levels::Five | Levels::Six => {
                    s.dot_words_below_128(sums, levels, x, second)
                }
            }
        }
    }

    #[inline(always)]
    fn end<S: Simd>(s: S, sums: S::Words, _: S::Ints) -> S::Ints {
        s.wide_sum(sums)
    }
}
