//! `lfm2 eval choice`, `gsm8k` and `ifeval`, and measurements that go on where they were stopped.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::path::Path;

use common::{Outcome, run, text};
use serde_json::{Value, json};

fn write(folder: &Path, name: &str, rows: &[Value]) -> String {
    let path = folder.join(name);
    let lines: Vec<String> = rows.iter().map(Value::to_string).collect();
    std::fs::write(&path, lines.join("\n")).unwrap();
    text(&path)
}

const STORY: &str = "Once upon a time there was a boy named Ben. He had a fine drum. It was black.";

fn choices(folder: &Path) -> String {
    let row = |question: &str, choices: [&str; 2]| json!({"prompt": format!("{STORY}\n{question}"), "choices": choices, "answer": 0});
    let rows = [
        row(
            "What colour was the drum?",
            ["It was black.", "Once upon a time."],
        ),
        row(
            "What colour was the drum?",
            ["It was black.", "bread bread bread bread"],
        ),
    ];
    write(folder, "choices.jsonl", &rows)
}

fn eval(words: &[&str]) -> Outcome {
    run(&[&["eval"], words].concat())
}

#[test]
fn eval_choice_finds_the_likely_answers_and_names_broken_rows() {
    let folder = tempfile::tempdir().unwrap();
    let data = choices(folder.path());
    for frame in ["chat", "text"] {
        let found = eval(&["choice", "--data", &data, "--json", "--frame", frame])
            .ok()
            .json();
        assert_eq!(
            (&found["rows"], &found["by_chance"]),
            (&json!(2), &json!(0.5))
        );
        assert!(
            frame == "text" || found["by_token"] == json!(1.0),
            "{found}"
        );
    }
    let table = eval(&["choice", "--data", &data, "--limit", "1"])
        .ok()
        .stdout;
    assert!(
        table.starts_with("1 rows, likeliest") && table.contains("per byte"),
        "{table}"
    );
    let bad = json!({"prompt": "a", "choices": ["b"], "answer": 0});
    let bad = write(folder.path(), "bad.jsonl", &[bad]);
    let error = eval(&["choice", "--data", &bad]);
    assert_eq!(error.code, 2, "{}", error.stderr);
    assert!(
        error.stderr.contains("row 1: expected at least 2 choices"),
        "{}",
        error.stderr
    );
}

#[test]
fn eval_gsm8k_counts_last_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let row = json!({"question": "What is 2 + 3?", "answer": "2 + 3 = 5\n#### 5"});
    let data = write(folder.path(), "rows.jsonl", &[row]);
    // The built-in model knows no numbers.
    let outcome = eval(&["gsm8k", "--data", &data, "-n", "4", "--json"]).ok();
    let expected = json!({"accuracy": 0.0, "rows": 1, "without_number": 1});
    assert_eq!(outcome.json(), expected);
    let shown = eval(&["gsm8k", "--data", &data, "-n", "4", "-v"]).ok();
    assert!(
        shown.stderr.contains("expected 5, found "),
        "{}",
        shown.stderr
    );
    assert!(
        shown
            .stdout
            .starts_with("0 of 1 rows right: 0.0 %, 1 without"),
        "{}",
        shown.stdout
    );
}

#[test]
fn eval_ifeval_needs_no_file_and_refuses_unknown_rules() {
    let outcome = eval(&["ifeval", "--limit", "3", "-n", "8", "--json"])
        .ok()
        .json();
    assert_eq!(outcome["prompts"]["count"], json!(3));
    assert!(outcome["kinds"]["words"]["strict"].is_f64(), "{outcome}");
    let table = eval(&["ifeval", "--limit", "3", "-n", "8"]).ok().stdout;
    assert!(table.contains("prompts with all rules"), "{table}");
    let folder = tempfile::tempdir().unwrap();
    let row = json!({"prompt": "Rhyme.", "rules": [{"rule": "rhyme"}]});
    let data = write(folder.path(), "rows.jsonl", &[row]);
    let error = eval(&["ifeval", "--data", &data]);
    assert_eq!(error.code, 2);
    assert!(
        error.stderr.contains("line 1") && error.stderr.contains("rhyme"),
        "{}",
        error.stderr
    );
}

#[test]
fn a_measurement_is_kept_and_goes_on_with_the_same_settings_only() {
    let folder = tempfile::tempdir().unwrap();
    let row = |answer: &str| json!({"prompt": format!("{STORY}\nWho?"), "answer": answer});
    let data = write(
        folder.path(),
        "rows.jsonl",
        &[row("e"), row("Ben"), row("e")],
    );
    let kept = folder.path().join("kept.jsonl");
    let keep = text(&kept);
    let ask = |more: &[&str]| {
        let words = ["recall", "--data", &data, "--json", "--keep", &keep];
        eval(&[&words, more].concat())
    };
    let first = ask(&["-n", "4", "--limit", "2"]).ok().json();
    assert_eq!(first["rows"], json!(2));
    let lines = || std::fs::read_to_string(&kept).unwrap();
    let before = lines();
    assert_eq!(before.lines().count(), 3);
    // The rest is asked, what is there is not, and fewer rows are those at the start.
    let second = ask(&["-n", "4"]).ok().json();
    assert_eq!(second["rows"], json!(3));
    assert!(lines().starts_with(&before) && lines().lines().count() == 4);
    assert_eq!(ask(&["-n", "4", "--limit", "2"]).ok().json(), first);
    let other = ask(&["-n", "5"]);
    assert_eq!(other.code, 2);
    assert!(other.stderr.contains("max_new_tokens"), "{}", other.stderr);
    let other = eval(&["gsm8k", "--data", &data, "--keep", &keep]);
    assert!(other.code == 2 && lines().lines().count() == 4);

    let losses = text(&folder.path().join("losses.jsonl"));
    let text_file = text(&folder.path().join("text"));
    std::fs::write(&text_file, format!("{STORY}\n\n{STORY} The end.")).unwrap();
    let perplexity = || {
        let words = [
            "perplexity",
            "--data",
            &text_file,
            "--context",
            "16",
            "--json",
            "--keep",
            &losses,
        ];
        eval(&words).ok().json()
    };
    assert_eq!(perplexity()["tokens"], perplexity()["tokens"]);
}
