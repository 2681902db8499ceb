//! [`Trainer`]: the loop of optimiser steps over a run folder.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use candle_core::{DType, Device};
use lfm2_generate::Cancel;
use lfm2_hub::TensorSource;
use lfm2_nn::{Cache, Decoder, Input, Want, Weights};
use lfm2_text::TextModel;

use crate::data::{Batches, MicroBatch, SourceReport, pack};
use crate::file::write_text;
use crate::optim::{AdamW, Gradients, clip_factor};
use crate::options::{NonFinitePolicy, TrainOptions};
use crate::prepare::{Prepared, prepare, sha256};
use crate::progress::{StepReport, TrainEvent, TrainProgress, ValidationReport};
use crate::run::{Metric, MetricsLog, Resume, check_identity, identity};
use crate::variables::Parameters;
use crate::workers::Workers;
use crate::{Error, Result, export, loss, plot, state};

/// A training run: its model, its data and its folder.
///
/// The folder holds `run.json` (all settings and the data's hashes), `config.json` (the model),
/// `metrics.jsonl` (one line per step and validation), `loss.svg` and the saved state.
#[derive(Debug)]
pub struct Trainer {
    options: TrainOptions,
    folder: PathBuf,
    prepared: Prepared,
    model: TextModel,
    optimizer: AdamW,
    batches: Batches,
    validation: Vec<(String, Vec<MicroBatch>)>,
    workers: Workers,
    log: MetricsLog,
    reports: Vec<SourceReport>,
    step: u64,
}

impl Trainer {
    /// Prepares a run in the folder `run`, or continues the one that is there. Relative paths of
    /// `options` start at `base`; `threads` 0 means one per core and does not change any result.
    ///
    /// # Errors
    /// Of options, data and base checkpoint; [`Error::RunMismatch`] when the folder's run had other
    /// settings or data and `resume` does not force it; [`Error::RunFolder`] when it has a state
    /// and `resume` forbids that.
    pub fn open(
        options: TrainOptions,
        base: &Path,
        run: &Path,
        resume: Resume,
        threads: usize,
    ) -> Result<Self> {
        options.validate()?;
        std::fs::create_dir_all(run).map_err(|e| Error::io(run, e))?;
        let saved = state::find(run)?;
        if saved.is_some() && resume == Resume::Never {
            return Err(Error::run_folder(
                run,
                "the folder holds a run already; resume it or choose another",
            ));
        }
        let mut prepared = prepare(&options, base)?;
        let reports: Vec<SourceReport> =
            prepared.sources.iter().map(|s| s.report.clone()).collect();
        let names = options
            .data
            .iter()
            .map(|source| source.path.display().to_string());
        let hashes: Vec<_> = names
            .zip(reports.iter().map(|r| r.sha256.clone()))
            .collect();
        let identity = identity(&options, &hashes, &sha256(&prepared.tokenizer.to_json()?))?;
        check_identity(run, &identity, resume, saved.is_some())?;
        write_text(
            &run.join("config.json"),
            &format!("{:#}\n", prepared.config_json),
        )?;

        let optimizer = match &saved {
            Some(header) => state::load(run, header, &prepared.parameters, options.optimizer)?,
            None => AdamW::new(options.optimizer, &prepared.parameters),
        };
        let step = saved.map_or(0, |header| header.step);
        let validation = validation_batches(&options, &mut prepared);
        let shares = options.data.iter().map(|source| source.share);
        let sources = std::mem::take(&mut prepared.sources)
            .into_iter()
            .zip(shares)
            .collect();
        let sizes = (options.micro_batch_tokens, options.micro_batches);
        let mut batches = Batches::new(sources, sizes.0, sizes.1, options.steps, options.seed)?;
        (1..=step).for_each(|done| drop(batches.next_step(done)));
        Ok(Self {
            model: build_model(&prepared)?,
            workers: Workers::new(threads)?,
            log: MetricsLog::open(run, step)?,
            folder: run.to_path_buf(),
            options,
            prepared,
            optimizer,
            batches,
            validation,
            reports,
            step,
        })
    }

    /// The model in its present state.
    pub fn model(&self) -> &TextModel {
        &self.model
    }

    /// The trainable parameters.
    pub fn parameters(&self) -> &Parameters {
        &self.prepared.parameters
    }

    /// The last finished step.
    pub fn step(&self) -> u64 {
        self.step
    }

    /// Trains until the last step, saving and validating as the options say.
    ///
    /// # Errors
    /// [`Error::NonFinite`] and [`Error::Cancelled`], both after saving the last good state; errors
    /// of files and tensors.
    pub fn train(&mut self, progress: &dyn TrainProgress, cancel: &Cancel) -> Result<()> {
        progress.event(&TrainEvent::Prepared {
            parameters: self.parameters().elements(),
            vocab_size: self.prepared.config.vocab_size,
            sources: &self.reports,
            step: self.step,
            steps: self.options.steps,
        });
        while self.step < self.options.steps {
            if cancel.is_cancelled() {
                self.save(progress)?;
                return Err(Error::Cancelled { step: self.step });
            }
            let report = match self.advance() {
                Ok(report) => report,
                Err(error @ Error::NonFinite { .. }) => {
                    self.save(progress)?;
                    return Err(error);
                }
                Err(error) => return Err(error),
            };
            progress.event(&TrainEvent::Step(&report));
            self.log.push(Metric::Step(report))?;
            let last = self.step == self.options.steps;
            if last || self.step.is_multiple_of(self.options.validate_every) {
                self.validate(progress)?;
            }
            if last || self.step.is_multiple_of(self.options.save_every) {
                self.save(progress)?;
            }
        }
        Ok(())
    }

    /// Writes a complete checkpoint folder: config, weights, tokenizer, template and model card.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn export(&self, folder: &Path) -> Result<()> {
        export::export(
            folder,
            &self.options,
            &self.prepared,
            &self.reports,
            self.log.metrics(),
        )
    }

    /// One optimiser step. On an error nothing has changed but the place in the data.
    fn advance(&mut self) -> Result<StepReport> {
        let begun = Instant::now();
        let step = self.step + 1;
        let batches = self.batches.next_step(step);
        let (loss, gradients) = self.gradients(&batches)?;
        let grad_norm = gradients.norm();
        let bad = [("loss", loss), ("gradient norm", grad_norm)]
            .into_iter()
            .find(|(_, value)| !value.is_finite());
        let rate = self.options.schedule.rate(step);
        match (bad, self.options.non_finite) {
            (Some((what, value)), NonFinitePolicy::Stop) => {
                return Err(Error::NonFinite { step, what, value });
            }
            (Some(_), NonFinitePolicy::Skip) => {}
            (None, _) => {
                let scale = clip_factor(grad_norm, self.options.clip);
                self.optimizer
                    .update(&self.prepared.parameters, &gradients, rate, scale)?;
            }
        }
        self.step = step;
        Ok(StepReport {
            step,
            loss,
            rate,
            grad_norm,
            tokens: batches.iter().map(MicroBatch::tokens).sum(),
            scored: batches.iter().map(MicroBatch::scored).sum(),
            seconds: begun.elapsed().as_secs_f64(),
            skipped: bad.is_some(),
        })
    }

    /// Weighted mean loss over the scored tokens of all micro-batches, and its gradients.
    fn gradients(&self, batches: &[MicroBatch]) -> Result<(f64, Gradients)> {
        let weight = batches.iter().map(MicroBatch::weight).sum();
        let parameters = &self.prepared.parameters;
        let mut sum: Option<(f64, Gradients)> = None;
        let work =
            |batch: &MicroBatch| Ok(batch_gradients(&self.model, parameters, batch, weight)?);
        self.workers
            .for_each_in_order(batches, work, |(loss, gradients)| match &mut sum {
                None => sum = Some((loss, gradients)),
                Some((total, all)) => {
                    *total += loss;
                    all.add(&gradients);
                }
            })?;
        sum.ok_or_else(|| Error::option("micro_batches", "expected at least 1, found 0"))
    }

    fn validate(&mut self, progress: &dyn TrainProgress) -> Result<()> {
        let mut reports = Vec::new();
        for (source, batches) in &self.validation {
            let weight = batches.iter().map(MicroBatch::weight).sum();
            let mut loss = 0.0;
            let work = |batch: &MicroBatch| -> Result<f64> {
                let loss = batch_loss(&self.model, batch, weight)?;
                Ok(f64::from(loss.to_scalar::<f32>()?))
            };
            self.workers
                .for_each_in_order(batches, work, |part| loss += part)?;
            let perplexity = loss::perplexity(loss);
            reports.push(ValidationReport {
                step: self.step,
                source: source.clone(),
                loss,
                perplexity,
            });
        }
        progress.event(&TrainEvent::Validation(&reports));
        for report in reports {
            self.log.push(Metric::Validation(report))?;
        }
        plot::write(
            &self.folder.join("loss.svg"),
            &self.options.name,
            self.log.metrics(),
        )
    }

    fn save(&self, progress: &dyn TrainProgress) -> Result<()> {
        state::save(
            &self.folder,
            self.step,
            &self.prepared.parameters,
            &self.optimizer,
        )?;
        progress.event(&TrainEvent::Saved { step: self.step });
        Ok(())
    }
}

fn build_model(prepared: &Prepared) -> Result<TextModel> {
    let source: Arc<dyn TensorSource> = Arc::new(prepared.parameters.clone());
    Ok(TextModel::load(
        prepared.config.clone(),
        &Weights::new(source, DType::F32, &Device::Cpu),
    )?)
}

/// The documents kept out of every source, packed.
fn validation_batches(
    options: &TrainOptions,
    prepared: &mut Prepared,
) -> Vec<(String, Vec<MicroBatch>)> {
    let sources = options.data.iter().zip(&mut prepared.sources);
    let packed = sources.map(|(source, read)| {
        let name = source.path.file_name().unwrap_or(source.path.as_os_str());
        let batches = pack(
            &std::mem::take(&mut read.validation),
            options.micro_batch_tokens,
        );
        (name.to_string_lossy().into_owned(), batches)
    });
    packed.filter(|(_, batches)| !batches.is_empty()).collect()
}

/// The loss of one micro-batch, its weighted sum over scored tokens divided by `divisor`.
///
/// # Errors
/// When the model fails, for example at an id outside its vocabulary.
pub fn batch_loss(
    model: &dyn Decoder,
    batch: &MicroBatch,
    divisor: f64,
) -> candle_core::Result<candle_core::Tensor> {
    let ids = batch.ids(model.device())?;
    let mut cache = Cache::stateless(batch.documents());
    let logits = model.forward(Input::Ids(&ids), &batch.step(), &mut cache, Want::AllLogits)?;
    loss::next_token(&logits, batch.targets(), divisor)
}

/// [`batch_loss`] and its gradient with respect to every parameter the model was built over; zero
/// for a parameter that took no part.
///
/// # Errors
/// As [`batch_loss`].
pub fn batch_gradients(
    model: &dyn Decoder,
    parameters: &Parameters,
    batch: &MicroBatch,
    divisor: f64,
) -> candle_core::Result<(f64, Gradients)> {
    let loss = batch_loss(model, batch, divisor)?;
    let store = loss.backward()?;
    let tensors = parameters.iter().map(|p| match store.get(p.tensor()) {
        Some(gradient) => gradient.flatten_all()?.to_vec1::<f32>(),
        None => Ok(vec![0.0; p.elements()]),
    });
    Ok((
        f64::from(loss.to_scalar::<f32>()?),
        Gradients {
            tensors: tensors.collect::<candle_core::Result<_>>()?,
        },
    ))
}
