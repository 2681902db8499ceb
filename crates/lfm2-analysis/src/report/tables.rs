//! The tables of a report as CSV.

use super::DimensionShares;
use crate::pairs::write_row;
use crate::study::{ClassifierStudy, LayerStudy, Study};

struct Table(String);

impl Table {
    fn new(header: &[&str]) -> Self {
        let mut table = Self(String::new());
        write_row(&mut table.0, header.iter().copied());
        table
    }

    fn row(&mut self, cells: &[String]) {
        write_row(&mut self.0, cells.iter().map(String::as_str));
    }
}

fn number(value: f64) -> String {
    value.to_string()
}

fn maybe(count: Option<usize>) -> String {
    count.map_or_else(|| "none".to_owned(), |count| count.to_string())
}

/// One row per property.
pub(super) fn properties(study: &Study) -> String {
    let mut table = Table::new(&[
        "property",
        "pairs",
        "train_rows",
        "test_rows",
        "baseline",
        "low_dims",
        "low",
        "dims_needed",
        "accuracy_there",
        "elimination",
        "best_cross",
        "best_cross_accuracy",
        "significant",
        "above_cut_off",
        "saturated",
        "top_dimension",
        "top_edi",
    ]);
    for property in &study.properties {
        let found = &property.evaluation;
        let cross = found.best_cross();
        let top = property.order.first().copied();
        table.row(&[
            property.name.clone(),
            property.pairs.to_string(),
            property.train_rows.to_string(),
            property.test_rows.to_string(),
            number(found.baseline),
            found.low_dims.to_string(),
            number(found.low),
            maybe(found.dims_needed),
            found.climb.last().copied().map_or_else(String::new, number),
            number(found.eliminated),
            cross.map_or_else(String::new, |cross| cross.from.clone()),
            cross.map_or_else(String::new, |cross| number(cross.accuracy)),
            property.significant.to_string(),
            property.above_cut_off.to_string(),
            property.saturated.to_string(),
            maybe(top),
            top.map_or_else(String::new, |dim| number(property.scores.edi[dim])),
        ]);
    }
    table.0
}

/// One row per property and dimension.
pub(super) fn dimensions(study: &Study) -> String {
    let mut table = Table::new(&[
        "property",
        "dimension",
        "rank",
        "edi",
        "score_test",
        "score_information",
        "score_elimination",
        "p",
        "p_adjusted",
        "ln_p_adjusted",
        "statistic",
        "differences",
        "z",
        "mean_difference",
        "information",
        "importance",
        "dropped_as",
    ]);
    for property in &study.properties {
        let (selection, scores) = (&property.selection, &property.scores);
        let importance = property.elimination.importance(study.dims);
        let mut ranks = vec![0; study.dims];
        for (rank, &dim) in property.order.iter().enumerate() {
            ranks[dim] = rank + 1;
        }
        let mut dropped = vec![None; study.dims];
        for (at, &dim) in property.elimination.dropped.iter().enumerate() {
            dropped[dim] = Some(at + 1);
        }
        for dim in 0..study.dims {
            let test = &selection.wilcoxon[dim];
            table.row(&[
                property.name.clone(),
                dim.to_string(),
                ranks[dim].to_string(),
                number(scores.edi[dim]),
                number(scores.test[dim]),
                number(scores.information[dim]),
                number(scores.elimination[dim]),
                number(test.p),
                number(selection.p_adjusted[dim]),
                number(selection.ln_p_adjusted[dim]),
                number(test.statistic),
                test.n.to_string(),
                number(test.z),
                number(selection.mean_difference[dim]),
                number(selection.information[dim]),
                number(importance[dim]),
                maybe(dropped[dim]),
            ]);
        }
    }
    table.0
}

/// Accuracies with more and more of the best dimensions.
pub(super) fn climb(study: &Study) -> String {
    let mut table = Table::new(&["property", "dimensions", "added", "accuracy"]);
    for property in &study.properties {
        for (at, (accuracy, dim)) in property
            .evaluation
            .climb
            .iter()
            .zip(&property.order)
            .enumerate()
        {
            table.row(&[
                property.name.clone(),
                (at + 1).to_string(),
                dim.to_string(),
                number(*accuracy),
            ]);
        }
    }
    table.0
}

/// Accuracies with the best dimensions of other properties.
pub(super) fn cross(study: &Study) -> String {
    let mut table = Table::new(&["property", "dimensions_of", "accuracy"]);
    for property in &study.properties {
        for cross in &property.evaluation.cross {
            table.row(&[
                property.name.clone(),
                cross.from.clone(),
                number(cross.accuracy),
            ]);
        }
    }
    table.0
}

/// Scores of the classifier, and what its pairs were taken for.
pub(super) fn classifier(classifier: &ClassifierStudy) -> String {
    let mut header = vec!["property", "pairs", "precision", "recall", "f1"];
    let taken: Vec<String> = classifier
        .classes
        .iter()
        .map(|class| format!("taken_for_{}", class.name))
        .collect();
    header.extend(taken.iter().map(String::as_str));
    let mut table = Table::new(&header);
    for (class, counts) in classifier.classes.iter().zip(&classifier.confusion) {
        let mut cells = vec![
            class.name.clone(),
            class.pairs.to_string(),
            number(class.precision),
            number(class.recall),
            number(class.f1),
        ];
        cells.extend(counts.iter().map(usize::to_string));
        table.row(&cells);
    }
    table.0
}

/// Accuracies with all dimensions of each layer.
pub(super) fn layers(layers: &[LayerStudy]) -> String {
    let mut table = Table::new(&["layer", "property", "dimensions", "baseline", "significant"]);
    for layer in layers {
        for property in &layer.properties {
            table.row(&[
                layer.layer.clone(),
                property.name.clone(),
                layer.dims.to_string(),
                number(property.baseline),
                property.significant.to_string(),
            ]);
        }
    }
    table.0
}

/// One row per set of pairs and dimension.
pub(super) fn shares(shares: &[DimensionShares]) -> String {
    let mut table = Table::new(&["pairs", "dimension", "share"]);
    for set in shares {
        for (dim, share) in set.shares.iter().enumerate() {
            table.row(&[set.name.clone(), dim.to_string(), number(*share)]);
        }
    }
    table.0
}
