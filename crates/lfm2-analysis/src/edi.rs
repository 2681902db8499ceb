//! The score that puts test, information and elimination together.

use serde::{Deserialize, Serialize};

const INFORMATION: f64 = 0.2;
const TEST: f64 = 0.6;
const ELIMINATION: f64 = 0.2;
/// What the study adds to p before the logarithm.
const FLOOR: f64 = 1e-15;

/// How a p-value becomes a score.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogP {
    /// `-ln(p + 1e-15)`: all p-values below about 1e-15 count the same.
    Published,
    /// `-ln p`, from the logarithm of the tail.
    Exact,
}

/// Per dimension, the score of each part and of the whole, all in `0 ..= 1`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct EdiScores {
    /// Of mutual information.
    pub information: Vec<f64>,
    /// Of the adjusted p-value.
    pub test: Vec<f64>,
    /// Of the weight in the regression on the dimensions that elimination left.
    pub elimination: Vec<f64>,
    /// `0.2 * information + 0.6 * test + 0.2 * elimination`.
    pub edi: Vec<f64>,
}

impl EdiScores {
    /// The dimensions from the highest score to the lowest, equal ones by number.
    pub fn order(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.edi.len()).collect();
        order.sort_by(|&a, &b| self.edi[b].total_cmp(&self.edi[a]));
        order
    }

    /// What test, information and elimination add to the score of `dim`, in this order; nothing for a
    /// dimension that is not there.
    pub fn weighted(&self, dim: usize) -> [f64; 3] {
        let part = |weight: f64, scores: &[f64]| weight * scores.get(dim).copied().unwrap_or(0.0);
        [
            part(TEST, &self.test),
            part(INFORMATION, &self.information),
            part(ELIMINATION, &self.elimination),
        ]
    }
}

/// Logarithms of adjusted p-values as they enter the score.
pub fn minus_ln_p(p: &[f64], ln_p: &[f64], log_p: LogP) -> Vec<f64> {
    match log_p {
        LogP::Published => p.iter().map(|p| -(p + FLOOR).ln()).collect(),
        LogP::Exact => ln_p.iter().map(|ln_p| -ln_p).collect(),
    }
}

/// Scores from mutual information, [`minus_ln_p`] and the importance of each dimension (0 where
/// elimination dropped it). The three have one length.
pub fn edi(information: &[f64], minus_ln_p: &[f64], importance: &[f64]) -> EdiScores {
    let information = spread(information);
    let test = spread(minus_ln_p);
    let elimination = spread(importance);
    let edi = information
        .iter()
        .zip(&test)
        .zip(&elimination)
        .map(|((information, test), elimination)| {
            INFORMATION * information + TEST * test + ELIMINATION * elimination
        })
        .collect();
    EdiScores {
        information,
        test,
        elimination,
        edi,
    }
}

/// Stretches values to `0 ..= 1`; all are 0 where they are all the same.
fn spread(values: &[f64]) -> Vec<f64> {
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let stretch = |value: &f64| {
        if most > least {
            (value - least) / (most - least)
        } else {
            0.0
        }
    };
    values.iter().map(stretch).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_stretched_and_weighed() {
        let scores = edi(&[0.0, 0.1, 0.2], &[1.0, 9.0, 5.0], &[0.0, 0.0, 0.7]);
        assert_eq!(scores.information, [0.0, 0.5, 1.0]);
        assert_eq!(scores.test, [0.0, 1.0, 0.5]);
        assert_eq!(scores.elimination, [0.0, 0.0, 1.0]);
        assert!((scores.edi[1] - 0.7).abs() < 1e-15 && (scores.edi[2] - 0.7).abs() < 1e-15);
        assert_eq!(scores.order().last(), Some(&0));
    }

    #[test]
    fn parts_without_differences_score_nothing() {
        let scores = edi(&[0.3; 4], &[0.0; 4], &[0.0; 4]);
        assert_eq!(scores.edi, [0.0; 4]);
        assert_eq!(scores.order(), [0, 1, 2, 3]);
    }

    #[test]
    fn the_published_logarithm_saturates_and_the_exact_one_does_not() {
        let (p, ln_p) = ([1e-40, 1e-80, 1.0], [-92.1, -184.2, 0.0]);
        let published = minus_ln_p(&p, &ln_p, LogP::Published);
        assert_eq!(published[0], published[1]);
        let exact = minus_ln_p(&p, &ln_p, LogP::Exact);
        assert_eq!(exact[1], 2.0 * exact[0]);
    }
}
