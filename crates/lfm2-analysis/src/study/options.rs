//! The rules of a study.

use serde::{Deserialize, Serialize};

use crate::edi::LogP;
use crate::error::{Error, Result};
use crate::logistic::Solver;
use crate::split::SplitBy;
use crate::wilcoxon::Null;

/// Which rows test and mutual information may see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Select {
    /// All, also those that accuracies are measured on later, as in the study.
    All,
    /// Only pairs that regressions learn from.
    TrainOnly,
}

/// The rules of a study. The default is the sound choice for each; [`published`](Self::published)
/// follows the paper's code.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct StudyOptions {
    /// What stays together when rows are split.
    pub split: SplitBy,
    /// Which rows test and mutual information see.
    pub select: Select,
    /// How a p-value becomes a score.
    pub log_p: LogP,
    /// What the signed-rank sum is compared with.
    pub null: Null,
    /// How regressions are fitted.
    pub solver: Solver,
    /// Dimensions that elimination leaves; all, where there are fewer.
    pub keep: usize,
    /// Dimensions of the lowest scores that are tried together; at most half of all.
    pub low: usize,
    /// Best dimensions of each other property that are tried on a property.
    pub cross: usize,
    /// Share of the baseline's accuracy that the best dimensions must reach.
    pub reach: f64,
    /// From this score on a dimension counts as encoding the property.
    pub cut_off: f64,
    /// Adjusted p-values below this are significant.
    pub significance: f64,
    /// Seed of the splits.
    pub seed: u64,
}

impl Default for StudyOptions {
    fn default() -> Self {
        Self {
            split: SplitBy::Pair,
            select: Select::TrainOnly,
            log_p: LogP::Exact,
            null: Null::Auto,
            solver: Solver::Exact,
            keep: 20,
            low: 100,
            cross: 25,
            reach: 0.95,
            cut_off: 0.8,
            significance: 0.05,
            seed: 42,
        }
    }
}

impl StudyOptions {
    /// The rules of arXiv 2504.14766 as its code has them.
    pub fn published() -> Self {
        Self {
            split: SplitBy::Sentence,
            select: Select::All,
            log_p: LogP::Published,
            solver: Solver::Library,
            ..Self::default()
        }
    }

    pub(super) fn check(&self) -> Result<()> {
        for (key, count) in [
            ("keep", self.keep),
            ("low", self.low),
            ("cross", self.cross),
        ] {
            if count == 0 {
                return Err(wrong(key, "0, expected at least 1".to_owned()));
            }
        }
        let shares = [
            ("reach", self.reach),
            ("cut_off", self.cut_off),
            ("significance", self.significance),
        ];
        for (key, share) in shares {
            if !(0.0..=1.0).contains(&share) {
                return Err(wrong(key, format!("{share}, expected 0 to 1")));
            }
        }
        Ok(())
    }
}

fn wrong(key: &'static str, detail: String) -> Error {
    Error::InvalidOption { key, detail }
}
