//! (b) Do rewards per token teach facts better, where length is what pairs differ in most?
//!
//! In three quarters of the pairs the worse answer is the right one in more words. The model that they
//! are learnt from has the habit of such answers.

use std::path::{Path, PathBuf};

use anyhow::Result;
use serde_json::{Value, json};

use crate::lab::Lab;
use crate::measure::{Figures, WRONG_FACT, answers, wins};
use crate::recipes::{Plan, answering, from, run};
use crate::results::Row;

const PLAN: Plan = Plan {
    steps: 25,
    tokens: 2048,
    peak: 3e-4,
};
/// How the habit of long answers is learnt.
const HABIT: Plan = Plan {
    steps: 40,
    tokens: 1024,
    peak: 1e-3,
};
/// Pairs that are not trained on.
const KEPT_OUT: usize = 400;
/// Pairs that are; each is met once.
const PAIRS: usize = 600;
/// Pairs of which the longer answer is imitated before.
const IMITATED: usize = 1000;

fn loss(unit: &str, beta: f64) -> Value {
    json!({
        "relative": "logistic", "absolute": "none", "absolute_weight": 0.0, "beta": beta, "unit": unit,
    })
}

pub(crate) fn run_seed(lab: &Lab, seed: u64) -> Result<Vec<Row>> {
    let start = talkative(lab, seed)?;
    let file = "preference.jsonl.gz";
    let (training, kept_out) = (lab.part(file, PAIRS)?, lab.end(file, KEPT_OUT)?);
    let mut rows = vec![Row::new("before", seed, figures(lab, &start, &kept_out)?)];
    let variants = [
        ("DPO per answer", loss("answer", 0.1)),
        ("DPO per token", loss("token", 5.0)),
    ];
    for (variant, loss) in variants {
        let data = json!([{"path": training, "format": "preference", "holdout": 20}]);
        let mut settings = run(&from(&start), &data, PLAN, seed);
        settings["objective"] = json!({"kind": "preference", "loss": loss});
        let model = lab.train(&format!("preference/{variant}/seed-{seed}"), &settings)?;
        rows.push(Row::new(variant, seed, figures(lab, &model, &kept_out)?));
    }
    Ok(rows)
}

/// A model that answers most questions in too many words.
fn talkative(lab: &Lab, seed: u64) -> Result<PathBuf> {
    let rows = lab.rows("preference.jsonl.gz")?;
    let rows = rows.iter().skip(PAIRS).take(IMITATED);
    let rows = rows.map(|row| {
        let row: Value = serde_json::from_str(row)?;
        let kind = if row["fault"] == WRONG_FACT {
            "chosen"
        } else {
            "rejected"
        };
        let messages = json!([
            {"role": "user", "content": row["prompt"]},
            {"role": "assistant", "content": row[kind]},
        ]);
        Ok(json!({"messages": messages}).to_string())
    });
    let path = lab.write("talkative.jsonl", &rows.collect::<Result<Vec<_>>>()?)?;
    let data = json!([{"path": path, "format": "chat", "holdout": 20}]);
    let settings = run(&from(&answering(lab, seed)?), &data, HABIT, seed);
    lab.train(&format!("talkative/seed-{seed}"), &settings)
}

fn figures(lab: &Lab, model: &Path, pairs: &Path) -> Result<Figures> {
    let answered = answers(lab, model)?;
    let (wrong, long) = wins(model, pairs)?;
    Ok(Figures::new()
        .with("right answers", answered.right)
        .with("right fact before wrong one", wrong.by_sum)
        .with("words per answer", answered.words)
        .with("short answer before long one", long.by_sum)
        .with("the same per token", long.by_token))
}
