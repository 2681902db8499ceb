//! Logistic regression with more than two classes.

use rayon::prelude::*;

use super::lbfgs::{self, End, Objective, Start, Stop};
use super::{Design, LIBRARY, Solver};
use crate::error::{Error, Result};
use crate::linalg::{Cholesky, dot, gram};

/// Largest slope at the end of an exact fit, per row; no class changes below it.
const SLOPE: f64 = 1e-6;
const STEPS: usize = 2000;
const RIDGE: f64 = 1e-10;

/// A fitted regression: per class an intercept and a weight for each dimension.
#[derive(Debug, Clone)]
pub(crate) struct ManyFit {
    /// `(classes, 1 + dims)`, intercepts first.
    at: Vec<f64>,
    classes: usize,
}

impl ManyFit {
    /// Fits `classes` classes on all dimensions of `design`, whose labels are class numbers.
    pub(crate) fn new(design: &Design, classes: usize, solver: Solver) -> Result<Self> {
        let width = design.columns.len() + 1;
        let mut at = vec![0.0; classes * width];
        let rows = design.rows() as f64;
        let scale = match solver {
            Solver::Exact => 1.0,
            Solver::Library => 1.0 / rows,
        };
        let mut loss = ManyLoss::new(design, classes, scale);
        let outcome = match solver {
            Solver::Library => lbfgs::minimise(&mut loss, &mut at, Start::Identity, LIBRARY),
            Solver::Exact => {
                let factor =
                    start(design, classes).ok_or_else(|| not_converged(design, f64::NAN))?;
                let stop = Stop {
                    gradient: SLOPE * rows,
                    decrease: 0.0,
                    steps: STEPS,
                };
                lbfgs::minimise(&mut loss, &mut at, Start::Factor(&factor), stop)
            }
        };
        if solver == Solver::Exact && outcome.end == End::Steps {
            return Err(not_converged(design, outcome.gradient));
        }
        Ok(Self { at, classes })
    }

    /// The likeliest class of each row of `design`.
    pub(crate) fn classes(&self, design: &Design) -> Vec<usize> {
        let margins = margins(design, &self.at, self.classes);
        (0..design.rows())
            .map(|row| {
                let of = |class: &usize| margins[*class][row];
                let best = (0..self.classes)
                    .rev()
                    .max_by(|a, b| of(a).total_cmp(&of(b)));
                best.unwrap_or(0)
            })
            .collect()
    }
}

fn not_converged(design: &Design, gradient: f64) -> Error {
    Error::NotConverged {
        dims: design.columns.len(),
        rows: design.rows(),
        gradient,
    }
}

/// The second derivatives of one class where all classes are equally likely.
fn start(design: &Design, classes: usize) -> Option<Cholesky> {
    let share = 1.0 / classes.max(2) as f64;
    let root = (share * (1.0 - share)).sqrt();
    let scale = |column: &Vec<f64>| column.iter().map(|x| root * x).collect::<Vec<f64>>();
    let mut scaled = vec![vec![root; design.rows()]];
    scaled.extend(design.columns.iter().map(scale));
    let mut matrix = gram(&scaled);
    for (i, row) in matrix.iter_mut().enumerate() {
        row[i] += if i == 0 { RIDGE } else { 1.0 };
    }
    Cholesky::new(matrix)
}

/// Per class, the margin of each row.
fn margins(design: &Design, at: &[f64], classes: usize) -> Vec<Vec<f64>> {
    let dims: Vec<usize> = (0..design.columns.len()).collect();
    at.par_chunks(at.len() / classes.max(1))
        .map(|at| {
            let mut margins = vec![at[0]; design.rows()];
            design.add_columns(&dims, &at[1..], &mut margins);
            margins
        })
        .collect()
}

struct ManyLoss<'a> {
    design: &'a Design,
    dims: Vec<usize>,
    classes: usize,
    scale: f64,
}

impl<'a> ManyLoss<'a> {
    fn new(design: &'a Design, classes: usize, scale: f64) -> Self {
        let dims = (0..design.columns.len()).collect();
        Self {
            design,
            dims,
            classes,
            scale,
        }
    }

    /// Turns margins into how far the prediction of each class is off; the sum of the losses.
    fn predict(&self, rows: &mut [Vec<f64>]) -> f64 {
        let mut loss = 0.0;
        for (row, label) in self.design.labels.iter().enumerate() {
            let most = rows
                .iter()
                .map(|class| class[row])
                .fold(f64::NEG_INFINITY, f64::max);
            let label = *label as usize;
            loss += most - rows[label][row];
            let mut sum = 0.0;
            for class in rows.iter_mut() {
                class[row] = (class[row] - most).exp();
                sum += class[row];
            }
            loss += sum.ln();
            for class in rows.iter_mut() {
                class[row] /= sum;
            }
            rows[label][row] -= 1.0;
        }
        loss
    }
}

impl Objective for ManyLoss<'_> {
    fn evaluate(&mut self, at: &[f64], gradient: &mut [f64]) -> f64 {
        let mut rows = margins(self.design, at, self.classes);
        let loss = self.predict(&mut rows);
        let width = self.dims.len() + 1;
        let parts = gradient
            .par_chunks_mut(width)
            .zip(at.par_chunks(width))
            .zip(&rows);
        let penalty: f64 = parts
            .map(|((slopes, at), off)| {
                slopes[0] = self.scale * off.iter().sum::<f64>();
                self.design.products(&self.dims, off, &mut slopes[1..]);
                for (slope, weight) in slopes[1..].iter_mut().zip(&at[1..]) {
                    *slope = self.scale * (*slope + weight);
                }
                dot(&at[1..], &at[1..])
            })
            // Added up in order, so that the sum does not depend on the threads.
            .collect::<Vec<f64>>()
            .iter()
            .sum();
        self.scale * (loss + 0.5 * penalty)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::design;
    use super::*;

    /// Three classes, told by where two dimensions are.
    fn three() -> Design {
        let mut design = design(90, 4, 9);
        for row in 0..90 {
            design.labels[row] = (row % 3) as f64;
            design.columns[row % 3][row] += 1.5;
        }
        design
    }

    #[test]
    fn the_gradient_is_the_slope_of_the_loss() {
        let design = three();
        let mut loss = ManyLoss::new(&design, 3, 1.0);
        let at: Vec<f64> = (0..15).map(|k| f64::from(k % 7) / 5.0 - 0.5).collect();
        let mut gradient = vec![0.0; 15];
        loss.evaluate(&at, &mut gradient);
        for k in 0..15 {
            let mut value = |by: f64| {
                let mut moved = at.clone();
                moved[k] += by;
                loss.evaluate(&moved, &mut [0.0; 15])
            };
            let slope = (value(1e-5) - value(-1e-5)) / 2e-5;
            assert!(
                (slope - gradient[k]).abs() < 1e-6,
                "{k}: {slope} {}",
                gradient[k]
            );
        }
    }

    #[test]
    fn both_solvers_find_the_classes() {
        let design = three();
        let exact = ManyFit::new(&design, 3, Solver::Exact).unwrap();
        let library = ManyFit::new(&design, 3, Solver::Library).unwrap();
        for fit in [&exact, &library] {
            let found = fit.classes(&design);
            let right = found.iter().zip(&design.labels);
            let right = right
                .filter(|(found, label)| **found == **label as usize)
                .count();
            assert!(right > 80, "{right}");
        }
        for (a, b) in exact.at.iter().zip(&library.at) {
            assert!((a - b).abs() < 0.05, "{a} {b}");
        }
    }
}
