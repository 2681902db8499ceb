//! Every parameter gets a gradient, and it is the reference's.

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use candle_core::quantized::QTensor;
use candle_core::{D, Var};
use lfm2_hub::{StoredType, TensorInfo, TensorSource};
use lfm2_nn::{Cache, DType, Decoder, Device, Input, Step, Tensor, Want, Weights};
use lfm2_text::TextModel;
use support::{Case, for_every_case};

/// A checkpoint as trainable variables.
struct Variables(BTreeMap<String, Var>);

impl Variables {
    fn of(case: &Case) -> Result<Self> {
        let tensors = case.checkpoint_tensors()?;
        let variable = |name: String| -> Result<(String, Var)> {
            let value = tensors.dense(&name, DType::F32, &support::CPU)?;
            Ok((name, Var::from_tensor(&value)?))
        };
        Ok(Self(
            tensors
                .names()
                .into_iter()
                .map(variable)
                .collect::<Result<_>>()?,
        ))
    }
}

impl TensorSource for Variables {
    fn names(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }

    fn info(&self, name: &str) -> Option<TensorInfo> {
        let var = self.0.get(name)?;
        Some(TensorInfo {
            shape: var.dims().to_vec(),
            stored: StoredType::Dense(DType::F32),
        })
    }

    fn dense(&self, name: &str, _: DType, _: &Device) -> lfm2_hub::Result<Tensor> {
        let missing = || lfm2_hub::Error::MissingTensor {
            name: name.to_owned(),
        };
        Ok(self.0.get(name).ok_or_else(missing)?.as_tensor().clone())
    }

    fn quantized(&self, _: &str, _: &Device) -> lfm2_hub::Result<Option<Arc<QTensor>>> {
        Ok(None)
    }
}

/// Mean next-token loss over both rows of the golden input.
fn loss(model: &TextModel, ids: &Tensor) -> Result<Tensor> {
    let (rows, len) = ids.dims2()?;
    let input = ids.flatten_all()?.to_dtype(DType::U32)?;
    let step = Step::rows(&vec![len; rows]);
    let logits = model.forward(
        Input::Ids(&input),
        &step,
        &mut Cache::stateless(rows),
        Want::AllLogits,
    )?;
    let logits = logits.reshape((rows, len, ()))?.narrow(1, 0, len - 1)?;
    let labels = ids.narrow(1, 1, len - 1)?.contiguous()?.unsqueeze(2)?;
    let log_probabilities = candle_nn::ops::log_softmax(&logits, D::Minus1)?;
    Ok(log_probabilities
        .contiguous()?
        .gather(&labels, 2)?
        .neg()?
        .mean_all()?)
}

/// The reference keeps a layer's experts in two tensors; the parts of one have one norm.
fn reference_name(name: &str) -> String {
    let Some((layer, rest)) = name.split_once(".feed_forward.experts.") else {
        return name.replace(".gate_proj.weight", ".g_proj.weight");
    };
    match rest.rsplit('.').nth(1) {
        Some("w1" | "w3") => format!("{layer}.feed_forward.experts.gate_up_proj"),
        Some("w2") => format!("{layer}.feed_forward.experts.down_proj"),
        _ => name.to_owned(),
    }
}

#[test]
fn loss_and_gradient_norms_are_the_references() -> Result<()> {
    for_every_case(|case| {
        let variables = Arc::new(Variables::of(case)?);
        let weights = Weights::new(variables.clone(), DType::F32, &support::CPU);
        let model = TextModel::load(case.config()?, &weights)?;
        let loss = loss(&model, case.get("fwd.input_ids")?)?;
        let value = f64::from(loss.to_scalar::<f32>()?);
        let expected = case.number("/loss")?;
        ensure!(
            (value - expected).abs() < 1e-4 * expected.abs(),
            "loss {value}, expected {expected}"
        );

        let gradients = loss.backward()?;
        let mut squares: BTreeMap<String, f64> = BTreeMap::new();
        for (name, var) in &variables.0 {
            let Some(gradient) = gradients.get(var.as_tensor()) else {
                // The bias only takes part in choosing, and no token may have chosen an expert; the
                // norms below count such an expert as zero.
                let exempt = name.ends_with("expert_bias") || name.contains(".experts.");
                ensure!(exempt, "{name} got no gradient");
                continue;
            };
            let square: f32 = gradient.sqr()?.sum_all()?.to_scalar()?;
            *squares.entry(reference_name(name)).or_default() += f64::from(square);
        }
        let norms = case
            .facts
            .get("grad_norm")
            .and_then(|v| v.as_object())
            .context("no grad_norm")?;
        for (name, expected) in norms {
            let expected = expected.as_f64().context("not a number")?;
            let found = squares
                .get(name)
                .with_context(|| format!("no gradient for {name}"))?
                .sqrt();
            let tolerance = 2e-3 * expected.max(1e-2);
            ensure!(
                (found - expected).abs() <= tolerance,
                "{name}: norm {found}, expected {expected}"
            );
        }
        Ok(())
    })
}

#[test]
fn gradients_agree_with_finite_differences() -> Result<()> {
    for_every_case(|case| {
        if case.config()?.moe.is_some() {
            // A router's choice jumps, so a finite step may cross into another model.
            return Ok(());
        }
        let variables = Arc::new(Variables::of(case)?);
        let weights = Weights::new(variables.clone(), DType::F32, &support::CPU);
        let model = TextModel::load(case.config()?, &weights)?;
        let ids = case.get("fwd.input_ids")?;
        let gradients = loss(&model, ids)?.backward()?;
        // Along the gradient itself the slope is the norm: the best-conditioned direction there is.
        for (name, var) in &variables.0 {
            let Some(gradient) = gradients.get(var.as_tensor()) else {
                continue;
            };
            let norm = f64::from(gradient.sqr()?.sum_all()?.sqrt()?.to_scalar::<f32>()?);
            if norm < 1e-2 {
                continue;
            }
            let center = var.as_tensor().copy()?;
            let at = |h: f64| -> Result<f64> {
                var.set(&(&center + (gradient * (h / norm))?)?)?;
                Ok(f64::from(loss(&model, ids)?.to_scalar::<f32>()?))
            };
            let h = 1e-2 / norm.max(1.0);
            let slope = (at(h)? - at(-h)?) / (2.0 * h);
            var.set(&center)?;
            ensure!(
                (slope - norm).abs() < 0.05 * norm,
                "{name}: slope {slope}, gradient norm {norm}"
            );
        }
        Ok(())
    })
}
