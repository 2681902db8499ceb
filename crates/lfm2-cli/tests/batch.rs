//! `lfm2 batch` from outside.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

mod common;

use common::{checkpoint, run, run_with, text};
use serde_json::{Value, json};

/// The objects a run wrote.
fn rows(stdout: &str) -> Vec<Value> {
    stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn lines(rows: &[Value]) -> String {
    rows.iter().map(|row| format!("{row}\n")).collect()
}

#[test]
fn results_are_those_of_generate_in_the_order_of_the_lines() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("prompts.jsonl");
    let prompts = [
        "Once upon a time",
        "Sam",
        "One day a little fox named Vera went out to play",
        "Mia had",
    ];
    let input = prompts.map(|prompt| json!({"prompt": prompt, "id": [prompt.len()]}));
    std::fs::write(&file, lines(&input)).unwrap();
    let outcome = run(&[
        "batch",
        &text(&file),
        "-n",
        "9",
        "--seed",
        "4",
        "--rows",
        "3",
    ])
    .ok();
    assert!(outcome.stderr.is_empty(), "{}", outcome.stderr);
    let found = rows(&outcome.stdout);
    assert_eq!(found.len(), prompts.len());
    for (number, (row, prompt)) in found.iter().zip(prompts).enumerate() {
        let seed = (4 + number).to_string();
        let alone = run(&["generate", prompt, "-n", "9", "--seed", &seed, "--json"])
            .ok()
            .json();
        for key in [
            "text",
            "seed",
            "finish",
            "prompt_tokens",
            "generated_tokens",
        ] {
            assert_eq!(row[key], alone[key], "{key} of {row}");
        }
        assert_eq!(
            (&row["line"], &row["id"]),
            (&json!(number + 1), &json!([prompt.len()]))
        );
    }
}

#[test]
fn conversations_are_answered_through_the_template() {
    let model = text(&checkpoint());
    let args = [
        "batch",
        "-",
        "--chat",
        "-m",
        &model,
        "-n",
        "6",
        "--seed",
        "1",
        "--temperature",
        "0",
    ];
    let messages = json!([{"role": "user", "content": "Hello"}]);
    let input = lines(&[json!({"messages": messages}), json!({"prompt": "Hello"})]);
    let found = rows(&run_with(&args, input.as_bytes()).ok().stdout);
    let alone = run(&[
        "generate",
        "--chat",
        "Hello",
        "-m",
        &model,
        "-n",
        "6",
        "--temperature",
        "0",
        "--json",
    ])
    .ok()
    .json();
    assert_eq!(found[0]["text"], alone["text"]);
    assert_eq!(found[1]["text"], alone["text"]);
}

#[test]
fn a_text_that_fails_does_not_stop_the_others() {
    let input = lines(&[
        json!({"prompt": "Once"}),
        json!({"prompt": ""}),
        json!({"prompt": "word ".repeat(5000)}),
        json!({"prompt": "Sam"}),
    ]);
    let outcome = run_with(&["batch", "-", "-n", "3"], input.as_bytes());
    assert_eq!(outcome.code, 2);
    let expected = "error: 2 of 4 texts failed: line 2: the prompt is empty\n";
    assert_eq!(outcome.stderr, expected);
    let found = rows(&outcome.stdout);
    assert_eq!(found.len(), 4);
    assert_eq!(found[1], json!({"line": 2, "error": "the prompt is empty"}));
    assert!(
        found[2]["error"]
            .as_str()
            .unwrap()
            .contains("the context has room for")
    );
    assert!(found[0]["text"].is_string() && found[3]["text"].is_string());
}

#[test]
fn a_broken_line_is_found_before_any_work() {
    let input = b"{\"prompt\": \"Once\"}\n{\"promt\": \"upon\"}\n";
    let outcome = run_with(&["batch", "-"], input);
    assert_eq!((outcome.code, outcome.stdout.as_str()), (2, ""));
    let expected = "error: stdin line 2: expected `prompt` or `messages`, found neither\n";
    assert_eq!(outcome.stderr, expected);
    assert_eq!(run(&["batch", "./nowhere.jsonl"]).code, 3);
    assert_eq!(run(&["batch", "-", "--top-p", "7"]).code, 2);
    assert_eq!(run(&["batch", "-"]).ok().stdout, "");
}
