//! (f) What does a packed text see of the one before it when convolutions are not reset at the border?
//!
//! The product always resets. Here convolution layers can be run over a whole pass as if it were one
//! text, while attention keeps its borders: that is what packing looks like without care. It also shows
//! how a method of training of one's own gets into the loop of this project.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use lfm2::hub::{Checkpoint, ModelSource, Overwrite, write_safetensors};
use lfm2::nn::{Decoder, Step, Weights};
use lfm2::text::{LayerKind, TextConfig, TextModel};
use lfm2::{Cancel, DType, Device, Tensor};
use lfm2_train::data::{Batches, Encoder, MicroBatch, Share, Source, SourceOptions, pack};
use lfm2_train::loss::next_token;
use lfm2_train::{
    BatchSize, LossUnit, Objective, Outcome, Parameters, Resume, RunFolder, RunLoop, TensorResult,
    TrainOptions, ValidationSet,
};
use serde_json::json;

use crate::lab::Lab;
use crate::measure::{Figures, answers};
use crate::recipes::{Plan, base, from, questions, run};
use crate::results::Row;

const PLAN: Plan = Plan {
    steps: 40,
    tokens: 1024,
    peak: 3e-3,
};
const ITEMS: usize = 800;
/// Tokens at the beginning of a text that the convolutions of one layer reach across its border.
const NEAR: usize = 2;

/// What convolutions do at the border of two texts in a pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Border {
    Reset,
    Leaking,
}

/// Next-token prediction on packed texts.
struct Packed {
    config: TextConfig,
    model: TextModel,
    batches: Batches,
    validation: Vec<ValidationSet<MicroBatch>>,
    border: Border,
}

pub(crate) fn run_seed(lab: &Lab, seed: u64) -> Result<Vec<Row>> {
    let start = base(lab, seed)?;
    let mut rows = Vec::new();
    for (variant, border) in [("reset", Border::Reset), ("leaking", Border::Leaking)] {
        let name = format!("packing/{variant}/seed-{seed}");
        let (model, alone) = tune(lab, &name, &start, border, seed)?;
        let leak = leak(&model, &alone)?;
        let figures = Figures::new()
            .with("right answers", answers(lab, &model)?.right)
            .with("loss alone", leak.alone)
            .with("loss packed, leaking", leak.packed)
            .with("change of a log-probability, first two tokens", leak.near)
            .with("change of a log-probability, others", leak.far)
            .with("likeliest token another", leak.flipped);
        rows.push(Row::new(variant, seed, figures));
    }
    Ok(rows)
}

/// Fine-tunes with packed texts; returns the checkpoint and the texts kept out.
fn tune(
    lab: &Lab,
    name: &str,
    start: &Path,
    border: Border,
    seed: u64,
) -> Result<(PathBuf, Vec<MicroBatch>)> {
    let mut source = questions();
    source["path"] = json!(lab.part("chat-questions.jsonl.gz", ITEMS)?);
    let settings = run(&from(start), &json!([source]), PLAN, seed);
    let options: TrainOptions = serde_json::from_value(settings.clone())?;
    let checkpoint = Checkpoint::open(&ModelSource::from_path(start), &Default::default())?;
    let config = TextConfig::from_json(checkpoint.config())?;
    let parameters = Parameters::from_source(config.tensors(), &*checkpoint.tensors())?;
    let tokenizer = checkpoint.tokenizer()?;
    let template = lfm2::TextModel::open(start)?.template()?.clone();
    let encoder = Encoder {
        tokenizer: &tokenizer,
        template: &template,
        eos: config.eos_token_ids.first().copied().unwrap_or_default(),
        max_tokens: PLAN.tokens,
    };
    let read: SourceOptions = serde_json::from_value(source)?;
    let source = Source::read(&read, &lab.data, &encoder, seed)?;
    let alone = pack(&source.validation, PLAN.tokens);

    let folder = lab.work.join(name);
    let out = folder.join("checkpoint");
    let opened = RunFolder::open(&folder, Resume::Continue)?;
    let identity = json!({"options": settings, "border": format!("{border:?}")});
    opened.check(&identity)?;
    let objective = Packed {
        model: model(&config, &parameters)?,
        config,
        batches: Batches::new(
            vec![(source, Share::default())],
            PLAN.tokens,
            options.micro_batches,
            options.steps,
            seed,
        )?,
        validation: vec![("kept out".to_owned(), alone.clone())],
        border,
    };
    println!("{name}");
    let pace = lfm2_train::Pace {
        name: name.to_owned(),
        steps: options.steps,
        schedule: options.schedule,
        optimizer: options.optimizer,
        clip: options.clip,
        non_finite: options.non_finite,
        validate_every: options.validate_every,
        save_every: options.save_every,
    };
    let mut run = RunLoop::open(&opened, identity, pace, parameters, objective, lab.threads)?;
    run.train(&[], tokenizer.vocab_size(), &(), &Cancel::new())?;
    export(start, &out, run.parameters())?;
    Ok((out, alone))
}

/// The checkpoint `start` with other weights.
fn export(start: &Path, out: &Path, parameters: &Parameters) -> Result<()> {
    std::fs::create_dir_all(out)?;
    for entry in std::fs::read_dir(start)? {
        let file = entry?.path();
        if let (Some(name), true) = (file.file_name(), file.is_file()) {
            std::fs::copy(&file, out.join(name))?;
        }
    }
    let tensors = parameters.export(DType::F32)?;
    let named = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor));
    let weights = out.join("model.safetensors");
    Ok(write_safetensors(
        &weights,
        named,
        &BTreeMap::new(),
        Overwrite::Replace,
    )?)
}

fn model(config: &TextConfig, parameters: &Parameters) -> Result<TextModel, lfm2_train::Error> {
    let weights = Weights::new(Arc::new(parameters.clone()), DType::F32, &Device::Cpu);
    Ok(TextModel::load(config.clone(), &weights)?)
}

/// Logits of packed texts, layer by layer.
fn logits(model: &TextModel, batch: &MicroBatch, border: Border) -> TensorResult<Tensor> {
    let apart = batch.step();
    let together = match border {
        Border::Reset => apart.clone(),
        Border::Leaking => Step::rows(&[batch.tokens()]),
    };
    let mut x = model.embed_tokens(&batch.ids(model.device())?)?;
    for (layer, kind) in model.config().layers.iter().enumerate() {
        let step = match kind {
            LayerKind::Conv => &together,
            _ => &apart,
        };
        x = model.layer_alone(layer, &x, step, None)?;
    }
    model.logits(&x)
}

impl Objective for Packed {
    type Batch = MicroBatch;

    fn next_step(&mut self, step: u64) -> lfm2_train::Result<Vec<MicroBatch>> {
        Ok(self.batches.next_step(step))
    }

    fn validation(&self) -> &[ValidationSet<MicroBatch>] {
        &self.validation
    }

    fn size(&self, batch: &MicroBatch) -> BatchSize {
        BatchSize {
            tokens: batch.tokens(),
            scored: batch.scored(),
            weight: batch.weight(),
        }
    }

    fn unit(&self) -> LossUnit {
        LossUnit::Token
    }

    fn loss(&self, batch: &MicroBatch, divisor: f64) -> TensorResult<Outcome> {
        let logits = logits(&self.model, batch, self.border)?;
        Ok(Outcome::new(next_token(&logits, batch.targets(), divisor)?))
    }

    fn restored(&mut self, parameters: &Parameters) -> lfm2_train::Result<()> {
        self.model = model(&self.config, parameters)?;
        Ok(())
    }
}

/// How much texts in a pass that leaks differ from the same texts alone.
#[derive(Debug, Default)]
struct Leak {
    /// Mean loss per scored token.
    alone: f64,
    packed: f64,
    /// Mean change of the log-probability of a scored token.
    near: f64,
    far: f64,
    /// Share of places whose likeliest token is another.
    flipped: f64,
}

fn leak(checkpoint: &Path, batches: &[MicroBatch]) -> Result<Leak> {
    let model = lfm2::TextModel::open(checkpoint)?;
    let model = model.network();
    let (mut sum, mut near, mut far) = (Leak::default(), 0.0_f64, 0.0_f64);
    for batch in batches {
        let alone = rows(&logits(model, batch, Border::Reset)?)?;
        let packed = rows(&logits(model, batch, Border::Leaking)?)?;
        // The first text of a pass has nothing before it.
        let first = batch.lens().first().copied().unwrap_or_default();
        let places = batch.lens().iter().flat_map(|&len| 0..len);
        let all = batch
            .targets()
            .iter()
            .zip(places)
            .zip(alone.iter().zip(&packed));
        for ((target, place), (alone, packed)) in all.skip(first) {
            if target.weight == 0.0 {
                continue;
            }
            let (a, b) = (log_prob(alone, target.id), log_prob(packed, target.id));
            sum.alone -= a;
            sum.packed -= b;
            if place < NEAR {
                sum.near += (a - b).abs();
                near += 1.0;
            } else {
                sum.far += (a - b).abs();
                far += 1.0;
            }
            sum.flipped += f64::from(u8::from(best(alone) != best(packed)));
        }
    }
    Ok(Leak {
        alone: sum.alone / (near + far),
        packed: sum.packed / (near + far),
        near: sum.near / near,
        far: sum.far / far,
        flipped: sum.flipped / (near + far),
    })
}

fn rows(logits: &Tensor) -> Result<Vec<Vec<f32>>> {
    Ok(logits.to_dtype(DType::F32)?.to_vec2()?)
}

fn log_prob(logits: &[f32], id: u32) -> f64 {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&x| f64::from(x - most).exp()).sum();
    let own = logits
        .get(id as usize)
        .copied()
        .unwrap_or(f32::NEG_INFINITY);
    f64::from(own - most) - sum.ln()
}

fn best(logits: &[f32]) -> Option<usize> {
    let places = logits.iter().enumerate();
    places
        .max_by(|a, b| a.1.total_cmp(b.1))
        .map(|(place, _)| place)
}
