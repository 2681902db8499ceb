//! Which property is it, given the difference of a pair's embeddings?

use serde::{Deserialize, Serialize};

use super::{Property, StudyOptions};
use crate::embeddings::PairedEmbeddings;
use crate::error::Result;
use crate::logistic::many::ManyFit;
use crate::logistic::{Design, Solver};
use crate::split::{Split, SplitBy};

/// How well one property is told from the others.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ClassScore {
    /// The property.
    pub name: String,
    /// Share of the pairs taken for it that are its own; 0 without any.
    pub precision: f64,
    /// Share of its pairs that are taken for it.
    pub recall: f64,
    /// Harmonic mean of the two.
    pub f1: f64,
    /// Its pairs in the test.
    pub pairs: usize,
}

/// The results of a classifier of properties.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ClassifierStudy {
    /// Share of test pairs whose property is told right.
    pub accuracy: f64,
    /// Mean of the properties' F1, weighted by their pairs.
    pub weighted_f1: f64,
    /// One entry per property.
    pub classes: Vec<ClassScore>,
    /// Test pairs by their property (row) and by what they were taken for (column).
    pub confusion: Vec<Vec<usize>>,
}

/// Learns from four fifths of each property's pairs and tests on the others.
pub(super) fn study(
    properties: &[Property<'_>],
    options: &StudyOptions,
) -> Result<Option<ClassifierStudy>> {
    if properties.len() < 2 {
        return Ok(None);
    }
    let (mut train, mut test) = (Differences::default(), Differences::default());
    for (class, property) in properties.iter().enumerate() {
        let embeddings = &property.embeddings;
        let pairs = embeddings.pairs();
        let groups = property.groups.filter(|_| options.split == SplitBy::Pair);
        let split = Split::random(
            embeddings.name(),
            pairs,
            SplitBy::Pair,
            groups,
            options.seed,
        )?;
        let first = |rows: &[usize]| {
            rows.iter()
                .copied()
                .filter(|row| *row < pairs)
                .collect::<Vec<_>>()
        };
        train.add(embeddings, &first(split.train()), class);
        test.add(embeddings, &first(split.test()), class);
    }
    let (mut train, mut test) = (train.0, test.0);
    if options.solver == Solver::Exact {
        for (train, test) in train.columns.iter_mut().zip(&mut test.columns) {
            let mean = train.iter().sum::<f64>() / train.len() as f64;
            train
                .iter_mut()
                .chain(test)
                .for_each(|value| *value -= mean);
        }
    }
    let fit = ManyFit::new(&train, properties.len(), options.solver)?;
    let mut confusion = vec![vec![0; properties.len()]; properties.len()];
    for (label, found) in test.labels.iter().zip(fit.classes(&test)) {
        confusion[*label as usize][found] += 1;
    }
    let names: Vec<&str> = properties.iter().map(Property::name).collect();
    Ok(Some(scores(&names, confusion)))
}

/// Differences of pairs, labelled with the number of their property.
struct Differences(Design);

impl Default for Differences {
    fn default() -> Self {
        Self(Design {
            columns: Vec::new(),
            labels: Vec::new(),
        })
    }
}

impl Differences {
    fn add(&mut self, embeddings: &PairedEmbeddings<'_>, pairs: &[usize], class: usize) {
        self.0.columns.resize(embeddings.dims(), Vec::new());
        for (dim, column) in self.0.columns.iter_mut().enumerate() {
            let (first, second) = embeddings.columns(pairs, dim);
            column.extend(
                first
                    .iter()
                    .zip(&second)
                    .map(|(first, second)| second - first),
            );
        }
        self.0.labels.extend(pairs.iter().map(|_| class as f64));
    }
}

fn scores(names: &[&str], confusion: Vec<Vec<usize>>) -> ClassifierStudy {
    let total: usize = confusion.iter().flatten().sum();
    let right: usize = (0..names.len()).map(|class| confusion[class][class]).sum();
    let share = |part: usize, of: usize| {
        if of == 0 {
            0.0
        } else {
            part as f64 / of as f64
        }
    };
    let score = |(class, name): (usize, &&str)| {
        let pairs: usize = confusion[class].iter().sum();
        let taken: usize = confusion.iter().map(|row| row[class]).sum();
        let right = confusion[class][class];
        ClassScore {
            name: (*name).to_owned(),
            precision: share(right, taken),
            recall: share(right, pairs),
            f1: share(2 * right, pairs + taken),
            pairs,
        }
    };
    let classes: Vec<ClassScore> = names.iter().enumerate().map(score).collect();
    let weighted: f64 = classes
        .iter()
        .map(|class| class.f1 * class.pairs as f64)
        .sum();
    ClassifierStudy {
        accuracy: share(right, total),
        weighted_f1: if total == 0 {
            0.0
        } else {
            weighted / total as f64
        },
        classes,
        confusion,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_follow_from_the_counts() {
        let found = scores(
            &["a", "b", "c"],
            vec![vec![3, 1, 0], vec![1, 5, 0], vec![0, 0, 0]],
        );
        assert_eq!(found.accuracy, 0.8);
        assert_eq!(
            (found.classes[0].precision, found.classes[0].recall),
            (0.75, 0.75)
        );
        assert_eq!(found.classes[2].f1, 0.0);
        assert!((found.weighted_f1 - (0.75 * 4.0 + 5.0 / 6.0 * 6.0) / 10.0).abs() < 1e-15);
    }
}
