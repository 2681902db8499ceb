//! Conversations with tiny models of every kind: cutting the cache at any token changes nothing.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail like tests"
)]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use lfm2_generate::{Chat, ChatTemplate, EndTokens, GenerationOptions, Generator};
use lfm2_hub::{Checkpoint, ModelSource, OpenOptions};
use lfm2_text::{LoadOptions, TextModel};

/// The small checkpoints that the text models are tested with.
fn checkpoints() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/lfm2-text/tests/golden");
    let entries = folder
        .read_dir()
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut found: Vec<PathBuf> = entries.filter(|p| p.join("config.json").exists()).collect();
    found.sort();
    assert!(!found.is_empty(), "no checkpoints in {}", folder.display());
    found
}

fn open(folder: &Path) -> (Generator, ChatTemplate) {
    let source = ModelSource::Dir(folder.to_path_buf());
    let checkpoint = Checkpoint::open(&source, &OpenOptions::default()).unwrap();
    let model = TextModel::from_checkpoint(&checkpoint, &LoadOptions::default()).unwrap();
    let template = ChatTemplate::require(checkpoint.chat_template().unwrap().as_deref()).unwrap();
    (
        Generator::for_checkpoint(Arc::new(model), &checkpoint).unwrap(),
        template,
    )
}

/// Models with random weights babble, in tokens that their own text is not divided into again: the
/// next turn has to cut the cache inside the answer, and rebuild convolution states there.
#[test]
fn turns_equal_one_shot_with_real_caches() {
    let options = GenerationOptions::greedy()
        .with_max_new_tokens(12)
        .with_end_tokens(EndTokens::Ignore);
    for folder in checkpoints() {
        let (generator, template) = open(&folder);
        let chat = || Chat::new(generator.clone(), template.clone()).with_options(options.clone());
        let mut session = chat().with_system("Be brief.");
        let mut reused = 0;
        for question in ["Hello", "Tell me more, please.", "Why?", "Bye"] {
            let reply = session.send(question).unwrap().complete().unwrap();
            reused += reply.finish.reused_tokens;
            let messages = session.messages();
            let mut fresh = chat().with_messages(messages[..messages.len() - 1].to_vec());
            let expected = fresh
                .reply()
                .unwrap()
                .with_prefill_chunk(5)
                .complete()
                .unwrap();
            assert_eq!(
                reply.text,
                expected.text,
                "{}: {question}",
                folder.display()
            );
        }
        assert!(reused > 0, "{}: nothing was reused", folder.display());
    }
}
