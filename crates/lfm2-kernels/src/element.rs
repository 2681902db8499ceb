//! The number formats weights and caches are stored in.

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use sealed::Load;

use crate::simd::{MAX_LANES, Simd};

/// A stored number: `f32`, `bf16` or `f16`. Arithmetic is always done in `f32`.
pub trait Element: Load {}

impl Element for f32 {}
impl Element for bf16 {}
impl Element for f16 {}

pub(crate) mod sealed {
    use super::{MAX_LANES, Simd};

    /// How a stored number gets in and out of registers.
    pub trait Load: Copy + Send + Sync + 'static {
        /// The value, exactly.
        fn widen(self) -> f32;

        /// Rounds to nearest even, value by value. Both slices have the same length.
        fn narrow(source: &[f32], destination: &mut [Self]);

        /// `S::LANES` values, widened.
        ///
        /// # Safety
        /// `S::LANES` values must be readable at `p`; no alignment is needed.
        unsafe fn load<S: Simd>(s: S, p: *const Self) -> S::V;

        /// Up to `S::LANES` values, widened; zero in the lanes beyond the slice.
        #[inline(always)]
        fn load_head<S: Simd>(s: S, values: &[Self]) -> S::V {
            let mut lanes = [0.0; MAX_LANES];
            for (lane, value) in lanes[..S::LANES].iter_mut().zip(values) {
                *lane = value.widen();
            }
            s.load(&lanes)
        }
    }
}

impl Load for f32 {
    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }

    fn narrow(source: &[f32], destination: &mut [Self]) {
        destination.copy_from_slice(source);
    }

    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, p: *const Self) -> S::V {
        // SAFETY: forwarded from the caller.
        unsafe { s.load_f32(p) }
    }

    #[inline(always)]
    fn load_head<S: Simd>(s: S, values: &[Self]) -> S::V {
        s.load_some(values)
    }
}

impl Load for bf16 {
    #[inline(always)]
    fn widen(self) -> f32 {
        self.to_f32()
    }

    fn narrow(source: &[f32], destination: &mut [Self]) {
        destination.convert_from_f32_slice(source);
    }

    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, p: *const Self) -> S::V {
        // SAFETY: forwarded from the caller.
        unsafe { s.load_bf16(p) }
    }
}

impl Load for f16 {
    #[inline(always)]
    fn widen(self) -> f32 {
        self.to_f32()
    }

    fn narrow(source: &[f32], destination: &mut [Self]) {
        destination.convert_from_f32_slice(source);
    }

    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, p: *const Self) -> S::V {
        // SAFETY: forwarded from the caller.
        unsafe { s.load_f16(p) }
    }
}

/// Up to `S::LANES` values, widened; zero in the lanes beyond the slice.
#[inline(always)]
pub(crate) fn load_head<S: Simd, T: Load>(s: S, values: &[T]) -> S::V {
    T::load_head(s, values)
}

/// Writes `source` as `f32`. Both slices have the same length.
#[inline(always)]
pub(crate) fn widen_into<S: Simd, T: Load>(s: S, source: &[T], destination: &mut [f32]) {
    debug_assert_eq!(source.len(), destination.len());
    let mut from = source.chunks_exact(S::LANES);
    let mut to = destination.chunks_exact_mut(S::LANES);
    for (from, to) in (&mut from).zip(&mut to) {
        // SAFETY: `from` has `S::LANES` values.
        s.store(to, unsafe { T::load(s, from.as_ptr()) });
    }
    for (from, to) in from.remainder().iter().zip(to.into_remainder()) {
        *to = from.widen();
    }
}
