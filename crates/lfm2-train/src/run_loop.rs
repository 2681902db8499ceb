//! [`RunLoop`]: optimiser steps over a run folder, for any [`Objective`].

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use lfm2_generate::Cancel;
use lfm2_kernels::profile::{Op, Work, span};
use serde_json::Value;

use crate::data::SourceReport;
use crate::objective::{BatchSize, LossUnit, Objective};
use crate::optim::{AdamW, AdamWOptions, Gradients, clip_factor};
use crate::options::NonFinitePolicy;
use crate::progress::{StepReport, TrainEvent, TrainProgress, ValidationReport};
use crate::run::{Metric, MetricsLog, Resume, check_identity};
use crate::schedule::Schedule;
use crate::variables::Parameters;
use crate::workers::Workers;
use crate::{Error, Result, balance, loss, plot, report, state};

/// The settings of a loop, whatever it optimises.
#[derive(Debug, Clone, PartialEq)]
pub struct Pace {
    /// The title of curves and reports.
    pub name: String,
    /// Optimiser steps.
    pub steps: u64,
    /// The learning rate.
    pub schedule: Schedule,
    /// The optimiser.
    pub optimizer: AdamWOptions,
    /// The largest norm of a gradient; larger ones are scaled down.
    pub clip: Option<f64>,
    /// What happens when a number is not finite.
    pub non_finite: NonFinitePolicy,
    /// Steps between validations; there is one at the end in any case.
    pub validate_every: u64,
    /// Steps between saved states; there is one at the end in any case.
    pub save_every: u64,
}

impl Pace {
    /// Checks that every setting is in its range.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] naming the key.
    pub fn validate(&self) -> Result<()> {
        let counts = [
            ("steps", self.steps),
            ("validate_every", self.validate_every),
            ("save_every", self.save_every),
        ];
        if let Some((key, _)) = counts.iter().find(|(_, count)| *count == 0) {
            return Err(Error::option(*key, "expected at least 1, found 0"));
        }
        if let Some(clip) = self.clip
            && !(clip.is_finite() && clip > 0.0)
        {
            let detail = format!("expected a number above 0, found {clip}");
            return Err(Error::option("clip", detail));
        }
        self.schedule.validate()?;
        self.optimizer.validate()
    }
}

/// A folder of a run that is open, before or after its first step.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    saved: Option<state::StateHeader>,
    resume: Resume,
}

impl RunFolder {
    /// Opens or makes the folder.
    ///
    /// # Errors
    /// [`Error::RunFolder`] when it holds a state and `resume` forbids that, or the state's header
    /// is damaged.
    pub fn open(path: &Path, resume: Resume) -> Result<Self> {
        std::fs::create_dir_all(path).map_err(|e| Error::io(path, e))?;
        let saved = state::find(path)?;
        if saved.is_some() && resume == Resume::Never {
            let detail = "the folder holds a run already; resume it or choose another";
            return Err(Error::run_folder(path, detail));
        }
        Ok(Self {
            path: path.to_path_buf(),
            saved,
            resume,
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The last finished step of the run in it; 0 for a new one.
    pub fn step(&self) -> u64 {
        self.saved.as_ref().map_or(0, |header| header.step)
    }

    /// Writes `run.json`, or checks that it says the same as when the run was begun. `identity` is
    /// everything that makes this run this run: settings, hashes of data and tokenizer.
    ///
    /// # Errors
    /// [`Error::RunMismatch`] naming the first key that differs.
    pub fn check(&self, identity: &Value) -> Result<()> {
        check_identity(&self.path, identity, self.resume, self.saved.is_some())
    }
}

/// A run: what it optimises, its parameters, its optimiser and its folder.
///
/// The folder holds `run.json` (all settings and the data's hashes), `metrics.jsonl` (one line per
/// step and validation), `loss.svg`, `report.html` and the saved state.
#[derive(Debug)]
pub struct RunLoop<O> {
    objective: O,
    parameters: Parameters,
    optimizer: AdamW,
    pace: Pace,
    folder: PathBuf,
    identity: Value,
    workers: Workers,
    log: MetricsLog,
    step: u64,
}

impl<O: Objective> RunLoop<O> {
    /// Begins a run, or goes on after the state in `folder`. `threads` 0 means one per core and does
    /// not change any result.
    ///
    /// # Errors
    /// Of settings and files; [`Error::RunMismatch`] as [`RunFolder::check`].
    pub fn open(
        folder: &RunFolder,
        identity: Value,
        pace: Pace,
        mut parameters: Parameters,
        mut objective: O,
        threads: usize,
    ) -> Result<Self> {
        pace.validate()?;
        folder.check(&identity)?;
        let optimizer = match &folder.saved {
            Some(header) => state::load(&folder.path, header, &mut parameters, pace.optimizer)?,
            None => AdamW::new(pace.optimizer, &parameters),
        };
        let step = folder.step();
        for done in 1..=step {
            objective.skip(done)?;
        }
        if step > 0 {
            objective.restored(&parameters)?;
        }
        Ok(Self {
            workers: Workers::new(threads)?,
            log: MetricsLog::open(&folder.path, step)?,
            folder: folder.path.clone(),
            objective,
            parameters,
            optimizer,
            pace,
            identity,
            step,
        })
    }

    /// What is optimised.
    pub fn objective(&self) -> &O {
        &self.objective
    }

    /// The trainable parameters.
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// The last finished step.
    pub fn step(&self) -> u64 {
        self.step
    }

    pub(crate) fn metrics(&self) -> &[Metric] {
        self.log.metrics()
    }

    /// Trains until the last step, saving and validating as the settings say. `sources` are told to
    /// `progress` with the first event.
    ///
    /// # Errors
    /// [`Error::NonFinite`] and [`Error::Cancelled`], both after saving the last good state; errors
    /// of files and tensors.
    pub fn train(
        &mut self,
        sources: &[SourceReport],
        vocab_size: usize,
        progress: &dyn TrainProgress,
        cancel: &Cancel,
    ) -> Result<()> {
        progress.event(&TrainEvent::Prepared {
            parameters: self.parameters.elements(),
            vocab_size,
            sources,
            step: self.step,
            steps: self.pace.steps,
        });
        while self.step < self.pace.steps {
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
            let last = self.step == self.pace.steps;
            if last || self.step.is_multiple_of(self.pace.validate_every) {
                self.validate(progress)?;
            }
            if last || self.step.is_multiple_of(self.pace.save_every) {
                self.save(progress)?;
            }
        }
        Ok(())
    }

    /// One optimiser step. On an error nothing has changed but the place in the data.
    fn advance(&mut self) -> Result<StepReport> {
        let begun = Instant::now();
        let step = self.step + 1;
        let batches = self.objective.next_step(step)?;
        let size = self.total(&batches);
        let (sum, gradients) = self.gradients(&batches, size.weight)?;
        let grad_norm = gradients.norm();
        let bad = [("loss", sum.loss), ("gradient norm", grad_norm)]
            .into_iter()
            .find(|(_, value)| !value.is_finite());
        let rate = self.pace.schedule.rate(step);
        match (bad, self.pace.non_finite) {
            (Some((what, value)), NonFinitePolicy::Stop) => {
                return Err(Error::NonFinite { step, what, value });
            }
            (Some(_), NonFinitePolicy::Skip) => {}
            (None, _) => {
                let scale = clip_factor(grad_norm, self.pace.clip);
                self.optimizer
                    .update(&self.parameters, &gradients, rate, scale)?;
                self.objective.updated(&mut self.parameters, &sum.loads)?;
            }
        }
        self.step = step;
        Ok(StepReport {
            step,
            loss: sum.loss,
            rate,
            grad_norm,
            tokens: size.tokens,
            scored: size.scored,
            seconds: begun.elapsed().as_secs_f64(),
            skipped: bad.is_some(),
            figures: sum.figures(),
        })
    }

    fn total(&self, batches: &[O::Batch]) -> BatchSize {
        let sizes = batches.iter().map(|batch| self.objective.size(batch));
        sizes.fold(BatchSize::default(), |sum, size| BatchSize {
            tokens: sum.tokens + size.tokens,
            scored: sum.scored + size.scored,
            weight: sum.weight + size.weight,
        })
    }

    /// The step's loss and figures, and its gradients, summed over the batches in their order.
    fn gradients(&self, batches: &[O::Batch], divisor: f64) -> Result<(Sum, Gradients)> {
        let mut sum = Sum::default();
        let mut all: Option<Gradients> = None;
        let work = |batch: &O::Batch| {
            let _span = span(Op::Pass, &[], Work::NONE);
            let (outcome, gradients) =
                self.objective.gradients(batch, divisor, &self.parameters)?;
            Ok((Part::of(outcome)?, gradients))
        };
        self.workers
            .for_each_in_order(batches, work, |(part, gradients)| {
                sum.add(part);
                match &mut all {
                    None => all = Some(gradients),
                    Some(all) => all.add(&gradients),
                }
            })?;
        let none = || Error::option("micro_batches", "expected at least 1, found 0");
        Ok((sum, all.ok_or_else(none)?))
    }

    fn validate(&mut self, progress: &dyn TrainProgress) -> Result<()> {
        let mut reports = Vec::new();
        for (source, batches) in self.objective.validation() {
            let divisor = self.total(batches).weight;
            let mut sum = Sum::default();
            let work = |batch: &O::Batch| Part::of(self.objective.loss(batch, divisor)?);
            self.workers
                .for_each_in_order(batches, work, |part| sum.add(part))?;
            reports.push(ValidationReport {
                step: self.step,
                source: source.clone(),
                loss: sum.loss,
                perplexity: match self.objective.unit() {
                    LossUnit::Token => Some(loss::perplexity(sum.loss)),
                    LossUnit::Item => None,
                },
                figures: sum.figures(),
            });
        }
        progress.event(&TrainEvent::Validation(&reports));
        for report in reports {
            self.log.push(Metric::Validation(report))?;
        }
        let metrics = self.log.metrics();
        plot::write(&self.folder.join("loss.svg"), &self.pace.name, metrics)?;
        let page = self.folder.join("report.html");
        report::write(&page, &self.pace.name, &self.identity, metrics)
    }

    fn save(&self, progress: &dyn TrainProgress) -> Result<()> {
        state::save(&self.folder, self.step, &self.parameters, &self.optimizer)?;
        progress.event(&TrainEvent::Saved { step: self.step });
        Ok(())
    }
}

/// An outcome without its graph.
struct Part {
    loss: f64,
    figures: Vec<(&'static str, f64)>,
    loads: Vec<Vec<u64>>,
}

impl Part {
    fn of(outcome: crate::Outcome) -> Result<Self> {
        Ok(Self {
            loss: f64::from(outcome.loss.to_scalar::<f32>()?),
            figures: outcome.figures,
            loads: outcome.loads,
        })
    }
}

/// The parts of a step together.
#[derive(Default)]
struct Sum {
    loss: f64,
    figures: BTreeMap<&'static str, f64>,
    loads: Vec<Vec<u64>>,
}

impl Sum {
    fn add(&mut self, part: Part) {
        self.loss += part.loss;
        for (name, value) in part.figures {
            *self.figures.entry(name).or_default() += value;
        }
        self.loads
            .resize_with(part.loads.len().max(self.loads.len()), Vec::new);
        for (sum, load) in self.loads.iter_mut().zip(part.loads) {
            sum.resize(load.len().max(sum.len()), 0);
            sum.iter_mut().zip(load).for_each(|(sum, n)| *sum += n);
        }
    }

    /// The figures, with the worst overload of a mixture layer.
    fn figures(&self) -> BTreeMap<String, f64> {
        let worst = self.loads.iter().map(|load| balance::overload(load));
        let worst = worst.fold(None, |worst: Option<f64>, x| {
            Some(worst.map_or(x, |w| w.max(x)))
        });
        let named = self.figures.iter();
        named
            .map(|(name, value)| ((*name).to_string(), *value))
            .chain(worst.map(|x| ("expert_overload".to_string(), x)))
            .collect()
    }
}
