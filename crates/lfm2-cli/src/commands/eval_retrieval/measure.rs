//! How good a way of searching is, and how fast.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use anyhow::Result;
use lfm2::retrieval::{Collection, Hits, Metric, Query};
use serde::Serialize;

/// How many hits people look at: speed, nDCG and MRR are of these.
const TOP: usize = 10;
/// How many hits recall and MAP look at.
const DEEP: usize = 100;

/// How long something takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(super) struct Latency {
    pub(super) p50_ms: f64,
    pub(super) p95_ms: f64,
}

impl Latency {
    /// Of these times; the smallest that so many are not above.
    pub(super) fn of(times: &[Duration]) -> Self {
        let mut sorted = times.to_vec();
        sorted.sort_unstable();
        let share = |percent: usize| {
            let place = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
            let time = sorted.get(place).copied().unwrap_or_default();
            1000.0 * time.as_secs_f64()
        };
        Self {
            p50_ms: share(50),
            p95_ms: share(95),
        }
    }
}

/// A line of the report.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    name: String,
    ndcg_at_10: f64,
    mrr_at_10: f64,
    map_at_100: f64,
    recall_at_10: f64,
    recall_at_100: f64,
    /// The share of the first 10 hits that exact search has too.
    agreement: Option<f64>,
    /// A question, from text to hits.
    #[serde(flatten)]
    latency: Latency,
    /// The search alone.
    search: Latency,
    questions_per_second: f64,
    index_bytes: Option<u64>,
}

impl Row {
    /// The line as cells of a table.
    pub(super) fn cells(&self, documents: usize) -> Vec<String> {
        let share = |value: f64| format!("{value:.4}");
        let per_document = |bytes: u64| format!("{:.0}", bytes as f64 / documents.max(1) as f64);
        vec![
            self.name.clone(),
            share(self.ndcg_at_10),
            share(self.mrr_at_10),
            share(self.map_at_100),
            share(self.recall_at_10),
            share(self.recall_at_100),
            self.agreement.map_or("-".to_owned(), share),
            format!("{:.2}", self.latency.p50_ms),
            format!("{:.2}", self.latency.p95_ms),
            format!("{:.0}", self.questions_per_second),
            self.index_bytes.map_or("-".to_owned(), per_document),
        ]
    }
}

/// The answers of one way of searching.
pub(super) struct Run<'a> {
    collection: &'a Collection,
    /// The first hits of every question.
    tops: Vec<Vec<String>>,
    top_hits: Vec<Hits>,
    deep_hits: Vec<Hits>,
    search: Vec<Duration>,
    whole: Vec<Duration>,
}

impl<'a> Run<'a> {
    pub(super) fn new(collection: &'a Collection) -> Self {
        Self {
            collection,
            tops: Vec::new(),
            top_hits: Vec::new(),
            deep_hits: Vec::new(),
            search: Vec::new(),
            whole: Vec::new(),
        }
    }

    /// Asks for the best documents twice: for some, with the time it takes, and for many.
    pub(super) fn ask(
        &mut self,
        query: &Query,
        reading: Duration,
        search: impl Fn(usize) -> Result<Vec<String>>,
    ) -> Result<()> {
        let started = Instant::now();
        let top = search(TOP)?;
        let time = started.elapsed();
        let deep = search(DEEP)?;
        let relevant = self.collection.relevant(&query.id);
        let hits = |found: &[String]| Hits::new(found.iter().map(String::as_str), &relevant);
        self.top_hits.push(hits(&top));
        self.deep_hits.push(hits(&deep));
        self.tops.push(top);
        self.search.push(time);
        self.whole.push(reading + time);
        Ok(())
    }

    /// The line of the report.
    pub(super) fn row(&self, name: &str, index_bytes: Option<u64>, truth: Option<&Self>) -> Row {
        let seconds: f64 = self.whole.iter().map(Duration::as_secs_f64).sum();
        Row {
            name: name.to_owned(),
            ndcg_at_10: Metric::Ndcg.mean(&self.top_hits, TOP),
            mrr_at_10: Metric::Mrr.mean(&self.top_hits, TOP),
            map_at_100: Metric::Map.mean(&self.deep_hits, DEEP),
            recall_at_10: Metric::Recall.mean(&self.top_hits, TOP),
            recall_at_100: Metric::Recall.mean(&self.deep_hits, DEEP),
            agreement: truth.map(|truth| agreement(&self.tops, &truth.tops)),
            latency: Latency::of(&self.whole),
            search: Latency::of(&self.search),
            questions_per_second: self.whole.len() as f64 / seconds.max(f64::MIN_POSITIVE),
            index_bytes,
        }
    }
}

/// The mean share of each list of `truth` that the other list has too.
fn agreement(lists: &[Vec<String>], truth: &[Vec<String>]) -> f64 {
    let shares = lists.iter().zip(truth).map(|(list, truth)| {
        let list: HashSet<&String> = list.iter().collect();
        let shared = truth.iter().filter(|id| list.contains(id)).count();
        match truth.len() {
            0 => 1.0,
            all => shared as f64 / all as f64,
        }
    });
    shares.sum::<f64>() / truth.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_are_of_the_times_themselves() {
        let times: Vec<_> = (1..=100).rev().map(Duration::from_millis).collect();
        let latency = Latency::of(&times);
        assert_eq!((latency.p50_ms, latency.p95_ms), (50.0, 95.0));
        let one = Latency::of(&times[..1]);
        assert_eq!((one.p50_ms, one.p95_ms), (100.0, 100.0));
        assert_eq!(Latency::of(&[]), Latency::default());
    }

    #[test]
    fn agreement_is_the_share_of_the_truth() {
        let lists = |texts: &[&str]| -> Vec<Vec<String>> {
            texts
                .iter()
                .map(|text| text.chars().map(String::from).collect())
                .collect()
        };
        assert_eq!(agreement(&lists(&["ba", "xy"]), &lists(&["ab", "ab"])), 0.5);
        assert_eq!(agreement(&lists(&["", "a"]), &lists(&["", "ab"])), 0.75);
        assert_eq!(agreement(&[], &[]), 0.0);
    }
}
