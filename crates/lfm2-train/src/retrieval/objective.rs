//! Batches of pairs, and what a model that ranks them badly loses.

use candle_core::Tensor;
use lfm2_colbert::{Bm25, ColbertNetwork, TextReader};

use super::disguise::Words;
use super::options::RetrievalOptions;
use super::passages::Passage;
use super::queries::{self, QueryShares};
use super::texts::Texts;
use crate::data::Share;
use crate::loss::retrieval::{
    Pairing, Scaling, TextRows, Uncounted, contrastive, distillation, max_sim, ranks,
};
use crate::objective::{BatchSize, LossUnit, Objective, Outcome, ValidationSet};
use crate::rng::Rng;
use crate::{Error, Result};

/// Pairs of a query and a document; document `i` is the one that query `i` looks for.
#[derive(Debug, Clone)]
pub struct RetrievalBatch {
    /// All queries, then all documents.
    texts: Texts,
    pairs: usize,
    teacher: Option<Teacher>,
}

/// What the lexical teacher says of a batch.
#[derive(Debug, Clone)]
struct Teacher {
    /// `(queries, documents)`, divided by its temperature.
    scores: Vec<f64>,
    /// Per query, whether it may be asked: 1 or 0.
    weights: Vec<f64>,
}

/// Passages to draw from.
#[derive(Debug)]
pub(crate) struct PassagePool {
    passages: Vec<Passage>,
    /// Where the passages of each source end, and its share.
    sources: Vec<(usize, Share)>,
    /// Over the passages, in their order.
    ranking: Bm25,
    words: Words,
}

impl PassagePool {
    /// A pool of the passages of several sources, whose words are `words`.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] when a source has none or the shares are no shares.
    pub(crate) fn new(sources: Vec<(Vec<Passage>, Share)>, words: Words) -> Result<Self> {
        let mut pool = Self {
            passages: Vec::new(),
            sources: Vec::new(),
            ranking: Bm25::default(),
            words,
        };
        let mut total = 0.0;
        for (passages, share) in sources {
            if passages.is_empty() {
                let detail = "expected passages in every source, found none";
                return Err(Error::option("data", detail));
            }
            for done in [0.0, 1.0] {
                let part = share.at(done);
                if !(part.is_finite() && part >= 0.0) {
                    let detail = format!("expected a number of at least 0, found {part}");
                    return Err(Error::option("data.share", detail));
                }
                total += part;
            }
            passages.iter().for_each(|p| pool.ranking.insert(p.text()));
            pool.passages.extend(passages);
            pool.sources.push((pool.passages.len(), share));
        }
        if total <= 0.0 {
            let detail = "expected a source with a share above 0, found none";
            return Err(Error::option("data.share", detail));
        }
        Ok(pool)
    }

    pub(crate) fn len(&self) -> usize {
        self.passages.len()
    }

    /// The places of `count` different passages: groups of `neighbours` that share words.
    fn draw(&self, count: usize, neighbours: usize, done: f64, rng: &mut Rng) -> Vec<usize> {
        let mut chosen: Vec<usize> = Vec::with_capacity(count);
        let count = count.min(self.len());
        while chosen.len() < count {
            let first = self.draw_one(done, rng);
            if chosen.contains(&first) {
                continue;
            }
            chosen.push(first);
            let more = neighbours.saturating_sub(1).min(count - chosen.len());
            if more == 0 {
                continue;
            }
            let passage = &self.passages[first];
            let about = passage.sentence(rng.below(passage.sentences()));
            let near = self.ranking.search(about, 2 * neighbours);
            let new: Vec<usize> = near
                .into_iter()
                .map(|(place, _)| place)
                .filter(|place| !chosen.contains(place))
                .take(more)
                .collect();
            chosen.extend(new);
        }
        chosen
    }

    fn draw_one(&self, done: f64, rng: &mut Rng) -> usize {
        let total: f64 = self.sources.iter().map(|(_, share)| share.at(done)).sum();
        let mut rest = rng.uniform() * total;
        let mut start = 0;
        for &(end, share) in &self.sources {
            if rest < share.at(done) {
                return start + rng.below(end - start);
            }
            rest -= share.at(done);
            start = end;
        }
        rng.below(self.len())
    }
}

/// Learning to rank a query's own document above the others of its batch, and, if wanted, the others
/// as BM25 does.
#[derive(Debug)]
pub struct RetrievalObjective {
    network: ColbertNetwork,
    reader: TextReader,
    pool: PassagePool,
    options: RetrievalOptions,
    validation: Vec<ValidationSet<RetrievalBatch>>,
}

impl RetrievalObjective {
    /// An objective over `pool`, measured on the passages of `validation`.
    ///
    /// # Errors
    /// When a text cannot be tokenised.
    pub(crate) fn new(
        network: ColbertNetwork,
        reader: TextReader,
        pool: PassagePool,
        options: RetrievalOptions,
        validation: Vec<(String, Vec<Passage>)>,
    ) -> Result<Self> {
        let mut objective = Self {
            network,
            reader,
            pool,
            options,
            validation: Vec::new(),
        };
        for (name, passages) in validation {
            let batches = objective.validation_batches(&name, &passages)?;
            objective.validation.push((name, batches));
        }
        Ok(objective)
    }

    /// Passages in a row, so that a query's document has to be told from its neighbours.
    fn validation_batches(&self, name: &str, passages: &[Passage]) -> Result<Vec<RetrievalBatch>> {
        let mut rng = Rng::labelled(self.options.seed, &format!("validation {name}"));
        let chunks = passages.chunks_exact(self.options.micro_batch_pairs);
        let batches = chunks.take(self.options.validation_batches).map(|chunk| {
            let chunk: Vec<&Passage> = chunk.iter().collect();
            self.batch(&chunk, None, &mut rng)
        });
        let batches: Vec<RetrievalBatch> = batches.collect::<Result<_>>()?;
        if batches.is_empty() {
            let (needed, found) = (self.options.micro_batch_pairs, passages.len());
            let detail = format!("{name}: expected at least {needed} passages, found {found}");
            return Err(Error::option("validation", detail));
        }
        Ok(batches)
    }

    /// A batch of one query per passage. `places` are the passages' places in the pool; without them
    /// there is no teacher.
    fn batch(
        &self,
        passages: &[&Passage],
        places: Option<&[usize]>,
        rng: &mut Rng,
    ) -> Result<RetrievalBatch> {
        let rarity = |word: &str| self.pool.ranking.rarity(word);
        let shares: &QueryShares = &self.options.queries;
        let pairs: Vec<queries::Pair> = passages
            .iter()
            .map(|passage| queries::draw(passage, shares, &rarity, rng))
            .collect();
        let teacher = self.options.lexical.zip(places).map(|(lexical, places)| {
            let score = |pair: &queries::Pair| self.pool.ranking.scores(&pair.query, places);
            let scores = pairs.iter().flat_map(score);
            Teacher {
                scores: scores
                    .map(|score| f64::from(score) / lexical.temperature)
                    .collect(),
                weights: pairs
                    .iter()
                    .map(|pair| f64::from(u8::from(pair.lexical)))
                    .collect(),
            }
        });
        // Validation sees texts as they are.
        let disguised = places.is_some() && rng.uniform() < self.options.disguised;
        let disguise = disguised.then(|| self.pool.words.disguise(rng));
        let seen = |text: &str| match &disguise {
            Some(disguise) => disguise.of(text),
            None => text.to_string(),
        };
        let mut texts = Texts::default();
        for pair in &pairs {
            texts.push(&self.reader.query(&seen(&pair.query))?);
        }
        for pair in &pairs {
            texts.push(&self.reader.document(&seen(&pair.document))?);
        }
        Ok(RetrievalBatch {
            texts,
            pairs: pairs.len(),
            teacher,
        })
    }

    /// The scores of a batch, `(queries, documents)`.
    fn scores(&self, batch: &RetrievalBatch) -> candle_core::Result<Tensor> {
        let (queries, documents) = batch.texts.lens().split_at(batch.pairs);
        let counted = batch.texts.counted();
        let vectors = self
            .network
            .forward(&batch.texts.ids()?, &batch.texts.step())?;
        let rows: usize = queries.iter().sum();
        let document_rows = TextRows::new(documents).counting(counted[rows..].to_vec())?;
        max_sim(
            (&vectors.narrow(0, 0, rows)?, &TextRows::new(queries)),
            (
                &vectors.narrow(0, rows, counted.len() - rows)?,
                &document_rows,
            ),
            Pairing::All,
            Uncounted::LeftOut,
        )
    }
}

impl Objective for RetrievalObjective {
    type Batch = RetrievalBatch;

    fn next_step(&mut self, step: u64) -> Result<Vec<RetrievalBatch>> {
        let done =
            step.saturating_sub(1) as f64 / self.options.steps.saturating_sub(1).max(1) as f64;
        let batch = |number: usize| {
            let label = format!("step {step} batch {number}");
            let mut rng = Rng::labelled(self.options.seed, &label);
            let (pairs, neighbours) = (self.options.micro_batch_pairs, self.options.neighbours);
            let places = self.pool.draw(pairs, neighbours, done, &mut rng);
            let passages: Vec<&Passage> = places.iter().map(|&p| &self.pool.passages[p]).collect();
            self.batch(&passages, Some(&places), &mut rng)
        };
        (0..self.options.micro_batches).map(batch).collect()
    }

    fn validation(&self) -> &[ValidationSet<RetrievalBatch>] {
        &self.validation
    }

    fn size(&self, batch: &RetrievalBatch) -> BatchSize {
        BatchSize {
            tokens: batch.texts.counted().len(),
            scored: batch.pairs,
            weight: batch.pairs as f64,
        }
    }

    fn unit(&self) -> LossUnit {
        LossUnit::Item
    }

    fn loss(&self, batch: &RetrievalBatch, divisor: f64) -> candle_core::Result<Outcome> {
        let scores = self.scores(batch)?;
        let own: Vec<usize> = (0..batch.pairs).collect();
        let choice = contrastive(&scores, &own, self.options.temperature, divisor)?;
        let ranks = ranks(&scores, &own)?;
        let mean = |value: &dyn Fn(usize) -> f64| {
            ranks.iter().map(|&rank| value(rank)).sum::<f64>() / divisor
        };
        let mut figures = vec![
            ("accuracy", mean(&|rank| f64::from(u8::from(rank == 1)))),
            ("reciprocal_rank", mean(&|rank| 1.0 / rank as f64)),
        ];
        let (Some(teacher), Some(lexical)) = (&batch.teacher, self.options.lexical) else {
            return Ok(Outcome {
                figures,
                ..Outcome::new(choice)
            });
        };
        let scaling = Scaling::Temperature(lexical.student_temperature);
        let divergence =
            distillation(&scores, &teacher.scores, &teacher.weights, scaling, divisor)?;
        for (name, part) in [("contrastive", &choice), ("lexical", &divergence)] {
            figures.push((name, f64::from(part.to_scalar::<f32>()?)));
        }
        let loss = ((choice * (1.0 - lexical.weight))? + (divergence * lexical.weight)?)?;
        Ok(Outcome {
            figures,
            ..Outcome::new(loss)
        })
    }
}
