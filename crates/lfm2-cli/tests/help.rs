//! `docs/cli.md` is what `--help` says.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

mod common;

use std::fmt::Write;
use std::path::Path;

use common::run;

const COMMANDS: &[&[&str]] = &[
    &[],
    &["generate"],
    &["batch"],
    &["chat"],
    &["describe"],
    &["index"],
    &["index", "build"],
    &["index", "add"],
    &["index", "delete"],
    &["index", "info"],
    &["search"],
    &["embed"],
    &["rerank"],
    &["transcribe"],
    &["speak"],
    &["converse"],
    &["inspect"],
    &["download"],
    &["quantize"],
    &["bench"],
    &["train"],
    &["train", "teach"],
    &["train", "score"],
    &["merge"],
    &["eval"],
    &["eval", "recall"],
    &["eval", "perplexity"],
    &["eval", "choice"],
    &["eval", "gsm8k"],
    &["eval", "ifeval"],
    &["eval", "retrieval"],
    &["eval", "vl"],
    &["eval", "wer"],
    &["analyze"],
    &["analyze", "dims"],
    &["analyze", "prune"],
];

/// Set `LFM2_UPDATE=1` to write the file anew.
#[test]
fn the_documentation_is_what_help_says() {
    let mut text = String::from(
        "# The command line\n\nWhat `lfm2 --help` and the help of every command say; a test keeps this page equal to it.\n",
    );
    for &command in COMMANDS {
        let args: Vec<&str> = command.iter().chain(&["--help"]).copied().collect();
        let help = run(&args).ok().stdout;
        let title = [&["lfm2"], command].concat().join(" ");
        write!(
            text,
            "\n## `{title}`\n\n```text\n{}\n```\n",
            help.trim_end()
        )
        .unwrap();
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/cli.md");
    if std::env::var_os("LFM2_UPDATE").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let page = std::fs::read_to_string(&path)
        .unwrap_or_default()
        .replace("\r\n", "\n");
    let first = page
        .lines()
        .zip(text.lines())
        .find(|(page, help)| page != help);
    assert_eq!(
        first, None,
        "docs/cli.md is old; run this test with LFM2_UPDATE=1"
    );
    assert_eq!(
        page.len(),
        text.len(),
        "docs/cli.md is old; run this test with LFM2_UPDATE=1"
    );
}
