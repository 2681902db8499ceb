//! Golden data: what the reference made of pictures and prompts.
//!
//! A set is a folder as its README describes: pictures, JSON files with the facts of each case, and
//! safetensors files with its values. The committed one is in `tests/golden`; `LFM2_GOLDEN=DIR` adds
//! `DIR/vl`.
#![allow(dead_code, reason = "every test file uses its part")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use candle_core::quantized::QTensor;
use candle_core::{DType, Device, Tensor};
use lfm2_hub::{Error, Limits, TensorInfo, TensorSource, Tokenizer};
use lfm2_vl::{DecodeOptions, Picture};
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

/// A folder of golden data.
pub(crate) struct Set {
    pub(crate) folder: PathBuf,
}

/// The sets there are: the committed one, and the one that the environment names.
pub(crate) fn sets() -> Vec<Set> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let more = lfm2_golden::folder().map(|folder| folder.join("vl"));
    let folders = std::iter::once(own).chain(more);
    folders.map(|folder| Set { folder }).collect()
}

/// Runs `check` on every set and reports all failures.
pub(crate) fn for_every_set(check: impl Fn(&Set, &mut Failures) -> Result<()>) -> Result<()> {
    let mut failures = Failures::default();
    for set in sets() {
        check(&set, &mut failures).with_context(|| set.folder.display().to_string())?;
    }
    failures.report()
}

/// What differs, and how much was compared.
#[derive(Default)]
pub(crate) struct Failures {
    compared: usize,
    texts: Vec<String>,
}

impl Failures {
    /// Notes the outcome of the case `name`.
    pub(crate) fn note(&mut self, name: &str, outcome: Result<()>) {
        self.compared += 1;
        if let Err(error) = outcome {
            self.texts.push(format!("{name}: {error:#}"));
        }
    }

    fn report(self) -> Result<()> {
        ensure!(self.compared > 0, "no golden cases found");
        ensure!(
            self.texts.is_empty(),
            "{} of {} cases differ:\n{}",
            self.texts.len(),
            self.compared,
            self.texts.join("\n")
        );
        Ok(())
    }
}

impl Set {
    pub(crate) fn json(&self, name: &str) -> Result<Value> {
        let bytes = std::fs::read(self.folder.join(name)).with_context(|| name.to_owned())?;
        Ok(serde_json::from_slice(&bytes)?)
    }

    pub(crate) fn values(&self, name: &str) -> Result<Values> {
        let bytes = std::fs::read(self.folder.join(name)).with_context(|| name.to_owned())?;
        SafeTensors::deserialize(&bytes)?;
        Ok(Values { bytes })
    }

    pub(crate) fn picture(&self, name: &str) -> Result<Picture> {
        let path = self.folder.join("images").join(name);
        Picture::open(&path, &DecodeOptions::default()).with_context(|| name.to_owned())
    }

    pub(crate) fn pictures(&self, names: &Value) -> Result<Vec<Picture>> {
        list(names)?
            .iter()
            .map(|name| self.picture(text(name)?))
            .collect()
    }

    pub(crate) fn tokenizer(&self) -> Result<Tokenizer> {
        let path = self.folder.join("tokenizer/tokenizer.json");
        Ok(Tokenizer::from_file(&path, &Limits::default())?)
    }

    /// The names between `model_` and `.json` of the set's models.
    pub(crate) fn models(&self) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.folder)? {
            let file = entry?.file_name().to_string_lossy().into_owned();
            let name = file
                .strip_prefix("model_")
                .and_then(|f| f.strip_suffix(".json"));
            names.extend(name.map(str::to_owned));
        }
        names.sort();
        Ok(names)
    }
}

/// The tensors of a safetensors file.
pub(crate) struct Values {
    bytes: Vec<u8>,
}

impl Values {
    fn raw(&self, name: &str, dtype: Dtype) -> Result<(Vec<usize>, Vec<u8>)> {
        let all = SafeTensors::deserialize(&self.bytes)?;
        let view = all.tensor(name).with_context(|| name.to_owned())?;
        ensure!(view.dtype() == dtype, "{name} is {:?}", view.dtype());
        Ok((view.shape().to_vec(), view.data().to_vec()))
    }

    pub(crate) fn has(&self, name: &str) -> Result<bool> {
        let all = SafeTensors::deserialize(&self.bytes)?;
        Ok(all.names().contains(&name))
    }

    pub(crate) fn shape(&self, name: &str) -> Result<Vec<usize>> {
        let all = SafeTensors::deserialize(&self.bytes)?;
        Ok(all
            .tensor(name)
            .with_context(|| name.to_owned())?
            .shape()
            .to_vec())
    }

    pub(crate) fn bytes(&self, name: &str) -> Result<Vec<u8>> {
        Ok(self.raw(name, Dtype::U8)?.1)
    }

    pub(crate) fn floats(&self, name: &str) -> Result<Vec<f32>> {
        let (_, bytes) = self.raw(name, Dtype::F32)?;
        let numbers = bytes
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        Ok(numbers.collect())
    }

    /// A matrix of whole numbers; vectors count as one row.
    pub(crate) fn rows(&self, name: &str) -> Result<Vec<Vec<u32>>> {
        let (shape, bytes) = self.raw(name, Dtype::I32)?;
        let numbers: Vec<u32> = bytes
            .chunks_exact(4)
            .map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
            .collect();
        let width = shape.last().copied().unwrap_or(1).max(1);
        Ok(numbers.chunks(width).map(<[u32]>::to_vec).collect())
    }
}

pub(crate) fn list(value: &Value) -> Result<&Vec<Value>> {
    value
        .as_array()
        .with_context(|| format!("expected a list, found {value}"))
}

pub(crate) fn text(value: &Value) -> Result<&str> {
    value
        .as_str()
        .with_context(|| format!("expected a text, found {value}"))
}

pub(crate) fn size(value: &Value) -> Result<usize> {
    let number = value
        .as_u64()
        .with_context(|| format!("expected a number, found {value}"))?;
    Ok(number as usize)
}

pub(crate) fn sizes(value: &Value) -> Result<Vec<usize>> {
    list(value)?.iter().map(size).collect()
}

/// Checks `found` against `expected`: within `absolute` plus `relative` times the expected value.
pub(crate) fn ensure_close(
    what: &str,
    found: &[f32],
    expected: &[f32],
    (absolute, relative): (f32, f32),
) -> Result<()> {
    ensure!(
        found.len() == expected.len(),
        "{what}: {} values, expected {}",
        found.len(),
        expected.len()
    );
    for (at, (f, e)) in found.iter().zip(expected).enumerate() {
        ensure!(
            (f - e).abs() <= absolute + relative * e.abs(),
            "{what}: value {at} is {f}, expected {e}"
        );
    }
    Ok(())
}

/// A checkpoint's tensors under other names.
pub(crate) struct Renamed {
    source: Arc<dyn TensorSource>,
    /// From the new name to the old one.
    names: BTreeMap<String, String>,
}

impl Renamed {
    /// Calls every tensor what `rename` says, and hides those for which it says nothing.
    pub(crate) fn new(
        source: Arc<dyn TensorSource>,
        rename: impl Fn(&str) -> Option<String>,
    ) -> Self {
        let old = source.names().into_iter();
        let names = old.filter_map(|old| Some((rename(&old)?, old))).collect();
        Self { source, names }
    }

    fn old(&self, name: &str) -> lfm2_hub::Result<&str> {
        let missing = || Error::MissingTensor {
            name: name.to_owned(),
        };
        self.names.get(name).map(String::as_str).ok_or_else(missing)
    }
}

impl TensorSource for Renamed {
    fn names(&self) -> Vec<String> {
        self.names.keys().cloned().collect()
    }

    fn info(&self, name: &str) -> Option<TensorInfo> {
        self.source.info(self.names.get(name)?)
    }

    fn dense(&self, name: &str, dtype: DType, device: &Device) -> lfm2_hub::Result<Tensor> {
        self.source.dense(self.old(name)?, dtype, device)
    }

    fn quantized(&self, name: &str, device: &Device) -> lfm2_hub::Result<Option<Arc<QTensor>>> {
        self.source.quantized(self.old(name)?, device)
    }
}
