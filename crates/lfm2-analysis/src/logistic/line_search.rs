//! The line search of Moré and Thuente, in the form of MINPACK-2 that L-BFGS-B uses, so that a fit
//! can follow the steps of that library.

/// Share of the slope that a step must at least bring.
const DECREASE: f64 = 1e-3;
/// Share of the slope that may be left.
const CURVATURE: f64 = 0.9;
/// Relative width at which the interval counts as a point.
const WIDTH: f64 = 0.1;
const LONGEST: f64 = 1e10;
/// Relative size of the errors of a value, which is a sum over thousands of rows.
const ROUNDING: f64 = 1e-12;

/// A place along the line: how far, the value and the slope there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) step: f64,
    pub(super) value: f64,
    pub(super) slope: f64,
}

impl Place {
    /// This place of the function less a line of slope `tilt`.
    fn tilted(self, tilt: f64) -> Self {
        Self {
            step: self.step,
            value: self.value - self.step * tilt,
            slope: self.slope - tilt,
        }
    }
}

/// What to do after a place was looked at.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Next {
    /// Look at this step.
    Try(f64),
    /// The last place will do.
    Accept,
    /// No step along this line helps, as far as numbers can tell.
    Fail,
}

/// The state of one search; `start.slope` must be negative.
#[derive(Debug)]
pub(super) struct LineSearch {
    start: Place,
    best: Place,
    other: Place,
    bracketed: bool,
    first_stage: bool,
    width: f64,
    width_before: f64,
    least: f64,
    most: f64,
}

impl LineSearch {
    /// A search from `start` (whose step is 0) that looks at `first` first.
    pub(super) fn new(start: Place, first: f64) -> Self {
        Self {
            start,
            best: start,
            other: start,
            bracketed: false,
            first_stage: true,
            width: LONGEST,
            width_before: 2.0 * LONGEST,
            least: 0.0,
            most: first + 4.0 * first,
        }
    }

    /// What to do after `seen`.
    pub(super) fn next(&mut self, seen: Place) -> Next {
        let tilt = DECREASE * self.start.slope;
        // Near a minimum rounding hides the decrease; the slopes still tell.
        let wanted = self.start.value + seen.step * tilt + ROUNDING * self.start.value.abs();
        if self.first_stage && seen.value <= wanted && seen.slope >= 0.0 {
            self.first_stage = false;
        }
        if seen.value <= wanted && seen.slope.abs() <= -CURVATURE * self.start.slope {
            return Next::Accept;
        }
        if self.is_stuck(seen, wanted, tilt) {
            let better = seen.value < self.start.value;
            return if better { Next::Accept } else { Next::Fail };
        }
        let step = if self.first_stage && seen.value <= self.best.value && seen.value > wanted {
            self.best = self.best.tilted(tilt);
            self.other = self.other.tilted(tilt);
            let step = self.refine(seen.tilted(tilt));
            self.best = self.best.tilted(-tilt);
            self.other = self.other.tilted(-tilt);
            step
        } else {
            self.refine(seen)
        };
        Next::Try(self.narrowed(step))
    }

    fn is_stuck(&self, seen: Place, wanted: f64, tilt: f64) -> bool {
        let outside = seen.step <= self.least || seen.step >= self.most;
        let narrow = self.most - self.least <= WIDTH * self.most;
        let too_long = seen.step >= LONGEST && seen.value <= wanted && seen.slope <= tilt;
        let no_number = !(seen.value.is_finite() && seen.slope.is_finite());
        (self.bracketed && (outside || narrow)) || too_long || no_number
    }

    /// Halves an interval that shrinks too slowly, and sets the next bounds.
    fn narrowed(&mut self, mut step: f64) -> f64 {
        if self.bracketed {
            let width = (self.other.step - self.best.step).abs();
            if width >= 0.66 * self.width_before {
                step = self.best.step + 0.5 * (self.other.step - self.best.step);
            }
            self.width_before = self.width;
            self.width = width;
            self.least = self.best.step.min(self.other.step);
            self.most = self.best.step.max(self.other.step);
        } else {
            self.least = step + 1.1 * (step - self.best.step);
            self.most = step + 4.0 * (step - self.best.step);
        }
        step = step.clamp(0.0, LONGEST);
        let outside = step <= self.least || step >= self.most;
        if self.bracketed && (outside || self.most - self.least <= WIDTH * self.most) {
            step = self.best.step;
        }
        step
    }

    /// Takes `seen` into the interval and proposes a step.
    fn refine(&mut self, seen: Place) -> f64 {
        let opposite = seen.slope * self.best.slope.signum() < 0.0;
        let step = if seen.value > self.best.value {
            self.bracketed = true;
            between_higher(self.best, seen)
        } else if opposite {
            self.bracketed = true;
            between_turned(self.best, seen)
        } else if seen.slope.abs() < self.best.slope.abs() {
            self.beyond_flatter(seen)
        } else if self.bracketed {
            let (theta, gamma) = cubic(self.other, seen);
            let gamma = if seen.step > self.other.step {
                -gamma
            } else {
                gamma
            };
            let ratio = ((gamma - seen.slope) + theta)
                / (((gamma - seen.slope) + gamma) + self.other.slope);
            seen.step + ratio * (self.other.step - seen.step)
        } else if seen.step > self.best.step {
            self.most
        } else {
            self.least
        };
        if seen.value > self.best.value {
            self.other = seen;
        } else {
            if opposite {
                self.other = self.best;
            }
            self.best = seen;
        }
        step
    }

    /// The slope keeps its sign and falls: the minimum is further on.
    fn beyond_flatter(&self, seen: Place) -> f64 {
        let best = self.best;
        let (theta, gamma) = cubic(best, seen);
        let gamma = if seen.step > best.step { -gamma } else { gamma };
        let ratio = ((gamma - seen.slope) + theta) / ((gamma + (best.slope - seen.slope)) + gamma);
        let cubic_step = if ratio < 0.0 && gamma != 0.0 {
            seen.step + ratio * (best.step - seen.step)
        } else if seen.step > best.step {
            self.most
        } else {
            self.least
        };
        let secant = seen.step + seen.slope / (seen.slope - best.slope) * (best.step - seen.step);
        let cubic_is_nearer = (cubic_step - seen.step).abs() < (secant - seen.step).abs();
        if self.bracketed {
            let step = if cubic_is_nearer { cubic_step } else { secant };
            let limit = seen.step + 0.66 * (self.other.step - seen.step);
            if seen.step > best.step {
                step.min(limit)
            } else {
                step.max(limit)
            }
        } else {
            let cubic_is_further = (cubic_step - seen.step).abs() > (secant - seen.step).abs();
            let step = if cubic_is_further { cubic_step } else { secant };
            step.max(self.least).min(self.most)
        }
    }
}

/// The two numbers that every interpolation by a cubic through two places starts from.
fn cubic(a: Place, b: Place) -> (f64, f64) {
    let theta = 3.0 * (a.value - b.value) / (b.step - a.step) + a.slope + b.slope;
    let scale = theta.abs().max(a.slope.abs()).max(b.slope.abs());
    let inner = (theta / scale).powi(2) - (a.slope / scale) * (b.slope / scale);
    (theta, scale * inner.max(0.0).sqrt())
}

/// A step between the best place and one with a higher value.
fn between_higher(best: Place, seen: Place) -> f64 {
    let (theta, gamma) = cubic(best, seen);
    let gamma = if seen.step < best.step { -gamma } else { gamma };
    let ratio = ((gamma - best.slope) + theta) / (((gamma - best.slope) + gamma) + seen.slope);
    let cubic_step = best.step + ratio * (seen.step - best.step);
    let rise = (best.value - seen.value) / (seen.step - best.step) + best.slope;
    let quadratic = best.step + best.slope / rise / 2.0 * (seen.step - best.step);
    if (cubic_step - best.step).abs() < (quadratic - best.step).abs() {
        cubic_step
    } else {
        cubic_step + (quadratic - cubic_step) / 2.0
    }
}

/// A step between the best place and a lower one whose slope has the other sign.
fn between_turned(best: Place, seen: Place) -> f64 {
    let (theta, gamma) = cubic(best, seen);
    let gamma = if seen.step > best.step { -gamma } else { gamma };
    let ratio = ((gamma - seen.slope) + theta) / (((gamma - seen.slope) + gamma) + best.slope);
    let cubic_step = seen.step + ratio * (best.step - seen.step);
    let secant = seen.step + seen.slope / (seen.slope - best.slope) * (best.step - seen.step);
    if (cubic_step - seen.step).abs() > (secant - seen.step).abs() {
        cubic_step
    } else {
        secant
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Searches `function` (value and slope at a step) from 0 with a first step of `first`.
    fn search(function: impl Fn(f64) -> (f64, f64), first: f64) -> Option<Place> {
        let look = |step: f64| {
            let (value, slope) = function(step);
            Place { step, value, slope }
        };
        let mut search = LineSearch::new(look(0.0), first);
        let mut step = first;
        for _ in 0..50 {
            let seen = look(step);
            match search.next(seen) {
                Next::Try(next) => step = next,
                Next::Accept => return Some(seen),
                Next::Fail => return None,
            }
        }
        None
    }

    #[test]
    fn steps_that_are_too_short_and_too_long_are_mended() {
        for first in [1e-6, 0.1, 1.0, 7.0, 1e4] {
            for (name, function) in [
                (
                    "parabola",
                    (|x: f64| ((x - 2.0).powi(2), 2.0 * (x - 2.0))) as fn(f64) -> (f64, f64),
                ),
                ("valley", |x: f64| {
                    ((x - 3.0).powi(4), 4.0 * (x - 3.0).powi(3))
                }),
                ("wave", |x: f64| (0.1 * x * x - x.sin(), 0.2 * x - x.cos())),
            ] {
                let (start, slope) = function(0.0);
                let found =
                    search(function, first).unwrap_or_else(|| panic!("{name} from {first}"));
                assert!(
                    found.value <= start + DECREASE * found.step * slope,
                    "{name}: {found:?}"
                );
                assert!(found.slope.abs() <= -CURVATURE * slope, "{name}: {found:?}");
            }
        }
    }

    #[test]
    fn a_line_without_end_is_left_somewhere_and_no_numbers_fail() {
        let found = search(|x| (-x, -1.0), 1.0).map(|place| place.step);
        assert_eq!(found, Some(LONGEST));
        let nothing = |x: f64| {
            if x > 0.0 {
                (f64::NAN, f64::NAN)
            } else {
                (0.0, -1.0)
            }
        };
        assert!(search(nothing, 1.0).is_none());
    }
}
