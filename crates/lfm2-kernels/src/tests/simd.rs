//! The vector operations themselves, and what is built directly on them.

use half::{bf16, f16};

use super::{Stored, isas};
use crate::element::{load_head, widen_into};
use crate::scratch::with_scratch;
use crate::simd::{Kernel, MAX_LANES, Simd, math};

/// Runs a test on every instruction set.
fn on_all<K: Kernel<Output = ()> + Copy>(kernel: K) {
    for isa in isas() {
        isa.run(kernel);
    }
}

fn lanes<S: Simd>(s: S, v: S::V) -> Vec<f32> {
    let mut lanes = [0.0; MAX_LANES];
    s.store(&mut lanes, v);
    lanes[..S::LANES].to_vec()
}

#[derive(Clone, Copy)]
struct Sums;

impl Kernel for Sums {
    type Output = ();

    fn run<S: Simd>(self, s: S) {
        let values: Vec<f32> = (0..4 * S::LANES).map(|i| (1 << (i % 20)) as f32).collect();
        let expected: Vec<f32> = values.chunks(S::LANES).map(|v| v.iter().sum()).collect();
        let vectors: Vec<S::V> = values.chunks(S::LANES).map(|v| s.load(v)).collect();
        for (vector, sum) in vectors.iter().zip(&expected) {
            assert_eq!(s.sum(*vector), *sum);
        }
        let four = [vectors[0], vectors[1], vectors[2], vectors[3]];
        assert_eq!(s.sum4(four).to_vec(), expected);
    }
}

#[test]
fn sums_take_every_lane_once() {
    on_all(Sums);
}

#[derive(Clone, Copy)]
struct Extremes;

impl Kernel for Extremes {
    type Output = ();

    fn run<S: Simd>(self, s: S) {
        let (one, nan) = (s.splat(1.0), s.splat(f32::NAN));
        assert_eq!(lanes(s, s.max(nan, one)), vec![1.0; S::LANES]);
        assert_eq!(lanes(s, s.min(nan, one)), vec![1.0; S::LANES]);
        assert!(lanes(s, s.max(one, nan)).iter().all(|v| v.is_nan()));
        assert!(lanes(s, s.min(one, nan)).iter().all(|v| v.is_nan()));
        assert_eq!(s.max_lane(nan), f32::NEG_INFINITY);
        for len in 0..=70 {
            let mut values = vec![-1.0; len];
            assert_eq!(
                math::max(s, &values),
                if len == 0 { f32::NEG_INFINITY } else { -1.0 }
            );
            for at in 0..len {
                values[at] = 3.0;
                assert_eq!(math::max(s, &values), 3.0);
                values[at] = f32::NAN;
            }
        }
    }
}

#[test]
fn maxima_and_minima_drop_nan_on_the_left_only() {
    on_all(Extremes);
}

#[derive(Clone, Copy)]
struct Powers;

impl Kernel for Powers {
    type Output = ();

    fn run<S: Simd>(self, s: S) {
        for n in -160..=160 {
            for value in [0.75_f32, 1.0, 1.333_333_4] {
                let found = lanes(s, s.scale_by_power(s.splat(value), s.splat(n as f32)));
                let expected = (f64::from(value) * 2f64.powi(n)) as f32;
                assert_eq!(found, vec![expected; S::LANES], "{value} * 2^{n}");
            }
        }
    }
}

#[test]
fn scaling_by_powers_rounds_once() {
    on_all(Powers);
}

#[derive(Clone, Copy)]
struct Heads;

impl Kernel for Heads {
    type Output = ();

    fn run<S: Simd>(self, s: S) {
        let values: Vec<f32> = (1..=S::LANES).map(|i| i as f32).collect();
        for len in 0..=S::LANES {
            let head = load_head(s, &values[..len]);
            let found = lanes(s, head);
            assert_eq!(found[..len], values[..len]);
            assert!(found[len..].iter().all(|&lane| lane == 0.0));
            let mut written = vec![9.0; len];
            s.store_head(&mut written, head);
            assert_eq!(written, values[..len]);
        }
    }
}

#[test]
fn heads_of_vectors_hold_what_there_is() {
    on_all(Heads);
}

#[derive(Clone, Copy)]
struct Widening;

impl Kernel for Widening {
    type Output = ();

    fn run<S: Simd>(self, s: S) {
        let bits = 0..=u16::MAX;
        check_widening(s, &bits.clone().map(bf16::from_bits).collect::<Vec<_>>());
        check_widening(s, &bits.map(f16::from_bits).collect::<Vec<_>>());
    }
}

/// Every number of a format is widened exactly, wherever it stands.
fn check_widening<S: Simd, T: Stored>(s: S, values: &[T]) {
    for part in [values, &values[3..]] {
        let mut found = vec![0.0; part.len()];
        widen_into(s, part, &mut found);
        for (found, expected) in found.iter().zip(T::widened(part)) {
            assert!(*found == expected || (found.is_nan() && expected.is_nan()));
            assert_eq!(found.is_sign_negative(), expected.is_sign_negative());
        }
    }
}

#[test]
fn every_half_precision_number_is_widened_exactly() {
    on_all(Widening);
}

#[test]
fn nested_scratch_buffers_are_aligned_and_apart() {
    for _ in 0..3 {
        with_scratch(100, |outer| {
            outer.fill(1.0);
            with_scratch(1000, |inner| {
                assert_eq!(inner.len(), 1000);
                assert!(inner.as_ptr().addr().is_multiple_of(64));
                inner.fill(2.0);
            });
            assert_eq!(outer.len(), 100);
            assert!(outer.iter().all(|&value| value == 1.0));
        });
    }
}
