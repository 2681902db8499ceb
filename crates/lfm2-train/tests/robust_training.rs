//! Bad data and bad settings, by the ids of the robustness table.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use lfm2_hub::ErrorKind;
use lfm2_train::{Error, Resume, TrainOptions};
use serde_json::{Value, json};
use support::Bench;

/// Opens a run on one data file with the given text.
fn open(format: &str, text: &str, changes: &Value) -> lfm2_train::Result<u64> {
    let bench = Bench::new();
    bench.write("data", text);
    let mut all = json!({"data": [{"path": "data", "format": format}]});
    for (key, value) in changes.as_object().into_iter().flatten() {
        all[key] = value.clone();
    }
    let trainer = bench.open(bench.options(2, &all), "run", Resume::Never, 1)?;
    Ok(trainer.step())
}

fn message(format: &str, text: &str) -> String {
    let error = open(format, text, &json!({})).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    error.to_string()
}

const CHAT: &str =
    r#"{"messages": [{"role": "user", "content": "who"}, {"role": "assistant", "content": "me"}]}"#;

#[test]
fn tr_01_an_empty_data_set_is_refused() {
    for (format, text) in [
        ("text", ""),
        ("text", "\n \n\n"),
        ("chat", ""),
        ("preference", "\n"),
    ] {
        assert!(message(format, text).contains("no document"), "{format}");
    }
}

#[test]
fn tr_01_one_row_is_enough() {
    assert_eq!(open("chat", CHAT, &json!({})).unwrap(), 0);
    assert_eq!(open("text", "One story.", &json!({})).unwrap(), 0);
}

#[test]
fn tr_01_keeping_out_every_row_is_refused() {
    let data = json!({"data": [{"path": "data", "format": "chat", "holdout": 1}]});
    assert!(
        open("chat", CHAT, &data)
            .unwrap_err()
            .to_string()
            .starts_with("holdout: ")
    );
}

#[test]
fn tr_01_a_row_longer_than_a_micro_batch_is_cut_and_counted() {
    let bench = Bench::new();
    bench.write("stories.txt", &"a long story without an end ".repeat(100));
    let changes =
        json!({"data": [{"path": "stories.txt", "format": "text"}], "micro_batch_tokens": 32});
    let mut trainer = bench
        .open(bench.options(2, &changes), "run", Resume::Never, 1)
        .unwrap();
    let cut = std::cell::Cell::new(0);
    struct Count<'a>(&'a std::cell::Cell<usize>);
    impl lfm2_train::TrainProgress for Count<'_> {
        fn event(&self, event: &lfm2_train::TrainEvent<'_>) {
            match event {
                lfm2_train::TrainEvent::Prepared { sources, .. } => self.0.set(sources[0].cut),
                lfm2_train::TrainEvent::Step(report) => assert!(report.tokens <= 3 * 32),
                _ => {}
            }
        }
    }
    trainer
        .train(&Count(&cut), &lfm2_generate::Cancel::new())
        .unwrap();
    assert_eq!(cut.get(), 1);
}

#[test]
fn tr_01_rows_without_a_scored_token_are_refused() {
    let asked = r#"{"messages": [{"role": "user", "content": "who"}]}"#;
    assert!(message("chat", asked).contains("nothing in this file is scored"));
    // Together with a good row they are only left out.
    assert_eq!(
        open("chat", &format!("{asked}\n{CHAT}"), &json!({})).unwrap(),
        0
    );
}

#[test]
fn tr_01_a_broken_line_is_named() {
    let broken = format!("{CHAT}\n\n{CHAT}\n{CHAT}\n{{\"messages\": [}}\n{CHAT}");
    assert!(message("chat", &broken).contains("line 5: "));
    let wrong = format!("{CHAT}\n{{\"messages\": [{{\"role\": \"nobody\", \"content\": \"x\"}}]}}");
    assert!(message("chat", &wrong).contains("line 2: "));
    assert!(
        message("chat", "{\"messages\": []}").contains("line 1: expected at least one message")
    );
    assert!(
        message("preference", "{\"prompt\": \"a\"}").contains("line 1: missing field `chosen`")
    );
}

#[test]
fn tr_01_a_missing_file_is_not_found_and_named() {
    let bench = Bench::new();
    let changes = json!({"data": [{"path": "no-such-file", "format": "text"}]});
    let error = bench
        .open(bench.options(1, &changes), "run", Resume::Never, 1)
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("no-such-file"));
}

#[test]
fn settings_without_meaning_are_refused_by_name() {
    let cases = [
        ("steps", json!({"steps": 0})),
        ("micro_batches", json!({"micro_batches": 0})),
        ("micro_batch_tokens", json!({"micro_batch_tokens": 1})),
        ("clip", json!({"clip": -1.0})),
        ("data", json!({"data": []})),
        (
            "answer_weight",
            json!({"data": [{"path": "data", "format": "chat", "answer_weight": 0.0}]}),
        ),
        (
            "share",
            json!({"data": [{"path": "data", "format": "chat", "share": -0.5}]}),
        ),
        (
            "tokenizer.vocab_size",
            json!({"base": {"fresh": {"vocab_size": 100, "config": {}}}}),
        ),
        (
            "base.fresh.config",
            json!({"base": {"fresh": {"vocab_size": 300, "config": 3}}}),
        ),
    ];
    for (key, changes) in cases {
        let error = open("chat", CHAT, &changes).unwrap_err();
        assert!(
            matches!(&error, Error::InvalidOption { key: found, .. } if found == key),
            "{key}: {error}"
        );
    }
}

#[test]
fn a_misspelt_setting_is_not_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.json");
    let bench = Bench::new();
    let mut options = serde_json::to_value(bench.options(1, &json!({}))).unwrap();
    std::fs::write(&path, options.to_string()).unwrap();
    assert_eq!(
        TrainOptions::read(&path).unwrap(),
        bench.options(1, &json!({}))
    );
    options["step"] = json!(3);
    std::fs::write(&path, options.to_string()).unwrap();
    assert!(
        TrainOptions::read(&path)
            .unwrap_err()
            .to_string()
            .contains("unknown field `step`")
    );
}

#[test]
fn tr_04_a_damaged_state_is_refused_by_name() {
    let bench = Bench::new();
    let options = bench.options(2, &json!({}));
    let mut trainer = bench
        .open(options.clone(), "run", Resume::Never, 1)
        .unwrap();
    trainer.train(&(), &lfm2_generate::Cancel::new()).unwrap();
    let run = bench.run_folder("run");
    let header = std::fs::read_to_string(run.join("state.json")).unwrap();
    let resume = |header: &str| {
        std::fs::write(run.join("state.json"), header).unwrap();
        bench
            .open(options.clone(), "run", Resume::Continue, 1)
            .map(|t| t.step())
    };
    assert!(
        resume(&header.replace("state-00000002", "../state-00000002"))
            .unwrap_err()
            .to_string()
            .contains("not a file name")
    );
    assert!(resume("{").unwrap_err().to_string().contains("state.json"));
    assert_eq!(resume(&header).unwrap(), 2);
    std::fs::write(run.join("state-00000002.safetensors"), b"short").unwrap();
    assert!(
        resume(&header)
            .unwrap_err()
            .to_string()
            .contains("state-00000002.safetensors")
    );
}
