//! Telling first sentences from second ones by some of the dimensions: fits, elimination, accuracy.

use std::sync::atomic::{AtomicBool, Ordering};

use serde::{Deserialize, Serialize};

use crate::embeddings::PairedEmbeddings;
use crate::error::{Error, Result};
use crate::logistic::{Design, ExactFit, Fit, Solver, library_fit};
use crate::split::Split;

/// What recursive elimination left and dropped.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Elimination {
    /// Dropped dimensions, first one first.
    pub dropped: Vec<usize>,
    /// The regression on the dimensions that are left.
    pub fit: Fit,
}

impl Elimination {
    /// Per dimension, the size of its weight in the last regression; 0 where it was dropped.
    pub fn importance(&self, dims: usize) -> Vec<f64> {
        let mut importance = vec![0.0; dims];
        for (&dim, weight) in self.fit.dims.iter().zip(&self.fit.weights) {
            if let Some(importance) = importance.get_mut(dim) {
                *importance = weight.abs();
            }
        }
        importance
    }
}

/// The sentences of one property, labelled with their side and split.
#[derive(Debug, Clone)]
pub struct Sides {
    train: Design,
    test: Design,
    solver: Solver,
    /// What was taken from every column, so that it has a mean of 0; the intercept takes it up.
    means: Vec<f64>,
}

impl Sides {
    /// Rows of `embeddings` in the two parts of `split`.
    ///
    /// # Errors
    /// When the split has rows that the embeddings lack.
    pub fn new(embeddings: &PairedEmbeddings<'_>, split: &Split, solver: Solver) -> Result<Self> {
        let rows = 2 * embeddings.pairs();
        if let Some(row) = split
            .train()
            .iter()
            .chain(split.test())
            .find(|row| **row >= rows)
        {
            return Err(Error::Split {
                name: embeddings.name().to_owned(),
                detail: format!("row {row} of {rows} rows"),
            });
        }
        let mut train = gather(embeddings, split.train());
        let mut test = gather(embeddings, split.test());
        let mut means = vec![0.0; embeddings.dims()];
        // The library does not centre, and where its fits stop depends on it.
        if solver == Solver::Exact {
            for (dim, mean) in means.iter_mut().enumerate() {
                let column = &mut train.columns[dim];
                *mean = column.iter().sum::<f64>() / column.len() as f64;
                column.iter_mut().for_each(|value| *value -= *mean);
                test.columns[dim]
                    .iter_mut()
                    .for_each(|value| *value -= *mean);
            }
        }
        Ok(Self {
            train,
            test,
            solver,
            means,
        })
    }

    /// Number of dimensions.
    pub fn dims(&self) -> usize {
        self.means.len()
    }

    /// The regression on `dims`, each named once and below [`dims`](Self::dims).
    ///
    /// # Errors
    /// When a dimension is wrong, or the regression does not converge.
    pub fn fit(&self, dims: &[usize]) -> Result<Fit> {
        self.check(dims)?;
        let fit = match self.solver {
            Solver::Exact => ExactFit::new(&self.train, dims)?.fit(),
            Solver::Library => library_fit(&self.train, dims),
        };
        Ok(self.shown(fit))
    }

    /// Share of the test rows whose side `fit` tells right.
    pub fn accuracy(&self, fit: &Fit) -> f64 {
        self.centred(fit).accuracy(&self.test)
    }

    /// The accuracy of the regression on `dims`.
    ///
    /// # Errors
    /// As [`fit`](Self::fit).
    pub fn accuracy_of(&self, dims: &[usize]) -> Result<f64> {
        Ok(self.accuracy(&self.fit(dims)?))
    }

    /// Loss and penalty of `fit` on the rows it was learned from.
    pub fn objective(&self, fit: &Fit) -> f64 {
        self.centred(fit).objective(&self.train)
    }

    /// Drops the dimension with the smallest weight until `keep` are left.
    ///
    /// # Errors
    /// When a regression does not converge, or `cancel` was set meanwhile.
    pub fn eliminate(&self, keep: usize, cancel: &AtomicBool) -> Result<Elimination> {
        let mut left: Vec<usize> = (0..self.dims()).collect();
        let mut dropped = Vec::with_capacity(left.len().saturating_sub(keep));
        let fit = match self.solver {
            Solver::Exact => {
                let mut fit = ExactFit::new(&self.train, &left)?;
                while dropped.len() + keep < left.len() {
                    check_cancel(cancel)?;
                    let Some(weakest) = fit.weakest() else { break };
                    fit.remove(weakest)?;
                    dropped.push(weakest);
                }
                fit.fit()
            }
            Solver::Library => {
                while keep < left.len() {
                    check_cancel(cancel)?;
                    let weights = library_fit(&self.train, &left).weights;
                    let sizes = weights.iter().map(|weight| weight * weight).enumerate();
                    let Some((weakest, _)) = sizes.min_by(|a, b| a.1.total_cmp(&b.1)) else {
                        break;
                    };
                    dropped.push(left.remove(weakest));
                }
                library_fit(&self.train, &left)
            }
        };
        Ok(Elimination {
            dropped,
            fit: self.shown(fit),
        })
    }

    /// Accuracies with the first 1, 2, 3, ... dimensions of `order`, up to the first that reaches
    /// `target`; all of them when none does.
    ///
    /// # Errors
    /// As [`eliminate`](Self::eliminate).
    pub fn climb(&self, order: &[usize], target: f64, cancel: &AtomicBool) -> Result<Vec<f64>> {
        self.check(order)?;
        let mut accuracies = Vec::new();
        let mut exact: Option<ExactFit<'_>> = None;
        for count in 1..=order.len() {
            check_cancel(cancel)?;
            let fit = match (self.solver, &mut exact) {
                (Solver::Library, _) => library_fit(&self.train, &order[..count]),
                (Solver::Exact, Some(fit)) => {
                    fit.push(order[count - 1])?;
                    fit.fit()
                }
                (Solver::Exact, none) => none
                    .insert(ExactFit::new(&self.train, &order[..count])?)
                    .fit(),
            };
            let accuracy = fit.accuracy(&self.test);
            accuracies.push(accuracy);
            if accuracy >= target {
                break;
            }
        }
        Ok(accuracies)
    }

    fn check(&self, dims: &[usize]) -> Result<()> {
        let mut seen = vec![false; self.dims()];
        for &dim in dims {
            let wrong = match seen.get_mut(dim) {
                None => format!("dimension {dim} of {}", self.dims()),
                Some(true) => format!("dimension {dim} is there twice"),
                Some(seen) => {
                    *seen = true;
                    continue;
                }
            };
            return Err(Error::InvalidOption {
                key: "dims",
                detail: wrong,
            });
        }
        Ok(())
    }

    /// A fit for the rows as they came.
    fn shown(&self, fit: Fit) -> Fit {
        self.moved(fit, -1.0)
    }

    /// A fit for the centred rows.
    fn centred(&self, fit: &Fit) -> Fit {
        self.moved(fit.clone(), 1.0)
    }

    fn moved(&self, mut fit: Fit, sign: f64) -> Fit {
        for (&dim, weight) in fit.dims.iter().zip(&fit.weights) {
            fit.intercept += sign * weight * self.means[dim];
        }
        fit
    }
}

pub(crate) fn check_cancel(cancel: &AtomicBool) -> Result<()> {
    if cancel.load(Ordering::Relaxed) {
        return Err(Error::Cancelled);
    }
    Ok(())
}

fn gather(embeddings: &PairedEmbeddings<'_>, rows: &[usize]) -> Design {
    let column = |dim: usize| rows.iter().map(|&row| embeddings.value(row, dim)).collect();
    let side = |&row: &usize| if row < embeddings.pairs() { 0.0 } else { 1.0 };
    Design {
        columns: (0..embeddings.dims()).map(column).collect(),
        labels: rows.iter().map(side).collect(),
    }
}
