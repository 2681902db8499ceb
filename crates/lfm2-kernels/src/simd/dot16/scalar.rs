//! Arrays, which compilers turn into whatever vectors there are.

use half::f16;

use super::{Dot16, ROWS, UNIT, sums_of_bytes};
use crate::isa::Scalar;

#[inline(always)]
fn each<T: Copy, U: Copy + Default, const N: usize>(a: [T; N], f: impl Fn(T) -> U) -> [U; N] {
    let mut out = [U::default(); N];
    for i in 0..N {
        out[i] = f(a[i]);
    }
    out
}

impl Dot16 for Scalar {
    type Bytes = [u8; 4 * ROWS];
    type Ints = [i32; ROWS];
    type Floats = [f32; ROWS];

    const ACTIVATIONS: usize = 2;
    const NARROW_ACTIVATIONS: usize = 3;

    sums_of_bytes!();

    #[inline(always)]
    unsafe fn bytes(self, p: *const u8) -> [u8; 4 * ROWS] {
        // SAFETY: readable by the contract.
        unsafe { p.cast::<[u8; 4 * ROWS]>().read_unaligned() }
    }

    #[inline(always)]
    fn keep(self, bytes: [u8; 4 * ROWS], mask: u8) -> [u8; 4 * ROWS] {
        each(bytes, |b| b & mask)
    }

    #[inline(always)]
    fn up<const BITS: u32>(self, bytes: [u8; 4 * ROWS]) -> [u8; 4 * ROWS] {
        each(bytes, |b| b << BITS)
    }

    #[inline(always)]
    fn down<const BITS: u32>(self, bytes: [u8; 4 * ROWS]) -> [u8; 4 * ROWS] {
        each(bytes, |b| b >> BITS)
    }

    #[inline(always)]
    fn union(self, a: [u8; 4 * ROWS], b: [u8; 4 * ROWS]) -> [u8; 4 * ROWS] {
        let mut out = a;
        for i in 0..4 * ROWS {
            out[i] |= b[i];
        }
        out
    }

    #[inline(always)]
    fn ints(self, value: i32) -> [i32; ROWS] {
        [value; ROWS]
    }

    #[inline(always)]
    unsafe fn dot(self, mut sums: [i32; ROWS], bytes: [u8; 4 * ROWS], x: *const i8) -> [i32; ROWS] {
        // SAFETY: readable by the contract.
        let x = each(unsafe { x.cast::<[i8; 4]>().read_unaligned() }, i32::from);
        for i in 0..ROWS {
            let product = |j: usize| i32::from(bytes[4 * i + j]) * x[j];
            sums[i] += (product(0) + product(1)) + (product(2) + product(3));
        }
        sums
    }

    #[inline(always)]
    fn plus(self, mut a: [i32; ROWS], b: [i32; ROWS]) -> [i32; ROWS] {
        for i in 0..ROWS {
            a[i] = a[i].wrapping_add(b[i]);
        }
        a
    }

    #[inline(always)]
    fn times_power<const BITS: u32>(self, a: [i32; ROWS]) -> [i32; ROWS] {
        each(a, |a| a << BITS)
    }

    #[inline(always)]
    fn floats(self, ints: [i32; ROWS]) -> [f32; ROWS] {
        each(ints, |i| i as f32)
    }

    #[inline(always)]
    fn float(self, value: f32) -> [f32; ROWS] {
        [value; ROWS]
    }

    #[inline(always)]
    unsafe fn f16_values(self, p: *const u8) -> [f32; ROWS] {
        // SAFETY: readable by the contract.
        let bits = unsafe { p.cast::<[u16; ROWS]>().read_unaligned() };
        each(bits, |b| f16::from_bits(u16::from_le(b)).to_f32())
    }

    #[inline(always)]
    unsafe fn u8_values(self, p: *const u8) -> [f32; ROWS] {
        // SAFETY: readable by the contract.
        each(
            unsafe { p.cast::<[u8; ROWS]>().read_unaligned() },
            f32::from,
        )
    }

    #[inline(always)]
    unsafe fn i8_values(self, p: *const u8) -> [f32; ROWS] {
        // SAFETY: readable by the contract.
        each(
            unsafe { p.cast::<[i8; ROWS]>().read_unaligned() },
            f32::from,
        )
    }

    #[inline(always)]
    fn times(self, mut a: [f32; ROWS], b: [f32; ROWS]) -> [f32; ROWS] {
        for i in 0..ROWS {
            a[i] *= b[i];
        }
        a
    }

    #[inline(always)]
    fn times_plus(self, a: [f32; ROWS], b: [f32; ROWS], mut c: [f32; ROWS]) -> [f32; ROWS] {
        for i in 0..ROWS {
            c[i] += a[i] * b[i];
        }
        c
    }

    #[inline(always)]
    fn minus_times(self, a: [f32; ROWS], b: [f32; ROWS], mut c: [f32; ROWS]) -> [f32; ROWS] {
        for i in 0..ROWS {
            c[i] -= a[i] * b[i];
        }
        c
    }

    #[inline(always)]
    fn to_array(self, floats: [f32; ROWS]) -> [f32; ROWS] {
        floats
    }
}
