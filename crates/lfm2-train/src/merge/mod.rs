//! Merging models of one shape into one: averages, and sums of what fine-tuning changed.
//!
//! | method | [`Method`] |
//! |---|---|
//! | soup: the weighted mean of the models | [`Method::Soup`] |
//! | task arithmetic: the base plus weighted changes | [`Method::task_arithmetic`] |
//! | TIES: the largest changes, where models agree on the sign | [`Method::ties`] |
//! | DARE: a random part of the changes, rescaled | [`Method::dare_linear`], [`Method::dare_ties`] |
//! | DELLA: as DARE, large changes kept more often | [`Method::della`] |
//! | SLERP: along the arc between two models | [`Method::Slerp`] |
//!
//! Knows tensors by name, not what they do: convolutions, attention, norms, routers and experts are
//! all merged by the same rule with the same weights. Tensors are worked through one after another in
//! pieces, in `f64`, and rounded once at the end, so memory does not grow with the model.
//!
//! ```no_run
//! use std::path::Path;
//! use lfm2_train::merge::{MergeRecipe, Method, merge_checkpoints};
//!
//! let recipe = MergeRecipe {
//!     method: Method::ties(0.5, 1.0),
//!     base: Some("base".into()),
//!     models: vec![("facts".into(), 0.5), ("stories".into(), 0.3)],
//!     seed: 0,
//!     dtype: None,
//! };
//! merge_checkpoints(&recipe, Path::new("merged"), &mut |at| println!("{}", at.tensor))?;
//! # Ok::<(), lfm2_train::Error>(())
//! ```

mod files;
mod folder;
mod greedy;
mod recipe;
mod rules;
mod select;
mod tensor;

use serde::{Deserialize, Serialize};

pub use files::{MergeInputs, MergeProgress, merge_tensors};
pub use folder::{MergeReport, merge_adapter, merge_checkpoints};
pub use greedy::greedy_soup;
pub use recipe::MergeRecipe;
pub use select::Cut;
pub use tensor::{Draw, merge_tensor};

use crate::{Error, Result};

/// Over what the largest changes are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TrimScope {
    /// Over each tensor.
    #[default]
    Tensor,
    /// Over the whole model.
    Model,
}

/// What makes up for changes that were dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rescale {
    /// Every kept change is divided by its probability to be kept.
    #[default]
    Inverse,
    /// The kept changes of a tensor get the sum of magnitudes of all of them.
    L1,
    /// Nothing.
    None,
}

/// Which changes of a model take part.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sparsify {
    /// All.
    None,
    /// The largest.
    Trim {
        /// The share that is kept.
        density: f64,
        /// Over what it is counted.
        scope: TrimScope,
    },
    /// A random part.
    Random {
        /// The probability of each to be kept.
        density: f64,
        /// What makes up for the dropped.
        rescale: Rescale,
    },
    /// A random part, in which large changes are likelier: by the rank of the magnitude along the
    /// second dimension (a vector is one row), the probability goes from `density - epsilon` to
    /// `density + epsilon`.
    Ranked {
        /// The mean probability to be kept.
        density: f64,
        /// How far the probability goes from it.
        epsilon: f64,
        /// What makes up for the dropped.
        rescale: Rescale,
    },
}

/// How the weighted changes of several models become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Combine {
    /// Their sum.
    Sum,
    /// The sum of those with the sign of the sum; 0 counts as plus.
    AgreeingSum,
    /// The same, divided by the sum of the weights that took part.
    AgreeingMean,
}

/// How models are merged.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// The weighted mean; weights add up to 1.
    Soup,
    /// The base plus `lambda` times the changes from it.
    Changes {
        /// Which changes take part.
        sparsify: Sparsify,
        /// How those of several models become one.
        combine: Combine,
        /// The factor of the result.
        lambda: f64,
    },
    /// Two models along the arc between them, tensor by tensor; along the line where they point the
    /// same way.
    Slerp {
        /// 0 is the first model, 1 the second.
        t: f64,
    },
}

impl Method {
    /// The base plus `lambda` times the weighted changes.
    pub fn task_arithmetic(lambda: f64) -> Self {
        Self::Changes {
            sparsify: Sparsify::None,
            combine: Combine::Sum,
            lambda,
        }
    }

    /// TIES with the `density` largest changes of every tensor.
    pub fn ties(density: f64, lambda: f64) -> Self {
        Self::Changes {
            sparsify: Sparsify::Trim {
                density,
                scope: TrimScope::Tensor,
            },
            combine: Combine::AgreeingMean,
            lambda,
        }
    }

    /// DARE without election of signs.
    pub fn dare_linear(density: f64, rescale: Rescale, lambda: f64) -> Self {
        Self::Changes {
            sparsify: Sparsify::Random { density, rescale },
            combine: Combine::Sum,
            lambda,
        }
    }

    /// DARE with the election of signs of TIES.
    pub fn dare_ties(density: f64, rescale: Rescale, lambda: f64) -> Self {
        Self::Changes {
            sparsify: Sparsify::Random { density, rescale },
            combine: Combine::AgreeingSum,
            lambda,
        }
    }

    /// DELLA: ranked dropping and the election of signs.
    pub fn della(density: f64, epsilon: f64, rescale: Rescale, lambda: f64) -> Self {
        Self::Changes {
            sparsify: Sparsify::Ranked {
                density,
                epsilon,
                rescale,
            },
            combine: Combine::AgreeingSum,
            lambda,
        }
    }

    /// Whether there has to be a base.
    pub fn needs_base(&self) -> bool {
        matches!(self, Self::Changes { .. })
    }

    /// Checks settings, weights and the number of models.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] naming the setting.
    pub fn validate(&self, weights: &[f64]) -> Result<()> {
        if weights.is_empty() {
            return Err(Error::option("models", "expected at least 1, found 0"));
        }
        finite("weight", weights)?;
        match *self {
            Self::Soup => {
                let sum: f64 = weights.iter().sum();
                if (sum - 1.0).abs() > 1e-6 {
                    let detail = format!("expected weights with the sum 1, found {sum}");
                    return Err(Error::option("weight", detail));
                }
                Ok(())
            }
            Self::Slerp { t } => {
                if weights.len() != 2 {
                    let detail = format!("expected 2 for slerp, found {}", weights.len());
                    return Err(Error::option("models", detail));
                }
                share("t", t)
            }
            Self::Changes {
                sparsify, lambda, ..
            } => {
                finite("lambda", &[lambda])?;
                sparsify.validate()
            }
        }
    }
}

impl Sparsify {
    fn validate(&self) -> Result<()> {
        match *self {
            Self::None => Ok(()),
            Self::Trim { density, .. } | Self::Random { density, .. } => share("density", density),
            Self::Ranked {
                density, epsilon, ..
            } => {
                share("density", density)?;
                // At 1 everything is kept and no probability is asked for.
                let low = density - epsilon;
                let high = density + epsilon;
                if density < 1.0 && !(epsilon >= 0.0 && low >= 0.0 && high <= 1.0) {
                    let detail =
                        format!("expected probabilities between 0 and 1, found {low} to {high}");
                    return Err(Error::option("epsilon", detail));
                }
                Ok(())
            }
        }
    }
}

fn finite(key: &str, values: &[f64]) -> Result<()> {
    match values.iter().find(|x| !x.is_finite()) {
        Some(bad) => Err(Error::option(
            key,
            format!("expected a number, found {bad}"),
        )),
        None => Ok(()),
    }
}

fn share(key: &str, value: f64) -> Result<()> {
    if (0.0..=1.0).contains(&value) {
        return Ok(());
    }
    let detail = format!("expected a number from 0 to 1, found {value}");
    Err(Error::option(key, detail))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tr_06_weights_and_settings_out_of_range_are_refused_by_name() {
        let message = |m: Method, w: &[f64]| m.validate(w).unwrap_err().to_string();
        assert!(message(Method::Soup, &[0.5, 0.4]).contains("sum 1, found 0.9"));
        assert!(message(Method::Soup, &[]).contains("models"));
        assert!(message(Method::Slerp { t: 0.5 }, &[1.0]).contains("expected 2"));
        assert!(message(Method::Slerp { t: -0.1 }, &[1.0, 1.0]).starts_with("t: "));
        assert!(message(Method::ties(1.5, 1.0), &[1.0]).starts_with("density: "));
        let della = Method::della(0.9, 0.2, Rescale::L1, 1.0);
        assert!(message(della, &[1.0]).starts_with("epsilon: "));
        assert!(message(Method::task_arithmetic(f64::NAN), &[1.0]).starts_with("lambda: "));
        assert!(Method::task_arithmetic(1.0).validate(&[-0.7, 0.0]).is_ok());
    }
}
