//! Two registers of eight sums: AVX2, with or without AVX-VNNI.

use std::arch::x86_64::*;

use super::{Dot16, ROWS};
use crate::simd::avx2::Wide256;

/// Applies `f` to both halves.
#[inline(always)]
fn both<A: Copy, B: Copy, C>(a: [A; 2], b: [B; 2], f: impl Fn(A, B) -> C) -> [C; 2] {
    [f(a[0], b[0]), f(a[1], b[1])]
}

impl<T: Wide256> Dot16 for T {
    type Bytes = [__m256i; 2];
    type Ints = [__m256i; 2];
    type Floats = [__m256; 2];

    const ACTIVATIONS: usize = 2;

    #[inline(always)]
    unsafe fn bytes(self, p: *const u8) -> [__m256i; 2] {
        // SAFETY: readable by the contract; the token proves that the CPU has the instruction.
        unsafe {
            [
                _mm256_loadu_si256(p.cast()),
                _mm256_loadu_si256(p.add(32).cast()),
            ]
        }
    }

    #[inline(always)]
    fn keep(self, bytes: [__m256i; 2], mask: u8) -> [__m256i; 2] {
        // SAFETY: the token proves that the CPU has the instructions.
        bytes.map(|b| unsafe { _mm256_and_si256(b, _mm256_set1_epi8(mask as i8)) })
    }

    #[inline(always)]
    fn up<const BITS: u32>(self, bytes: [__m256i; 2]) -> [__m256i; 2] {
        // SAFETY: the token proves that the CPU has the instructions.
        bytes.map(|b| unsafe { _mm256_sll_epi16(b, _mm_cvtsi32_si128(BITS as i32)) })
    }

    #[inline(always)]
    fn down<const BITS: u32>(self, bytes: [__m256i; 2]) -> [__m256i; 2] {
        // SAFETY: the token proves that the CPU has the instructions.
        bytes.map(|b| unsafe { _mm256_srl_epi16(b, _mm_cvtsi32_si128(BITS as i32)) })
    }

    #[inline(always)]
    fn union(self, a: [__m256i; 2], b: [__m256i; 2]) -> [__m256i; 2] {
        // SAFETY: the token proves that the CPU has the instruction.
        both(a, b, |a, b| unsafe { _mm256_or_si256(a, b) })
    }

    #[inline(always)]
    fn ints(self, value: i32) -> [__m256i; 2] {
        // SAFETY: the token proves that the CPU has the instruction.
        [unsafe { _mm256_set1_epi32(value) }; 2]
    }

    #[inline(always)]
    unsafe fn dot(self, sums: [__m256i; 2], bytes: [__m256i; 2], x: *const i8) -> [__m256i; 2] {
        // SAFETY: readable by the contract; the token proves that the CPU has the instruction.
        let x = unsafe { _mm256_set1_epi32(x.cast::<i32>().read_unaligned()) };
        both(sums, bytes, |sums, bytes| {
            Wide256::dot(self, sums, bytes, x)
        })
    }

    #[inline(always)]
    unsafe fn dot_below_128(
        self,
        sums: [__m256i; 2],
        bytes: [__m256i; 2],
        x: *const i8,
    ) -> [__m256i; 2] {
        // SAFETY: readable by the contract; the token proves that the CPU has the instruction.
        let x = unsafe { _mm256_set1_epi32(x.cast::<i32>().read_unaligned()) };
        both(sums, bytes, |sums, bytes| {
            Wide256::dot_below_128(self, sums, bytes, x)
        })
    }

    #[inline(always)]
    fn plus(self, a: [__m256i; 2], b: [__m256i; 2]) -> [__m256i; 2] {
        // SAFETY: the token proves that the CPU has the instruction.
        both(a, b, |a, b| unsafe { _mm256_add_epi32(a, b) })
    }

    #[inline(always)]
    fn times_power<const BITS: u32>(self, a: [__m256i; 2]) -> [__m256i; 2] {
        // SAFETY: the token proves that the CPU has the instructions.
        a.map(|a| unsafe { _mm256_sll_epi32(a, _mm_cvtsi32_si128(BITS as i32)) })
    }

    #[inline(always)]
    fn floats(self, ints: [__m256i; 2]) -> [__m256; 2] {
        // SAFETY: the token proves that the CPU has the instruction.
        ints.map(|i| unsafe { _mm256_cvtepi32_ps(i) })
    }

    #[inline(always)]
    fn float(self, value: f32) -> [__m256; 2] {
        // SAFETY: the token proves that the CPU has the instruction.
        [unsafe { _mm256_set1_ps(value) }; 2]
    }

    #[inline(always)]
    unsafe fn f16_values(self, p: *const u8) -> [__m256; 2] {
        // SAFETY: readable by the contract; the token proves that the CPU has the instructions.
        [p, p.wrapping_add(16)].map(|p| unsafe { _mm256_cvtph_ps(_mm_loadu_si128(p.cast())) })
    }

    #[inline(always)]
    unsafe fn u8_values(self, p: *const u8) -> [__m256; 2] {
        // SAFETY: readable by the contract; the token proves that the CPU has the instructions.
        [p, p.wrapping_add(8)]
            .map(|p| unsafe { _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(p.cast()))) })
    }

    #[inline(always)]
    unsafe fn i8_values(self, p: *const u8) -> [__m256; 2] {
        // SAFETY: readable by the contract; the token proves that the CPU has the instructions.
        [p, p.wrapping_add(8)]
            .map(|p| unsafe { _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(p.cast()))) })
    }

    #[inline(always)]
    fn times(self, a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
        // SAFETY: the token proves that the CPU has the instruction.
        both(a, b, |a, b| unsafe { _mm256_mul_ps(a, b) })
    }

    #[inline(always)]
    fn times_plus(self, a: [__m256; 2], b: [__m256; 2], c: [__m256; 2]) -> [__m256; 2] {
        // SAFETY: the token proves that the CPU has the instruction.
        [0, 1].map(|i| unsafe { _mm256_fmadd_ps(a[i], b[i], c[i]) })
    }

    #[inline(always)]
    fn minus_times(self, a: [__m256; 2], b: [__m256; 2], c: [__m256; 2]) -> [__m256; 2] {
        // SAFETY: the token proves that the CPU has the instruction.
        [0, 1].map(|i| unsafe { _mm256_fnmadd_ps(a[i], b[i], c[i]) })
    }

    #[inline(always)]
    fn to_array(self, floats: [__m256; 2]) -> [f32; ROWS] {
        let mut values = [0.0; ROWS];
        let (low, high) = values.split_at_mut(8);
        // SAFETY: each half has room for eight values; the token proves that the CPU has the
        // instruction.
        unsafe {
            _mm256_storeu_ps(low.as_mut_ptr(), floats[0]);
            _mm256_storeu_ps(high.as_mut_ptr(), floats[1]);
        }
        values
    }
}
