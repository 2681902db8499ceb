//! The commands on sound, with a tiny model of random weights.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use common::{Outcome, run, run_with, text};
use lfm2::hub::{Limits, Overwrite, write_safetensors};
use lfm2::speech::shapes::{self, Shapes};
use lfm2::speech::{
    AudioConfig, Clip, DetokenizerConfig, FRAME_SAMPLES, OUTPUT_RATE, SoundLimits, write_wav,
};
use lfm2::{Device, Tensor};
use serde_json::Value;

fn committed() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../models/lfm2-audio/tests/golden/tiny/checkpoint")
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// Numbers that keep activations near one and are the same every time.
fn save(folder: &Path, shapes: &Shapes) {
    let mut state = 1u64;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    let tensor = |(name, shape): &(String, Vec<usize>)| {
        let inputs: usize = shape.iter().skip(1).product();
        let scale = 1.7 / (inputs.max(1) as f32).sqrt();
        let is_scale = name.ends_with("running_var") || name.ends_with("norm.weight");
        let values: Vec<f32> = (0..shape.iter().product())
            .map(|_| match is_scale {
                true => 1.0 + 0.1 * next(),
                false => scale * next(),
            })
            .collect();
        let tensor = Tensor::from_vec(values, shape.as_slice(), &Device::Cpu).unwrap();
        (name.clone(), tensor)
    };
    let tensors: Vec<(String, Tensor)> = shapes.iter().map(tensor).collect();
    let named = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor));
    let path = folder.join("model.safetensors");
    write_safetensors(&path, named, &BTreeMap::new(), Overwrite::Replace).unwrap();
}

/// A folder with a model that hears, writes and speaks, none of it sensibly; and its path as text.
fn model(folder: &Path) -> String {
    let (from, limits) = (committed(), Limits::default());
    for file in ["config.json", "tokenizer.json"] {
        std::fs::copy(from.join(file), folder.join(file)).unwrap();
    }
    let config = AudioConfig::from_json(&json(&from.join("config.json")), &limits).unwrap();
    save(folder, &shapes::model(&config));
    let sound = folder.join("audio_detokenizer");
    std::fs::create_dir(&sound).unwrap();
    let file = from.join("audio_detokenizer/config.json");
    std::fs::copy(&file, sound.join("config.json")).unwrap();
    let facts = DetokenizerConfig::from_json(&json(&file), &limits).unwrap();
    save(&sound, &shapes::detokenizer(&facts, config.codebooks));
    text(folder)
}

/// A file with a tone of so many seconds.
fn tone(folder: &Path, seconds: f64) -> String {
    let path = folder.join(format!("tone-{seconds}.wav"));
    let samples: Vec<f32> = (0..(16_000.0 * seconds) as usize)
        .map(|t| (t as f32 * 0.08).sin() * 0.4)
        .collect();
    write_wav(&path, &samples, 16_000).unwrap();
    text(&path)
}

fn speech(args: &[&str]) -> Outcome {
    run(args)
}

/// What the built-in model hears in a file.
fn heard(sound: &str) -> String {
    let facts = speech(&["transcribe", sound, "--format", "json"])
        .ok()
        .json();
    facts["text"].as_str().unwrap().to_owned()
}

#[test]
fn the_built_in_model_says_what_it_reads_and_repeats_what_it_hears() {
    let folder = tempfile::tempdir().unwrap();
    let [said, repeated] = ["said.wav", "repeated.wav"].map(|name| text(&folder.path().join(name)));
    speech(&["speak", "three seven", "-o", &said]).ok();
    assert_eq!(heard(&said), "three seven");
    let facts = speech(&["converse", &said, "-o", &repeated, "--json"])
        .ok()
        .json();
    assert_eq!(facts["question"], "three seven");
    assert_eq!(facts["answer"], "three seven");
    assert_eq!(heard(&repeated), "three seven");
}

#[test]
fn the_built_in_model_writes_digits_and_the_same_every_time() {
    let folder = tempfile::tempdir().unwrap();
    // A tone is no digit, but digits are all it writes.
    let sound = tone(folder.path(), 0.5);
    let args = ["transcribe", &sound, "--format", "json"];
    let facts = speech(&args).ok().json();
    let words = facts["text"].as_str().unwrap();
    let digits = "zero one two three four five six seven eight nine";
    for word in words.split_whitespace() {
        assert!(digits.split(' ').any(|digit| digit == word), "{words}");
    }
    assert_eq!(speech(&args).ok().json(), facts);
    // Parts are short: it was trained on strings of eight digits.
    let long = tone(folder.path(), 14.0);
    let facts = speech(&["transcribe", &long, "--format", "json"])
        .ok()
        .json();
    let sections = facts["sections"].as_array().unwrap();
    for section in sections {
        let ends = [&section["start"], &section["end"]].map(|x| x.as_f64().unwrap());
        assert!(ends[1] - ends[0] <= 3.01, "{section}");
    }
}

#[test]
fn word_errors_are_counted_over_a_manifest() {
    let folder = tempfile::tempdir().unwrap();
    tone(folder.path(), 0.5);
    let rows = [r#"{"audio": "tone-0.5.wav", "text": "one two"}"#; 2].join("\n");
    let manifest = folder.path().join("rows.jsonl");
    std::fs::write(&manifest, rows).unwrap();
    let data = text(&manifest);
    let report = speech(&["eval", "wer", "--data", &data, "--json"])
        .ok()
        .json();
    assert_eq!((&report["clips"], &report["words"]), (&2.into(), &4.into()));
    let edits = &report["edits"];
    let sum = ["replaced", "added", "missing"].map(|key| edits[key].as_f64().unwrap());
    assert_eq!(report["word_error_rate"], sum.iter().sum::<f64>() / 4.0);
    let shown = speech(&["eval", "wer", "--data", &data, "--limit", "1"]).ok();
    assert!(shown.stdout.contains("of 1 clips"), "{}", shown.stdout);

    std::fs::write(&manifest, r#"{"audio": "none.wav", "text": "one"}"#).unwrap();
    let missing = speech(&["eval", "wer", "--data", &data]);
    assert_ne!(missing.code, 0);
    assert!(missing.stderr.contains("none.wav"), "{}", missing.stderr);
}

#[test]
fn a_transcript_comes_as_text_json_and_subtitles() {
    let folder = tempfile::tempdir().unwrap();
    let (model, sound) = (model(folder.path()), tone(folder.path(), 1.5));
    let plot = text(&folder.path().join("picture.svg"));
    let base = ["transcribe", &sound, "--model", &model, "-n", "5"];
    let facts = speech(&[&base[..], &["--format", "json", "--plot", &plot]].concat())
        .ok()
        .json();
    assert_eq!(facts["file"], sound.as_str());
    assert_eq!(facts["seconds"], 1.5);
    let section = &facts["sections"][0];
    assert_eq!(
        (&section["start"], &section["end"]),
        (&0.0.into(), &1.5.into())
    );
    assert_eq!(section["text"], facts["text"]);
    let words = facts["text"].as_str().unwrap();
    // The same, for people: what the model wrote, and the end of the line.
    let shown = speech(&base).ok().stdout;
    assert_eq!(shown.trim(), words);
    let subtitles = speech(&[&base[..], &["--format", "srt"]].concat())
        .ok()
        .stdout;
    assert!(
        subtitles.starts_with("1\n00:00:00,000 --> 00:00:01,500\n"),
        "{subtitles}"
    );
    assert!(std::fs::read_to_string(plot).unwrap().contains("kHz"));
}

#[test]
fn long_files_are_cut_and_silence_is_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let model = model(folder.path());
    let path = folder.path().join("silence.wav");
    write_wav(&path, &vec![0.0; 48_000], 16_000).unwrap();
    let args = [
        "transcribe",
        &text(&path),
        "--model",
        &model,
        "--longest",
        "1",
    ];
    let outcome = speech(&[&args[..], &["--format", "json"]].concat()).ok();
    assert_eq!(outcome.json()["sections"], serde_json::json!([]));
    assert!(
        outcome.stderr.contains("nobody speaks"),
        "{}",
        outcome.stderr
    );
}

#[test]
fn an_answer_is_a_wav_file_and_times() {
    let folder = tempfile::tempdir().unwrap();
    let (model, sound) = (model(folder.path()), tone(folder.path(), 1.0));
    let (out, plot) = (folder.path().join("a.wav"), folder.path().join("a.png"));
    let args = [
        "converse",
        &sound,
        "-o",
        &text(&out),
        "--model",
        &model,
        "-n",
        "18",
        "--json",
        "--plot",
        &text(&plot),
    ];
    let outcome = speech(&args).ok();
    let facts = outcome.json();
    let clip = Clip::open(&out, &SoundLimits::default()).unwrap();
    assert_eq!(clip.rate(), OUTPUT_RATE);
    assert_eq!(clip.samples().len() % FRAME_SAMPLES, 0);
    assert_eq!(facts["seconds"], clip.seconds());
    assert_eq!(facts["question_seconds"], 1.0);
    let first = facts["first_sound_seconds"].as_f64().unwrap();
    let all = facts["compute_seconds"].as_f64().unwrap();
    assert!(first > 0.0 && first <= all, "{facts}");
    let factor = facts["real_time_factor"].as_f64().unwrap();
    assert!((factor - all / clip.seconds()).abs() < 1e-9, "{facts}");
    assert!(std::fs::read(&plot).unwrap().starts_with(b"\x89PNG"));
    // The same seed gives the same sound.
    let again = text(&folder.path().join("b.wav"));
    let args = [
        "converse", &sound, "-o", &again, "--model", &model, "-n", "18",
    ];
    let shown = speech(&args).ok();
    assert!(shown.stdout.starts_with("you: ") && shown.stdout.contains("\nmodel: "));
    assert!(shown.stderr.contains("of real time"), "{}", shown.stderr);
    assert_eq!(std::fs::read(again).unwrap(), std::fs::read(out).unwrap());
}

#[test]
fn what_cannot_be_done_is_refused_before_a_model_is_opened() {
    let folder = tempfile::tempdir().unwrap();
    let sound = tone(folder.path(), 0.2);
    let missing = text(&folder.path().join("missing.wav"));
    for (args, code, part) in [
        (&["transcribe"][..], 2, "FILE"),
        (&["transcribe", "a", "b", "--format", "srt"], 2, "one file"),
        (&["transcribe", "a", "b", "--plot", "x.svg"], 2, "one file"),
        (&["transcribe", "a", "--live", "16000"], 2, "--live"),
        (&["speak", "  ", "-o", "x.wav"], 2, "no text"),
        (
            &["speak", "a", "-o", "x.wav", "--voice", "robot"],
            2,
            "us-male",
        ),
        (&["speak", "a", "-o", "-", "--json"], 2, "stdout"),
        (&["speak", "a"], 2, "--output"),
        (&["converse", &missing, "-o", "x.wav"], 3, "missing.wav"),
        (&["converse", &sound, "-o", "-", "--json"], 2, "stdout"),
    ] {
        let outcome = speech(args);
        assert_eq!(outcome.code, code, "{args:?}: {}", outcome.stderr);
        assert!(
            outcome.stderr.contains(part),
            "{args:?}: {}",
            outcome.stderr
        );
    }
}

#[test]
fn sound_from_stdin_is_transcribed_while_it_arrives() {
    let folder = tempfile::tempdir().unwrap();
    let model = model(folder.path());
    let args = ["transcribe", "--live", "8000", "--model", &model, "-n", "3"];
    let silence = run_with(&args, &vec![0; 3 * 16_000]).ok();
    assert_eq!(silence.stdout.trim(), "");
    assert!(silence.stderr.contains("approximate"), "{}", silence.stderr);
    let outcome = run_with(&[&args[..], &["--format", "srt"]].concat(), b"");
    assert_eq!(outcome.code, 2, "{}", outcome.stderr);
}
