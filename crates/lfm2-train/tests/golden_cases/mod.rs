//! What the golden tests share: finding cases, reading them, comparing numbers.

mod balance;
mod curriculum;
mod losses;
mod merge;
mod optim;
mod preference;
mod retrieval;

use std::collections::HashMap;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use candle_core::{DType, Device, Tensor};
use serde_json::Value;

/// Families of files, each with a test of its own; a file belongs to the one its name begins with.
const FAMILIES: [&str; 8] = [
    "curriculum",
    "distill",
    "lm_loss",
    "merge",
    "moe_balance",
    "optim",
    "preference",
    "retrieval",
];

/// One file of values.
struct Golden {
    json: Value,
    tensors: HashMap<String, Tensor>,
}

fn folder() -> PathBuf {
    match lfm2_golden::folder() {
        Some(folder) => folder.join("training"),
        None => PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden"),
    }
}

/// The names of all files of values.
fn names() -> Result<Vec<String>> {
    let folder = folder();
    let mut names = Vec::new();
    let entries = std::fs::read_dir(&folder).with_context(|| folder.display().to_string())?;
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "json")
            && let Some(stem) = path.file_stem().and_then(|s| s.to_str())
        {
            names.push(stem.to_string());
        }
    }
    names.sort();
    Ok(names)
}

/// Calls `check` with every file of a family; there has to be one.
fn for_every(family: &str, mut check: impl FnMut(&Golden) -> Result<()>) -> Result<()> {
    let mut count = 0;
    for name in names()?.into_iter().filter(|name| name.starts_with(family)) {
        let golden = Golden::read(&name)?;
        check(&golden).with_context(|| name)?;
        count += 1;
    }
    ensure!(count > 0, "no file of {family} in {}", folder().display());
    Ok(())
}

#[test]
fn every_file_belongs_to_a_test() -> Result<()> {
    for name in names()? {
        let known = FAMILIES.iter().any(|family| name.starts_with(family));
        ensure!(known, "no test reads {name}.json");
    }
    Ok(())
}

impl Golden {
    fn read(name: &str) -> Result<Self> {
        let folder = folder();
        let text = std::fs::read_to_string(folder.join(format!("{name}.json")))?;
        let tensors = folder.join(format!("{name}.safetensors"));
        Ok(Self {
            json: serde_json::from_str(&text)?,
            tensors: candle_core::safetensors::load(tensors, &Device::Cpu)?,
        })
    }

    fn cases(&self) -> Result<&Vec<Value>> {
        self.json["cases"].as_array().context("a list of cases")
    }

    fn tensor(&self, name: &str) -> Result<&Tensor> {
        self.tensors.get(name).with_context(|| name.to_string())
    }

    fn values(&self, name: &str) -> Result<Vec<f64>> {
        let flat = self.tensor(name)?.flatten_all()?;
        Ok(flat.to_dtype(DType::F64)?.to_vec1()?)
    }

    fn integers(&self, name: &str) -> Result<Vec<i64>> {
        let flat = self.tensor(name)?.flatten_all()?;
        Ok(flat.to_dtype(DType::I64)?.to_vec1()?)
    }
}

fn prefix(case: &Value) -> Result<&str> {
    case["prefix"].as_str().context("a prefix")
}

fn number(value: &Value, key: &str) -> Result<f64> {
    value[key]
        .as_f64()
        .with_context(|| format!("a number {key}"))
}

fn numbers(value: &Value) -> Vec<f64> {
    let items = value.as_array().into_iter().flatten();
    items.filter_map(Value::as_f64).collect()
}

/// Both float types with the tolerances of a loss (relative) and of a gradient (absolute).
const PRECISIONS: [(DType, f64, f64); 2] = [(DType::F64, 1e-12, 1e-12), (DType::F32, 1e-5, 1e-6)];

fn scalar(x: &Tensor) -> Result<f64> {
    Ok(x.to_dtype(DType::F64)?.to_scalar()?)
}

fn flat(x: &Tensor) -> Result<Vec<f64>> {
    Ok(x.flatten_all()?.to_dtype(DType::F64)?.to_vec1()?)
}

/// Compares with a tolerance relative to numbers above 1.
fn close(found: &[f64], expected: &[f64], tolerance: f64, what: &str) -> Result<()> {
    ensure!(
        found.len() == expected.len(),
        "{what}: {} numbers, expected {}",
        found.len(),
        expected.len()
    );
    for (i, (a, b)) in found.iter().zip(expected).enumerate() {
        ensure!(
            (a - b).abs() <= tolerance * b.abs().max(1.0),
            "{what}, element {i}: {a}, expected {b}"
        );
    }
    Ok(())
}
