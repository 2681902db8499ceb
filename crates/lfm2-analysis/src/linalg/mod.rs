//! The few loops on `f64` that carry the time of an analysis, with the widest vectors the processor
//! has, and a Cholesky factor that rows can be added to and taken from.

mod cholesky;
mod kernels;

pub(crate) use cholesky::Cholesky;
pub(crate) use kernels::{add_scaled, add_scaled_four, dot, dots_four_by_three};

use std::ops::Range;

use rayon::prelude::*;

/// Numbers of one row that are multiplied before the next rows come, so that they stay near.
const DEPTH: usize = 512;
/// Rows of a product that one task computes.
const TILE: usize = 32;

/// Lower triangle of `rows * rows'`: row `i` of the result has `i + 1` numbers.
///
/// All `rows` have one length.
pub(crate) fn gram(rows: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let mut out: Vec<Vec<f64>> = (0..rows.len()).map(|i| vec![0.0; i + 1]).collect();
    out.par_chunks_mut(TILE)
        .enumerate()
        .for_each(|(tile, out)| {
            let start = tile * TILE;
            let end = start + out.len();
            let len = rows[start].len();
            for from in (0..len).step_by(DEPTH) {
                let part = from..(from + DEPTH).min(len);
                for j in (0..end).step_by(3) {
                    let right = some(rows, j, &part);
                    for i in (start.max(j / 4 * 4)..end).step_by(4) {
                        let found = dots_four_by_three(some(rows, i, &part), right);
                        add_block(out, i - start, j, &found);
                    }
                }
            }
        });
    out
}

/// The given part of `N` rows from `first` on; past the end, the last row again.
fn some<'a, const N: usize>(
    rows: &'a [Vec<f64>],
    first: usize,
    part: &Range<usize>,
) -> [&'a [f64]; N] {
    std::array::from_fn(|k| &rows[(first + k).min(rows.len() - 1)][part.clone()])
}

/// Adds a block of products to the rows `at ..` of a triangle, as far as it reaches.
fn add_block(out: &mut [Vec<f64>], at: usize, column: usize, block: &[[f64; 3]; 4]) {
    for (row, found) in out.iter_mut().skip(at).zip(block) {
        for (value, found) in row.iter_mut().skip(column).zip(found) {
            *value += found;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    pub(super) fn noise(random: &mut Random, len: usize) -> Vec<f64> {
        (0..len)
            .map(|_| random.below(1 << 20) as f64 / f64::from(1 << 19) - 1.0)
            .collect()
    }

    #[test]
    fn a_gram_matrix_is_all_products() {
        let mut random = Random::new(3, 0);
        for (rows, len) in [(1, 1), (3, 7), (5, 513), (33, 1030), (70, 100)] {
            let rows: Vec<Vec<f64>> = (0..rows).map(|_| noise(&mut random, len)).collect();
            for (i, found) in gram(&rows).iter().enumerate() {
                assert_eq!(found.len(), i + 1);
                for (j, found) in found.iter().enumerate() {
                    let naive: f64 = rows[i].iter().zip(&rows[j]).map(|(a, b)| a * b).sum();
                    assert!((found - naive).abs() < 1e-11, "{i} {j}: {found} {naive}");
                }
            }
        }
    }
}
