//! (e) Does a bias on the choice keep experts in even use, and what does that cost?

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::lab::Lab;
use crate::measure::{Figures, story_loss};
use crate::recipes::{Plan, fresh, mixture, run, stories};
use crate::results::Row;

const PLAN: Plan = Plan {
    steps: 80,
    tokens: 512,
    peak: 4e-3,
};
/// Steps at the end over which the load is averaged.
const LAST: usize = 20;

pub(crate) fn run_seed(lab: &Lab, seed: u64) -> Result<Vec<Row>> {
    let variants = [("without", None), ("0.01 per step", Some(0.01))];
    let mut rows = Vec::new();
    for (variant, update) in variants {
        let mut settings = run(&fresh(&mixture()), &json!([stories()]), PLAN, seed);
        if let Some(update) = update {
            settings["balance"] = json!({"update": update});
        }
        let name = format!("balance/{variant}/seed-{seed}");
        let model = lab.train(&name, &settings)?;
        let loads: Vec<f64> = overloads(&lab.metrics(&name)?);
        let last = loads.get(loads.len().saturating_sub(LAST)..);
        let last = last
            .filter(|last| !last.is_empty())
            .context("no load in the log")?;
        let mean = last.iter().sum::<f64>() / last.len() as f64;
        let figures = Figures::new()
            .with("overload of the busiest expert", mean)
            .with("held-out loss", story_loss(lab, &model)?);
        rows.push(Row::new(variant, seed, figures));
    }
    Ok(rows)
}

fn overloads(metrics: &[Value]) -> Vec<f64> {
    let figures = metrics
        .iter()
        .map(|line| &line["figures"]["expert_overload"]);
    figures.filter_map(Value::as_f64).collect()
}
