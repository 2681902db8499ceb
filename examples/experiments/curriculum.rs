//! (d) Is more learnt from easy items first than from the same items at random?

use anyhow::Result;
use serde_json::{Value, json};

use crate::lab::Lab;
use crate::measure::{Figures, answers};
use crate::recipes::{Plan, base, from, questions, run};
use crate::results::Row;

/// One pass over the questions.
const PLAN: Plan = Plan {
    steps: 40,
    tokens: 1024,
    peak: 3e-3,
};
const ITEMS: usize = 800;
/// The models whose losses say how hard an item is: the bases of these seeds.
const ENSEMBLE: [u64; 3] = [1, 2, 3];

pub(crate) fn run_seed(lab: &Lab, seed: u64) -> Result<Vec<Row>> {
    let start = base(lab, seed)?;
    let mut source = questions();
    source["path"] = json!(lab.part("chat-questions.jsonl.gz", ITEMS)?);
    let judges = ENSEMBLE.iter().map(|&seed| base(lab, seed));
    let judges = judges.collect::<Result<Vec<_>>>()?;
    let scoring = run(&from(&judges[0]), &json!([source.clone()]), PLAN, 1);
    let scores = lab.score("curriculum/scores", &scoring, &judges)?;
    let easy: Vec<f64> = serde_json::from_str(&std::fs::read_to_string(&scores)?)?;
    let hard: Vec<f64> = easy.iter().map(|score| 1.0 - score).collect();
    let reversed = scores.with_file_name("reversed.json");
    std::fs::write(&reversed, serde_json::to_string(&hard)?)?;

    let stages = json!({"kind": "stages", "count": 4});
    let order = |scores: &Value, order: Value| json!({"scores": scores, "order": order});
    let (scores, reversed) = (json!(scores), json!(reversed));
    let variants = [
        ("shuffled", Value::Null),
        ("four stages", order(&scores, stages.clone())),
        ("four stages, hard first", order(&reversed, stages)),
    ];
    let mut rows = Vec::new();
    for (variant, curriculum) in variants {
        let mut source = source.clone();
        source["curriculum"] = curriculum;
        let settings = run(&from(&start), &json!([source]), PLAN, seed);
        let name = format!("curriculum/{variant}/seed-{seed}");
        let model = lab.train(&name, &settings)?;
        let figures = Figures::new()
            .with("right answers", answers(lab, &model)?.right)
            .with("held-out loss of questions", lab.held_out(&name, 0)?);
        rows.push(Row::new(variant, seed, figures));
    }
    Ok(rows)
}
