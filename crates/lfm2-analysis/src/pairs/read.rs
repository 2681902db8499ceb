//! Reading pairs from CSV and JSON lines.

use std::path::Path;

use serde_json::Value;

use super::{DropReason, Dropped, Pair, PairSet, Reading, csv};
use crate::error::{Error, Result};

/// Larger files are refused; a million pairs are far below.
const MOST_BYTES: u64 = 1 << 28;
/// What the two columns may be called, in lower case and without spaces and underscores.
const NAMES: [[&str; 2]; 2] = [["sentence1", "first"], ["sentence2", "second"]];
/// What the files of the published study add to a property's name.
const PUBLISHED_SUFFIX: &str = "_ldsps";

impl PairSet {
    /// Reads pairs from a `.csv` file with columns `Sentence1` and `Sentence2` (or `first` and
    /// `second`) or from a `.jsonl` file of objects with these keys. Spaces around sentences are cut,
    /// rows without two sentences left out; [`reading`](Self::reading) says how many. The property is
    /// called like the file.
    ///
    /// # Errors
    /// When the file cannot be read, is no text, is in another form or holds no pair.
    pub fn read(path: &Path) -> Result<Self> {
        let text = text(path)?;
        let extension = path
            .extension()
            .and_then(|extension| extension.to_str())
            .map(str::to_ascii_lowercase);
        let (pairs, reading) = match extension.as_deref() {
            Some("csv") => from_csv(path, &text)?,
            Some("jsonl" | "ndjson") => from_json_lines(path, &text)?,
            _ => {
                return Err(wrong(
                    path,
                    1,
                    "expected a file that ends in .csv or .jsonl".to_owned(),
                ));
            }
        };
        if pairs.is_empty() {
            let one_sided = reading.dropped_for(DropReason::OneSided);
            let detail = format!(
                "{} rows, {one_sided} of them with a side missing, {} with too many cells",
                reading.rows,
                reading.dropped.len() - one_sided
            );
            return Err(Error::NoPairs {
                path: path.to_path_buf(),
                detail,
            });
        }
        let name = path
            .file_stem()
            .map(|stem| stem.to_string_lossy().into_owned())
            .unwrap_or_default();
        Ok(Self {
            name: name
                .strip_suffix(PUBLISHED_SUFFIX)
                .unwrap_or(&name)
                .to_owned(),
            pairs,
            reading: Some(reading),
        })
    }
}

fn wrong(path: &Path, line: usize, detail: String) -> Error {
    Error::PairFile {
        path: path.to_path_buf(),
        line,
        detail,
    }
}

fn text(path: &Path) -> Result<String> {
    let size = std::fs::metadata(path)
        .map_err(|source| Error::io(path, source))?
        .len();
    if size > MOST_BYTES {
        return Err(Error::TooLarge {
            path: path.to_path_buf(),
            found: size,
            limit: MOST_BYTES,
        });
    }
    let bytes = std::fs::read(path).map_err(|source| Error::io(path, source))?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let good = error.utf8_error().valid_up_to();
        let line = 1 + error.as_bytes()[..good]
            .iter()
            .filter(|byte| **byte == b'\n')
            .count();
        wrong(path, line, "the text is not utf-8".to_owned())
    })?;
    Ok(match text.strip_prefix('\u{feff}') {
        Some(rest) => rest.to_owned(),
        None => text,
    })
}

/// Puts trimmed sentences into pairs and counts the rest.
#[derive(Default)]
struct Collector {
    pairs: Vec<Pair>,
    reading: Reading,
}

impl Collector {
    fn add(&mut self, line: usize, sides: [Option<&str>; 2]) {
        self.reading.rows += 1;
        let trimmed = sides.map(|side| side.unwrap_or_default().trim());
        if trimmed.iter().any(|side| side.is_empty()) {
            self.drop_last(line, DropReason::OneSided);
            return;
        }
        for (side, trimmed) in sides.iter().zip(trimmed) {
            self.reading.trimmed += usize::from(*side != Some(trimmed));
        }
        let [first, second] = trimmed.map(str::to_owned);
        self.pairs.push(Pair { first, second });
    }

    fn refuse(&mut self, line: usize, reason: DropReason) {
        self.reading.rows += 1;
        self.drop_last(line, reason);
    }

    fn drop_last(&mut self, line: usize, reason: DropReason) {
        self.reading.dropped.push(Dropped { line, reason });
    }
}

fn plain(name: &str) -> String {
    name.trim().to_lowercase().replace([' ', '_'], "")
}

fn from_csv(path: &Path, text: &str) -> Result<(Vec<Pair>, Reading)> {
    let rows = csv::rows(text).map_err(|line| {
        wrong(
            path,
            line,
            "the quote opened here is never closed".to_owned(),
        )
    })?;
    let Some((header, rows)) = rows.split_first() else {
        return Err(Error::NoPairs {
            path: path.to_path_buf(),
            detail: "the file is empty".to_owned(),
        });
    };
    let names: Vec<String> = header.cells.iter().map(|cell| plain(cell)).collect();
    let column = |allowed: &[&str]| {
        names
            .iter()
            .position(|name| allowed.contains(&name.as_str()))
    };
    let [Some(first), Some(second)] = NAMES.map(|allowed| column(&allowed)) else {
        let found = header.cells.join(",");
        let detail =
            format!("expected a header with \"Sentence1\" and \"Sentence2\", found {found:?}");
        return Err(wrong(path, header.line, detail));
    };
    let mut collector = Collector::default();
    for row in rows {
        if row.cells.len() > header.cells.len() {
            collector.refuse(row.line, DropReason::TooManyCells);
        } else {
            collector.add(
                row.line,
                [first, second].map(|at| row.cells.get(at).map(String::as_str)),
            );
        }
    }
    Ok((collector.pairs, collector.reading))
}

fn from_json_lines(path: &Path, text: &str) -> Result<(Vec<Pair>, Reading)> {
    let mut collector = Collector::default();
    for (at, content) in text.lines().enumerate() {
        let line = at + 1;
        if content.trim().is_empty() {
            continue;
        }
        let value: Value =
            serde_json::from_str(content).map_err(|error| wrong(path, line, error.to_string()))?;
        let Value::Object(object) = value else {
            return Err(wrong(
                path,
                line,
                format!("expected an object, found {}", type_of(&value)),
            ));
        };
        let mut sides = [None, None];
        for (key, value) in &object {
            let key = plain(key);
            let Some(side) = NAMES
                .iter()
                .position(|allowed| allowed.contains(&key.as_str()))
            else {
                continue;
            };
            sides[side] = match value {
                Value::String(sentence) => Some(sentence.as_str()),
                Value::Null => None,
                other => {
                    let detail = format!("{key:?}: expected a string, found {}", type_of(other));
                    return Err(wrong(path, line, detail));
                }
            };
        }
        collector.add(line, sides);
    }
    Ok((collector.pairs, collector.reading))
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}
