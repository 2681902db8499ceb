//! Whole runs on tiny data: learning, stopping, resuming, exporting.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::cell::RefCell;

use lfm2_generate::Cancel;
use lfm2_hub::{Checkpoint, ModelSource, OpenOptions};
use lfm2_nn::{Cache, DType, Decoder, Device, Input, Step, Tensor, Want};
use lfm2_text::{LoadOptions, TextConfig, TextModel};
use lfm2_train::data::{Document, pack};
use lfm2_train::{
    Error, Resume, StepReport, TrainEvent, TrainProgress, Trainer, batch_gradients, batch_loss,
};
use serde_json::json;
use support::Bench;

/// Keeps every step's report.
#[derive(Default)]
struct Reports(RefCell<Vec<StepReport>>);

impl TrainProgress for Reports {
    fn event(&self, event: &TrainEvent<'_>) {
        if let TrainEvent::Step(report) = event {
            self.0.borrow_mut().push((*report).clone());
        }
    }
}

/// Asks to stop once a step is finished.
struct StopAfter {
    step: u64,
    cancel: Cancel,
}

impl TrainProgress for StopAfter {
    fn event(&self, event: &TrainEvent<'_>) {
        if matches!(event, TrainEvent::Step(report) if report.step == self.step) {
            self.cancel.cancel();
        }
    }
}

fn train(trainer: &mut Trainer) -> Vec<StepReport> {
    let reports = Reports::default();
    trainer.train(&reports, &Cancel::new()).unwrap();
    reports.0.into_inner()
}

#[test]
fn the_loss_falls() {
    let bench = Bench::new();
    let mut trainer = bench
        .open(bench.options(40, &json!({})), "run", Resume::Never, 2)
        .unwrap();
    let reports = train(&mut trainer);
    let (first, last) = (reports[0].loss, reports[39].loss);
    assert!(last < 0.5 * first, "{first} then {last}");
    assert!(
        (first - 300f64.ln()).abs() < 1.0,
        "a fresh model guesses evenly: {first}"
    );
    assert!(
        std::fs::read_to_string(bench.run_folder("run").join("loss.svg"))
            .unwrap()
            .contains("stories.txt")
    );
}

#[test]
fn the_number_of_threads_changes_nothing() {
    let bench = Bench::new();
    let run = |name: &str, threads| {
        let mut trainer = bench
            .open(bench.options(4, &json!({})), name, Resume::Never, threads)
            .unwrap();
        let losses: Vec<f64> = train(&mut trainer).iter().map(|r| r.loss).collect();
        (losses, trainer.parameters().values().unwrap())
    };
    assert_eq!(run("one", 1), run("three", 3));
}

#[test]
fn tr_04_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit() {
    let bench = Bench::new();
    let options = bench.options(9, &json!({}));
    let mut whole = bench
        .open(options.clone(), "whole", Resume::Never, 2)
        .unwrap();
    let reports = train(&mut whole);

    let cancel = Cancel::new();
    let stop = StopAfter {
        step: 5,
        cancel: cancel.clone(),
    };
    let mut first = bench
        .open(options.clone(), "parts", Resume::Never, 2)
        .unwrap();
    let error = first.train(&stop, &cancel).unwrap_err();
    assert!(matches!(error, Error::Cancelled { step: 5 }), "{error}");
    let mut second = bench.open(options, "parts", Resume::Continue, 1).unwrap();
    assert_eq!(second.step(), 5);
    let rest = train(&mut second);

    let losses = |reports: &[StepReport]| {
        reports
            .iter()
            .map(|r| (r.step, r.loss, r.grad_norm))
            .collect::<Vec<_>>()
    };
    assert_eq!(losses(&reports[5..]), losses(&rest));
    assert_eq!(
        whole.parameters().values().unwrap(),
        second.parameters().values().unwrap()
    );
    let lines = |run: &str| {
        std::fs::read_to_string(bench.run_folder(run).join("metrics.jsonl"))
            .unwrap()
            .lines()
            .count()
    };
    assert_eq!(lines("whole"), lines("parts"));
}

#[test]
fn tr_04_a_run_killed_between_saves_goes_back_to_the_last_state() {
    let bench = Bench::new();
    let options = bench.options(8, &json!({"save_every": 3}));
    let mut whole = bench
        .open(options.clone(), "whole", Resume::Never, 1)
        .unwrap();
    train(&mut whole);
    let cancel = Cancel::new();
    let stop = StopAfter {
        step: 5,
        cancel: cancel.clone(),
    };
    bench
        .open(options.clone(), "killed", Resume::Never, 1)
        .unwrap()
        .train(&stop, &cancel)
        .unwrap_err();
    let run = bench.run_folder("killed");
    // As if killed in the middle of writing the next state and a line of the log.
    std::fs::write(run.join("state-00000006.safetensors"), b"half").unwrap();
    std::fs::write(run.join(".lfm2-abc.tmp"), b"half").unwrap();
    let log = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    std::fs::write(run.join("metrics.jsonl"), log + "{\"kind\":\"st").unwrap();
    let mut resumed = bench.open(options, "killed", Resume::Continue, 1).unwrap();
    assert_eq!(resumed.step(), 5);
    train(&mut resumed);
    assert_eq!(
        whole.parameters().values().unwrap(),
        resumed.parameters().values().unwrap()
    );
}

#[test]
fn tr_05_other_settings_data_or_seed_are_refused_unless_forced() {
    let bench = Bench::new();
    train(
        &mut bench
            .open(bench.options(2, &json!({})), "run", Resume::Never, 1)
            .unwrap(),
    );
    let key = |changes| match bench.open(bench.options(2, &changes), "run", Resume::Continue, 1) {
        Err(Error::RunMismatch { key, .. }) => key,
        other => panic!("{:?}", other.map(|t| t.step())),
    };
    assert_eq!(key(json!({"seed": 6})), "options.seed");
    assert_eq!(key(json!({"clip": 2.0})), "options.clip");
    let forced = bench
        .open(
            bench.options(2, &json!({"seed": 6})),
            "run",
            Resume::Force,
            1,
        )
        .unwrap();
    assert_eq!(forced.step(), 2);
    bench.write(
        "stories.txt",
        "Ada lost a ball.\n\nBen found it.\n\nEve was glad.",
    );
    let mismatch = bench
        .open(
            bench.options(2, &json!({"seed": 6})),
            "run",
            Resume::Continue,
            1,
        )
        .unwrap_err();
    assert!(
        mismatch.to_string().contains("data_sha256.stories.txt"),
        "{mismatch}"
    );
    assert!(
        bench
            .open(bench.options(2, &json!({})), "run", Resume::Never, 1)
            .is_err()
    );
}

#[test]
fn tr_02_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_state() {
    let bench = Bench::new();
    let wild =
        json!({"schedule": {"kind": "constant", "peak": 1e30, "warmup": 0}, "save_every": 100});
    let mut trainer = bench
        .open(bench.options(9, &wild), "run", Resume::Never, 1)
        .unwrap();
    let error = trainer.train(&(), &Cancel::new()).unwrap_err();
    let Error::NonFinite { step, .. } = error else {
        panic!("{error}")
    };
    assert_eq!(trainer.step(), step - 1);
    let resumed = bench
        .open(bench.options(9, &wild), "run", Resume::Continue, 1)
        .unwrap();
    assert_eq!(resumed.step(), step - 1);
    assert_eq!(
        resumed.parameters().values().unwrap(),
        trainer.parameters().values().unwrap()
    );
}

#[test]
fn tr_02_bad_steps_can_be_skipped_and_are_counted() {
    let bench = Bench::new();
    let wild =
        json!({"schedule": {"kind": "constant", "peak": 1e30, "warmup": 0}, "non_finite": "skip"});
    let mut trainer = bench
        .open(bench.options(6, &wild), "run", Resume::Never, 1)
        .unwrap();
    let reports = train(&mut trainer);
    assert_eq!(reports.len(), 6);
    assert!(!reports[0].skipped && reports[5].skipped);
    assert!(
        trainer
            .parameters()
            .values()
            .unwrap()
            .iter()
            .flatten()
            .all(|w| w.is_finite())
    );
}

#[test]
fn the_exported_checkpoint_opens_and_gives_the_same_logits() {
    let bench = Bench::new();
    let options = bench.options(
        3,
        &json!({"export_dtype": "f32", "card": {"licence": "cc0-1.0", "about": "A test."}}),
    );
    let mut trainer = bench.open(options, "run", Resume::Never, 1).unwrap();
    train(&mut trainer);
    let folder = bench.run_folder("checkpoint");
    trainer.export(&folder).unwrap();
    let checkpoint =
        Checkpoint::open(&ModelSource::Dir(folder.clone()), &OpenOptions::default()).unwrap();
    let config = TextConfig::from_json(checkpoint.config()).unwrap();
    let model = TextModel::from_tensors(
        config,
        checkpoint.tensors(),
        &LoadOptions::default().strict(),
    )
    .unwrap();
    let ids = Tensor::new(&[1u32, 20, 30, 40, 7], &Device::Cpu).unwrap();
    let logits = |model: &TextModel| {
        let logits = model
            .forward(
                Input::Ids(&ids),
                &Step::single(5),
                &mut Cache::stateless(1),
                Want::AllLogits,
            )
            .unwrap();
        logits
            .to_dtype(DType::F32)
            .unwrap()
            .flatten_all()
            .unwrap()
            .to_vec1::<f32>()
            .unwrap()
    };
    for (a, b) in logits(&model).iter().zip(logits(trainer.model())) {
        assert!((a - b).abs() < 1e-4, "{a} {b}");
    }
    let card = std::fs::read_to_string(folder.join("README.md")).unwrap();
    assert!(
        card.contains("license: cc0-1.0")
            && card.contains("chat.jsonl")
            && card.contains("A test."),
        "{card}"
    );
    assert!(checkpoint.tokenizer().unwrap().vocab_size() <= 300);
    assert!(
        checkpoint
            .chat_template()
            .unwrap()
            .unwrap()
            .contains("generation")
    );
}

#[test]
fn training_goes_on_from_a_checkpoint() {
    let bench = Bench::new();
    let mut first = bench
        .open(
            bench.options(6, &json!({"export_dtype": "f32"})),
            "first",
            Resume::Never,
            1,
        )
        .unwrap();
    let before = train(&mut first);
    first.export(&bench.run_folder("checkpoint")).unwrap();
    let options = bench.options(2, &json!({"base": {"checkpoint": "checkpoint"}}));
    let mut second = bench.open(options, "second", Resume::Never, 1).unwrap();
    assert_eq!(
        first.parameters().values().unwrap(),
        second.parameters().values().unwrap()
    );
    assert!(train(&mut second)[0].loss < before[0].loss);
}

#[test]
fn packed_documents_have_the_loss_and_gradients_of_documents_alone() {
    let bench = Bench::new();
    let trainer = bench
        .open(bench.options(1, &json!({})), "run", Resume::Never, 1)
        .unwrap();
    let documents: Vec<Document> = [5u32, 1, 9]
        .iter()
        .map(|&len| {
            Document::new(
                (0..=len).map(|i| 16 + (i * 7 + len) % 60).collect(),
                vec![1.0; len as usize + 1],
            )
            .unwrap()
        })
        .collect();
    let packed = &pack(&documents, 100)[0];
    let (model, parameters) = (trainer.model(), trainer.parameters());
    let (loss, gradients) = batch_gradients(model, parameters, packed, 15.0).unwrap();
    let mut alone: Option<(f64, lfm2_train::Gradients)> = None;
    for document in &documents {
        let part = batch_gradients(model, parameters, &pack([document], 100)[0], 15.0).unwrap();
        match &mut alone {
            None => alone = Some(part),
            Some((sum, all)) => {
                *sum += part.0;
                all.add(&part.1);
            }
        }
    }
    let (sum, all) = alone.unwrap();
    assert!((loss - sum).abs() < 1e-6);
    for (a, b) in gradients
        .tensors
        .iter()
        .flatten()
        .zip(all.tensors.iter().flatten())
    {
        assert!((a - b).abs() < 1e-5, "{a} {b}");
    }
}

/// Every parameter of a dense and of a mixture model gets a gradient, and it is the slope of the loss.
/// The mixture uses all its experts: where a choice flips, the loss jumps and has no slope.
#[test]
fn every_gradient_agrees_with_finite_differences() {
    let moe = json!({"base": {"fresh": {"vocab_size": 300, "init": {"std": 0.3}, "config": {
        "model_type": "lfm2_moe", "hidden_size": 16, "num_hidden_layers": 3,
        "layer_types": ["conv", "full_attention", "conv"],
        "num_attention_heads": 2, "num_key_value_heads": 1, "intermediate_size": 24,
        "moe_intermediate_size": 8, "num_experts": 3, "num_experts_per_tok": 3, "num_dense_layers": 1,
        "use_expert_bias": true, "norm_topk_prob": true, "conv_L_cache": 3, "norm_eps": 1e-5,
        "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"},
    }}}});
    let mut dense = moe.clone();
    dense["base"]["fresh"]["config"]["model_type"] = json!("lfm2");
    dense["base"]["fresh"]["config"]["block_auto_adjust_ff_dim"] = json!(false);
    for (name, changes) in [("dense", dense), ("moe", moe)] {
        let bench = Bench::new();
        let trainer = bench
            .open(bench.options(1, &changes), "run", Resume::Never, 1)
            .unwrap();
        let tokens: Vec<u32> = (0..40).map(|i| 16 + (i * i * 7 + 3 * i) % 250).collect();
        let weights = vec![1.0; tokens.len()];
        let batch = &pack([&Document::new(tokens, weights).unwrap()], 64)[0];
        let (model, parameters) = (trainer.model(), trainer.parameters());
        let (_, gradients) = batch_gradients(model, parameters, batch, 39.0).unwrap();
        for (parameter, gradient) in parameters.iter().zip(&gradients.tensors) {
            let norm = gradient
                .iter()
                .map(|g| f64::from(*g).powi(2))
                .sum::<f64>()
                .sqrt();
            assert!(norm > 0.0, "{name}: {} has no gradient", parameter.name());
            // The slope along the gradient's own direction is its norm.
            let values = parameter.values().unwrap();
            let loss_at = |distance: f64| {
                let moved = values
                    .iter()
                    .zip(gradient)
                    .map(|(w, g)| w + (distance * f64::from(*g) / norm) as f32);
                let moved = Tensor::from_vec(
                    moved.collect::<Vec<f32>>(),
                    parameter.tensor().dims(),
                    &Device::Cpu,
                );
                parameter.set(&moved.unwrap()).unwrap();
                f64::from(
                    batch_loss(model, batch, 39.0)
                        .unwrap()
                        .to_scalar::<f32>()
                        .unwrap(),
                )
            };
            let distance = 2e-3;
            let slope = (loss_at(distance) - loss_at(-distance)) / (2.0 * distance);
            loss_at(0.0);
            assert!(
                (slope - norm).abs() < 0.03 * norm + 5e-4,
                "{name}: {}: {slope} and {norm}",
                parameter.name()
            );
        }
    }
}
