//! The endless stream of micro-batches: several sources mixed by token share.

use serde::{Deserialize, Serialize};

use super::packing::MicroBatch;
use super::{Document, Source};
use crate::curriculum::{Curriculum, Unsolved, easy_first};
use crate::rng::Rng;
use crate::{Error, Result};

/// A source's part of all tokens, relative to the other sources. It may move linearly over the run:
/// a curriculum that goes, say, from stories to conversations.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Share {
    /// The same all the time.
    Fixed(f64),
    /// From the first value at the first step to the second at the last.
    Moving([f64; 2]),
}

impl Default for Share {
    fn default() -> Self {
        Self::Fixed(1.0)
    }
}

impl Share {
    /// The share when `done` (0 to 1) of the run is over.
    pub fn at(&self, done: f64) -> f64 {
        match *self {
            Self::Fixed(share) => share,
            Self::Moving([from, to]) => from + (to - from) * done.clamp(0.0, 1.0),
        }
    }

    fn is_valid(&self) -> bool {
        [self.at(0.0), self.at(1.0)]
            .iter()
            .all(|s| s.is_finite() && *s >= 0.0)
    }
}

/// One source's place in the stream: each epoch is a new order of all documents.
#[derive(Debug)]
struct Stream {
    documents: Vec<Document>,
    share: Share,
    curriculum: Option<(Curriculum, Unsolved)>,
    difficulty: Vec<f64>,
    /// The documents from easy to hard.
    sorted: Vec<usize>,
    seed: u64,
    epoch: u64,
    order: Vec<usize>,
    position: usize,
    /// Tokens this source is owed.
    credit: f64,
}

impl Stream {
    fn new(source: Source, share: Share, seed: u64) -> Self {
        let difficulty: Vec<f64> = source.training.iter().map(|d| d.difficulty).collect();
        Self {
            documents: source.training,
            share,
            curriculum: source.curriculum,
            sorted: easy_first(&difficulty),
            difficulty,
            seed,
            epoch: 0,
            order: Vec::new(),
            position: 0,
            credit: 0.0,
        }
    }

    /// The next document when `done` (0 to 1) of the run is over.
    fn next(&mut self, done: f64) -> usize {
        if self.position == self.order.len() {
            let mut rng = Rng::new(self.seed.wrapping_add(self.epoch));
            self.order = self.epoch(done, &mut rng);
            self.position = 0;
            self.epoch += 1;
        }
        self.position += 1;
        self.order[self.position - 1]
    }

    /// A new pass over the documents. A window moves with the run, so it is drawn from one by one.
    fn epoch(&self, done: f64, rng: &mut Rng) -> Vec<usize> {
        let Some((curriculum, unsolved)) = self.curriculum else {
            let mut order: Vec<usize> = (0..self.documents.len()).collect();
            rng.shuffle(&mut order);
            return order;
        };
        if !matches!(curriculum, Curriculum::Window { .. }) {
            return curriculum.epoch(&self.difficulty, unsolved, done, rng);
        }
        let open = curriculum.open(done);
        let is_open = |&item: &usize| {
            let difficulty = self.difficulty[item];
            difficulty <= open && (difficulty < 1.0 || unsolved == Unsolved::Last)
        };
        // Where nothing is open yet, the easiest comes first.
        let count = self.sorted.partition_point(is_open).max(1);
        vec![self.sorted[rng.below(count)]]
    }
}

/// The micro-batches of a run, step by step, fixed by the documents, the shares and the seed.
#[derive(Debug)]
pub struct Batches {
    streams: Vec<Stream>,
    max_tokens: usize,
    per_step: usize,
    steps: u64,
    /// Drawn but not placed: it did not fit into the last micro-batch.
    pending: Option<(usize, usize)>,
}

impl Batches {
    /// A stream of `per_step` micro-batches of at most `max_tokens` tokens for each of `steps`
    /// steps.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] when there is no document, a share is negative or not finite, all
    /// shares are 0 at the start or the end, or a size is 0.
    pub fn new(
        sources: Vec<(Source, Share)>,
        max_tokens: usize,
        per_step: usize,
        steps: u64,
        seed: u64,
    ) -> Result<Self> {
        for (key, value) in [
            ("micro_batch_tokens", max_tokens),
            ("micro_batches", per_step),
        ] {
            if value == 0 {
                return Err(Error::option(key, "expected at least 1, found 0"));
            }
        }
        if let Some((_, bad)) = sources.iter().find(|(_, share)| !share.is_valid()) {
            return Err(Error::option(
                "share",
                format!("expected numbers of at least 0, found {bad:?}"),
            ));
        }
        // Shares move linearly, so what holds at both ends holds between them.
        for done in [0.0, 1.0] {
            if sources.iter().map(|(_, share)| share.at(done)).sum::<f64>() <= 0.0 {
                return Err(Error::option(
                    "share",
                    "expected a source with a share above 0, found none",
                ));
            }
        }
        let streams = sources.into_iter().enumerate().map(|(i, (source, share))| {
            let seed = Rng::labelled(seed, &format!("source {i}")).next_u64();
            Stream::new(source, share, seed)
        });
        let streams: Vec<Stream> = streams.collect();
        if streams.iter().any(|s| s.documents.is_empty()) {
            return Err(Error::option(
                "data",
                "expected documents to train on in every source, found none",
            ));
        }
        let is_dropped = |s: &Stream| {
            let drops = matches!(s.curriculum, Some((_, Unsolved::Drop)));
            drops && s.documents.iter().all(|d| d.difficulty >= 1.0)
        };
        if streams.iter().any(is_dropped) {
            let detail = "expected a document that some model solves, found none";
            return Err(Error::option("curriculum.unsolved", detail));
        }
        Ok(Self {
            streams,
            max_tokens,
            per_step,
            steps,
            pending: None,
        })
    }

    /// The micro-batches of step `step`, from 1. Steps have to be asked for in order; a resumed run
    /// goes through the earlier ones again, which costs next to nothing.
    pub fn next_step(&mut self, step: u64) -> Vec<MicroBatch> {
        let done = step.saturating_sub(1) as f64 / self.steps.saturating_sub(1).max(1) as f64;
        (0..self.per_step)
            .map(|_| self.next_micro_batch(done))
            .collect()
    }

    fn next_micro_batch(&mut self, done: f64) -> MicroBatch {
        let mut open = MicroBatch::default();
        loop {
            let (stream, index) = self.pending.take().unwrap_or_else(|| self.draw(done));
            let document = &self.streams[stream].documents[index];
            if !open.is_empty() && open.tokens() + document.len() > self.max_tokens {
                self.pending = Some((stream, index));
                return open;
            }
            open.push(document);
        }
    }

    /// The next document: of the source that is owed most tokens, the first of equals.
    fn draw(&mut self, done: f64) -> (usize, usize) {
        let mut chosen = 0;
        for i in 1..self.streams.len() {
            let (best, this) = (&self.streams[chosen], &self.streams[i]);
            // A source of share 0 is never drawn, even when the others are ahead of their share.
            let closed = best.share.at(done) <= 0.0;
            if this.share.at(done) > 0.0 && (closed || this.credit > best.credit) {
                chosen = i;
            }
        }
        let index = self.streams[chosen].next(done);
        let length = self.streams[chosen].documents[index].len() as f64;
        let total: f64 = self.streams.iter().map(|s| s.share.at(done)).sum();
        for stream in &mut self.streams {
            stream.credit += length * stream.share.at(done) / total;
        }
        self.streams[chosen].credit -= length;
        (chosen, index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::SourceReport;

    /// `count` documents of `len` tokens; token `mark` tells the source.
    fn source(mark: u32, count: u32, len: usize) -> Source {
        let document = |i: u32| {
            let mut tokens = vec![mark; len];
            tokens[0] = 1000 + i;
            Document::new(tokens, vec![1.0; len]).unwrap()
        };
        Source {
            training: (0..count).map(document).collect(),
            validation: vec![],
            report: SourceReport::default(),
            curriculum: None,
        }
    }

    /// Which documents of a source of 20 with rising difficulty are met in `steps` steps of one each.
    fn met(curriculum: Curriculum, unsolved: Unsolved, steps: u64) -> Vec<u32> {
        let mut source = source(1, 20, 2);
        for (i, document) in source.training.iter_mut().enumerate() {
            document.difficulty = i as f64 / 19.0;
        }
        source.curriculum = Some((curriculum, unsolved));
        let mut batches = Batches::new(vec![(source, Share::default())], 2, 1, steps, 3).unwrap();
        let first = |batch: &MicroBatch| {
            let ids = batch.ids(&candle_core::Device::Cpu).unwrap();
            ids.to_vec1::<u32>().unwrap()[0] - 1000
        };
        (1..=steps)
            .map(|step| first(&batches.next_step(step)[0]))
            .collect()
    }

    #[test]
    fn a_curriculum_goes_from_easy_to_hard() {
        let strict = met(Curriculum::Strict, Unsolved::Last, 20);
        assert_eq!(strict, (0..20).collect::<Vec<_>>());
        let stages = met(Curriculum::Stages { count: 4 }, Unsolved::Drop, 19);
        assert!(
            stages[..5].iter().all(|i| *i < 5) && !stages.contains(&19),
            "{stages:?}"
        );
        let window = met(Curriculum::Window { start: 0.0 }, Unsolved::Last, 200);
        assert_eq!(window[0], 0);
        assert!(window[..60].iter().all(|i| *i < 8), "{window:?}");
        assert!(window[150..].iter().any(|i| *i > 12), "{window:?}");
    }

    fn tokens_of(batches: &[MicroBatch], mark: u32) -> usize {
        let targets = batches.iter().flat_map(MicroBatch::targets);
        targets.filter(|t| t.id == mark).count()
    }

    #[test]
    fn shares_are_shares_of_tokens() {
        let sources = vec![
            (source(1, 50, 5), Share::Fixed(3.0)),
            (source(2, 50, 21), Share::Fixed(1.0)),
        ];
        let mut batches = Batches::new(sources, 64, 4, 50, 7).unwrap();
        let all: Vec<MicroBatch> = (1..=50).flat_map(|step| batches.next_step(step)).collect();
        // Of 5 tokens 4 are targets, of 21 tokens 20.
        let (first, second) = (
            tokens_of(&all, 1) as f64 * 5.0 / 4.0,
            tokens_of(&all, 2) as f64 * 21.0 / 20.0,
        );
        assert!((first / second - 3.0).abs() < 0.05, "{first} {second}");
    }

    #[test]
    fn a_moving_share_moves() {
        let sources = vec![
            (source(1, 50, 8), Share::Moving([1.0, 0.0])),
            (source(2, 50, 8), Share::Moving([0.0, 1.0])),
        ];
        let mut batches = Batches::new(sources, 64, 1, 100, 7).unwrap();
        let steps: Vec<_> = (1..=100).map(|step| batches.next_step(step)).collect();
        assert_eq!(tokens_of(&steps[0], 2), 0);
        assert_eq!(tokens_of(&steps[99], 1), 0);
        assert!(tokens_of(&steps[50], 1) > 0 && tokens_of(&steps[50], 2) > 0);
    }

    #[test]
    fn an_epoch_has_every_document_once_in_an_order_of_its_own() {
        let mut batches =
            Batches::new(vec![(source(1, 30, 2), Share::default())], 60, 1, 3, 9).unwrap();
        let firsts = |batch: &[MicroBatch]| -> Vec<u32> {
            let ids = batch[0]
                .ids(&candle_core::Device::Cpu)
                .unwrap()
                .to_vec1::<u32>()
                .unwrap();
            ids.into_iter().step_by(2).collect()
        };
        let (one, two) = (firsts(&batches.next_step(1)), firsts(&batches.next_step(2)));
        assert_ne!(one, two);
        let sorted = |mut ids: Vec<u32>| {
            ids.sort_unstable();
            ids
        };
        assert_eq!(sorted(one), (1000..1030).collect::<Vec<_>>());
        assert_eq!(sorted(two), (1000..1030).collect::<Vec<_>>());
    }

    #[test]
    fn the_stream_is_fixed_by_its_seed() {
        let stream = |seed| {
            let sources = vec![
                (source(1, 20, 5), Share::Fixed(2.0)),
                (source(2, 20, 7), Share::Fixed(1.0)),
            ];
            let mut batches = Batches::new(sources, 32, 2, 9, seed).unwrap();
            (1..=9)
                .map(|step| batches.next_step(step))
                .collect::<Vec<_>>()
        };
        assert_eq!(stream(1), stream(1));
        assert_ne!(stream(1), stream(2));
    }

    #[test]
    fn impossible_mixtures_are_refused() {
        let one = |share| vec![(source(1, 3, 4), share)];
        assert!(Batches::new(one(Share::Fixed(0.0)), 8, 1, 1, 1).is_err());
        assert!(Batches::new(one(Share::Moving([1.0, -1.0])), 8, 1, 1, 1).is_err());
        assert!(Batches::new(one(Share::Fixed(1.0)), 8, 0, 1, 1).is_err());
        assert!(Batches::new(vec![], 8, 1, 1, 1).is_err());
        assert!(Batches::new(vec![(source(1, 0, 4), Share::Fixed(1.0))], 8, 1, 1, 1).is_err());
    }
}
