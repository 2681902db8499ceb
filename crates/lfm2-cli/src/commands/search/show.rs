//! What `lfm2 search` writes for a hit.

use std::io::{self, Write};

use anyhow::Result;
use lfm2::retrieval::{Answer, Meeting};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::ui::{json_line, screen};

/// Characters of a hit's text that are shown where nobody asks for an explanation.
const SNIPPET: usize = 300;
/// How close words have to be to be in colour.
const CLOSE: f32 = 0.5;

const BOLD: &str = "\x1b[1m";
const DIM: &str = "\x1b[2m";
const GREEN: &str = "\x1b[32m";
const RESET: &str = "\x1b[0m";

/// Whether to write colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Paint {
    Plain,
    Colour,
}

impl Paint {
    /// The text, which may be anything, in a colour.
    fn paint(self, text: &str, colour: &str) -> String {
        let text = screen::visible(text);
        match self {
            Self::Plain => text.into_owned(),
            Self::Colour => format!("{colour}{text}{RESET}"),
        }
    }
}

/// A hit and what belongs to it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shown<'a> {
    pub(super) question: &'a str,
    pub(super) rank: usize,
    pub(super) answer: &'a Answer,
    pub(super) meetings: Option<&'a [Meeting]>,
}

/// The line that `--json` writes.
#[derive(Debug, Serialize)]
struct Row<'a> {
    question: &'a str,
    rank: usize,
    score: f32,
    id: &'a str,
    document: &'a str,
    title: &'a str,
    heading: &'a str,
    line: Option<u64>,
    text: &'a str,
    #[serde(skip_serializing_if = "Map::is_empty")]
    fields: &'a Map<String, Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    explanation: Option<&'a [Meeting]>,
}

impl Shown<'_> {
    pub(super) fn json(&self) -> Result<()> {
        let answer = self.answer;
        json_line(&Row {
            question: self.question,
            rank: self.rank,
            score: answer.score,
            id: &answer.id,
            document: &answer.document,
            title: &answer.title,
            heading: &answer.heading,
            line: answer.line,
            text: &answer.text,
            fields: &answer.fields,
            explanation: self.meetings,
        })
    }

    pub(super) fn print(&self, paint: Paint) -> Result<()> {
        let mut out = io::stdout().lock();
        let answer = self.answer;
        let place = match answer.line {
            Some(line) => format!("{}:{line}", answer.document),
            None => answer.document.clone(),
        };
        let names = [&answer.title, &answer.heading];
        let names = names.into_iter().filter(|name| !name.is_empty());
        let names: Vec<&str> = names.map(String::as_str).collect();
        writeln!(
            out,
            "{:>2}. {}  {}  {}",
            self.rank,
            paint.paint(&place, BOLD),
            screen::visible(&names.join(" > ")),
            paint.paint(&format!("{:.3}", answer.score), DIM),
        )?;
        match self.meetings {
            None => writeln!(out, "    {}", screen::visible(&snippet(&answer.text)))?,
            Some(meetings) => {
                let passage = answer.passage();
                for line in coloured(&passage, meetings, paint).lines() {
                    writeln!(out, "    {line}")?;
                }
                for line in explanation(meetings) {
                    writeln!(out, "    {}", paint.paint(&line, DIM))?;
                }
            }
        }
        Ok(writeln!(out)?)
    }
}

/// The beginning of a text on one line.
fn snippet(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut places = line.char_indices().skip(SNIPPET);
    match places.next() {
        None => line,
        Some((end, _)) => {
            let head = line.get(..end).unwrap_or_default();
            let words = head.rsplit_once(' ').map_or(head, |(words, _)| words);
            format!("{words} …")
        }
    }
}

/// The passage with the words that were met in colour.
fn coloured(passage: &str, meetings: &[Meeting], paint: Paint) -> String {
    let mut met = vec![false; passage.len()];
    for meeting in meetings
        .iter()
        .filter(|m| m.similarity >= CLOSE && !m.filler)
    {
        let bytes = meeting.bytes.clone().and_then(|bytes| met.get_mut(bytes));
        if let Some(bytes) = bytes {
            bytes.fill(true);
        }
    }
    let mut text = String::new();
    let mut run = String::new();
    let mut is_met = false;
    for (at, c) in passage.char_indices() {
        let here = met.get(at).copied().unwrap_or(false) && !c.is_whitespace();
        if here != is_met || c == '\n' {
            push(&mut text, &run, is_met, paint);
            run.clear();
            is_met = here;
        }
        run.push(c);
    }
    push(&mut text, &run, is_met, paint);
    text
}

fn push(text: &mut String, run: &str, is_met: bool, paint: Paint) {
    if run.is_empty() {
        return;
    }
    match is_met {
        true => text.push_str(&paint.paint(run, GREEN)),
        false => text.push_str(&screen::visible(run)),
    }
}

/// One line per word of the question, and one for the filler behind it.
fn explanation(meetings: &[Meeting]) -> Vec<String> {
    let width = |text: &str| text.trim().chars().count();
    let words = meetings.iter().filter(|meeting| !meeting.filler);
    let widest = words.clone().map(|m| width(&m.query)).max().unwrap_or(0);
    let mut lines: Vec<String> = words
        .map(|meeting| {
            let pad = " ".repeat(widest - width(&meeting.query));
            let text = meeting.text.trim();
            format!(
                "{}{pad}  {:5.2}  {text}",
                meeting.query.trim(),
                meeting.similarity
            )
        })
        .collect();
    let filler = meetings.iter().filter(|meeting| meeting.filler);
    let (count, sum) = filler.fold((0, 0.0), |(n, sum), m| (n + 1, sum + m.similarity));
    if count > 0 {
        lines.push(format!("and {sum:.2} by {count} tokens of filler"));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meeting(query: &str, text: &str, similarity: f32, bytes: std::ops::Range<usize>) -> Meeting {
        let mut meeting = Meeting::default();
        meeting.query = query.into();
        meeting.text = text.into();
        meeting.similarity = similarity;
        meeting.bytes = Some(bytes);
        meeting
    }

    #[test]
    fn long_texts_end_between_words() {
        assert_eq!(snippet(" a\n b\tc "), "a b c");
        let cut = snippet(&"word ".repeat(100));
        assert!(
            cut.ends_with("word …") && cut.chars().count() <= SNIPPET + 2,
            "{cut}"
        );
        assert_eq!(snippet(&"é".repeat(400)).chars().count(), SNIPPET + 2);
    }

    #[test]
    fn met_words_are_in_colour_and_hostile_ones_are_not_let_through() {
        let meetings = [
            meeting("wing", "wing", 0.9, 2..6),
            meeting("far", "flow", 0.1, 7..11),
        ];
        let text = coloured("a wing\x1b flow", &meetings, Paint::Colour);
        assert_eq!(text, "a \x1b[32mwing\x1b[0m\u{FFFD} flow");
        assert_eq!(
            coloured("a wing flow", &meetings, Paint::Plain),
            "a wing flow"
        );
        assert_eq!(coloured("a", &meetings, Paint::Colour), "a");
    }

    #[test]
    fn words_are_listed_and_filler_is_summed_up() {
        let mut filler = meeting("<|im_end|>", "wing", 0.25, 2..6);
        filler.filler = true;
        let meetings = [
            meeting(" wing", "wing", 0.9, 2..6),
            meeting("?", "a", 0.1, 0..1),
            filler.clone(),
            filler,
        ];
        assert_eq!(
            explanation(&meetings),
            [
                "wing   0.90  wing",
                "?      0.10  a",
                "and 0.50 by 2 tokens of filler"
            ]
        );
        assert!(explanation(&[]).is_empty());
    }
}
