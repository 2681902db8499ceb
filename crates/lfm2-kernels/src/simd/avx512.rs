//! Vectors of sixteen values: AVX-512.

use std::arch::x86_64::*;

use half::{bf16, f16};

use super::{Kernel, Simd};
use crate::isa::Avx512;

/// Runs a kernel with the instructions switched on.
///
/// # Safety
/// The CPU must have AVX-512 F, BW, DQ, VL and VNNI, AVX2, FMA and F16C.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
unsafe fn run<K: Kernel>(token: Avx512, kernel: K) -> K::Output {
    kernel.run(token)
}

/// As many lanes as there are values, or all.
#[inline(always)]
fn first_lanes(values: usize) -> __mmask16 {
    if values < 16 { (1 << values) - 1 } else { !0 }
}

macro_rules! register_operations {
    ($($name:ident($($argument:ident),+) = $intrinsic:ident;)+) => {
        $(
            #[inline(always)]
            fn $name(self, $($argument: __m512),+) -> __m512 {
                // SAFETY: the token proves that the CPU has the instruction.
                unsafe { $intrinsic($($argument),+) }
            }
        )+
    };
}

impl Simd for Avx512 {
    type V = __m512;

    const LANES: usize = 16;

    #[inline(always)]
    fn vectorize<K: Kernel>(self, kernel: K) -> K::Output {
        // SAFETY: the token proves that the CPU has the instructions.
        unsafe { run(self, kernel) }
    }

    register_operations! {
        add(a, b) = _mm512_add_ps;
        sub(a, b) = _mm512_sub_ps;
        mul(a, b) = _mm512_mul_ps;
        div(a, b) = _mm512_div_ps;
        max(a, b) = _mm512_max_ps;
        min(a, b) = _mm512_min_ps;
        mul_add(a, b, c) = _mm512_fmadd_ps;
        scale_by_power(v, n) = _mm512_scalef_ps;
    }

    #[inline(always)]
    fn splat(self, value: f32) -> __m512 {
        // SAFETY: the token proves that the CPU has the instruction.
        unsafe { _mm512_set1_ps(value) }
    }

    #[inline(always)]
    fn sum(self, v: __m512) -> f32 {
        // SAFETY: the token proves that the CPU has the instructions.
        unsafe { _mm512_reduce_add_ps(v) }
    }

    #[inline(always)]
    fn sum4(self, [a, b, c, d]: [__m512; 4]) -> [f32; 4] {
        let mut sums = [0.0; 4];
        // SAFETY: the token proves that the CPU has the instructions; `sums` has room for 4 values.
        unsafe {
            let ab = _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
            let cd = _mm512_add_ps(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
            let (ab, cd) = (_mm512_castps_pd(ab), _mm512_castps_pd(cd));
            let abcd = _mm512_add_ps(
                _mm512_castpd_ps(_mm512_unpacklo_pd(ab, cd)),
                _mm512_castpd_ps(_mm512_unpackhi_pd(ab, cd)),
            );
            let high = _mm512_extractf32x8_ps::<1>(abcd);
            let half = _mm256_add_ps(_mm512_castps512_ps256(abcd), high);
            let high = _mm256_extractf128_ps::<1>(half);
            _mm_storeu_ps(
                sums.as_mut_ptr(),
                _mm_add_ps(_mm256_castps256_ps128(half), high),
            );
        }
        sums
    }

    #[inline(always)]
    unsafe fn load_f32(self, p: *const f32) -> __m512 {
        // SAFETY: readable by the contract; the token proves that the CPU has the instruction.
        unsafe { _mm512_loadu_ps(p) }
    }

    #[inline(always)]
    fn load_some(self, values: &[f32]) -> __m512 {
        // SAFETY: the token proves that the CPU has the instruction, which reads under the mask only.
        unsafe { _mm512_maskz_loadu_ps(first_lanes(values.len()), values.as_ptr()) }
    }

    #[inline(always)]
    fn store_head(self, values: &mut [f32], v: __m512) {
        let mask = first_lanes(values.len());
        // SAFETY: the token proves that the CPU has the instruction, which writes under the mask only.
        unsafe { _mm512_mask_storeu_ps(values.as_mut_ptr(), mask, v) }
    }

    #[inline(always)]
    unsafe fn load_bf16(self, p: *const bf16) -> __m512 {
        // SAFETY: readable by the contract; the token proves that the CPU has the instructions.
        unsafe {
            let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(p.cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide))
        }
    }

    #[inline(always)]
    unsafe fn load_f16(self, p: *const f16) -> __m512 {
        // SAFETY: readable by the contract; the token proves that the CPU has the instructions.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(p.cast())) }
    }

    #[inline(always)]
    unsafe fn store_f32(self, p: *mut f32, v: __m512) {
        // SAFETY: writable by the contract; the token proves that the CPU has the instruction.
        unsafe { _mm512_storeu_ps(p, v) }
    }

    #[inline(always)]
    fn largest(self, v: __m512) -> f32 {
        // SAFETY: the token proves that the CPU has the instructions.
        unsafe { _mm512_reduce_max_ps(v) }
    }

    #[inline(always)]
    fn prefetch<T>(self, p: *const T) {
        // SAFETY: a prefetch never faults; every x86-64 CPU has it.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
    }
}
