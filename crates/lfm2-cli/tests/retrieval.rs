//! The commands about texts that can be searched, on a checkpoint with random weights.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{Outcome, command, run, run_with, text};
use serde_json::{Value, json};

/// A folder with a retrieval model.
fn model() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../models/lfm2-colbert/tests/golden/two-dense-tiny")
}

/// Another one: the same with a different weight.
fn other_model(folder: &Path) -> PathBuf {
    let other = folder.join("other model");
    for part in ["", "1_Dense", "2_Dense"] {
        fs::create_dir_all(other.join(part)).unwrap();
        for entry in fs::read_dir(model().join(part)).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                fs::copy(&path, other.join(part).join(path.file_name().unwrap())).unwrap();
            }
        }
    }
    let weights = other.join("1_Dense/model.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    let last = bytes.len() - 2;
    bytes[last] ^= 1;
    fs::write(&weights, bytes).unwrap();
    other
}

/// Runs the command with the model, in `folder`.
fn run_in(folder: &Path, args: &[&str]) -> Outcome {
    let mut command = command(args);
    command
        .current_dir(folder)
        .env("LFM2_RETRIEVAL_MODEL", model())
        .stdin(std::process::Stdio::null());
    command.output().unwrap().into()
}

fn rows(outcome: &Outcome) -> Vec<Value> {
    let lines = outcome.stdout.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// A folder with files of every kind, in `docs`.
fn docs() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.path().join("docs").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    };
    write(
        "wings.md",
        b"---\ntitle: Wings\n---\nAbout wings.\n\n## Lift\n\nLift holds a plane.\n",
    );
    write("sub/plain.txt", b"A plain text about flow.");
    let lines = [
        json!({"id": "j1", "title": "Json", "text": "heat and mass", "year": 1958}),
        json!({"id": "j2", "text": "sound", "year": 1960}),
    ];
    write(
        "rows.jsonl",
        lines.map(|line| format!("{line}\n")).concat().as_bytes(),
    );
    write("binary.bin", b"a\0b");
    write("latin.txt", b"caf\xe9");
    write("empty.txt", b"");
    write(".hidden/x.txt", b"never");
    folder
}

/// A folder of [`docs`] with an index of them, `x`.
fn indexed() -> tempfile::TempDir {
    let folder = docs();
    run_in(folder.path(), &["index", "build", "x", "docs"]).ok();
    folder
}

#[test]
fn a_folder_is_indexed_searched_and_brought_up_to_date() {
    let folder = docs();
    let at = folder.path();
    let built = run_in(at, &["index", "build", "x", "docs", "-v", "--json"]).ok();
    let report = built.json();
    assert_eq!(
        (&report["new"], &report["empty"], &report["skipped"]),
        (&json!(4), &json!(1), &json!(2))
    );
    assert_eq!(report["chunks"], report["index"]["documents"]);
    let notes: Vec<_> = built.stderr.lines().collect();
    assert_eq!(
        notes,
        [
            "skipped docs/binary.bin: binary",
            "skipped docs/latin.txt: not utf-8 at byte 3"
        ]
    );

    let found = rows(&run_in(at, &["search", "x", "what is lift?", "--json", "-k", "100"]).ok());
    assert_eq!(found.len() as u64, report["chunks"].as_u64().unwrap());
    let lift = found.iter().find(|row| row["heading"] == "Lift").unwrap();
    assert_eq!(
        (&lift["document"], &lift["line"]),
        (&json!("docs/wings.md"), &json!(8))
    );
    assert_eq!(
        (&lift["title"], &lift["text"]),
        (&json!("Wings"), &json!("Lift holds a plane."))
    );

    fs::write(at.join("docs/sub/plain.txt"), "Changed.").unwrap();
    fs::write(at.join("docs/new.txt"), "New.").unwrap();
    let added = run_in(at, &["index", "add", "x", "docs", "--json"])
        .ok()
        .json();
    let counts = ["new", "changed", "unchanged"].map(|key| added[key].as_u64().unwrap());
    assert_eq!(counts, [1, 1, 3]);
    let deleted = run_in(at, &["index", "delete", "x", "docs/new.txt", "j1"]).ok();
    assert_eq!(
        deleted.stdout,
        "deleted docs/new.txt, 1 chunks\ndeleted j1, 1 chunks\n"
    );
    let info = run_in(at, &["index", "info", "x", "--json"]).ok();
    let info: Value = serde_json::from_str(&info.stdout).unwrap();
    assert_eq!(info["index"]["documents"], json!(found.len() - 1));
    assert!(info["bytes_per_chunk"].as_f64().unwrap() > 0.0);
    let table = run_in(at, &["index", "info", "x"]).ok().stdout;
    assert!(
        table.contains("backend") && table.contains("exact"),
        "{table}"
    );
}

#[test]
fn the_index_remembers_its_model() {
    let folder = indexed();
    let index = text(&folder.path().join("x"));
    // No variable and no option.
    let found = run(&["search", &index, "flow", "-k", "1", "--json"]).ok();
    assert_eq!(rows(&found).len(), 1);
    let other = text(&other_model(folder.path()));
    let refused = run(&["search", &index, "flow", "--model", &other]);
    assert_eq!(refused.code, 2);
    let expected = ["the index was made with", "two-dense-tiny", "other model"];
    assert!(
        expected.iter().all(|part| refused.stderr.contains(part)),
        "{}",
        refused.stderr
    );
    let text_model = text(&common::checkpoint());
    let refused = run(&["search", &index, "flow", "--model", &text_model]);
    assert_eq!(refused.code, 3, "{}", refused.stderr);
    assert!(
        refused.stderr.contains("modules.json"),
        "{}",
        refused.stderr
    );
}

#[test]
fn without_a_model_the_built_in_one_is_used() {
    let folder = docs();
    let (index, docs) = (
        text(&folder.path().join("x")),
        text(&folder.path().join("docs")),
    );
    run(&["index", "build", &index, &docs]).ok();
    let found = run(&["search", &index, "what lift holds", "-k", "1", "--json"]).ok();
    assert_eq!(rows(&found)[0]["heading"], "Lift");
    let info: Value =
        serde_json::from_str(&run(&["index", "info", &index, "--json"]).ok().stdout).unwrap();
    assert_eq!(info["model_source"], Value::Null);
    assert_eq!(rows(&run(&["embed", "a wing"]).ok()).len(), 1);
}

#[test]
fn filters_explanations_and_plain_hits() {
    let folder = indexed();
    let at = folder.path();
    let found = run_in(
        at,
        &[
            "search",
            "x",
            "heat",
            "--json",
            "--filter",
            "year in [1958, 1960]",
        ],
    );
    let ids: Vec<Value> = rows(&found.ok())
        .into_iter()
        .map(|row| row["id"].clone())
        .collect();
    assert_eq!(ids.len(), 2);
    assert!(
        ids.contains(&json!("j1#0")) && ids.contains(&json!("j2#0")),
        "{ids:?}"
    );
    let wrong = run_in(at, &["search", "x", "heat", "--filter", "year ="]);
    assert_eq!(wrong.code, 2);
    assert!(
        wrong.stderr.contains("expected a value"),
        "{}",
        wrong.stderr
    );

    let args = [
        "search",
        "x",
        "lift",
        "-k",
        "1",
        "--filter",
        "heading = Lift",
        "--explain",
    ];
    let shown = run_in(at, &args).ok().stdout;
    assert!(
        shown.starts_with(" 1. docs/wings.md:8  Wings > Lift  "),
        "{shown}"
    );
    assert!(!shown.contains('\x1b'), "a pipe has no colours: {shown}");
    let row = rows(&run_in(at, &[&args[..], &["--json"]].concat()).ok()).remove(0);
    let parts = row["explanation"].as_array().unwrap();
    let sum: f64 = parts
        .iter()
        .map(|part| part["similarity"].as_f64().unwrap())
        .sum();
    assert!((sum - row["score"].as_f64().unwrap()).abs() < 1e-3, "{row}");
    let none = run_in(at, &["search", "x", "heat", "--filter", "year = 1"]).ok();
    assert_eq!(
        (none.stdout.as_str(), none.stderr.as_str()),
        ("", "nothing found\n")
    );
}

#[test]
fn questions_come_from_a_pipe_one_by_one() {
    let folder = indexed();
    let index = text(&folder.path().join("x"));
    let outcome = run_with(&["search", &index, "-k", "2", "--json"], b"flow\n\nheat\n").ok();
    let asked: Vec<Value> = rows(&outcome)
        .into_iter()
        .map(|row| row["question"].clone())
        .collect();
    assert_eq!(asked, ["flow", "flow", "heat", "heat"].map(Value::from));
    assert_eq!(run_with(&["search", &index], b"").ok().stdout, "");
    assert_eq!(run_with(&["search", &index], b"a\xff\n").code, 2);
}

#[test]
fn cb_01_odd_questions_are_defined() {
    let folder = indexed();
    let at = folder.path();
    for (question, code) in [("", 2), ("  ", 2), ("?!", 0)] {
        assert_eq!(
            run_in(at, &["search", "x", question]).code,
            code,
            "{question:?}"
        );
    }
    let long = "word ".repeat(500);
    assert_eq!(
        rows(&run_in(at, &["search", "x", &long, "--json"]).ok()).len(),
        5
    );
    let unquoted = run_in(at, &["search", "x", "what", "is", "lift"]);
    assert!(
        unquoted.code == 2 && unquoted.stderr.contains("quotes"),
        "{}",
        unquoted.stderr
    );
}

#[test]
fn cb_02_damaged_and_missing_indexes_are_named() {
    let folder = indexed();
    let at = folder.path();
    assert_eq!(run_in(at, &["search", "nowhere", "a"]).code, 3);
    assert_eq!(run_in(at, &["index", "info", "docs"]).code, 3);
    assert_eq!(run_in(at, &["index", "add", "nowhere", "docs"]).code, 3);
    let missing = run_in(at, &["index", "delete", "x", "j1", "no such"]);
    assert_eq!(missing.code, 3);
    assert!(
        missing.stderr.contains("document no such"),
        "{}",
        missing.stderr
    );

    let segment = fs::read_dir(at.join("x"))
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let segment = { segment }.find(|path| path.extension().is_some_and(|e| e == "safetensors"));
    let segment = segment.unwrap();
    let bytes = fs::read(&segment).unwrap();
    let name = segment.file_name().unwrap().to_str().unwrap();
    for damaged in [
        bytes[..bytes.len() / 2].to_vec(),
        [&bytes[..bytes.len() - 1], b"?"].concat(),
    ] {
        fs::write(&segment, damaged).unwrap();
        let refused = run_in(at, &["search", "x", "a"]);
        assert_eq!(refused.code, 4, "{}", refused.stderr);
        assert!(refused.stderr.contains(name), "{}", refused.stderr);
    }
}

#[test]
fn building_again_goes_on_and_never_replaces_by_accident() {
    let folder = indexed();
    let at = folder.path();
    let again = run_in(at, &["index", "build", "x", "docs", "--json"])
        .ok()
        .json();
    assert_eq!(
        (&again["unchanged"], &again["chunks"]),
        (&json!(4), &json!(0))
    );
    let other = run_in(at, &["index", "build", "x", "docs", "--chunk-tokens", "40"]);
    assert_eq!(other.code, 2);
    assert!(other.stderr.contains("--force"), "{}", other.stderr);
    let other = run_in(at, &["index", "build", "x", "docs", "--backend", "plaid"]);
    assert!(
        other.code == 2 && other.stderr.contains("--force"),
        "{}",
        other.stderr
    );
    let forced = [
        "index",
        "build",
        "x",
        "docs",
        "--chunk-tokens",
        "40",
        "--force",
        "--json",
    ];
    assert_eq!(run_in(at, &forced).ok().json()["new"], json!(4));
    // A folder that is no index is left alone, forced or not.
    fs::create_dir(at.join("mine")).unwrap();
    fs::write(at.join("mine/letter.txt"), "dear").unwrap();
    let refused = run_in(at, &["index", "build", "mine", "docs", "--force"]);
    assert_eq!(refused.code, 2, "{}", refused.stderr);
    assert_eq!(fs::read(at.join("mine/letter.txt")).unwrap(), b"dear");
}

#[test]
fn inputs_that_cannot_be_indexed_are_errors() {
    let folder = docs();
    let at = folder.path();
    fs::create_dir(at.join("none")).unwrap();
    fs::write(
        at.join("broken.jsonl"),
        "{\"text\": \"a\"}\n{\"text\": 7}\n",
    )
    .unwrap();
    fs::write(
        at.join("twice.jsonl"),
        "{\"id\": 1, \"text\": \"a\"}\n{\"id\": 1, \"text\": \"b\"}\n",
    )
    .unwrap();
    for (path, code, expected) in [
        ("nowhere", 3, "nowhere"),
        ("none", 2, "no files to index in none"),
        ("docs/binary.bin", 4, "binary.bin: binary"),
        ("docs/empty.txt", 2, "there is no text"),
        (
            "broken.jsonl",
            4,
            "broken.jsonl:2: \"text\": expected text, found a number",
        ),
        ("twice.jsonl", 2, "document \"1\" comes twice"),
    ] {
        let index = format!("index of {}", path.replace('/', " "));
        let outcome = run_in(at, &["index", "build", &index, path]);
        assert_eq!(outcome.code, code, "{path}: {}", outcome.stderr);
        assert!(outcome.stderr.contains(expected), "{}", outcome.stderr);
    }
    let wrong = run_in(
        at,
        &["index", "build", "y", "docs", "--chunk-tokens", "4000"],
    );
    assert!(
        wrong.code == 2 && wrong.stderr.contains("at most 62"),
        "{}",
        wrong.stderr
    );
    let wrong = run_in(
        at,
        &[
            "index",
            "build",
            "y",
            "docs",
            "--backend",
            "plaid",
            "--bits",
            "3",
        ],
    );
    assert!(
        wrong.code == 2 && wrong.stderr.contains("expected 2 or 4"),
        "{}",
        wrong.stderr
    );
}

#[test]
fn texts_are_embedded_one_line_each() {
    let folder = tempfile::tempdir().unwrap();
    let found = rows(&run_in(folder.path(), &["embed", "a wing", "flow, heat."]).ok());
    assert_eq!(found.len(), 2);
    for row in &found {
        let vectors = row["vectors"].as_array().unwrap();
        assert_eq!(vectors.len(), row["tokens"].as_array().unwrap().len());
        for vector in vectors {
            let squares = vector
                .as_array()
                .unwrap()
                .iter()
                .map(|v| v.as_f64().unwrap().powi(2));
            assert!((squares.sum::<f64>() - 1.0).abs() < 1e-4);
        }
    }
    let model = text(&model());
    let piped = run_with(
        &["embed", "-", "--model", &model],
        b"a wing\n\nflow, heat.\n",
    )
    .ok();
    assert_eq!(rows(&piped), found);
    let query = rows(&run_in(folder.path(), &["embed", "--query", "a wing"]).ok());
    assert_ne!(query[0]["tokens"], found[0]["tokens"]);
}

#[test]
fn candidates_are_sorted_whatever_they_come_as() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("texts.txt");
    let texts = ["one wing", "sound", "two wings and lift", "sound"];
    fs::write(&file, texts.join("\n")).unwrap();
    let args = ["rerank", "lift", "texts.txt"];
    let plain = run_in(folder.path(), &args).ok().stdout;
    let found = rows(&run_in(folder.path(), &[&args[..], &["--json"]].concat()).ok());
    assert_eq!((plain.lines().count(), found.len()), (4, 4));
    let scores: Vec<f64> = found
        .iter()
        .map(|row| row["score"].as_f64().unwrap())
        .collect();
    assert!(scores.is_sorted_by(|a, b| a >= b), "{scores:?}");
    let place = |place: u64| found.iter().position(|row| row["place"] == place).unwrap();
    // Equals keep their order.
    assert_eq!(place(2) + 1, place(4));
    let lines = [
        json!({"id": "b", "title": "two", "text": "wings"}),
        json!({"text": "sound"}),
    ];
    let lines = lines.map(|line| format!("{line}\n")).concat();
    let model = text(&model());
    let args = [
        "rerank", "lift", "-", "-k", "1", "--json", "--model", &model,
    ];
    assert_eq!(rows(&run_with(&args, lines.as_bytes()).ok()).len(), 1);
    assert_eq!(run_with(&args, b"{\"text\": 7}\n").code, 2);
    assert_eq!(run_in(folder.path(), &["rerank", " ", "texts.txt"]).code, 2);
}

/// A collection in which the answer to every question is a document of the same words.
fn collection(documents: usize) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().join("data");
    fs::create_dir(&at).unwrap();
    let (mut corpus, mut queries) = (String::new(), String::new());
    let mut judgements = "query-id\tcorpus-id\tscore\n".to_owned();
    for n in 0..documents {
        let text = format!("text {} about {}", n * 37 % 101, n * n % 53);
        corpus += &format!(
            "{}\n",
            json!({"_id": format!("d{n}"), "title": "", "text": text})
        );
        if n < 4 {
            queries += &format!("{}\n", json!({"_id": format!("q{n}"), "text": text}));
            judgements += &format!("q{n}\td{n}\t1\n");
        }
    }
    fs::write(at.join("corpus.jsonl"), corpus).unwrap();
    fs::write(at.join("queries.jsonl"), queries).unwrap();
    fs::write(at.join("qrels.tsv"), judgements).unwrap();
    folder
}

#[test]
fn a_collection_is_evaluated_in_every_way() {
    let folder = collection(130);
    let args = [
        "eval",
        "retrieval",
        "--data",
        "data",
        "--index",
        "plaid",
        "--bits",
        "2",
    ];
    let more = ["--keep", "kept", "--json"];
    let report = run_in(folder.path(), &[&args[..], &more].concat())
        .ok()
        .json();
    assert_eq!(
        (&report["documents"], &report["queries"]),
        (&json!(130), &json!(4))
    );
    let rows = report["rows"].as_array().unwrap();
    let names: Vec<&str> = rows
        .iter()
        .map(|row| row["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["exact", "plaid, 2 bits", "BM25"]);
    for row in rows {
        for key in [
            "ndcg_at_10",
            "mrr_at_10",
            "map_at_100",
            "recall_at_10",
            "recall_at_100",
        ] {
            let value = row[key].as_f64().unwrap();
            assert!((0.0..=1.0).contains(&value), "{key} of {row}");
        }
        assert!(row["questions_per_second"].as_f64().unwrap() > 0.0);
    }
    assert_eq!(rows[2]["mrr_at_10"], json!(1.0));
    let agreement = rows[1]["agreement"].as_f64().unwrap();
    assert!((0.0..=1.0).contains(&agreement));
    assert!(report["encoding_seconds"].is_number());
    let table = run_in(
        folder.path(),
        &[&args[..], &["--keep", "kept", "--limit", "2"]].concat(),
    )
    .ok();
    assert!(
        table.stdout.contains("nDCG@10") && table.stdout.contains("BM25"),
        "{}",
        table.stdout
    );
    assert!(
        !table.stdout.contains("documents were read"),
        "they were kept: {}",
        table.stdout
    );
}

#[test]
fn broken_collections_are_named_by_file_and_line() {
    let folder = collection(3);
    let args = ["eval", "retrieval", "--data", "data"];
    fs::write(folder.path().join("data/qrels.tsv"), "q0\td0\t1\nq0 d0 1\n").unwrap();
    let outcome = run_in(folder.path(), &args);
    assert_eq!(outcome.code, 4);
    assert!(
        outcome.stderr.contains("qrels.tsv:2: expected query"),
        "{}",
        outcome.stderr
    );
    fs::remove_file(folder.path().join("data/corpus.jsonl")).unwrap();
    assert_eq!(run_in(folder.path(), &args).code, 3);
}
