//! CL-02: what Ctrl-C does.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

mod common;

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use common::{checkpoint, command, run, text, tiny_run};

fn start(args: &[&str]) -> Child {
    let mut command = command(args);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command.spawn().unwrap()
}

/// Presses Ctrl-C.
fn interrupt(child: &Child) {
    let pid = child.id().to_string();
    let status = Command::new("kill").args(["-INT", &pid]).status();
    assert!(status.unwrap().success());
}

/// Waits for the first byte, which says that the work has begun.
fn wait_for(stream: &mut impl Read) {
    let mut byte = [0];
    stream.read_exact(&mut byte).unwrap();
}

/// Waits for the end of the line that says what is trained, which is not the first one.
fn wait_for_training(stream: &mut impl Read) {
    let mut seen = Vec::new();
    while !seen.ends_with(b" documents\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        seen.extend(byte);
    }
    assert!(seen.starts_with(b"preparing data\n"));
}

fn end(child: Child) -> (i32, Output) {
    let output = child.wait_with_output().unwrap();
    (output.status.code().unwrap(), output)
}

/// Thousands of tokens, whatever the model would like.
const LONG: [&str; 6] = [
    "--seed",
    "1",
    "-n",
    "4000",
    "--ignore-end",
    "--repetition-penalty=1",
];

#[test]
fn cl_02_an_interrupted_text_ends_cleanly() {
    let model = text(&checkpoint());
    let args = [&["generate", "Once", "-m", &model], &LONG[..]].concat();
    let mut child = start(&args);
    wait_for(child.stdout.as_mut().unwrap());
    interrupt(&child);
    let (code, output) = end(child);
    assert_eq!(code, 130);
    assert!(output.stdout.ends_with(b"\n") && output.stderr.is_empty());
}

#[test]
fn cl_02_an_interrupted_conversation_in_a_pipe_ends() {
    let model = text(&checkpoint());
    let args = [&["chat", "-m", &model], &LONG[..]].concat();
    let mut child = start(&args);
    // The pipe stays open: the command could go on.
    child
        .stdin
        .as_mut()
        .unwrap()
        .write_all(b"Hello\nAnd then?\n")
        .unwrap();
    wait_for(child.stdout.as_mut().unwrap());
    interrupt(&child);
    assert_eq!(child.wait().unwrap().code(), Some(130));
}

#[test]
fn cl_02_an_interrupted_batch_writes_what_there_is() {
    let model = text(&checkpoint());
    let args = [&["batch", "-", "--rows", "1", "-m", &model], &LONG[..]].concat();
    let mut child = start(&args);
    // The first fails at once, so there is something to wait for; the last is never begun.
    let prompts = ["", "Once", "upon", "a"].map(|prompt| format!("{{\"prompt\": \"{prompt}\"}}\n"));
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(prompts.concat().as_bytes()).unwrap();
    drop(stdin);
    wait_for(child.stdout.as_mut().unwrap());
    interrupt(&child);
    let (code, output) = end(child);
    assert_eq!(code, 130);
    let written = String::from_utf8(output.stdout).unwrap();
    assert_eq!(written.lines().count(), 3, "{written}");
    assert_eq!(
        written.matches("\"finish\":\"cancelled\"").count(),
        2,
        "{written}"
    );
    assert!(output.stderr.is_empty());
}

#[test]
fn cl_02_an_interrupted_training_goes_on_later() {
    let folder = tempfile::tempdir().unwrap();
    let (config, out) = tiny_run(folder.path(), 400);
    let args = [
        "train",
        "--config",
        &config,
        "--out",
        &out,
        "--threads",
        "1",
    ];
    let mut child = start(&args);
    wait_for_training(child.stderr.as_mut().unwrap());
    interrupt(&child);
    let (code, output) = end(child);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(code, 130, "{stderr}");
    assert!(stderr.contains("its state is saved"), "{stderr}");

    let mut child = start(&args);
    let mut stderr = child.stderr.take().unwrap();
    wait_for_training(&mut stderr);
    interrupt(&child);
    let mut seen = String::new();
    stderr.read_to_string(&mut seen).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{seen}");
    assert!(
        run(&[
            "train", "--config", &config, "--out", &out, "--resume", "never"
        ])
        .code
            == 2
    );
}

#[test]
fn cl_02_an_interrupted_index_goes_on_where_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let docs = folder.path().join("docs");
    std::fs::create_dir(&docs).unwrap();
    // The note on it says that the work has begun.
    std::fs::write(docs.join("a.bin"), b"\0").unwrap();
    for n in 0..80 {
        std::fs::write(docs.join(format!("b{n}.txt")), format!("text {n}")).unwrap();
    }
    let model = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../models/lfm2-colbert/tests/golden/two-dense-tiny");
    let (model, index, docs) = (text(&model), text(&folder.path().join("x")), text(&docs));
    let args = [
        "index", "build", &index, &docs, "-m", &model, "-v", "--json",
    ];
    let mut child = start(&args);
    wait_for(child.stderr.as_mut().unwrap());
    interrupt(&child);
    let (code, output) = end(child);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(code, 130, "{stderr}");
    assert!(stderr.contains("goes on from there"), "{stderr}");
    let rest = run(&args).ok().json();
    let number = |key: &str| rest[key].as_u64().unwrap();
    assert_eq!(number("unchanged") + number("new"), 80);
    assert!(number("new") > 0, "{rest}");
    assert_eq!(rest["index"]["documents"], 80);
}
