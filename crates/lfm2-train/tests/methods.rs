//! Whole runs of every method on tiny data: they learn, stop, resume, and refuse what does not fit.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::cell::RefCell;
use std::path::Path;
use std::sync::Arc;

use lfm2_generate::Cancel;
use lfm2_hub::{Checkpoint, ModelSource, OpenOptions, TensorSource};
use lfm2_nn::{Cache, DType, Decoder, Device, Input, Step, Tensor, Want};
use lfm2_text::{LoadOptions, TextConfig, TextModel};
use lfm2_train::merge::{MergeRecipe, Method as Merge, merge_adapter, merge_checkpoints};
use lfm2_train::{
    Error, LoraSource, Resume, StepReport, TeachOptions, TrainEvent, TrainProgress, Trainer, teach,
};
use serde_json::{Value, json};
use support::Bench;

/// Keeps every step's report, and stops after one of them if asked to.
#[derive(Default)]
struct Watch {
    reports: RefCell<Vec<StepReport>>,
    stop_after: Option<u64>,
    cancel: Cancel,
}

impl TrainProgress for Watch {
    fn event(&self, event: &TrainEvent<'_>) {
        if let TrainEvent::Step(report) = event {
            self.reports.borrow_mut().push((*report).clone());
            if self.stop_after == Some(report.step) {
                self.cancel.cancel();
            }
        }
    }
}

fn train(trainer: &mut Trainer) -> Vec<StepReport> {
    let watch = Watch::default();
    trainer.train(&watch, &watch.cancel).unwrap();
    watch.reports.into_inner()
}

/// A run of `steps` steps with `changes`, whole and in two parts, has the same losses, parameters and
/// biases, bit for bit.
fn resumes_exactly(bench: &Bench, steps: u64, changes: &Value) {
    let options = bench.options(steps, changes);
    let mut whole = bench
        .open(options.clone(), "whole", Resume::Never, 2)
        .unwrap();
    let reports = train(&mut whole);
    let watch = Watch {
        stop_after: Some(steps / 2),
        ..Watch::default()
    };
    let mut first = bench
        .open(options.clone(), "parts", Resume::Never, 1)
        .unwrap();
    let error = first.train(&watch, &watch.cancel).unwrap_err();
    assert!(matches!(error, Error::Cancelled { .. }), "{error}");
    let mut second = bench.open(options, "parts", Resume::Continue, 1).unwrap();
    let rest = train(&mut second);
    let losses = |reports: &[StepReport]| -> Vec<(u64, f64, f64)> {
        reports
            .iter()
            .map(|r| (r.step, r.loss, r.grad_norm))
            .collect()
    };
    assert_eq!(losses(&reports[steps as usize / 2..]), losses(&rest));
    let (whole, second) = (whole.parameters(), second.parameters());
    assert_eq!(whole.values().unwrap(), second.values().unwrap());
    for (name, bias) in whole.fixed() {
        let values = |bias: &Tensor| bias.to_vec1::<f32>().unwrap();
        assert_eq!(values(bias), values(&second.fixed()[name]), "{name}");
    }
}

/// Trains a little model and writes its checkpoint to the folder `name`.
fn checkpoint(bench: &Bench, name: &str, seed: u64, steps: u64) {
    let changes = json!({"export_dtype": "f32", "seed": seed});
    let options = bench.options(steps, &changes);
    let run = format!("run of {name}");
    let mut trainer = bench.open(options, &run, Resume::Never, 2).unwrap();
    train(&mut trainer);
    trainer.export(&bench.run_folder(name)).unwrap();
}

fn distillation(share: f64) -> Value {
    json!({"objective": {"kind": "distill", "teacher": "taught", "share": share}})
}

/// Asks the checkpoint `teacher` about the data of a run.
fn ask(bench: &Bench, changes: &Value, out: &str) -> lfm2_train::Result<u64> {
    let settings = TeachOptions::new("teacher").with_k(8);
    let (teacher, out) = (bench.run_folder("teacher"), bench.run_folder(out));
    let options = bench.options(1, changes);
    let mut told = 0;
    teach(
        &options,
        bench.path(),
        (&teacher, &out),
        &settings,
        (1, &Cancel::new()),
        &mut |done, _| told = done,
    )?;
    Ok(told)
}

#[test]
fn a_student_comes_nearer_to_its_teacher_and_resumes_exactly() {
    let bench = Bench::new();
    checkpoint(&bench, "teacher", 5, 16);
    assert!(ask(&bench, &json!({}), "taught").unwrap() > 100);
    let options = bench.options(12, &distillation(1.0));
    let mut student = bench.open(options, "student", Resume::Never, 2).unwrap();
    let reports = train(&mut student);
    let distance = |report: &StepReport| report.figures["distillation"];
    let (first, last) = (distance(&reports[0]), distance(&reports[11]));
    assert!(last < 0.8 * first, "{first} then {last}");
    assert!(reports[0].figures.contains_key("next_token"));
    assert!((reports[0].loss - first).abs() < 1e-6);
    resumes_exactly(&bench, 4, &distillation(0.5));
}

#[test]
fn tr_03_the_output_of_a_teacher_for_something_else_is_refused() {
    let bench = Bench::new();
    checkpoint(&bench, "teacher", 5, 2);
    ask(&bench, &json!({}), "taught").unwrap();
    let refused = |changes: Value| {
        let mut all = distillation(0.5);
        for (key, value) in changes.as_object().unwrap() {
            all[key] = value.clone();
        }
        let options = bench.options(2, &all);
        let result = bench.open(options, "student", Resume::Force, 1);
        result.unwrap_err().to_string()
    };
    assert!(refused(json!({"seed": 6})).contains("another seed"));
    assert!(refused(json!({"micro_batch_tokens": 96})).contains("another micro_batch_tokens"));
    assert!(
        ask(&bench, &json!({}), "taught")
            .unwrap_err()
            .to_string()
            .contains("already")
    );
    bench.write(
        "stories.txt",
        "Ada lost a ball.\n\nBen found it.\n\nEve was glad.",
    );
    let message = refused(json!({}));
    // Other data make another tokenizer, too.
    assert!(message.contains("another tokenizer"), "{message}");
    let other = ask(&bench, &json!({}), "other").unwrap_err();
    assert!(other.to_string().starts_with("teacher: "), "{other}");
}

#[test]
fn tr_03_a_damaged_store_is_refused_by_file() {
    let bench = Bench::new();
    checkpoint(&bench, "teacher", 5, 1);
    ask(&bench, &json!({}), "taught").unwrap();
    let open = || {
        let options = bench.options(1, &distillation(0.5));
        bench
            .open(options, "student", Resume::Force, 1)
            .map(|t| t.step())
    };
    assert_eq!(open().unwrap(), 0);
    let header = bench.run_folder("taught").join("teacher.json");
    let text = std::fs::read_to_string(&header).unwrap();
    std::fs::write(&header, text.replace("\"k\": 8", "\"k\": 9")).unwrap();
    assert!(
        open()
            .unwrap_err()
            .to_string()
            .contains("ids: expected shape")
    );
    std::fs::write(&header, text.replace("shard-00000", "../shard-00000")).unwrap();
    assert!(open().unwrap_err().to_string().contains("not a file name"));
    std::fs::remove_file(&header).unwrap();
    assert!(open().unwrap_err().to_string().contains("teacher.json"));
}

/// A checkpoint and a file of pairs on questions.
fn pairs_bench() -> Bench {
    let bench = Bench::new();
    checkpoint(&bench, "base", 5, 4);
    let names = ["Ada", "Ben", "Cleo", "Dan", "Eve"];
    let row = |i: usize| {
        let prompt = format!("{} lost a ball.\nWho found it?", names[i % 5]);
        let (chosen, rejected) = ("Ada", names[1 + i % 4]);
        json!({"prompt": prompt, "chosen": chosen, "rejected": rejected}).to_string()
    };
    let rows: Vec<String> = (0..10).map(row).collect();
    bench.write("pairs.jsonl", &rows.join("\n"));
    bench
}

fn preference(loss: &Value) -> Value {
    json!({
        "base": {"checkpoint": "base"},
        "objective": {"kind": "preference", "loss": loss},
        "data": [{"path": "pairs.jsonl", "format": "preference", "holdout": 2}],
        "micro_batches": 1, "micro_batch_tokens": 512,
    })
}

#[test]
fn better_answers_get_ahead_with_and_without_a_reference() {
    let bench = pairs_bench();
    for (name, loss) in [("dpo", json!({})), ("simpo", json!({"reference": "none"}))] {
        let options = bench.options(12, &preference(&loss));
        let mut trainer = bench.open(options, name, Resume::Never, 1).unwrap();
        let reports = train(&mut trainer);
        let (first, last) = (&reports[0], &reports[11]);
        assert!(
            last.loss < first.loss,
            "{name}: {} then {}",
            first.loss,
            last.loss
        );
        assert!(last.figures["lead"] > first.figures["lead"], "{name}");
        assert!(last.figures["accuracy"] > 0.9, "{name}: {:?}", last.figures);
        if name == "dpo" {
            // Before the first step the model is its own reference.
            assert!(first.figures["lead"].abs() < 1e-3, "{:?}", first.figures);
        }
        let metrics = std::fs::read_to_string(bench.run_folder(name).join("metrics.jsonl"));
        let metrics = metrics.unwrap();
        assert!(metrics.contains("pairs.jsonl") && !metrics.contains("perplexity"));
        let page = std::fs::read_to_string(bench.run_folder(name).join("report.html")).unwrap();
        assert!(page.contains("accuracy") && page.contains("Settings"));
    }
    resumes_exactly(&bench, 4, &preference(&json!({})));
}

#[test]
fn tr_08_pairs_that_teach_nothing_are_left_out_and_counted() {
    let bench = pairs_bench();
    let row = |chosen: &str, rejected: &str| {
        json!({"prompt": "Who?", "chosen": chosen, "rejected": rejected}).to_string()
    };
    let long = "very ".repeat(600);
    let rows = [
        row("Ada", "Ben"),
        row("Ada", "Ada"),
        row(&long, "Ben"),
        row("Eve", "Dan"),
    ];
    bench.write("pairs.jsonl", &rows.join("\n"));
    let mut changes = preference(&json!({}));
    changes["data"][0]["holdout"] = json!(1);
    let mut trainer = bench
        .open(bench.options(1, &changes), "some", Resume::Never, 1)
        .unwrap();
    struct Counts(RefCell<(usize, usize)>);
    impl TrainProgress for Counts {
        fn event(&self, event: &TrainEvent<'_>) {
            if let TrainEvent::Prepared { sources, .. } = event {
                *self.0.borrow_mut() = (sources[0].documents, sources[0].skipped);
            }
        }
    }
    let counts = Counts(RefCell::new((0, 0)));
    trainer.train(&counts, &Cancel::new()).unwrap();
    assert_eq!(counts.0.into_inner(), (2, 2));

    let open = |bench: &Bench| {
        let result = bench.open(bench.options(1, &changes), "none", Resume::Force, 1);
        result.unwrap_err().to_string()
    };
    bench.write("pairs.jsonl", &row("Ada", "Ada"));
    assert!(open(&bench).contains("none of the 1 pairs"));
    bench.write(
        "pairs.jsonl",
        &json!({"prompt": "Who?", "chosen": "Ada"}).to_string(),
    );
    assert!(open(&bench).contains("line 1: missing field `rejected`"));
}

#[test]
fn settings_of_methods_are_refused_by_name() {
    let bench = pairs_bench();
    let message = |changes: Value| {
        let result = bench.open(bench.options(1, &changes), "run", Resume::Force, 1);
        result.unwrap_err().to_string()
    };
    assert!(message(preference(&json!({"beta": -1.0}))).contains("objective.loss.beta"));
    let mut shared = preference(&json!({}));
    shared["data"][0]["share"] = json!(2.0);
    assert!(message(shared).starts_with("share: "));
    let mut text = preference(&json!({}));
    text["data"][0] = json!({"path": "stories.txt", "format": "text"});
    assert!(message(text).starts_with("data.format: "));
    assert!(message(distillation(1.5)).starts_with("objective.share: "));
    assert!(message(json!({"lora": {}})).starts_with("lora: "));
    assert!(message(json!({"balance": {"update": 0.0}})).starts_with("balance.update: "));
}

fn open_model(folder: &Path) -> TextModel {
    let source = ModelSource::Dir(folder.to_path_buf());
    let checkpoint = Checkpoint::open(&source, &OpenOptions::default()).unwrap();
    let config = TextConfig::from_json(checkpoint.config()).unwrap();
    let options = LoadOptions::default().strict();
    TextModel::from_tensors(config, checkpoint.tensors(), &options).unwrap()
}

fn logits(model: &TextModel) -> Vec<f32> {
    let ids = Tensor::new(&[1u32, 20, 30, 40, 7], &Device::Cpu).unwrap();
    let (step, mut cache) = (Step::single(5), Cache::stateless(1));
    let logits = model.forward(Input::Ids(&ids), &step, &mut cache, Want::AllLogits);
    logits.unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

fn assert_close(a: &[f32], b: &[f32]) {
    assert_eq!(a.len(), b.len());
    for (a, b) in a.iter().zip(b) {
        assert!((a - b).abs() < 1e-4, "{a} {b}");
    }
}

#[test]
fn adapters_alone_are_trained_written_and_added() {
    let bench = Bench::new();
    checkpoint(&bench, "base", 5, 4);
    let lora = json!({
        "base": {"checkpoint": "base"}, "lora": {"rank": 2, "alpha": 4.0}, "export_dtype": "f32",
    });
    let options = bench.options(8, &lora);
    let mut trainer = bench.open(options, "run", Resume::Never, 2).unwrap();
    let base = open_model(&bench.run_folder("base"));
    assert_close(&logits(trainer.model()), &logits(&base));
    assert!(
        trainer
            .parameters()
            .iter()
            .all(|p| p.name().contains(".lora_"))
    );
    let reports = train(&mut trainer);
    assert!(reports[7].loss < reports[0].loss);
    let found = logits(trainer.model());
    let moved = found
        .iter()
        .zip(logits(&base))
        .any(|(a, b)| (a - b).abs() > 1e-3);
    assert!(moved, "training changed nothing");

    let out = bench.run_folder("trained");
    trainer.export(&out).unwrap();
    assert_close(&logits(&open_model(&out)), &found);
    let source = ModelSource::Dir(bench.run_folder("base"));
    let checkpoint = Checkpoint::open(&source, &OpenOptions::default()).unwrap();
    let adapted = LoraSource::open(checkpoint.tensors(), &out.join("adapter")).unwrap();
    let config = TextConfig::from_json(checkpoint.config()).unwrap();
    let adapted: Arc<dyn TensorSource> = Arc::new(adapted);
    let model = TextModel::from_tensors(config, adapted, &LoadOptions::default()).unwrap();
    assert_close(&logits(&model), &found);
    let added = bench.run_folder("added");
    let folder = bench.run_folder("base");
    merge_adapter(&folder, &out.join("adapter"), None, &added, &mut |_| ()).unwrap();
    assert_close(&logits(&open_model(&added)), &found);
    resumes_exactly(&bench, 4, &lora);
}

#[test]
fn the_bias_of_a_mixture_moves_and_is_part_of_the_state() {
    let bench = Bench::new();
    let mixture = json!({"balance": {"update": 0.01}, "base": {"fresh": {"vocab_size": 300, "config": {
        "model_type": "lfm2_moe", "hidden_size": 16, "num_hidden_layers": 3,
        "layer_types": ["conv", "full_attention", "conv"],
        "num_attention_heads": 2, "num_key_value_heads": 1, "intermediate_size": 24,
        "moe_intermediate_size": 8, "num_experts": 4, "num_experts_per_tok": 2, "num_dense_layers": 1,
        "use_expert_bias": true, "norm_topk_prob": true, "conv_L_cache": 3, "norm_eps": 1e-5,
        "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"},
    }}}});
    let options = bench.options(4, &mixture);
    let mut trainer = bench.open(options, "run", Resume::Never, 2).unwrap();
    let reports = train(&mut trainer);
    assert!(reports.iter().all(|r| r.figures["expert_overload"] >= 0.0));
    let fixed = trainer.parameters().fixed();
    assert_eq!(fixed.len(), 2);
    for (name, bias) in fixed {
        let bias = bias.to_vec1::<f32>().unwrap();
        assert!(bias.iter().any(|b| *b != 0.0), "{name}: {bias:?}");
        let whole = |b: &f32| (b / 0.01 - (b / 0.01).round()).abs() < 1e-3 && b.abs() < 0.041;
        assert!(bias.iter().all(whole), "{name}: {bias:?}");
    }
    resumes_exactly(&bench, 4, &mixture);
}

/// Ends a run as a kill would: nothing is saved on the way out.
struct Kill(u64);

impl TrainProgress for Kill {
    fn event(&self, event: &TrainEvent<'_>) {
        if let TrainEvent::Step(report) = event {
            assert!(report.step != self.0, "killed");
        }
    }
}

#[test]
fn tr_04_a_run_killed_at_ten_random_moments_has_the_curve_of_one_that_was_not() {
    let bench = Bench::new();
    checkpoint(&bench, "base", 5, 1);
    let changes = json!({
        "base": {"checkpoint": "base"}, "micro_batches": 1, "save_every": 3, "validate_every": 7,
    });
    let options = bench.options(30, &changes);
    let mut whole = bench
        .open(options.clone(), "whole", Resume::Never, 1)
        .unwrap();
    train(&mut whole);
    let mut rng = lfm2_train::Rng::new(11);
    let (mut kills, mut step) = (0, 0);
    while kills < 10 {
        let mut run = bench
            .open(options.clone(), "killed", Resume::Continue, 1)
            .unwrap();
        assert!(run.step() <= step);
        // Up to 5 steps on: some kills come before the next state is saved.
        step = run.step() + 1 + rng.below(5) as u64;
        let killed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            run.train(&Kill(step), &Cancel::new()).unwrap();
        }));
        assert!(killed.is_err());
        kills += 1;
    }
    let mut last = bench.open(options, "killed", Resume::Continue, 1).unwrap();
    train(&mut last);
    let curve = |run: &str| -> Vec<String> {
        let text = std::fs::read_to_string(bench.run_folder(run).join("metrics.jsonl")).unwrap();
        let without_time = |line: &str| {
            let mut line: Value = serde_json::from_str(line).unwrap();
            line.as_object_mut().unwrap().remove("seconds");
            line.to_string()
        };
        text.lines().map(without_time).collect()
    };
    assert_eq!(curve("whole"), curve("killed"));
    assert_eq!(
        whole.parameters().values().unwrap(),
        last.parameters().values().unwrap()
    );
}

#[test]
fn documents_are_scored_and_met_from_easy_to_hard() {
    let bench = Bench::new();
    checkpoint(&bench, "a", 5, 3);
    checkpoint(&bench, "b", 6, 3);
    let models = [bench.run_folder("a"), bench.run_folder("b")];
    let options = bench.options(4, &json!({}));
    let mut told = (0, 0);
    let scores = lfm2_train::score(
        &options,
        bench.path(),
        0,
        &models,
        (2, &Cancel::new()),
        &mut |done, of| told = (done, of),
    )
    .unwrap();
    assert_eq!((scores.len(), told), (12, (24, 24)));
    let mut sorted = scores.clone();
    sorted.sort_by(f64::total_cmp);
    assert_eq!((sorted[0], sorted[11]), (0.0, 1.0));
    let with = |scores: &Value, order: Value| {
        bench.write("scores.json", &scores.to_string());
        let source = json!({
            "path": "stories.txt", "format": "text",
            "curriculum": {"scores": "scores.json", "order": order},
        });
        bench.options(4, &json!({"data": [source]}))
    };
    let scores = json!(scores);
    for (i, order) in [
        json!({"kind": "strict"}),
        json!({"kind": "window", "start": 0.3}),
    ]
    .into_iter()
    .enumerate()
    {
        let options = with(&scores, order);
        let mut run = bench
            .open(options, &format!("run {i}"), Resume::Never, 1)
            .unwrap();
        assert_eq!(train(&mut run).len(), 4);
    }
    let refused = |scores: Value| {
        let options = with(&scores, json!({"kind": "strict"}));
        let result = bench.open(options, "refused", Resume::Force, 1);
        result.unwrap_err().to_string()
    };
    assert!(refused(json!([0.5])).contains("each of 12 documents, found 1"));
    assert!(refused(json!(vec![2.0; 12])).contains("found 2"));
    assert!(refused(json!({"a": 1})).contains("scores.json"));
}

#[test]
fn computing_activations_anew_gives_the_same_updates() {
    let bench = pairs_bench();
    for (name, changes) in [
        ("text", json!({})),
        ("pairs", preference(&json!({}))),
        (
            "lora",
            json!({"base": {"checkpoint": "base"}, "lora": {"rank": 2}}),
        ),
    ] {
        let run = |activations: &str| {
            let mut all = changes.clone();
            all["activations"] = json!(activations);
            let (options, run) = (bench.options(3, &all), format!("{name} {activations}"));
            let mut trainer = bench.open(options, &run, Resume::Never, 1).unwrap();
            let reports = train(&mut trainer);
            let numbers: Vec<(f64, f64)> = reports.iter().map(|r| (r.loss, r.grad_norm)).collect();
            numbers
        };
        for (kept, anew) in run("keep").into_iter().zip(run("recompute")) {
            let close = |a: f64, b: f64| (a - b).abs() < 1e-4 * a.abs().max(1.0);
            assert!(
                close(kept.0, anew.0) && close(kept.1, anew.1),
                "{name}: {kept:?} {anew:?}"
            );
        }
    }
}

#[test]
fn merged_checkpoints_open_and_lie_between() {
    let bench = Bench::new();
    checkpoint(&bench, "a", 5, 2);
    checkpoint(&bench, "b", 6, 2);
    let recipe =
        "merge_method: linear\nmodels:\n  - model: a\n    parameters: {weight: 3}\n  - model: b\n";
    bench.write("recipe.yaml", recipe);
    let recipe = MergeRecipe::read(&bench.path().join("recipe.yaml")).unwrap();
    assert_eq!(recipe.method, Merge::Soup);
    let out = bench.run_folder("merged");
    let report = merge_checkpoints(&recipe, &out, &mut |_| ()).unwrap();
    assert!(report.tensors > 10);
    let tensors = |folder: &str| {
        let source = ModelSource::Dir(bench.run_folder(folder));
        Checkpoint::open(&source, &OpenOptions::default())
            .unwrap()
            .tensors()
    };
    let name = "model.embed_tokens.weight";
    let values = |folder: &str| -> Vec<f32> {
        let tensor = tensors(folder)
            .dense(name, DType::F32, &Device::Cpu)
            .unwrap();
        tensor.flatten_all().unwrap().to_vec1().unwrap()
    };
    let (a, b) = (values("a"), values("b"));
    for ((merged, a), b) in values("merged").into_iter().zip(a).zip(b) {
        assert!((merged - (0.75 * a + 0.25 * b)).abs() < 1e-6);
    }
    assert!(logits(&open_model(&out)).iter().all(|x| x.is_finite()));
    let tokenizer = bench.run_folder("b").join("tokenizer.json");
    let text = std::fs::read_to_string(&tokenizer).unwrap();
    std::fs::write(&tokenizer, text + " ").unwrap();
    let error = merge_checkpoints(&recipe, &bench.run_folder("no"), &mut |_| ()).unwrap_err();
    assert!(
        error.to_string().contains("tokenizer.json: differs"),
        "{error}"
    );
}
