//! The front door, on a checkpoint folder with random weights.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

use std::path::{Path, PathBuf};

use lfm2::generate::{Finish, RenderOptions};
use lfm2::hub::gguf::Quantization;
use lfm2::text::shapes;
use lfm2::{ChatEvent, ErrorKind, Message, ModelSource, TextModel};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/lfm2-text/tests/golden/dense_small")
}

fn model() -> TextModel {
    TextModel::open(folder()).unwrap()
}

#[test]
fn every_kind_of_source_opens_the_same_model() {
    let path = folder();
    let text = path.to_str().unwrap();
    let models = [
        TextModel::open(text).unwrap(),
        TextModel::open(text.to_owned()).unwrap(),
        TextModel::open(path.as_path()).unwrap(),
        TextModel::open(ModelSource::Dir(path.clone())).unwrap(),
    ];
    for model in models {
        assert_eq!(model.network().config(), self::model().network().config());
        assert_eq!(
            model.generator().stop_ids(),
            self::model().generator().stop_ids()
        );
    }
    let file = TextModel::open(path.join("model-q8_0.gguf")).unwrap();
    assert_eq!(file.network().config().to_string(), "ccAc");
}

#[test]
fn errors_keep_their_kind_through_the_door() {
    let kind = |source: &str| TextModel::open(source).unwrap_err().kind();
    assert_eq!(kind(""), ErrorKind::InvalidInput);
    assert_eq!(kind("./nowhere"), ErrorKind::NotFound);
    assert_eq!(kind("./nowhere.gguf"), ErrorKind::NotFound);
    let model = model();
    assert_eq!(
        model.generate("", model.options()).unwrap_err().kind(),
        ErrorKind::InvalidInput
    );
    let wrong = model.options().clone().with_top_p(2.0);
    assert_eq!(
        model.generate("a", &wrong).unwrap_err().kind(),
        ErrorKind::InvalidInput
    );
}

#[test]
fn an_answer_writes_itself_and_is_what_a_session_answers() {
    let model = model();
    let options = model.options().clone().with_seed(3).with_max_new_tokens(12);
    let render = RenderOptions::default();
    let question = [Message::user("Hello")];
    let mut text = String::new();
    let mut finish: Option<Finish> = None;
    for piece in model.answer(&question, &render, &options).unwrap() {
        let piece = piece.unwrap();
        text.push_str(&piece.to_string());
        if let ChatEvent::Done(done) = piece {
            finish = Some(done);
        }
    }
    assert!(finish.unwrap().generated_tokens > 0);
    let mut session = model.chat_session().unwrap().with_options(options);
    assert_eq!(
        session.send("Hello").unwrap().complete().unwrap().text,
        text
    );
    assert_eq!(session.messages().len(), 2);
}

#[test]
fn a_checkpoint_without_template_only_refuses_to_chat() {
    let copy = tempfile::tempdir().unwrap();
    for file in ["config.json", "model.safetensors", "tokenizer.json"] {
        std::fs::copy(folder().join(file), copy.path().join(file)).unwrap();
    }
    let model = TextModel::open(copy.path()).unwrap();
    assert_eq!(
        model.chat("Hello").unwrap_err().kind(),
        ErrorKind::Unsupported
    );
    assert_eq!(
        model.chat_session().unwrap_err().kind(),
        ErrorKind::Unsupported
    );
    let options = model.options().clone().with_max_new_tokens(2);
    assert!(
        model
            .generate("Hello", &options)
            .unwrap()
            .complete()
            .is_ok()
    );
}

#[test]
fn a_model_can_be_used_by_several_threads() {
    let model = model();
    let options = model.options().clone().with_seed(1).with_max_new_tokens(6);
    let write = || {
        model
            .generate("Once", &options)
            .unwrap()
            .complete()
            .unwrap()
            .text
    };
    let alone = write();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..3).map(|_| scope.spawn(write)).collect();
        for thread in threads {
            assert_eq!(thread.join().unwrap(), alone);
        }
    });
}

#[test]
fn random_weights_come_only_in_some_types() {
    let shape = shapes::find("lfm2-350m").unwrap();
    let refused = shape
        .synthetic(Quantization::Q5_1, 0, &Default::default())
        .unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unsupported);
}
