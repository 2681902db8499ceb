//! Pairs of sentences that differ in one property.

mod csv;
mod read;

pub(crate) use csv::write_row;

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::random::Random;

const PURPOSE: u64 = 2;

/// Two sentences that differ in one property; the first is the plain side.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Pair {
    /// Present, active, affirmative and so on.
    pub first: String,
    /// The same with the property.
    pub second: String,
}

/// Why a row of a file is no pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum DropReason {
    /// A side is missing or holds nothing but spaces.
    OneSided,
    /// There are more cells than columns, as when a comma is not quoted.
    TooManyCells,
}

/// A row that was left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dropped {
    /// The line it starts on, from 1.
    pub line: usize,
    /// Why.
    pub reason: DropReason,
}

/// What a file held.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Reading {
    /// Rows of the file, without its header and blank lines.
    pub rows: usize,
    /// Rows that were left out.
    pub dropped: Vec<Dropped>,
    /// Sentences that had spaces around them. Left there, a space at one side gives the side away.
    pub trimmed: usize,
}

impl Reading {
    /// How many rows were left out, by reason.
    pub fn dropped_for(&self, reason: DropReason) -> usize {
        self.dropped
            .iter()
            .filter(|dropped| dropped.reason == reason)
            .count()
    }
}

/// The pairs of one property.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PairSet {
    name: String,
    pairs: Vec<Pair>,
    reading: Option<Reading>,
}

impl PairSet {
    /// A property by its name and pairs.
    pub fn new(name: impl Into<String>, pairs: Vec<Pair>) -> Self {
        Self {
            name: name.into(),
            pairs,
            reading: None,
        }
    }

    /// The property.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The pairs.
    pub fn pairs(&self) -> &[Pair] {
        &self.pairs
    }

    /// Number of pairs.
    pub fn len(&self) -> usize {
        self.pairs.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    /// What the file held; none when the pairs came from elsewhere.
    pub fn reading(&self) -> Option<&Reading> {
        self.reading.as_ref()
    }

    /// Pairs that are there more than once, counted from the second time on.
    pub fn duplicates(&self) -> usize {
        let different: std::collections::HashSet<&Pair> = self.pairs.iter().collect();
        self.pairs.len() - different.len()
    }

    /// Pairs whose sides are equal; they say nothing.
    pub fn equal_sides(&self) -> usize {
        self.pairs
            .iter()
            .filter(|pair| pair.first == pair.second)
            .count()
    }

    /// A number for each pair; pairs that share a sentence, directly or over others, have the same.
    pub fn groups(&self) -> Vec<usize> {
        let mut parents: Vec<usize> = (0..self.pairs.len()).collect();
        let mut owners: HashMap<&str, usize> = HashMap::new();
        for (at, pair) in self.pairs.iter().enumerate() {
            for sentence in [pair.first.as_str(), pair.second.as_str()] {
                let owner = *owners.entry(sentence).or_insert(at);
                let (one, other) = (root(&mut parents, owner), root(&mut parents, at));
                parents[one.max(other)] = one.min(other);
            }
        }
        (0..parents.len())
            .map(|at| root(&mut parents, at))
            .collect()
    }

    /// At most `count` of the pairs, drawn at random; the others keep their order.
    pub fn sample(&mut self, count: usize, seed: u64) {
        if count >= self.pairs.len() {
            return;
        }
        let mut order: Vec<usize> = (0..self.pairs.len()).collect();
        Random::new(seed, PURPOSE).shuffle(&mut order);
        order.truncate(count);
        order.sort_unstable();
        self.pairs = order.into_iter().map(|at| self.pairs[at].clone()).collect();
    }

    /// The pairs as CSV, with a header, as [`read`](Self::read) takes them.
    pub fn to_csv(&self) -> String {
        let mut out = String::from("Sentence1,Sentence2\n");
        for pair in &self.pairs {
            csv::write_row(&mut out, [pair.first.as_str(), pair.second.as_str()]);
        }
        out
    }
}

/// The first pair of the group that `at` belongs to.
fn root(parents: &mut [usize], mut at: usize) -> usize {
    while parents[at] != at {
        parents[at] = parents[parents[at]];
        at = parents[at];
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(pairs: &[(&str, &str)]) -> PairSet {
        let pair = |(first, second): &(&str, &str)| Pair {
            first: (*first).to_owned(),
            second: (*second).to_owned(),
        };
        PairSet::new("x", pairs.iter().map(pair).collect())
    }

    #[test]
    fn pairs_that_share_a_sentence_are_one_group() {
        let set = set(&[
            ("a", "b"),
            ("c", "d"),
            ("e", "a"),
            ("f", "g"),
            ("d", "e"),
            ("f", "g"),
        ]);
        assert_eq!(set.groups(), [0, 0, 0, 3, 0, 3]);
        assert_eq!(set.duplicates(), 1);
        assert_eq!(set.equal_sides(), 0);
    }

    #[test]
    fn a_sample_keeps_the_order() {
        let pairs: Vec<(String, String)> = (0..50)
            .map(|i| (format!("a{i:02}"), format!("b{i:02}")))
            .collect();
        let borrowed: Vec<(&str, &str)> = pairs
            .iter()
            .map(|(a, b)| (a.as_str(), b.as_str()))
            .collect();
        let mut set = set(&borrowed);
        set.sample(10, 3);
        assert_eq!(set.len(), 10);
        assert!(
            set.pairs()
                .windows(2)
                .all(|two| two[0].first < two[1].first)
        );
        set.sample(100, 3);
        assert_eq!(set.len(), 10);
    }
}
