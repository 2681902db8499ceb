//! One register of sixteen sums: AVX-512 with VNNI.

use std::arch::x86_64::*;

use super::{Dot16, ROWS, UNIT, sums_of_bytes};
use crate::isa::Avx512;

impl Dot16 for Avx512 {
    type Bytes = __m512i;
    type Ints = __m512i;
    type Floats = __m512;

    const ACTIVATIONS: usize = 8;
    const NARROW_ACTIVATIONS: usize = 12;

    sums_of_bytes!();

    #[inline(always)]
    unsafe fn bytes(self, p: *const u8) -> __m512i {
        // SAFETY: readable by the contract; the token proves that the CPU has the instruction.
        unsafe { _mm512_loadu_si512(p.cast()) }
    }

    #[inline(always)]
    fn keep(self, bytes: __m512i, mask: u8) -> __m512i {
        // SAFETY: the token proves that the CPU has the instructions.
        unsafe { _mm512_and_si512(bytes, _mm512_set1_epi8(mask as i8)) }
    }

    #[inline(always)]
    fn up<const BITS: u32>(self, bytes: __m512i) -> __m512i {
        // SAFETY: the token proves that the CPU has the instruction.
        unsafe { _mm512_slli_epi16::<BITS>(bytes) }
    }

    #[inline(always)]
    fn down<const BITS: u32>(self, bytes: __m512i) -> __m512i {
        // SAFETY: the token proves that the CPU has the instruction.
        unsafe { _mm512_srli_epi16::<BITS>(bytes) }
    }

    #[inline(always)]
    fn union(self, a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: the token proves that the CPU has the instruction.
        unsafe { _mm512_or_si512(a, b) }
    }

    #[inline(always)]
    fn ints(self, value: i32) -> __m512i {
        // SAFETY: the token proves that the CPU has the instruction.
        unsafe { _mm512_set1_epi32(value) }
    }

    #[inline(always)]
    unsafe fn dot(self, sums: __m512i, bytes: __m512i, x: *const i8) -> __m512i {
        // SAFETY: readable by the contract; the token proves that the CPU has the instructions.
        unsafe {
            _mm512_dpbusd_epi32(
                sums,
                bytes,
                _mm512_set1_epi32(x.cast::<i32>().read_unaligned()),
            )
        }
    }

    #[inline(always)]
    fn plus(self, a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: the token proves that the CPU has the instruction.
        unsafe { _mm512_add_epi32(a, b) }
    }

    #[inline(always)]
    fn times_power<const BITS: u32>(self, a: __m512i) -> __m512i {
        // SAFETY: the token proves that the CPU has the instruction.
        unsafe { _mm512_slli_epi32::<BITS>(a) }
    }

    #[inline(always)]
    fn floats(self, ints: __m512i) -> __m512 {
        // SAFETY: the token proves that the CPU has the instruction.
        unsafe { _mm512_cvtepi32_ps(ints) }
    }

    #[inline(always)]
    fn float(self, value: f32) -> __m512 {
        // SAFETY: the token proves that the CPU has the instruction.
        unsafe { _mm512_set1_ps(value) }
    }

    #[inline(always)]
    unsafe fn f16_values(self, p: *const u8) -> __m512 {
        // SAFETY: readable by the contract; the token proves that the CPU has the instructions.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(p.cast())) }
    }

    #[inline(always)]
    unsafe fn u8_values(self, p: *const u8) -> __m512 {
        // SAFETY: readable by the contract; the token proves that the CPU has the instructions.
        unsafe { _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(p.cast()))) }
    }

    #[inline(always)]
    unsafe fn i8_values(self, p: *const u8) -> __m512 {
        // SAFETY: readable by the contract; the token proves that the CPU has the instructions.
        unsafe { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(p.cast()))) }
    }

    #[inline(always)]
    fn times(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: the token proves that the CPU has the instruction.
        unsafe { _mm512_mul_ps(a, b) }
    }

    #[inline(always)]
    fn times_plus(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        // SAFETY: the token proves that the CPU has the instruction.
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    fn minus_times(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        // SAFETY: the token proves that the CPU has the instruction.
        unsafe { _mm512_fnmadd_ps(a, b, c) }
    }

    #[inline(always)]
    fn to_array(self, floats: __m512) -> [f32; ROWS] {
        let mut values = [0.0; ROWS];
        // SAFETY: there is room for sixteen values; the token proves that the CPU has the instruction.
        unsafe { _mm512_storeu_ps(values.as_mut_ptr(), floats) };
        values
    }
}
