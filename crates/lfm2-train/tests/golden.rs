//! Losses, optimiser and schedules against values of the reference implementation.

use std::collections::HashMap;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use candle_core::{DType, Device, Tensor, Var};
use lfm2_text::{TensorRole, TensorSpec};
use lfm2_train::loss::{Target, next_token, weight};
use lfm2_train::{AdamW, AdamWOptions, Gradients, Parameters, Schedule, clip_factor};
use serde_json::{Value, json};

struct Golden {
    json: Value,
    tensors: HashMap<String, Tensor>,
}

impl Golden {
    fn read(name: &str) -> Result<Self> {
        let folder = match std::env::var_os("LFM2_GOLDEN") {
            Some(folder) => PathBuf::from(folder).join("training"),
            None => PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden"),
        };
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
        Ok(self
            .tensor(name)?
            .flatten_all()?
            .to_dtype(DType::F64)?
            .to_vec1()?)
    }
}

fn numbers(value: &Value) -> Vec<f64> {
    value
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_f64)
        .collect()
}

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

/// The label at `t + 1` is the target of position `t`; -100 is not scored.
fn targets(labels: &Tensor) -> Result<Vec<Target>> {
    let shift = |row: Vec<i64>| {
        let next: Vec<i64> = row[1..].iter().copied().chain([-100]).collect();
        next.into_iter()
            .map(|label| u32::try_from(label).map_or(Target::UNSCORED, Target::new))
    };
    Ok(labels
        .to_vec2::<i64>()?
        .into_iter()
        .flat_map(shift)
        .collect())
}

#[test]
fn the_next_token_loss_and_its_gradient() -> Result<()> {
    let golden = Golden::read("lm_loss")?;
    for case in golden.cases()? {
        let prefix = case["prefix"].as_str().context("a prefix")?;
        let targets = targets(golden.tensor(&format!("{prefix}labels"))?)?;
        ensure!(weight(&targets) == case["counted_tokens"].as_f64().context("a count")?);
        for (dtype, tolerance) in [(DType::F64, 1e-12), (DType::F32, 1e-6)] {
            let logits = golden.tensor(&format!("{prefix}logits"))?.flatten(0, 1)?;
            let var = Var::from_tensor(&logits.to_dtype(dtype)?)?;
            let loss = next_token(&var, &targets, weight(&targets))?;
            let expected = case["loss"].as_f64().context("a loss")?;
            close(
                &[loss.to_dtype(DType::F64)?.to_scalar()?],
                &[expected],
                10.0 * tolerance,
                prefix,
            )?;
            let grads = loss.backward()?;
            let gradient = grads
                .get(&var)
                .context("a gradient")?
                .to_dtype(DType::F64)?;
            close(
                &gradient.flatten_all()?.to_vec1()?,
                &golden.values(&format!("{prefix}grad"))?,
                tolerance,
                prefix,
            )?;
        }
    }
    Ok(())
}

/// `p0` decays, `p1` does not: a projection and a norm.
fn parameters(golden: &Golden, prefix: &str) -> Result<Parameters> {
    let roles = [("p0", TensorRole::Projection), ("p1", TensorRole::Norm)];
    let values = roles.into_iter().map(|(name, role)| {
        let tensor = golden.tensor(&format!("{prefix}{name}.0"))?;
        let spec = TensorSpec {
            name: name.to_string(),
            shape: tensor.dims().to_vec(),
            role,
        };
        Ok((spec, tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?))
    });
    Ok(Parameters::from_values(values.collect::<Result<_>>()?)?)
}

#[test]
fn adamw_step_by_step() -> Result<()> {
    let golden = Golden::read("optim")?;
    for case in golden.cases()? {
        let prefix = case["prefix"].as_str().context("a prefix")?;
        let betas = numbers(&case["betas"]);
        let options: AdamWOptions = serde_json::from_value(json!({
            "beta1": betas[0], "beta2": betas[1], "eps": case["eps"],
            "weight_decay": case["weight_decay_p0"], "other_weight_decay": case["weight_decay_p1"],
        }))?;
        let parameters = parameters(&golden, prefix)?;
        let mut adam = AdamW::new(options, &parameters);
        let norms = numbers(&case["grad_norms"]);
        for (i, rate) in numbers(&case["lrs"]).into_iter().enumerate() {
            let step = i + 1;
            let gradient = |name: &str| -> Result<Vec<f32>> {
                Ok(golden
                    .values(&format!("{prefix}{name}.{step}"))?
                    .into_iter()
                    .map(|g| g as f32)
                    .collect())
            };
            let gradients = Gradients {
                tensors: vec![gradient("g0")?, gradient("g1")?],
            };
            close(&[gradients.norm()], &norms[i..=i], 1e-6, "gradient norm")?;
            adam.update(
                &parameters,
                &gradients,
                rate,
                clip_factor(gradients.norm(), case["clip"].as_f64()),
            )?;
            for (name, found) in ["p0", "p1"].into_iter().zip(parameters.values()?) {
                let found: Vec<f64> = found.into_iter().map(f64::from).collect();
                let expected = golden.values(&format!("{prefix}{name}.{step}"))?;
                close(
                    &found,
                    &expected,
                    1e-6,
                    &format!("{prefix}{name} after step {step}"),
                )?;
            }
        }
    }
    Ok(())
}

#[test]
fn schedules() -> Result<()> {
    let golden = Golden::read("optim")?;
    for kind in ["cosine", "warmup_stable_decay"] {
        let mut settings = golden.json[kind].clone();
        let (steps, rates) = (numbers(&settings["steps"]), numbers(&settings["lr"]));
        let object = settings.as_object_mut().context("an object")?;
        object.retain(|key, _| !["steps", "lr"].contains(&key.as_str()));
        object.insert("kind".into(), kind.into());
        let schedule: Schedule = serde_json::from_value(settings)?;
        for (step, expected) in steps.into_iter().zip(rates) {
            let found = schedule.rate(step as u64);
            ensure!(
                (found - expected).abs() <= 1e-15,
                "{kind} at step {step}: {found}, expected {expected}"
            );
        }
    }
    Ok(())
}
