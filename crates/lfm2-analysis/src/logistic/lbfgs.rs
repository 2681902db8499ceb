//! Minimising a smooth function by limited-memory BFGS.
//!
//! With a factor of a matrix close to the second derivatives as the start of each inverse, it is
//! Newton's method that need not factor at every step. Without one it takes the same steps as the
//! L-BFGS-B that scientific Python calls, up to rounding.

use std::collections::VecDeque;

use super::line_search::{LineSearch, Next, Place};
use crate::linalg::{Cholesky, add_scaled, dot};

/// Pairs of differences that are remembered.
const MEMORY: usize = 10;
/// Places looked at along one line.
const LOOKS: usize = 50;

/// A function with a gradient.
pub(super) trait Objective {
    /// The value at `at`; `gradient`, which is as long, is overwritten.
    fn evaluate(&mut self, at: &[f64], gradient: &mut [f64]) -> f64;
}

/// What the inverse of the second derivatives is taken to be before anything is known of it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Start<'a> {
    /// A multiple of the identity.
    Identity,
    /// The inverse of a factored matrix, used for each of the equal parts of the variables.
    Factor(&'a Cholesky),
}

/// When to stop.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stop {
    /// Largest absolute entry of the gradient.
    pub(super) gradient: f64,
    /// Relative decrease in one step; 0 leaves it to the gradient alone.
    pub(super) decrease: f64,
    /// Steps.
    pub(super) steps: usize,
}

/// Why a minimisation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The gradient or the decrease is small enough.
    Converged,
    /// The allowed steps are used up.
    Steps,
    /// Rounding hides any further progress.
    Stuck,
}

/// Where a minimisation ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct Outcome {
    pub(super) end: End,
    /// Largest absolute entry of the last gradient.
    pub(super) gradient: f64,
}

/// One remembered step.
struct Pair {
    step: Vec<f64>,
    change: Vec<f64>,
    /// Their product.
    curvature: f64,
}

/// Moves `at` to a minimum of `objective`.
pub(super) fn minimise(
    objective: &mut impl Objective,
    at: &mut [f64],
    start: Start<'_>,
    stop: Stop,
) -> Outcome {
    let mut gradient = vec![0.0; at.len()];
    let mut value = objective.evaluate(at, &mut gradient);
    let mut memory: VecDeque<Pair> = VecDeque::with_capacity(MEMORY);
    let mut steps = 0;
    let end = loop {
        if largest(&gradient) <= stop.gradient {
            break End::Converged;
        }
        if steps == stop.steps {
            break End::Steps;
        }
        let direction = direction(&gradient, &memory, start);
        let first = match start {
            Start::Identity if steps == 0 => (1.0 / dot(&direction, &direction).sqrt()).min(1e10),
            _ => 1.0,
        };
        let before = value;
        let Some((place, point, slopes)) = walk(objective, at, &gradient, value, &direction, first)
        else {
            if memory.is_empty() {
                break End::Stuck;
            }
            memory.clear();
            continue;
        };
        steps += 1;
        value = place.value;
        at.copy_from_slice(&point);
        let scale = before.abs().max(value.abs()).max(1.0);
        if stop.decrease > 0.0 && before - value <= stop.decrease * scale {
            gradient = slopes;
            break End::Converged;
        }
        remember(&mut memory, direction, place.step, &gradient, &slopes);
        gradient = slopes;
    };
    Outcome {
        end,
        gradient: largest(&gradient),
    }
}

fn largest(gradient: &[f64]) -> f64 {
    gradient
        .iter()
        .fold(0.0, |most, slope| slope.abs().max(most))
}

/// Minus the approximate inverse of the second derivatives times the gradient.
fn direction(gradient: &[f64], memory: &VecDeque<Pair>, start: Start<'_>) -> Vec<f64> {
    let mut direction: Vec<f64> = gradient.iter().map(|slope| -slope).collect();
    let mut shares = [0.0; MEMORY];
    for (pair, share) in memory.iter().zip(&mut shares).rev() {
        *share = dot(&pair.step, &direction) / pair.curvature;
        add_scaled(&mut direction, -*share, &pair.change);
    }
    match (start, memory.back()) {
        (Start::Factor(factor), _) => {
            direction
                .chunks_exact_mut(factor.len())
                .for_each(|part| factor.solve(part));
        }
        (Start::Identity, Some(last)) => {
            let scale = last.curvature / dot(&last.change, &last.change);
            direction.iter_mut().for_each(|value| *value *= scale);
        }
        (Start::Identity, None) => {}
    }
    for (pair, share) in memory.iter().zip(&shares) {
        let back = dot(&pair.change, &direction) / pair.curvature;
        add_scaled(&mut direction, share - back, &pair.step);
    }
    direction
}

/// Searches along `direction`: the accepted place, its coordinates and its gradient.
fn walk(
    objective: &mut impl Objective,
    at: &[f64],
    gradient: &[f64],
    value: f64,
    direction: &[f64],
    first: f64,
) -> Option<(Place, Vec<f64>, Vec<f64>)> {
    let slope = dot(gradient, direction);
    if !(slope < 0.0 && value.is_finite()) {
        return None;
    }
    let origin = Place {
        step: 0.0,
        value,
        slope,
    };
    let mut search = LineSearch::new(origin, first);
    let mut slopes = vec![0.0; at.len()];
    let mut step = first;
    for _ in 0..LOOKS {
        let mut point = at.to_vec();
        add_scaled(&mut point, step, direction);
        let value = objective.evaluate(&point, &mut slopes);
        let seen = Place {
            step,
            value,
            slope: dot(&slopes, direction),
        };
        match search.next(seen) {
            Next::Accept => return Some((seen, point, slopes)),
            Next::Try(next) => step = next,
            Next::Fail => return None,
        }
    }
    None
}

/// Keeps a step of which something can be learned.
fn remember(
    memory: &mut VecDeque<Pair>,
    mut step: Vec<f64>,
    length: f64,
    before: &[f64],
    after: &[f64],
) {
    let change: Vec<f64> = after.iter().zip(before).map(|(a, b)| a - b).collect();
    step.iter_mut().for_each(|value| *value *= length);
    let curvature = dot(&change, &step);
    if curvature <= f64::EPSILON * -dot(before, &step) {
        return;
    }
    if memory.len() == MEMORY {
        memory.pop_front();
    }
    memory.push_back(Pair {
        step,
        change,
        curvature,
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The curved valley that every optimiser is shown.
    struct Valley {
        looks: usize,
    }

    impl Objective for Valley {
        fn evaluate(&mut self, at: &[f64], gradient: &mut [f64]) -> f64 {
            self.looks += 1;
            let (x, y) = (at[0], at[1]);
            gradient[0] = -2.0 * (1.0 - x) - 400.0 * x * (y - x * x);
            gradient[1] = 200.0 * (y - x * x);
            (1.0 - x).powi(2) + 100.0 * (y - x * x).powi(2)
        }
    }

    const STOP: Stop = Stop {
        gradient: 1e-9,
        decrease: 0.0,
        steps: 500,
    };

    #[test]
    fn a_curved_valley_is_followed_to_its_end() {
        let mut valley = Valley { looks: 0 };
        let mut at = [-1.2, 1.0];
        let outcome = minimise(&mut valley, &mut at, Start::Identity, STOP);
        assert_eq!(outcome.end, End::Converged);
        assert!(outcome.gradient <= 1e-9);
        assert!(
            (at[0] - 1.0).abs() < 1e-8 && (at[1] - 1.0).abs() < 1e-8,
            "{at:?}"
        );
        assert!(valley.looks < 80, "{}", valley.looks);
    }

    #[test]
    fn steps_and_factors_are_respected() {
        let mut at = [-1.2, 1.0];
        let few = Stop { steps: 3, ..STOP };
        let outcome = minimise(&mut Valley { looks: 0 }, &mut at, Start::Identity, few);
        assert_eq!(outcome.end, End::Steps);

        // Second derivatives at the minimum: a few steps are enough from near by.
        let factor = Cholesky::new(vec![vec![802.0], vec![-400.0, 200.0]]).unwrap();
        let mut valley = Valley { looks: 0 };
        let mut at = [1.01, 1.02];
        let outcome = minimise(&mut valley, &mut at, Start::Factor(&factor), STOP);
        assert_eq!(outcome.end, End::Converged);
        assert!(valley.looks < 12, "{}", valley.looks);
    }
}
