//! [`SoundObjective`]: the sound of codes beside the right one.

use candle_core::{Device, Tensor};
use lfm2_audio::{Detokenizer, FRAME_SAMPLES, OUTPUT_RATE};
use lfm2_nn::Cache;

use super::options::SoundOptions;
use super::waves::Waves;
use crate::Result;
use crate::objective::{BatchSize, LossUnit, Objective, Outcome, ValidationSet};
use crate::rng::Rng;
use crate::speech::{SpokenRow, SpokenRows};

/// Some frames of a clip and their sound.
#[derive(Debug, Clone)]
pub struct Segment {
    codes: Vec<Vec<u32>>,
    samples: Vec<f32>,
}

/// The objective of a detokenizer.
#[derive(Debug)]
pub struct SoundObjective {
    model: Detokenizer,
    waves: Waves,
    clips: Vec<Segment>,
    validation: Vec<ValidationSet<Vec<Segment>>>,
    /// Micro-batches of a step, clips of a micro-batch, and the most frames of a clip.
    sizes: (usize, usize, usize),
    seed: u64,
}

/// A row as codes and samples, one frame of the one for every frame of the other.
fn segment(rows: &SpokenRows, row: &SpokenRow, codebooks: usize) -> Result<Segment> {
    if row.codes.is_empty() || row.codes.iter().any(|frame| frame.len() != codebooks) {
        let detail = format!("expected \"codes\" of frames of {codebooks} codes each");
        return Err(rows.error(row, detail));
    }
    let clip = rows.clip(row)?;
    let found = (clip.rate(), clip.samples().len());
    let expected = (OUTPUT_RATE, row.codes.len() * FRAME_SAMPLES);
    if found != expected {
        let detail = format!(
            "expected {} samples at {} per second for {} frames of codes, found {} at {}",
            expected.1,
            expected.0,
            row.codes.len(),
            found.1,
            found.0
        );
        return Err(rows.error(row, detail));
    }
    Ok(Segment {
        codes: row.codes.clone(),
        samples: clip.samples().to_vec(),
    })
}

impl Segment {
    /// At most `most` frames, from frame `first` on.
    fn part(&self, first: usize, most: usize) -> Self {
        let end = (first + most).min(self.codes.len());
        Self {
            codes: self.codes[first..end].to_vec(),
            samples: self.samples[first * FRAME_SAMPLES..end * FRAME_SAMPLES].to_vec(),
        }
    }
}

impl SoundObjective {
    /// Learning from `rows`, of which some are kept out. The model has to be built over the parameters of the run.
    pub(super) fn new(
        options: &SoundOptions,
        model: Detokenizer,
        waves: Waves,
        mut rows: SpokenRows,
    ) -> Result<Self> {
        let kept_out = rows.hold_out(options.validation_clips, options.seed)?;
        let read = |row: &SpokenRow| segment(&rows, row, options.codebooks);
        let clips = rows.rows().iter().map(read).collect::<Result<Vec<_>>>()?;
        let kept_out = kept_out.iter().map(read).collect::<Result<Vec<_>>>()?;
        let batches = kept_out
            .chunks(options.micro_batch_clips)
            .map(<[Segment]>::to_vec);
        Ok(Self {
            validation: vec![(rows.name(), batches.collect())],
            model,
            waves,
            clips,
            sizes: (
                options.micro_batches,
                options.micro_batch_clips,
                options.frames,
            ),
            seed: options.seed,
        })
    }

    fn distance(&self, segment: &Segment) -> candle_core::Result<Tensor> {
        let embedded = self.model.embed(&segment.codes)?;
        let hidden = self.model.hidden(&embedded, &mut Cache::stateless(1))?;
        let spectrum = self.model.spectrum(&hidden)?;
        let target = Tensor::from_slice(&segment.samples, segment.samples.len(), &Device::Cpu)?;
        self.waves.distance(&spectrum, &target)
    }
}

impl Objective for SoundObjective {
    type Batch = Vec<Segment>;

    fn next_step(&mut self, step: u64) -> Result<Vec<Self::Batch>> {
        let (batches, clips, frames) = self.sizes;
        let batch = |number: usize| {
            let mut rng = Rng::labelled(self.seed, &format!("step {step} batch {number}"));
            let some = (0..clips).filter_map(|_| {
                let clip = self.clips.get(rng.below(self.clips.len()))?;
                let spare = clip.codes.len().saturating_sub(frames);
                Some(clip.part(rng.below(spare + 1), frames))
            });
            some.collect()
        };
        Ok((0..batches).map(batch).collect())
    }

    /// There is no place that moves.
    fn skip(&mut self, _step: u64) -> Result<()> {
        Ok(())
    }

    fn validation(&self) -> &[ValidationSet<Self::Batch>] {
        &self.validation
    }

    fn size(&self, batch: &Self::Batch) -> BatchSize {
        BatchSize {
            tokens: batch.iter().map(|segment| segment.codes.len()).sum(),
            scored: batch.len(),
            weight: batch.len() as f64,
        }
    }

    fn unit(&self) -> LossUnit {
        LossUnit::Item
    }

    fn loss(&self, batch: &Self::Batch, divisor: f64) -> candle_core::Result<Outcome> {
        let mut sum = Tensor::zeros((), candle_core::DType::F32, &Device::Cpu)?;
        for segment in batch {
            sum = (sum + self.distance(segment)?)?;
        }
        Ok(Outcome::new((sum / divisor)?))
    }
}
