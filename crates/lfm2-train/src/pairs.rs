//! Batches of pairs of answers, with what the model before the run says of them.

use std::path::Path;

use candle_core::{DType, Device, Tensor};
use lfm2_hub::{Limits, Mapping, Overwrite, SafetensorsSource, TensorSource, write_safetensors};
use lfm2_nn::{Cache, Decoder, Input, Want};

use crate::data::{MicroBatch, Pair};
use crate::loss::{self, PairFacts, Preference, Reference};
use crate::objective::Outcome;
use crate::rng::Rng;
use crate::workers::Workers;
use crate::{Error, Result};

/// Pairs packed into one token matrix: of every pair the better conversation, then the worse one.
#[derive(Debug, Clone, Default)]
pub struct PairBatch {
    documents: MicroBatch,
    facts: PairFacts,
}

impl PairBatch {
    fn push(&mut self, pair: &Pair, reference: [f64; 2]) {
        self.documents.push(&pair.better);
        self.documents.push(&pair.worse);
        self.facts.reference_better.push(reference[0]);
        self.facts.reference_worse.push(reference[1]);
        self.facts.tokens_better.push(pair.better.scored());
        self.facts.tokens_worse.push(pair.worse.scored());
    }

    /// The conversations.
    pub fn documents(&self) -> &MicroBatch {
        &self.documents
    }

    /// The number of pairs.
    pub fn pairs(&self) -> usize {
        self.facts.tokens_better.len()
    }

    /// The loss from the log-probabilities of all answers, `(2 * pairs)`, with the share of pairs whose
    /// better answer is ahead and the mean lead.
    pub(crate) fn loss(
        &self,
        answers: &Tensor,
        options: Preference,
        divisor: f64,
    ) -> candle_core::Result<Outcome> {
        let answers = answers.reshape((self.pairs(), 2))?;
        let column = |i: usize| answers.narrow(1, i, 1)?.squeeze(1);
        let (better, worse) = (column(0)?, column(1)?);
        let loss = loss::preference(&better, &worse, &self.facts, options, divisor)?;
        let terms = loss::preference_terms(&better, &worse, &self.facts, options)?;
        let ahead = terms.iter().filter(|t| t.lead > 0.0).count() as f64;
        let lead: f64 = terms.iter().map(|t| t.lead).sum();
        Ok(Outcome {
            figures: vec![("accuracy", ahead / divisor), ("lead", lead / divisor)],
            ..Outcome::new(loss)
        })
    }
}

/// Packs pairs in order, each batch of at most `max_tokens`.
pub(crate) fn pack_pairs(
    pairs: &[Pair],
    references: &[[f64; 2]],
    max_tokens: usize,
) -> Vec<PairBatch> {
    let mut packed = Vec::new();
    let mut open = PairBatch::default();
    for (pair, &reference) in pairs.iter().zip(references) {
        if open.pairs() > 0 && open.documents.tokens() + pair.tokens() > max_tokens {
            packed.push(std::mem::take(&mut open));
        }
        open.push(pair, reference);
    }
    if open.pairs() > 0 {
        packed.push(open);
    }
    packed
}

/// The endless stream of batches of pairs, every pass in a new order.
#[derive(Debug)]
pub(crate) struct PairBatches {
    pairs: Vec<Pair>,
    references: Vec<[f64; 2]>,
    options: Preference,
    max_tokens: usize,
    per_step: usize,
    seed: u64,
    epoch: u64,
    order: Vec<usize>,
}

impl PairBatches {
    pub(crate) fn new(
        pairs: Vec<Pair>,
        references: Vec<[f64; 2]>,
        options: Preference,
        (max_tokens, per_step): (usize, usize),
        seed: u64,
    ) -> Self {
        Self {
            pairs,
            references,
            options,
            max_tokens,
            per_step,
            seed: Rng::labelled(seed, "pairs").next_u64(),
            epoch: 0,
            order: Vec::new(),
        }
    }

    pub(crate) fn options(&self) -> Preference {
        self.options
    }

    pub(crate) fn next_step(&mut self) -> Result<Vec<PairBatch>> {
        (0..self.per_step).map(|_| self.next_batch()).collect()
    }

    fn next_batch(&mut self) -> Result<PairBatch> {
        let mut open = PairBatch::default();
        loop {
            if self.order.is_empty() {
                // Taken from the end.
                self.order = (0..self.pairs.len()).collect();
                Rng::new(self.seed.wrapping_add(self.epoch)).shuffle(&mut self.order);
                self.epoch += 1;
            }
            let next = self.order.last().and_then(|&i| {
                let pair = self.pairs.get(i)?;
                Some((pair, self.references.get(i).copied().unwrap_or_default()))
            });
            let Some((pair, reference)) = next else {
                return Err(Error::option(
                    "data",
                    "expected pairs to train on, found none",
                ));
            };
            if open.pairs() > 0 && open.documents.tokens() + pair.tokens() > self.max_tokens {
                return Ok(open);
            }
            open.push(pair, reference);
            self.order.pop();
        }
    }
}

/// The log-probabilities of both answers of every pair under `model`, which is the one before the run;
/// kept in the file `path`, so that a resumed run compares with the same. Zeros where nothing is
/// compared.
///
/// # Errors
/// [`Error::RunFolder`] when the file is of other pairs; errors of the model and of files.
pub(crate) fn references(
    path: &Path,
    model: &dyn Decoder,
    pairs: &[Pair],
    options: (Preference, usize),
    workers: &Workers,
) -> Result<Vec<[f64; 2]>> {
    let (preference, max_tokens) = options;
    if preference.reference == Reference::None {
        return Ok(vec![[0.0; 2]; pairs.len()]);
    }
    if path.exists() {
        return read_references(path, pairs.len());
    }
    let batches = pack_pairs(pairs, &vec![[0.0; 2]; pairs.len()], max_tokens);
    let work = |batch: &PairBatch| -> Result<Vec<f32>> {
        let documents = batch.documents();
        let ids = documents.ids(model.device())?;
        let mut cache = Cache::stateless(documents.documents());
        let step = documents.step();
        let logits = model.forward(Input::Ids(&ids), &step, &mut cache, Want::AllLogits)?;
        let logits = logits.detach();
        let found = loss::sequence_logprobs(&logits, documents.targets(), documents.lens())?;
        Ok(found.to_vec1::<f32>()?)
    };
    let mut all: Vec<f32> = Vec::with_capacity(2 * pairs.len());
    workers.for_each_in_order(&batches, work, |found| all.extend(found))?;
    let tensor = Tensor::new(all, &Device::Cpu)?.reshape((pairs.len(), 2))?;
    let tensors = [("logprob", &tensor.to_dtype(DType::F32)?)];
    write_safetensors(path, tensors, &Default::default(), Overwrite::Replace)?;
    // Read back, so that a resumed run has the very same numbers.
    read_references(path, pairs.len())
}

fn read_references(path: &Path, pairs: usize) -> Result<Vec<[f64; 2]>> {
    let source = SafetensorsSource::open(path, Mapping::Read, &Limits::default())?;
    if source.shape("logprob") != Some(&[pairs, 2]) {
        let found = source.shape("logprob");
        let detail = format!("logprob: expected shape {:?}, found {found:?}", [pairs, 2]);
        return Err(Error::run_folder(path, detail));
    }
    let values = source.elements("logprob", 0..2 * pairs)?;
    let two = values.as_chunks::<2>().0.iter();
    Ok(two.map(|&[a, b]| [f64::from(a), f64::from(b)]).collect())
}
