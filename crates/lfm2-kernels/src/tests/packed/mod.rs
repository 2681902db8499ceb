//! Products with packed weights against the formats' definitions.

mod blocks;

use proptest::prelude::*;

use super::{Random, assert_near, config, isas, most, naive};
use crate::packed::{
    BlockType, GatedProduct, PackedMatrix, PackedStack, Precision, Product, Rows, Sum, WeightBytes,
    multiply, multiply_gated, with_quantized, with_quantized_each,
};
use crate::{Isa, MatMut, MatRef, ShapeError};

fn kinds() -> impl Strategy<Value = BlockType> {
    prop::sample::select(&BlockType::ALL[..])
}

/// Every format with every precision it can be multiplied in.
fn pairs() -> impl Strategy<Value = (BlockType, Precision)> {
    let precisions = [Precision::Int8, Precision::Int16];
    let pairs = BlockType::ALL
        .into_iter()
        .flat_map(|kind| precisions.map(|p| (kind, p)));
    let possible = |&(kind, p): &(BlockType, Precision)| {
        kind.coarsest() == Precision::Int8 || p == Precision::Int16
    };
    prop::sample::select(pairs.filter(possible).collect::<Vec<_>>())
}

/// A random matrix, packed and as numbers.
fn matrix(kind: BlockType, rows: usize, cols: usize, seed: u64) -> (PackedMatrix, Vec<f32>) {
    let whole = cols.next_multiple_of(kind.block_len());
    let bytes = blocks::random(kind, rows, whole, seed);
    let packed = PackedMatrix::from_blocks(kind, rows, cols, &bytes).unwrap();
    let numbers = blocks::dequantize(kind, &bytes);
    let rows = numbers.chunks(whole).flat_map(|row| &row[..cols]);
    (packed, rows.copied().collect())
}

/// Columns for so many blocks, of which the last one is incomplete where the format allows it.
fn columns(kind: BlockType, blocks: usize, missing: usize) -> usize {
    let whole = blocks * kind.block_len();
    match kind.block_len() {
        32 => whole - missing,
        _ => whole,
    }
}

/// Activations that rounding leaves as they are: whole numbers up to the limit, which every 32 reach,
/// times a power of two that differs from one 32 to the next.
fn exact_activations(precision: Precision, rows: usize, cols: usize, seed: u64) -> Vec<f32> {
    let mut random = Random(seed);
    let limit = match precision {
        Precision::Int8 => 127.0,
        Precision::Int16 => 127.0 * 128.0,
    };
    (0..rows * cols)
        .map(|i| {
            let col = i % cols;
            let unit = 0.5_f32.powi((col / 32 % 5) as i32);
            let whole = (random.next() * limit).round();
            unit * if col.is_multiple_of(32) {
                -limit
            } else {
                whole
            }
        })
        .collect()
}

fn product(isa: Isa, x: &[f32], m: usize, weight: &PackedMatrix) -> Vec<f32> {
    product_in(weight.kind().precision(), isa, x, m, weight)
}

fn product_in(
    precision: Precision,
    isa: Isa,
    x: &[f32],
    m: usize,
    weight: &PackedMatrix,
) -> Vec<f32> {
    let mut y = vec![f32::NAN; m * weight.rows()];
    let x = MatRef::new(x, m, weight.cols()).unwrap();
    with_quantized(isa, x, precision, |x| {
        let out = MatMut::new(&mut y, m, weight.rows()).unwrap();
        let sum = Sum::Replace;
        multiply(
            isa,
            vec![Product {
                x,
                weight,
                out,
                sum,
            }],
        )
        .unwrap();
    });
    y
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn packing_keeps_every_weight(
        kind in kinds(), rows in 1..=most(39, 18), blocks in 1..=most(3, 1), missing in 0..32_usize, seed: u64,
    ) {
        let cols = columns(kind, blocks, missing);
        let (packed, expected) = matrix(kind, rows, cols, seed);
        let mut row = vec![0.0; cols];
        for (index, expected) in expected.chunks(cols).enumerate() {
            packed.dequantize_row(index, &mut row).unwrap();
            prop_assert_eq!(&row[..], expected);
        }
    }

    #[test]
    fn products_match_the_naive_product(
        (kind, precision) in pairs(), m in 1..=most(19, 3), blocks in 1..=most(3, 1), missing in 0..32_usize,
        n in 1..=most(50, 17), seed: u64,
    ) {
        let k = columns(kind, blocks, missing);
        let (packed, weights) = matrix(kind, n, k, seed);
        let x = exact_activations(precision, m, k, seed ^ 1);
        let expected = naive::matmul(&x, &weights, m, k, n);
        for isa in isas() {
            assert_near(&product_in(precision, isa, &x, m, &packed), &expected, 1e-5, &format!("{isa} {kind} {m}x{k}x{n}"));
        }
    }

    #[test]
    fn rounding_costs_no_more_than_half_a_step(
        (kind, precision) in pairs(), m in 1..=most(9, 2), n in 1..=most(20, 3), seed: u64,
    ) {
        let k = most(512, 256);
        let (packed, weights) = matrix(kind, n, k, seed);
        let x = Random(seed ^ 2).values(m * k, 1);
        let expected = naive::matmul(&x, &weights, m, k, n);
        let levels = if precision == Precision::Int8 { 127.0 } else { 127.0 * 128.0 };
        for isa in isas() {
            let y = product_in(precision, isa, &x, m, &packed);
            for (i, (&found, &expected)) in y.iter().zip(&expected).enumerate() {
                let w = &weights[i % n * k..][..k];
                // All activations are below 1, so a step is at most 1 / levels.
                let bound: f64 = w.iter().map(|w| f64::from(w.abs()) * 0.5 / levels).sum();
                let slack = 1e-5 * w.iter().map(|w| f64::from(w.abs())).sum::<f64>();
                prop_assert!((f64::from(found) - expected).abs() <= bound + slack);
            }
        }
    }

    #[test]
    fn a_row_does_not_depend_on_the_rows_beside_it(kind in kinds(), m in 2..=most(21, 3), seed: u64) {
        let (k, n) = (256, most(33, 3));
        let (packed, _) = matrix(kind, n, k, seed);
        let x = Random(seed ^ 3).values(m * k, 0);
        for isa in isas() {
            let together = product(isa, &x, m, &packed);
            for row in 0..m {
                let alone = product(isa, &x[row * k..][..k], 1, &packed);
                prop_assert_eq!(&alone[..], &together[row * n..][..n]);
            }
        }
    }

    #[test]
    fn the_gated_product_is_the_product_of_its_parts(kind in kinds(), m in 1..=most(17, 2), n in 1..=most(40, 17), seed: u64) {
        let k = 256;
        let (gate, _) = matrix(kind, n, k, seed);
        let (up, _) = matrix(kind, n, k, seed ^ 4);
        let x = Random(seed ^ 5).values(m * k, 0);
        for isa in isas() {
            let mut gated = vec![f32::NAN; m * n];
            with_quantized(isa, MatRef::new(&x, m, k).unwrap(), kind.precision(), |x| {
                let out = MatMut::new(&mut gated, m, n).unwrap();
                multiply_gated(isa, vec![GatedProduct { x, gate: &gate, up: &up, out }]).unwrap();
            });
            let mut expected = vec![0.0; m * n];
            crate::silu_mul(isa, &product(isa, &x, m, &gate), &product(isa, &x, m, &up), &mut expected).unwrap();
            let expected: Vec<f64> = expected.into_iter().map(f64::from).collect();
            assert_near(&gated, &expected, 1e-6, &format!("{isa} {kind}"));
        }
    }
}

#[test]
fn every_format_is_multiplied_in_every_precision() {
    // A whole tile and a row of the next, and for each format all steps of a unit.
    let (m, n) = (3, 17);
    for kind in BlockType::ALL {
        let k = kind.block_len();
        let (packed, weights) = matrix(kind, n, k, 21);
        for precision in [Precision::Int8, Precision::Int16] {
            if kind.coarsest() == Precision::Int16 && precision == Precision::Int8 {
                continue;
            }
            let x = exact_activations(precision, m, k, 22);
            let expected = naive::matmul(&x, &weights, m, k, n);
            for isa in isas() {
                let found = product_in(precision, isa, &x, m, &packed);
                assert_near(
                    &found,
                    &expected,
                    1e-5,
                    &format!("{isa} {kind} {precision:?}"),
                );
            }
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "too large")]
fn large_products_agree_on_every_instruction_set() {
    // More panels than one block of activations, more tiles than one task.
    for kind in BlockType::ALL {
        let (m, k, n) = (70, 2048, 200);
        let (packed, _) = matrix(kind, n, k, 11);
        let x = exact_activations(kind.precision(), m, k, 12);
        let mut first: Option<Vec<f64>> = None;
        for isa in isas() {
            let y = product(isa, &x, m, &packed);
            let alone = product(isa, &x[69 * k..], 1, &packed);
            assert_eq!(alone, y[69 * n..], "{isa} {kind}");
            let y: Vec<f64> = y.into_iter().map(f64::from).collect();
            match &first {
                None => first = Some(y),
                Some(first) => {
                    let y: Vec<f32> = y.iter().map(|&v| v as f32).collect();
                    assert_near(&y, first, 1e-5, &format!("{isa} {kind}"));
                }
            }
        }
    }
}

#[test]
fn several_products_share_their_activations() {
    let isa = Isa::best();
    let (k, m) = (most(512, 256), 3);
    let (a, _) = matrix(BlockType::Q4_0, 30, k, 1);
    let (b, _) = matrix(BlockType::Q4_K, 50, k, 2);
    let x = Random(3).values(m * k, 0);
    let (mut ya, mut yb) = (vec![1.0; m * 30], vec![2.0; m * 60]);
    with_quantized(isa, MatRef::new(&x, m, k).unwrap(), Precision::Int8, |x| {
        let out = MatMut::new(&mut ya, m, 30).unwrap();
        let first = Product {
            x,
            weight: &a,
            out,
            sum: Sum::Add,
        };
        let out = MatMut::strided(&mut yb, m, 50, 60).unwrap();
        let second = Product {
            x,
            weight: &b,
            out,
            sum: Sum::Replace,
        };
        multiply(isa, vec![first, second]).unwrap();
    });
    let expected: Vec<f32> = product(isa, &x, m, &a).iter().map(|v| 1.0 + v).collect();
    assert_eq!(ya, expected);
    for (row, expected) in product(isa, &x, m, &b).chunks(50).enumerate() {
        assert_eq!(&yb[row * 60..][..50], expected);
        assert_eq!(yb[row * 60 + 50..][..10], [2.0; 10]);
    }
}

#[test]
fn picked_rows_of_several_inputs_are_multiplied_at_once() {
    let isa = Isa::best();
    let (k, n) = (most(256, 32), 37);
    let (a, _) = matrix(BlockType::Q5_1, n, k, 1);
    let (b, _) = matrix(BlockType::Q8_0, n, k, 2);
    let x = Random(3).values(12 * k, 0);
    let all = MatRef::new(&x, 12, k).unwrap();
    let picked: Vec<u32> = vec![11, 0, 3, 3, 7, 1, 2, 5, 9];
    let mut y = vec![f32::NAN; (12 + picked.len()) * n];
    let inputs = [
        Rows::All(all),
        Rows::Picked(all, &picked),
        Rows::Picked(all, &[]),
    ];
    with_quantized_each(isa, &inputs, Precision::Int16, |each| {
        let (first, second) = y.split_at_mut(12 * n);
        let outs = [first, second, &mut []];
        let products = each
            .iter()
            .zip([&a, &b, &a])
            .zip(outs)
            .map(|((x, weight), out)| {
                let out = MatMut::new(out, x.rows(), n).unwrap();
                let sum = Sum::Replace;
                Product {
                    x,
                    weight,
                    out,
                    sum,
                }
            });
        multiply(isa, products.collect()).unwrap();
    })
    .unwrap();
    assert_eq!(y[..12 * n], product(isa, &x, 12, &a));
    let expected = product(isa, &x, 12, &b);
    for (&row, found) in picked.iter().zip(y[12 * n..].chunks(n)) {
        assert_eq!(found, &expected[row as usize * n..][..n]);
    }
    let outside = [Rows::Picked(all, &[12])];
    assert!(with_quantized_each(isa, &outside, Precision::Int16, |_| ()).is_err());
}

#[test]
fn values_that_are_not_finite_reach_the_results_of_their_row_only() {
    let (k, n) = (256, 20);
    for (kind, bad) in [
        (BlockType::Q4_0, f32::NAN),
        (BlockType::Q6_K, f32::INFINITY),
    ] {
        let (packed, _) = matrix(kind, n, k, 5);
        let mut x = Random(6).values(3 * k, 0).to_vec();
        x[k + 40] = bad;
        for isa in isas() {
            let y = product(isa, &x, 3, &packed);
            assert!(y[n..2 * n].iter().all(|v| v.is_nan()), "{isa} {kind}");
            assert!(
                y[..n].iter().chain(&y[2 * n..]).all(|v| v.is_finite()),
                "{isa} {kind}"
            );
        }
    }
}

#[test]
fn zeros_and_the_smallest_numbers_give_zero() {
    let (packed, _) = matrix(BlockType::Q8_0, 4, 64, 7);
    let mut x = vec![0.0; 64];
    x[40] = f32::from_bits(1);
    for isa in isas() {
        assert_eq!(product(isa, &x, 1, &packed), [0.0; 4]);
    }
}

#[test]
fn matrices_of_a_stack_are_those_packed_alone() {
    // Rows that do not fill their last tile, and enough of them for several tasks.
    for (kind, [count, rows, cols]) in [
        (BlockType::Q5_K, [3, 33, 256]),
        (BlockType::Q4_0, [5, 200, 64]),
        (BlockType::Q8_0, [1, 16, 32]),
    ] {
        let each: Vec<_> = (0..count)
            .map(|i| blocks::random(kind, rows, cols, i as u64))
            .collect();
        let stack = PackedStack::from_blocks(kind, [count, rows, cols], &each.concat()).unwrap();
        for (index, blocks) in each.iter().enumerate() {
            let alone = PackedMatrix::from_blocks(kind, rows, cols, blocks).unwrap();
            let found = stack.matrix(index).unwrap();
            assert_eq!((found.rows(), found.cols()), (rows, cols));
            assert_eq!(found.bytes(), alone.bytes(), "{kind} {index}");
        }
        assert!(stack.matrix(count).is_none() && stack.matrix(usize::MAX).is_none());
        let bytes = stack.bytes().clone();
        let again = PackedStack::from_packed(kind, [count, rows, cols], bytes.clone()).unwrap();
        let last = count - 1;
        assert_eq!(
            again.matrix(last).unwrap().bytes(),
            stack.matrix(last).unwrap().bytes()
        );
        assert!(PackedStack::from_packed(kind, [count, rows + 16, cols], bytes).is_err());
    }
    let none = PackedStack::from_blocks(BlockType::Q4_0, [0, 16, 32], &[]).unwrap();
    assert!(none.matrix(0).is_none());
}

#[test]
fn parts_of_packed_bytes_stay_within_them() {
    let bytes = WeightBytes::read(100, 10, |start, piece| {
        piece.fill(start as u8);
        Ok::<(), ()>(())
    });
    let middle = bytes.unwrap().part(15, 50).unwrap();
    assert_eq!((middle[0], middle[5], middle.len()), (10, 20, 50));
    let inner = middle.part(40, 10).unwrap();
    assert_eq!((inner[0], inner[9]), (50, 60));
    assert!(middle.part(41, 10).is_none() && middle.part(usize::MAX, 2).is_none());
}

#[test]
fn packed_bytes_can_be_read_piece_by_piece() {
    // Less than a large page, and several that do not end with one.
    for len in [0, 1, 1000, most(5 << 20, 9 << 10) + 77] {
        let bytes = WeightBytes::read(len, 4096, |start, piece| {
            let values = (start..).map(|at| (at / 3) as u8);
            piece.iter_mut().zip(values).for_each(|(b, v)| *b = v);
            Ok::<(), ()>(())
        });
        let bytes = bytes.unwrap();
        assert_eq!(bytes.len(), len);
        assert!(bytes.iter().enumerate().all(|(at, b)| *b == (at / 3) as u8));
    }
}

#[test]
fn a_piece_that_cannot_be_read_is_the_error_of_all() {
    let read = |start: usize, _: &mut [u8]| if start < 8192 { Ok(()) } else { Err("no") };
    assert!(WeightBytes::read(8192, 4096, read).is_ok());
    assert_eq!(WeightBytes::read(1 << 20, 4096, read).unwrap_err(), "no");
}

#[test]
fn wrong_shapes_are_errors() {
    let isa = Isa::best();
    let blocks = |n: usize| blocks::random(BlockType::Q4_K, 2, 256 * n, 1);
    let pack =
        |rows, cols, bytes: &[u8]| PackedMatrix::from_blocks(BlockType::Q4_K, rows, cols, bytes);
    assert!(matches!(
        pack(2, 128, &[]).unwrap_err(),
        ShapeError::NotMultiple { .. }
    ));
    assert!(matches!(
        pack(2, 256, &blocks(2)).unwrap_err(),
        ShapeError::Size { .. }
    ));
    assert!(matches!(
        pack(usize::MAX, 256, &[]).unwrap_err(),
        ShapeError::TooLarge { .. }
    ));
    assert!(pack(0, 256, &[]).is_ok());
    let packed = pack(2, 256, &blocks(1)).unwrap();
    assert!(packed.dequantize_row(2, &mut [0.0; 256]).is_err());
    assert!(packed.dequantize_row(1, &mut [0.0; 255]).is_err());

    let x = [0.5; 512];
    let attempt = |rows, cols, precision, out: &mut [f32], width| {
        let x = MatRef::new(&x[..rows * cols], rows, cols).unwrap();
        with_quantized(isa, x, precision, |x| {
            let out = MatMut::new(out, out.len() / width, width).unwrap();
            multiply(
                isa,
                vec![Product {
                    x,
                    weight: &packed,
                    out,
                    sum: Sum::Replace,
                }],
            )
        })
    };
    assert!(attempt(2, 256, Precision::Int8, &mut [0.0; 4], 2).is_ok());
    assert!(attempt(1, 512, Precision::Int8, &mut [0.0; 2], 2).is_err());
    assert!(attempt(2, 256, Precision::Int8, &mut [0.0; 2], 2).is_err());
    assert!(attempt(2, 256, Precision::Int8, &mut [0.0; 6], 3).is_err());
    assert!(attempt(2, 256, Precision::Int16, &mut [0.0; 4], 2).is_ok());
    let bytes = blocks::random(BlockType::Q5_0, 2, 256, 1);
    let packed = PackedMatrix::from_blocks(BlockType::Q5_0, 2, 256, &bytes).unwrap();
    with_quantized(
        isa,
        MatRef::new(&x, 2, 256).unwrap(),
        Precision::Int8,
        |x| {
            let mut y = [0.0; 4];
            let out = MatMut::new(&mut y, 2, 2).unwrap();
            let product = Product {
                x,
                weight: &packed,
                out,
                sum: Sum::Replace,
            };
            assert!(multiply(isa, vec![product]).is_err());
        },
    );
    let missing = Rows::Picked(MatRef::new(&x, 2, 256).unwrap(), &[2]);
    assert!(with_quantized_each(isa, &[missing], Precision::Int8, |_| ()).is_err());
}
