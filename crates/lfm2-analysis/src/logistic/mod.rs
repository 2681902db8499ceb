//! Logistic regression with a penalty: which side of its pair is a sentence on?
//!
//! Minimises `sum ln(1 + exp(-s z)) + |w|^2 / 2` over weights and a free intercept. The rows are kept
//! as columns, one per dimension, since dimensions come and go.

mod exact;
mod lbfgs;
mod line_search;
pub(crate) mod many;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::linalg::{add_scaled, add_scaled_four, dot};
pub(crate) use exact::ExactFit;
use lbfgs::{Objective, Start, Stop};

/// Rows that are worked on while they stay near.
const ROWS: usize = 512;
/// Columns of one task.
const COLUMNS: usize = 32;
/// Below this many products, more threads cost more than they bring.
const PARALLEL: usize = 1 << 17;

/// How a regression is brought to its minimum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Solver {
    /// To the minimum, as far as `f64` goes; each fit starts from the last one.
    Exact,
    /// The steps that the study's library takes (L-BFGS from zero, mean loss, slope of 1e-4 at the
    /// end). Its fits stop early, so that later eliminations depend on the path.
    Library,
}

/// How the study's library stops.
const LIBRARY: Stop = Stop {
    gradient: 1e-4,
    decrease: 64.0 * f64::EPSILON,
    steps: 1000,
};

/// Labelled rows, dimension by dimension.
#[derive(Debug, Clone)]
pub(crate) struct Design {
    /// One column per dimension.
    pub(crate) columns: Vec<Vec<f64>>,
    /// 0 for a first sentence, 1 for a second.
    pub(crate) labels: Vec<f64>,
}

impl Design {
    pub(crate) fn rows(&self) -> usize {
        self.labels.len()
    }

    /// Adds `weights` times the columns `dims` to `out`, which has an entry per row.
    pub(crate) fn add_columns(&self, dims: &[usize], weights: &[f64], out: &mut [f64]) {
        let add = |(chunk, out): (usize, &mut [f64])| {
            let part = chunk * ROWS..chunk * ROWS + out.len();
            let (fours, dims_left) = dims.as_chunks::<4>();
            let (weights, weights_left) = weights.as_chunks::<4>();
            for (dims, weights) in fours.iter().zip(weights) {
                let columns = dims.map(|dim| &self.columns[dim][part.clone()]);
                add_scaled_four(out, *weights, columns);
            }
            for (&dim, &weight) in dims_left.iter().zip(weights_left) {
                add_scaled(out, weight, &self.columns[dim][part.clone()]);
            }
        };
        if self.is_large(dims) {
            out.par_chunks_mut(ROWS).enumerate().for_each(add);
        } else {
            out.chunks_mut(ROWS).enumerate().for_each(add);
        }
    }

    /// Writes the products of the columns `dims` with `values` to `out`.
    pub(crate) fn products(&self, dims: &[usize], values: &[f64], out: &mut [f64]) {
        let multiply = |(dims, out): (&[usize], &mut [f64])| {
            for (&dim, out) in dims.iter().zip(out) {
                *out = dot(&self.columns[dim], values);
            }
        };
        if self.is_large(dims) {
            let parts = dims.par_chunks(COLUMNS).zip(out.par_chunks_mut(COLUMNS));
            parts.for_each(multiply);
        } else {
            multiply((dims, out));
        }
    }

    fn is_large(&self, dims: &[usize]) -> bool {
        self.rows() * dims.len() >= PARALLEL
    }
}

/// The regression's function of an intercept (first) and the weights of some dimensions.
struct Loss<'a> {
    design: &'a Design,
    dims: &'a [usize],
    /// 1 for the sum, one over the number of rows for the mean.
    scale: f64,
    /// Per row: first the margin, then how far the prediction is off.
    rows: Vec<f64>,
}

impl<'a> Loss<'a> {
    fn new(design: &'a Design, dims: &'a [usize], scale: f64) -> Self {
        Self {
            design,
            dims,
            scale,
            rows: vec![0.0; design.rows()],
        }
    }
}

impl Objective for Loss<'_> {
    fn evaluate(&mut self, at: &[f64], gradient: &mut [f64]) -> f64 {
        let (intercept, weights) = (at[0], &at[1..]);
        self.rows.fill(intercept);
        self.design.add_columns(self.dims, weights, &mut self.rows);
        let mut loss = 0.0;
        let mut off = 0.0;
        for (row, label) in self.rows.iter_mut().zip(&self.design.labels) {
            // By the margin of the right side: differences of nearly equal numbers would leave
            // nothing of rows that are told for certain.
            let is_second = *label > 0.5;
            let against = if is_second { -*row } else { *row };
            let (cost, wrong) = softplus_and_chance(against);
            loss += cost;
            *row = if is_second { -wrong } else { wrong };
            off += *row;
        }
        gradient[0] = self.scale * off;
        self.design
            .products(self.dims, &self.rows, &mut gradient[1..]);
        for (slope, weight) in gradient[1..].iter_mut().zip(weights) {
            *slope = self.scale * (*slope + weight);
        }
        self.scale * (loss + 0.5 * dot(weights, weights))
    }
}

/// `ln(1 + exp(margin))` and `1 / (1 + exp(-margin))`, without overflow.
fn softplus_and_chance(margin: f64) -> (f64, f64) {
    let small = (-margin.abs()).exp();
    let share = 1.0 / (1.0 + small);
    let chance = if margin >= 0.0 { share } else { small * share };
    (margin.max(0.0) + small.ln_1p(), chance)
}

/// A fitted regression.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Fit {
    /// The dimensions it reads, from 0.
    pub dims: Vec<usize>,
    /// A weight for each of them.
    pub weights: Vec<f64>,
    /// The intercept.
    pub intercept: f64,
}

impl Fit {
    /// Share of the rows of `design` whose side is told right.
    pub(crate) fn accuracy(&self, design: &Design) -> f64 {
        let mut margins = vec![self.intercept; design.rows()];
        design.add_columns(&self.dims, &self.weights, &mut margins);
        let right = margins
            .iter()
            .zip(&design.labels)
            .filter(|(margin, label)| (**margin > 0.0) == (**label > 0.5))
            .count();
        right as f64 / design.rows() as f64
    }

    /// The regression's loss with its penalty on the rows of `design`.
    pub(crate) fn objective(&self, design: &Design) -> f64 {
        let at: Vec<f64> = std::iter::once(self.intercept)
            .chain(self.weights.iter().copied())
            .collect();
        let mut gradient = vec![0.0; at.len()];
        Loss::new(design, &self.dims, 1.0).evaluate(&at, &mut gradient)
    }
}

/// The fit on `dims` that the study's library would find.
pub(crate) fn library_fit(design: &Design, dims: &[usize]) -> Fit {
    let mut at = vec![0.0; dims.len() + 1];
    let mut loss = Loss::new(design, dims, 1.0 / design.rows() as f64);
    lbfgs::minimise(&mut loss, &mut at, Start::Identity, LIBRARY);
    Fit {
        dims: dims.to_vec(),
        weights: at.split_off(1),
        intercept: at[0],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    /// Rows whose first dimension tells the label, the others do not.
    pub(super) fn design(rows: usize, dims: usize, seed: u64) -> Design {
        let mut random = Random::new(seed, 0);
        let labels: Vec<f64> = (0..rows).map(|row| (row % 2) as f64).collect();
        let columns = (0..dims)
            .map(|dim| {
                let shift = if dim == 0 { 0.6 } else { 0.0 };
                let mut noise = || random.below(2001) as f64 / 1000.0 - 1.0;
                labels.iter().map(|label| noise() + shift * label).collect()
            })
            .collect();
        Design { columns, labels }
    }

    #[test]
    fn margins_without_measure_stay_finite() {
        for margin in [-1e300, -800.0, -1.0, 0.0, 1.0, 800.0, 1e300] {
            let (softplus, chance) = softplus_and_chance(margin);
            assert!(softplus.is_finite() && (0.0..=1.0).contains(&chance));
            let difference = softplus - softplus_and_chance(-margin).0;
            assert!((difference - margin).abs() <= 1e-12 * margin.abs());
        }
        assert_eq!(softplus_and_chance(0.0), (2f64.ln(), 0.5));
    }

    #[test]
    fn the_gradient_is_the_slope_of_the_loss() {
        let design = design(40, 5, 1);
        let dims = [0, 2, 3, 4];
        let at = [0.1, -0.4, 0.3, 0.2, -0.7];
        let mut loss = Loss::new(&design, &dims, 0.5);
        let mut gradient = [0.0; 5];
        loss.evaluate(&at, &mut gradient);
        for k in 0..at.len() {
            let mut value = |by: f64| {
                let mut moved = at;
                moved[k] += by;
                loss.evaluate(&moved, &mut [0.0; 5])
            };
            let slope = (value(1e-5) - value(-1e-5)) / 2e-5;
            assert!((slope - gradient[k]).abs() < 1e-8, "{k}");
        }
    }

    #[test]
    fn large_and_small_problems_are_added_up_alike() {
        let design = design(1100, 130, 2);
        let dims: Vec<usize> = (0..130).rev().collect();
        let weights: Vec<f64> = dims.iter().map(|&dim| dim as f64 / 100.0).collect();
        let mut at_once = vec![0.5; 1100];
        design.add_columns(&dims, &weights, &mut at_once);
        let mut products = vec![0.0; 130];
        design.products(&dims, &at_once, &mut products);
        let mut in_turn = vec![0.5; 1100];
        for (&dim, &weight) in dims.iter().zip(&weights) {
            design.add_columns(&[dim], &[weight], &mut in_turn);
        }
        for (a, b) in at_once.iter().zip(&in_turn) {
            assert!((a - b).abs() < 1e-10);
        }
        for (&dim, found) in dims.iter().zip(&products) {
            assert!((dot(&design.columns[dim], &at_once) - found).abs() < 1e-9);
        }
    }
}
