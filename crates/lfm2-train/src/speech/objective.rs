//! [`SpeechObjective`]: clips that are transcribed, texts that are spoken, and questions that are answered.

use lfm2_audio::{AudioConfig, AudioModel, Frame, Mel, Sample, Voice};

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
    /// Texts and their sound, and questions with answers in both.
    Said(Vec<Sample>),
}

/// Texts and the frames that speak them.
#[derive(Debug)]
pub(super) struct Speaking {
    /// By row, and again by row what is an answer; both in the order of their words.
    samples: [Vec<Sample>; 2],
    kept_out: ValidationSet<SpeechBatch>,
    /// Micro-batches of a step, and clips of a micro-batch.
    sizes: (usize, usize),
    growth: Option<LengthGrowth>,
    /// Words of every sample.
    words: [Vec<usize>; 2],
    seed: u64,
}

impl Speaking {
    /// The samples of `rows`; some are kept out.
    pub(super) fn new(
        data: &SpeakData,
        mut rows: SpokenRows,
        reader: &SpeechReader,
        (config, seed): (&AudioConfig, u64),
    ) -> Result<Self> {
        let kept_out = rows.hold_out(data.validation_clips, seed)?;
        let teller = Teller {
            rows: &rows,
            reader,
            config,
        };
        let mut batches = Vec::new();
        for chunk in kept_out.chunks(data.micro_batch_clips) {
            let both = chunk.iter().map(|row| teller.both(row));
            let both = both.collect::<Result<Vec<_>>>()?.into_iter();
            let samples = both.flat_map(|(said, answer)| [Some(said), answer]);
            batches.push(SpeechBatch::Said(samples.flatten().collect()));
        }
        let (mut samples, mut words) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
        for row in rows.rows() {
            let (said, answer) = teller.both(row)?;
            let places = samples.iter_mut().zip(&mut words);
            for ((samples, words), sample) in places.zip([Some(said), answer]) {
                words.extend(sample.is_some().then(|| row.len()));
                samples.extend(sample);
            }
        }
        Ok(Self {
            samples,
            kept_out: (rows.name(), batches),
            sizes: (data.micro_batches, data.micro_batch_clips),
            growth: data.growth,
            words,
            seed,
        })
    }

    /// Where there are answers, they are every second sample.
    fn step(&self, step: u64) -> impl Iterator<Item = SpeechBatch> {
        let pools = self.samples.iter().zip(&self.words);
        let pools: Vec<&[Sample]> = pools
            .filter_map(|(samples, words)| {
                let count = LengthGrowth::count(self.growth, step, words);
                samples.get(..count).filter(|samples| !samples.is_empty())
            })
            .collect();
        (0..self.sizes.0).map(move |number| {
            let label = format!("step {step} spoken batch {number}");
            let mut rng = Rng::labelled(self.seed, &label);
            let one = |pool: &&[Sample]| pool.get(rng.below(pool.len())).cloned();
            let turns = pools.iter().cycle().take(self.sizes.1);
            SpeechBatch::Said(turns.filter_map(one).collect())
        })
    }
}

/// Makes samples of rows.
struct Teller<'a> {
    rows: &'a SpokenRows,
    reader: &'a SpeechReader,
    config: &'a AudioConfig,
}

impl Teller<'_> {
    /// A text that is read aloud, and the answer to a question if the row is one.
    fn both(&self, row: &SpokenRow) -> Result<(Sample, Option<Sample>)> {
        let codebooks = self.config.codebooks;
        if row.codes.is_empty() || row.codes.iter().any(|codes| codes.len() != codebooks) {
            let detail = format!("expected \"codes\" of frames of {codebooks} codes each");
            return Err(self.rows.error(row, detail));
        }
        let frames: Vec<Frame> = row.codes.iter().cloned().map(Frame::new).collect();
        let SpeechReader { front, tokenizer } = self.reader;
        let answer = match self.rows.question(row)? {
            Some(clip) => {
                let question = front.features(&clip)?;
                let said = (row.text.as_str(), frames.clone());
                let answer = Sample::conversation(tokenizer, front, question, said, self.config)?;
                Some(answer)
            }
            None => None,
        };
        let said = (row.text.as_str(), &Voice::default());
        Ok((Sample::speech(tokenizer, front, said, frames)?, answer))
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
