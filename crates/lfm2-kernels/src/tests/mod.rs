//! Every kernel on every instruction set of this CPU against [`naive`].

mod attention;
mod elementwise;
mod gradients;
mod image;
mod isa;
mod limits;
mod logits;
mod matmul;
mod max_sim;
mod naive;
mod optim;
mod packed;
mod profile;
mod shapes;
mod simd;
mod threads;

use half::{bf16, f16};
use proptest::test_runner::Config;

use crate::Isa;
use crate::element::sealed::Load;

/// What a kernel has to be tested on: everything this CPU has, or what `LFM2_ISA` names.
fn isas() -> Vec<Isa> {
    if std::env::var_os("LFM2_ISA").is_some() {
        vec![Isa::from_env().unwrap()]
    } else {
        Isa::available()
    }
}

pub(crate) fn config() -> Config {
    Config {
        failure_persistence: None,
        // Miri is slow, and looks for something else.
        ..Config::with_cases(if cfg!(miri) { 2 } else { 64 })
    }
}

/// The largest size to test: the usual one, or else what Miri can do within seconds.
const fn most(usual: usize, under_miri: usize) -> usize {
    if cfg!(miri) { under_miri } else { usual }
}

/// A small generator: data follows from sizes and a seed, so failures shrink to small sizes.
struct Random(u64);

impl Random {
    /// A number in `-1.0..1.0`.
    fn next(&mut self) -> f32 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 40) as f32) / (1 << 23) as f32 - 1.0
    }

    /// Values that start `offset` values after an allocation does, so that they are not aligned.
    fn values(&mut self, len: usize, offset: usize) -> Unaligned<f32> {
        self.stored(len, offset)
    }

    fn stored<T: Stored>(&mut self, len: usize, offset: usize) -> Unaligned<T> {
        let values = (0..offset + len).map(|_| T::round(self.next())).collect();
        Unaligned { values, offset }
    }
}

/// Values that need not start where the allocation does.
#[derive(Clone)]
struct Unaligned<T> {
    values: Vec<T>,
    offset: usize,
}

impl<T> std::ops::Deref for Unaligned<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.values[self.offset..]
    }
}

impl<T> std::ops::DerefMut for Unaligned<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.values[self.offset..]
    }
}

/// The stored formats, for tests that are generic over them.
trait Stored: crate::Element + std::fmt::Debug {
    fn round(value: f32) -> Self;

    fn widened(values: &[Self]) -> Vec<f32> {
        values.iter().map(|value| Load::widen(*value)).collect()
    }
}

impl Stored for f32 {
    fn round(value: f32) -> Self {
        value
    }
}

impl Stored for bf16 {
    fn round(value: f32) -> Self {
        Self::from_f32(value)
    }
}

impl Stored for f16 {
    fn round(value: f32) -> Self {
        Self::from_f32(value)
    }
}

/// Fails unless every value is within `tolerance` of the expected one, relative to the largest.
#[track_caller]
fn assert_near(found: &[f32], expected: &[f64], tolerance: f64, context: &str) {
    let largest = |max: f64, value: &f64| max.max(value.abs());
    let scale = expected.iter().fold(1e-30, largest);
    assert_near_by(found, expected, tolerance * scale, context);
}

/// Fails unless every value is at most `error` away from the expected one.
#[track_caller]
fn assert_near_by(found: &[f32], expected: &[f64], error: f64, context: &str) {
    assert_eq!(found.len(), expected.len(), "{context}: length");
    for (index, (&found, &expected)) in found.iter().zip(expected).enumerate() {
        assert!(
            (f64::from(found) - expected).abs() <= error,
            "{context}: value {index}: expected {expected}, found {found}"
        );
    }
}
