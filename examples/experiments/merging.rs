//! (c) Does one model made of two have the skills of both?

use std::path::{Path, PathBuf};

use anyhow::Result;
use lfm2_train::merge::{Method, Rescale, greedy_soup};
use serde_json::json;

use crate::lab::Lab;
use crate::measure::{Figures, answers, story_loss};
use crate::recipes::{Plan, answering, base, from, run, stories};
use crate::results::Row;

const STORIES: Plan = Plan {
    steps: 200,
    tokens: 1024,
    peak: 3e-3,
};
const DENSITY: f64 = 0.5;

pub(crate) fn run_seed(lab: &Lab, seed: u64) -> Result<Vec<Row>> {
    let base = base(lab, seed)?;
    let answering = answering(lab, seed)?;
    let telling = run(&from(&base), &json!([stories()]), STORIES, seed);
    let telling = lab.train(&format!("telling/seed-{seed}"), &telling)?;
    let both = [(answering.clone(), 1.0), (telling.clone(), 1.0)];
    let merged = |variant: &str, method: Method| {
        lab.merge(
            &format!("merging/{variant}/seed-{seed}"),
            method,
            &base,
            &both,
            seed,
        )
    };
    let inverse = Rescale::Inverse;
    let mut models = vec![
        ("base", base.clone()),
        ("tuned on questions", answering.clone()),
        ("tuned on stories", telling.clone()),
        ("soup", merged("soup", Method::Soup)?),
        (
            "task arithmetic",
            merged("task-arithmetic", Method::task_arithmetic(1.0))?,
        ),
        ("TIES", merged("ties", Method::ties(DENSITY, 1.0))?),
        (
            "DARE, linear",
            merged("dare-linear", Method::dare_linear(DENSITY, inverse, 1.0))?,
        ),
        (
            "DARE, TIES",
            merged("dare-ties", Method::dare_ties(DENSITY, inverse, 1.0))?,
        ),
        (
            "DELLA",
            merged("della", Method::della(DENSITY, 0.15, inverse, 1.0))?,
        ),
        ("SLERP", merged("slerp", Method::Slerp { t: 0.5 })?),
    ];
    models.push((
        "greedy soup",
        greedy(lab, &base, &[answering, telling], seed)?,
    ));
    let rows = models.into_iter().map(|(variant, model)| {
        let figures = Figures::new()
            .with("right answers", answers(lab, &model)?.right)
            .with("held-out loss of stories", story_loss(lab, &model)?);
        Ok(Row::new(variant, seed, figures))
    });
    rows.collect()
}

/// A soup of the models that raise one number for both skills.
fn greedy(lab: &Lab, base: &Path, models: &[PathBuf], seed: u64) -> Result<PathBuf> {
    let score =
        |model: &Path| -> Result<f64> { Ok(answers(lab, model)?.right - story_loss(lab, model)?) };
    let scores = models
        .iter()
        .map(|model| score(model))
        .collect::<Result<Vec<_>>>()?;
    let name = format!("merging/greedy-soup/seed-{seed}");
    let of = |chosen: &[usize]| {
        let chosen: Vec<(PathBuf, f64)> =
            chosen.iter().map(|&i| (models[i].clone(), 1.0)).collect();
        lab.merge(&name, Method::Soup, base, &chosen, seed)
    };
    let mut failed = None;
    let chosen = greedy_soup(&scores, |chosen| {
        let found = of(chosen).and_then(|model| score(&model));
        Ok(found.unwrap_or_else(|error| {
            failed = Some(error);
            f64::NEG_INFINITY
        }))
    })?;
    match failed {
        Some(error) => Err(error),
        None => of(&chosen),
    }
}
