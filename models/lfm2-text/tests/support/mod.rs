//! Golden cases: tiny checkpoints in the published formats with the reference's outputs beside them.
//!
//! A case is any folder with `config.json` and `golden.safetensors`. The committed ones are in
//! `tests/golden`; `LFM2_GOLDEN=DIR` adds every case of `DIR/text`.
#![allow(dead_code, reason = "every test file uses its part")]
#![allow(
    clippy::print_stdout,
    reason = "figures for those who want to see them"
)]

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use candle_core::quantized::QTensor;
use lfm2_hub::{Checkpoint, ModelSource, OpenOptions, TensorInfo, TensorSource};
use lfm2_nn::{Accuracy, Cache, CacheSpec, DType, Decoder, Device, Input, Step, Tensor, Want};
use lfm2_text::{LoadOptions, TextConfig, TextModel};
use serde_json::Value;

pub(crate) const CPU: Device = Device::Cpu;

/// One golden case.
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) folder: PathBuf,
    tensors: HashMap<String, Tensor>,
    pub(crate) facts: Value,
}

impl Case {
    fn open(folder: &Path) -> Result<Self> {
        let tensors = candle_core::safetensors::load(folder.join("golden.safetensors"), &CPU)?;
        let facts = serde_json::from_slice(&std::fs::read(folder.join("golden.json"))?)?;
        let name = folder
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        Ok(Self {
            name,
            folder: folder.to_owned(),
            tensors,
            facts,
        })
    }

    pub(crate) fn get(&self, name: &str) -> Result<&Tensor> {
        self.tensors
            .get(name)
            .with_context(|| format!("{}: no golden tensor {name}", self.name))
    }

    pub(crate) fn find(&self, name: &str) -> Option<&Tensor> {
        self.tensors.get(name)
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    pub(crate) fn number(&self, path: &str) -> Result<f64> {
        let value = self.facts.pointer(path).and_then(Value::as_f64);
        value.with_context(|| format!("{}: no number {path} in golden.json", self.name))
    }

    pub(crate) fn sizes(&self, path: &str) -> Result<Vec<usize>> {
        let list = self.facts.pointer(path).and_then(Value::as_array);
        let list = list.with_context(|| format!("{}: no list {path} in golden.json", self.name))?;
        list.iter()
            .map(|v| Ok(v.as_u64().context("not a whole number")? as usize))
            .collect()
    }

    pub(crate) fn ids(&self, path: &str) -> Result<Vec<u32>> {
        Ok(self.sizes(path)?.into_iter().map(|n| n as u32).collect())
    }

    pub(crate) fn source(&self) -> ModelSource {
        ModelSource::Dir(self.folder.clone())
    }

    pub(crate) fn model(&self) -> Result<TextModel> {
        // The references compute with the weights as numbers of full width.
        let options = LoadOptions::default().with_accuracy(Accuracy::Exact);
        self.model_with(&options.strict())
    }

    pub(crate) fn model_with(&self, options: &LoadOptions) -> Result<TextModel> {
        open_model(&self.source(), options).with_context(|| self.name.clone())
    }

    pub(crate) fn config(&self) -> Result<TextConfig> {
        let config = serde_json::from_slice(&std::fs::read(self.folder.join("config.json"))?)?;
        Ok(TextConfig::from_json(&config)?)
    }

    pub(crate) fn checkpoint_tensors(&self) -> Result<Arc<dyn TensorSource>> {
        Ok(Checkpoint::open(&self.source(), &OpenOptions::default())?.tensors())
    }
}

pub(crate) fn open_model(source: &ModelSource, options: &LoadOptions) -> Result<TextModel> {
    let checkpoint = Checkpoint::open(source, &OpenOptions::default())?;
    Ok(TextModel::from_checkpoint(&checkpoint, options)?)
}

/// Every case there is, sorted by name.
pub(crate) fn cases() -> Result<Vec<Case>> {
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")];
    if let Some(more) = lfm2_golden::folder() {
        folders.push(more.join("text"));
    }
    let mut cases = Vec::new();
    for folder in folders {
        let entries = std::fs::read_dir(&folder).with_context(|| folder.display().to_string())?;
        for entry in entries {
            let path = entry?.path();
            if path.join("config.json").is_file() && path.join("golden.safetensors").is_file() {
                cases.push(Case::open(&path).with_context(|| path.display().to_string())?);
            }
        }
    }
    ensure!(!cases.is_empty(), "no golden cases found");
    cases.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(cases)
}

/// Runs `check` on every case and reports all that fail.
pub(crate) fn for_every_case(check: impl Fn(&Case) -> Result<()>) -> Result<()> {
    let mut failures = Vec::new();
    for case in cases()? {
        if let Err(error) = check(&case) {
            failures.push(format!("{}: {error:#}", case.name));
        }
    }
    ensure!(
        failures.is_empty(),
        "{} cases differ:\n{}",
        failures.len(),
        failures.join("\n")
    );
    Ok(())
}

/// Largest absolute difference; an error when shapes differ or anything is not a number.
pub(crate) fn max_diff(a: &Tensor, b: &Tensor) -> Result<f32> {
    ensure!(
        a.dims() == b.dims(),
        "shapes differ: {:?} and {:?}",
        a.dims(),
        b.dims()
    );
    let difference = (a.to_dtype(DType::F32)? - b.to_dtype(DType::F32)?)?
        .abs()?
        .flatten_all()?;
    let values: Vec<f32> = difference.to_vec1()?;
    ensure!(
        values.iter().all(|v| v.is_finite()),
        "not a number in the difference"
    );
    Ok(values.into_iter().fold(0.0, f32::max))
}

pub(crate) fn mean_diff(a: &Tensor, b: &Tensor) -> Result<f32> {
    ensure!(
        a.dims() == b.dims(),
        "shapes differ: {:?} and {:?}",
        a.dims(),
        b.dims()
    );
    let difference = (a.to_dtype(DType::F32)? - b.to_dtype(DType::F32)?)?.abs()?;
    Ok(difference.mean_all()?.to_scalar()?)
}

pub(crate) fn ensure_close(
    what: &str,
    found: &Tensor,
    expected: &Tensor,
    tolerance: f64,
) -> Result<()> {
    let difference = max_diff(found, expected).with_context(|| what.to_owned())?;
    ensure!(
        f64::from(difference) <= tolerance,
        "{what}: differs by {difference}, allowed is {tolerance}"
    );
    Ok(())
}

/// Rows of a golden `(batch, seq)` id tensor.
pub(crate) fn id_rows(ids: &Tensor) -> Result<Vec<Vec<u32>>> {
    let rows: Vec<Vec<i64>> = ids.to_dtype(DType::I64)?.to_vec2()?;
    Ok(rows
        .into_iter()
        .map(|r| r.into_iter().map(|i| i as u32).collect())
        .collect())
}

/// One pass over `ids` into row 0 of `cache`.
pub(crate) fn feed(
    model: &TextModel,
    ids: &[u32],
    cache: &mut Cache,
    want: Want,
) -> Result<Tensor> {
    let input = Tensor::new(ids, model.device())?;
    Ok(model.forward(Input::Ids(&input), &Step::single(ids.len()), cache, want)?)
}

/// All logits of `ids` from an empty cache.
pub(crate) fn logits(model: &TextModel, ids: &[u32]) -> Result<Tensor> {
    feed(
        model,
        ids,
        &mut model.new_cache(CacheSpec::rows(1)),
        Want::AllLogits,
    )
}

/// Hides that tensors are stored in blocks, so that a model computes with their exact values.
pub(crate) struct Dequantized(pub(crate) Arc<dyn TensorSource>);

impl TensorSource for Dequantized {
    fn names(&self) -> Vec<String> {
        self.0.names()
    }

    fn info(&self, name: &str) -> Option<TensorInfo> {
        self.0.info(name)
    }

    fn dense(&self, name: &str, dtype: DType, device: &Device) -> lfm2_hub::Result<Tensor> {
        self.0.dense(name, dtype, device)
    }

    fn quantized(&self, _: &str, _: &Device) -> lfm2_hub::Result<Option<Arc<QTensor>>> {
        Ok(None)
    }
}

/// The cosine between the logits of each token, from the lowest to the highest.
pub(crate) fn cosines(a: &Tensor, b: &Tensor) -> Result<Vec<f32>> {
    let dot = (a * b)?.sum(1)?;
    let norms = (a.sqr()?.sum(1)?.sqrt()? * b.sqr()?.sum(1)?.sqrt()?)?;
    let mut cosines: Vec<f32> = (dot / norms)?.to_vec1()?;
    cosines.sort_by(f32::total_cmp);
    Ok(cosines)
}

/// What rounding activations may cost with weights of type `kind`, as the mean cosine to logits of the
/// same weights as numbers.
///
/// A random router has near ties that any rounding decides anew, and a token sent to another expert
/// moves its whole row, so models with one are judged by the median.
pub(crate) fn ensure_accurate(
    kind: &str,
    config: &TextConfig,
    found: &Tensor,
    exact: &Tensor,
) -> Result<()> {
    let four_bits = kind.to_ascii_lowercase().starts_with("q4");
    let allowed = if four_bits { 0.999 } else { 0.9995 };
    let cosines = cosines(found, exact)?;
    let mean = cosines.iter().sum::<f32>() / cosines.len() as f32;
    let cosine = match config.moe {
        // Where a router chose another expert, that token and those behind it say nothing about rounding. Which
        // ones are hit depends on the instruction set: with one of them it was more than half of a case.
        Some(_) => cosines[cosines.len() * 3 / 4],
        None => mean,
    };
    println!(
        "{kind}: cosine {cosine:.6}, mean {mean:.6}, lowest {:.6}",
        cosines[0]
    );
    ensure!(
        cosine >= allowed,
        "{kind}: cosine {cosine}, allowed is {allowed}"
    );
    Ok(())
}
