//! Vectors of eight values: AVX2, FMA and F16C; with or without AVX-VNNI.

use std::arch::x86_64::*;

use half::{bf16, f16};

use super::{Kernel, Simd};
use crate::isa::{Avx2, AvxVnni};

/// The tokens of instruction sets with registers of 256 bits: all have AVX2, FMA and F16C, and each
/// has a way to multiply bytes.
pub trait Wide256: Copy + Send + Sync + 'static {
    /// Runs a kernel with the instructions switched on.
    fn run<K: Kernel>(self, kernel: K) -> K::Output;

    /// Adds to each of eight sums the products of its four unsigned bytes with its four signed ones.
    fn dot(self, sums: __m256i, bytes: __m256i, x: __m256i) -> __m256i;

    /// [`dot`](Self::dot) for unsigned bytes below 128.
    fn dot_below_128(self, sums: __m256i, bytes: __m256i, x: __m256i) -> __m256i;

    /// [`Dot16::small`](super::dot16::Dot16::small), of one register.
    fn small_start(self, start: __m256i) -> __m256i;

    /// [`Dot16::dot_small`](super::dot16::Dot16::dot_small), of one register.
    fn dot_small(self, sums: __m256i, levels: __m256i, x: __m256i) -> __m256i;

    /// [`Dot16::small_sum`](super::dot16::Dot16::small_sum), of one register.
    fn small_sum(self, sums: __m256i, start: __m256i) -> __m256i;

    /// Adds to each of eight sums the products of its two signed 16-bit numbers with two others.
    fn dot_pairs(self, sums: __m256i, a: __m256i, b: __m256i) -> __m256i;
}

impl Wide256 for Avx2 {
    #[inline(always)]
    fn run<K: Kernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "avx2,fma,f16c")]
        fn run<K: Kernel>(token: Avx2, kernel: K) -> K::Output {
            kernel.run(token)
        }
        // SAFETY: the token proves that the CPU has the instructions.
        unsafe { run(self, kernel) }
    }

    #[inline(always)]
    fn dot(self, sums: __m256i, bytes: __m256i, x: __m256i) -> __m256i {
        // Products of two unsigned bytes up to 255 with signed ones overflow 16 bits when added in
        // pairs, so the bytes are split: `b = (b & 127) + 128 * (b >> 7)`.
        // SAFETY: the token proves that the CPU has the instructions.
        unsafe {
            let low = _mm256_and_si256(bytes, _mm256_set1_epi8(0x7f));
            let high = _mm256_and_si256(_mm256_srli_epi16::<7>(bytes), _mm256_set1_epi8(1));
            let tops = self.dot_below_128(_mm256_setzero_si256(), high, x);
            let sums = _mm256_add_epi32(sums, _mm256_slli_epi32::<7>(tops));
            self.dot_below_128(sums, low, x)
        }
    }

    #[inline(always)]
    fn dot_below_128(self, sums: __m256i, bytes: __m256i, x: __m256i) -> __m256i {
        // SAFETY: the token proves that the CPU has the instructions.
        unsafe {
            let pairs = _mm256_maddubs_epi16(bytes, x);
            _mm256_add_epi32(sums, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
        }
    }

    #[inline(always)]
    fn small_start(self, _: __m256i) -> __m256i {
        // SAFETY: the token proves that the CPU has the instruction.
        unsafe { _mm256_setzero_si256() }
    }

    #[inline(always)]
    fn dot_small(self, sums: __m256i, levels: __m256i, x: __m256i) -> __m256i {
        // Pairs of products stay within 2 * 15 * 127, so 16 bits hold eight of them: fewer instructions than
        // widening each.
        // SAFETY: the token proves that the CPU has the instructions.
        unsafe { in_order(_mm256_add_epi16(sums, _mm256_maddubs_epi16(levels, x))) }
    }

    #[inline(always)]
    fn small_sum(self, sums: __m256i, start: __m256i) -> __m256i {
        // SAFETY: the token proves that the CPU has the instruction.
        self.dot_pairs(start, sums, unsafe { _mm256_set1_epi16(1) })
    }

    #[inline(always)]
    fn dot_pairs(self, sums: __m256i, a: __m256i, b: __m256i) -> __m256i {
        // SAFETY: the token proves that the CPU has the instructions.
        unsafe { _mm256_add_epi32(sums, _mm256_madd_epi16(a, b)) }
    }
}

impl Wide256 for AvxVnni {
    #[inline(always)]
    fn run<K: Kernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "avx2,fma,f16c,avxvnni")]
        fn run<K: Kernel>(token: AvxVnni, kernel: K) -> K::Output {
            kernel.run(token)
        }
        // SAFETY: the token proves that the CPU has the instructions.
        unsafe { run(self, kernel) }
    }

    #[inline(always)]
    fn dot(self, sums: __m256i, bytes: __m256i, x: __m256i) -> __m256i {
        // SAFETY: the token proves that the CPU has the instruction.
        unsafe { _mm256_dpbusd_avx_epi32(sums, bytes, x) }
    }

    #[inline(always)]
    fn dot_below_128(self, sums: __m256i, bytes: __m256i, x: __m256i) -> __m256i {
        self.dot(sums, bytes, x)
    }

    #[inline(always)]
    fn small_start(self, start: __m256i) -> __m256i {
        start
    }

    #[inline(always)]
    fn dot_small(self, sums: __m256i, levels: __m256i, x: __m256i) -> __m256i {
        self.dot(sums, levels, x)
    }

    #[inline(always)]
    fn small_sum(self, sums: __m256i, _: __m256i) -> __m256i {
        sums
    }

    #[inline(always)]
    fn dot_pairs(self, sums: __m256i, a: __m256i, b: __m256i) -> __m256i {
        // SAFETY: the token proves that the CPU has the instruction.
        unsafe { _mm256_dpwssd_avx_epi32(sums, a, b) }
    }
}

/// The same sums. The compiler cannot look inside, so it does not add up in another order: it would form
/// trees, for which there are not enough registers.
///
/// # Safety
/// The CPU must have AVX2.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn in_order(mut sums: __m256i) -> __m256i {
    // SAFETY: nothing is executed.
    unsafe {
        std::arch::asm!("/* {} */", inout(ymm_reg) sums, options(pure, nomem, nostack, preserves_flags));
    }
    sums
}

macro_rules! register_operations {
    ($($name:ident($($argument:ident),+) = $intrinsic:ident;)+) => {
        $(
            #[inline(always)]
            fn $name(self, $($argument: __m256),+) -> __m256 {
                // SAFETY: the token proves that the CPU has the instruction.
                unsafe { $intrinsic($($argument),+) }
            }
        )+
    };
}

impl<T: Wide256> Simd for T {
    type V = __m256;

    const LANES: usize = 8;

    #[inline(always)]
    fn vectorize<K: Kernel>(self, kernel: K) -> K::Output {
        self.run(kernel)
    }

    register_operations! {
        add(a, b) = _mm256_add_ps;
        sub(a, b) = _mm256_sub_ps;
        mul(a, b) = _mm256_mul_ps;
        div(a, b) = _mm256_div_ps;
        max(a, b) = _mm256_max_ps;
        min(a, b) = _mm256_min_ps;
        mul_add(a, b, c) = _mm256_fmadd_ps;
    }

    #[inline(always)]
    fn splat(self, value: f32) -> __m256 {
        // SAFETY: the token proves that the CPU has the instruction.
        unsafe { _mm256_set1_ps(value) }
    }

    #[inline(always)]
    fn scale_by_power(self, v: __m256, n: __m256) -> __m256 {
        // In two steps, of which only the second can leave the range of normal numbers and round.
        // SAFETY: the token proves that the CPU has the instructions.
        unsafe {
            let n = _mm256_cvtps_epi32(n);
            let half = _mm256_srai_epi32::<1>(n);
            let power = |n| {
                let exponent = _mm256_add_epi32(n, _mm256_set1_epi32(127));
                _mm256_castsi256_ps(_mm256_slli_epi32::<23>(exponent))
            };
            let rest = power(_mm256_sub_epi32(n, half));
            _mm256_mul_ps(_mm256_mul_ps(v, power(half)), rest)
        }
    }

    #[inline(always)]
    fn sum(self, v: __m256) -> f32 {
        let zero = self.zero();
        self.sum4([v, zero, zero, zero])[0]
    }

    #[inline(always)]
    fn sum4(self, [a, b, c, d]: [__m256; 4]) -> [f32; 4] {
        let mut sums = [0.0; 4];
        // SAFETY: the token proves that the CPU has the instructions; `sums` has room for 4 values.
        unsafe {
            let ab = _mm256_add_ps(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
            let cd = _mm256_add_ps(_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d));
            let (ab, cd) = (_mm256_castps_pd(ab), _mm256_castps_pd(cd));
            let abcd = _mm256_add_ps(
                _mm256_castpd_ps(_mm256_unpacklo_pd(ab, cd)),
                _mm256_castpd_ps(_mm256_unpackhi_pd(ab, cd)),
            );
            let high = _mm256_extractf128_ps::<1>(abcd);
            _mm_storeu_ps(
                sums.as_mut_ptr(),
                _mm_add_ps(_mm256_castps256_ps128(abcd), high),
            );
        }
        sums
    }

    #[inline(always)]
    unsafe fn load_f32(self, p: *const f32) -> __m256 {
        // SAFETY: readable by the contract; the token proves that the CPU has the instruction.
        unsafe { _mm256_loadu_ps(p) }
    }

    #[inline(always)]
    unsafe fn load_bf16(self, p: *const bf16) -> __m256 {
        // SAFETY: readable by the contract; the token proves that the CPU has the instructions.
        unsafe {
            let wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(p.cast()));
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(wide))
        }
    }

    #[inline(always)]
    unsafe fn load_f16(self, p: *const f16) -> __m256 {
        // SAFETY: readable by the contract; the token proves that the CPU has the instructions.
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(p.cast())) }
    }

    #[inline(always)]
    unsafe fn store_f32(self, p: *mut f32, v: __m256) {
        // SAFETY: writable by the contract; the token proves that the CPU has the instruction.
        unsafe { _mm256_storeu_ps(p, v) }
    }

    #[inline(always)]
    fn largest(self, v: __m256) -> f32 {
        // SAFETY: the token proves that the CPU has the instructions.
        unsafe {
            let v = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
            let v = _mm_max_ps(v, _mm_movehl_ps(v, v));
            _mm_cvtss_f32(_mm_max_ss(v, _mm_movehdup_ps(v)))
        }
    }

    #[inline(always)]
    fn prefetch<P>(self, p: *const P) {
        // SAFETY: a prefetch never faults; every x86-64 CPU has it.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
    }
}
