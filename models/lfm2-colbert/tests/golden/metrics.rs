//! Ranking metrics of random runs against the reference's evaluator.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use lfm2_colbert::{Hits, Metric};
use serde::Deserialize;
use serde_json::Value;

const TOLERANCE: f64 = 1e-12;

/// Numbers are text here: `serde_json` reads some of them a last place off, and there are scores that
/// differ by no more.
#[derive(Deserialize)]
struct Case {
    relevant: HashMap<String, HashSet<String>>,
    /// Per query, documents and scores in no order.
    runs: HashMap<String, Vec<(String, String)>>,
    /// `ndcg@k` and so on, by k.
    metrics: BTreeMap<String, BTreeMap<String, String>>,
}

/// The same JSON with its numbers as strings.
fn with_numbers_as_text(json: &str) -> String {
    let mut out = String::with_capacity(2 * json.len());
    let (mut in_string, mut escaped, mut in_number) = (false, false, false);
    for c in json.chars() {
        // An `e` begins no number, as in `true`.
        let begins = c == '-' || c.is_ascii_digit();
        let number = !in_string && (begins || (in_number && "+.eE".contains(c)));
        if number != in_number {
            out.push('"');
            in_number = number;
        }
        in_string ^= c == '"' && !escaped;
        escaped = in_string && c == '\\' && !escaped;
        out.push(c);
    }
    out
}

/// Every JSON file below a folder that holds such a case.
fn cases(folder: &Path, found: &mut Vec<(PathBuf, Case)>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            cases(&path, found)?;
        } else if path
            .extension()
            .is_some_and(|extension| extension == "json")
        {
            let text = fs::read_to_string(&path)?;
            let value: Value = serde_json::from_str(&text)?;
            let is_case = ["relevant", "runs", "metrics"]
                .iter()
                .all(|key| value.get(key).is_some());
            if is_case {
                let case = serde_json::from_str(&with_numbers_as_text(&text));
                let case = case.with_context(|| path.display().to_string())?;
                found.push((path, case));
            }
        }
    }
    Ok(())
}

fn hits(case: &Case) -> Result<Vec<Hits>> {
    let judged = case
        .relevant
        .iter()
        .filter(|(_, relevant)| !relevant.is_empty());
    let hits = judged.map(|(query, relevant)| {
        let run = case.runs.get(query).context("a query without a run")?;
        let run = run
            .iter()
            .map(|(id, score)| Ok((id, score.parse::<f64>()?)));
        let mut run = run.collect::<Result<Vec<_>>>()?;
        run.sort_by(|a, b| b.1.total_cmp(&a.1));
        let relevant = relevant.iter().map(String::as_str).collect();
        Ok(Hits::new(run.iter().map(|(id, _)| id.as_str()), &relevant))
    });
    hits.collect()
}

#[test]
fn metrics_are_the_references() -> Result<()> {
    let mut all = Vec::new();
    cases(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden"),
        &mut all,
    )?;
    if let Some(folder) = lfm2_golden::folder() {
        let committed = all.len();
        cases(&folder.join("colbert"), &mut all)?;
        ensure!(
            all.len() > committed,
            "no metrics below {}",
            folder.display()
        );
    }
    ensure!(!all.is_empty(), "no metrics");
    for (path, case) in &all {
        let hits = hits(case)?;
        for (name, values) in &case.metrics {
            let base = name.strip_suffix("@k").unwrap_or(name);
            let metric = Metric::ALL.into_iter().find(|metric| metric.name() == base);
            let metric = metric.with_context(|| format!("{}: {name}", path.display()))?;
            for (k, expected) in values {
                let expected: f64 = expected.parse()?;
                let found = metric.mean(&hits, k.parse()?);
                ensure!(
                    (found - expected).abs() <= TOLERANCE,
                    "{}: {base}@{k}: expected {expected}, found {found}",
                    path.display()
                );
            }
        }
    }
    Ok(())
}
