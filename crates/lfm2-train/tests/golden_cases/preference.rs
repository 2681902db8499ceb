//! The preference family.

use anyhow::{Context, Result, bail};
use candle_core::{DType, Var};
use lfm2_train::loss::{
    Absolute, PairFacts, Preference, Relative, RewardUnit, Target, preference, preference_terms,
    sequence_logprobs,
};
use serde_json::Value;

use super::{Golden, PRECISIONS, close, flat, for_every, number, numbers, prefix, scalar};

fn options(case: &Value) -> Result<Preference> {
    let name = case["loss_name"].as_str().context("a name")?;
    let options = match name {
        "dpo" => Preference::new(Relative::Logistic, Absolute::None, 0.0),
        "hinge" => Preference::new(Relative::Hinge, Absolute::None, 0.0),
        "ipo" => Preference::new(Relative::Square, Absolute::None, 0.0),
        "apo_zero" => Preference::new(Relative::None, Absolute::Zero, 1.0),
        "apo_down" => Preference::new(Relative::None, Absolute::Down, 1.0),
        "dpo_plus_apo_zero" => Preference::new(Relative::Logistic, Absolute::Zero, 0.5),
        "dpo_plus_sft" => Preference::new(Relative::Logistic, Absolute::Imitate, 0.2),
        "simpo" => Preference::simpo(),
        other => bail!("loss {other} is not known"),
    };
    let unit = if case["length_normalised"].as_bool().context("a flag")? {
        RewardUnit::Token
    } else {
        RewardUnit::Answer
    };
    Ok(options
        .with_beta(number(case, "beta")?)
        .with_margin(number(case, "margin")?)
        .with_unit(unit))
}

fn facts(golden: &Golden) -> Result<PairFacts> {
    let lengths = |key| -> Result<Vec<usize>> {
        let lengths = golden.integers(key)?.into_iter();
        Ok(lengths.map(usize::try_from).collect::<Result<_, _>>()?)
    };
    Ok(PairFacts {
        reference_better: golden.values("ref_chosen")?,
        reference_worse: golden.values("ref_rejected")?,
        tokens_better: lengths("len_chosen")?,
        tokens_worse: lengths("len_rejected")?,
    })
}

#[test]
fn every_preference_loss_and_its_gradients() -> Result<()> {
    for_every("preference", |golden| {
        let facts = facts(golden)?;
        let pairs = facts.tokens_better.len() as f64;
        for case in golden.cases()? {
            let prefix = prefix(case)?;
            let options = options(case)?;
            let exact = losses(golden, &facts, options, [DType::F64; 2])?;
            close(&[exact.loss], &[number(case, "loss")?], 1e-12, prefix)?;
            close(
                &exact.per_pair,
                &golden.values(&format!("{prefix}per_pair"))?,
                1e-12,
                prefix,
            )?;
            for (found, key) in [
                (&exact.better, "grad_chosen"),
                (&exact.worse, "grad_rejected"),
            ] {
                let key = format!("{prefix}{key}");
                close(found, &golden.values(&key)?, 1e-12, &key)?;
            }
            if let Some(expected) = case["accuracy"].as_f64() {
                close(&[exact.ahead / pairs], &[expected], 1e-12, prefix)?;
            }
            // Long answers have log-probabilities whose rounding alone moves the loss, so both types
            // read the same rounded numbers here.
            let rounded = losses(golden, &facts, options, [DType::F32, DType::F64])?;
            let single = losses(golden, &facts, options, [DType::F32; 2])?;
            close(&[single.loss], &[rounded.loss], 1e-6, prefix)?;
            close(&single.better, &rounded.better, 1e-6, prefix)?;
            close(&single.worse, &rounded.worse, 1e-6, prefix)?;
            close(&[single.loss], &[exact.loss], 1e-4, prefix)?;
        }
        Ok(())
    })
}

struct Losses {
    loss: f64,
    per_pair: Vec<f64>,
    better: Vec<f64>,
    worse: Vec<f64>,
    /// Pairs whose better answer is ahead.
    ahead: f64,
}

/// The loss of all pairs, their log-probabilities rounded to the first type and computed in the second.
fn losses(
    golden: &Golden,
    facts: &PairFacts,
    options: Preference,
    [rounded, dtype]: [DType; 2],
) -> Result<Losses> {
    let var = |key| -> Result<Var> {
        let values = golden.tensor(key)?.to_dtype(rounded)?;
        Ok(Var::from_tensor(&values.to_dtype(dtype)?)?)
    };
    let (better, worse) = (var("logp_chosen")?, var("logp_rejected")?);
    let pairs = facts.tokens_better.len() as f64;
    let loss = preference(&better, &worse, facts, options, pairs)?;
    let terms = preference_terms(&better, &worse, facts, options)?;
    let grads = loss.backward()?;
    let gradient = |var: &Var| flat(grads.get(var).context("a gradient")?);
    Ok(Losses {
        loss: scalar(&loss)?,
        per_pair: terms.iter().map(|t| t.value).collect(),
        better: gradient(&better)?,
        worse: gradient(&worse)?,
        ahead: terms.iter().filter(|t| t.lead > 0.0).count() as f64,
    })
}

#[test]
fn a_preference_from_logits() -> Result<()> {
    for_every("preference", |golden| {
        let settings = &golden.json["token_level"];
        if settings.is_null() {
            return Ok(());
        }
        let (starts, ends) = (
            numbers(&settings["completion_start"]),
            numbers(&settings["completion_end"]),
        );
        let ids = golden.tensor("tokens.ids")?.to_vec2::<i64>()?;
        let (mut targets, mut lens, mut counts) = (Vec::new(), Vec::new(), Vec::new());
        for ((row, start), end) in ids.iter().zip(&starts).zip(&ends) {
            let scored = |position: usize| {
                let place = position as f64;
                place >= *start && place < *end && position < row.len()
            };
            for position in 1..=row.len() {
                targets.push(match row.get(position) {
                    Some(&id) if scored(position) => Target::new(u32::try_from(id)?),
                    _ => Target::UNSCORED,
                });
            }
            lens.push(row.len());
            counts.push((1..row.len()).filter(|&p| scored(p)).count());
        }
        let reference = golden.values("tokens.ref")?;
        let facts = PairFacts {
            reference_better: vec![reference[0]],
            reference_worse: vec![reference[1]],
            tokens_better: vec![counts[0]],
            tokens_worse: vec![counts[1]],
        };
        let options = Preference::new(Relative::Logistic, Absolute::None, 0.0)
            .with_beta(number(settings, "beta")?);
        let logits = golden.tensor("tokens.logits")?.flatten(0, 1)?;
        for (dtype, of_loss, of_gradient) in PRECISIONS {
            let var = Var::from_tensor(&logits.to_dtype(dtype)?)?;
            let answers = sequence_logprobs(&var, &targets, &lens)?;
            close(
                &flat(&answers)?,
                &golden.values("tokens.seq_logp")?,
                of_loss,
                "seq_logp",
            )?;
            let (better, worse) = (answers.narrow(0, 0, 1)?, answers.narrow(0, 1, 1)?);
            let loss = preference(&better, &worse, &facts, options, 1.0)?;
            close(
                &[scalar(&loss)?],
                &[number(settings, "loss")?],
                of_loss,
                "loss",
            )?;
            let grads = loss.backward()?;
            let found = flat(grads.get(&var).context("a gradient")?)?;
            close(&found, &golden.values("tokens.grad")?, of_gradient, "grad")?;
        }
        Ok(())
    })
}
