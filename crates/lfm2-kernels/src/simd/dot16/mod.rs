//! Sixteen sums of byte products at once: what kernels on packed weights are written over.
//!
//! A line of 64 bytes holds four unsigned bytes for each of sixteen sums. [`Dot16::dot`] multiplies
//! them by the same four signed bytes and adds the products to the sums, exactly, in 32 bits. Sums of
//! small levels ([`Dot16::dot_small`]) and with numbers of 16 bits ([`Dot16::dot_words`]) are kept in
//! whatever way an instruction set adds them fastest, and are as exact.
//! Every instruction set has all sixteen sums, in as many registers as they take, so results do not
//! depend on the width of a register.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;
mod scalar;

/// How many sums there are.
pub(crate) const ROWS: usize = 16;

/// How many numbers share a scale.
pub(crate) const UNIT: usize = 32;

/// Lines of bytes, and the sums of their products.
pub trait Dot16: Copy + Send + Sync + 'static {
    /// 64 bytes: four for each sum.
    type Bytes: Copy;
    /// Sixteen whole numbers.
    type Ints: Copy;
    /// Sixteen `f32`.
    type Floats: Copy;

    /// Sums of products of levels below 16 with bytes, of the eight lines of a unit.
    type Small: Copy;
    /// Sums of products of levels with numbers of 16 bits.
    type Words: Copy;

    /// For how many sums of [`Words`](Self::Words) the registers suffice, with a result beside each.
    const ACTIVATIONS: usize;
    /// For how many other sums.
    const NARROW_ACTIVATIONS: usize;

    /// Reads 64 bytes.
    ///
    /// # Safety
    /// They must be readable at `p`; no alignment is needed.
    unsafe fn bytes(self, p: *const u8) -> Self::Bytes;
    /// The bits of every byte that are set in `mask`.
    fn keep(self, bytes: Self::Bytes, mask: u8) -> Self::Bytes;
    /// Every byte shifted up; what leaves a byte spoils its neighbour until it is masked.
    fn up<const BITS: u32>(self, bytes: Self::Bytes) -> Self::Bytes;
    /// Every byte shifted down; what leaves a byte spoils its neighbour until it is masked.
    fn down<const BITS: u32>(self, bytes: Self::Bytes) -> Self::Bytes;
    /// The bits of both.
    fn union(self, a: Self::Bytes, b: Self::Bytes) -> Self::Bytes;

    /// The same whole number sixteen times.
    fn ints(self, value: i32) -> Self::Ints;
    /// Adds to every sum its four bytes times the four signed bytes at `x`.
    ///
    /// # Safety
    /// Four bytes must be readable at `x`; no alignment is needed.
    unsafe fn dot(self, sums: Self::Ints, bytes: Self::Bytes, x: *const i8) -> Self::Ints;
    /// [`dot`](Self::dot) for bytes below 128, which some instruction sets do faster.
    ///
    /// # Safety
    /// As [`dot`](Self::dot).
    #[inline(always)]
    unsafe fn dot_below_128(
        self,
        sums: Self::Ints,
        bytes: Self::Bytes,
        x: *const i8,
    ) -> Self::Ints {
        // SAFETY: forwarded from the caller.
        unsafe { self.dot(sums, bytes, x) }
    }
    /// Sums that begin with `start`, see [`small_sum`](Self::small_sum).
    fn small(self, start: Self::Ints) -> Self::Small;
    /// Adds to every sum its four levels, all below 16, times the four bytes at `x`, all within ±127.
    ///
    /// # Safety
    /// Four bytes must be readable at `x`; no alignment is needed.
    unsafe fn dot_small(self, sums: Self::Small, levels: Self::Bytes, x: *const i8) -> Self::Small;
    /// The sums, which began with `start`.
    fn small_sum(self, sums: Self::Small, start: Self::Ints) -> Self::Ints;

    /// Numbers within ±16,256 as two planes, each with four bytes for every four numbers: what
    /// [`dot_words`](Self::dot_words) takes.
    fn planes(numbers: &[i16; UNIT]) -> [[u8; UNIT]; 2];
    /// Sums that begin with `start`.
    fn wide(self, start: Self::Ints) -> Self::Words;
    /// Adds to every sum its four levels times the four numbers that have their bytes at `x` in the first
    /// and at `second` in the second of their [`planes`](Self::planes).
    ///
    /// # Safety
    /// Four bytes must be readable at both; no alignment is needed.
    unsafe fn dot_words(
        self,
        sums: Self::Words,
        levels: Self::Bytes,
        x: *const i8,
        second: *const i8,
    ) -> Self::Words;
    /// [`dot_words`](Self::dot_words) for levels below 128, which some instruction sets do faster.
    ///
    /// # Safety
    /// As [`dot_words`](Self::dot_words).
    #[inline(always)]
    unsafe fn dot_words_below_128(
        self,
        sums: Self::Words,
        levels: Self::Bytes,
        x: *const i8,
        second: *const i8,
    ) -> Self::Words {
        // SAFETY: forwarded from the caller.
        unsafe { self.dot_words(sums, levels, x, second) }
    }
    /// The sums.
    fn wide_sum(self, sums: Self::Words) -> Self::Ints;

    /// `a + b`, wrapping.
    fn plus(self, a: Self::Ints, b: Self::Ints) -> Self::Ints;
    /// `a * 2^BITS`, wrapping.
    fn times_power<const BITS: u32>(self, a: Self::Ints) -> Self::Ints;

    /// Whole numbers as the nearest `f32`.
    fn floats(self, ints: Self::Ints) -> Self::Floats;
    /// The same number sixteen times.
    fn float(self, value: f32) -> Self::Floats;
    /// Sixteen `f16` values.
    ///
    /// # Safety
    /// 32 bytes must be readable at `p`; no alignment is needed.
    unsafe fn f16_values(self, p: *const u8) -> Self::Floats;
    /// Sixteen unsigned bytes as numbers.
    ///
    /// # Safety
    /// 16 bytes must be readable at `p`; no alignment is needed.
    unsafe fn u8_values(self, p: *const u8) -> Self::Floats;
    /// Sixteen signed bytes as numbers.
    ///
    /// # Safety
    /// 16 bytes must be readable at `p`; no alignment is needed.
    unsafe fn i8_values(self, p: *const u8) -> Self::Floats;
    /// `a * b`
    fn times(self, a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// `a * b + c`, with one rounding where the CPU has it.
    fn times_plus(self, a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats;
    /// `c - a * b`, with one rounding where the CPU has it.
    fn minus_times(self, a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats;
    /// The sixteen numbers in order.
    fn to_array(self, floats: Self::Floats) -> [f32; ROWS];
}

/// What [`Dot16::Small`] and [`Dot16::Words`] are where bytes are multiplied at full speed: plain sums, and
/// `128 * high + low` with a sum for the high bytes and one for the low ones.
macro_rules! sums_of_bytes {
    () => {
        type Small = Self::Ints;
        type Words = [Self::Ints; 2];

        #[inline(always)]
        fn small(self, start: Self::Ints) -> Self::Ints {
            start
        }

        #[inline(always)]
        unsafe fn dot_small(
            self,
            sums: Self::Ints,
            levels: Self::Bytes,
            x: *const i8,
        ) -> Self::Ints {
            // SAFETY: forwarded from the caller.
            unsafe { Dot16::dot_below_128(self, sums, levels, x) }
        }

        #[inline(always)]
        fn small_sum(self, sums: Self::Ints, _: Self::Ints) -> Self::Ints {
            sums
        }

        #[inline(always)]
        fn planes(numbers: &[i16; UNIT]) -> [[u8; UNIT]; 2] {
            let [mut first, mut second] = [[0; UNIT]; 2];
            for at in 0..UNIT {
                // To the nearest, so that what is left is within ±64.
                let high = (numbers[at] + 64) >> 7;
                first[at] = high as u8;
                second[at] = (numbers[at] - (high << 7)) as u8;
            }
            [first, second]
        }

        #[inline(always)]
        fn wide(self, start: Self::Ints) -> [Self::Ints; 2] {
            [Dot16::ints(self, 0), start]
        }

        #[inline(always)]
        unsafe fn dot_words(
            self,
            sums: [Self::Ints; 2],
            levels: Self::Bytes,
            x: *const i8,
            second: *const i8,
        ) -> [Self::Ints; 2] {
            let [high, low] = sums;
            // SAFETY: forwarded from the caller.
            unsafe {
                [
                    Dot16::dot(self, high, levels, x),
                    Dot16::dot(self, low, levels, second),
                ]
            }
        }

        #[inline(always)]
        unsafe fn dot_words_below_128(
            self,
            sums: [Self::Ints; 2],
            levels: Self::Bytes,
            x: *const i8,
            second: *const i8,
        ) -> [Self::Ints; 2] {
            let [high, low] = sums;
            // SAFETY: forwarded from the caller.
            unsafe {
                [
                    Dot16::dot_below_128(self, high, levels, x),
                    Dot16::dot_below_128(self, low, levels, second),
                ]
            }
        }

        #[inline(always)]
        fn wide_sum(self, [high, low]: [Self::Ints; 2]) -> Self::Ints {
            Dot16::plus(self, Dot16::times_power::<7>(self, high), low)
        }
    };
}
use sums_of_bytes;
