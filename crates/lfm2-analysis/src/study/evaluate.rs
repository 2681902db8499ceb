//! How well chosen dimensions tell the sides of a property, on rows that no regression has seen.

use std::sync::atomic::AtomicBool;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{PropertyStudy, StudyOptions};
use crate::error::Result;
use crate::sides::{Elimination, Sides, check_cancel};

/// Accuracies for one property.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Evaluation {
    /// With all dimensions.
    pub baseline: f64,
    /// With the dimensions that elimination left.
    pub eliminated: f64,
    /// With the best 1, 2, 3, ... dimensions, up to the first that reaches the share of the baseline.
    pub climb: Vec<f64>,
    /// How many dimensions that took; none when not even all of them did.
    pub dims_needed: Option<usize>,
    /// Dimensions of the lowest scores that were tried.
    pub low_dims: usize,
    /// With those.
    pub low: f64,
    /// With the best dimensions of each other property.
    pub cross: Vec<CrossAccuracy>,
}

impl Evaluation {
    /// The other property (the control set left out) whose dimensions do best here.
    pub fn best_cross(&self) -> Option<&CrossAccuracy> {
        let others = self
            .cross
            .iter()
            .filter(|cross| cross.from != super::CONTROL);
        others
            .rev()
            .max_by(|a, b| a.accuracy.total_cmp(&b.accuracy))
    }
}

/// Accuracy with the best dimensions of another property.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CrossAccuracy {
    /// The property whose dimensions were taken.
    pub from: String,
    /// The accuracy.
    pub accuracy: f64,
}

pub(super) fn evaluate(
    sides: &Sides,
    elimination: &Elimination,
    order: &[usize],
    options: &StudyOptions,
    cancel: &AtomicBool,
) -> Result<Evaluation> {
    let all: Vec<usize> = (0..sides.dims()).collect();
    let baseline = sides.accuracy_of(&all)?;
    let target = options.reach * baseline;
    let climb = sides.climb(order, target, cancel)?;
    let reached = climb.last().is_some_and(|accuracy| *accuracy >= target);
    let low_dims = options.low.min(sides.dims() / 2).max(1);
    let lowest: Vec<usize> = order.iter().rev().take(low_dims).copied().collect();
    Ok(Evaluation {
        baseline,
        eliminated: sides.accuracy(&elimination.fit),
        dims_needed: reached.then_some(climb.len()),
        climb,
        low_dims,
        low: sides.accuracy_of(&lowest)?,
        cross: Vec::new(),
    })
}

/// Per property, the accuracies with the best dimensions of every other one.
pub(super) fn cross(
    studied: &[PropertyStudy],
    sides: &[Sides],
    options: &StudyOptions,
    cancel: &AtomicBool,
) -> Result<Vec<Vec<CrossAccuracy>>> {
    let on = |(at, sides): (usize, &Sides)| {
        let others = studied.iter().enumerate().filter(|(other, _)| *other != at);
        others
            .map(|(_, other)| {
                check_cancel(cancel)?;
                let best = &other.order[..options.cross.min(other.order.len())];
                Ok(CrossAccuracy {
                    from: other.name.clone(),
                    accuracy: sides.accuracy_of(best)?,
                })
            })
            .collect()
    };
    sides.par_iter().enumerate().map(on).collect()
}
