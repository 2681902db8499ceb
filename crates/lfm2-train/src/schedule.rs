//! Learning-rate schedules.

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// How the learning rate changes over the steps of a run.
///
/// All kinds rise linearly from 0 at step 0 to `peak` at step `warmup`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Schedule {
    /// Stays at `peak`.
    Constant {
        /// The rate.
        peak: f64,
        /// Steps of the rise.
        #[serde(default)]
        warmup: u64,
    },
    /// Falls from `peak` to `floor` along half a cosine, reached at step `total`.
    Cosine {
        /// The highest rate.
        peak: f64,
        /// The last rate.
        floor: f64,
        /// Steps of the rise.
        warmup: u64,
        /// The step at which the floor is reached.
        total: u64,
    },
    /// Stays at `peak` and falls linearly to `floor` between steps `decay_from` and `total`.
    WarmupStableDecay {
        /// The highest rate.
        peak: f64,
        /// The last rate.
        floor: f64,
        /// Steps of the rise.
        warmup: u64,
        /// The step at which the fall begins.
        decay_from: u64,
        /// The step at which the floor is reached.
        total: u64,
    },
}

impl Schedule {
    /// The learning rate of step `step`; the first step of a run is 1.
    pub fn rate(&self, step: u64) -> f64 {
        let (peak, warmup) = match *self {
            Self::Constant { peak, warmup }
            | Self::Cosine { peak, warmup, .. }
            | Self::WarmupStableDecay { peak, warmup, .. } => (peak, warmup),
        };
        if step < warmup {
            return peak * step as f64 / warmup as f64;
        }
        match *self {
            Self::Constant { peak, .. } => peak,
            Self::Cosine {
                peak,
                floor,
                warmup,
                total,
            } => {
                let done = progress(step, warmup, total);
                floor + 0.5 * (peak - floor) * (1.0 + (std::f64::consts::PI * done).cos())
            }
            Self::WarmupStableDecay {
                peak,
                floor,
                decay_from,
                total,
                ..
            } => peak + (floor - peak) * progress(step, decay_from, total),
        }
    }

    /// Checks that the rates are usable and the phases are in order.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] naming the field.
    pub fn validate(&self) -> Result<()> {
        let (rates, phases) = match *self {
            Self::Constant { peak, warmup } => (
                vec![("schedule.peak", peak)],
                vec![("schedule.warmup", warmup)],
            ),
            Self::Cosine {
                peak,
                floor,
                warmup,
                total,
            } => (
                vec![("schedule.floor", floor), ("schedule.peak", peak)],
                vec![("schedule.warmup", warmup), ("schedule.total", total)],
            ),
            Self::WarmupStableDecay {
                peak,
                floor,
                warmup,
                decay_from,
                total,
            } => (
                vec![("schedule.floor", floor), ("schedule.peak", peak)],
                vec![
                    ("schedule.warmup", warmup),
                    ("schedule.decay_from", decay_from),
                    ("schedule.total", total),
                ],
            ),
        };
        let mut least = 0.0;
        for (key, rate) in rates {
            if !rate.is_finite() || rate < least {
                return Err(Error::option(
                    key,
                    format!("expected a rate of at least {least}, found {rate}"),
                ));
            }
            least = rate;
        }
        let mut earliest = 0;
        for (key, step) in phases {
            if step < earliest {
                return Err(Error::option(
                    key,
                    format!("expected a step of at least {earliest}, found {step}"),
                ));
            }
            earliest = step;
        }
        Ok(())
    }
}

/// Where `step` is between `from` and `to`, within 0..=1.
fn progress(step: u64, from: u64, to: u64) -> f64 {
    if step >= to {
        return 1.0;
    }
    // Before `from`, and only there, `to - from` can be 0.
    let done = step.saturating_sub(from);
    if done == 0 {
        0.0
    } else {
        done as f64 / (to - from) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schedule_without_phases_divides_nothing_by_zero() {
        let flat = Schedule::Cosine {
            peak: 1.0,
            floor: 0.5,
            warmup: 0,
            total: 0,
        };
        assert_eq!(flat.rate(0), 0.5);
        assert_eq!(
            Schedule::Constant {
                peak: 2.0,
                warmup: 0
            }
            .rate(0),
            2.0
        );
        let cliff = Schedule::WarmupStableDecay {
            peak: 1.0,
            floor: 0.0,
            warmup: 2,
            decay_from: 5,
            total: 5,
        };
        assert_eq!([1, 2, 4, 5].map(|s| cliff.rate(s)), [0.5, 1.0, 1.0, 0.0]);
    }

    #[test]
    fn phases_out_of_order_and_bad_rates_are_refused_by_name() {
        let late = Schedule::Cosine {
            peak: 1.0,
            floor: 0.0,
            warmup: 9,
            total: 3,
        };
        assert!(
            late.validate()
                .unwrap_err()
                .to_string()
                .contains("schedule.total")
        );
        let low = Schedule::Cosine {
            peak: 0.1,
            floor: 0.2,
            warmup: 0,
            total: 3,
        };
        assert!(
            low.validate()
                .unwrap_err()
                .to_string()
                .contains("schedule.peak")
        );
        let nan = Schedule::Constant {
            peak: f64::NAN,
            warmup: 0,
        };
        assert!(nan.validate().is_err());
    }

    #[test]
    fn the_spelling_of_a_configuration_file() {
        let text = r#"{"kind":"warmup_stable_decay","peak":1e-3,"floor":0.0,"warmup":1,"decay_from":2,"total":3}"#;
        let schedule: Schedule = serde_json::from_str(text).unwrap();
        assert_eq!(schedule.rate(2), 1e-3);
        assert!(
            serde_json::from_str::<Schedule>(r#"{"kind":"constant","peak":1,"warm":2}"#).is_err()
        );
    }
}
