//! (a) Does a student learn more from the next token and a teacher's list than from the next token alone,
//! and does it matter how the list is compared?

use anyhow::Result;
use serde_json::{Value, json};

use crate::lab::Lab;
use crate::measure::{Figures, story_loss};
use crate::recipes::{Plan, dense, fresh, run, stories};
use crate::results::Row;

const TEACHER: Plan = Plan {
    steps: 300,
    tokens: 1024,
    peak: 3e-3,
};
const STUDENT: Plan = Plan {
    steps: 100,
    tokens: 512,
    peak: 4e-3,
};

/// What teacher and students learn from. One set of data gives one tokenizer.
fn data(lab: &Lab) -> Result<Value> {
    let mut source = stories();
    source["path"] = json!(lab.part("stories-train.txt.gz", 3000)?);
    Ok(json!([source]))
}

pub(crate) fn run_seed(lab: &Lab, seed: u64) -> Result<Vec<Row>> {
    // One teacher for all seeds.
    let teacher = run(&fresh(&dense(12)), &data(lab)?, TEACHER, 1);
    let teacher = lab.train("distill/teacher", &teacher)?;
    let plain = run(&fresh(&dense(6)), &data(lab)?, STUDENT, seed);
    let store = lab.teach(&format!("distill/store-{seed}"), &plain, &teacher)?;
    let distill = |share: f64, form: &str| {
        json!({
            "kind": "distill", "teacher": store, "share": share,
            "loss": {"temperature": 2.0, "form": form},
        })
    };
    let variants = [
        ("next token", None),
        ("half decoupled", Some(distill(0.5, "decoupled"))),
        ("half truncated", Some(distill(0.5, "truncated"))),
        ("all decoupled", Some(distill(1.0, "decoupled"))),
        ("all truncated", Some(distill(1.0, "truncated"))),
    ];
    let mut rows = Vec::new();
    for (variant, objective) in variants {
        let mut settings = plain.clone();
        if let Some(objective) = objective {
            settings["objective"] = objective;
        }
        let student = lab.train(&format!("distill/{variant}/seed-{seed}"), &settings)?;
        let figures = Figures::new().with("held-out loss", story_loss(lab, &student)?);
        rows.push(Row::new(variant, seed, figures));
    }
    rows.push(Row::new(
        "teacher",
        seed,
        Figures::new().with("held-out loss", story_loss(lab, &teacher)?),
    ));
    Ok(rows)
}
