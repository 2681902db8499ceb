//! One property: what each dimension tells, and how well some of them do.

use std::sync::atomic::AtomicBool;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::evaluate::{self, Evaluation};
use super::{Property, Select, StudyOptions};
use crate::adjust::{benjamini_hochberg, benjamini_hochberg_ln};
use crate::edi::{EdiScores, edi, minus_ln_p};
use crate::embeddings::PairedEmbeddings;
use crate::error::{Error, Result};
use crate::information::{Information, mutual_information};
use crate::sides::{Elimination, Sides};
use crate::split::Split;
use crate::wilcoxon::{Null, SignedRank, wilcoxon};

/// What single dimensions tell about a property; all vectors have one entry per dimension.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Selection {
    /// Pairs that were looked at.
    pub pairs: usize,
    /// Mean of first minus second sentences.
    pub mean_difference: Vec<f64>,
    /// The signed-rank test.
    pub wilcoxon: Vec<SignedRank>,
    /// p-values adjusted for the number of dimensions.
    pub p_adjusted: Vec<f64>,
    /// Their natural logarithms, also where a p-value is too small for a number.
    pub ln_p_adjusted: Vec<f64>,
    /// Mutual information in nats.
    pub information: Vec<f64>,
}

impl Selection {
    /// Dimensions whose adjusted p-value is below `significance`.
    pub fn significant(&self, significance: f64) -> usize {
        let below = |p: &&f64| **p < significance;
        self.p_adjusted.iter().filter(below).count()
    }

    /// Looks at the given `pairs` of `embeddings`.
    pub fn new(embeddings: &PairedEmbeddings<'_>, pairs: &[usize], null: Null) -> Self {
        let look = |dim: usize| -> (f64, SignedRank, Information) {
            let (first, second) = embeddings.columns(pairs, dim);
            let differences: Vec<f64> = first.iter().zip(&second).map(|(a, b)| a - b).collect();
            let mean = differences.iter().sum::<f64>() / differences.len().max(1) as f64;
            (
                mean,
                wilcoxon(&differences, null),
                mutual_information(&first, &second),
            )
        };
        let looked: Vec<_> = (0..embeddings.dims()).into_par_iter().map(look).collect();
        let p: Vec<f64> = looked.iter().map(|(_, test, _)| test.p).collect();
        let ln_p: Vec<f64> = looked.iter().map(|(_, test, _)| test.ln_p).collect();
        Self {
            pairs: pairs.len(),
            mean_difference: looked.iter().map(|(mean, _, _)| *mean).collect(),
            wilcoxon: looked.iter().map(|(_, test, _)| *test).collect(),
            p_adjusted: benjamini_hochberg(&p),
            ln_p_adjusted: benjamini_hochberg_ln(&ln_p),
            information: looked
                .iter()
                .map(|(_, _, information)| information.nats)
                .collect(),
        }
    }
}

/// The results for one property.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PropertyStudy {
    /// Its name.
    pub name: String,
    /// Pairs of sentences.
    pub pairs: usize,
    /// Rows that regressions learned from.
    pub train_rows: usize,
    /// Rows that accuracies were measured on.
    pub test_rows: usize,
    /// What single dimensions tell.
    pub selection: Selection,
    /// What elimination left.
    pub elimination: Elimination,
    /// The scores.
    pub scores: EdiScores,
    /// Dimensions from the highest score to the lowest.
    pub order: Vec<usize>,
    /// Dimensions whose adjusted p-value is significant. With none, even the highest score is noise.
    pub significant: usize,
    /// Dimensions whose score is above the cut-off.
    pub above_cut_off: usize,
    /// Dimensions that share the highest score of the test.
    pub saturated: usize,
    /// Accuracies.
    pub evaluation: Evaluation,
}

/// Studies one property; its rows are kept for [`evaluate::cross`].
pub(super) fn study(
    property: &Property<'_>,
    options: &StudyOptions,
    cancel: &AtomicBool,
) -> Result<(PropertyStudy, Sides)> {
    let embeddings = &property.embeddings;
    let Begun {
        split,
        sides,
        selection,
    } = begin(property, options)?;
    let elimination = sides.eliminate(options.keep, cancel)?;
    let test = minus_ln_p(
        &selection.p_adjusted,
        &selection.ln_p_adjusted,
        options.log_p,
    );
    let importance = elimination.importance(embeddings.dims());
    let scores = edi(&selection.information, &test, &importance);
    let order = scores.order();
    let evaluation = evaluate::evaluate(&sides, &elimination, &order, options, cancel)?;
    let count = |values: &[f64], counts: &dyn Fn(f64) -> bool| {
        values.iter().filter(|value| counts(**value)).count()
    };
    let study = PropertyStudy {
        name: embeddings.name().to_owned(),
        pairs: embeddings.pairs(),
        train_rows: split.train().len(),
        test_rows: split.test().len(),
        significant: selection.significant(options.significance),
        above_cut_off: count(&scores.edi, &|edi| edi > options.cut_off),
        saturated: count(&scores.test, &|score| score >= 1.0 - 1e-12),
        selection,
        elimination,
        order,
        evaluation,
        scores,
    };
    Ok((study, sides))
}

/// What every look at a property begins with.
pub(super) struct Begun {
    split: Split,
    pub(super) sides: Sides,
    pub(super) selection: Selection,
}

/// Splits the rows of a property and looks at its dimensions one by one.
pub(super) fn begin(property: &Property<'_>, options: &StudyOptions) -> Result<Begun> {
    let embeddings = &property.embeddings;
    let split = match &property.split {
        Some(split) => split.clone(),
        None => {
            let (name, pairs) = (embeddings.name(), embeddings.pairs());
            Split::random(name, pairs, options.split, property.groups, options.seed)?
        }
    };
    let pairs = selected(embeddings, &split, options.select)?;
    Ok(Begun {
        sides: Sides::new(embeddings, &split, options.solver)?,
        selection: Selection::new(embeddings, &pairs, options.null),
        split,
    })
}

/// The pairs that test and mutual information may see.
fn selected(
    embeddings: &PairedEmbeddings<'_>,
    split: &Split,
    select: Select,
) -> Result<Vec<usize>> {
    let pairs = embeddings.pairs();
    let selected = match select {
        Select::All => (0..pairs).collect(),
        Select::TrainOnly => split.train_pairs(pairs),
    };
    if selected.is_empty() {
        return Err(Error::TooFew {
            name: embeddings.name().to_owned(),
            what: "pairs with both sentences to learn from",
            needed: 1,
            found: 0,
        });
    }
    Ok(selected)
}
