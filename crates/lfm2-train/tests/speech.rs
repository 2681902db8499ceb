//! Whole runs that train a tiny speech model on made-up words: each is a tone of its own.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::cell::RefCell;
use std::path::Path;

use lfm2_audio::{AudioModel, AudioOptions, write_wav};
use lfm2_generate::Cancel;
use lfm2_hub::ModelSource;
use lfm2_train::speech::{SpeechOptions, SpeechRun, SpokenRows};
use lfm2_train::{AnyRun, Error, Objective, Resume, TrainEvent, TrainProgress, word_error_rate};
use serde_json::{Value, json};

const RATE: u32 = 8000;
/// Words and their tones.
const WORDS: [(&str, f32); 3] = [("low", 300.0), ("middle", 900.0), ("high", 2400.0)];
/// Samples of a word.
const LEN: usize = 1600;

struct Bench(tempfile::TempDir);

impl Bench {
    /// Ten clips of one to three words and their manifest.
    fn new() -> Self {
        let bench = Self(tempfile::tempdir().unwrap());
        let rows: Vec<String> = (0..10).map(|i| bench.clip(i)).collect();
        std::fs::write(bench.path().join("clips.jsonl"), rows.join("\n")).unwrap();
        bench
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Writes a clip and gives its line.
    fn clip(&self, number: usize) -> String {
        let (mut samples, mut words, mut text) = (vec![0.0; 400], Vec::new(), Vec::new());
        for i in 0..1 + number % 3 {
            let (word, tone) = WORDS[(number * 7 + i * 2) % 3];
            let from = samples.len() as f64 / f64::from(RATE);
            let wave = |t: usize| {
                let rise = (t.min(LEN - t) as f32 / 200.0).min(1.0);
                0.4 * rise * (t as f32 * tone * std::f32::consts::TAU / RATE as f32).sin()
            };
            samples.extend((0..LEN).map(wave));
            words.push(json!([word, from, samples.len() as f64 / f64::from(RATE)]));
            text.push(word);
        }
        let name = format!("{number}.wav");
        write_wav(&self.path().join(&name), &samples, RATE).unwrap();
        json!({"audio": name, "text": text.join(" "), "words": words}).to_string()
    }

    fn config(&self, steps: u64, changes: &Value) -> Value {
        let mut config = json!({
            "objective": "speech",
            "name": "test",
            "base": {"fresh": {
                "vocab_size": 320,
                "init": {"std": 0.2},
                "config": {
                    "architectures": ["Lfm2AudioForConditionalGeneration"],
                    "codebooks": 1, "tie_audio_embeddings": false, "semantic_codebook_factor": 100,
                    "codebook_weight": "log", "interleaved_n_text": 6, "interleaved_n_audio": 12,
                    "preprocessor": {
                        "sample_rate": 16000, "normalize": "per_feature", "window_size": 0.025,
                        "window_stride": 0.01, "window": "hann", "features": 16, "n_fft": 512,
                        "log": true, "frame_splicing": 1, "pad_to": 0,
                    },
                    "encoder": {
                        "feat_in": 16, "n_layers": 1, "d_model": 16, "subsampling": "dw_striding",
                        "subsampling_factor": 8, "subsampling_conv_channels": 8,
                        "causal_downsampling": false, "ff_expansion_factor": 2,
                        "self_attention_model": "rel_pos", "n_heads": 2,
                        "att_context_size": [-1, -1], "xscaling": false, "conv_kernel_size": 3,
                        "conv_norm_type": "batch_norm",
                    },
                    "lfm": {
                        "hidden_size": 24, "num_hidden_layers": 2,
                        "layer_types": ["conv", "full_attention"],
                        "num_attention_heads": 2, "num_key_value_heads": 1, "intermediate_size": 32,
                        "block_auto_adjust_ff_dim": false, "conv_L_cache": 3, "norm_eps": 1e-5,
                        "rope_theta": 10000.0, "max_position_embeddings": 512,
                    },
                    "depthformer": {"layers": 1, "dim": 64, "tie": true},
                },
            }},
            "data": {
                "path": "clips.jsonl",
                "augment": {"speed": 0.1, "silence": 0.1, "noise": 0.5, "tilt": 0.2, "gain": 6.0},
                "growth": {"from": 1, "steps": 4},
            },
            "hints": 0.5,
            "validation_clips": 3, "micro_batch_clips": 3, "micro_batches": 2,
            "steps": steps, "schedule": {"kind": "constant", "peak": 0.01, "warmup": 2},
            "clip": 1.0, "validate_every": 100, "save_every": 2, "seed": 5, "export_dtype": "f32",
        });
        for (key, value) in changes.as_object().into_iter().flatten() {
            config[key] = value.clone();
        }
        config
    }

    fn options(&self, steps: u64, changes: &Value) -> SpeechOptions {
        serde_json::from_value(self.config(steps, changes)).unwrap()
    }

    fn open(&self, options: SpeechOptions, run: &str, threads: usize) -> SpeechRun {
        let run = self.path().join(run);
        SpeechRun::open(options, self.path(), &run, Resume::Continue, threads).unwrap()
    }

    /// Why a run with these changes cannot be opened.
    fn refusal(&self, changes: &Value) -> String {
        let options: SpeechOptions = match serde_json::from_value(self.config(2, changes)) {
            Ok(options) => options,
            Err(error) => return error.to_string(),
        };
        let run = self.path().join("refused");
        let opened = SpeechRun::open(options, self.path(), &run, Resume::Continue, 1);
        opened.unwrap_err().to_string()
    }
}

/// Keeps the losses of steps, and asks to stop once a step is finished.
#[derive(Default)]
struct Watch {
    losses: RefCell<Vec<(u64, f64, f64)>>,
    stop: Option<(u64, Cancel)>,
}

impl TrainProgress for Watch {
    fn event(&self, event: &TrainEvent<'_>) {
        if let TrainEvent::Step(report) = event {
            let line = (report.step, report.loss, report.grad_norm);
            self.losses.borrow_mut().push(line);
            if let Some((step, cancel)) = &self.stop
                && report.step == *step
            {
                cancel.cancel();
            }
        }
    }
}

fn train(run: &mut SpeechRun) -> Vec<(u64, f64, f64)> {
    let watch = Watch::default();
    run.train(&watch, &Cancel::new()).unwrap();
    watch.losses.into_inner()
}

fn values(run: &SpeechRun) -> Vec<Vec<f32>> {
    run.parameters().values().unwrap()
}

#[test]
fn transcripts_are_learnt_with_and_without_hints() {
    let bench = Bench::new();
    for hints in [0.5, 0.0] {
        let changes = json!({"hints": hints, "save_every": 100});
        let mut run = bench.open(bench.options(40, &changes), &format!("run-{hints}"), 2);
        let losses = train(&mut run);
        let mean = |steps: &[(u64, f64, f64)]| {
            steps.iter().map(|(_, loss, _)| loss).sum::<f64>() / steps.len() as f64
        };
        let (first, last) = (mean(&losses[..4]), mean(&losses[36..]));
        assert!(last < 0.6 * first, "{hints}: {first} then {last}");
    }
}

#[test]
fn gradients_of_encoder_adapter_and_text_are_slopes_of_the_loss() {
    let bench = Bench::new();
    let run = bench.open(bench.options(2, &json!({})), "run", 1);
    let objective = run.objective();
    let (_, batches) = &objective.validation()[0];
    let loss = || objective.loss(&batches[0], 2.0).unwrap().loss;
    let value = || f64::from(loss().to_scalar::<f32>().unwrap());
    let gradients = loss().backward().unwrap();
    let mut compared = [0; 3];
    for parameter in run.parameters().iter() {
        let name = parameter.name();
        let part = ["conformer", "audio_adapter", "lfm"];
        let Some(part) = part.iter().position(|part| name.starts_with(part)) else {
            assert!(gradients.get(parameter.tensor()).is_none(), "{name}");
            continue;
        };
        // Kept as they are, and so small that the loss is no line around them.
        if name.contains("batch_norm.running") {
            continue;
        }
        let gradient = gradients.get(parameter.tensor()).unwrap();
        let norm = gradient.sqr().unwrap().sum_all().unwrap();
        let norm = f64::from(norm.to_scalar::<f32>().unwrap().sqrt());
        // Keys all moved by the same change no softmax, and what is this small drowns in rounding.
        if norm < 0.02 {
            continue;
        }
        let start = parameter.tensor().copy().unwrap();
        let at = |step: f64| {
            let moved = (&start + (gradient * (step / norm)).unwrap()).unwrap();
            parameter.set(&moved).unwrap();
            value()
        };
        // A step that changes the loss by about a hundredth.
        let step = (0.01 / norm).min(0.02);
        let slope = (at(step) - at(-step)) / (2.0 * step);
        parameter.set(&start).unwrap();
        assert!(
            (slope - norm).abs() < 0.04 * norm,
            "{name}: {slope}, expected {norm}"
        );
        compared[part] += 1;
    }
    assert!(compared.iter().all(|count| *count >= 3), "{compared:?}");
}

#[test]
fn batch_norms_begin_with_the_statistics_of_clips_and_keep_them() {
    let bench = Bench::new();
    let mut run = bench.open(bench.options(3, &json!({})), "run", 1);
    let statistics = |run: &SpeechRun| -> Vec<Vec<f32>> {
        let all = run.parameters().iter();
        let own = all.filter(|p| p.name().contains("batch_norm.running"));
        own.map(|p| p.values().unwrap()).collect()
    };
    let before = statistics(&run);
    let [mean, variance] = before.as_slice() else {
        panic!("expected one batch norm");
    };
    assert!(mean.iter().any(|x| *x != 0.0));
    assert!(
        variance.iter().all(|x| *x > 0.0 && *x != 1.0),
        "{variance:?}"
    );
    train(&mut run);
    assert_eq!(before, statistics(&run));
}

#[test]
fn the_number_of_threads_changes_nothing() {
    let bench = Bench::new();
    let run = |name: &str, threads| {
        let mut run = bench.open(bench.options(3, &json!({})), name, threads);
        (train(&mut run), values(&run))
    };
    assert_eq!(run("one", 1), run("three", 3));
}

#[test]
fn tr_04_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit() {
    let bench = Bench::new();
    let mut whole = bench.open(bench.options(6, &json!({})), "whole", 2);
    let expected = train(&mut whole);

    let cancel = Cancel::new();
    let watch = Watch {
        stop: Some((3, cancel.clone())),
        ..Watch::default()
    };
    let mut first = bench.open(bench.options(6, &json!({})), "parts", 2);
    let error = first.train(&watch, &cancel).unwrap_err();
    assert!(matches!(error, Error::Cancelled { step: 3 }), "{error}");
    let mut second = bench.open(bench.options(6, &json!({})), "parts", 1);
    assert_eq!(second.step(), 3);
    assert_eq!(train(&mut second), expected[3..]);
    assert_eq!(values(&whole), values(&second));
}

#[test]
fn the_exported_folder_transcribes_and_can_be_trained_further() {
    let bench = Bench::new();
    let config = bench.path().join("run.json");
    std::fs::write(&config, bench.config(2, &json!({})).to_string()).unwrap();
    // As the command does it: the kind of run is said by the file.
    let folder = bench.path().join("run");
    let mut run = AnyRun::open(&config, &folder, Resume::Never, 1).unwrap();
    run.train(&(), &Cancel::new()).unwrap();
    let path = folder.join("checkpoint");
    run.export(&path).unwrap();

    let model =
        AudioModel::open(&ModelSource::Dir(path.clone()), &AudioOptions::default()).unwrap();
    assert!(model.vocoder().is_none());
    let rows = SpokenRows::read(&bench.path().join("clips.jsonl")).unwrap();
    let mut told = 0;
    let report = word_error_rate(&model, &rows, 2, &Cancel::new(), |_| told += 1).unwrap();
    assert_eq!((report.clips, report.words, told), (2, 3, 2));
    assert!(report.word_error_rate >= 0.0 && report.seconds > 0.6);
    let card = std::fs::read_to_string(path.join("README.md")).unwrap();
    assert!(card.contains("cA") && card.contains("12 clips"), "{card}");

    // The weights of the folder are where the next run starts.
    let further = json!({"base": {"checkpoint": "run/checkpoint"}, "seed": 6});
    let mut next = bench.open(bench.options(2, &further), "next", 1);
    let AnyRun::Speech(run) = run else {
        panic!("expected a speech run");
    };
    assert_eq!(values(&next), values(&run));
    train(&mut next);
    assert_ne!(values(&next), values(&run));
}

#[test]
fn speaking_is_learnt_beside_transcribing() {
    let bench = Bench::new();
    let row = |i: usize| {
        let codes: Vec<[usize; 1]> = (0..3 + i % 2).map(|t| [40 * (i % 3) + t]).collect();
        json!({"audio": "0.wav", "text": WORDS[i % 3].0, "codes": codes}).to_string()
    };
    let rows: Vec<String> = (0..8).map(row).collect();
    std::fs::write(bench.path().join("speak.jsonl"), rows.join("\n")).unwrap();
    let speak = json!({
        "path": "speak.jsonl", "micro_batch_clips": 3, "micro_batches": 1, "validation_clips": 2,
    });
    let rates = json!({"speech": 1.0});
    let changes = json!({"speak": speak, "rates": rates, "save_every": 100});
    let mut run = bench.open(bench.options(30, &changes), "run", 2);
    let objective = run.objective();
    let names = objective.validation().iter().map(|(name, _)| name.as_str());
    assert_eq!(names.collect::<Vec<_>>(), ["clips.jsonl", "speak.jsonl"]);
    let spoken = |run: &SpeechRun| {
        let objective = run.objective();
        let (_, batches) = &objective.validation()[1];
        let weight: f64 = batches.iter().map(|b| objective.size(b).weight).sum();
        let loss = |batch| objective.loss(batch, weight).unwrap().loss;
        let losses = batches.iter().map(|b| loss(b).to_scalar::<f32>().unwrap());
        losses.sum::<f32>()
    };
    let before = spoken(&run);
    train(&mut run);
    let after = spoken(&run);
    assert!(after < 0.7 * before, "{before} then {after}");

    let wrong = json!({"audio": "0.wav", "text": "low", "codes": [[1, 2]]}).to_string();
    std::fs::write(
        bench.path().join("speak.jsonl"),
        [row(0), wrong, row(1)].join("\n"),
    )
    .unwrap();
    let text = bench.refusal(&changes);
    assert!(text.contains("line 2") && text.contains("codes"), "{text}");
}

#[test]
fn a_part_with_rate_0_stays_as_it_is() {
    let bench = Bench::new();
    let changes = json!({"rates": {"encoder": 0.0, "text": 0.0}});
    let mut run = bench.open(bench.options(2, &changes), "run", 1);
    let before = values(&run);
    train(&mut run);
    for ((parameter, before), after) in run.parameters().iter().zip(before).zip(values(&run)) {
        let is_adapter = parameter.name().starts_with("audio_adapter");
        assert_eq!(before != after, is_adapter, "{}", parameter.name());
    }
}

#[test]
fn broken_rows_are_named_with_their_line() {
    let bench = Bench::new();
    let whole = bench.clip(0);
    for (line, named) in [
        (json!({"audio": "none.wav", "text": "low"}), "none.wav"),
        (json!({"audio": "0.wav", "text": " "}), "text"),
        (json!({"audio": "0.wav"}), "text"),
        (
            json!({"audio": "0.wav", "text": "low", "words": [["low", 0.5, 0.1]]}),
            "low",
        ),
    ] {
        std::fs::write(bench.path().join("clips.jsonl"), format!("{whole}\n{line}")).unwrap();
        let text = bench.refusal(&json!({"validation_clips": 1}));
        assert!(text.contains("line 2") && text.contains(named), "{text}");
    }
    // A file that is no sound is found when it is heard.
    std::fs::write(bench.path().join("bad.wav"), b"RIFF....WAVE").unwrap();
    let line = json!({"audio": "bad.wav", "text": "low"});
    std::fs::write(bench.path().join("clips.jsonl"), format!("{whole}\n{line}")).unwrap();
    let text = bench.refusal(&json!({"validation_clips": 1}));
    assert!(
        text.contains("line 2") && text.contains("bad.wav"),
        "{text}"
    );
}

#[test]
fn impossible_settings_are_refused_by_name() {
    let bench = Bench::new();
    let base = |change: &dyn Fn(&mut Value)| {
        let mut base = bench.config(2, &json!({}))["base"].clone();
        change(&mut base["fresh"]);
        json!({ "base": base })
    };
    let data = |change: Value| {
        let mut data = json!({"path": "clips.jsonl"});
        for (key, value) in change.as_object().into_iter().flatten() {
            data[key] = value.clone();
        }
        json!({ "data": data })
    };
    let cases = [
        (json!({"micro_batch_clips": 0}), "micro_batch_clips"),
        (json!({"validation_clips": 10}), "validation_clips"),
        (json!({"steps": 0}), "steps"),
        (json!({"hints": -1.0}), "hints"),
        (json!({"rates": {"encoder": -1.0}}), "rates.encoder"),
        (json!({"rates": {"tower": 1.0}}), "tower"),
        (data(json!({"path": "missing.jsonl"})), "missing.jsonl"),
        (data(json!({"augment": {"noise": 1.5}})), "augment.noise"),
        (
            data(json!({"growth": {"from": 0, "steps": 3}})),
            "growth.from",
        ),
        (json!({"base": {"checkpoint": "missing"}}), "missing"),
        (base(&|b| b["vocab_size"] = json!(100)), "vocab_size"),
        (base(&|b| b["config"]["lfm"] = Value::Null), "lfm"),
        (
            base(&|b| b["config"]["encoder"]["n_heads"] = json!(3)),
            "n_heads",
        ),
    ];
    for (changes, named) in cases {
        let text = bench.refusal(&changes);
        assert!(text.contains(named), "{changes}: {text}");
    }
}

#[test]
fn a_run_goes_on_with_its_own_settings_only() {
    let bench = Bench::new();
    train(&mut bench.open(bench.options(2, &json!({})), "run", 1));
    let changed = bench.options(2, &json!({"micro_batches": 1}));
    let run = bench.path().join("run");
    let error = SpeechRun::open(changed, bench.path(), &run, Resume::Continue, 1).unwrap_err();
    assert!(matches!(error, Error::RunMismatch { .. }), "{error}");
}
