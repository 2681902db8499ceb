//! Merging: every method on values in memory in `f64`, and through files in `f32`.

use std::cell::RefCell;
use std::collections::BTreeSet;

use anyhow::{Context, Result, bail};
use candle_core::{DType, Device};
use lfm2_hub::{Limits, Mapping, SafetensorsSource, TensorSource};
use lfm2_text::{TensorRole, TensorSpec};
use lfm2_train::Parameters;
use lfm2_train::merge::{
    Combine, Draw, MergeInputs, Method, Rescale, Sparsify, TrimScope, merge_tensor, merge_tensors,
};
use serde_json::Value;

use super::{Golden, close, flat, for_every, numbers, prefix};

fn method(case: &Value) -> Result<Method> {
    let setting = |key: &str, default: f64| case[key].as_f64().unwrap_or(default);
    let density = setting("density", 1.0);
    let lambda = setting("lam", 1.0);
    let name = case["method"].as_str().context("a method")?;
    Ok(match name.replace(' ', "_").as_str() {
        "soup" => Method::Soup,
        "task_arithmetic" => Method::task_arithmetic(lambda),
        "ties" => Method::Changes {
            sparsify: Sparsify::Trim {
                density,
                scope: match case["trimming"].as_str() {
                    Some(text) if text.contains("all tensors") => TrimScope::Model,
                    _ => TrimScope::Tensor,
                },
            },
            combine: match case["normalise"].as_bool() {
                Some(false) => Combine::AgreeingSum,
                _ => Combine::AgreeingMean,
            },
            lambda,
        },
        "dare_linear" => Method::dare_linear(density, Rescale::Inverse, lambda),
        "dare_ties" => Method::dare_ties(density, Rescale::Inverse, lambda),
        "della" => Method::della(density, setting("epsilon", 0.15), Rescale::Inverse, lambda),
        "slerp" => Method::Slerp {
            t: case["t"].as_f64().context("t")?,
        },
        other => bail!("method {other} is not known"),
    })
}

/// The models of a case and their weights.
fn operands(golden: &Golden, case: &Value) -> Vec<(usize, f64)> {
    let weights = numbers(&case["weights"]);
    let chosen = numbers(&case["models"]);
    if !chosen.is_empty() {
        return chosen.into_iter().map(|m| (m as usize, 1.0)).collect();
    }
    let models = (0..).take_while(|m| {
        let start = format!("model{m}.");
        golden.tensors.keys().any(|key| key.starts_with(&start))
    });
    models.zip(weights).collect()
}

fn tensor_names(golden: &Golden) -> BTreeSet<String> {
    let keys = golden.tensors.keys();
    keys.filter_map(|key| key.strip_prefix("base.").map(String::from))
        .collect()
}

fn is_random(method: &Method) -> bool {
    matches!(
        method,
        Method::Changes {
            sparsify: Sparsify::Random { .. } | Sparsify::Ranked { .. },
            ..
        }
    )
}

fn trims_the_model(method: &Method) -> bool {
    matches!(
        method,
        Method::Changes {
            sparsify: Sparsify::Trim {
                scope: TrimScope::Model,
                ..
            },
            ..
        }
    )
}

#[test]
fn every_method_in_memory() -> Result<()> {
    for_every("merge", |golden| {
        for case in golden.cases()? {
            let (prefix, method) = (prefix(case)?, method(case)?);
            if trims_the_model(&method) {
                continue;
            }
            let operands = operands(golden, case);
            let weights: Vec<f64> = operands.iter().map(|(_, w)| *w).collect();
            for name in tensor_names(golden) {
                let base = golden.values(&format!("base.{name}"))?;
                let models = operands
                    .iter()
                    .map(|(m, _)| golden.values(&format!("model{m}.{name}")));
                let models = models.collect::<Result<Vec<_>>>()?;
                let models: Vec<&[f64]> = models.iter().map(Vec::as_slice).collect();
                let asked = RefCell::new(vec![Vec::new(); operands.len()]);
                let masks = operands
                    .iter()
                    .map(|(m, _)| golden.values(&format!("{prefix}mask{m}.{name}")).ok());
                let masks: Vec<Option<Vec<f64>>> = masks.collect();
                let draw = |model: usize| -> Draw<'_> {
                    let mut mask = masks[model].iter().flatten();
                    let asked = &asked;
                    Box::new(move |probability| {
                        asked.borrow_mut()[model].push(probability);
                        mask.next().is_some_and(|kept| *kept == 1.0)
                    })
                };
                let shape = golden.tensor(&format!("base.{name}"))?.dims().to_vec();
                let found = merge_tensor(&method, &shape, &weights, Some(&base), &models, &draw)?;
                let key = format!("{prefix}{name}");
                close(&found, &golden.values(&key)?, 1e-12, &key)?;
                for (m, asked) in asked.borrow().iter().enumerate() {
                    let key = format!("{prefix}keep_probability{m}.{name}");
                    if let Ok(expected) = golden.values(&key) {
                        close(asked, &expected, 1e-12, &key)?;
                    }
                }
            }
        }
        Ok(())
    })
}

/// The tensors under a prefix as a model in `f32`.
fn source(golden: &Golden, prefix: &str) -> Result<Parameters> {
    let values = tensor_names(golden).into_iter().map(|name| {
        let tensor = golden.tensor(&format!("{prefix}{name}"))?;
        let spec = TensorSpec {
            shape: tensor.dims().to_vec(),
            role: TensorRole::Projection,
            name,
        };
        Ok((spec, tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?))
    });
    Ok(Parameters::from_values(values.collect::<Result<_>>()?)?)
}

#[test]
fn every_method_without_chance_through_files() -> Result<()> {
    for_every("merge", |golden| {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("merged.safetensors");
        let base = source(golden, "base.")?;
        for case in golden.cases()? {
            let (prefix, method) = (prefix(case)?, method(case)?);
            if is_random(&method) {
                continue;
            }
            let operands = operands(golden, case);
            let models = operands
                .iter()
                .map(|(m, weight)| Ok((source(golden, &format!("model{m}."))?, *weight)));
            let models = models.collect::<Result<Vec<_>>>()?;
            let inputs = MergeInputs {
                base: Some(&base),
                models: models
                    .iter()
                    .map(|(model, weight)| (model as &dyn TensorSource, *weight))
                    .collect(),
                seed: 0,
                dtype: None,
            };
            merge_tensors(&method, &inputs, &path, &mut |_| ())?;
            let merged = SafetensorsSource::open(&path, Mapping::Read, &Limits::default())?;
            for name in tensor_names(golden) {
                let found = flat(&merged.dense(&name, DType::F64, &Device::Cpu)?)?;
                let key = format!("{prefix}{name}");
                close(&found, &golden.values(&key)?, 1e-6, &key)?;
            }
        }
        Ok(())
    })
}
