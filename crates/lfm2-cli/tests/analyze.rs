//! `lfm2 analyze`, on built-in models and a tiny BERT with random weights.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{Outcome, run, text};
use serde_json::{Value, json};

fn bert() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/lfm2-sentence/tests/golden/bert-tiny")
}

/// The tiny BERT with one number of a tensor changed.
fn changed_bert(folder: &Path, tensor: &str, place: usize, value: f32) -> PathBuf {
    let other = folder.join("other-bert");
    fs::create_dir_all(&other).unwrap();
    for entry in fs::read_dir(bert()).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            fs::copy(&path, other.join(path.file_name().unwrap())).unwrap();
        }
    }
    let weights = other.join("model.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let json: Value = serde_json::from_slice(&bytes[8..header]).unwrap();
    let start = json[tensor]["data_offsets"][0].as_u64().unwrap() as usize;
    let at = header + start + 4 * place;
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
    fs::write(&weights, bytes).unwrap();
    other
}

/// A file of `count` pairs in the past and the present.
fn pairs(folder: &Path, count: usize) -> String {
    let words = [
        "cat", "dog", "river", "garden", "house", "letter", "window", "ball", "car", "bird",
        "tree", "boat",
    ];
    let mut csv = String::from("Sentence1,Sentence2\n");
    for number in 0..count {
        let (one, two) = (words[number % 12], words[(number / 12 + number) % 12]);
        csv.push_str(&format!("The {one} finds seven {two}s near {number}.,The {one} found seven {two}s near {number}.\n"));
    }
    let path = folder.join("tense.csv");
    fs::write(&path, csv).unwrap();
    text(&path)
}

/// `lfm2 analyze dims` with these options behind `--out`.
fn dims(out: &Path, args: &[&str]) -> Outcome {
    let out = text(out);
    let mut all = vec!["analyze", "dims", "--out", &out];
    all.extend(args);
    run(&all)
}

fn rows(path: &Path) -> Vec<Vec<String>> {
    let table = fs::read_to_string(path).unwrap();
    table
        .lines()
        .map(|line| line.split(',').map(str::to_owned).collect())
        .collect()
}

#[test]
fn generated_pairs_make_a_report_and_other_rules_encode_nothing_again() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("new/study");
    let args = [
        "--count", "40", "--only", "tense", "--only", "control", "--layers", "0,final",
    ];
    let found = dims(&out, &args).ok();
    assert!(
        found.stdout.contains("report.html") && found.stdout.contains("tense"),
        "{}",
        found.stdout
    );
    let page = fs::read_to_string(out.join("report.html")).unwrap();
    for part in [
        "lfm2-tiny-stories",
        "lfm2 analyze dims --out",
        "From layer to layer",
        "built-in grammar",
    ] {
        assert!(page.contains(part), "{part}");
    }
    for file in [
        "properties.csv",
        "dimensions.csv",
        "layers.csv",
        "heat-map.svg",
        "layers.svg",
        "study.json",
    ] {
        assert!(out.join(file).is_file(), "{file}");
    }
    if cfg!(feature = "png") {
        assert!(
            fs::read(out.join("layers.png"))
                .unwrap()
                .starts_with(b"\x89PNG")
        );
    }
    let layers = rows(&out.join("layers.csv"));
    let named: Vec<_> = layers
        .iter()
        .skip(1)
        .map(|row| (row[0].as_str(), row[1].as_str()))
        .collect();
    assert_eq!(
        named,
        [
            ("0", "control"),
            ("0", "tense"),
            ("final", "control"),
            ("final", "tense")
        ]
    );

    let kept = |out: &Path| fs::read_dir(out.join("embeddings")).unwrap().count();
    assert_eq!(kept(&out), 4, "two properties at two places");
    let line = dims(&out, &[&args[..6], &["--published", "--json"]].concat())
        .ok()
        .json();
    assert_eq!(line["study"]["options"]["split"], "sentence");
    assert_eq!(line["study"]["properties"][1]["name"], "tense");
    assert_eq!(kept(&out), 4);
}

#[test]
fn a_retrieval_model_shows_what_its_scores_are_from() {
    let folder = tempfile::tempdir().unwrap();
    let args = [
        "--model",
        "lfm2-tiny-colbert",
        "--count",
        "24",
        "--only",
        "negation",
        "--only",
        "voice",
    ];
    dims(folder.path(), &args).ok();
    let shares = rows(&folder.path().join("shares.csv"));
    for name in ["negation", "voice"] {
        let own = shares.iter().filter(|row| row[0] == name);
        let sum: f64 = own.map(|row| row[2].parse::<f64>().unwrap()).sum();
        assert!((sum - 1.0).abs() < 1e-9, "{name}: {sum}");
    }
    let page = fs::read_to_string(folder.path().join("report.html")).unwrap();
    assert!(page.contains("What scores are from") && page.contains("even share"));
}

#[test]
fn a_bert_is_studied_like_any_model() {
    let folder = tempfile::tempdir().unwrap();
    let pairs = pairs(folder.path(), 60);
    let (model, out) = (text(&bert()), folder.path().join("out"));
    let args = [
        "--model",
        &model,
        "--pairs",
        &pairs,
        "--layers",
        "all",
        "--without-frame",
        "--published",
        "--split",
        "pair",
    ];
    let line = dims(&out, &[&args[..], &["--json"]].concat()).ok().json();
    let study = &line["study"];
    assert_eq!(
        (&study["dims"], &study["properties"][0]["name"]),
        (&json!(36), &json!("tense"))
    );
    assert_eq!(
        study["options"]["split"], "pair",
        "a rule comes before the published ones"
    );
    let layers: Vec<&str> = line["layers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|layer| layer["layer"].as_str().unwrap())
        .collect();
    assert_eq!(layers, ["0", "1", "2", "final"]);
}

#[test]
fn an_01_one_sided_rows_are_left_out_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let pairs = pairs(folder.path(), 30);
    let mut csv = fs::read_to_string(&pairs).unwrap();
    csv.push_str("Only one side,\n , \n");
    fs::write(&pairs, csv).unwrap();
    let out = folder.path().join("out");
    dims(&out, &["--model", &text(&bert()), "--pairs", &pairs]).ok();
    let page = fs::read_to_string(out.join("report.html")).unwrap();
    assert!(
        page.contains("rows without two sentences left out"),
        "the report says so"
    );
    fs::write(&pairs, "Sentence1,Sentence2\nonly,\n,other\n").unwrap();
    let none = dims(&out, &["--pairs", &pairs]);
    assert_eq!(none.code, 2);
    assert!(
        none.stderr.contains("tense.csv") && none.stderr.contains("no usable pair"),
        "{}",
        none.stderr
    );
}

#[test]
fn an_01_unreadable_files_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("odd.csv");
    let name = text(&path);
    for (content, code, said) in [
        (Some(&b"a,b\n1,2\n"[..]), 2, "Sentence1"),
        (Some(b"Sentence1,Sentence2\n\"open,x\n"), 2, "line"),
        (Some(b"Sentence1,Sentence2\n\xff,x\n"), 2, "odd.csv"),
        (None, 3, "odd.csv"),
    ] {
        let _ = fs::remove_file(&path);
        if let Some(content) = content {
            fs::write(&path, content).unwrap();
        }
        let found = dims(&folder.path().join("out"), &["--pairs", &name]);
        assert_eq!(found.code, code, "{}", found.stderr);
        assert!(
            found.stderr.contains(said) && found.stderr.contains("odd.csv"),
            "{}",
            found.stderr
        );
    }
}

#[test]
fn an_01_one_pair_is_too_few() {
    let folder = tempfile::tempdir().unwrap();
    let pairs = pairs(folder.path(), 1);
    let found = dims(
        &folder.path().join("out"),
        &["--model", &text(&bert()), "--pairs", &pairs],
    );
    assert_eq!(found.code, 2, "{}", found.stderr);
    assert!(
        found.stderr.contains("\"tense\"") && found.stderr.contains("at least 2"),
        "{}",
        found.stderr
    );
}

#[test]
fn an_01_what_is_no_number_is_named_by_pair_and_dimension() {
    let folder = tempfile::tempdir().unwrap();
    let model = changed_bert(
        folder.path(),
        "encoder.layer.2.output.LayerNorm.bias",
        5,
        f32::NAN,
    );
    let pairs = pairs(folder.path(), 20);
    let found = dims(
        &folder.path().join("out"),
        &["--model", &text(&model), "--pairs", &pairs],
    );
    assert_eq!(found.code, 2, "{}", found.stderr);
    assert!(
        found.stderr.contains("pair 0, dimension 5: NaN"),
        "{}",
        found.stderr
    );
}

#[test]
fn an_01_a_constant_dimension_says_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let model = changed_bert(
        folder.path(),
        "encoder.layer.2.output.LayerNorm.weight",
        7,
        0.0,
    );
    let (pairs, out) = (pairs(folder.path(), 40), folder.path().join("out"));
    dims(&out, &["--model", &text(&model), "--pairs", &pairs]).ok();
    let table = rows(&out.join("dimensions.csv"));
    let column = |name: &str| table[0].iter().position(|cell| cell == name).unwrap();
    let row = table.iter().find(|row| row[1] == "7").unwrap();
    assert_eq!(
        (
            row[column("p")].as_str(),
            row[column("information")].as_str()
        ),
        ("1", "0")
    );
}

#[test]
fn an_01_fewer_dimensions_than_elimination_keeps() {
    let folder = tempfile::tempdir().unwrap();
    let model = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../models/lfm2-colbert/tests/golden/two-dense-tiny");
    let line = dims(
        folder.path(),
        &[
            "--model",
            &text(&model),
            "--count",
            "24",
            "--only",
            "tense",
            "--keep",
            "100",
            "--json",
        ],
    )
    .ok()
    .json();
    let dims = line["study"]["dims"].as_u64().unwrap();
    assert!(dims < 100);
    assert_eq!(
        line["study"]["properties"][0]["elimination"]["fit"]["dims"]
            .as_array()
            .unwrap()
            .len() as u64,
        dims
    );
}

#[test]
fn models_and_layers_that_are_not_there_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    for (args, code, said) in [
        (&["--model", "./nowhere"][..], 3, "nowhere"),
        (&["--model", "nobody/nothing"], 3, "nobody/nothing"),
        (&["--layer", "99"], 2, "layers, named 0"),
        (&["--layers", "0,99"], 2, "layers, named 0"),
        (&["--layers", "some"], 2, "or \"all\" alone"),
        (&["--only", "gender"], 2, "control, synonym"),
        (&["--count", "0"], 2, "at least 1"),
        (
            &["--pairs", "x.csv", "--generated"],
            2,
            "cannot be used with",
        ),
    ] {
        let found = dims(
            &out,
            &[&["--only", "tense"], args][usize::from(args[0] == "--pairs")..].concat(),
        );
        assert_eq!(found.code, code, "{args:?}: {}", found.stderr);
        assert!(found.stderr.contains(said), "{args:?}: {}", found.stderr);
    }
}

/// A collection of eight documents and as many questions.
fn collection(folder: &Path) -> String {
    let texts = [
        "The cat slept on the warm mat all day.",
        "Rain fell on the sea in the night.",
        "The red car is fast.",
        "She baked bread with honey and milk.",
        "A bird built a nest in the old tree.",
        "He lost the blue ball in the park.",
        "The train left the town at noon.",
        "They painted the house green.",
    ];
    let questions = [
        "where did the cat sleep?",
        "when did rain fall?",
        "which car is fast?",
        "who baked bread?",
        "where is the nest of the bird?",
        "who lost the ball?",
        "when did the train leave?",
        "what colour is the house?",
    ];
    let lines = |texts: &[&str], prefix: &str| -> String {
        let line = |(number, text): (usize, &&str)| {
            format!(
                "{}\n",
                json!({"_id": format!("{prefix}{number}"), "text": text})
            )
        };
        texts.iter().enumerate().map(line).collect()
    };
    fs::write(folder.join("corpus.jsonl"), lines(&texts, "d")).unwrap();
    fs::write(folder.join("queries.jsonl"), lines(&questions, "q")).unwrap();
    let judged: String = (0..8)
        .map(|number| format!("q{number}\td{number}\t1\n"))
        .collect();
    fs::write(folder.join("qrels.tsv"), judged).unwrap();
    text(folder)
}

#[test]
fn a_pruned_model_is_measured_and_opens_like_any_other() {
    let folder = tempfile::tempdir().unwrap();
    let data = collection(folder.path());
    let out = text(&folder.path().join("pruned"));
    let args = [
        "analyze", "prune", "--keep", "8,24,8", "--data", &data, "--out", &out, "--json",
    ];
    let line = run(&args).ok().json();
    assert_eq!(
        (&line["ranking_questions"], &line["test_questions"]),
        (&json!(4), &json!(4))
    );
    let kept: Vec<u64> = line["pruned"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["kept"].as_u64().unwrap())
        .collect();
    assert_eq!(kept, [24, 8]);
    for name in ["prune.csv", "prune.json", "dimensions.csv"] {
        assert!(folder.path().join("pruned").join(name).is_file(), "{name}");
    }
    let small = text(&folder.path().join("pruned/keep-8"));
    let row = run(&["embed", "--model", &small, "The cat slept."])
        .ok()
        .json();
    assert_eq!(row["vectors"][0].as_array().unwrap().len(), 8);
    let table = run(&args[..8]).ok().stdout;
    assert!(
        table.contains("nDCG@10") && table.contains("keep-24"),
        "{table}"
    );
}

#[test]
fn what_cannot_be_pruned_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let data = collection(folder.path());
    let out = text(&folder.path().join("pruned"));
    let stories =
        text(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/lfm2-tiny-stories"));
    for (args, code, said) in [
        (&["--keep", "0"][..], 2, "at least 1"),
        (&["--keep", "100000"], 2, "gives vectors of"),
        (&["--keep", "4", "--model", &stories], 3, "modules.json"),
        (
            &["--keep", "4", "--limit", "1"],
            2,
            "at least 2 judged questions",
        ),
    ] {
        let found = run(&[&["analyze", "prune", "--data", &data, "--out", &out], args].concat());
        assert_eq!(found.code, code, "{args:?}: {}", found.stderr);
        assert!(found.stderr.contains(said), "{args:?}: {}", found.stderr);
    }
    let found = run(&[
        "analyze", "prune", "--data", "nowhere", "--out", &out, "--keep", "4",
    ]);
    assert_eq!(found.code, 3, "{}", found.stderr);
}
