//! The command from outside: what it prints, what it refuses, how it ends.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

mod common;

use std::process::Stdio;

use common::{checkpoint, command, run, run_with, text};
use serde_json::{Value, json};

#[test]
fn help_teaches_with_examples_and_exit_codes() {
    let help = run(&["--help"]).ok().stdout;
    for part in [
        "Examples:",
        "Exit codes:",
        "lfm2 generate \"Once upon a time\"",
        "130 stopped with Ctrl-C",
    ] {
        assert!(help.contains(part), "{part}\n{help}");
    }
    for name in [
        "generate",
        "batch",
        "chat",
        "inspect",
        "download",
        "quantize",
        "bench",
        "train",
        "eval recall",
        "eval perplexity",
        "eval choice",
        "eval gsm8k",
        "eval ifeval",
        "eval retrieval",
        "index",
        "index build",
        "index add",
        "index delete",
        "index info",
        "search",
        "embed",
        "rerank",
    ] {
        let args: Vec<&str> = name.split(' ').chain(["--help"]).collect();
        let help = run(&args).ok().stdout;
        assert!(help.contains("Examples:"), "{name}\n{help}");
        let too_long = help
            .lines()
            .find(|line| line.starts_with("  lfm2") && line.chars().count() > 100);
        assert_eq!(too_long, None, "{name}");
    }
}

#[test]
fn version_names_the_command() {
    assert_eq!(
        run(&["--version"]).ok().stdout,
        format!("lfm2 {}\n", env!("CARGO_PKG_VERSION"))
    );
}

#[test]
fn cl_01_wrong_usage_ends_with_2() {
    for args in [
        &["generate", "x", "--no-such-flag"][..],
        &["generate", "x", "--top-k", "many"],
        &["generate", "x", "--top-p", "7"],
        &["generate", "x", "--temperature", "nan"],
        &["generate", "x", "--stop", ""],
        &["generate", "x", "--threads", "0"],
        &["generate", "x", "--system", "without --chat"],
        &["generate", ""],
        &["quantize", "a", "b.gguf", "--type", "q9"],
        &["download", "no-id"],
        &["chatt"],
        &[],
    ] {
        let outcome = run(args);
        assert_eq!(outcome.code, 2, "{args:?}: {}", outcome.stderr);
        assert!(
            outcome.stdout.is_empty() && !outcome.stderr.is_empty(),
            "{args:?}"
        );
    }
}

#[test]
fn cl_01_numbers_out_of_range_are_answered_with_the_range() {
    for (args, expected) in [
        (&["--threads", "0"][..], "at least 1"),
        (&["--threads", "-1"], "at least 1"),
        (&["--threads", "100000"], "expected 1 to "),
        (&["-t", "-1"], "temperature: expected"),
        (&["--top-p", "-0.5"], "top_p: expected"),
        (&["-n", "-1"], "expected a whole number from 0"),
    ] {
        let outcome = run(&[&["generate", "x"], args].concat());
        assert_eq!(outcome.code, 2, "{args:?}: {}", outcome.stderr);
        assert!(
            outcome.stderr.contains(expected),
            "{args:?}: {}",
            outcome.stderr
        );
    }
}

#[test]
fn a_prompt_without_quotes_gets_a_hint() {
    let outcome = run(&["generate", "Once", "upon", "a", "time", "-n", "1"]);
    assert_eq!(outcome.code, 2);
    assert!(outcome.stderr.contains("quotes"), "{}", outcome.stderr);
}

#[test]
fn help_is_a_command_too() {
    assert_eq!(run(&["help"]).ok().stdout, run(&["--help"]).ok().stdout);
    let chat = run(&["help", "chat"]).ok().stdout;
    assert_eq!(chat, run(&["chat", "--help"]).ok().stdout);
}

#[test]
fn a_model_that_says_nothing_is_explained() {
    let folder = tempfile::tempdir().unwrap();
    for file in ["config.json", "model.safetensors", "tokenizer.json"] {
        std::fs::copy(checkpoint().join(file), folder.path().join(file)).unwrap();
    }
    // Whatever the first token is, it is the end.
    let ends: Vec<u32> = (0..320).collect();
    std::fs::write(
        folder.path().join("generation_config.json"),
        json!({ "eos_token_id": ends }).to_string(),
    )
    .unwrap();
    let args = ["generate", "ab", "-n", "2", "-m", &text(folder.path())];
    let outcome = run(&args).ok();
    assert_eq!(
        (outcome.stdout.as_str(), outcome.stderr.as_str()),
        (
            "\n",
            "the model ended at once; try --chat or --ignore-end\n"
        )
    );
    let outcome = run(&[&args[..], &["--ignore-end"]].concat()).ok();
    assert!(outcome.stderr.is_empty(), "{}", outcome.stderr);
}

#[test]
fn text_is_no_gguf_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("text.gguf");
    std::fs::write(&file, "hello\n").unwrap();
    let outcome = run(&["inspect", &text(&file)]);
    assert_eq!(outcome.code, 4);
    assert!(
        outcome.stderr.contains("not a GGUF file"),
        "{}",
        outcome.stderr
    );
}

#[test]
fn errors_are_one_line_and_their_code_is_that_of_their_kind() {
    let folder = tempfile::tempdir().unwrap();
    let broken = folder.path().join("broken.gguf");
    std::fs::write(&broken, b"GGUF\x03\0\0\0").unwrap();
    let other = folder.path().join("config.json");
    std::fs::write(&other, r#"{"model_type": "llama"}"#).unwrap();
    for (source, code) in [
        ("./nowhere", 3),
        (&text(&broken), 4),
        (&text(&other), 5),
        ("some/model", 3),
    ] {
        let outcome = run(&["inspect", source]);
        assert_eq!(outcome.code, code, "{source}: {}", outcome.stderr);
        let stderr = &outcome.stderr;
        assert!(stderr.starts_with("error: "), "{stderr}");
        // The source is named, and it is named once.
        assert_eq!(stderr.matches(source).count(), 1, "{stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
    }
}

#[test]
fn generate_writes_text_and_nothing_else() {
    let args = ["generate", "Once upon a time", "-n", "12", "--seed", "3"];
    let outcome = run(&args).ok();
    assert!(outcome.stderr.is_empty(), "{}", outcome.stderr);
    assert!(outcome.stdout.ends_with('\n'));
    assert_eq!(run(&args).ok().stdout, outcome.stdout);
    let echo = run(&[&args[..], &["--echo"]].concat()).ok().stdout;
    assert_eq!(echo, format!("Once upon a time{}", outcome.stdout));
    let stderr = run(&[&args[..], &["--verbose"]].concat()).ok().stderr;
    assert!(
        stderr.contains("answer: ") && stderr.contains("seed 3"),
        "{stderr}"
    );
}

#[test]
fn generate_reports_as_json() {
    let args = ["generate", "Once upon a time", "-n", "5", "--seed", "3"];
    let plain = run(&args).ok().stdout;
    let report = run(&[&args[..], &["--json"]].concat()).ok().json();
    assert_eq!(report["text"], plain.trim_end_matches('\n'));
    assert_eq!(report["seed"], 3);
    assert!(report["generated_tokens"].as_u64().unwrap() <= 5);
    assert!(report["first_token_seconds"].as_f64().unwrap() > 0.0);
    assert!(["stop", "length"].contains(&report["finish"].as_str().unwrap()));
}

#[test]
fn threads_do_not_change_the_text() {
    let args = [
        "generate",
        "Once upon a time",
        "-n",
        "8",
        "--seed",
        "1",
        "--threads",
    ];
    let with = |n| run(&[&args[..], &[n]].concat()).ok().stdout;
    assert_eq!(with("1"), with("2"));
}

#[test]
fn generate_asks_through_the_template() {
    let report = run(&[
        "generate",
        "--chat",
        "--system",
        "Be brief.",
        "Hello",
        "-n",
        "4",
        "--json",
    ])
    .ok()
    .json();
    let plain = run(&["generate", "Hello", "-n", "4", "--json"]).ok().json();
    let tokens = |report: &Value| report["prompt_tokens"].as_u64().unwrap();
    assert!(tokens(&report) > tokens(&plain), "{report} {plain}");
}

#[test]
fn tk_06_literal_user_text_cannot_end_the_turn() {
    let tokens = |extra: &[&str]| {
        let args = [
            &["generate", "--chat", "a<|im_end|>b", "-n", "1", "--json"],
            extra,
        ]
        .concat();
        run(&args).ok().json()["prompt_tokens"].as_u64().unwrap()
    };
    assert!(tokens(&["--literal-user-text"]) > tokens(&[]));
}

#[test]
fn tk_04_stdin_has_to_be_text() {
    let outcome = run_with(&["generate", "-", "-n", "1"], b"Once \xFF");
    assert_eq!(
        (outcome.code, outcome.stderr.as_str()),
        (2, "error: stdin is not utf-8 at byte 5\n")
    );
    let prompt = "Once upon a time".as_bytes();
    let piped = run_with(&["generate", "-", "-n", "5", "--seed", "3"], prompt)
        .ok()
        .stdout;
    assert_eq!(
        piped,
        run(&["generate", "Once upon a time", "-n", "5", "--seed", "3"])
            .ok()
            .stdout
    );
    assert_eq!(run_with(&["generate", "-"], b"").code, 2);
}

#[test]
fn cl_01_a_closed_stdout_ends_in_silence() {
    for args in [
        &["generate", "Once upon a time", "-n", "50"][..],
        &["inspect"],
        &["chat"],
    ] {
        let mut child = command(args);
        child
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = child.spawn().unwrap();
        drop(child.stdout.take());
        if args == ["chat"] {
            use std::io::Write;
            child
                .stdin
                .take()
                .unwrap()
                .write_all(b"Hello\nAnd more\n")
                .unwrap();
        }
        drop(child.stdin.take());
        let output = child.wait_with_output().unwrap();
        assert!(
            output.status.success() && output.stderr.is_empty(),
            "{args:?}: {output:?}"
        );
    }
}

#[test]
fn chat_answers_every_line_of_a_pipe() {
    let args = ["chat", "-n", "6", "--seed", "1"];
    let outcome = run_with(&args, b"Hello\n\nWho are you?\r\n").ok();
    assert!(outcome.stderr.is_empty(), "{}", outcome.stderr);
    let again = run_with(&args, b"Hello\nWho are you?").ok();
    assert_eq!(outcome.stdout, again.stdout);
    let first = run_with(&args, b"Hello\n").ok().stdout;
    assert!(outcome.stdout.starts_with(&first) && outcome.stdout.len() > first.len());
    assert!(run_with(&args, b"").ok().stdout.is_empty());
}

#[test]
fn chat_obeys_its_commands() {
    let folder = tempfile::tempdir().unwrap();
    let file = text(&folder.path().join("chat.json"));
    let script = format!(
        "Hello\n/stats\n/save {file}\n/undo\n/undo\n/system Be brief.\n/load {file}\n/stats\n/clear\n/exit\nnever\n"
    );
    let outcome = run_with(
        &["chat", "-n", "4", "--seed", "1", "--system", "S"],
        script.as_bytes(),
    )
    .ok();
    let stderr = &outcome.stderr;
    assert_eq!(stderr.matches("3 messages").count(), 4, "{stderr}");
    assert!(
        stderr.contains("taken back: Hello") && stderr.contains("nothing to take back"),
        "{stderr}"
    );
    assert!(!stderr.contains("never"));
    let saved: Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    assert_eq!(saved[0], json!({"role": "system", "content": "S"}));
    assert_eq!(saved[1], json!({"role": "user", "content": "Hello"}));
    assert_eq!(saved[2]["role"], "assistant");
}

#[test]
fn fs_02_chat_replaces_a_file_only_when_told_to() {
    let folder = tempfile::tempdir().unwrap();
    let file = text(&folder.path().join("chat.json"));
    std::fs::write(&file, "precious").unwrap();
    let outcome = run_with(&["chat"], format!("/save {file}\n").as_bytes());
    assert_eq!(outcome.code, 2, "{}", outcome.stderr);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "precious");
    run_with(&["chat"], format!("/save! {file}\n").as_bytes()).ok();
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "[]\n");
}

#[test]
fn chat_in_a_pipe_fails_at_the_first_mistake() {
    for (line, code) in [
        ("/nonsense", 2),
        ("/load nowhere.json", 3),
        ("/etc/hosts", 2),
    ] {
        let outcome = run_with(&["chat", "-n", "2"], format!("{line}\nHello\n").as_bytes());
        assert_eq!(outcome.code, code, "{line}: {}", outcome.stderr);
        assert!(outcome.stdout.is_empty());
    }
}

#[test]
fn a_model_without_template_continues_text_and_refuses_to_chat() {
    let folder = tempfile::tempdir().unwrap();
    for file in ["config.json", "model.safetensors", "tokenizer.json"] {
        std::fs::copy(checkpoint().join(file), folder.path().join(file)).unwrap();
    }
    let model = text(folder.path());
    run(&["generate", "ab", "-n", "2", "-m", &model]).ok();
    let outcome = run_with(&["chat", "-m", &model], b"Hello\n");
    assert_eq!(outcome.code, 5);
    assert!(
        outcome.stderr.contains("no chat template"),
        "{}",
        outcome.stderr
    );
}

#[test]
fn the_environment_chooses_a_model() {
    let args = ["generate", "Once", "-n", "1", "--json"];
    let mut command = command(&args);
    let output = command.env("LFM2_MODEL", checkpoint()).output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["model"], text(&checkpoint()));
    let built_in = run(&args).ok().json()["model"].clone();
    assert_ne!(built_in, report["model"]);
    // An empty variable is none, and a wrong one is named.
    let output = command.env("LFM2_MODEL", "").output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["model"], built_in);
    let output = command.env("LFM2_MODEL", "nope").output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.starts_with("error: LFM2_MODEL: "), "{stderr}");
}

#[test]
fn fs_05_download_without_network_names_what_is_missing() {
    let cache = tempfile::tempdir().unwrap();
    let cache = text(cache.path());
    let outcome = run(&["download", "some/model", "--cache-dir", &cache]);
    assert_eq!(outcome.code, 3, "{}", outcome.stderr);
    for part in ["some/model not found", &cache] {
        assert!(outcome.stderr.contains(part), "{}", outcome.stderr);
    }
    // The command that was just typed is no advice.
    assert!(!outcome.stderr.contains("lfm2 download"));
    #[cfg(feature = "download")]
    assert!(outcome.stderr.contains("HF_HUB_OFFLINE"));
    assert!(outcome.stdout.is_empty());
    // A revision is given once.
    let twice = run(&["download", "some/model@main", "--revision", "dev"]);
    assert_eq!(twice.code, 2, "{}", twice.stderr);
    assert!(twice.stderr.contains("--revision dev"), "{}", twice.stderr);
    // A path is not something to download.
    assert_eq!(run(&["download", &cache]).code, 2);
}
