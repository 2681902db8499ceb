use half::{bf16, f16};
use proptest::prelude::*;

use super::{Random, Stored, assert_near, assert_near_by, config, isas, most, naive};
use crate::{
    Isa, MatMut, MatRef, Panels, Sum, matmul, matmul_bf16, matmul_nn, matmul_panels, matmul_tn,
};

/// How far rounding may move a product: by a part of the largest sum of absolute products, since in the
/// sum itself they may cancel out.
fn allowed(x: &[f32], w: &[f32], m: usize, k: usize, n: usize) -> f64 {
    let absolute = |values: &[f32]| values.iter().map(|v| v.abs()).collect::<Vec<_>>();
    let sums = naive::matmul(&absolute(x), &absolute(w), m, k, n);
    3e-6 * sums.into_iter().fold(0.0, f64::max)
}

/// Multiplies on every instruction set and compares.
fn check<W: Stored>(m: usize, k: usize, n: usize, offset: usize, seed: u64) {
    let mut random = Random(seed);
    let x = random.values(m * k, offset);
    let w = random.stored::<W>(n * k, offset);
    let w_values = W::widened(&w);
    let expected = naive::matmul(&x, &w_values, m, k, n);
    let error = allowed(&x, &w_values, m, k, n);
    for isa in isas() {
        let y = product(isa, &x, &w, m, k, n);
        assert_near_by(&y, &expected, error, &format!("{isa} {m}x{k}x{n}"));
    }
}

fn product<W: Stored>(isa: Isa, x: &[f32], w: &[W], m: usize, k: usize, n: usize) -> Vec<f32> {
    let mut y = vec![f32::NAN; m * n];
    let (x, w) = (MatRef::new(x, m, k).unwrap(), MatRef::new(w, n, k).unwrap());
    matmul(isa, x, w, MatMut::new(&mut y, m, n).unwrap()).unwrap();
    y
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn few_rows_match_the_naive_product(
        m in 1_usize..=8, k in 0..=most(130, 40), n in 0..=most(33, 9), offset in 0_usize..4, seed: u64,
    ) {
        check::<f32>(m, k, n, offset, seed);
        check::<bf16>(m, k, n, offset, seed);
        check::<f16>(m, k, n, offset, seed);
    }

    #[test]
    fn many_rows_match_the_naive_product(
        m in 9..=most(70, 20), k in 1..=most(130, 20), n in 1..=most(60, 9), offset in 0_usize..4, seed: u64,
    ) {
        check::<f32>(m, k, n, offset, seed);
        check::<bf16>(m, k, n, offset, seed);
        check::<f16>(m, k, n, offset, seed);
    }
}

fn check_bf16(m: usize, k: usize, n: usize, seed: u64) {
    let mut random = Random(seed);
    let x = random.values(m * k, 1);
    let w = random.stored::<bf16>(n * k, 1);
    let rounded: Vec<f32> = x.iter().map(|&v| bf16::from_f32(v).to_f32()).collect();
    let w_values = bf16::widened(&w);
    let expected = naive::matmul(&rounded, &w_values, m, k, n);
    let error = allowed(&rounded, &w_values, m, k, n);
    for isa in isas() {
        let mut y = vec![7.0; m * n];
        let (x, w) = (
            MatRef::new(&x, m, k).unwrap(),
            MatRef::new(&w, n, k).unwrap(),
        );
        if matmul_bf16(isa, x, w, MatMut::new(&mut y, m, n).unwrap()).unwrap() {
            assert_near_by(&y, &expected, error, &format!("{isa} {m}x{k}x{n}"));
        } else {
            assert!(y.iter().all(|&v| v == 7.0), "{isa}");
        }
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn rounded_products_match_the_naive_product(
        m in 1..=most(60, 9), k in 0..=most(130, 20), n in 0..=most(70, 9), seed: u64,
    ) {
        check_bf16(m, k, n, seed);
    }
}

fn transposed(values: &[f32], rows: usize, cols: usize) -> Vec<f32> {
    let at = |i: usize| values[i % rows * cols + i / rows];
    (0..rows * cols).map(at).collect()
}

/// Both straight products, replacing and adding, into every third row of a wider matrix.
fn check_straight(m: usize, k: usize, n: usize, seed: u64) {
    let mut random = Random(seed);
    let (x, w) = (random.values(m * k, 1), random.values(k * n, 1));
    let before = random.values(3 * m * (n + 2), 0);
    let w_rows = transposed(&w, k, n);
    let product = naive::matmul(&x, &w_rows, m, k, n);
    let error = allowed(&x, &w_rows, m, k, n) + 1e-6;
    let by_step = transposed(&x, m, k);
    for (isa, sum) in isas()
        .into_iter()
        .flat_map(|isa| [(isa, Sum::Replace), (isa, Sum::Add)])
    {
        let expected: Vec<f64> = (0..m * n)
            .map(|i| match sum {
                Sum::Replace => product[i],
                Sum::Add => product[i] + f64::from(before[i / n * 3 * (n + 2) + i % n]),
            })
            .collect();
        let w = MatRef::new(&w, k, n).unwrap();
        let check = |name: &str, run: &dyn Fn(MatMut<'_, f32>)| {
            let mut y = before.clone();
            run(MatMut::strided(&mut y, m, n, 3 * (n + 2)).unwrap());
            let rows = y.chunks(3 * (n + 2)).take(m);
            let found: Vec<f32> = rows.clone().flat_map(|row| row[..n].to_vec()).collect();
            assert_near_by(
                &found,
                &expected,
                error,
                &format!("{name} {isa} {m}x{k}x{n} {sum:?}"),
            );
            for (row, before) in rows.zip(before.chunks(3 * (n + 2))) {
                assert_eq!(row[n..], before[n..], "{name} {isa}");
            }
        };
        let rows = MatRef::new(&x, m, k).unwrap();
        check("nn", &|y| matmul_nn(isa, rows, w, y, sum).unwrap());
        let panels = Panels::new(isa, w);
        check("panels", &|y| {
            matmul_panels(isa, rows, &panels, y, sum).unwrap();
        });
        let panels = Panels::across(isa, MatRef::new(&w_rows, n, k).unwrap());
        assert_eq!((panels.rows(), panels.cols()), (k, n));
        check("across", &|y| {
            matmul_panels(isa, rows, &panels, y, sum).unwrap();
        });
        let columns = MatRef::new(&by_step, k, m).unwrap();
        check("tn", &|y| matmul_tn(isa, columns, w, y, sum).unwrap());
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn straight_products_match_the_naive_product(
        m in 0..=most(60, 14), k in 0..=most(130, 9), n in 1..=most(80, 9), seed: u64,
    ) {
        check_straight(m, k, n, seed);
    }
}

#[test]
#[cfg_attr(miri, ignore = "too large")]
fn straight_products_larger_than_their_blocks_are_added_up() {
    check_straight(200, 600, 37, 1);
    check_straight(13, 270, 530, 2);
}

#[test]
#[cfg_attr(miri, ignore = "too large")]
fn long_rounded_sums_are_added_up() {
    check_bf16(30, 4100, 40, 1);
}

#[test]
#[cfg_attr(miri, ignore = "too large")]
fn blocks_of_steps_and_rows_are_added_up() {
    // More rows than one packed block, and sums longer than one block of steps.
    check::<f32>(270, 1100, 30, 1, 1);
    check::<bf16>(300, 2049, 13, 0, 2);
}

#[test]
fn strided_views_leave_the_gaps_alone() {
    let (m, k, n) = (11, 20, 7);
    let mut random = Random(3);
    let x = random.values(m * 32, 0);
    let w = random.values(n * 24, 0);
    let rows = |data: &[f32], stride: usize, cols: usize| -> Vec<f32> {
        data.chunks(stride)
            .flat_map(|row| row[..cols].to_vec())
            .collect()
    };
    let expected = naive::matmul(&rows(&x, 32, k), &rows(&w, 24, k), m, k, n);
    for isa in isas() {
        for count in [3, m] {
            let mut y = vec![7.0; m * 10];
            let x = MatRef::strided(&x, count, k, 32).unwrap();
            let w = MatRef::strided(&w, n, k, 24).unwrap();
            matmul(isa, x, w, MatMut::strided(&mut y, count, n, 10).unwrap()).unwrap();
            let y = &y[..count * 10];
            assert_near(&rows(y, 10, n), &expected[..count * n], 1e-5, "strided");
            assert!(y.chunks(10).all(|row| row[n..] == [7.0; 3]));
        }
    }
}

#[test]
fn extreme_values_stay_in_their_row_and_column() {
    let k = 19;
    for isa in isas() {
        for m in [2, 12] {
            let mut x = vec![1.0; m * k];
            x[k + 3] = f32::NAN;
            let mut w = vec![1.0; 5 * k];
            w[2 * k + 18] = f32::INFINITY;
            w[3 * k] = f32::MAX;
            w[3 * k + 1] = f32::MAX;
            let y = product::<f32>(isa, &x, &w, m, k, 5);
            assert_eq!(y[0], k as f32);
            assert_eq!(y[2], f32::INFINITY);
            assert_eq!(y[3], f32::INFINITY);
            assert!(y[5..10].iter().all(|value| value.is_nan()));
            assert!(m < 12 || y[10] == k as f32);
        }
    }
}

#[test]
fn a_sum_of_nothing_is_zero() {
    for isa in isas() {
        assert_eq!(product::<bf16>(isa, &[], &[], 2, 0, 3), [0.0; 6]);
        assert!(product::<f16>(isa, &[], &[f16::ONE; 6], 0, 3, 2).is_empty());
    }
}
