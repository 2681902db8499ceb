//! [`Language`]: the objectives of text models. Documents with next-token prediction, with or without a
//! teacher, or pairs of answers.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor, Var};
use lfm2_hub::TensorSource;
use lfm2_nn::{Cache, Decoder, Input, Observer, Routing, Want, Weights, expert_load};
use lfm2_text::{TextConfig, TextModel};

use crate::balance::Balance;
use crate::data::{Batches, MicroBatch};
use crate::lora::LoraSource;
use crate::loss::{self, Distillation, TopK};
use crate::objective::{BatchSize, LossUnit, Objective, Outcome, ValidationSet};
use crate::optim::Gradients;
use crate::options::Activations;
use crate::pairs::{PairBatch, PairBatches};
use crate::teacher::TeacherStore;
use crate::variables::Parameters;
use crate::{Error, Result};

/// A part of a step.
#[derive(Debug, Clone)]
pub enum LanguageBatch {
    /// Documents, and what a teacher says of them.
    Documents(MicroBatch, Option<TopK>),
    /// Pairs of answers.
    Pairs(PairBatch),
}

/// Distillation beside next-token prediction.
#[derive(Debug)]
pub(crate) struct Teaching {
    pub(crate) store: TeacherStore,
    /// The share of the teacher in the loss; the rest is next-token prediction.
    pub(crate) share: f64,
    pub(crate) loss: Distillation,
}

/// Where batches come from.
#[derive(Debug)]
pub(crate) enum Stream {
    Documents(Batches, Option<Teaching>),
    Pairs(PairBatches),
}

/// The objective of a text model.
#[derive(Debug)]
pub struct Language {
    config: TextConfig,
    /// What the adapters are added to, if only those are trained.
    frozen: Option<Arc<LoraSource>>,
    model: TextModel,
    stream: Stream,
    validation: Vec<ValidationSet<LanguageBatch>>,
    balance: Option<Balance>,
    activations: Activations,
}

impl LanguageBatch {
    /// What the model reads.
    fn documents(&self) -> &MicroBatch {
        match self {
            Self::Documents(batch, _) => batch,
            Self::Pairs(batch) => batch.documents(),
        }
    }
}

impl Language {
    /// An objective over the model of `config` and `parameters`; with `frozen` the parameters are
    /// adapters of its matrices.
    ///
    /// # Errors
    /// When the model cannot be built over the parameters.
    pub(crate) fn new(
        config: TextConfig,
        frozen: Option<LoraSource>,
        parameters: &Parameters,
        stream: Stream,
        validation: Vec<ValidationSet<LanguageBatch>>,
        (balance, activations): (Option<Balance>, Activations),
    ) -> Result<Self> {
        let frozen = frozen.map(Arc::new);
        Ok(Self {
            model: build(&config, frozen.as_ref(), parameters)?,
            config,
            frozen,
            stream,
            validation,
            balance,
            activations,
        })
    }

    /// The model in its present state.
    pub fn model(&self) -> &TextModel {
        &self.model
    }

    /// What the model says of a packed batch, and how its tokens were routed.
    fn forward(&self, batch: &MicroBatch, want: Want) -> candle_core::Result<(Tensor, Loads)> {
        let ids = batch.ids(self.model.device())?;
        let mut cache = Cache::stateless(batch.documents());
        let mut loads = Loads::default();
        let said = self.model.forward_observed(
            Input::Ids(&ids),
            &batch.step(),
            &mut cache,
            want,
            self.observer(&mut loads),
        )?;
        Ok((said, loads))
    }

    /// Somebody who counts, where there are experts.
    fn observer<'a>(&self, loads: &'a mut Loads) -> Option<&'a mut dyn Observer> {
        self.config
            .moe
            .is_some()
            .then_some(loads as &'a mut dyn Observer)
    }

    fn loss_of(
        &self,
        batch: &LanguageBatch,
        (logits, loads): (&Tensor, Loads),
        divisor: f64,
    ) -> candle_core::Result<Outcome> {
        let outcome = match (batch, &self.stream) {
            (LanguageBatch::Documents(batch, Some(list)), Stream::Documents(_, Some(teaching))) => {
                teaching.loss(logits, batch, list, divisor)?
            }
            (LanguageBatch::Documents(batch, _), _) => {
                Outcome::new(loss::next_token(logits, batch.targets(), divisor)?)
            }
            (LanguageBatch::Pairs(batch), Stream::Pairs(pairs)) => {
                let documents = batch.documents();
                let lens = documents.lens();
                let answers = loss::sequence_logprobs(logits, documents.targets(), lens)?;
                batch.loss(&answers, pairs.options(), divisor)?
            }
            (LanguageBatch::Pairs(_), _) => candle_core::bail!("pairs in a run on documents"),
        };
        Ok(Outcome {
            loads: loads.0,
            ..outcome
        })
    }

    /// The gradients with no more than one layer's activations in memory: forward without a graph, then
    /// layer by layer from the last one, each computed anew.
    fn recomputed(
        &self,
        batch: &LanguageBatch,
        divisor: f64,
        parameters: &Parameters,
    ) -> candle_core::Result<(Outcome, Gradients)> {
        let documents = batch.documents();
        let (ids, step) = (documents.ids(self.model.device())?, documents.step());
        let mut loads = Loads::default();
        let mut inputs = Vec::with_capacity(self.config.layers.len());
        let mut x = self.model.embed_tokens(&ids)?.detach();
        for layer in 0..self.config.layers.len() {
            let observer = self.observer(&mut loads);
            let next = self.model.layer_alone(layer, &x, &step, observer)?;
            inputs.push(std::mem::replace(&mut x, next.detach()));
        }
        let top = Var::from_tensor(&x)?;
        let logits = self.model.logits(&top)?;
        let outcome = self.loss_of(batch, (&logits, loads), divisor)?;
        let store = outcome.loss.backward()?;
        let mut gradients = Gradients::of(&store, parameters)?;
        let mut upstream = store.get(&top).cloned();
        for (layer, x) in inputs.into_iter().enumerate().rev() {
            let Some(above) = upstream else { break };
            let x = Var::from_tensor(&x)?;
            let y = self.model.layer_alone(layer, &x, &step, None)?;
            let store = (y * above)?.sum_all()?.backward()?;
            gradients.add(&Gradients::of(&store, parameters)?);
            upstream = store.get(&x).cloned();
        }
        if let Some(above) = upstream {
            let x = self.model.embed_tokens(&ids)?;
            let store = (x * above)?.sum_all()?.backward()?;
            gradients.add(&Gradients::of(&store, parameters)?);
        }
        Ok((outcome, gradients))
    }
}

impl Teaching {
    fn loss(
        &self,
        logits: &Tensor,
        batch: &MicroBatch,
        list: &TopK,
        divisor: f64,
    ) -> candle_core::Result<Outcome> {
        let hard = loss::next_token(logits, batch.targets(), divisor)?;
        let weights: Vec<f32> = batch.targets().iter().map(|t| t.weight).collect();
        let soft = loss::distill(logits, list, &weights, self.loss, divisor)?;
        let figures = vec![
            ("next_token", scalar(&hard)?),
            ("distillation", scalar(&soft)?),
        ];
        let mixed = ((hard * (1.0 - self.share))? + (soft * self.share)?)?;
        Ok(Outcome {
            figures,
            ..Outcome::new(mixed)
        })
    }
}

impl Objective for Language {
    type Batch = LanguageBatch;

    fn next_step(&mut self, step: u64) -> Result<Vec<LanguageBatch>> {
        match &mut self.stream {
            Stream::Documents(batches, teaching) => {
                let batches = batches.next_step(step).into_iter().map(|batch| {
                    let list = match teaching {
                        Some(teaching) => Some(teaching.store.read(&batch)?),
                        None => None,
                    };
                    Ok(LanguageBatch::Documents(batch, list))
                });
                batches.collect()
            }
            Stream::Pairs(pairs) => {
                let batches = pairs.next_step()?;
                Ok(batches.into_iter().map(LanguageBatch::Pairs).collect())
            }
        }
    }

    fn skip(&mut self, step: u64) -> Result<()> {
        match &mut self.stream {
            Stream::Documents(batches, _) => drop(batches.next_step(step)),
            Stream::Pairs(pairs) => drop(pairs.next_step()?),
        }
        Ok(())
    }

    fn validation(&self) -> &[ValidationSet<LanguageBatch>] {
        &self.validation
    }

    fn size(&self, batch: &LanguageBatch) -> BatchSize {
        match batch {
            LanguageBatch::Documents(batch, _) => BatchSize {
                tokens: batch.tokens(),
                scored: batch.scored(),
                weight: batch.weight(),
            },
            LanguageBatch::Pairs(batch) => BatchSize {
                tokens: batch.documents().tokens(),
                scored: batch.pairs(),
                weight: batch.pairs() as f64,
            },
        }
    }

    fn unit(&self) -> LossUnit {
        match self.stream {
            Stream::Documents(..) => LossUnit::Token,
            Stream::Pairs(_) => LossUnit::Item,
        }
    }

    fn loss(&self, batch: &LanguageBatch, divisor: f64) -> candle_core::Result<Outcome> {
        let documents = batch.documents();
        if let (LanguageBatch::Documents(_, None), Some(head)) = (batch, self.model.head_weight()) {
            let (hidden, loads) = self.forward(documents, Want::Hidden)?;
            let loss = loss::next_token_of(&hidden, head, documents.targets(), divisor)?;
            return Ok(Outcome {
                loads: loads.0,
                ..Outcome::new(loss)
            });
        }
        let (logits, loads) = self.forward(documents, Want::AllLogits)?;
        self.loss_of(batch, (&logits, loads), divisor)
    }

    fn gradients(
        &self,
        batch: &LanguageBatch,
        divisor: f64,
        parameters: &Parameters,
    ) -> candle_core::Result<(Outcome, Gradients)> {
        match self.activations {
            Activations::Keep => {
                let outcome = self.loss(batch, divisor)?;
                let gradients = Gradients::of(&outcome.loss.backward()?, parameters)?;
                Ok((outcome, gradients))
            }
            Activations::Recompute => self.recomputed(batch, divisor, parameters),
        }
    }

    fn updated(&mut self, parameters: &mut Parameters, loads: &[Vec<u64>]) -> Result<()> {
        let moved = match self.balance {
            Some(balance) => move_biases(balance, parameters, loads)?,
            None => false,
        };
        // Other updates are in place, and the model sees them.
        if moved || self.frozen.is_some() {
            self.model = build(&self.config, self.frozen.as_ref(), parameters)?;
        }
        Ok(())
    }

    fn restored(&mut self, parameters: &Parameters) -> Result<()> {
        self.model = build(&self.config, self.frozen.as_ref(), parameters)?;
        Ok(())
    }
}

fn scalar(x: &Tensor) -> candle_core::Result<f64> {
    Ok(f64::from(x.to_scalar::<f32>()?))
}

fn build(
    config: &TextConfig,
    frozen: Option<&Arc<LoraSource>>,
    parameters: &Parameters,
) -> Result<TextModel> {
    let source: Arc<dyn TensorSource> = match frozen {
        Some(frozen) => Arc::new(frozen.with(parameters)),
        None => Arc::new(parameters.clone()),
    };
    let weights = Weights::new(source, DType::F32, &Device::Cpu);
    Ok(TextModel::load(config.clone(), &weights)?)
}

/// Moves the bias of every mixture layer against its load; says whether there was one.
fn move_biases(balance: Balance, parameters: &mut Parameters, loads: &[Vec<u64>]) -> Result<bool> {
    let mut names: Vec<(usize, String)> = Vec::new();
    for name in parameters.fixed().keys() {
        let Some(layer) = layer_of(name) else {
            return Err(Error::option(
                name,
                "expected a layer in the name of a bias",
            ));
        };
        names.push((layer, name.clone()));
    }
    // Loads come in the order of layers, which is not that of names.
    names.sort();
    if names.len() != loads.len() {
        let detail = format!(
            "expected loads of {} layers, found {}",
            names.len(),
            loads.len()
        );
        return Err(Error::option("expert_bias", detail));
    }
    for ((_, name), load) in names.iter().zip(loads) {
        let Some(old) = parameters.fixed().get(name) else {
            continue;
        };
        let mut bias = old.to_vec1::<f32>()?;
        balance.adjust(&mut bias, load)?;
        parameters.set_fixed(name, Tensor::new(bias, &Device::Cpu)?)?;
    }
    Ok(!names.is_empty())
}

fn layer_of(name: &str) -> Option<usize> {
    let mut parts = name.split('.').skip_while(|part| *part != "layers");
    parts.nth(1)?.parse().ok()
}

/// Counts tokens per expert of every mixture layer.
#[derive(Default)]
struct Loads(Vec<Vec<u64>>);

impl Observer for Loads {
    fn routed(&mut self, _layer: usize, routing: &Routing) -> candle_core::Result<()> {
        let experts = routing.logits.dims2()?.1;
        let load = expert_load(routing, experts);
        self.0.push(load.into_iter().map(|n| n as u64).collect());
        Ok(())
    }
}
