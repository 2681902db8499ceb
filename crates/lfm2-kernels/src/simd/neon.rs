//! Vectors of eight values, in two registers: NEON; with or without dot products of bytes.
//!
//! One register would be too short for loops that are laid out for eight and sixteen values, and
//! there are 32 of them.
//!
//! Where the standard library has an instruction only in its nightly form, it is written out here.

use std::arch::aarch64::*;
use std::arch::asm;

use half::{bf16, f16};

use super::{Kernel, Simd};
use crate::isa::{DotProd, I8mm, Neon};

/// The registers of a line of bytes, or of its sums.
pub(super) type Four<T> = [T; 4];

/// What `f` makes of the number of each register of a vector.
///
/// Always inlined, unlike `map` of arrays.
#[inline(always)]
fn two<T>(f: impl Fn(usize) -> T) -> [T; 2] {
    [f(0), f(1)]
}

/// [`two`], for lines.
#[inline(always)]
pub(super) fn four<T>(f: impl Fn(usize) -> T) -> Four<T> {
    [f(0), f(1), f(2), f(3)]
}

/// The tokens of instruction sets with registers of 128 bits: all have NEON, and each has a way to
/// multiply bytes.
pub trait Wide128: Copy + Send + Sync + 'static {
    /// Runs a kernel with the instructions switched on.
    fn run<K: Kernel>(self, kernel: K) -> K::Output;

    /// Adds to each sum the products of its four unsigned bytes with four signed ones, of which every
    /// lane of `x` has the same.
    fn dot(self, sums: Four<int32x4_t>, bytes: Four<uint8x16_t>, x: int8x16_t) -> Four<int32x4_t>;

    /// [`dot`](Self::dot) for unsigned bytes below 128, and for one register.
    fn dot_below_128(self, sums: int32x4_t, bytes: uint8x16_t, x: int8x16_t) -> int32x4_t;
}

impl Wide128 for Neon {
    #[inline(always)]
    fn run<K: Kernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "neon")]
        fn run<K: Kernel>(token: Neon, kernel: K) -> K::Output {
            kernel.run(token)
        }
        // SAFETY: the token proves that the CPU has the instructions.
        unsafe { run(self, kernel) }
    }

    #[inline(always)]
    fn dot(self, sums: Four<int32x4_t>, bytes: Four<uint8x16_t>, x: int8x16_t) -> Four<int32x4_t> {
        // Products of eight bits with eight overflow 16 when added in pairs, so the bytes are split:
        // `b = (b & 127) + 128 * (b >> 7)`.
        // SAFETY: the token proves that the CPU has the instructions.
        four(|i| unsafe {
            let low = vandq_u8(bytes[i], vdupq_n_u8(0x7f));
            let high = vshrq_n_u8::<7>(bytes[i]);
            let tops = self.dot_below_128(vdupq_n_s32(0), high, x);
            let sums = vaddq_s32(sums[i], vshlq_n_s32::<7>(tops));
            self.dot_below_128(sums, low, x)
        })
    }

    #[inline(always)]
    fn dot_below_128(self, sums: int32x4_t, bytes: uint8x16_t, x: int8x16_t) -> int32x4_t {
        // SAFETY: the token proves that the CPU has the instructions.
        unsafe {
            let bytes = vreinterpretq_s8_u8(bytes);
            let low = vmull_s8(vget_low_s8(bytes), vget_low_s8(x));
            let high = vmull_high_s8(bytes, x);
            // Two such products are within 16 bits.
            vpadalq_s16(sums, vpaddq_s16(low, high))
        }
    }
}

impl Wide128 for DotProd {
    #[inline(always)]
    fn run<K: Kernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "neon,dotprod")]
        fn run<K: Kernel>(token: DotProd, kernel: K) -> K::Output {
            kernel.run(token)
        }
        // SAFETY: the token proves that the CPU has the instructions.
        unsafe { run(self, kernel) }
    }

    #[inline(always)]
    fn dot(self, sums: Four<int32x4_t>, bytes: Four<uint8x16_t>, x: int8x16_t) -> Four<int32x4_t> {
        // The signed bytes `b - 128`; what is missing is the same for all sums.
        // SAFETY: the token proves that the CPU has the instructions.
        let missing = unsafe { sdot(vdupq_n_s32(0), vdupq_n_s8(-128), x) };
        // SAFETY: as above.
        four(|i| unsafe {
            let bytes = vreinterpretq_s8_u8(veorq_u8(bytes[i], vdupq_n_u8(0x80)));
            sdot(vsubq_s32(sums[i], missing), bytes, x)
        })
    }

    #[inline(always)]
    fn dot_below_128(self, sums: int32x4_t, bytes: uint8x16_t, x: int8x16_t) -> int32x4_t {
        // SAFETY: the token proves that the CPU has the instructions.
        unsafe { sdot(sums, vreinterpretq_s8_u8(bytes), x) }
    }
}

impl Wide128 for I8mm {
    #[inline(always)]
    fn run<K: Kernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "neon,dotprod,i8mm")]
        fn run<K: Kernel>(token: I8mm, kernel: K) -> K::Output {
            kernel.run(token)
        }
        // SAFETY: the token proves that the CPU has the instructions.
        unsafe { run(self, kernel) }
    }

    #[inline(always)]
    fn dot(self, sums: Four<int32x4_t>, bytes: Four<uint8x16_t>, x: int8x16_t) -> Four<int32x4_t> {
        four(|i| self.dot_below_128(sums[i], bytes[i], x))
    }

    #[inline(always)]
    fn dot_below_128(self, sums: int32x4_t, bytes: uint8x16_t, x: int8x16_t) -> int32x4_t {
        // SAFETY: the token proves that the CPU has the instruction.
        unsafe { usdot(sums, bytes, x) }
    }
}

/// Adds the products of signed bytes to their sums.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn sdot(mut sums: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    // SAFETY: an instruction on registers, switched on above.
    unsafe {
        asm!(
            "sdot {sums:v}.4s, {a:v}.16b, {b:v}.16b",
            sums = inout(vreg) sums,
            a = in(vreg) a,
            b = in(vreg) b,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    sums
}

/// Adds the products of unsigned with signed bytes to their sums.
#[inline]
#[target_feature(enable = "neon,i8mm")]
fn usdot(mut sums: int32x4_t, a: uint8x16_t, b: int8x16_t) -> int32x4_t {
    // SAFETY: an instruction on registers, switched on above.
    unsafe {
        asm!(
            "usdot {sums:v}.4s, {a:v}.16b, {b:v}.16b",
            sums = inout(vreg) sums,
            a = in(vreg) a,
            b = in(vreg) b,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    sums
}

/// Four `f16` numbers, given by their bits.
///
/// # Safety
/// The CPU must have NEON, and eight bytes must be readable at `p`; no alignment is needed.
#[inline(always)]
pub(super) unsafe fn load_four_f16(p: *const u8) -> float32x4_t {
    // SAFETY: readable by the contract.
    let bits = unsafe { p.cast::<uint16x4_t>().read_unaligned() };
    let wide;
    // SAFETY: an instruction on registers, which the CPU has by the contract.
    unsafe {
        asm!(
            "fcvtl {wide:v}.4s, {bits:v}.4h",
            wide = out(vreg) wide,
            bits = in(vreg) bits,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    wide
}

/// Applies an instruction to both registers of each operand.
macro_rules! register_operations {
    ($($name:ident($($argument:ident),+) = $f:expr;)+) => {
        $(
            #[inline(always)]
            fn $name(self, $($argument: [float32x4_t; 2]),+) -> [float32x4_t; 2] {
                // SAFETY: the token proves that the CPU has the instructions.
                two(|i| unsafe { $f($($argument[i]),+) })
            }
        )+
    };
}

impl<T: Wide128> Simd for T {
    type V = [float32x4_t; 2];

    const LANES: usize = 8;

    #[inline(always)]
    fn vectorize<K: Kernel>(self, kernel: K) -> K::Output {
        self.run(kernel)
    }

    register_operations! {
        add(a, b) = vaddq_f32;
        sub(a, b) = vsubq_f32;
        mul(a, b) = vmulq_f32;
        div(a, b) = vdivq_f32;
        max(a, b) = |a, b| vbslq_f32(vcgtq_f32(a, b), a, b);
        min(a, b) = |a, b| vbslq_f32(vcltq_f32(a, b), a, b);
        mul_add(a, b, c) = |a, b, c| vfmaq_f32(c, a, b);
        scale_by_power(v, n) = scale_by_power;
    }

    #[inline(always)]
    fn splat(self, value: f32) -> [float32x4_t; 2] {
        // SAFETY: the token proves that the CPU has the instruction.
        [unsafe { vdupq_n_f32(value) }; 2]
    }

    #[inline(always)]
    fn sum(self, v: [float32x4_t; 2]) -> f32 {
        // SAFETY: the token proves that the CPU has the instructions.
        unsafe { vaddvq_f32(vaddq_f32(v[0], v[1])) }
    }

    #[inline(always)]
    fn sum4(self, v: [[float32x4_t; 2]; 4]) -> [f32; 4] {
        let mut sums = [0.0; 4];
        // SAFETY: the token proves that the CPU has the instructions; `sums` has room for 4 values.
        unsafe {
            let [a, b, c, d] = four(|i| vaddq_f32(v[i][0], v[i][1]));
            let all = vpaddq_f32(vpaddq_f32(a, b), vpaddq_f32(c, d));
            vst1q_f32(sums.as_mut_ptr(), all);
        }
        sums
    }

    #[inline(always)]
    unsafe fn load_f32(self, p: *const f32) -> [float32x4_t; 2] {
        // SAFETY: readable by the contract; the token proves that the CPU has the instruction.
        unsafe { [vld1q_f32(p), vld1q_f32(p.add(4))] }
    }

    #[inline(always)]
    unsafe fn load_bf16(self, p: *const bf16) -> [float32x4_t; 2] {
        // SAFETY: readable by the contract; the token proves that the CPU has the instructions.
        unsafe {
            let bits = vld1q_u16(p.cast());
            let wide = [vmovl_u16(vget_low_u16(bits)), vmovl_high_u16(bits)];
            two(|i| vreinterpretq_f32_u32(vshlq_n_u32::<16>(wide[i])))
        }
    }

    #[inline(always)]
    unsafe fn load_f16(self, p: *const f16) -> [float32x4_t; 2] {
        // SAFETY: readable by the contract; the token proves that the CPU has the instructions.
        unsafe { [load_four_f16(p.cast()), load_four_f16(p.add(4).cast())] }
    }

    #[inline(always)]
    unsafe fn store_f32(self, p: *mut f32, v: [float32x4_t; 2]) {
        // SAFETY: writable by the contract; the token proves that the CPU has the instruction.
        unsafe {
            vst1q_f32(p, v[0]);
            vst1q_f32(p.add(4), v[1]);
        }
    }

    #[inline(always)]
    fn largest(self, v: [float32x4_t; 2]) -> f32 {
        // SAFETY: the token proves that the CPU has the instructions.
        unsafe { vmaxvq_f32(vmaxq_f32(v[0], v[1])) }
    }

    #[inline(always)]
    fn prefetch<P>(self, p: *const P) {
        // SAFETY: a prefetch never faults, and changes nothing that a program could see.
        unsafe {
            asm!("prfm pldl1keep, [{p}]", p = in(reg) p.addr(), options(nomem, nostack, preserves_flags));
        }
    }
}

/// `v * 2^n`, rounded once.
///
/// # Safety
/// The CPU must have NEON.
#[inline(always)]
unsafe fn scale_by_power(v: float32x4_t, n: float32x4_t) -> float32x4_t {
    // In two steps, of which only the second can leave the range of normal numbers and round.
    // SAFETY: the CPU has the instructions by the contract.
    unsafe {
        let n = vcvtnq_s32_f32(n);
        let half = vshrq_n_s32::<1>(n);
        let power = |n| {
            let exponent = vaddq_s32(n, vdupq_n_s32(127));
            vreinterpretq_f32_s32(vshlq_n_s32::<23>(exponent))
        };
        let rest = power(vsubq_s32(n, half));
        vmulq_f32(vmulq_f32(v, power(half)), rest)
    }
}
