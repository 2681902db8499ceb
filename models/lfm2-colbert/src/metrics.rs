//! How good a ranking is, with binary relevance: a document answers the query or it does not.
//!
//! Everything follows from where in the ranking the relevant documents stand, so that is all a
//! [`Hits`] keeps. Which documents were ranked, and by what, is not known here.

use std::collections::HashSet;
use std::hash::Hash;

/// Where in one ranking the relevant documents stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hits {
    /// Places of relevant documents, from 0, ascending.
    ranks: Vec<usize>,
    /// How many documents are relevant, found or not.
    relevant: usize,
}

impl Hits {
    /// Looks up a ranking, best document first. A document that occurs again counts where it
    /// occurs first.
    pub fn new<T: Eq + Hash>(ranking: impl IntoIterator<Item = T>, relevant: &HashSet<T>) -> Self {
        let mut open: HashSet<&T> = relevant.iter().collect();
        let mut ranks = Vec::new();
        for (rank, id) in ranking.into_iter().enumerate() {
            if open.is_empty() {
                break;
            }
            if open.remove(&id) {
                ranks.push(rank);
            }
        }
        Self {
            ranks,
            relevant: relevant.len(),
        }
    }

    /// How many documents are relevant, found or not.
    pub fn relevant(&self) -> usize {
        self.relevant
    }

    /// The places of the hits among the first `k`.
    fn within(&self, k: usize) -> &[usize] {
        let count = self.ranks.partition_point(|rank| *rank < k);
        self.ranks.get(..count).unwrap_or_default()
    }
}

/// A measure of one ranking, cut off after the first `k` documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Metric {
    /// Whether any hit is among the first `k`.
    Accuracy,
    /// The share of the first `k` places that hold a hit.
    Precision,
    /// The share of the relevant documents that are among the first `k`.
    Recall,
    /// Normalised discounted cumulative gain: a hit at rank r, from 1, is worth 1/log2(r + 1), and
    /// the sum is divided by that of the best possible ranking.
    Ndcg,
    /// One over the rank of the first hit.
    Mrr,
    /// The mean of the precision at every hit, over as many hits as there could be.
    Map,
}

impl Metric {
    /// Every metric.
    pub const ALL: [Self; 6] = [
        Self::Accuracy,
        Self::Precision,
        Self::Recall,
        Self::Ndcg,
        Self::Mrr,
        Self::Map,
    ];

    /// The name in lower case, such as `ndcg`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Accuracy => "accuracy",
            Self::Precision => "precision",
            Self::Recall => "recall",
            Self::Ndcg => "ndcg",
            Self::Mrr => "mrr",
            Self::Map => "map",
        }
    }

    /// The value for one query, from 0 to 1. It is 0 for `k` = 0 and where nothing is relevant.
    ///
    /// ```
    /// use std::collections::HashSet;
    /// use lfm2_colbert::{Hits, Metric};
    ///
    /// let hits = Hits::new(["b", "a", "c"], &HashSet::from(["a", "d"]));
    /// assert_eq!(Metric::Mrr.of(&hits, 10), 0.5);
    /// assert_eq!(Metric::Recall.of(&hits, 10), 0.5);
    /// assert_eq!(Metric::Accuracy.of(&hits, 1), 0.0);
    /// ```
    pub fn of(self, hits: &Hits, k: usize) -> f64 {
        let ranks = hits.within(k);
        let Some(first) = ranks.first() else {
            return 0.0;
        };
        let found = ranks.len() as f64;
        let reachable = hits.relevant.min(k);
        match self {
            Self::Accuracy => 1.0,
            Self::Precision => found / k as f64,
            Self::Recall => found / hits.relevant as f64,
            Self::Ndcg => gain(ranks.iter().copied()) / gain(0..reachable),
            Self::Mrr => 1.0 / (first + 1) as f64,
            Self::Map => {
                let precisions = ranks.iter().zip(1_usize..);
                let sum: f64 = precisions
                    .map(|(rank, hits)| hits as f64 / (rank + 1) as f64)
                    .sum();
                sum / reachable as f64
            }
        }
    }

    /// The mean over queries; 0 without any.
    pub fn mean(self, queries: &[Hits], k: usize) -> f64 {
        if queries.is_empty() {
            return 0.0;
        }
        let sum: f64 = queries.iter().map(|hits| self.of(hits, k)).sum();
        sum / queries.len() as f64
    }
}

/// The discounted gain of hits at these places, from 0.
fn gain(ranks: impl Iterator<Item = usize>) -> f64 {
    ranks.map(|rank| 1.0 / ((rank + 2) as f64).log2()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hits(ranking: &[u32], relevant: &[u32]) -> Hits {
        Hits::new(ranking.iter().copied(), &relevant.iter().copied().collect())
    }

    #[test]
    fn a_perfect_ranking_is_worth_one_everywhere() {
        let hits = hits(&[1, 2, 3], &[1, 2, 3]);
        for metric in Metric::ALL {
            assert_eq!(metric.of(&hits, 3), 1.0, "{}", metric.name());
        }
        // More places than relevant documents cost precision alone.
        assert_eq!(Metric::Precision.of(&hits, 6), 0.5);
        assert_eq!(Metric::Ndcg.of(&hits, 6), 1.0);
    }

    #[test]
    fn nothing_found_nothing_relevant_and_no_places_are_worth_nothing() {
        for hits in [hits(&[1, 2], &[3]), hits(&[1, 2], &[]), hits(&[], &[1])] {
            for metric in Metric::ALL {
                assert_eq!(metric.of(&hits, 10), 0.0, "{}", metric.name());
            }
        }
        let hits = hits(&[1], &[1]);
        for metric in Metric::ALL {
            assert_eq!(metric.of(&hits, 0), 0.0, "{}", metric.name());
            assert_eq!(metric.mean(&[], 10), 0.0);
        }
    }

    #[test]
    fn a_repeated_document_counts_once_where_it_stands_first() {
        let hits = hits(&[9, 1, 1, 1], &[1, 2]);
        assert_eq!(Metric::Recall.of(&hits, 4), 0.5);
        assert_eq!(Metric::Map.of(&hits, 4), 0.25);
    }

    #[test]
    fn values_by_hand() {
        let hits = hits(&[5, 1, 6, 2], &[1, 2, 3]);
        let best = 1.0 + 1.0 / 3_f64.log2() + 0.5;
        let found = 1.0 / 3_f64.log2() + 1.0 / 5_f64.log2();
        assert!((Metric::Ndcg.of(&hits, 10) - found / best).abs() < 1e-15);
        assert_eq!(Metric::Map.of(&hits, 10), (0.5 + 0.5) / 3.0);
        assert_eq!(Metric::Map.of(&hits, 2), 0.5 / 2.0);
        assert_eq!(Metric::Precision.of(&hits, 2), 0.5);
    }
}
