//! Even use of the experts of a mixture without a loss: a bias on the choice, moved after every step.
//!
//! Knows counts and biases, not models. The bias takes part in choosing experts and never in weighting
//! them, so it gets no gradient and stays `f32`.

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// How the bias of the choice of experts moves.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Balance {
    /// How far every bias moves in one step.
    pub update: f64,
}

impl Default for Balance {
    fn default() -> Self {
        Self { update: 1e-3 }
    }
}

impl Balance {
    /// A bias that moves by `update` per step.
    pub fn new(update: f64) -> Self {
        Self { update }
    }

    /// Checks that the update is in its range.
    ///
    /// # Errors
    /// [`Error::InvalidOption`].
    pub fn validate(&self) -> Result<()> {
        if self.update.is_finite() && self.update > 0.0 {
            return Ok(());
        }
        let detail = format!("expected a number above 0, found {}", self.update);
        Err(Error::option("balance.update", detail))
    }

    /// Moves `bias` up for experts with less than the mean load, and down for those with more.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] when there is not one load per bias.
    pub fn adjust(&self, bias: &mut [f32], load: &[u64]) -> Result<()> {
        if bias.len() != load.len() {
            let detail = format!("expected {} loads, found {}", bias.len(), load.len());
            return Err(Error::option("expert_bias", detail));
        }
        let total: u128 = load.iter().map(|&n| u128::from(n)).sum();
        let experts = load.len() as u128;
        for (bias, &load) in bias.iter_mut().zip(load) {
            // Against the mean without dividing: equal is exactly equal.
            let direction = match (u128::from(load) * experts).cmp(&total) {
                std::cmp::Ordering::Less => 1.0,
                std::cmp::Ordering::Equal => 0.0,
                std::cmp::Ordering::Greater => -1.0,
            };
            *bias = (f64::from(*bias) + self.update * direction) as f32;
        }
        Ok(())
    }
}

/// How much more than the mean the busiest expert got: 0 when all are even, 1 for twice the mean. 0
/// where nothing was routed.
pub fn overload(load: &[u64]) -> f64 {
    let total: u64 = load.iter().sum();
    match load.iter().max() {
        Some(&most) if total > 0 => most as f64 * load.len() as f64 / total as f64 - 1.0,
        _ => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bias_moves_against_the_load() {
        let mut bias = [0.0, 0.5, -0.5, 0.0];
        Balance::new(0.25).adjust(&mut bias, &[5, 3, 1, 3]).unwrap();
        assert_eq!(bias, [-0.25, 0.5, -0.25, 0.0]);
        assert!(Balance::default().adjust(&mut bias, &[1, 2]).is_err());
        assert!(Balance::new(0.0).validate().is_err());
    }

    #[test]
    fn overload_is_the_busiest_against_the_mean() {
        assert_eq!(overload(&[2, 2, 2]), 0.0);
        assert_eq!(overload(&[6, 0, 0]), 2.0);
        assert_eq!(overload(&[0, 0]), 0.0);
        assert_eq!(overload(&[]), 0.0);
    }
}
