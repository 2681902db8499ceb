//! Where lines that a person writes come from: a line editor, or a pipe.

use std::env;
use std::io::{self, BufRead, IsTerminal, Read};
use std::path::PathBuf;

use anyhow::{Context, Result};
use lfm2::hub::{Error, Limits};
use rustyline::error::ReadlineError;
use rustyline::{Config, DefaultEditor};

use crate::ui::input::utf8;

const HISTORY_LINES: usize = 1000;

/// Which lines are remembered together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum History {
    /// What was said to models.
    Chat,
    /// What was searched for.
    Search,
}

impl History {
    /// The name of its file.
    fn file(self) -> &'static str {
        match self {
            Self::Chat => "chat-history",
            Self::Search => "search-history",
        }
    }
}

/// What came next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Line {
    Text(String),
    /// Ctrl-C at an empty prompt, once.
    Interrupted,
    End,
}

pub(crate) enum Lines {
    Terminal(Box<Terminal>),
    Pipe(Box<dyn BufRead>),
}

impl Lines {
    pub(crate) fn open(history: History) -> Result<Self> {
        if io::stdin().is_terminal() {
            return Ok(Self::Terminal(Box::new(Terminal::open(history)?)));
        }
        Ok(Self::Pipe(Box::new(io::stdin().lock())))
    }

    pub(crate) fn is_terminal(&self) -> bool {
        matches!(self, Self::Terminal(_))
    }

    /// The next line that is not empty.
    pub(crate) fn next(&mut self) -> Result<Line> {
        loop {
            let line = match self {
                Self::Terminal(terminal) => terminal.read()?,
                Self::Pipe(reader) => read_line(reader)?,
            };
            match line {
                Line::Text(text) if text.trim().is_empty() => {}
                line => return Ok(line),
            }
        }
    }

    /// Keeps the history.
    pub(crate) fn close(self) {
        if let Self::Terminal(terminal) = self {
            terminal.save_history();
        }
    }
}

/// One line of a pipe, without its end.
fn read_line(reader: &mut dyn BufRead) -> Result<Line> {
    let limit = Limits::default().encode_bytes as u64;
    let mut bytes = Vec::new();
    let read = reader
        .take(limit + 1)
        .read_until(b'\n', &mut bytes)
        .context("reading stdin")?;
    if read == 0 {
        return Ok(Line::End);
    }
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
    } else if bytes.len() as u64 > limit {
        return Err(Error::Limit {
            what: "bytes of a line of stdin".into(),
            limit,
            found: limit + 1,
        }
        .into());
    }
    if bytes.last() == Some(&b'\r') {
        bytes.pop();
    }
    Ok(Line::Text(utf8(bytes, "a line of stdin")?))
}

/// A line editor with a history.
pub(crate) struct Terminal {
    editor: DefaultEditor,
    history: Option<PathBuf>,
    /// Whether the last key was Ctrl-C.
    interrupted: bool,
}

impl Terminal {
    fn open(history: History) -> Result<Self> {
        let config = Config::builder().max_history_size(HISTORY_LINES)?.build();
        let mut editor = DefaultEditor::with_config(config)?;
        let history = history_file(history, |name| env::var_os(name).map(PathBuf::from));
        if let Some(path) = &history {
            // The first conversation has no history.
            let _ = editor.load_history(path);
        }
        Ok(Self {
            editor,
            history,
            interrupted: false,
        })
    }

    fn read(&mut self) -> Result<Line> {
        let mut text = String::new();
        loop {
            let prompt = if text.is_empty() { "> " } else { ". " };
            match self.editor.readline(prompt) {
                Ok(line) => {
                    self.interrupted = false;
                    if let Some(begun) = line.strip_suffix('\\') {
                        text.push_str(begun);
                        text.push('\n');
                        continue;
                    }
                    text.push_str(&line);
                    self.editor.add_history_entry(text.as_str())?;
                    return Ok(Line::Text(text));
                }
                Err(ReadlineError::Interrupted) if self.interrupted => return Ok(Line::End),
                Err(ReadlineError::Interrupted) => {
                    self.interrupted = true;
                    eprintln!("(Ctrl-C again or Ctrl-D ends)");
                    return Ok(Line::Interrupted);
                }
                Err(ReadlineError::Eof) => return Ok(Line::End),
                Err(error) => return Err(error).context("reading the terminal"),
            }
        }
    }

    fn save_history(mut self) {
        let Some(path) = self.history else { return };
        let folder = path.parent().map_or(Ok(()), std::fs::create_dir_all);
        if let Err(error) = folder
            .map_err(ReadlineError::Io)
            .and_then(|()| self.editor.save_history(&path))
        {
            tracing::warn!("the history was not saved: {}: {error}", path.display());
        }
    }
}

/// `LFM2_HISTORY`, else a file in the user's folder for such things.
fn history_file(history: History, variable: impl Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    if let Some(path) = variable("LFM2_HISTORY") {
        return Some(path).filter(|path| !path.as_os_str().is_empty());
    }
    let state = variable("XDG_STATE_HOME").filter(|path| path.is_absolute());
    let home = || {
        Some(
            variable("HOME")
                .or_else(|| variable("USERPROFILE"))?
                .join(".local/state"),
        )
    };
    Some(state.or_else(home)?.join("lfm2").join(history.file()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(mut bytes: &[u8]) -> Vec<Line> {
        let mut lines = Vec::new();
        loop {
            lines.push(read_line(&mut bytes).unwrap());
            if lines.last() == Some(&Line::End) {
                return lines;
            }
        }
    }

    #[test]
    fn lines_of_a_pipe_end_in_any_way() {
        let text = |text: &str| Line::Text(text.into());
        assert_eq!(
            lines(b"a\r\nb\n\nc"),
            [text("a"), text("b"), text(""), text("c"), Line::End]
        );
        assert_eq!(lines(b""), [Line::End]);
    }

    #[test]
    fn tk_04_a_broken_line_is_refused_with_its_place() {
        let error = read_line(&mut &b"ab\xC3\n"[..]).unwrap_err();
        assert_eq!(error.to_string(), "a line of stdin is not utf-8 at byte 2");
    }

    #[test]
    fn a_line_without_end_is_refused() {
        let mut endless = io::BufReader::new(io::repeat(b'a'));
        assert!(
            read_line(&mut endless)
                .unwrap_err()
                .to_string()
                .contains("over the limit")
        );
    }

    #[test]
    fn the_history_is_where_it_should_be() {
        let file = |set: &'static [(&str, &str)]| {
            history_file(History::Chat, move |name| {
                set.iter()
                    .find(|(key, _)| *key == name)
                    .map(|(_, value)| PathBuf::from(value))
            })
        };
        assert_eq!(
            file(&[("LFM2_HISTORY", "h"), ("HOME", "/u")]),
            Some("h".into())
        );
        assert_eq!(file(&[("LFM2_HISTORY", ""), ("HOME", "/u")]), None);
        assert_eq!(
            file(&[("XDG_STATE_HOME", "/s"), ("HOME", "/u")]),
            Some("/s/lfm2/chat-history".into())
        );
        assert_eq!(
            file(&[("HOME", "/u")]),
            Some("/u/.local/state/lfm2/chat-history".into())
        );
        assert_eq!(file(&[]), None);
    }
}
