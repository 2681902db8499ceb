//! Pictures through the front door, on a checkpoint folder with random weights.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use lfm2::generate::{Content, Part, Reply};
use lfm2::vl::{Budget, Picture, ReadProgress, ViewFolder, VlOptions};
use lfm2::{ErrorKind, GenerationOptions, Message, TextModel, VlChat, VlModel};
use serde_json::json;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../models/lfm2-vl/tests/golden/models/early_files")
}

fn model() -> VlModel {
    VlModel::open(folder()).unwrap()
}

fn picture(width: usize, height: usize, seed: usize) -> Picture {
    Picture::from_fn(width, height, |x, y| {
        [(x * seed) as u8, (y * 3) as u8, (x ^ y) as u8]
    })
    .unwrap()
}

fn options(model: &VlModel) -> GenerationOptions {
    model.options().clone().with_seed(7).with_max_new_tokens(8)
}

fn session(model: &VlModel) -> VlChat {
    model.chat_session().unwrap().with_options(options(model))
}

fn ask(chat: &mut VlChat, pictures: &[Picture], question: &str) -> Reply {
    chat.ask(pictures, question).unwrap().complete().unwrap()
}

#[test]
fn later_questions_read_neither_picture_nor_prompt_again() {
    let model = model();
    let mut chat = session(&model);
    let (a, b) = (picture(200, 150, 5), picture(90, 90, 7));
    let first = ask(&mut chat, &[a.clone(), b], "What are these?");
    assert_eq!(first.finish.reused_tokens, 0);
    let rows = chat.gallery().album().rows();
    let second = ask(&mut chat, &[], "Which is larger?");
    assert!(second.finish.reused_tokens >= first.finish.prompt_tokens);
    assert_eq!(chat.gallery().album().rows(), rows);
    // The same picture again is in the prompt again, and not read again.
    let third = ask(&mut chat, &[a], "And this one?");
    assert!(third.finish.prompt_tokens > second.finish.prompt_tokens + 4);
    assert_eq!(chat.gallery().album().rows(), rows);
    assert_eq!(chat.chat().messages().len(), 6);
}

#[test]
fn a_conversation_is_the_same_however_it_came_about() {
    let model = model();
    let mut chat = session(&model);
    let shown = picture(130, 70, 3);
    ask(&mut chat, std::slice::from_ref(&shown), "What is this?");
    let second = ask(&mut chat, &[], "Are you sure?");
    // All at once, in a conversation of its own.
    let gallery = model.gallery();
    gallery.add(&[("picture", &shown)], None).unwrap();
    let messages = chat.chat().messages();
    let fresh = model.chat_with(&gallery).unwrap();
    let mut fresh = fresh
        .with_options(options(&model))
        .with_messages(messages[..messages.len() - 1].to_vec());
    let reply = fresh.reply().unwrap().complete().unwrap();
    assert_eq!(reply.text, second.text);
    assert_eq!(reply.finish.prompt_tokens, second.finish.prompt_tokens);
    assert_eq!(model.ask(&[shown], "Hm?").unwrap().finish.reused_tokens, 0);
}

#[test]
fn words_that_look_like_a_picture_are_words() {
    let model = model();
    let mut chat = session(&model);
    let question = "What does <image> or <|image_start|> mean?";
    ask(&mut chat, &[], question);
    ask(&mut chat, &[picture(40, 40, 3)], question);
    let messages = vec![
        Message::user("Write it."),
        Message::assistant("<image>"),
        Message::user("Again."),
    ];
    let gallery = model.gallery();
    let chat = model.chat_with(&gallery).unwrap().with_messages(messages);
    let mut chat = chat.with_options(options(&model));
    assert!(chat.reply().unwrap().complete().is_ok());
}

#[test]
fn a_budget_holds_for_all_pictures_of_a_question() {
    let model = model();
    let tokens = |budget: Option<Budget>| {
        let gallery = model.gallery();
        let pictures = [picture(400, 300, 3), picture(500, 200, 4)];
        let named: Vec<(&str, &Picture)> = pictures.iter().map(|p| ("p", p)).collect();
        let parts = gallery.add(&named, budget.as_ref()).unwrap();
        assert_eq!(gallery.names(), ["p", "p 2"]);
        let views = parts
            .iter()
            .filter_map(|part| gallery.views(part.picture_name()?));
        views
            .map(|views| views.plan().prompt_tokens())
            .sum::<usize>()
    };
    assert!(tokens(None) > 30);
    assert!(tokens(Some(Budget::Tokens(30))) <= 30);
    let mut chat = session(&model).with_budget(Budget::Tokens(3));
    let two = [picture(400, 300, 3), picture(500, 200, 4)];
    let error = chat.ask(&two, "?").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Limit);
    assert!(chat.chat().messages().is_empty());
}

#[test]
fn im_06_and_im_10_are_found_before_anything_is_read() {
    let model = model();
    let gallery = model.gallery();
    let mut chat = model.chat_with(&gallery).unwrap();
    let missing = chat.send(Content::Parts(vec![Part::picture("cat.jpg")]));
    let error = missing.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains("cat.jpg"), "{error}");
    // More pictures than the context has room for.
    let shown = picture(300, 300, 3);
    let parts = gallery.add(&[("p", &shown)], None).unwrap();
    let many = parts.iter().cycle().take(60).cloned().collect::<Vec<_>>();
    let mut error = None;
    for _ in 0..4 {
        chat.options_mut().max_new_tokens = 1;
        match chat.send(Content::Parts(many.clone())) {
            Ok(stream) => drop(stream.complete().unwrap()),
            Err(found) => {
                error = Some(found);
                break;
            }
        }
    }
    let error = error.unwrap();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains("4096"), "{error}");
}

#[test]
fn im_07_pictures_inside_of_messages_are_refused_before_they_are_decoded() {
    let model = model();
    for url in [
        "data:image/png;base64,!!",
        "data:text/html;base64,AAAA",
        "https://x/y.png",
    ] {
        let part = json!([{"type": "image_url", "image_url": {"url": url}}]);
        let mut chat = model.chat_with(&model.gallery()).unwrap();
        let error = chat.send(Content::from(part)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        let place = "messages[0].content[0]";
        assert!(error.to_string().contains(place), "{error}");
    }
}

#[test]
fn reading_is_reported_and_can_be_stopped() {
    let model = model();
    let mut chat = session(&model);
    let seen: Arc<Mutex<Vec<ReadProgress>>> = Arc::default();
    let reported = Arc::clone(&seen);
    chat.gallery().on_read(move |progress| {
        reported.lock().unwrap().push(progress);
        ControlFlow::Continue(())
    });
    ask(&mut chat, &[picture(300, 200, 5)], "What is this?");
    let reports = std::mem::take(&mut *seen.lock().unwrap());
    let (first, last) = (reports[0], reports[reports.len() - 1]);
    assert_eq!((first.done, last.done), (0, last.total));
    assert!(last.total > 1);
    ask(&mut chat, &[], "Nothing is new.");
    assert!(seen.lock().unwrap().is_empty());
    chat.gallery().on_read(|_| ControlFlow::Break(()));
    let error = chat.ask(&[picture(300, 200, 9)], "And this?").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    assert_eq!(chat.chat().messages().len(), 4);
}

#[test]
fn a_folder_of_views_saves_reading_them_in_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    let reads = |expected: usize| {
        let options = VlOptions::default().with_view_folder(ViewFolder::new(folder.path()));
        let files = lfm2::hub::OpenOptions::default();
        let model = VlModel::open_with(self::folder(), None, &files, &options).unwrap();
        let mut chat = session(&model);
        let read: Arc<Mutex<usize>> = Arc::default();
        let count = Arc::clone(&read);
        chat.gallery().on_read(move |progress| {
            *count.lock().unwrap() = progress.total;
            ControlFlow::Continue(())
        });
        let text = ask(&mut chat, &[picture(300, 200, 5)], "What is this?").text;
        assert_eq!(*read.lock().unwrap(), expected);
        text
    };
    let first = reads(5);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 5);
    assert_eq!(reads(0), first);
}

#[test]
fn settings_can_be_changed_and_are_checked() {
    let model = model();
    let tokens = |model: &VlModel| {
        let plan = model
            .network()
            .processor()
            .plan(lfm2::vl::Size::new(400, 300));
        plan.prompt_tokens()
    };
    let whole = model
        .with_image_settings(&json!({"do_image_splitting": false}))
        .unwrap();
    assert!(tokens(&whole) < tokens(&model));
    let error = model
        .with_image_settings(&json!({"max_image_tokens": 0}))
        .unwrap_err();
    assert!(error.to_string().contains("max_image_tokens"), "{error}");
    let speed = model.speed().unwrap();
    assert!(speed.per_patch >= 0.0 && speed.per_token > 0.0);
    assert_eq!(model.speed().unwrap(), speed);
}

#[test]
fn models_that_read_no_pictures_are_told_apart() {
    let text = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../models/lfm2-text/tests/golden/dense_small");
    let error = VlModel::open(text.clone()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("no vision tower"), "{error}");
    let model = TextModel::open(text).unwrap();
    let parts = vec![Part::picture("p"), Part::text("?")];
    let mut chat = model.chat_session().unwrap();
    assert_eq!(chat.send(parts).unwrap_err().kind(), ErrorKind::Unsupported);
    // A projector file goes with GGUF only, and has to be beside the text model.
    let mmproj = "x/mmproj.gguf".parse().unwrap();
    let files = lfm2::hub::OpenOptions::default();
    let error = VlModel::open_with(folder(), Some(&mmproj), &files, &VlOptions::default());
    assert_eq!(error.unwrap_err().kind(), ErrorKind::InvalidInput);
}

/// A large red disc in the middle of white.
#[cfg(feature = "embedded")]
fn disc() -> Picture {
    const SIDE: usize = 128;
    Picture::from_fn(SIDE, SIDE, |column, row| {
        let [x, y] = [column, row].map(|place| place as f64 - SIDE as f64 / 2.0);
        match x.hypot(y) < 26.0 {
            true => [215, 35, 40],
            false => [248, 248, 248],
        }
    })
    .unwrap()
}

#[cfg(feature = "embedded")]
#[test]
fn the_built_in_model_sees_shapes() {
    let model = VlModel::embedded().unwrap();
    let say = |picture: &Picture, question: &str| {
        let mut chat = model.chat_session().unwrap();
        let greedy = GenerationOptions::greedy().with_max_new_tokens(40);
        chat = chat.with_options(greedy);
        ask(&mut chat, std::slice::from_ref(picture), question).text
    };
    let middle = disc();
    assert_eq!(say(&middle, "What colour is the circle?"), "red");
    assert_eq!(say(&middle, "What shape is this?"), "circle");
    assert_eq!(say(&middle, "How many shapes are there?"), "1");
    assert_eq!(say(&middle, "Is there a blue star?"), "no");
    assert_eq!(
        say(&middle, "Describe the picture."),
        "A large red circle in the middle, on a white background."
    );
}
