//! `lfm2 merge`, `lfm2 train teach` and `lfm2 train score`.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

mod common;

use std::path::Path;

use common::{run, text, tiny_run};
use serde_json::{Value, json};

/// The configuration of a run with other settings, next to the first.
fn change(config: &str, name: &str, changes: &Value) -> String {
    let mut options: Value = serde_json::from_slice(&std::fs::read(config).unwrap()).unwrap();
    for (key, value) in changes.as_object().unwrap() {
        options[key] = value.clone();
    }
    let path = Path::new(config).with_file_name(name);
    std::fs::write(&path, options.to_string()).unwrap();
    text(&path)
}

#[test]
fn a_teacher_is_asked_learnt_from_scored_with_and_merged() {
    let folder = tempfile::tempdir().unwrap();
    let (config, _) = tiny_run(folder.path(), 2);
    let at = |name: &str| text(&folder.path().join(name));
    let train = |config: &str, out: &str| {
        run(&["train", "--config", config, "--out", &at(out)]).ok();
    };
    train(&config, "teacher");
    let teacher = at("teacher/checkpoint");
    run(&[
        "train",
        "teach",
        "--config",
        &config,
        "--teacher",
        &teacher,
        "--out",
        &at("taught"),
        "--k",
        "4",
    ])
    .ok();
    let distill =
        json!({"objective": {"kind": "distill", "teacher": at("taught")}, "export_dtype": "f32"});
    train(&change(&config, "student.json", &distill), "student");
    let metrics = std::fs::read_to_string(folder.path().join("student/metrics.jsonl")).unwrap();
    assert!(metrics.contains("distillation"), "{metrics}");

    run(&[
        "train",
        "score",
        "--config",
        &config,
        "--out",
        &at("scores.json"),
        &teacher,
    ])
    .ok();
    let scores = std::fs::read_to_string(folder.path().join("scores.json")).unwrap();
    let scores: Vec<f64> = serde_json::from_str(&scores).unwrap();
    assert!(scores.iter().all(|s| (0.0..=1.0).contains(s)) && scores.len() > 1);

    let student = at("student/checkpoint");
    let merged = at("merged");
    let outcome = run(&[
        "merge",
        &student,
        "--method",
        "ties",
        "--base",
        &teacher,
        "--density",
        "1",
        "--dtype",
        "f32",
        "-o",
        &merged,
    ])
    .ok();
    assert_eq!(outcome.stdout.trim(), merged);
    run(&[
        "generate",
        "--model",
        &merged,
        "-n",
        "3",
        "--temperature",
        "0",
        "x",
    ])
    .ok();
    let again = run(&["merge", &student, "-o", &merged]);
    assert_eq!(again.code, 2);
    assert!(again.stderr.contains("exists already"), "{}", again.stderr);
}

#[test]
fn a_greedy_soup_leaves_out_what_lowers_the_score() {
    let model = text(Path::new(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../models/lfm2-tiny-stories"
    )));
    let folder = tempfile::tempdir().unwrap();
    let soup = text(&folder.path().join("soup"));
    // The score counts how often it was asked: the first two are models, every soup is worse.
    let count = text(&folder.path().join("count"));
    let score = format!("echo x >> {count}; echo {{}} > /dev/null; expr 10 - $(wc -l < {count})");
    let args = [
        "merge",
        &model,
        &model,
        "--method",
        "greedy-soup",
        "--evaluate",
        &score,
        "-o",
        &soup,
    ];
    let outcome = run(&args).ok();
    assert!(outcome.stderr.contains("2 models: 7"), "{}", outcome.stderr);
    let card = std::fs::read_to_string(folder.path().join("soup/README.md")).unwrap();
    assert_eq!(card.matches("lfm2-tiny-stories").count(), 1, "{card}");
    let missing = run(&[
        "merge",
        &model,
        &model,
        "--method",
        "greedy-soup",
        "-o",
        &text(&folder.path().join("no")),
    ]);
    assert!(missing.stderr.contains("--evaluate"), "{}", missing.stderr);
}

#[test]
fn what_cannot_be_merged_is_wrong_input() {
    let model = text(Path::new(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../models/lfm2-tiny-stories"
    )));
    let folder = tempfile::tempdir().unwrap();
    let out = text(&folder.path().join("out"));
    let refused = |args: &[&str], message: &str| {
        let outcome = run(&[&["merge", "-o", &out], args].concat());
        assert_eq!(outcome.code, 2, "{}", outcome.stderr);
        assert!(outcome.stderr.contains(message), "{}", outcome.stderr);
    };
    refused(&[&model, "--weights", "1,2"], "expected 1 numbers, found 2");
    refused(&[&model, "--method", "slerp"], "expected 2 for slerp");
    refused(&[&model, "--method", "ties"], "needs a base");
    let recipe = folder.path().join("recipe.yaml");
    std::fs::write(&recipe, "merge_method: ties\nmodel: [a]\n").unwrap();
    refused(&["--recipe", &text(&recipe)], "recipe.yaml");
}
