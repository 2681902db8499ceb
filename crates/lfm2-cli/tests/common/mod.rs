//! Runs the command as a user would.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail like tests"
)]
#![allow(dead_code, reason = "every test file uses another part")]

use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

/// What a run of the command came to.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Outcome {
    /// The outcome, which has to be a success.
    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        assert_eq!(self.code, 0, "{}", self.stderr);
        self
    }

    /// The last line of stdout as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        let line = self.stdout.lines().next_back().unwrap_or_default();
        serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {:?}", self.stdout))
    }
}

impl From<Output> for Outcome {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

/// The command with a clean environment.
pub(crate) fn command<S: AsRef<OsStr>>(args: &[S]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lfm2"));
    for name in [
        "LFM2_MODEL",
        "LFM2_RETRIEVAL_MODEL",
        "LFM2_SPEECH_MODEL",
        "LFM2_LOG",
        "LFM2_HISTORY",
        "HF_TOKEN",
        "COLUMNS",
    ] {
        command.env_remove(name);
    }
    // No test may open a connection.
    command.env("HF_HUB_OFFLINE", "1").args(args);
    command
}

/// Runs the command with nothing on stdin.
pub(crate) fn run<S: AsRef<OsStr>>(args: &[S]) -> Outcome {
    command(args).stdin(Stdio::null()).output().unwrap().into()
}

/// Runs the command with these bytes on stdin.
pub(crate) fn run_with<S: AsRef<OsStr>>(args: &[S], stdin: &[u8]) -> Outcome {
    let mut command = command(args);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut pipe = child.stdin.take().unwrap();
    let bytes = stdin.to_vec();
    let writer = std::thread::spawn(move || {
        // A command that stops reading early is what some tests are about.
        let _ = pipe.write_all(&bytes);
    });
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    output.into()
}

/// A checkpoint folder with random weights.
pub(crate) fn checkpoint() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/lfm2-text/tests/golden/dense_small")
}

/// A path as an argument.
pub(crate) fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// Writes the configuration and the data of a run with a model that learns nothing in a moment;
/// returns the configuration and the folder for the run.
pub(crate) fn tiny_run(folder: &Path, steps: u64) -> (String, String) {
    let story = "Once upon a time there was a boy named Sam. He had a red ball. The ball was lost.";
    let stories: Vec<String> = (0..12).map(|i| format!("{story} Day {i} came.")).collect();
    std::fs::write(folder.join("text.txt"), stories.join("\n\n")).unwrap();
    let options = json!({
        "name": "tiny",
        "base": {"fresh": {"vocab_size": 520, "config": {
            "architectures": ["Lfm2ForCausalLM"], "model_type": "lfm2", "hidden_size": 16, "num_hidden_layers": 2,
            "layer_types": ["conv", "full_attention"], "num_attention_heads": 2, "num_key_value_heads": 1,
            "intermediate_size": 32, "block_auto_adjust_ff_dim": false, "block_multiple_of": 32,
            "max_position_embeddings": 128, "tie_word_embeddings": true,
        }}},
        "data": [{"path": "text.txt", "format": "text", "holdout": 1}],
        "steps": steps, "micro_batch_tokens": 64, "micro_batches": 1,
        "schedule": {"kind": "constant", "peak": 0.01},
        "validate_every": 2, "save_every": 2, "seed": 1,
    });
    let config = folder.join("run.json");
    std::fs::write(&config, options.to_string()).unwrap();
    (text(&config), text(&folder.join("out")))
}
