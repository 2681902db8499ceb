//! Four registers of four sums: NEON, with or without dot products of bytes.

use std::arch::aarch64::*;

use super::{Dot16, ROWS, UNIT, sums_of_bytes};
use crate::simd::neon::{Four, Wide128, four, load_four_f16};

impl<T: Wide128> Dot16 for T {
    type Bytes = Four<uint8x16_t>;
    type Ints = Four<int32x4_t>;
    type Floats = Four<float32x4_t>;

    const ACTIVATIONS: usize = 2;
    const NARROW_ACTIVATIONS: usize = 3;

    sums_of_bytes!();

    #[inline(always)]
    unsafe fn bytes(self, p: *const u8) -> Four<uint8x16_t> {
        // SAFETY: readable by the contract; the token proves that the CPU has the instruction.
        four(|i| unsafe { vld1q_u8(p.add(16 * i)) })
    }

    #[inline(always)]
    fn keep(self, bytes: Four<uint8x16_t>, mask: u8) -> Four<uint8x16_t> {
        // SAFETY: the token proves that the CPU has the instructions.
        four(|i| unsafe { vandq_u8(bytes[i], vdupq_n_u8(mask)) })
    }

    #[inline(always)]
    fn up<const BITS: u32>(self, bytes: Four<uint8x16_t>) -> Four<uint8x16_t> {
        // SAFETY: the token proves that the CPU has the instructions.
        four(|i| unsafe { vshlq_u8(bytes[i], vdupq_n_s8(BITS as i8)) })
    }

    #[inline(always)]
    fn down<const BITS: u32>(self, bytes: Four<uint8x16_t>) -> Four<uint8x16_t> {
        // SAFETY: the token proves that the CPU has the instructions.
        four(|i| unsafe { vshlq_u8(bytes[i], vdupq_n_s8(-(BITS as i8))) })
    }

    #[inline(always)]
    fn union(self, a: Four<uint8x16_t>, b: Four<uint8x16_t>) -> Four<uint8x16_t> {
        // SAFETY: the token proves that the CPU has the instructions.
        four(|i| unsafe { vorrq_u8(a[i], b[i]) })
    }

    #[inline(always)]
    fn ints(self, value: i32) -> Four<int32x4_t> {
        // SAFETY: the token proves that the CPU has the instruction.
        [unsafe { vdupq_n_s32(value) }; 4]
    }

    #[inline(always)]
    unsafe fn dot(
        self,
        sums: Four<int32x4_t>,
        bytes: Four<uint8x16_t>,
        x: *const i8,
    ) -> Four<int32x4_t> {
        // SAFETY: forwarded from the caller.
        let x = unsafe { four_bytes(x) };
        Wide128::dot(self, sums, bytes, x)
    }

    #[inline(always)]
    unsafe fn dot_below_128(
        self,
        sums: Four<int32x4_t>,
        bytes: Four<uint8x16_t>,
        x: *const i8,
    ) -> Four<int32x4_t> {
        // SAFETY: forwarded from the caller.
        let x = unsafe { four_bytes(x) };
        four(|i| Wide128::dot_below_128(self, sums[i], bytes[i], x))
    }

    #[inline(always)]
    fn plus(self, a: Four<int32x4_t>, b: Four<int32x4_t>) -> Four<int32x4_t> {
        // SAFETY: the token proves that the CPU has the instructions.
        four(|i| unsafe { vaddq_s32(a[i], b[i]) })
    }

    #[inline(always)]
    fn times_power<const BITS: u32>(self, a: Four<int32x4_t>) -> Four<int32x4_t> {
        // SAFETY: the token proves that the CPU has the instructions.
        four(|i| unsafe { vshlq_s32(a[i], vdupq_n_s32(BITS as i32)) })
    }

    #[inline(always)]
    fn floats(self, ints: Four<int32x4_t>) -> Four<float32x4_t> {
        // SAFETY: the token proves that the CPU has the instructions.
        four(|i| unsafe { vcvtq_f32_s32(ints[i]) })
    }

    #[inline(always)]
    fn float(self, value: f32) -> Four<float32x4_t> {
        // SAFETY: the token proves that the CPU has the instruction.
        [unsafe { vdupq_n_f32(value) }; 4]
    }

    #[inline(always)]
    unsafe fn f16_values(self, p: *const u8) -> Four<float32x4_t> {
        // SAFETY: readable by the contract; the token proves that the CPU has the instructions.
        four(|i| unsafe { load_four_f16(p.add(8 * i)) })
    }

    #[inline(always)]
    unsafe fn u8_values(self, p: *const u8) -> Four<float32x4_t> {
        // SAFETY: readable by the contract; the token proves that the CPU has the instructions.
        unsafe {
            let bytes = vld1q_u8(p);
            let (low, high) = (vmovl_u8(vget_low_u8(bytes)), vmovl_high_u8(bytes));
            let wide = [
                vmovl_u16(vget_low_u16(low)),
                vmovl_high_u16(low),
                vmovl_u16(vget_low_u16(high)),
                vmovl_high_u16(high),
            ];
            four(|i| vcvtq_f32_u32(wide[i]))
        }
    }

    #[inline(always)]
    unsafe fn i8_values(self, p: *const u8) -> Four<float32x4_t> {
        // SAFETY: readable by the contract; the token proves that the CPU has the instructions.
        unsafe {
            let bytes = vld1q_s8(p.cast());
            let (low, high) = (vmovl_s8(vget_low_s8(bytes)), vmovl_high_s8(bytes));
            let wide = [
                vmovl_s16(vget_low_s16(low)),
                vmovl_high_s16(low),
                vmovl_s16(vget_low_s16(high)),
                vmovl_high_s16(high),
            ];
            four(|i| vcvtq_f32_s32(wide[i]))
        }
    }

    #[inline(always)]
    fn times(self, a: Four<float32x4_t>, b: Four<float32x4_t>) -> Four<float32x4_t> {
        // SAFETY: the token proves that the CPU has the instructions.
        four(|i| unsafe { vmulq_f32(a[i], b[i]) })
    }

    #[inline(always)]
    fn times_plus(
        self,
        a: Four<float32x4_t>,
        b: Four<float32x4_t>,
        c: Four<float32x4_t>,
    ) -> Four<float32x4_t> {
        // SAFETY: the token proves that the CPU has the instructions.
        four(|i| unsafe { vfmaq_f32(c[i], a[i], b[i]) })
    }

    #[inline(always)]
    fn minus_times(
        self,
        a: Four<float32x4_t>,
        b: Four<float32x4_t>,
        c: Four<float32x4_t>,
    ) -> Four<float32x4_t> {
        // SAFETY: the token proves that the CPU has the instructions.
        four(|i| unsafe { vfmsq_f32(c[i], a[i], b[i]) })
    }

    #[inline(always)]
    fn to_array(self, floats: Four<float32x4_t>) -> [f32; ROWS] {
        let mut values = [0.0; ROWS];
        for (values, floats) in values.chunks_exact_mut(4).zip(floats) {
            // SAFETY: there is room for four values; the token proves that the CPU has the instruction.
            unsafe { vst1q_f32(values.as_mut_ptr(), floats) };
        }
        values
    }
}

/// Four signed bytes, four times.
///
/// # Safety
/// The CPU must have NEON, and they must be readable at `x`; no alignment is needed.
#[inline(always)]
unsafe fn four_bytes(x: *const i8) -> int8x16_t {
    // SAFETY: by the contract.
    unsafe { vreinterpretq_s8_s32(vdupq_n_s32(x.cast::<i32>().read_unaligned())) }
}
