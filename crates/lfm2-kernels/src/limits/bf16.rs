//! The dot product of `bf16` pairs, which AVX-512 has as an extension.

use std::arch::x86_64::*;
use std::hint::black_box;

use crate::Isa;

const SUMS: usize = 12;

/// Proof that the CPU has the instruction, and a loop of it.
#[derive(Clone, Copy)]
pub(crate) struct Dots(());

impl Dots {
    /// Multiply-adds per round.
    pub(crate) const MACS: usize = SUMS * 32;

    /// `None` when this CPU lacks the instruction or `isa` is a lesser one.
    pub(crate) fn detect(isa: Isa) -> Option<Self> {
        let found = matches!(isa, Isa::Avx512(_)) && is_x86_feature_detected!("avx512bf16");
        found.then_some(Self(()))
    }

    /// Adds up products `rounds` times.
    pub(crate) fn run(self, rounds: usize) -> f32 {
        // SAFETY: `detect` found AVX-512 F (part of the token in `isa`) and its bf16 extension.
        unsafe { run(rounds) }
    }
}

/// # Safety
/// The CPU must have AVX-512 F and AVX512_BF16.
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn run(rounds: usize) -> f32 {
    // The bits of 1 and of 2^-24.
    let [one, little] = [0x3f80_i16, 0x3380].map(|bits| _mm512_set1_epi16(black_box(bits)));
    // SAFETY: both are 64 bytes that mean sixteen pairs of numbers, whatever the bits.
    let (x, y) = unsafe {
        (
            std::mem::transmute::<__m512i, __m512bh>(one),
            std::mem::transmute::<__m512i, __m512bh>(little),
        )
    };
    let mut sums = [_mm512_set1_ps(1.0); SUMS];
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum = _mm512_dpbf16_ps(*sum, x, y);
        }
    }
    sums.into_iter()
        .fold(0.0, |all, sum| all + _mm512_reduce_add_ps(sum))
}
