//! A training run small enough for tests, on data made here.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::path::{Path, PathBuf};

use lfm2_train::{Result, Resume, TrainOptions, Trainer};
use serde_json::{Value, json};

/// A folder with data files; gone when dropped.
pub(crate) struct Bench {
    folder: tempfile::TempDir,
}

impl Bench {
    /// A folder with a few stories and conversations.
    pub(crate) fn new() -> Self {
        let bench = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        let names = ["Ada", "Ben", "Cleo", "Dan", "Eve"];
        let story = |i: usize| {
            let (a, b) = (names[i % 5], names[(i + 2) % 5]);
            format!("{a} lost a ball. {b} found the ball. {a} was glad and thanked {b}.")
        };
        let stories: Vec<String> = (0..12).map(story).collect();
        bench.write("stories.txt", &stories.join("\n\n"));
        let chat = |i: usize| {
            let question = format!("{}\nWho lost a ball?", story(i));
            let messages = json!([
                {"role": "user", "content": question},
                {"role": "assistant", "content": names[i % 5]},
            ]);
            json!({"messages": messages}).to_string()
        };
        bench.write(
            "chat.jsonl",
            &(0..12).map(chat).collect::<Vec<_>>().join("\n"),
        );
        bench
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn run_folder(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path().join(name), text).unwrap();
    }

    /// A run of `steps` steps with some keys of its configuration replaced.
    pub(crate) fn options(&self, steps: u64, changes: &Value) -> TrainOptions {
        let mut options = json!({
            "name": "test",
            "base": {"fresh": {"vocab_size": 300, "config": {
                "model_type": "lfm2", "hidden_size": 16, "num_hidden_layers": 3,
                "layer_types": ["conv", "full_attention", "conv"],
                "num_attention_heads": 2, "num_key_value_heads": 1, "intermediate_size": 24,
                "block_auto_adjust_ff_dim": false, "conv_L_cache": 3, "norm_eps": 1e-5,
                "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"},
            }}},
            "data": [
                {"path": "stories.txt", "format": "text", "share": 2.0, "holdout": 2},
                {"path": "chat.jsonl", "format": "chat", "share": 1.0, "holdout": 2},
            ],
            "steps": steps, "micro_batch_tokens": 128, "micro_batches": 3,
            "schedule": {"kind": "constant", "peak": 0.01, "warmup": 2},
            "clip": 1.0, "validate_every": 4, "save_every": 2, "seed": 5,
        });
        for (key, value) in changes.as_object().into_iter().flatten() {
            options[key] = value.clone();
        }
        serde_json::from_value(options).unwrap()
    }

    pub(crate) fn open(
        &self,
        options: TrainOptions,
        run: &str,
        resume: Resume,
        threads: usize,
    ) -> Result<Trainer> {
        Trainer::open(options, self.path(), &self.run_folder(run), resume, threads)
    }
}
