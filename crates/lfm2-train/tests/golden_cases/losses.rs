//! Next-token prediction and distillation.

use anyhow::{Context, Result, ensure};
use candle_core::{DType, Tensor, Var};
use lfm2_train::loss::{
    Distillation, Form, Target, TemperatureFactor, TopK, distill, distill_terms, next_token, weight,
};

use super::{Golden, PRECISIONS, close, flat, for_every, number, prefix, scalar};

/// The label at `t + 1` is the target of position `t`; -100 is not scored.
fn targets(labels: &Tensor) -> Result<Vec<Target>> {
    let shift = |row: Vec<i64>| {
        let next: Vec<i64> = row[1..].iter().copied().chain([-100]).collect();
        next.into_iter()
            .map(|label| u32::try_from(label).map_or(Target::UNSCORED, Target::new))
    };
    let rows = labels.to_vec2::<i64>()?;
    Ok(rows.into_iter().flat_map(shift).collect())
}

#[test]
fn the_next_token_loss_and_its_gradient() -> Result<()> {
    for_every("lm_loss", |golden| {
        for case in golden.cases()? {
            let prefix = prefix(case)?;
            let targets = targets(golden.tensor(&format!("{prefix}labels"))?)?;
            ensure!(weight(&targets) == number(case, "counted_tokens")?);
            let logits = golden.tensor(&format!("{prefix}logits"))?.flatten(0, 1)?;
            for (dtype, of_loss, of_gradient) in PRECISIONS {
                let var = Var::from_tensor(&logits.to_dtype(dtype)?)?;
                let loss = next_token(&var, &targets, weight(&targets))?;
                close(&[scalar(&loss)?], &[number(case, "loss")?], of_loss, prefix)?;
                let grads = loss.backward()?;
                close(
                    &flat(grads.get(&var).context("a gradient")?)?,
                    &golden.values(&format!("{prefix}grad"))?,
                    of_gradient,
                    prefix,
                )?;
            }
        }
        Ok(())
    })
}

fn teacher(golden: &Golden, prefix: &str) -> Result<TopK> {
    let ids = golden.tensor(&format!("{prefix}teacher_ids"))?;
    Ok(TopK {
        k: ids.dims2()?.1,
        ids: ids.flatten_all()?.to_dtype(DType::U32)?.to_vec1()?,
        logprobs: golden.values(&format!("{prefix}teacher_top_logprob"))?,
        log_tails: golden.values(&format!("{prefix}teacher_log_tail"))?,
    })
}

#[test]
fn decoupled_distillation_and_its_gradient() -> Result<()> {
    for_every("distill", |golden| {
        for case in golden.cases()? {
            let prefix = prefix(case)?;
            let teacher = teacher(golden, prefix)?;
            let student = golden.tensor(&format!("{prefix}student"))?;
            let tokens = student.dims2()?.0;
            let plain = Distillation::default().with_temperature(number(case, "tau")?);
            let squared = plain.with_factor(TemperatureFactor::Squared);
            for (options, loss_key, gradient_key) in [
                (plain, "loss", "grad"),
                (squared, "loss_with_tau_squared", "grad_with_tau_squared"),
            ] {
                for (dtype, of_loss, of_gradient) in PRECISIONS {
                    let what = format!("{prefix} {loss_key} {dtype:?}");
                    let var = Var::from_tensor(&student.to_dtype(dtype)?)?;
                    let weights = vec![1.0; tokens];
                    let loss = distill(&var, &teacher, &weights, options, tokens as f64)?;
                    close(
                        &[scalar(&loss)?],
                        &[number(case, loss_key)?],
                        of_loss,
                        &what,
                    )?;
                    let grads = loss.backward()?;
                    close(
                        &flat(grads.get(&var).context("a gradient")?)?,
                        &golden.values(&format!("{prefix}{gradient_key}"))?,
                        of_gradient,
                        &what,
                    )?;
                }
            }
        }
        Ok(())
    })
}

#[test]
fn the_parts_of_distillation() -> Result<()> {
    for_every("distill", |golden| {
        for case in golden.cases()? {
            let prefix = prefix(case)?;
            let options = Distillation::default().with_temperature(number(case, "tau")?);
            let student = golden.tensor(&format!("{prefix}student"))?;
            let terms = distill_terms(student, &teacher(golden, prefix)?, options)?;
            let parts: [(&str, Vec<f64>); 4] = [
                ("binary", terms.iter().map(|t| t.binary).collect()),
                ("conditional", terms.iter().map(|t| t.conditional).collect()),
                (
                    "teacher_mass",
                    terms.iter().map(|t| t.teacher_mass).collect(),
                ),
                (
                    "student_mass",
                    terms.iter().map(|t| t.student_mass).collect(),
                ),
            ];
            for (name, found) in parts {
                let key = format!("{prefix}{name}");
                close(&found, &golden.values(&key)?, 1e-12, &key)?;
            }
        }
        Ok(())
    })
}

/// At temperature 1 the loss is at most the whole distance, and equal to it where nothing is outside.
#[test]
fn the_loss_is_bounded_by_the_whole_distance() -> Result<()> {
    for_every("distill", |golden| {
        for case in golden.cases()? {
            let Some(whole) = case["full_kl"].as_f64() else {
                continue;
            };
            let prefix = prefix(case)?;
            let student = golden.tensor(&format!("{prefix}student"))?;
            let tokens = student.dims2()?.0;
            let teacher = teacher(golden, prefix)?;
            let options = Distillation::default().with_temperature(1.0);
            let loss = |options| -> Result<f64> {
                let weights = vec![1.0; tokens];
                scalar(&distill(
                    student,
                    &teacher,
                    &weights,
                    options,
                    tokens as f64,
                )?)
            };
            let found = loss(options)?;
            ensure!(
                found >= -1e-12 && found <= whole + 1e-12,
                "{prefix}: {found} {whole}"
            );
            if teacher.k == student.dims2()?.1 {
                close(&[found], &[whole], 1e-12, prefix)?;
            }
            // What happens inside the set alone cannot see mass outside of it.
            let inside = loss(options.with_form(Form::Truncated))?;
            ensure!(inside >= -1e-12, "{prefix}: {inside}");
        }
        Ok(())
    })
}
