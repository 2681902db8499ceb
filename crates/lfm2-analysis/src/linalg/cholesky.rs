//! A Cholesky factor whose matrix can lose and gain variables.
//!
//! Taking out a variable costs the square of the number of variables behind it, so the caller puts
//! those that will go soon last.

use rayon::prelude::*;

use super::{add_scaled, dot, dots_four_by_three};

/// Columns that are factored together.
const BLOCK: usize = 64;
/// Rows below a block that one task works on.
const TASK: usize = 16;

/// The lower triangular `l` of `l * l' = matrix`; row `i` has `i + 1` numbers.
#[derive(Debug, Clone)]
pub(crate) struct Cholesky {
    rows: Vec<Vec<f64>>,
}

impl Cholesky {
    /// Factors the matrix whose lower triangle is `rows`; none when it is not positive definite.
    pub(crate) fn new(mut rows: Vec<Vec<f64>>) -> Option<Self> {
        let len = rows.len();
        for start in (0..len).step_by(BLOCK) {
            let end = (start + BLOCK).min(len);
            let (upper, below) = rows.split_at_mut(end);
            let block = &mut upper[start..];
            factor_block(block, start)?;
            let block = &*block;
            below
                .par_chunks_mut(TASK)
                .for_each(|rows| solve_rows(rows, block, start));
        }
        Some(Self { rows })
    }

    /// Variables of the matrix.
    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Replaces `x` by the solution of `matrix * solution = x`.
    pub(crate) fn solve(&self, x: &mut [f64]) {
        for (i, row) in self.rows.iter().enumerate() {
            x[i] = (x[i] - dot(&row[..i], &x[..i])) / row[i];
        }
        for (i, row) in self.rows.iter().enumerate().rev() {
            x[i] /= row[i];
            let solved = x[i];
            add_scaled(&mut x[..i], -solved, &row[..i]);
        }
    }

    /// Takes variable `at` out of the matrix.
    pub(crate) fn remove(&mut self, at: usize) {
        self.rows.remove(at);
        // What the variable explained has to be added to the rows behind it: a rank-one update.
        let mut turns: Vec<(f64, f64)> = Vec::with_capacity(self.rows.len() - at);
        for row in &mut self.rows[at..] {
            let mut carried = row.remove(at);
            let Some((last, before)) = row[at..].split_last_mut() else {
                continue;
            };
            for (value, (cosine, sine)) in before.iter_mut().zip(&turns) {
                let turned = cosine * *value + sine * carried;
                carried = cosine * carried - sine * *value;
                *value = turned;
            }
            let length = last.hypot(carried);
            turns.push((*last / length, carried / length));
            *last = length;
        }
    }

    /// Adds a variable behind all others: `row` is its row of the lower triangle, diagonal last.
    /// False, and nothing changes, when the matrix would not be positive definite.
    pub(crate) fn push(&mut self, mut row: Vec<f64>) -> bool {
        let len = self.rows.len();
        for (i, above) in self.rows.iter().enumerate() {
            row[i] = (row[i] - dot(&above[..i], &row[..i])) / above[i];
        }
        let left = row[len] - dot(&row[..len], &row[..len]);
        if !(left > 0.0 && left.is_finite()) {
            return false;
        }
        row[len] = left.sqrt();
        self.rows.push(row);
        true
    }
}

/// Factors the rows of a diagonal block, whose first row is `start`.
fn factor_block(block: &mut [Vec<f64>], start: usize) -> Option<()> {
    for i in 0..block.len() {
        let (above, row) = block.split_at_mut(i);
        let row = &mut row[0];
        for (j, other) in above.iter().enumerate() {
            let at = start + j;
            row[at] = (row[at] - dot(&row[..at], &other[..at])) / other[at];
        }
        let at = start + i;
        let left = row[at] - dot(&row[..at], &row[..at]);
        if !(left > 0.0 && left.is_finite()) {
            return None;
        }
        row[at] = left.sqrt();
    }
    Some(())
}

/// Columns `start ..` of rows below a factored `block`.
fn solve_rows(rows: &mut [Vec<f64>], block: &[Vec<f64>], start: usize) {
    for four in rows.chunks_mut(4) {
        subtract_products(four, block, start);
        for row in four {
            for (j, above) in block.iter().enumerate() {
                let at = start + j;
                row[at] = (row[at] - dot(&row[start..at], &above[start..at])) / above[at];
            }
        }
    }
}

/// Takes from four rows what the columns before `start` explain.
fn subtract_products(four: &mut [Vec<f64>], block: &[Vec<f64>], start: usize) {
    if start == 0 {
        return;
    }
    let last = four.len() - 1;
    for j in (0..block.len()).step_by(3) {
        let right = std::array::from_fn(|k| &block[(j + k).min(block.len() - 1)][..start]);
        let left = std::array::from_fn(|k| &four[k.min(last)][..start]);
        let products = dots_four_by_three(left, right);
        let width = (block.len() - j).min(3);
        for (row, products) in four.iter_mut().zip(&products) {
            for (value, product) in row[start + j..][..width].iter_mut().zip(products) {
                *value -= product;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::gram;
    use super::super::tests::noise;
    use super::*;
    use crate::random::Random;

    fn matrix(random: &mut Random, len: usize) -> Vec<Vec<f64>> {
        let rows: Vec<Vec<f64>> = (0..len).map(|_| noise(random, len + 3)).collect();
        let mut matrix = gram(&rows);
        for (i, row) in matrix.iter_mut().enumerate() {
            row[i] += 1.0;
        }
        matrix
    }

    /// Largest difference between `matrix * x` and `b`.
    fn residual(matrix: &[Vec<f64>], x: &[f64], b: &[f64]) -> f64 {
        let at = |i: usize, j: usize| matrix[i.max(j)][i.min(j)];
        (0..b.len())
            .map(|i| ((0..b.len()).map(|j| at(i, j) * x[j]).sum::<f64>() - b[i]).abs())
            .fold(0.0, f64::max)
    }

    #[test]
    fn systems_of_every_size_are_solved() {
        let mut random = Random::new(5, 0);
        for len in [1, 2, 5, 63, 64, 65, 130, 201] {
            let matrix = matrix(&mut random, len);
            let factor = Cholesky::new(matrix.clone()).unwrap();
            let b = noise(&mut random, len);
            let mut x = b.clone();
            factor.solve(&mut x);
            assert!(residual(&matrix, &x, &b) < 1e-10, "{len}");
        }
    }

    #[test]
    fn variables_come_and_go() {
        let mut random = Random::new(6, 0);
        let mut matrix = matrix(&mut random, 90);
        let mut factor = Cholesky::new(matrix.clone()).unwrap();
        for at in [0, 88, 40, 86, 3] {
            factor.remove(at);
            matrix.remove(at);
            for row in matrix.iter_mut().skip(at) {
                row.remove(at);
            }
        }
        let mut row = noise(&mut random, matrix.len() + 1);
        row[matrix.len()] = 100.0;
        assert!(factor.push(row.clone()));
        matrix.push(row);
        assert_eq!(factor.len(), matrix.len());
        let b = noise(&mut random, matrix.len());
        let mut x = b.clone();
        factor.solve(&mut x);
        assert!(residual(&matrix, &x, &b) < 1e-10);
    }

    #[test]
    fn what_is_not_positive_definite_is_refused() {
        assert!(Cholesky::new(vec![vec![1.0], vec![2.0, 1.0]]).is_none());
        assert!(Cholesky::new(vec![vec![f64::NAN]]).is_none());
        let mut factor = Cholesky::new(vec![vec![1.0]]).unwrap();
        assert!(!factor.push(vec![2.0, 1.0]));
        assert_eq!(factor.len(), 1);
    }
}
