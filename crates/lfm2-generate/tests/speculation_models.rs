//! Guessing ahead with real layers and caches: tiny models of every kind write the same text.
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

use common::byte_tokenizer;
use lfm2_generate::{
    DraftChoice, EndTokens, GenerationOptions, Generator, Output, Pace, Speculation,
};
use lfm2_hub::{Checkpoint, ModelSource, OpenOptions};
use lfm2_nn::{CacheSpec, Decoder};
use lfm2_text::{LoadOptions, TextModel};

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Folders of small checkpoints with random weights.
fn folders() -> Vec<PathBuf> {
    let mut roots = vec![repository().join("models/lfm2-text/tests/golden")];
    if let Some(folder) = lfm2_golden::folder() {
        roots.push(folder.join("text"));
    }
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

fn open(folder: &Path) -> TextModel {
    let checkpoint = Checkpoint::open(
        &ModelSource::Dir(folder.to_owned()),
        &OpenOptions::default(),
    );
    TextModel::from_checkpoint(&checkpoint.unwrap(), &LoadOptions::default())
        .unwrap_or_else(|e| panic!("{}: {e}", folder.display()))
}

fn complete(generator: &Generator, prompt: &[u32], options: &GenerationOptions) -> Output {
    let generation = generator.generate_ids(prompt.to_vec(), options);
    generation.unwrap().complete().unwrap()
}

fn ids(output: &Output) -> Vec<u32> {
    output.tokens.iter().map(|token| token.id).collect()
}

fn constant(speculation: Speculation, max_draft: usize) -> Speculation {
    speculation
        .with_pace(Pace::Constant)
        .with_max_draft(max_draft)
}

fn options() -> GenerationOptions {
    GenerationOptions::greedy()
        .with_end_tokens(EndTokens::Ignore)
        .with_max_new_tokens(48)
}

/// Some ids, then the same again.
fn repetition(vocab: usize, salt: usize) -> Vec<u32> {
    let once = (0..9).map(|i| ((i * i * 37 + i * 11 + salt) % vocab) as u32);
    let once: Vec<u32> = once.collect();
    [once.clone(), once].concat()
}

#[test]
fn every_kind_of_model_writes_the_same_with_guesses() {
    let mut accepted = 0;
    for folder in folders() {
        let model = Arc::new(open(&folder));
        let vocab = model.vocab_size();
        let generator = Generator::new(model, byte_tokenizer());
        for salt in [1, 5] {
            let prompt = repetition(vocab, salt);
            let plain = complete(&generator, &prompt, &options());
            for max_draft in [1, 3, 8] {
                let options = options();
                let options = options.with_speculation(constant(Speculation::lookup(), max_draft));
                let quick = complete(&generator, &prompt, &options);
                assert_eq!(ids(&quick), ids(&plain), "{} {max_draft}", folder.display());
                accepted += quick.finish.accepted_tokens;
            }
        }
    }
    assert!(accepted > 0, "no guess was ever right");
}

/// Wrong guesses by another model, and only right ones by the same one.
#[test]
fn every_pair_of_models_writes_what_the_larger_would() {
    let models: Vec<(PathBuf, Arc<TextModel>)> = folders()
        .into_iter()
        .map(|folder| (folder.clone(), Arc::new(open(&folder))))
        .collect();
    for (at, (folder, model)) in models.iter().enumerate() {
        let plain = Generator::new(model.clone(), byte_tokenizer());
        let prompt = repetition(model.vocab_size(), 3);
        let expected = complete(&plain, &prompt, &options());
        let (_, another) = &models[(at + 1) % models.len()];
        for draft in [model, another] {
            let Ok(generator) = plain.clone().with_draft(draft.clone(), None) else {
                continue;
            };
            let options = options();
            let options = options.with_speculation(constant(Speculation::draft_model(), 4));
            let found = complete(&generator, &prompt, &options);
            assert_eq!(ids(&found), ids(&expected), "{}", folder.display());
            if Arc::ptr_eq(draft, model) {
                let finish = found.finish;
                assert_eq!(
                    finish.accepted_tokens,
                    finish.drafted_tokens,
                    "{}",
                    folder.display()
                );
            }
        }
    }
}

/// What a seed draws stays the same as long as nothing is drawn for guessing.
#[test]
fn drawn_texts_of_a_seed_stay_what_they_are() {
    for folder in folders() {
        let model = Arc::new(open(&folder));
        let prompt = repetition(model.vocab_size(), 2);
        let generator = Generator::new(model.clone(), byte_tokenizer());
        let generator = generator.with_draft(model, None).unwrap();
        let options = GenerationOptions::default()
            .with_seed(11)
            .with_end_tokens(EndTokens::Ignore)
            .with_max_new_tokens(40);
        let plain = complete(&generator, &prompt, &options);
        for speculation in [Speculation::lookup(), Speculation::draft_model()] {
            let options = options.clone();
            let options = options.with_speculation(constant(speculation, 5));
            let found = complete(&generator, &prompt, &options);
            assert_eq!(
                ids(&found),
                ids(&plain),
                "{} {speculation:?}",
                folder.display()
            );
        }
    }
}

/// The cache goes on as if there had been no guesses.
#[test]
fn what_follows_a_text_with_guesses_is_the_same() {
    for folder in folders() {
        let model = open(&folder);
        let prompt = repetition(model.vocab_size(), 7);
        let model = Arc::new(model);
        let generator = Generator::new(model.clone(), byte_tokenizer());
        let next = |speculation| {
            let mut cache = model.new_cache(CacheSpec::rows(1));
            let first = options()
                .with_max_new_tokens(14)
                .with_speculation(speculation);
            let generation = generator.generate_in(&mut cache, 0, prompt.clone(), &first);
            let mut text = [
                prompt.clone(),
                ids(&generation.unwrap().complete().unwrap()),
            ]
            .concat();
            assert_eq!(cache.len(0), text.len() - 1);
            text.extend([3, 4]);
            let generation = generator.generate_in(&mut cache, 0, text, &options());
            let output = generation.unwrap().complete().unwrap();
            assert!(output.finish.reused_tokens >= prompt.len() + 13);
            ids(&output)
        };
        let plain = next(Speculation::Off);
        let quick = next(constant(Speculation::lookup(), 6));
        assert_eq!(quick, plain, "{}", folder.display());
    }
}

/// The model that tells stories, made to like the words it has used already.
#[test]
fn a_trained_model_repeats_itself_in_fewer_passes() {
    let source = ModelSource::Dir(repository().join("models/lfm2-tiny-stories"));
    let checkpoint = Checkpoint::open(&source, &OpenOptions::default()).unwrap();
    let model = TextModel::from_checkpoint(&checkpoint, &LoadOptions::default()).unwrap();
    let model = Arc::new(model);
    let generator = Generator::for_checkpoint(model.clone(), &checkpoint).unwrap();
    let tokenizer = checkpoint.tokenizer().unwrap();
    let generator = generator.with_draft(model, Some(&tokenizer)).unwrap();
    let prompt = "Tom had a red ball. He liked to play with the red ball in the park. \
        Tom had a red ball.";
    let options = options()
        .with_max_new_tokens(40)
        .with_repetition_penalty(0.3);
    let write = |options: &GenerationOptions| {
        let output = generator.generate(prompt, options).unwrap().complete();
        let output = output.unwrap();
        (output.text, output.finish)
    };
    let (plain, _) = write(&options);
    for (speculation, least) in [
        (constant(Speculation::lookup(), 8), 20),
        (Speculation::lookup(), 0),
        (constant(Speculation::draft_model(), 4), 30),
        (Speculation::draft_model(), 0),
    ] {
        let (found, finish) = write(&options.clone().with_speculation(speculation));
        assert_eq!(found, plain, "{speculation:?}");
        assert!(
            finish.accepted_tokens >= least,
            "{speculation:?} {finish:?}"
        );
    }
    let drawn = Speculation::DraftModel {
        max_draft: 4,
        pace: Pace::Constant,
        choice: DraftChoice::Sampled,
    };
    let drawing = GenerationOptions::default()
        .with_seed(1)
        .with_max_new_tokens(30)
        .with_end_tokens(EndTokens::Ignore);
    let (_, finish) = write(&drawing.with_speculation(drawn));
    // Both models are the same one: only the last bits of two passes can tell them apart.
    assert!(
        finish.accepted_tokens + 2 >= finish.drafted_tokens,
        "{finish:?}"
    );
}
