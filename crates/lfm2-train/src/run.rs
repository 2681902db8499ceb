//! The folder of a run: its settings, its log and its loss curve.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::file::{read_json, write_text};
use crate::progress::{StepReport, ValidationReport};
use crate::{Error, Result};

/// How to treat a run folder that already holds a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Resume {
    /// Continue it; refuse when settings or data differ.
    #[default]
    Continue,
    /// Continue it with other settings or data.
    Force,
    /// Refuse: the folder was meant to be new.
    Never,
}

/// A line of `metrics.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum Metric {
    Step(StepReport),
    Validation(ValidationReport),
}

impl Metric {
    fn step(&self) -> u64 {
        match self {
            Self::Step(report) => report.step,
            Self::Validation(report) => report.step,
        }
    }
}

/// What makes a run the run it is. Number of threads and folder names are not part of it.
///
/// # Errors
/// When the options cannot be written as JSON.
pub(crate) fn identity(
    options: &impl Serialize,
    hashes: &[(String, String)],
    tokenizer: &str,
) -> Result<Value> {
    let options =
        serde_json::to_value(options).map_err(|e| Error::option("options", e.to_string()))?;
    let hashes: serde_json::Map<_, _> = hashes
        .iter()
        .map(|(file, sha)| (file.clone(), json!(sha)))
        .collect();
    Ok(json!({"options": options, "data_sha256": hashes, "tokenizer_sha256": tokenizer}))
}

/// Checks `run.json` against this run's identity, or writes it.
pub(crate) fn check_identity(
    run: &Path,
    identity: &Value,
    resume: Resume,
    started: bool,
) -> Result<()> {
    let path = run.join("run.json");
    let text_now = format!("{identity:#}\n");
    if started && resume == Resume::Continue {
        let before: Value = read_json(&path)?;
        // Both sides as read from text: reading may round the last digit of a number.
        let now: Value =
            serde_json::from_str(&text_now).map_err(|e| Error::run_folder(&path, e.to_string()))?;
        if let Some((key, expected, found)) = first_difference("", &before, &now) {
            return Err(Error::RunMismatch {
                path,
                key,
                expected,
                found,
            });
        }
        return Ok(());
    }
    write_text(&path, &text_now)
}

/// The first key whose values differ, with both.
pub(crate) fn first_difference(
    key: &str,
    before: &Value,
    now: &Value,
) -> Option<(String, String, String)> {
    let inside = |name: &str| {
        if key.is_empty() {
            name.to_string()
        } else {
            format!("{key}.{name}")
        }
    };
    match (before, now) {
        (Value::Object(a), Value::Object(b)) => {
            let mut names: Vec<&String> = a.keys().chain(b.keys()).collect();
            names.sort_unstable();
            names.dedup();
            let value = |map: &serde_json::Map<String, Value>, name| {
                map.get(name).cloned().unwrap_or_default()
            };
            names
                .into_iter()
                .find_map(|name| first_difference(&inside(name), &value(a, name), &value(b, name)))
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            let pairs = a.iter().zip(b).enumerate();
            pairs
                .into_iter()
                .find_map(|(i, (a, b))| first_difference(&inside(&i.to_string()), a, b))
        }
        (a, b) => (a != b).then(|| (key.to_string(), a.to_string(), b.to_string())),
    }
}

/// `metrics.jsonl`, also in memory for the curve.
#[derive(Debug)]
pub(crate) struct MetricsLog {
    path: PathBuf,
    file: File,
    metrics: Vec<Metric>,
}

impl MetricsLog {
    /// Opens the log of a run whose last finished step is `step`; what an interrupted run wrote
    /// after its last saved state is removed, since those steps are done again.
    pub(crate) fn open(run: &Path, step: u64) -> Result<Self> {
        let path = run.join("metrics.jsonl");
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(e) => return Err(Error::io(&path, e)),
        };
        // A kill may have cut the last line short; it belongs to a step after the state.
        let parsed = text
            .lines()
            .map_while(|line| serde_json::from_str::<Metric>(line).ok());
        let metrics: Vec<Metric> = parsed.filter(|m| m.step() <= step).collect();
        let mut kept = String::new();
        for metric in &metrics {
            kept.push_str(&line(&path, metric)?);
        }
        write_text(&path, &kept)?;
        let file = File::options()
            .append(true)
            .open(&path)
            .map_err(|e| Error::io(&path, e))?;
        Ok(Self {
            path,
            file,
            metrics,
        })
    }

    pub(crate) fn push(&mut self, metric: Metric) -> Result<()> {
        let line = line(&self.path, &metric)?;
        self.file
            .write_all(line.as_bytes())
            .map_err(|e| Error::io(&self.path, e))?;
        self.metrics.push(metric);
        Ok(())
    }

    pub(crate) fn metrics(&self) -> &[Metric] {
        &self.metrics
    }
}

fn line(path: &Path, metric: &Metric) -> Result<String> {
    let text = serde_json::to_string(metric).map_err(|e| Error::run_folder(path, e.to_string()))?;
    Ok(text + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_named_by_its_whole_key() {
        let (a, b) = (
            json!({"o": {"x": [1, {"y": 2}], "z": 3}}),
            json!({"o": {"x": [1, {"y": 5}], "z": 3}}),
        );
        let found = first_difference("", &a, &b).unwrap();
        assert_eq!(
            found,
            ("o.x.1.y".to_string(), "2".to_string(), "5".to_string())
        );
        assert_eq!(first_difference("", &a, &a), None);
        assert_eq!(first_difference("", &a, &json!({})).unwrap().0, "o");
    }

    #[test]
    fn the_log_forgets_steps_after_the_state_and_half_lines() {
        let folder = tempfile::tempdir().unwrap();
        let report = |step| {
            let (source, loss) = ("s".to_string(), 1.0);
            Metric::Validation(ValidationReport {
                step,
                source,
                loss,
                perplexity: Some(loss.exp()),
                figures: Default::default(),
            })
        };
        let mut log = MetricsLog::open(folder.path(), 0).unwrap();
        (1..=4).for_each(|step| log.push(report(step)).unwrap());
        log.file.write_all(b"{\"kind\":\"step\",\"st").unwrap();
        let mut log = MetricsLog::open(folder.path(), 3).unwrap();
        assert_eq!(log.metrics(), [report(1), report(2), report(3)]);
        log.push(report(4)).unwrap();
        let text = std::fs::read_to_string(folder.path().join("metrics.jsonl")).unwrap();
        assert_eq!(text.lines().count(), 4);
    }
}
