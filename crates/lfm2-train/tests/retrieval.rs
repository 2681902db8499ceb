//! Whole runs that train a retrieval model on tiny data.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::cell::RefCell;
use std::path::Path;

use lfm2_colbert::{ColbertModel, max_sim};
use lfm2_generate::Cancel;
use lfm2_hub::ModelSource;
use lfm2_train::retrieval::{RetrievalOptions, RetrievalRun};
use lfm2_train::{AnyRun, Error, Resume, Rng, StepReport, TrainEvent, TrainProgress};
use serde_json::{Value, json};

const WORDS: [&str; 24] = [
    "apple", "bridge", "candle", "dragon", "engine", "forest", "garden", "hammer", "island",
    "jacket", "kettle", "ladder", "mirror", "needle", "orange", "pencil", "quarry", "rocket",
    "saddle", "timber", "violin", "window", "yellow", "zipper",
];

/// Sections of sentences of random words.
fn text(sections: usize, seed: u64) -> String {
    let mut rng = Rng::new(seed);
    let mut sentence = || {
        let words: Vec<&str> = (0..6).map(|_| WORDS[rng.below(WORDS.len())]).collect();
        format!("The {} of it.", words.join(" "))
    };
    let mut section = || (0..4).map(|_| sentence()).collect::<Vec<_>>().join(" ");
    (0..sections)
        .map(|_| section())
        .collect::<Vec<_>>()
        .join("\n\n")
}

struct Bench(tempfile::TempDir);

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("train.txt"), text(40, 1)).unwrap();
        std::fs::write(folder.path().join("valid.txt"), text(12, 2)).unwrap();
        Self(folder)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn config(&self, steps: u64, changes: &Value) -> Value {
        let mut config = json!({
            "objective": "retrieval",
            "name": "test",
            "base": {
                "vocab_size": 320, "dimensions": 8,
                "config": {
                    "architectures": ["Lfm2BidirectionalModel"], "model_type": "lfm2",
                    "hidden_size": 16, "num_hidden_layers": 2,
                    "layer_types": ["conv", "full_attention"],
                    "num_attention_heads": 2, "num_key_value_heads": 1, "intermediate_size": 24,
                    "block_auto_adjust_ff_dim": false, "conv_L_cache": 3, "norm_eps": 1e-5,
                    "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"},
                },
                "settings": {"query_length": 32, "document_length": 64, "do_query_expansion": false},
            },
            "data": [{"path": "train.txt"}],
            "validation": ["valid.txt"], "validation_batches": 1,
            "passage_words": [12, 20], "micro_batch_pairs": 6, "neighbours": 3, "micro_batches": 2,
            "disguised": 0.5, "document_tokens": 48, "temperature": 0.4,
            "lexical": {"weight": 0.5, "temperature": 2.0, "student_temperature": 0.4},
            "steps": steps, "schedule": {"kind": "constant", "peak": 0.01, "warmup": 2},
            "clip": 1.0, "validate_every": 4, "save_every": 2, "seed": 5,
        });
        for (key, value) in changes.as_object().into_iter().flatten() {
            config[key] = value.clone();
        }
        config
    }

    fn options(&self, steps: u64) -> RetrievalOptions {
        serde_json::from_value(self.config(steps, &json!({}))).unwrap()
    }

    fn open(&self, options: RetrievalOptions, run: &str, threads: usize) -> RetrievalRun {
        let run = self.path().join(run);
        RetrievalRun::open(options, self.path(), &run, Resume::Continue, threads).unwrap()
    }

    /// Why a run with these changes cannot be opened.
    fn refusal(&self, changes: &Value) -> String {
        let config = self.config(2, changes);
        let options: RetrievalOptions = match serde_json::from_value(config) {
            Ok(options) => options,
            Err(error) => return error.to_string(),
        };
        let run = self.path().join("refused");
        let opened = RetrievalRun::open(options, self.path(), &run, Resume::Continue, 1);
        opened.unwrap_err().to_string()
    }
}

/// Keeps every step's report, and asks to stop once a step is finished.
#[derive(Default)]
struct Watch {
    reports: RefCell<Vec<StepReport>>,
    measured: RefCell<Vec<f64>>,
    stop: Option<(u64, Cancel)>,
}

impl TrainProgress for Watch {
    fn event(&self, event: &TrainEvent<'_>) {
        match event {
            TrainEvent::Step(report) => {
                self.reports.borrow_mut().push((*report).clone());
                if let Some((step, cancel)) = &self.stop
                    && report.step == *step
                {
                    cancel.cancel();
                }
            }
            TrainEvent::Validation(reports) => {
                let ranks = reports.iter().map(|r| r.figures["reciprocal_rank"]);
                self.measured.borrow_mut().extend(ranks);
            }
            _ => {}
        }
    }
}

fn train(run: &mut RetrievalRun) -> Watch {
    let watch = Watch::default();
    run.train(&watch, &Cancel::new()).unwrap();
    watch
}

fn losses(watch: &Watch) -> Vec<(u64, f64, f64)> {
    let reports = watch.reports.borrow();
    reports
        .iter()
        .map(|r| (r.step, r.loss, r.grad_norm))
        .collect()
}

#[test]
fn a_model_learns_to_find_passages() {
    let bench = Bench::new();
    let mut run = bench.open(bench.options(120), "run", 2);
    let watch = train(&mut run);
    let mean = |steps: &[(u64, f64, f64)]| {
        steps.iter().map(|(_, loss, _)| loss).sum::<f64>() / steps.len() as f64
    };
    let losses = losses(&watch);
    let (first, last) = (mean(&losses[..8]), mean(&losses[112..]));
    assert!(last < 0.8 * first, "{first} then {last}");
    let measured = watch.measured.borrow();
    assert!(measured.len() == 30 && measured[29] > 0.5, "{measured:?}");
    let reports = watch.reports.borrow();
    for name in ["accuracy", "contrastive", "lexical", "reciprocal_rank"] {
        assert!(reports[0].figures.contains_key(name), "{name}");
    }
    assert_eq!(reports[0].scored, 12);
}

#[test]
fn the_number_of_threads_changes_nothing() {
    let bench = Bench::new();
    let run = |name: &str, threads| {
        let mut run = bench.open(bench.options(3), name, threads);
        (losses(&train(&mut run)), run.parameters().values().unwrap())
    };
    assert_eq!(run("one", 1), run("three", 3));
}

#[test]
fn tr_04_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit() {
    let bench = Bench::new();
    let mut whole = bench.open(bench.options(6), "whole", 2);
    let expected = losses(&train(&mut whole));

    let cancel = Cancel::new();
    let watch = Watch {
        stop: Some((3, cancel.clone())),
        ..Watch::default()
    };
    let mut first = bench.open(bench.options(6), "parts", 2);
    let error = first.train(&watch, &cancel).unwrap_err();
    assert!(matches!(error, Error::Cancelled { step: 3 }), "{error}");
    let mut second = bench.open(bench.options(6), "parts", 1);
    assert_eq!(second.step(), 3);
    assert_eq!(losses(&train(&mut second)), expected[3..]);
    let values = |run: &RetrievalRun| run.parameters().values().unwrap();
    assert_eq!(values(&whole), values(&second));
}

#[test]
fn the_exported_folder_opens_like_a_published_one() {
    let bench = Bench::new();
    let config = bench.path().join("run.json");
    std::fs::write(&config, bench.config(2, &json!({})).to_string()).unwrap();
    // As the command does it: the kind of run is said by the file.
    let folder = bench.path().join("run");
    let mut run = AnyRun::open(&config, &folder, Resume::Never, 1).unwrap();
    run.train(&(), &Cancel::new()).unwrap();
    let checkpoint = folder.join("checkpoint");
    run.export(&checkpoint).unwrap();

    let model = ColbertModel::open(&ModelSource::Dir(checkpoint.clone())).unwrap();
    assert_eq!((model.dim(), model.settings().document_length), (8, 64));
    let query = model.encode_query("the Violin?").unwrap();
    let spaced = model.encode_query(" The VIOLIN ?").unwrap();
    assert_eq!(query, spaced);
    let document = model
        .encode_documents(&["violin window"])
        .unwrap()
        .remove(0);
    let score = max_sim(query.view().unwrap(), document.view().unwrap()).unwrap();
    assert!(score > 0.0 && score <= query.rows() as f32, "{score}");
    let card = std::fs::read_to_string(checkpoint.join("README.md")).unwrap();
    assert!(card.contains("cA") && card.contains("valid.txt"), "{card}");
}

#[test]
fn impossible_settings_are_refused_by_name() {
    let bench = Bench::new();
    let cases = [
        (json!({"data": []}), "data"),
        (
            json!({"data": [{"path": "train.txt", "share": -1.0}]}),
            "data.share",
        ),
        (json!({"passage_words": [30, 20]}), "passage_words"),
        (json!({"micro_batch_pairs": 1}), "micro_batch_pairs"),
        (json!({"temperature": 0.0}), "temperature"),
        (
            json!({"validation_batches": 1, "micro_batch_pairs": 500}),
            "validation",
        ),
        (json!({"queries": {"span": -1.0}}), "queries"),
        (json!({"disguised": 1.5}), "disguised"),
        (json!({"steps": 0}), "steps"),
        (json!({"data": [{"path": "missing.txt"}]}), "missing.txt"),
        (json!({"queri": {}}), "queri"),
        (
            json!({"lexical": {"weight": 2.0, "temperature": 1.0, "student_temperature": 1.0}}),
            "lexical.weight",
        ),
    ];
    for (changes, named) in cases {
        let text = bench.refusal(&changes);
        assert!(text.contains(named), "{changes}: {text}");
    }
    let mut config = bench.config(2, &json!({}));
    config["base"]["settings"]["query_length"] = json!("long");
    let text = bench.refusal(&json!({"base": config["base"]}));
    assert!(text.contains("query_length"), "{text}");
}

#[test]
fn a_run_goes_on_with_its_own_settings_only() {
    let bench = Bench::new();
    train(&mut bench.open(bench.options(2), "run", 1));
    let changed: RetrievalOptions =
        serde_json::from_value(bench.config(4, &json!({"temperature": 0.5}))).unwrap();
    let run = bench.path().join("run");
    let error = RetrievalRun::open(changed, bench.path(), &run, Resume::Continue, 1).unwrap_err();
    assert!(matches!(error, Error::RunMismatch { .. }), "{error}");
}
