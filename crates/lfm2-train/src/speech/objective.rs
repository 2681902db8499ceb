//! [`SpeechObjective`]: clips that are transcribed, and texts that are spoken.

use lfm2_audio::{AudioModel, Frame, Mel, Sample, Voice};

use super::feed::{SpeechFeed, SpeechReader};
use super::options::{LengthGrowth, SpeakData};
use super::rows::{SpokenRow, SpokenRows};
use crate::Result;
use crate::mixed::{Mixed, MixedBatch};
use crate::objective::{BatchSize, LossUnit, Objective, Outcome, ValidationSet};
use crate::rng::Rng;

/// A part of a step.
#[derive(Debug, Clone)]
pub enum SpeechBatch {
    /// Clips and their transcripts.
    Heard(MixedBatch<Mel>),
    /// Texts and their sound.
    Said(Vec<Sample>),
}

/// Texts and the frames that speak them.
#[derive(Debug)]
pub(super) struct Speaking {
    samples: Vec<Sample>,
    kept_out: ValidationSet<SpeechBatch>,
    /// Micro-batches of a step, and clips of a micro-batch.
    sizes: (usize, usize),
    /// How many samples may be said, in the order of their words; see [`LengthGrowth`].
    growth: Option<LengthGrowth>,
    /// Words of every sample.
    words: Vec<usize>,
    seed: u64,
}

impl Speaking {
    /// The samples of `rows`; some are kept out.
    pub(super) fn new(
        data: &SpeakData,
        mut rows: SpokenRows,
        reader: &SpeechReader,
        (codebooks, seed): (usize, u64),
    ) -> Result<Self> {
        let kept_out = rows.hold_out(data.validation_clips, seed)?;
        let sample = |row: &SpokenRow| {
            if row.codes.is_empty() || row.codes.iter().any(|codes| codes.len() != codebooks) {
                let detail = format!("expected \"codes\" of frames of {codebooks} codes each");
                return Err(rows.error(row, detail));
            }
            let frames = row.codes.iter().cloned().map(Frame::new).collect();
            let said = (row.text.as_str(), &Voice::default());
            Ok(Sample::speech(
                &reader.tokenizer,
                &reader.front,
                said,
                frames,
            )?)
        };
        let kept_out = kept_out.iter().map(sample).collect::<Result<Vec<_>>>()?;
        let batches = kept_out.chunks(data.micro_batch_clips);
        let batches = batches.map(|batch| SpeechBatch::Said(batch.to_vec()));
        Ok(Self {
            samples: rows.rows().iter().map(sample).collect::<Result<_>>()?,
            kept_out: (rows.name(), batches.collect()),
            sizes: (data.micro_batches, data.micro_batch_clips),
            growth: data.growth,
            words: rows.rows().iter().map(SpokenRow::len).collect(),
            seed,
        })
    }

    fn step(&self, step: u64) -> impl Iterator<Item = SpeechBatch> {
        let count = LengthGrowth::count(self.growth, step, &self.words);
        let samples = self.samples.get(..count).unwrap_or(&self.samples);
        (0..self.sizes.0).map(move |number| {
            let label = format!("step {step} spoken batch {number}");
            let mut rng = Rng::labelled(self.seed, &label);
            let one = |_| samples.get(rng.below(samples.len())).cloned();
            SpeechBatch::Said((0..self.sizes.1).filter_map(one).collect())
        })
    }
}

/// The objective of a speech model: the next token of every transcript, and the next frame of what is spoken.
#[derive(Debug)]
pub struct SpeechObjective {
    heard: Mixed<AudioModel, SpeechFeed>,
    said: Option<Speaking>,
    validation: Vec<ValidationSet<SpeechBatch>>,
}

impl SpeechObjective {
    /// Learning from `feed`, and speaking from `said`. The model has to be built over the parameters of the run.
    pub(super) fn new(
        model: AudioModel,
        feed: SpeechFeed,
        said: Option<Speaking>,
        hints: f64,
    ) -> Result<Self> {
        let heard = feed.validation()?.into_iter().map(|(name, batches)| {
            let batches = batches.into_iter().map(SpeechBatch::Heard);
            (name, batches.collect())
        });
        let mut validation: Vec<ValidationSet<SpeechBatch>> = heard.collect();
        validation.extend(said.as_ref().map(|said| said.kept_out.clone()));
        Ok(Self {
            heard: Mixed::new(model, feed, Vec::new()).with_hints(hints),
            said,
            validation,
        })
    }

    /// The model in its present state.
    pub fn model(&self) -> &AudioModel {
        self.heard.front()
    }
}

impl Objective for SpeechObjective {
    type Batch = SpeechBatch;

    fn next_step(&mut self, step: u64) -> Result<Vec<SpeechBatch>> {
        let heard = self.heard.next_step(step)?;
        let said = self.said.iter().flat_map(|said| said.step(step));
        Ok(heard
            .into_iter()
            .map(SpeechBatch::Heard)
            .chain(said)
            .collect())
    }

    /// There is no place that moves.
    fn skip(&mut self, _step: u64) -> Result<()> {
        Ok(())
    }

    fn validation(&self) -> &[ValidationSet<SpeechBatch>] {
        &self.validation
    }

    fn size(&self, batch: &SpeechBatch) -> BatchSize {
        match batch {
            SpeechBatch::Heard(batch) => self.heard.size(batch),
            SpeechBatch::Said(samples) => {
                let scored = samples.iter().map(Sample::supervised).sum();
                BatchSize {
                    tokens: samples.iter().map(|s| s.sequence.positions()).sum(),
                    scored,
                    weight: scored as f64,
                }
            }
        }
    }

    fn unit(&self) -> LossUnit {
        LossUnit::Token
    }

    fn loss(&self, batch: &SpeechBatch, divisor: f64) -> candle_core::Result<Outcome> {
        match batch {
            SpeechBatch::Heard(batch) => self.heard.loss(batch, divisor),
            SpeechBatch::Said(samples) => {
                let share = self.size(batch).weight / divisor;
                let losses = self.model().losses(samples)?;
                Ok(Outcome::new((losses.total * share)?))
            }
        }
    }
}
