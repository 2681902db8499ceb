//! The vector operations themselves, and what is built directly on them.

use half::{bf16, f16};

use super::{Stored, isas, most};
use crate::element::{load_head, widen_into};
use crate::scratch::with_scratch;
use crate::simd::dot16::{ROWS, UNIT};
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
        let bits = (0..=u16::MAX).step_by(most(1, 97));
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

#[derive(Clone, Copy)]
struct Dots;

impl Kernel for Dots {
    type Output = ();

    fn run<S: Simd>(self, s: S) {
        // The largest products of either sign, beside others that must not spill into them.
        for bytes in [[255; 4], [128; 4], [127; 4], [255, 0, 128, 1], [0; 4]] {
            for x in [[-128; 4], [127; 4], [-128, 127, -1, 1], [0, 0, 0, -128]] {
                let line: Vec<u8> = (0..ROWS)
                    .flat_map(|row| bytes.map(|byte: u8| byte.rotate_left(row as u32 % 3)))
                    .collect();
                check_dots(s, &line, x);
            }
        }
    }
}

/// Every sum takes its own four bytes, exactly, and keeps what it had.
fn check_dots<S: Simd>(s: S, line: &[u8], x: [i8; 4]) {
    let dot = |bytes: &[u8]| {
        let products = bytes
            .iter()
            .zip(x)
            .map(|(b, x)| i32::from(*b) * i32::from(x));
        (products.sum::<i32>() - 1000) as f32
    };
    let below: Vec<u8> = line.iter().map(|byte| byte & 127).collect();
    let (any, less): (Vec<f32>, Vec<f32>) = (
        line.chunks(4).map(dot).collect(),
        below.chunks(4).map(dot).collect(),
    );
    let sums = s.ints(-1000);
    // SAFETY: both lines have 64 bytes, and `x` has four.
    let (found, found_below) = unsafe {
        (
            s.dot(sums, s.bytes(line.as_ptr()), x.as_ptr()),
            s.dot_below_128(sums, s.bytes(below.as_ptr()), x.as_ptr()),
        )
    };
    assert_eq!(s.to_array(s.floats(found)).to_vec(), any, "{line:?} {x:?}");
    assert_eq!(s.to_array(s.floats(found_below)).to_vec(), less, "{x:?}");
}

#[test]
fn dot_products_of_bytes_are_exact() {
    on_all(Dots);
}

#[derive(Clone, Copy)]
struct UnitDots;

impl Kernel for UnitDots {
    type Output = ();

    fn run<S: Simd>(self, s: S) {
        let level = |at: usize, most: u8| ((at * 7919) % (usize::from(most) + 1)) as u8;
        for most in [15, 127, 255] {
            for x in [
                [16_256; UNIT],
                [-16_256; UNIT],
                std::array::from_fn(|at| (((at * 7919) % 32_513) as i32 - 16_256) as i16),
            ] {
                check_words(s, most, &[most; 8 * 4 * ROWS], &x);
                let levels = std::array::from_fn(|at| level(at, most));
                check_words(s, most, &levels, &x);
            }
        }
        for x in [
            [127; UNIT],
            [-127; UNIT],
            std::array::from_fn(|at| (((at * 7919) % 255) as i32 - 127) as i8),
        ] {
            check_small(s, &[15; 8 * 4 * ROWS], &x);
            check_small(s, &std::array::from_fn(|at| level(at, 15)), &x);
        }
    }
}

/// What the sums of a unit of eight lines are, which begin with -1000.
fn unit_sums(levels: &[u8], x: impl Fn(usize) -> i32) -> Vec<f32> {
    let product = |row, at| i32::from(levels[at / 4 * 4 * ROWS + 4 * row + at % 4]) * x(at);
    let sum = |row| (0..UNIT).map(|at| product(row, at)).sum::<i32>();
    (0..ROWS).map(|row| (sum(row) - 1000) as f32).collect()
}

fn check_words<S: Simd>(s: S, most: u8, levels: &[u8; 8 * 4 * ROWS], x: &[i16; UNIT]) {
    let [first, second] = S::planes(x);
    let mut sums = [s.wide(s.ints(-1000)); 2];
    for (group, line) in levels.chunks_exact(4 * ROWS).enumerate() {
        let [x, second] = [&first, &second].map(|plane| plane[4 * group..].as_ptr().cast());
        // SAFETY: there are lines of 64 bytes and planes of four bytes per group.
        unsafe {
            let line = s.bytes(line.as_ptr());
            sums[0] = s.dot_words(sums[0], line, x, second);
            if most < 128 {
                sums[1] = s.dot_words_below_128(sums[1], line, x, second);
            }
        }
    }
    let expected = unit_sums(levels, |at| i32::from(x[at]));
    let found = sums.map(|sums| s.to_array(s.floats(s.wide_sum(sums))).to_vec());
    assert_eq!(found[0], expected);
    assert!(most >= 128 || found[1] == expected);
}

fn check_small<S: Simd>(s: S, levels: &[u8; 8 * 4 * ROWS], x: &[i8; UNIT]) {
    let start = s.ints(-1000);
    let mut sums = s.small(start);
    for (line, x) in levels.chunks_exact(4 * ROWS).zip(x.chunks_exact(4)) {
        // SAFETY: there are 64 bytes and four.
        sums = unsafe { s.dot_small(sums, s.bytes(line.as_ptr()), x.as_ptr()) };
    }
    let found = s.to_array(s.floats(s.small_sum(sums, start)));
    assert_eq!(found.to_vec(), unit_sums(levels, |at| i32::from(x[at])));
}

#[test]
fn dot_products_of_a_unit_are_exact() {
    on_all(UnitDots);
}

#[derive(Clone, Copy)]
struct BytesToNumbers;

impl Kernel for BytesToNumbers {
    type Output = ();

    fn run<S: Simd>(self, s: S) {
        let bytes: Vec<u8> = (0..=u8::MAX).collect();
        for part in bytes.windows(ROWS) {
            // SAFETY: there are sixteen bytes.
            let (unsigned, signed) =
                unsafe { (s.u8_values(part.as_ptr()), s.i8_values(part.as_ptr())) };
            let expected: Vec<f32> = part.iter().map(|b| f32::from(*b)).collect();
            assert_eq!(s.to_array(unsigned).to_vec(), expected);
            let expected: Vec<f32> = part.iter().map(|b| f32::from(*b as i8)).collect();
            assert_eq!(s.to_array(signed).to_vec(), expected);
        }
        for first in [-128.0, -1.0, 0.0, 120.0] {
            let values: Vec<f32> = (0..S::LANES).map(|i| first + (i % 8) as f32).collect();
            let largest = first + 7.0_f32.min(S::LANES as f32 - 1.0);
            assert_eq!(s.largest(s.load(&values)), largest);
        }
    }
}

#[test]
fn bytes_become_numbers() {
    on_all(BytesToNumbers);
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
