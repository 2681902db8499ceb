//! Which rows a regression learns from and which it is tested on.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::random::Random;

/// Share of the rows that are kept for the test.
const TEST_SHARE: f64 = 0.2;
const PURPOSE: u64 = 1;

/// What is kept together when rows are split.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SplitBy {
    /// Nothing: each sentence goes its own way, as in the study. One sentence of a pair can be learned
    /// and its near-twin tested, which puts useless dimensions below chance.
    Sentence,
    /// Both sentences of a pair, and pairs that share a sentence.
    Pair,
}

/// Rows to learn from and rows to test on. Of `n` pairs, row `i` is the first sentence of pair `i`
/// and row `n + i` the second.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Split {
    train: Vec<usize>,
    test: Vec<usize>,
}

impl Split {
    /// A split by given lists of rows of `pairs` pairs of the property `name`.
    ///
    /// # Errors
    /// When a row does not exist or is named twice, or when a list is empty or has one side only.
    pub fn from_rows(
        name: &str,
        pairs: usize,
        train: Vec<usize>,
        test: Vec<usize>,
    ) -> Result<Self> {
        let wrong = |detail: String| Error::Split {
            name: name.to_owned(),
            detail,
        };
        let mut seen = vec![false; 2 * pairs];
        for &row in train.iter().chain(&test) {
            match seen.get_mut(row) {
                None => return Err(wrong(format!("row {row} of {} rows", 2 * pairs))),
                Some(true) => return Err(wrong(format!("row {row} is there twice"))),
                Some(seen) => *seen = true,
            }
        }
        let has_both =
            train.iter().any(|&row| row < pairs) && train.iter().any(|&row| row >= pairs);
        if !has_both {
            return Err(Error::TooFew {
                name: name.to_owned(),
                what: "sides among the rows to learn from",
                needed: 2,
                found: usize::from(!train.is_empty()),
            });
        }
        if test.is_empty() {
            return Err(wrong("no rows to test on".to_owned()));
        }
        Ok(Self { train, test })
    }

    /// A random split of `pairs` pairs, four fifths to learn from. With [`SplitBy::Pair`] pairs of
    /// one number in `groups` stay together; without groups each pair is one.
    ///
    /// # Errors
    /// When there are too few pairs or groups for both parts.
    pub fn random(
        name: &str,
        pairs: usize,
        by: SplitBy,
        groups: Option<&[usize]>,
        seed: u64,
    ) -> Result<Self> {
        let units: Vec<Vec<usize>> = match by {
            SplitBy::Sentence => (0..2 * pairs).map(|row| vec![row]).collect(),
            SplitBy::Pair => members(name, pairs, groups)?,
        };
        if units.len() < 2 {
            return Err(Error::TooFew {
                name: name.to_owned(),
                what: "pairs that share no sentence",
                needed: 2,
                found: units.len(),
            });
        }
        let mut order: Vec<usize> = (0..units.len()).collect();
        Random::new(seed, PURPOSE).shuffle(&mut order);
        // A group that is larger than the test part is learned from; the smallest one always fits.
        let smallest = units.iter().map(Vec::len).min().unwrap_or(0);
        let wanted = ((TEST_SHARE * 2.0 * pairs as f64).ceil() as usize).max(smallest);
        let (mut train, mut test) = (Vec::new(), Vec::new());
        for unit in order {
            let rows = &units[unit];
            let fits = test.len() + rows.len() <= wanted;
            let part = if fits { &mut test } else { &mut train };
            part.extend_from_slice(rows);
        }
        Self::from_rows(name, pairs, train, test)
    }

    /// Rows to learn from.
    pub fn train(&self) -> &[usize] {
        &self.train
    }

    /// Rows to test on.
    pub fn test(&self) -> &[usize] {
        &self.test
    }

    /// Pairs with both sentences among the rows to learn from, in order.
    pub fn train_pairs(&self, pairs: usize) -> Vec<usize> {
        let mut sides = vec![0u8; pairs];
        for row in &self.train {
            sides[row % pairs] += 1;
        }
        (0..pairs).filter(|&pair| sides[pair] == 2).collect()
    }
}

/// The rows of each group, in the order of the groups' first pairs.
fn members(name: &str, pairs: usize, groups: Option<&[usize]>) -> Result<Vec<Vec<usize>>> {
    let mut units: Vec<Vec<usize>> = Vec::new();
    let mut places: HashMap<usize, usize> = HashMap::new();
    if let Some(groups) = groups.filter(|groups| groups.len() != pairs) {
        return Err(Error::Split {
            name: name.to_owned(),
            detail: format!("groups for {} pairs, expected {pairs}", groups.len()),
        });
    }
    for pair in 0..pairs {
        let group = groups.map_or(pair, |groups| groups[pair]);
        let place = *places.entry(group).or_insert(units.len());
        if place == units.len() {
            units.push(Vec::new());
        }
        units[place].extend([pair, pairs + pair]);
    }
    Ok(units)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_stay_together_and_sentences_do_not() {
        let by_pair = Split::random("x", 50, SplitBy::Pair, None, 7).unwrap();
        assert_eq!((by_pair.train().len(), by_pair.test().len()), (80, 20));
        assert_eq!(by_pair.train_pairs(50).len(), 40);
        let by_sentence = Split::random("x", 50, SplitBy::Sentence, None, 7).unwrap();
        assert_eq!(
            (by_sentence.train().len(), by_sentence.test().len()),
            (80, 20)
        );
        assert!(by_sentence.train_pairs(50).len() < 40);
        assert_ne!(
            by_pair,
            Split::random("x", 50, SplitBy::Pair, None, 8).unwrap()
        );
    }

    #[test]
    fn groups_are_never_torn() {
        for seed in 0..20 {
            let groups: Vec<usize> = (0..40)
                .map(|pair| if pair < 15 { 0 } else { pair / 2 })
                .collect();
            let split = Split::random("x", 40, SplitBy::Pair, Some(&groups), seed).unwrap();
            let of = |rows: &[usize]| -> std::collections::HashSet<usize> {
                rows.iter().map(|row| groups[row % 40]).collect()
            };
            assert!(of(split.train()).is_disjoint(&of(split.test())));
            assert_eq!(split.train().len() + split.test().len(), 80);
            assert!(
                (62..=66).contains(&split.train().len()),
                "{}",
                split.train().len()
            );
        }
    }

    #[test]
    fn too_little_and_wrong_rows_are_refused() {
        for (pairs, by) in [
            (0, SplitBy::Pair),
            (1, SplitBy::Pair),
            (1, SplitBy::Sentence),
        ] {
            assert!(matches!(
                Split::random("x", pairs, by, None, 0),
                Err(Error::TooFew { .. })
            ));
        }
        let one_group = Split::random("x", 3, SplitBy::Pair, Some(&[4, 4, 4]), 0);
        assert!(matches!(one_group, Err(Error::TooFew { .. })));
        assert!(Split::random("x", 3, SplitBy::Pair, Some(&[1]), 0).is_err());
        for (train, test) in [
            (vec![0, 2], vec![4]),
            (vec![0, 2], vec![0]),
            (vec![0, 1], vec![2]),
            (vec![0, 2], vec![]),
        ] {
            assert!(Split::from_rows("x", 2, train, test).is_err());
        }
        let two = Split::random("x", 2, SplitBy::Pair, None, 3).unwrap();
        assert_eq!((two.train().len(), two.test().len()), (2, 2));
    }
}
