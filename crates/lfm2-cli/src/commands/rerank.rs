//! `lfm2 rerank`.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;

use anyhow::Result;
use lfm2::hub::Error;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::args::RerankArgs;
use crate::exit::invalid;
use crate::ui::input::TextLines;
use crate::ui::{json_line, open, screen};

/// A text to sort.
#[derive(Debug, Default, PartialEq, Deserialize)]
struct Candidate {
    id: Option<Value>,
    #[serde(default)]
    title: String,
    text: String,
}

impl Candidate {
    /// What the model reads.
    fn passage(&self) -> String {
        match self.title.is_empty() {
            true => self.text.clone(),
            false => format!("{}\n{}", self.title, self.text),
        }
    }
}

/// The line that `--json` writes.
#[derive(Debug, Serialize)]
struct Row<'a> {
    rank: usize,
    score: f32,
    /// The place in the file, from 1.
    place: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a Value>,
    #[serde(skip_serializing_if = "str::is_empty")]
    title: &'a str,
    text: &'a str,
}

pub(crate) fn run(args: &RerankArgs) -> Result<()> {
    if args.question.trim().is_empty() {
        return Err(invalid("the question is empty"));
    }
    let candidates = read(&args.file)?;
    let (model, _) = open::retrieval_model(&args.model, None)?;
    let passages: Vec<String> = candidates.iter().map(Candidate::passage).collect();
    let ranking = model.rerank(&args.question, &passages)?;
    let top = args.top.map_or(usize::MAX, usize::from);
    let mut out = io::stdout().lock();
    for (found, rank) in ranking.iter().take(top).zip(1..) {
        let Some(candidate) = candidates.get(found.index) else {
            continue;
        };
        if args.json {
            json_line(&Row {
                rank,
                score: found.score,
                place: found.index + 1,
                id: candidate.id.as_ref(),
                title: &candidate.title,
                text: &candidate.text,
            })?;
        } else {
            let text = candidate.passage().replace('\n', " ");
            writeln!(out, "{:.3}  {}", found.score, screen::visible(&text))?;
        }
    }
    Ok(())
}

fn read(path: &Path) -> Result<Vec<Candidate>> {
    if path == Path::new("-") {
        return parse(io::stdin().lock(), "stdin");
    }
    let file = File::open(path).map_err(|error| Error::io(path, error))?;
    parse(BufReader::new(file), &path.display().to_string())
}

/// Lines of text, or, when the first one is a JSON object, JSON lines.
fn parse(reader: impl BufRead, name: &str) -> Result<Vec<Candidate>> {
    let mut lines = TextLines::new(reader, name);
    let mut candidates: Vec<Candidate> = Vec::new();
    let mut is_json = None;
    while let Some((number, line)) = lines.read()? {
        let candidate = if *is_json.get_or_insert(line.trim_start().starts_with('{')) {
            let read = serde_json::from_str(&line);
            read.map_err(|error| invalid(format!("{name} line {number}: {error}")))?
        } else {
            Candidate {
                text: line,
                ..Candidate::default()
            }
        };
        candidates.push(candidate);
    }
    Ok(candidates)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_text_or_json() {
        let plain = parse(&b"one\n\n two {\n"[..], "x").unwrap();
        let texts: Vec<_> = plain
            .iter()
            .map(|candidate| candidate.text.as_str())
            .collect();
        assert_eq!(texts, ["one", " two {"]);
        let json = b"{\"id\": 7, \"title\": \"T\", \"text\": \"a\"}\n{\"text\": \"b\", \"x\": 1}\n";
        let json = parse(&json[..], "x").unwrap();
        assert_eq!(
            (json[0].id.as_ref(), json[0].passage()),
            (Some(&Value::from(7)), "T\na".into())
        );
        assert_eq!(json[1].passage(), "b");
        assert!(parse(&b""[..], "x").unwrap().is_empty());
    }

    #[test]
    fn broken_lines_are_named() {
        let error = parse(&b"{\"text\": \"a\"}\nplain\n"[..], "x")
            .unwrap_err()
            .to_string();
        assert!(error.starts_with("x line 2: "), "{error}");
        let error = parse(&b"a\nb\xFF\n"[..], "x").unwrap_err().to_string();
        assert_eq!(error, "x line 2 is not utf-8 at byte 1");
    }
}
