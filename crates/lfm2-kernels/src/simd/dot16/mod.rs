//! Sixteen sums of byte products at once: what kernels on packed weights are written over.
//!
//! A line of 64 bytes holds four unsigned bytes for each of sixteen sums. [`Dot16::dot`] multiplies
//! them by the same four signed bytes and adds the products to the sums, exactly, in 32 bits.
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

/// Lines of bytes, and the sums of their products.
pub trait Dot16: Copy + Send + Sync + 'static {
    /// 64 bytes: four for each sum.
    type Bytes: Copy;
    /// Sixteen whole numbers.
    type Ints: Copy;
    /// Sixteen `f32`.
    type Floats: Copy;

    /// For how many sums the registers suffice when each takes three.
    const ACTIVATIONS: usize;

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
