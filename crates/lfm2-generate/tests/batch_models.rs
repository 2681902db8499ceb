//! Texts written together by tiny models of every kind: each is what it is alone.
//!
//! Besides the checkpoints of this repository, `LFM2_GOLDEN=DIR` adds every one of `DIR/text`.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail like tests"
)]

mod common;

use std::env;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::schedule::{arrivals, check, play};
use common::{IM_END, VOCAB, byte_tokenizer, bytes};
use lfm2_generate::{Batch, BatchOptions, EndTokens, GenerationOptions, Generator, Request};
use lfm2_hub::{Checkpoint, ModelSource, OpenOptions};
use lfm2_nn::{Accuracy, DType, Decoder};
use lfm2_text::{LoadOptions, TextModel};
use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};

/// Folders of small checkpoints with random weights.
fn folders() -> Vec<PathBuf> {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut roots = vec![repository.join("models/lfm2-text/tests/golden")];
    roots.extend(lfm2_golden::folder().map(|folder| folder.join("text")));
    let mut found = Vec::new();
    for root in roots {
        let entries = root
            .read_dir()
            .unwrap_or_else(|e| panic!("{}: {e}", root.display()));
        let folders = entries.map(|entry| entry.unwrap().path());
        found.extend(folders.filter(|folder| folder.join("config.json").is_file()));
    }
    found.sort();
    assert!(!found.is_empty());
    found
}

fn generator(folder: &Path) -> Generator {
    let source = ModelSource::Dir(folder.to_owned());
    let checkpoint = Checkpoint::open(&source, &OpenOptions::default()).unwrap();
    // Where pairs of bf16 are multiplied, activations are rounded to eight bits, and a difference in the last
    // bit of a sum becomes one in the eighth.
    let options = LoadOptions::default().with_accuracy(Accuracy::Exact);
    let model = TextModel::from_checkpoint(&checkpoint, &options).unwrap();
    assert!(model.vocab_size() >= VOCAB, "prompts are bytes");
    Generator::new(Arc::new(model), byte_tokenizer()).with_stop_ids(vec![IM_END])
}

/// The schedules are the same in every run: sums in another order give other last bits, and with
/// ever new schedules two tokens would one day be as good as equally likely.
#[test]
fn any_schedule_gives_each_text_as_alone() {
    for folder in folders() {
        let generator = generator(&folder);
        let config = ProptestConfig::with_cases(3);
        let random = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
        let options = (1usize..5, 1usize..40);
        let result = TestRunner::new_with_rng(config, random).run(
            &(arrivals(), options),
            |(schedule, (rows, chunk))| {
                let options = BatchOptions::default()
                    .with_max_rows(rows)
                    .with_prefill_chunk(chunk);
                let mut batch = Batch::new(&generator, options).unwrap();
                let stories = play(&mut batch, &schedule);
                check(&generator, &schedule, &stories)
            },
        );
        if let Err(error) = result {
            panic!("{}: {error}", folder.display());
        }
    }
}

/// Rows are copied while they are being written, and cut where prompts part, which rebuilds
/// convolution states.
#[test]
fn a_common_beginning_is_copied_from_a_row_with_layers() {
    let instruction = bytes("Answer as briefly as you can, in one word if there is one. ");
    let options = GenerationOptions::greedy()
        .with_max_new_tokens(20)
        .with_end_tokens(EndTokens::Ignore);
    for folder in folders() {
        let generator = generator(&folder);
        let batch = BatchOptions::default()
            .with_max_rows(3)
            .with_prefill_chunk(24);
        let mut batch = Batch::new(&generator, batch).unwrap();
        let prompts = ["Why?", "Who was the first?", "", "No", "When was that?"];
        let prompts = prompts.map(|end| [instruction.clone(), bytes(end)].concat());
        for prompt in &prompts {
            batch
                .submit(Request::ids(prompt.clone(), options.clone()))
                .unwrap();
        }
        let mut reused = Vec::new();
        for ((_, output), prompt) in batch.complete().into_iter().zip(prompts) {
            let output = output.unwrap();
            let alone = generator.generate_ids(prompt, &options).unwrap();
            let alone = alone.complete().unwrap();
            assert_eq!(output.tokens, alone.tokens, "{}", folder.display());
            reused.push(output.finish.reused_tokens);
        }
        assert_eq!(reused[0], 0);
        assert!(
            reused[1..].iter().all(|n| *n >= 24),
            "{}: {reused:?}",
            folder.display()
        );
    }
}

#[test]
fn company_changes_nothing_with_short_keys_and_values_either() {
    let options = GenerationOptions::neutral()
        .with_seed(3)
        .with_max_new_tokens(12);
    for folder in folders() {
        let generator = generator(&folder);
        let run = |rows| {
            let batch = BatchOptions::default()
                .with_max_rows(rows)
                .with_kv_dtype(DType::BF16);
            let mut batch = Batch::new(&generator, batch).unwrap();
            for prompt in ["one", "and another", "a third"] {
                batch
                    .submit(Request::text(prompt, options.clone()))
                    .unwrap();
            }
            let outcomes = batch.complete().into_iter();
            outcomes
                .map(|(_, output)| output.unwrap().tokens)
                .collect::<Vec<_>>()
        };
        assert_eq!(run(1), run(3), "{}", folder.display());
    }
}
