//! BERT-style encoders against transformers.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use lfm2_hub::{Checkpoint, ErrorKind, OpenOptions};
use lfm2_sentence::{EncodeOptions, EncoderKind, Frame, SentenceEncoder, Site};
use lfm2_text::LoadOptions;
use serde_json::Value;

fn tiny() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/bert-tiny")
}

fn open(folder: &Path) -> Result<SentenceEncoder> {
    let checkpoint = Checkpoint::open(&folder.to_path_buf().into(), &OpenOptions::default())?;
    Ok(SentenceEncoder::from_checkpoint(
        &checkpoint,
        &LoadOptions::default(),
    )?)
}

fn encode(
    encoder: &SentenceEncoder,
    texts: &[String],
    sites: &[Site],
    options: &EncodeOptions,
) -> Result<Vec<Vec<f32>>> {
    let found = encoder.encode(texts, sites, options, &mut |_| ControlFlow::Continue(()))?;
    Ok(found
        .vectors
        .into_iter()
        .map(|vectors| vectors.values)
        .collect())
}

/// A list of lists of numbers.
fn matrix(json: &Value) -> Vec<Vec<f32>> {
    let row = |row: &Value| {
        let numbers = row.as_array().into_iter().flatten();
        numbers
            .filter_map(|n| n.as_f64().map(|n| n as f32))
            .collect()
    };
    json.as_array().into_iter().flatten().map(row).collect()
}

#[test]
fn every_layer_is_the_references() -> Result<()> {
    let encoder = open(&tiny())?;
    assert_eq!(encoder.kind(), EncoderKind::Bert);
    assert_eq!(
        encoder.sites(),
        [Site::Layer(0), Site::Layer(1), Site::Layer(2), Site::Final]
    );
    let cases: Value = serde_json::from_slice(&std::fs::read(tiny().join("cases.json"))?)?;
    let cases = cases["cases"].as_array().context("no cases")?;
    let texts: Vec<String> = cases
        .iter()
        .filter_map(|case| Some(case["text"].as_str()?.to_owned()))
        .collect();
    for (frame, key) in [(Frame::In, "means"), (Frame::Out, "means_inside")] {
        let options = EncodeOptions::default().with_frame(frame);
        let found = encode(&encoder, &texts, &encoder.sites(), &options)?;
        for (number, case) in cases.iter().enumerate() {
            for (layer, expected) in matrix(&case[key]).iter().enumerate() {
                let found = &found[layer][number * 36..(number + 1) * 36];
                let off = found
                    .iter()
                    .zip(expected)
                    .map(|(a, b)| (a - b).abs())
                    .fold(0.0, f32::max);
                ensure!(
                    off < 1e-5,
                    "{key} of {:?}, layer {layer}: off by {off}",
                    texts[number]
                );
            }
        }
    }
    Ok(())
}

#[test]
fn long_texts_are_cut_and_counted() -> Result<()> {
    let encoder = open(&tiny())?;
    let long = "the cat sleeps and ".repeat(30);
    let texts = ["rain".to_owned(), long];
    let found = encoder.encode(
        &texts,
        &[Site::Final],
        &EncodeOptions::default(),
        &mut |_| ControlFlow::Continue(()),
    )?;
    assert_eq!((found.cut, found.kept), (1, 0));
    Ok(())
}

/// Copies the tiny encoder, with one file changed.
fn changed(file: &str, change: impl FnOnce(Value) -> Value) -> Result<tempfile::TempDir> {
    let folder = tempfile::tempdir()?;
    for entry in std::fs::read_dir(tiny())? {
        let path = entry?.path();
        if path.is_file() {
            std::fs::copy(
                &path,
                folder.path().join(path.file_name().context("a name")?),
            )?;
        }
    }
    let path = folder.path().join(file);
    let json = serde_json::from_slice(&std::fs::read(&path)?)?;
    std::fs::write(&path, change(json).to_string())?;
    Ok(folder)
}

#[test]
fn files_that_contradict_each_other_are_refused() -> Result<()> {
    type Change = fn(Value) -> Value;
    let cases: [(&str, Change, &str); 4] = [
        (
            "config.json",
            |mut json| {
                json["num_hidden_layers"] = 4.into();
                json
            },
            "encoder.layer.3",
        ),
        (
            "config.json",
            |mut json| {
                json["vocab_size"] = 50.into();
                json
            },
            "vocab_size",
        ),
        (
            "config.json",
            |mut json| {
                json["model_type"] = "mpnet".into();
                json
            },
            "mpnet",
        ),
        (
            "sentence_bert_config.json",
            |mut json| {
                json["max_seq_length"] = 2.into();
                json
            },
            "max_seq_length",
        ),
    ];
    for (file, change, named) in cases {
        let folder = changed(file, change)?;
        let error = open(folder.path()).err().context("opened")?.to_string();
        assert!(error.contains(named), "{error}");
    }
    Ok(())
}

#[test]
fn a_broken_tokenizer_is_named() -> Result<()> {
    let folder = changed("tokenizer.json", |_| Value::Null)?;
    let error = open(folder.path()).err().context("opened")?;
    assert!(error.to_string().contains("tokenizer.json"), "{error:#}");
    let folder = changed("tokenizer.json", |json| json)?;
    std::fs::remove_file(folder.path().join("tokenizer.json"))?;
    let error = open(folder.path()).err().context("opened")?;
    let kind = error
        .downcast_ref::<lfm2_sentence::Error>()
        .map(lfm2_sentence::Error::kind);
    assert_eq!(kind, Some(ErrorKind::NotFound));
    Ok(())
}

/// Needs an all-MiniLM-L6-v2, whose folder `LFM2_MINILM_MODEL` names, and the embeddings it gave in the
/// references, which `LFM2_GOLDEN` has beside the pairs that they are of.
#[test]
fn minilm_embeds_as_in_the_references() -> Result<()> {
    let (Some(folder), Some(golden)) =
        (std::env::var_os("LFM2_MINILM_MODEL"), lfm2_golden::folder())
    else {
        println!("left out: LFM2_MINILM_MODEL and LFM2_GOLDEN name no folders");
        return Ok(());
    };
    let pairs = golden.join("../data/ldsp");
    if !pairs.is_dir() {
        println!("left out: {} is not there", pairs.display());
        return Ok(());
    }
    let encoder = open(Path::new(&folder))?;
    for name in ["negation", "synonym", "tense"] {
        let facts: Value = serde_json::from_slice(&std::fs::read(
            golden.join(format!("ldsp/real_{name}.json")),
        )?)?;
        let rows: Vec<usize> = facts["csv_rows"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|row| usize::try_from(row.as_u64()?).ok())
            .collect();
        let set = lfm2_analysis::PairSet::read(&pairs.join(format!("{name}_ldsps.csv")))?;
        let texts: Vec<String> = rows
            .iter()
            .filter_map(|&row| Some(set.pairs().get(row)?.first.clone()))
            .collect();
        ensure!(
            !texts.is_empty() && texts.len() == rows.len(),
            "{name}: rows {} of {}",
            texts.len(),
            rows.len()
        );
        let found = encode(&encoder, &texts, &[Site::Final], &EncodeOptions::default())?;
        // Not with our own reader: these files hold numbers of 64 bits, which weights are not.
        let file = golden.join(format!("ldsp/real_{name}.safetensors"));
        let references = candle_core::safetensors::load(&file, &candle_core::Device::Cpu)?;
        let expected = references["first"].flatten_all()?.to_vec1::<f32>()?;
        ensure!(
            expected.len() == found[0].len(),
            "{name}: {}",
            expected.len()
        );
        let off = found[0]
            .iter()
            .zip(&expected)
            .map(|(a, b)| (a - b).abs())
            .fold(0.0, f32::max);
        ensure!(off < 1e-5, "{name}: off by {off}");
    }
    Ok(())
}
