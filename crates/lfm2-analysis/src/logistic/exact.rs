//! A regression at its minimum that dimensions can be taken from and added to.
//!
//! The factored second derivatives of an earlier fit still point the way after a few dimensions have
//! come or gone; they are computed anew only when the way gets long. Dropping a dimension then costs
//! a few passes over the rows instead of the cube of the number of dimensions.

use rayon::prelude::*;

use super::lbfgs::{self, End, Start, Stop};
use super::{Design, Fit, Loss, softplus_and_chance};
use crate::error::{Error, Result};
use crate::linalg::{Cholesky, dot, gram};

/// Largest slope at a minimum. The penalty makes it a bound on the error of the weights.
const SLOPE: f64 = 1e-9;
/// Steps before the second derivatives are computed anew.
const PATIENCE: usize = 10;
/// Times they are computed for one fit.
const ROUNDS: usize = 60;
/// New second derivatives that may fail to halve the slope.
const STALLS: usize = 6;
/// A slope that rounding may leave, as a share of the largest one that the data could give.
const ROUNDING: f64 = 1e-9;
/// Shares of the largest second derivative that are added to all, one after the other, where inputs
/// are so large that the penalty drowns; what is factored only shows the way.
const RIDGES: [f64; 5] = [0.0, 1e-15, 1e-13, 1e-11, 1e-9];
/// Keeps the intercept's row positive where every row is told for certain.
const INTERCEPT_RIDGE: f64 = 1e-10;

/// A regression on some dimensions, at its minimum.
#[derive(Debug)]
pub(crate) struct ExactFit<'a> {
    design: &'a Design,
    /// Behind the intercept, in the order of the factor.
    dims: Vec<usize>,
    /// Intercept and weights.
    at: Vec<f64>,
    factor: Cholesky,
    /// Per row, the root of its weight in the factored matrix.
    roots: Vec<f64>,
}

impl<'a> ExactFit<'a> {
    /// Fits the regression on `dims`.
    pub(crate) fn new(design: &'a Design, dims: &[usize]) -> Result<Self> {
        let at = vec![0.0; dims.len() + 1];
        let roots = roots(design, dims, &at);
        let factor =
            factor(design, dims, &roots).ok_or_else(|| not_converged(design, dims, f64::NAN))?;
        let mut fit = Self {
            design,
            dims: dims.to_vec(),
            at,
            factor,
            roots,
        };
        fit.converge()?;
        Ok(fit)
    }

    /// The dimension with the smallest weight; of equal ones, the first.
    pub(crate) fn weakest(&self) -> Option<usize> {
        let weights = self.dims.iter().zip(&self.at[1..]);
        let sizes = weights.map(|(&dim, weight)| (weight * weight, dim));
        let weakest = sizes.min_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        weakest.map(|(_, dim)| dim)
    }

    /// Fits again without `dim`.
    pub(crate) fn remove(&mut self, dim: usize) -> Result<()> {
        let Some(position) = self.dims.iter().position(|&other| other == dim) else {
            return Ok(());
        };
        // The other weights move to where they would be best if the loss were a parabola.
        let at = position + 1;
        let mut shift = vec![0.0; self.at.len()];
        shift[at] = 1.0;
        self.factor.solve(&mut shift);
        let share = self.at[at] / shift[at];
        for (value, shift) in self.at.iter_mut().zip(&shift) {
            *value -= share * shift;
        }
        self.at.remove(at);
        self.dims.remove(position);
        self.factor.remove(at);
        self.converge()
    }

    /// Fits again with `dim`.
    pub(crate) fn push(&mut self, dim: usize) -> Result<()> {
        let column = &self.design.columns[dim];
        let scaled: Vec<f64> = column
            .iter()
            .zip(&self.roots)
            .map(|(x, root)| x * root * root)
            .collect();
        let mut row = vec![0.0; self.dims.len() + 2];
        row[0] = scaled.iter().sum();
        self.design.products(&self.dims, &scaled, &mut row[1..]);
        row[self.dims.len() + 1] = 1.0 + dot(&scaled, column);
        self.dims.push(dim);
        self.at.push(0.0);
        if !self.factor.push(row) {
            self.refactor()?;
        }
        self.converge()
    }

    /// The regression as it stands.
    pub(crate) fn fit(&self) -> Fit {
        let mut order: Vec<usize> = (0..self.dims.len()).collect();
        order.sort_by_key(|&k| self.dims[k]);
        Fit {
            dims: order.iter().map(|&k| self.dims[k]).collect(),
            weights: order.iter().map(|&k| self.at[k + 1]).collect(),
            intercept: self.at[0],
        }
    }

    fn converge(&mut self) -> Result<()> {
        let stop = Stop {
            gradient: SLOPE,
            decrease: 0.0,
            steps: PATIENCE,
        };
        let mut before = f64::INFINITY;
        let mut stalls = 0;
        for _ in 0..ROUNDS {
            let mut loss = Loss::new(self.design, &self.dims, 1.0);
            let start = Start::Factor(&self.factor);
            let outcome = lbfgs::minimise(&mut loss, &mut self.at, start, stop);
            if outcome.end == End::Converged {
                return Ok(());
            }
            stalls += usize::from(outcome.gradient > 0.5 * before);
            before = outcome.gradient;
            if stalls == STALLS {
                break;
            }
            self.refactor()?;
        }
        // With large inputs rounding leaves a slope.
        if before <= ROUNDING * self.steepest() {
            return Ok(());
        }
        Err(not_converged(self.design, &self.dims, before))
    }

    /// The slope that the largest column would give if every row were told wrong.
    fn steepest(&self) -> f64 {
        let size = |&dim: &usize| {
            self.design.columns[dim]
                .iter()
                .map(|x| x.abs())
                .sum::<f64>()
        };
        let rows = self.design.rows() as f64;
        self.dims.iter().map(size).fold(rows, f64::max)
    }

    /// Factors the second derivatives here, with the dimensions that will go first at the end.
    fn refactor(&mut self) -> Result<()> {
        let mut pairs: Vec<(usize, f64)> = self
            .dims
            .iter()
            .copied()
            .zip(self.at[1..].iter().copied())
            .collect();
        pairs.sort_by(|a, b| b.1.abs().total_cmp(&a.1.abs()));
        for (k, (dim, weight)) in pairs.into_iter().enumerate() {
            self.dims[k] = dim;
            self.at[k + 1] = weight;
        }
        self.roots = roots(self.design, &self.dims, &self.at);
        self.factor = factor(self.design, &self.dims, &self.roots)
            .ok_or_else(|| not_converged(self.design, &self.dims, f64::NAN))?;
        Ok(())
    }
}

fn not_converged(design: &Design, dims: &[usize], gradient: f64) -> Error {
    Error::NotConverged {
        dims: dims.len(),
        rows: design.rows(),
        gradient,
    }
}

/// Per row, the root of its share in the second derivatives at `at`.
fn roots(design: &Design, dims: &[usize], at: &[f64]) -> Vec<f64> {
    let mut rows = vec![at[0]; design.rows()];
    design.add_columns(dims, &at[1..], &mut rows);
    for row in &mut rows {
        let chance = softplus_and_chance(-row.abs()).1;
        *row = (chance * (1.0 - chance)).sqrt();
    }
    rows
}

/// The factored second derivatives for rows of the given roots of weights.
fn factor(design: &Design, dims: &[usize], roots: &[f64]) -> Option<Cholesky> {
    let scale = |&dim: &usize| -> Vec<f64> {
        let column = &design.columns[dim];
        column.iter().zip(roots).map(|(x, root)| x * root).collect()
    };
    let mut scaled = vec![roots.to_vec()];
    scaled.par_extend(dims.par_iter().map(scale));
    RIDGES.iter().find_map(|share| {
        let mut matrix = gram(&scaled);
        let largest = matrix
            .iter()
            .filter_map(|row| row.last())
            .fold(0.0, |a: f64, b| a.max(*b));
        for (i, row) in matrix.iter_mut().enumerate() {
            row[i] += share * largest + if i == 0 { INTERCEPT_RIDGE } else { 1.0 };
        }
        Cholesky::new(matrix)
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::design;
    use super::*;

    fn slopes(design: &Design, fit: &Fit) -> f64 {
        use super::super::lbfgs::Objective;
        let mut at = vec![fit.intercept];
        at.extend(&fit.weights);
        let mut gradient = vec![0.0; at.len()];
        Loss::new(design, &fit.dims, 1.0).evaluate(&at, &mut gradient);
        gradient
            .iter()
            .fold(0.0, |most, slope| slope.abs().max(most))
    }

    #[test]
    fn taking_out_and_putting_in_ends_where_a_new_fit_would() {
        let design = design(150, 40, 4);
        let dims: Vec<usize> = (0..40).collect();
        let mut fit = ExactFit::new(&design, &dims).unwrap();
        for dim in [3, 39, 0, 17] {
            fit.remove(dim).unwrap();
        }
        fit.push(0).unwrap();
        fit.remove(1000).unwrap();
        let left: Vec<usize> = dims
            .iter()
            .copied()
            .filter(|d| ![3, 17, 39].contains(d))
            .collect();
        let (found, new) = (fit.fit(), ExactFit::new(&design, &left).unwrap().fit());
        assert_eq!(found.dims, left);
        assert!(slopes(&design, &found) <= SLOPE);
        for (a, b) in found.weights.iter().zip(&new.weights) {
            assert!((a - b).abs() < 1e-8, "{a} {b}");
        }
        assert!((found.intercept - new.intercept).abs() < 1e-8);
    }

    #[test]
    fn sums_over_many_rows_do_not_end_a_fit_early() {
        // Losses near a thousand have errors larger than what the last steps bring.
        for seed in 0..6 {
            let design = design(3001, 24, seed);
            let dims: Vec<usize> = (0..24).collect();
            let mut fit = ExactFit::new(&design, &dims).unwrap();
            while let Some(weakest) = fit.weakest() {
                assert!(slopes(&design, &fit.fit()) <= SLOPE);
                fit.remove(weakest).unwrap();
            }
        }
    }

    #[test]
    fn huge_tiny_and_constant_columns_have_a_minimum() {
        let mut design = design(60, 6, 5);
        design.columns[1].iter_mut().for_each(|x| *x *= 1e6);
        design.columns[2].iter_mut().for_each(|x| *x *= 1e-9);
        design.columns[3].fill(0.0);
        design.columns[4] = design.labels.iter().map(|label| label * 50.0).collect();
        let fit = ExactFit::new(&design, &[0, 1, 2, 3, 4, 5]).unwrap();
        assert_eq!(fit.fit().weights[3], 0.0);
        assert_eq!(fit.weakest(), Some(3));
        assert_eq!(fit.fit().accuracy(&design), 1.0);
    }
}
