//! The optimiser and its schedules.

use anyhow::{Context, Result, ensure};
use candle_core::DType;
use lfm2_text::{TensorRole, TensorSpec};
use lfm2_train::{AdamW, AdamWOptions, Gradients, Parameters, Schedule, clip_factor};
use serde_json::{Value, json};

use super::{Golden, close, for_every, number, numbers, prefix};

/// The parameters of a case, `p0`, `p1` ...: those that decay as the first one does are projections,
/// the others norms.
fn parameters(golden: &Golden, case: &Value) -> Result<(Parameters, AdamWOptions, usize)> {
    let prefix = prefix(case)?;
    let decay = |i: usize| case[format!("weight_decay_p{i}")].as_f64();
    let count = (0..).take_while(|&i| decay(i).is_some()).count();
    let first = decay(0).context("a first parameter")?;
    let mut other = first;
    let mut values = Vec::new();
    for i in 0..count {
        let tensor = golden.tensor(&format!("{prefix}p{i}.0"))?;
        let role = if decay(i) == Some(first) {
            TensorRole::Projection
        } else {
            other = decay(i).context("a decay")?;
            TensorRole::Norm
        };
        let spec = TensorSpec {
            name: format!("p{i}"),
            shape: tensor.dims().to_vec(),
            role,
        };
        values.push((spec, tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?));
    }
    let betas = numbers(&case["betas"]);
    let options = serde_json::from_value(json!({
        "beta1": betas[0], "beta2": betas[1], "eps": case["eps"],
        "weight_decay": first, "other_weight_decay": other,
    }))?;
    Ok((Parameters::from_values(values)?, options, count))
}

#[test]
fn adamw_step_by_step() -> Result<()> {
    for_every("optim", |golden| {
        for case in golden.cases()? {
            let prefix = prefix(case)?;
            let (parameters, options, count) = parameters(golden, case)?;
            let mut adam = AdamW::new(options, &parameters);
            let norms = numbers(&case["grad_norms"]);
            for (i, rate) in numbers(&case["lrs"]).into_iter().enumerate() {
                let step = i + 1;
                let gradient = |p: usize| -> Result<Vec<f32>> {
                    let values = golden.values(&format!("{prefix}g{p}.{step}"))?;
                    Ok(values.into_iter().map(|g| g as f32).collect())
                };
                let gradients = Gradients {
                    tensors: (0..count).map(gradient).collect::<Result<_>>()?,
                };
                close(&[gradients.norm()], &norms[i..=i], 1e-6, "gradient norm")?;
                let scale = clip_factor(gradients.norm(), case["clip"].as_f64());
                adam.update(&parameters, &gradients, rate, scale)?;
                for (p, found) in parameters.values()?.into_iter().enumerate() {
                    let found: Vec<f64> = found.into_iter().map(f64::from).collect();
                    let key = format!("{prefix}p{p}.{step}");
                    close(&found, &golden.values(&key)?, 1e-6, &key)?;
                }
            }
        }
        Ok(())
    })
}

#[test]
fn schedules() -> Result<()> {
    for_every("optim", |golden| {
        for kind in ["cosine", "warmup_stable_decay"] {
            let mut settings = golden.json[kind].clone();
            let (steps, rates) = (numbers(&settings["steps"]), numbers(&settings["lr"]));
            let object = settings.as_object_mut().context("an object")?;
            object.retain(|key, _| !["steps", "lr"].contains(&key.as_str()));
            object.insert("kind".into(), kind.into());
            let peak = number(&settings, "peak")?;
            let schedule: Schedule = serde_json::from_value(settings)?;
            for (step, expected) in steps.into_iter().zip(rates) {
                let found = schedule.rate(step as u64);
                ensure!(
                    (found - expected).abs() <= 1e-12 * peak,
                    "{kind} at step {step}: {found}, expected {expected}"
                );
            }
        }
        Ok(())
    })
}
