//! Every checkpoint and every run of it: ids, states, vectors, pooling, scores, ranks.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use lfm2_colbert::{ColbertModel, TokenInput, TokenVectors, max_sim, pool, rerank};
use lfm2_hub::{Checkpoint, ModelSource, OpenOptions};
use lfm2_nn::{Accuracy, Device, FillerStates, Tensor};
use lfm2_text::LoadOptions;
use serde::Deserialize;
use serde_json::Value;

use super::maxsim::with_zero_row;

/// Largest difference of a component of a unit vector, and of a score.
const VECTOR: f32 = 2e-4;
const SCORE: f32 = 2e-3;
/// Largest difference of a hidden state, relative to the largest of all.
const HIDDEN: f32 = 2e-4;
/// Scores that differ by less may change places.
const NEAR: f32 = 4e-3;

#[derive(Deserialize)]
struct Cases {
    runs: Vec<Run>,
}

#[derive(Deserialize)]
struct Run {
    run: String,
    trunk: String,
    mask_conv: bool,
    overrides: Value,
    expansion_token_id: u32,
    query_prefix_id: Option<u32>,
    document_prefix_id: Option<u32>,
    skiplist_ids: Vec<u32>,
    queries: Vec<Text>,
    documents: Vec<Text>,
    rerank: Vec<Ranking>,
}

#[derive(Deserialize)]
struct Text {
    text: String,
    input_ids: Vec<u32>,
    attention_mask: Vec<u8>,
    kept: Vec<u32>,
}

#[derive(Deserialize)]
struct Ranking {
    ids: Vec<usize>,
    scores: Vec<f32>,
}

/// A checkpoint with what the reference makes of it.
struct Case {
    folder: PathBuf,
    cases: Cases,
    vectors: HashMap<String, Tensor>,
    scores: HashMap<String, Tensor>,
}

impl Case {
    fn open(folder: &Path) -> Result<Self> {
        let golden = folder.join("golden");
        let load = |name: &str| candle_core::safetensors::load(golden.join(name), &Device::Cpu);
        Ok(Self {
            folder: folder.to_owned(),
            cases: serde_json::from_slice(&std::fs::read(golden.join("cases.json"))?)?,
            vectors: load("embeddings.safetensors")?,
            scores: load("scores.safetensors")?,
        })
    }

    fn model(&self, options: &LoadOptions) -> Result<ColbertModel> {
        let source = ModelSource::Dir(self.folder.clone());
        let checkpoint = Checkpoint::open(&source, &OpenOptions::default())?;
        Ok(ColbertModel::from_checkpoint(&checkpoint, options)?)
    }

    /// Weights as stored, with nothing rounded on the way, as the references compute.
    fn exact(&self) -> Result<ColbertModel> {
        self.model(
            &LoadOptions::default()
                .with_accuracy(Accuracy::Exact)
                .strict(),
        )
    }
}

/// The model as `run` sets it.
fn set(model: &ColbertModel, run: &Run) -> Result<ColbertModel> {
    let states = if run.mask_conv {
        FillerStates::Zero
    } else {
        FillerStates::Flow
    };
    let settings = model.settings().clone().with_json(&run.overrides)?;
    Ok(model
        .clone()
        .with_settings(settings.with_filler_states(states))?)
}

fn find(folder: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.join("modules.json").is_file() && path.join("golden/cases.json").is_file() {
            found.push(path);
        } else if path.is_dir() {
            find(&path, found)?;
        }
    }
    Ok(())
}

/// Runs `check` on every run of every case and reports all that fail.
fn for_every_run(check: impl Fn(&Case, &ColbertModel, &Run) -> Result<()>) -> Result<()> {
    let mut folders = Vec::new();
    find(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden"),
        &mut folders,
    )?;
    if let Some(more) = lfm2_golden::folder() {
        let committed = folders.len();
        find(&more.join("colbert"), &mut folders)?;
        ensure!(
            folders.len() > committed,
            "no checkpoints in {}",
            more.display()
        );
    }
    ensure!(!folders.is_empty(), "no checkpoints");
    let mut failures = Vec::new();
    for folder in folders {
        let case = Case::open(&folder).with_context(|| folder.display().to_string())?;
        let model = case.exact().with_context(|| folder.display().to_string())?;
        for run in &case.cases.runs {
            let result = set(&model, run).and_then(|model| check(&case, &model, run));
            if let Err(error) = result {
                failures.push(format!("{} {}: {error:#}", folder.display(), run.run));
            }
        }
    }
    ensure!(
        failures.is_empty(),
        "{} runs differ:\n{}",
        failures.len(),
        failures.join("\n")
    );
    Ok(())
}

fn ensure_close(what: &str, found: &[f32], expected: &Tensor, tolerance: f32) -> Result<()> {
    let expected: Vec<f32> = expected.flatten_all()?.to_vec1()?;
    ensure!(
        found.len() == expected.len(),
        "{what}: {} numbers, expected {}",
        found.len(),
        expected.len()
    );
    let far = |(a, b): (&f32, &f32)| (a - b).abs();
    let difference = found.iter().zip(&expected).map(far).fold(0.0, f32::max);
    ensure!(
        difference <= tolerance && found.iter().all(|value| value.is_finite()),
        "{what}: differs by {difference}, allowed is {tolerance}"
    );
    Ok(())
}

#[test]
fn ids_masks_and_kept_rows_are_the_references() -> Result<()> {
    for_every_run(|_, model, run| {
        let reader = model.reader();
        let sight = model.network().trunk().config().bidirectional;
        ensure!(
            sight == (run.trunk == "bidirectional"),
            "trunk {}",
            run.trunk
        );
        ensure!(reader.query_prefix() == run.query_prefix_id, "query prefix");
        ensure!(
            reader.document_prefix() == run.document_prefix_id,
            "document prefix"
        );
        ensure!(reader.filler() == Some(run.expansion_token_id), "filler");
        ensure!(reader.skiplist().iter().eq(&run.skiplist_ids), "skiplist");
        let same = |text: &Text, input: &TokenInput| {
            let attended = text
                .attention_mask
                .iter()
                .filter(|&&seen| seen == 1)
                .count();
            ensure!(
                input.ids() == text.input_ids,
                "{:?}: {:?}",
                text.text,
                input.ids()
            );
            ensure!(
                input.kept() == text.kept,
                "{:?}: kept {:?}",
                text.text,
                input.kept()
            );
            ensure!(
                input.attended() == attended,
                "{:?}: {}",
                text.text,
                input.attended()
            );
            Ok(())
        };
        for text in &run.queries {
            same(text, &reader.query(&text.text)?)?;
        }
        for text in &run.documents {
            same(text, &reader.document(&text.text)?)?;
        }
        Ok(())
    })
}

fn texts(texts: &[Text]) -> Vec<&str> {
    texts.iter().map(|text| text.text.as_str()).collect()
}

#[test]
fn vectors_are_the_references() -> Result<()> {
    for_every_run(|case, model, run| {
        let queries = model.encode_queries(&texts(&run.queries))?;
        let documents = model.encode_documents(&texts(&run.documents))?;
        for (kind, vectors) in [("q", &queries), ("d", &documents)] {
            for (i, vectors) in vectors.iter().enumerate() {
                let name = format!("{}.{kind}{i}", run.run);
                let Some(expected) = case.vectors.get(&name) else {
                    // Light runs carry no documents.
                    ensure!(kind == "d", "no golden {name}");
                    continue;
                };
                ensure!(
                    expected.dims() == [vectors.rows(), model.dim()],
                    "{name}: shape"
                );
                ensure_close(&name, vectors.as_slice(), expected, VECTOR)?;
            }
        }
        Ok(())
    })
}

#[test]
fn hidden_states_are_the_references() -> Result<()> {
    for_every_run(|case, model, run| {
        let queries = run.queries.iter().enumerate();
        let queries = queries.map(|(i, text)| (format!("q{i}"), model.reader().query(&text.text)));
        let documents = run.documents.iter().enumerate();
        let documents =
            documents.map(|(i, text)| (format!("d{i}"), model.reader().document(&text.text)));
        for (name, input) in queries.chain(documents) {
            let name = format!("{}.{name}.trunk_hidden", run.run);
            let Some(expected) = case.vectors.get(&name) else {
                continue;
            };
            let hidden = model.trunk_hidden(&[input?])?;
            let size: f32 = expected.abs()?.flatten_all()?.max(0)?.to_scalar()?;
            let hidden: Vec<f32> = hidden.flatten_all()?.to_vec1()?;
            ensure_close(&name, &hidden, expected, HIDDEN * size.max(1.0))?;
        }
        Ok(())
    })
}

/// Whether two sets of rows are the same, in any order.
fn ensure_same_rows(what: &str, found: &TokenVectors, expected: &Tensor) -> Result<()> {
    let mut expected: Vec<Vec<f32>> = expected.to_vec2()?;
    ensure!(
        found.rows() == expected.len(),
        "{what}: {} rows, expected {}",
        found.rows(),
        expected.len()
    );
    for row in found.iter() {
        let far = |other: &Vec<f32>| {
            let pairs = other.iter().zip(row);
            pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
        };
        let same = expected.iter().position(|other| far(other) <= VECTOR);
        expected.remove(same.with_context(|| format!("{what}: a row that is not expected"))?);
    }
    Ok(())
}

#[test]
fn pooled_documents_are_the_references() -> Result<()> {
    for_every_run(|case, model, run| {
        let documents = model.encode_documents(&texts(&run.documents))?;
        for (name, expected) in &case.vectors {
            let pooled = name.strip_prefix(&format!("{}.d", run.run));
            let Some((document, factor)) = pooled.and_then(|rest| rest.split_once(".pool")) else {
                continue;
            };
            let document: usize = document.parse()?;
            let pooled = pool(&documents[document], factor.parse()?, 1)?;
            ensure_same_rows(name, &pooled, expected)?;
        }
        Ok(())
    })
}

#[test]
fn scores_and_ranks_are_the_references() -> Result<()> {
    for_every_run(|case, model, run| {
        let queries = model.encode_queries(&texts(&run.queries))?;
        let documents = model.encode_documents(&texts(&run.documents))?;
        let name = format!("{}.scores", run.run);
        let expected = case
            .scores
            .get(&name)
            .with_context(|| format!("no golden {name}"))?;
        let mut scores = Vec::with_capacity(queries.len());
        for query in &queries {
            let each = documents.iter().map(|d| max_sim(query.view()?, d.view()?));
            scores.push(each.collect::<lfm2_colbert::Result<Vec<f32>>>()?);
        }
        ensure_close(&name, &scores.concat(), expected, SCORE)?;
        ensure!(
            run.rerank.len() == scores.len(),
            "rankings of {} queries",
            run.rerank.len()
        );
        // The reference pads shorter documents with zeros, which takes the place of negative maxima.
        let longest = documents.iter().map(TokenVectors::rows).max().unwrap_or(0);
        let pad = |document: &TokenVectors| match document.rows() < longest {
            true => with_zero_row(document),
            false => Ok(document.clone()),
        };
        let padded = documents.iter().map(pad).collect::<Result<Vec<_>>>()?;
        for (query, golden) in queries.iter().zip(&run.rerank) {
            let views = padded.iter().map(|document| document.view().unwrap());
            let ranked = rerank(query.view()?, views)?;
            ensure!(ranked.len() == golden.ids.len(), "{} ranks", ranked.len());
            for (place, (found, &expected)) in ranked.iter().zip(&golden.ids).enumerate() {
                let (own, score) = (found.score, golden.scores[place]);
                ensure!(
                    (own - score).abs() <= SCORE,
                    "place {place}: {own}, expected {score}"
                );
                let other = ranked.iter().find(|ranked| ranked.index == expected);
                let apart = other.map_or(f32::INFINITY, |other| (own - other.score).abs());
                ensure!(
                    found.index == expected || apart <= NEAR,
                    "place {place}: document {}, expected {expected}",
                    found.index
                );
            }
        }
        Ok(())
    })
}
