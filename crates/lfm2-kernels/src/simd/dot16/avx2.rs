//! Two registers of eight sums: AVX2, with or without AVX-VNNI.

use std::arch::x86_64::*;

use super::{Dot16, ROWS, UNIT};
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

    type Small = [__m256i; 2];
    type Words = [__m256i; 2];

    const ACTIVATIONS: usize = 6;
    const NARROW_ACTIVATIONS: usize = 6;

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
        // SAFETY: readable by the contract; the token proves that the CPU has the instructions.
        let x = unsafe { four_bytes(x) };
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
        // SAFETY: readable by the contract; the token proves that the CPU has the instructions.
        let x = unsafe { four_bytes(x) };
        both(sums, bytes, |sums, bytes| {
            Wide256::dot_below_128(self, sums, bytes, x)
        })
    }

    #[inline(always)]
    fn small(self, start: [__m256i; 2]) -> [__m256i; 2] {
        start.map(|start| self.small_start(start))
    }

    #[inline(always)]
    unsafe fn dot_small(
        self,
        sums: [__m256i; 2],
        levels: [__m256i; 2],
        x: *const i8,
    ) -> [__m256i; 2] {
        // SAFETY: readable by the contract.
        let x = unsafe { four_bytes(x) };
        both(sums, levels, |sums, levels| {
            Wide256::dot_small(self, sums, levels, x)
        })
    }

    #[inline(always)]
    fn small_sum(self, sums: [__m256i; 2], start: [__m256i; 2]) -> [__m256i; 2] {
        both(sums, start, |sums, start| {
            Wide256::small_sum(self, sums, start)
        })
    }

    /// The first and third of every four numbers, then the second and fourth: in the order in which a mask
    /// and a shift take the bytes of a line apart.
    #[inline(always)]
    fn planes(numbers: &[i16; UNIT]) -> [[u8; UNIT]; 2] {
        let [mut first, mut second] = [[0; UNIT]; 2];
        for (pair, numbers) in numbers.as_chunks::<2>().0.iter().enumerate() {
            first[2 * pair..][..2].copy_from_slice(&numbers[0].to_le_bytes());
            second[2 * pair..][..2].copy_from_slice(&numbers[1].to_le_bytes());
        }
        [first, second]
    }

    #[inline(always)]
    fn wide(self, start: [__m256i; 2]) -> [__m256i; 2] {
        start
    }

    #[inline(always)]
    unsafe fn dot_words(
        self,
        sums: [__m256i; 2],
        levels: [__m256i; 2],
        x: *const i8,
        second: *const i8,
    ) -> [__m256i; 2] {
        // SAFETY: readable by the contract; the token proves that the CPU has the instructions.
        unsafe {
            let (x, second) = (four_bytes(x), four_bytes(second));
            both(sums, levels, |sums, levels| {
                let even = _mm256_and_si256(levels, _mm256_set1_epi16(0xff));
                let odd = _mm256_srli_epi16::<8>(levels);
                self.dot_pairs(self.dot_pairs(sums, even, x), odd, second)
            })
        }
    }

    #[inline(always)]
    fn wide_sum(self, sums: [__m256i; 2]) -> [__m256i; 2] {
        sums
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

/// Four bytes, eight times.
///
/// # Safety
/// The CPU must have AVX2, and they must be readable at `x`; no alignment is needed.
#[inline(always)]
unsafe fn four_bytes(x: *const i8) -> __m256i {
    // SAFETY: by the contract.
    unsafe { _mm256_set1_epi32(x.cast::<i32>().read_unaligned()) }
}
