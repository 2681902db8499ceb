//! The prompts of `lfm2 batch`: lines of JSON that anybody may have written.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;

use anyhow::Result;
use lfm2::Message;
use lfm2::hub::Error;
use serde::Deserialize;
use serde_json::Value;

use crate::exit::invalid;
use crate::ui::input::TextLines;

/// One line that is not empty.
#[derive(Debug)]
pub(crate) struct Line {
    /// Counted from one.
    pub(crate) number: usize,
    /// Whatever the caller knows the line by.
    pub(crate) id: Option<Value>,
    pub(crate) work: Work,
}

/// What a line asks for.
#[derive(Debug)]
pub(crate) enum Work {
    Prompt(String),
    Messages(Vec<Message>),
}

#[derive(Deserialize)]
struct Raw {
    id: Option<Value>,
    prompt: Option<String>,
    messages: Option<Vec<Message>>,
}

/// Reads all lines of a file, or of stdin for `-`. The first one that cannot be used is an error, so
/// that it is found before any work is done.
pub(crate) fn read(path: &Path) -> Result<Vec<Line>> {
    if path == Path::new("-") {
        return parse(io::stdin().lock(), "stdin");
    }
    let name = path.display().to_string();
    let file = File::open(path).map_err(|error| Error::io(path, error))?;
    parse(BufReader::new(file), &name)
}

fn parse(reader: impl BufRead, name: &str) -> Result<Vec<Line>> {
    let mut reader = TextLines::new(reader, name);
    let mut lines = Vec::new();
    while let Some((number, text)) = reader.read()? {
        let place = format!("{name} line {number}");
        let raw: Raw =
            serde_json::from_str(&text).map_err(|error| invalid(format!("{place}: {error}")))?;
        let work = match (raw.prompt, raw.messages) {
            (Some(prompt), None) => Work::Prompt(prompt),
            (None, Some(messages)) => Work::Messages(messages),
            (Some(_), Some(_)) => {
                let text = format!("{place}: expected `prompt` or `messages`, found both");
                return Err(invalid(text));
            }
            (None, None) => {
                let text = format!("{place}: expected `prompt` or `messages`, found neither");
                return Err(invalid(text));
            }
        };
        lines.push(Line {
            number,
            id: raw.id,
            work,
        });
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_prompts_or_conversations() {
        let text = r#"{"prompt": "a", "id": 7, "answer": "ignored"}

            {"messages": [{"role": "user", "content": "b"}]}"#;
        let lines = parse(text.as_bytes(), "x").unwrap();
        assert_eq!(
            lines.iter().map(|line| line.number).collect::<Vec<_>>(),
            [1, 3]
        );
        assert_eq!(lines[0].id, Some(Value::from(7)));
        assert!(matches!(&lines[0].work, Work::Prompt(prompt) if prompt == "a"));
        assert!(matches!(&lines[1].work, Work::Messages(messages) if messages[0].text() == "b"));
        assert!(parse(&b""[..], "x").unwrap().is_empty());
    }

    #[test]
    fn broken_lines_are_named() {
        for (text, expected) in [
            (
                "{}",
                "x line 1: expected `prompt` or `messages`, found neither",
            ),
            (
                "{\"prompt\":\"a\",\"messages\":[]}",
                "x line 1: expected `prompt` or `messages`, found both",
            ),
            (
                "{\"prompt\":\"a\"}\n{\"prompt\":",
                "x line 2: EOF while parsing",
            ),
            ("\n[1]", "x line 2: "),
            ("{\"prompt\":7}", "x line 1: invalid type"),
            (
                "{\"messages\":[{\"role\":\"god\",\"content\":\"\"}]}",
                "x line 1: ",
            ),
        ] {
            let error = parse(text.as_bytes(), "x").unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
        let error = parse(&b"{\"prompt\":\"\xff\"}"[..], "x").unwrap_err();
        assert_eq!(error.to_string(), "x line 1 is not utf-8 at byte 11");
    }

    #[test]
    fn endless_lines_are_not_read_to_their_end() {
        let endless = BufReader::new(io::repeat(b'a'));
        let error = parse(endless, "x").unwrap_err().to_string();
        assert!(error.contains("bytes of x line 1"), "{error}");
    }
}
