//! The command on models: inspecting, quantising, measuring, training.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

mod common;

use std::io::Write;
use std::path::Path;

use common::{checkpoint, run, text, tiny_run};
use flate2::write::GzEncoder;
use serde_json::{Value, json};

fn inspect(args: &[&str]) -> Value {
    let outcome = run(&[&["inspect", "--json"], args].concat()).ok();
    serde_json::from_str(&outcome.stdout).unwrap()
}

/// The config of LFM2-8B-A1B.
fn moe_config() -> Value {
    let attention = [2, 6, 10, 14, 18, 21];
    let layers: Vec<_> = (0..24)
        .map(|i| {
            if attention.contains(&i) {
                "full_attention"
            } else {
                "conv"
            }
        })
        .collect();
    json!({
        "architectures": ["Lfm2MoeForCausalLM"], "model_type": "lfm2_moe", "hidden_size": 2048, "vocab_size": 65536,
        "num_hidden_layers": 24, "layer_types": layers, "num_attention_heads": 32, "num_key_value_heads": 8,
        "intermediate_size": 7168, "moe_intermediate_size": 1792, "num_experts": 32, "num_experts_per_tok": 4,
        "num_dense_layers": 2, "conv_L_cache": 3, "norm_eps": 1e-5, "rope_theta": 1e6, "max_position_embeddings": 128000,
    })
}

#[test]
fn inspect_needs_only_a_config() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.json");
    std::fs::write(&file, moe_config().to_string()).unwrap();
    let facts = inspect(&[&text(&file)]);
    assert_eq!(facts["parameters"], 8_339_930_560_u64);
    assert_eq!(facts["active_parameters"], 1_557_740_992_u64);
    assert_eq!(facts["layers"], "ccAcccAcccAcccAcccAccAcc");
    assert_eq!(
        (&facts["ffn_dim"], &facts["expert_dim"], &facts["head_dim"]),
        (&json!(7168), &json!(1792), &json!(64))
    );
    // 6 attention layers, keys and values, 8 heads of 64 numbers of 2 bytes.
    assert_eq!(facts["memory"][0]["context"], 1024);
    assert_eq!(
        facts["memory"][0]["kv_f16_bytes"],
        6 * 2 * 8 * 64 * 2 * 1024
    );
    assert_eq!(facts["memory"][0]["conv_state_bytes"], 18 * 2 * 2048 * 4);
    let same = inspect(&[&text(folder.path())]);
    assert_eq!(same["parameters"], facts["parameters"]);
    assert_eq!(run(&["inspect", &text(&file), "--check-values"]).code, 2);
}

#[test]
fn inspect_shows_the_built_in_model() {
    let shown = run(&["inspect", "--check-values"]).ok().stdout;
    for part in [
        "layers",
        "parameters",
        "conv state",
        "Weights",
        "BF16",
        "<|im_end|>",
        "largest magnitude",
    ] {
        assert!(shown.contains(part), "{part}\n{shown}");
    }
}

#[test]
fn inspect_finds_broken_values() {
    let folder = tempfile::tempdir().unwrap();
    for file in ["config.json", "tokenizer.json", "model.safetensors"] {
        std::fs::copy(checkpoint().join(file), folder.path().join(file)).unwrap();
    }
    let weights = folder.path().join("model.safetensors");
    let mut bytes = std::fs::read(&weights).unwrap();
    // The last value of the last tensor becomes NaN.
    let end = bytes.len();
    bytes[end - 2..].copy_from_slice(&0x7FC1_u16.to_le_bytes());
    std::fs::write(&weights, bytes).unwrap();
    let outcome = run(&["inspect", &text(folder.path()), "--check-values"]);
    assert_eq!(outcome.code, 4, "{}", outcome.stderr);
    assert!(outcome.stdout.contains("1 NaN"), "{}", outcome.stdout);
    run(&["inspect", &text(folder.path())]).ok();
}

#[test]
fn a_quantised_file_is_a_model_again() {
    let folder = tempfile::tempdir().unwrap();
    let file = text(&folder.path().join("small.gguf"));
    let source = text(&checkpoint());
    let stderr = run(&[
        "quantize", &source, &file, "--type", "q8_0", "--name", "small",
    ])
    .ok()
    .stderr;
    assert!(stderr.contains(" Q8_0"), "{stderr}");

    let (before, after) = (inspect(&[&source]), inspect(&[&file]));
    for key in ["model_type", "layers", "parameters", "ffn_dim", "tokenizer"] {
        assert_eq!(before[key], after[key], "{key}");
    }
    let types: Vec<&str> = after["weights"]["types"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|t| t["type"].as_str())
        .collect();
    assert!(
        types.contains(&"Q8_0") && types.contains(&"F32"),
        "{types:?}"
    );
    let report = run(&[
        "generate",
        "Once",
        "-n",
        "3",
        "--temperature",
        "0",
        "-m",
        &file,
        "--json",
    ])
    .ok()
    .json();
    assert_eq!(report["generated_tokens"], 3);

    // FS-02: an existing file is replaced only when told to.
    let again = ["quantize", &source, &file, "--type", "f16"];
    let refused = run(&again);
    assert_eq!(refused.code, 2);
    assert!(refused.stderr.contains("use --force"), "{}", refused.stderr);
    assert_eq!(inspect(&[&file])["weights"], after["weights"]);
    run(&[&again[..], &["--force"]].concat()).ok();
    assert_ne!(inspect(&[&file])["weights"], after["weights"]);
}

#[test]
fn quantize_says_how_many_tensors_fell_back() {
    let folder = tempfile::tempdir().unwrap();
    let file = text(&folder.path().join("small.gguf"));
    let stderr = run(&["quantize", &text(&checkpoint()), &file, "--type", "q4_k"])
        .ok()
        .stderr;
    // One line for every length of rows, and no type in the sum that no tensor has.
    let lines: Vec<&str> = stderr
        .lines()
        .filter(|line| line.contains("do not divide into Q4_K blocks"))
        .collect();
    let mut rows: Vec<&str> = lines.iter().map(|line| &line[..10]).collect();
    rows.dedup();
    assert!(!rows.is_empty() && rows.len() == lines.len(), "{stderr}");
    let sum = stderr.lines().next_back().unwrap();
    assert!(sum.contains("Q5_0") && !sum.contains("Q4_K"), "{stderr}");
    let types = &inspect(&[&file])["weights"]["types"];
    for found in types.as_array().unwrap() {
        let counted = format!("{} {}", found["tensors"], found["type"].as_str().unwrap());
        assert!(sum.contains(&counted), "{counted}: {sum}");
    }
}

#[test]
fn quantize_explains_a_wrong_place_and_a_wrong_type() {
    let folder = tempfile::tempdir().unwrap();
    let file = text(&folder.path().join("nowhere/small.gguf"));
    let source = text(&checkpoint());
    let outcome = run(&["quantize", &source, &file, "--type", "q8_0"]);
    assert_eq!(outcome.code, 3, "{}", outcome.stderr);
    assert!(
        outcome.stderr.contains("nowhere not found") && !outcome.stderr.contains("at path"),
        "{}",
        outcome.stderr
    );
    let outcome = run(&["quantize", &source, &file, "--type", "Q4_K_M"]);
    assert_eq!(outcome.code, 2);
    assert!(
        outcome.stderr.contains("did you mean q4_k?"),
        "{}",
        outcome.stderr
    );
}

/// A small measurement; reading one mebibyte says nothing, but takes no time.
const BENCH: [&str; 9] = [
    "bench",
    "--prompt-tokens",
    "8",
    "--gen-tokens",
    "3",
    "--repeat",
    "2",
    "--reading",
    "1",
];

#[test]
fn bench_measures_every_depth() {
    let tests = ["--depth", "0,16", "--batch", "1,2", "--verify", "4"];
    let report = run(&[&BENCH[..], &tests, &["--json"]].concat()).ok().json();
    let tests_run = report["tests"].as_array().unwrap();
    let names: Vec<&str> = tests_run
        .iter()
        .map(|test| test["test"].as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        [
            "pp8", "tg3", "tg3x2", "vf4", "pp8@16", "tg3@16", "tg3x2@16", "vf4@16"
        ]
    );
    for test in tests_run {
        for key in [
            "tokens_per_second",
            "pass_p95_seconds",
            "gb_per_second",
            "gmac_per_second",
            "share_of_peak",
        ] {
            assert!(test[key].as_f64().unwrap() > 0.0, "{key} {test}");
        }
        assert!(test["pass_p50_seconds"].as_f64() <= test["pass_p95_seconds"].as_f64());
        assert_eq!(test["tokens_per_second_of"].as_array().unwrap().len(), 2);
        // A prompt is bound by arithmetic, so memory is not read beside it.
        let is_prompt = test["test"].as_str().unwrap().starts_with("pp");
        assert_eq!(test["share_of_read"].is_null(), is_prompt, "{test}");
    }
    assert_eq!(report["tps"], tests_run[1]["tokens_per_second"]);
    assert!(report["first_token_seconds"].as_f64() > report["load_seconds"].as_f64());
    let shown = run(&[&BENCH[..], &tests].concat()).ok().stdout;
    assert!(
        shown.contains("tg3x2@16") && shown.contains("median of 2"),
        "{shown}"
    );
}

#[test]
fn bench_shows_what_the_time_goes_into() {
    let report = run(&[&BENCH[..], &["--profile", "--json"]].concat())
        .ok()
        .json();
    for test in ["pp8", "tg3"] {
        let ops = report["profile"].as_array().unwrap().iter();
        let ops: Vec<_> = ops.filter(|op| op["test"] == test).collect();
        let share: f64 = ops
            .iter()
            .map(|op| op["share_of_time"].as_f64().unwrap())
            .sum();
        assert!(share > 0.8 && share < 1.2, "{test} {share}");
        assert!(ops.iter().any(|op| op["op"] == "everything else"), "{test}");
    }
    let shown = run(&[&BENCH[..], &["--profile"]].concat()).ok().stdout;
    assert!(shown.contains("everything else"), "{shown}");
}

#[test]
fn bench_knows_the_limits_of_the_machine() {
    let args = ["bench", "--limits", "--reading", "1", "--threads", "2"];
    let limits = run(&[&args[..], &["--json"]].concat()).ok().json();
    let threads: Vec<_> = limits["limits"].as_array().unwrap().iter().collect();
    assert_eq!(
        (threads[0]["threads"].as_u64(), threads.len()),
        (Some(1), 2)
    );
    for limits in threads {
        for key in [
            "read_gb_per_second",
            "f32_gmac_per_second",
            "int8_gmac_per_second",
        ] {
            assert!(limits[key].as_f64().unwrap() > 0.0, "{key} {limits}");
        }
    }
    let shown = run(&args).ok().stdout;
    assert!(shown.contains("2 threads"), "{shown}");
    assert_eq!(run(&["bench", "--limits", "--profile"]).code, 2);
}

#[test]
#[cfg(target_os = "linux")]
fn bench_does_not_count_the_memory_it_reads() {
    let args = ["--pp", "0", "--tg", "1", "--reading", "256", "--json"];
    let report = run(&[&["bench", "--repeat", "1"][..], &args].concat());
    let report = report.ok().json();
    let peak = report["peak_memory_bytes"].as_u64().unwrap();
    assert!(peak < 256 << 20, "{peak}");
    let speed = report["tests"][0]["read_gb_per_second"].as_f64();
    assert!(speed.unwrap() > 0.0);
}

/// One repetition, and no reading of memory.
const SMALL: [&str; 5] = ["--reading", "0", "--repeat", "1", "--json"];

#[test]
fn bench_wants_something_to_measure() {
    let outcome = run(&["bench", "--prompt-tokens", "0", "--gen-tokens", "0"]);
    assert_eq!(outcome.code, 2);
    assert!(outcome.stderr.contains("no test"), "{}", outcome.stderr);
    let only = [&["bench", "--pp", "0", "--tg", "2"], &SMALL[..]].concat();
    let report = run(&only).ok().json();
    assert_eq!(report["tests"].as_array().unwrap().len(), 1);
    assert!(report["tests"][0]["read_gb_per_second"].is_null());
    let bytes_with = |kind| {
        let report = run(&[&only[..], &["--kv-type", kind]].concat());
        report.ok().json()["tests"][0]["bytes_per_pass"].as_f64()
    };
    assert!(bytes_with("f16") < bytes_with("f32"));
}

#[test]
fn bench_knows_its_shapes() {
    let outcome = run(&["bench", "--synthetic", "lfm2-9b"]);
    assert_eq!(outcome.code, 3);
    assert!(
        outcome.stderr.contains("LFM2-24B-A2B"),
        "{}",
        outcome.stderr
    );
    let help = run(&["bench", "--help"]).ok().stdout;
    for shape in lfm2::text::shapes::all() {
        assert!(
            help.contains(&shape.name().to_lowercase()),
            "{}",
            shape.name()
        );
    }
}

fn write_gzip(path: &Path, text: &str) {
    let mut file = GzEncoder::new(
        std::fs::File::create(path).unwrap(),
        flate2::Compression::fast(),
    );
    file.write_all(text.as_bytes()).unwrap();
    file.finish().unwrap();
}

#[test]
fn eval_recall_reads_plain_and_gzipped_rows() {
    let folder = tempfile::tempdir().unwrap();
    let rows = "{\"prompt\": \"Who?\", \"answer\": \"\"}\n{\"prompt\": \"What?\", \"answer\": \"\\u0000never\"}\n";
    let (plain, zipped) = (
        folder.path().join("rows.jsonl"),
        folder.path().join("rows.jsonl.gz"),
    );
    std::fs::write(&plain, rows).unwrap();
    write_gzip(&zipped, rows);
    for file in [&plain, &zipped] {
        let outcome = run(&["eval", "recall", "--data", &text(file), "--json", "-n", "2"]).ok();
        // An empty answer is in every output.
        assert_eq!(outcome.stdout, "{\"accuracy\":0.5,\"rows\":2}\n");
    }
    let limited = run(&[
        "eval",
        "recall",
        "--data",
        &text(&plain),
        "--limit",
        "1",
        "-n",
        "2",
    ])
    .ok();
    assert!(
        limited.stdout.starts_with("1 of 1 rows right: 100.0 %"),
        "{}",
        limited.stdout
    );
    std::fs::write(&plain, "{\"prompt\": 1}\n").unwrap();
    assert_eq!(run(&["eval", "recall", "--data", &text(&plain)]).code, 2);
    assert_eq!(run(&["eval", "recall", "--data", "nowhere.jsonl"]).code, 3);
}

#[test]
fn eight_bits_predict_stories_as_well_as_full_precision() {
    let stories =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/stories/stories-valid.txt.gz");
    let data = text(&stories);
    let perplexity = |more: &[&str]| {
        let args = [&["eval", "perplexity", "--data", &data, "--json"], more].concat();
        let report = run(&args).ok().json();
        assert!(report["tokens"].as_u64().unwrap() > 1000, "{report}");
        report["perplexity"].as_f64().unwrap()
    };
    let exact = perplexity(&["--exact"]);
    let eight = perplexity(&["--quantize", "q8_0"]);
    assert!(exact > 1.0 && exact < 20.0, "{exact}");
    assert!((eight / exact - 1.0).abs() < 0.01, "{exact} {eight}");
}

#[test]
fn eval_perplexity_reports_what_it_read_and_refuses_what_it_cannot() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("text.txt");
    std::fs::write(&file, "Lily had a cat.\n\nThe cat was red.\n").unwrap();
    let data = text(&file);
    let outcome = run(&["eval", "perplexity", "--data", &data]).ok();
    assert!(outcome.stdout.contains("in 2 texts"), "{}", outcome.stdout);
    let short = ["eval", "perplexity", "--data", &data, "--context", "1"];
    assert_eq!(run(&short).code, 2);
    std::fs::write(&file, "\n\n").unwrap();
    assert_eq!(run(&["eval", "perplexity", "--data", &data]).code, 2);
    let missing = ["eval", "perplexity", "--data", "nowhere.txt"];
    assert_eq!(run(&missing).code, 3);
}

#[test]
fn train_makes_a_model_and_goes_on_where_it_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let (config, out) = tiny_run(folder.path(), 4);
    let args = [
        "train",
        "--config",
        &config,
        "--out",
        &out,
        "--threads",
        "1",
    ];

    let outcome = run(&args).ok();
    assert!(outcome.stderr.contains("perplexity"), "{}", outcome.stderr);
    let model = outcome.stdout.trim_end().to_owned();
    run(&["generate", "Once", "-n", "3", "-m", &model]).ok();
    assert!(Path::new(&out).join("loss.svg").is_file());

    // The same command again finds nothing left to do.
    let again = run(&args).ok();
    assert!(
        again.stderr.contains("going on after step 4"),
        "{}",
        again.stderr
    );
    assert_eq!(run(&[&args[..], &["--resume", "never"]].concat()).code, 2);
    tiny_run(folder.path(), 5);
    let refused = run(&args);
    assert_eq!(refused.code, 2);
    assert!(refused.stderr.contains("steps"), "{}", refused.stderr);
}
