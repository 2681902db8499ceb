//! Whole runs that train a tiny detokenizer on tones.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::path::Path;

use lfm2_audio::{FRAME_SAMPLES, OUTPUT_RATE, write_wav};
use lfm2_generate::Cancel;
use lfm2_train::sound::{SoundOptions, SoundRun};
use lfm2_train::{AnyRun, Objective, Resume, StepReport, TrainEvent, TrainProgress};
use serde_json::{Value, json};

struct Bench(tempfile::TempDir);

impl Bench {
    /// Six clips of three frames, each frame a tone with its codes.
    fn new() -> Self {
        let bench = Self(tempfile::tempdir().unwrap());
        let rows: Vec<String> = (0..6).map(|i| bench.clip(i)).collect();
        std::fs::write(bench.path().join("speak.jsonl"), rows.join("\n")).unwrap();
        bench
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn clip(&self, number: usize) -> String {
        let (mut samples, mut codes) = (Vec::new(), Vec::new());
        for frame in 0..3 {
            let kind = (number + frame) % 3;
            let tone = [400.0, 1100.0, 2500.0][kind] * std::f32::consts::TAU / OUTPUT_RATE as f32;
            samples.extend((0..FRAME_SAMPLES).map(|t| 0.4 * (t as f32 * tone).sin()));
            codes.push([kind, 7 + kind]);
        }
        let name = format!("{number}.wav");
        write_wav(&self.path().join(&name), &samples, OUTPUT_RATE).unwrap();
        json!({"audio": name, "text": "tones", "codes": codes}).to_string()
    }

    fn config(&self, steps: u64, changes: &Value) -> Value {
        let mut config = json!({
            "objective": "sound", "name": "test",
            "base": {"fresh": {
                "init": {"std": 0.2},
                "config": {
                    "hidden_size": 16, "num_hidden_layers": 2,
                    "layer_types": ["conv", "sliding_attention"],
                    "num_attention_heads": 2, "num_key_value_heads": 1, "intermediate_size": 32,
                    "block_auto_adjust_ff_dim": false, "conv_L_cache": 3, "norm_eps": 1e-5,
                    "rope_theta": 10000.0, "max_position_embeddings": 512, "sliding_window": 10,
                    "vocab_size": 16, "output_size": 1282,
                },
            }},
            "codebooks": 2, "data": "speak.jsonl", "frames": 2,
            "validation_clips": 2, "micro_batch_clips": 2, "micro_batches": 1,
            "steps": steps, "schedule": {"kind": "constant", "peak": 0.01, "warmup": 2},
            "clip": 1.0, "validate_every": 100, "save_every": 2, "seed": 5, "export_dtype": "f32",
        });
        for (key, value) in changes.as_object().into_iter().flatten() {
            config[key] = value.clone();
        }
        config
    }

    fn open(&self, steps: u64, run: &str, threads: usize) -> SoundRun {
        let options: SoundOptions = serde_json::from_value(self.config(steps, &json!({}))).unwrap();
        let run = self.path().join(run);
        SoundRun::open(options, self.path(), &run, Resume::Continue, threads).unwrap()
    }

    /// Why a run with these changes cannot be opened.
    fn refusal(&self, changes: &Value) -> String {
        let options: SoundOptions = serde_json::from_value(self.config(2, changes)).unwrap();
        let run = self.path().join("refused");
        let opened = SoundRun::open(options, self.path(), &run, Resume::Continue, 1);
        opened.unwrap_err().to_string()
    }
}

/// Asks to stop once a step is finished.
struct Stop(u64, Cancel);

impl TrainProgress for Stop {
    fn event(&self, event: &TrainEvent<'_>) {
        if let TrainEvent::Step(StepReport { step, .. }) = event
            && *step == self.0
        {
            self.1.cancel();
        }
    }
}

fn values(run: &SoundRun) -> Vec<Vec<f32>> {
    run.parameters().values().unwrap()
}

/// The loss on what is kept out.
fn distance(run: &SoundRun) -> f32 {
    let objective = run.objective();
    let (_, batches) = &objective.validation()[0];
    let outcome = objective.loss(&batches[0], 2.0).unwrap();
    outcome.loss.to_scalar().unwrap()
}

#[test]
fn sound_comes_nearer_and_gradients_are_slopes() {
    let bench = Bench::new();
    let mut run = bench.open(12, "run", 2);
    let before = distance(&run);
    run.train(&(), &Cancel::new()).unwrap();
    let after = distance(&run);
    assert!(after < 0.9 * before, "{before} then {after}");

    let objective = run.objective();
    let (_, batches) = &objective.validation()[0];
    let gradients = objective
        .loss(&batches[0], 2.0)
        .unwrap()
        .loss
        .backward()
        .unwrap();
    for name in [
        "emb.emb.weight",
        "lin.weight",
        "lfm.layers.1.self_attn.v_proj.weight",
    ] {
        let parameter = run.parameters().iter().find(|p| p.name() == name).unwrap();
        let gradient = gradients.get(parameter.tensor()).unwrap();
        let norm = gradient.sqr().unwrap().sum_all().unwrap();
        let norm = f64::from(norm.to_scalar::<f32>().unwrap().sqrt());
        let start = parameter.tensor().copy().unwrap();
        let at = |step: f64| {
            let moved = (&start + (gradient * (step / norm)).unwrap()).unwrap();
            parameter.set(&moved).unwrap();
            f64::from(distance(&run))
        };
        let step = 0.005 / norm;
        let slope = (at(step) - at(-step)) / (2.0 * step);
        parameter.set(&start).unwrap();
        // Differences of magnitudes have corners.
        assert!(
            (slope - norm).abs() < 0.15 * norm,
            "{name}: {slope}, {norm}"
        );
    }
}

#[test]
fn tr_04_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit() {
    let bench = Bench::new();
    let mut whole = bench.open(4, "whole", 2);
    whole.train(&(), &Cancel::new()).unwrap();
    let cancel = Cancel::new();
    let mut first = bench.open(4, "parts", 1);
    first.train(&Stop(2, cancel.clone()), &cancel).unwrap_err();
    let mut second = bench.open(4, "parts", 1);
    second.train(&(), &Cancel::new()).unwrap();
    assert_eq!(values(&whole), values(&second));
}

#[test]
fn the_exported_folder_can_be_trained_further() {
    let bench = Bench::new();
    let config = bench.path().join("run.json");
    std::fs::write(&config, bench.config(1, &json!({})).to_string()).unwrap();
    let mut run = AnyRun::open(&config, &bench.path().join("run"), Resume::Never, 1).unwrap();
    run.train(&(), &Cancel::new()).unwrap();
    run.export(&bench.path().join("out")).unwrap();
    let AnyRun::Sound(run) = run else {
        panic!("expected a run of a detokenizer");
    };
    let options = bench.config(1, &json!({"base": {"checkpoint": "out"}}));
    let options: SoundOptions = serde_json::from_value(options).unwrap();
    let next = bench.path().join("next");
    let next = SoundRun::open(options, bench.path(), &next, Resume::Never, 1).unwrap();
    assert_eq!(values(&next), values(&run));
}

#[test]
fn impossible_settings_and_rows_are_refused_by_name() {
    let bench = Bench::new();
    for (changes, named) in [
        (json!({"frames": 1}), "frames"),
        (json!({"codebooks": 0}), "codebooks"),
        (json!({"codebooks": 3}), "codes"),
        (json!({"validation_clips": 9}), "validation_clips"),
        (json!({"data": "none.jsonl"}), "none.jsonl"),
    ] {
        let text = bench.refusal(&changes);
        assert!(text.contains(named), "{changes}: {text}");
    }
    let codes = vec![[1, 2]; 5];
    let long = json!({"audio": "0.wav", "text": "tones", "codes": codes}).to_string();
    let path = bench.path().join("speak.jsonl");
    std::fs::write(&path, [bench.clip(0), long, bench.clip(1)].join("\n")).unwrap();
    let text = bench.refusal(&json!({"validation_clips": 1}));
    assert!(
        text.contains("line 2") && text.contains("samples"),
        "{text}"
    );
}
