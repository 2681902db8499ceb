//! Golden cases: a JSON file with settings and a safetensors file of the same stem beside it.
//!
//! The committed cases lie in `tests/golden`; `LFM2_GOLDEN=DIR` adds every case of `DIR/ldsp`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

/// One case.
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) settings: Value,
    bytes: Vec<u8>,
}

impl Case {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        Ok(Self {
            name: path.display().to_string(),
            settings: serde_json::from_slice(&std::fs::read(path)?)?,
            bytes: std::fs::read(path.with_extension("safetensors"))?,
        })
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        SafeTensors::deserialize(&self.bytes).is_ok_and(|tensors| tensors.tensor(name).is_ok())
    }

    /// Bytes and shape of a tensor of type `dtype`.
    fn tensor(&self, name: &str, dtype: Dtype) -> Result<(Vec<u8>, Vec<usize>)> {
        let tensors = SafeTensors::deserialize(&self.bytes)?;
        let tensor = tensors.tensor(name).with_context(|| name.to_owned())?;
        ensure!(tensor.dtype() == dtype, "{name}: {:?}", tensor.dtype());
        Ok((tensor.data().to_vec(), tensor.shape().to_vec()))
    }

    pub(crate) fn f64s(&self, name: &str) -> Result<Vec<f64>> {
        let bytes = self.tensor(name, Dtype::F64)?.0;
        Ok(bytes
            .as_chunks::<8>()
            .0
            .iter()
            .map(|bytes| f64::from_le_bytes(*bytes))
            .collect())
    }

    /// Values and number of columns of a matrix.
    pub(crate) fn matrix(&self, name: &str) -> Result<(Vec<f32>, usize)> {
        let (bytes, shape) = self.tensor(name, Dtype::F32)?;
        ensure!(shape.len() == 2, "{name}: {shape:?}");
        let values = bytes
            .as_chunks::<4>()
            .0
            .iter()
            .map(|bytes| f32::from_le_bytes(*bytes));
        Ok((values.collect(), shape[1]))
    }

    pub(crate) fn indices(&self, name: &str) -> Result<Vec<usize>> {
        let bytes = self.tensor(name, Dtype::I64)?.0;
        let values = bytes.as_chunks::<8>().0.iter();
        values
            .map(|bytes| Ok(usize::try_from(i64::from_le_bytes(*bytes))?))
            .collect()
    }

    pub(crate) fn number(&self, key: &str) -> Result<f64> {
        self.settings[key].as_f64().with_context(|| key.to_owned())
    }

    pub(crate) fn count(&self, key: &str) -> Result<usize> {
        let count = self.settings[key]
            .as_u64()
            .with_context(|| key.to_owned())?;
        Ok(usize::try_from(count)?)
    }

    /// The rows of a list of small cases; none where the file is no such list.
    pub(crate) fn rows(&self) -> &[Value] {
        self.settings["cases"].as_array().map_or(&[], Vec::as_slice)
    }
}

/// Folders with cases.
fn folders() -> Vec<PathBuf> {
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")];
    if let Some(more) = lfm2_golden::folder() {
        folders.push(more.join("ldsp"));
    }
    folders
}

/// Every case in `folders`, sorted by name.
pub(crate) fn cases_in(folders: &[PathBuf]) -> Result<Vec<Case>> {
    let mut cases = Vec::new();
    for folder in folders {
        let entries = std::fs::read_dir(folder).with_context(|| folder.display().to_string())?;
        for entry in entries {
            let path = entry?.path();
            let is_case = path
                .extension()
                .is_some_and(|extension| extension == "json");
            if is_case && path.with_extension("safetensors").is_file() {
                cases.push(Case::open(&path).with_context(|| path.display().to_string())?);
            }
        }
    }
    cases.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(cases)
}

/// Runs `check` on every case that `concerns` it and reports all that fail; at least one must be there.
pub(crate) fn for_every_case(
    concerns: impl Fn(&Case) -> bool,
    check: impl Fn(&Case) -> Result<()>,
) -> Result<()> {
    ensure!(for_any_case(concerns, check)? > 0, "no golden cases found");
    Ok(())
}

/// [`for_every_case`] for cases of which none is committed: how many there were.
pub(crate) fn for_any_case(
    concerns: impl Fn(&Case) -> bool,
    check: impl Fn(&Case) -> Result<()>,
) -> Result<usize> {
    let mut failures = Vec::new();
    let mut checked = 0;
    for case in cases_in(&folders())?.iter().filter(|case| concerns(case)) {
        checked += 1;
        if let Err(error) = check(case) {
            failures.push(format!("{}: {error:#}", case.name));
        }
    }
    ensure!(
        failures.is_empty(),
        "{} cases differ:\n{}",
        failures.len(),
        failures.join("\n")
    );
    Ok(checked)
}

/// Fails where `found` and `expected` differ by more than `absolute` plus `relative` of the latter.
pub(crate) fn ensure_close(
    what: &str,
    found: &[f64],
    expected: &[f64],
    absolute: f64,
    relative: f64,
) -> Result<()> {
    ensure!(
        found.len() == expected.len(),
        "{what}: {} values, expected {}",
        found.len(),
        expected.len()
    );
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        let allowed = absolute + relative * expected.abs();
        ensure!(
            (found - expected).abs() <= allowed,
            "{what}[{i}]: {found}, expected {expected}"
        );
    }
    Ok(())
}
