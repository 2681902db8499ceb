//! The vector trait kernels are written over, and how they get compiled for each instruction set.
//!
//! A [`Kernel`] is a struct of arguments with one generic method. [`Isa::run`] passes it to the
//! token's [`Simd::vectorize`], a function compiled with the instruction set switched on; because
//! the kernel and everything it calls on vectors is `#[inline(always)]`, the whole of it is compiled
//! with those instructions. A helper that is not inlined would still be correct, only slow: every
//! vector operation would become a call.
//!
//! Operations on registers are safe functions: `self` is a token that exists only after detection.
//! Only loads from pointers are unsafe.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
pub(crate) mod dot16;
pub(crate) mod math;
#[cfg(target_arch = "aarch64")]
mod neon;
mod scalar;
pub(crate) mod tile;

use half::{bf16, f16};

use dot16::Dot16;

use crate::Isa;

/// The widest vector of any instruction set, in `f32` lanes.
pub(crate) const MAX_LANES: usize = 16;

/// Vectors of `f32` on one instruction set.
pub trait Simd: Dot16 {
    /// A register of [`LANES`](Self::LANES) values.
    type V: Copy;

    /// Values per register.
    const LANES: usize;

    /// Runs `kernel` compiled for this instruction set.
    fn vectorize<K: Kernel>(self, kernel: K) -> K::Output;

    /// The same value in every lane.
    fn splat(self, value: f32) -> Self::V;
    /// `a + b`
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a - b`
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a * b`
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a / b`
    fn div(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a` where `a > b`, else `b`: a NaN in `a` is dropped, one in `b` stays.
    fn max(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a` where `a < b`, else `b`: a NaN in `a` is dropped, one in `b` stays.
    fn min(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a * b + c`, with one rounding where the CPU has it.
    fn mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// `v * 2^n`, rounded once, for whole numbers `n` in `-160..=160`.
    fn scale_by_power(self, v: Self::V, n: Self::V) -> Self::V;
    /// The sum of all lanes.
    fn sum(self, v: Self::V) -> f32;
    /// The sums of all lanes of four vectors, for less than four times the price of one.
    fn sum4(self, v: [Self::V; 4]) -> [f32; 4];

    /// Reads `LANES` values.
    ///
    /// # Safety
    /// They must be readable at `p`; no alignment is needed.
    unsafe fn load_f32(self, p: *const f32) -> Self::V;
    /// Reads and widens `LANES` values.
    ///
    /// # Safety
    /// They must be readable at `p`; no alignment is needed.
    unsafe fn load_bf16(self, p: *const bf16) -> Self::V;
    /// Reads and widens `LANES` values.
    ///
    /// # Safety
    /// They must be readable at `p`; no alignment is needed.
    unsafe fn load_f16(self, p: *const f16) -> Self::V;
    /// Writes `LANES` values.
    ///
    /// # Safety
    /// They must be writable at `p`; no alignment is needed.
    unsafe fn store_f32(self, p: *mut f32, v: Self::V);

    /// The largest lane of values that are all finite.
    fn largest(self, v: Self::V) -> f32;

    /// Asks for the cache line at `p`, which need not be readable.
    #[inline(always)]
    fn prefetch<T>(self, _p: *const T) {}

    /// Zero in every lane.
    #[inline(always)]
    fn zero(self) -> Self::V {
        self.splat(0.0)
    }

    /// The first `LANES` values of a slice that has at least as many.
    #[inline(always)]
    fn load(self, values: &[f32]) -> Self::V {
        assert!(values.len() >= Self::LANES);
        // SAFETY: checked above.
        unsafe { self.load_f32(values.as_ptr()) }
    }

    /// Writes the first `LANES` values of a slice that has at least as many.
    #[inline(always)]
    fn store(self, values: &mut [f32], v: Self::V) {
        assert!(values.len() >= Self::LANES);
        // SAFETY: checked above.
        unsafe { self.store_f32(values.as_mut_ptr(), v) }
    }

    /// Up to `LANES` values, with zeros in the lanes beyond the slice.
    #[inline(always)]
    fn load_some(self, values: &[f32]) -> Self::V {
        let mut lanes = [0.0; MAX_LANES];
        for (lane, value) in lanes[..Self::LANES].iter_mut().zip(values) {
            *lane = *value;
        }
        self.load(&lanes)
    }

    /// Writes the lanes that fit into a slice of at most `LANES` values.
    #[inline(always)]
    fn store_head(self, values: &mut [f32], v: Self::V) {
        let mut lanes = [0.0; MAX_LANES];
        self.store(&mut lanes, v);
        values.copy_from_slice(&lanes[..values.len()]);
    }

    /// The largest lane; NaN lanes are skipped, and negative infinity is the least answer.
    #[inline(always)]
    fn max_lane(self, v: Self::V) -> f32 {
        let mut lanes = [f32::NEG_INFINITY; MAX_LANES];
        self.store(&mut lanes, v);
        lanes.iter().fold(
            f32::NEG_INFINITY,
            |max, &lane| if lane > max { lane } else { max },
        )
    }
}

/// A computation that can be compiled for any instruction set.
pub trait Kernel {
    /// What it returns.
    type Output;

    /// Does it. Implementations must be `#[inline(always)]`, see the module's documentation.
    fn run<S: Simd>(self, s: S) -> Self::Output;
}

impl Isa {
    /// Runs `kernel` with these instructions.
    pub(crate) fn run<K: Kernel>(self, kernel: K) -> K::Output {
        match self {
            Self::Scalar(token) => token.vectorize(kernel),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(token) => token.vectorize(kernel),
            #[cfg(target_arch = "x86_64")]
            Self::AvxVnni(token) => token.vectorize(kernel),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(token) => token.vectorize(kernel),
            #[cfg(target_arch = "aarch64")]
            Self::Neon(token) => token.vectorize(kernel),
            #[cfg(target_arch = "aarch64")]
            Self::DotProd(token) => token.vectorize(kernel),
            #[cfg(target_arch = "aarch64")]
            Self::I8mm(token) => token.vectorize(kernel),
        }
    }
}
