//! `describe`, pictures in `chat`, and `inspect --image`, with a model of random weights.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

mod common;

use std::path::{Path, PathBuf};

use common::{run, run_with, text};
use lfm2::hub::Overwrite;
use lfm2::vl::{DecodeOptions, Picture};
use serde_json::Value;

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/lfm2-vl/tests/golden")
}

fn model() -> String {
    text(&golden().join("models/early_files"))
}

/// Writes a picture, and says where.
fn picture(folder: &Path, name: &str, width: usize, height: usize) -> String {
    let pixel = |x: usize, y: usize| [(x * 3) as u8, (y * 5) as u8, (x ^ y) as u8];
    let picture = Picture::from_fn(width, height, pixel).unwrap();
    let path = folder.join(name);
    picture.save(&path, Overwrite::Replace).unwrap();
    text(&path)
}

fn describe(args: &[&str]) -> common::Outcome {
    let model = model();
    run(&[&["describe", "-m", &model, "-n", "6", "--seed", "1"], args].concat())
}

#[test]
fn an_answer_is_written_and_is_the_same_with_the_same_seed() {
    let folder = tempfile::tempdir().unwrap();
    let path = picture(folder.path(), "a.png", 200, 150);
    let streamed = describe(&[&path, "--prompt", "What is this?"]).ok();
    let json = describe(&[&path, "--prompt", "What is this?", "--json"])
        .ok()
        .json();
    assert_eq!(
        streamed.stdout.trim_end_matches('\n'),
        json["text"].as_str().unwrap().trim_end_matches('\n')
    );
    assert!(json["prompt_tokens"].as_u64().unwrap() > 10);
    assert!(json["generated_tokens"].as_u64().unwrap() <= 6);
    assert_eq!(json["seed"], 1);
}

#[test]
fn without_a_model_the_built_in_one_looks() {
    let folder = tempfile::tempdir().unwrap();
    let out = text(&folder.path().join("shapes"));
    let exam = run(&[
        "eval", "vl", "--count", "3", "--seed", "7", "--save", &out, "--json",
    ]);
    assert_eq!(exam.ok().json()["pictures"], 3);
    let answers = std::fs::read_to_string(folder.path().join("shapes/answers.jsonl")).unwrap();
    let answers = answers
        .lines()
        .map(|line| serde_json::from_str(line).unwrap());
    let kept: Vec<Value> = answers.collect();
    assert!(kept.len() > 15);
    let background = kept
        .iter()
        .find(|line| line["topic"] == "background")
        .unwrap();
    let path = text(
        &folder
            .path()
            .join("shapes")
            .join(background["picture"].as_str().unwrap()),
    );
    let question = background["question"].as_str().unwrap();
    let answer = run(&["describe", &path, "--prompt", question]).ok().stdout;
    assert_eq!(answer.trim(), background["answer"].as_str().unwrap());
}

#[test]
fn the_cost_is_explained_before_and_the_budget_holds() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (
        picture(folder.path(), "a.png", 400, 300),
        picture(folder.path(), "b.png", 90, 90),
    );
    let outcome = describe(&[&a, &b, "--explain-cost"]).ok();
    for words in [
        "a.png: 400 x 300",
        "b.png: 90 x 90",
        "thumbnail",
        "tokens with markers",
    ] {
        assert!(
            outcome.stderr.contains(words),
            "{words}: {}",
            outcome.stderr
        );
    }
    let only = describe(&[&a, &b, "--explain-cost=only", "--json"])
        .ok()
        .json();
    let all = only["tokens"].as_u64().unwrap();
    assert_eq!(only["pictures"][0]["width"], 400);
    let budget = (all / 2).to_string();
    let less = describe(&[&a, &b, "--explain-cost=only", "--json", "--budget", &budget]);
    let less = less.ok().json()["tokens"].as_u64().unwrap();
    assert!(less <= all / 2 && less > 0, "{less} of {all}");
    let outcome = describe(&[&a, &b, "--budget", "3"]);
    assert_eq!(outcome.code, 6, "{}", outcome.stderr);
    let whole = describe(&[&a, "--explain-cost=only", "--json", "--no-split"])
        .ok()
        .json();
    assert_eq!(whole["pictures"][0]["views"].as_array().unwrap().len(), 1);
}

#[test]
fn frames_come_from_animations_and_folders() {
    let folder = tempfile::tempdir().unwrap();
    for index in 0..5 {
        // The last three are the same.
        let width = 60 + 40 * index.min(2);
        picture(folder.path(), &format!("frame{index}.png"), width, 64);
    }
    let folder = text(folder.path());
    let costs = |args: &[&str]| describe(&[args, &["--explain-cost=only", "--json"]].concat()).ok();
    let all = costs(&[&folder]);
    assert!(all.stderr.is_empty(), "{}", all.stderr);
    let all = all.json();
    assert_eq!(all["pictures"].as_array().unwrap().len(), 5);
    assert!(all["new_views"].as_u64() < all["views"].as_u64());
    let some = costs(&[&folder, "--frames", "3"]);
    assert!(some.stderr.contains("3 of 5 frames"), "{}", some.stderr);
    let names = some.json()["pictures"].as_array().unwrap().clone();
    let ends = |name: &Value, end: &str| name["name"].as_str().unwrap().ends_with(end);
    assert!(ends(&names[0], "frame0.png") && ends(&names[2], "frame4.png"));
    let animated = text(&golden().join("images/animated.gif"));
    let outcome = describe(&[&animated]).ok();
    assert!(!outcome.stdout.is_empty());
    let found = costs(&[&animated]).json()["pictures"]
        .as_array()
        .unwrap()
        .len();
    assert!(found > 1);
}

#[test]
fn views_kept_on_a_disk_are_not_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = picture(folder.path(), "a.png", 400, 300);
    let kept = text(&folder.path().join("views"));
    let first = describe(&[&path, "--view-cache", &kept]).ok();
    let files = std::fs::read_dir(&kept).unwrap().count();
    assert!(files > 1);
    let second = describe(&[&path, "--view-cache", &kept]).ok();
    assert_eq!(first.stdout, second.stdout);
    assert_eq!(std::fs::read_dir(&kept).unwrap().count(), files);
}

#[test]
fn an_answer_without_boxes_is_said_and_the_drawing_still_made() {
    let folder = tempfile::tempdir().unwrap();
    let path = picture(folder.path(), "a.png", 60, 40);
    let out = text(&folder.path().join("out.png"));
    let outcome = describe(&[&path, "--boxes", "--draw", &out]).ok();
    assert!(outcome.stdout.is_empty());
    assert!(
        outcome.stderr.contains("no box in the answer"),
        "{}",
        outcome.stderr
    );
    let drawn = Picture::open(&out, &DecodeOptions::default()).unwrap();
    assert_eq!((drawn.width(), drawn.height()), (60, 40));
    let again = describe(&[&path, "--boxes", "--draw", &out]);
    assert_eq!(again.code, 2);
    assert!(again.stderr.contains("--force"), "{}", again.stderr);
    let several = describe(&[&path, &path, "--boxes", "--draw", &out, "--force"]);
    assert!(several.stderr.contains("one picture"), "{}", several.stderr);
}

#[test]
fn im_01_files_that_are_no_pictures_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let wrong = folder.path().join("page.png");
    std::fs::write(&wrong, "<html>not found</html>").unwrap();
    let empty = folder.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    for (path, code, words) in [
        (wrong, 2, "page.png: not an image we read"),
        (folder.path().join("nowhere.png"), 3, "nowhere.png"),
        (empty, 3, "a picture in"),
    ] {
        let outcome = describe(&[&text(&path)]);
        assert_eq!(outcome.code, code, "{}", outcome.stderr);
        assert!(outcome.stderr.contains(words), "{}", outcome.stderr);
    }
}

#[test]
fn im_08_remote_pictures_are_off() {
    for address in [
        "https://example.com/a.png",
        "http://[::1]/a.png",
        "file:///etc/passwd",
        "ftp://example.com/a.png",
    ] {
        let outcome = describe(&[address]);
        assert_eq!(outcome.code, 2, "{}", outcome.stderr);
        let words = "remote pictures are off";
        assert!(outcome.stderr.contains(words), "{}", outcome.stderr);
    }
}

#[test]
fn a_picture_can_come_from_stdin() {
    let folder = tempfile::tempdir().unwrap();
    let path = picture(folder.path(), "a.png", 60, 40);
    let model = model();
    let args = [
        "describe",
        "-",
        "-m",
        &model,
        "--explain-cost=only",
        "--json",
    ];
    let found = run_with(&args, &std::fs::read(&path).unwrap()).ok().json();
    assert_eq!(found["pictures"][0]["width"], 60);
    let wrong = run_with(&args, b"no picture");
    assert!(wrong.stderr.contains("stdin"), "{}", wrong.stderr);
}

#[test]
fn models_without_a_tower_and_wrong_settings_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = picture(folder.path(), "a.png", 60, 40);
    let text_model = text(&common::checkpoint());
    let outcome = run(&["describe", &path, "-m", &text_model]);
    assert_eq!(outcome.code, 5, "{}", outcome.stderr);
    assert!(
        outcome.stderr.contains("no vision tower"),
        "{}",
        outcome.stderr
    );
    let outcome = describe(&[&path, "--budget", "fast"]);
    assert_eq!(outcome.code, 2);
    assert!(outcome.stderr.contains("800ms"), "{}", outcome.stderr);
    let outcome = describe(&[&path, "--min-image-tokens", "9", "--max-image-tokens", "3"]);
    assert!(
        outcome.stderr.contains("image_tokens"),
        "{}",
        outcome.stderr
    );
}

#[test]
fn chats_show_pictures_and_go_on_from_saved_ones() {
    let folder = tempfile::tempdir().unwrap();
    let path = picture(folder.path(), "a.png", 200, 150);
    let saved = text(&folder.path().join("chat.json"));
    let model = model();
    let chat = ["chat", "-m", &model, "-n", "5", "--seed", "1", "-v"];
    let lines = format!("/image {path}\nWhat is this?\nAnd <image> now?\n/stats\n/save {saved}\n");
    let outcome = run_with(&chat, lines.as_bytes()).ok();
    assert!(outcome.stderr.contains("200 x 150: "), "{}", outcome.stderr);
    assert!(
        outcome.stderr.contains("of them known"),
        "{}",
        outcome.stderr
    );
    let again = format!("/load {saved}\nOnce more.\n/stats\n");
    let again = run_with(&chat, again.as_bytes()).ok();
    assert!(
        again.stderr.contains("4 messages loaded"),
        "{}",
        again.stderr
    );
    assert!(again.stderr.contains("6 messages"), "{}", again.stderr);
    // A picture that is gone, and a model that sees none.
    std::fs::remove_file(&path).unwrap();
    let gone = run_with(&chat, format!("/load {saved}\n").as_bytes());
    assert_eq!(gone.code, 3, "{}", gone.stderr);
    let text_model = text(&common::checkpoint());
    let blind = run_with(
        &["chat", "-m", &text_model],
        format!("/image {path}\n").as_bytes(),
    );
    assert!(
        blind.stderr.contains("reads no pictures"),
        "{}",
        blind.stderr
    );
}

#[test]
fn inspect_shows_the_views_of_a_picture() {
    let folder = tempfile::tempdir().unwrap();
    let path = picture(folder.path(), "a.png", 1280, 1024);
    let out = text(&folder.path().join("views.png"));
    let outcome = run(&["inspect", "--image", &path, "--out", &out]).ok();
    assert!(
        outcome.stdout.contains("10: thumbnail"),
        "{}",
        outcome.stdout
    );
    assert!(
        outcome.stdout.contains("2542 tokens, 2554 with markers"),
        "{}",
        outcome.stdout
    );
    let sheet = Picture::open(&out, &DecodeOptions::default()).unwrap();
    assert!(sheet.width() > 800 && sheet.height() > 1000);
    let model = model();
    let facts = run(&["inspect", &model, "--image", &path, "--json"])
        .ok()
        .stdout;
    let facts: Value = serde_json::from_str(&facts).unwrap();
    assert_eq!(facts["views"][0]["width"], 64);
    let whole = run(&["inspect", &model]).ok().stdout;
    assert!(whole.contains("vision tower"), "{whole}");
}

#[test]
fn bench_measures_pictures_with_any_model_that_reads_them() {
    let model = model();
    let args = [
        "bench", "--model", &model, "--image", "200x150", "--repeat", "1", "--json",
    ];
    let report = run(&args).ok().json();
    assert_eq!(
        (report["image"].as_str(), report["repeat"].as_u64()),
        (Some("200x150"), Some(1))
    );
    for key in [
        "view_seconds",
        "first_token_seconds",
        "second_token_seconds",
    ] {
        assert!(report[key].as_f64().unwrap() > 0.0, "{key}");
    }
    let outcome = run(&["bench", "--image", "200x150"]);
    assert_eq!(outcome.code, 2, "{}", outcome.stderr);
}
