//! Transcripts as text, JSON and subtitles.

use std::path::Path;

use anyhow::Result;
use serde::Serialize;

use crate::args::TranscriptFormat;
use crate::ui::{json_line, screen};

/// What is said from one time to another.
#[derive(Debug, Serialize)]
pub(super) struct Part {
    /// Seconds.
    pub(super) start: f64,
    pub(super) end: f64,
    pub(super) text: String,
    /// Whether the model ended it itself, rather than at the most tokens it may write.
    pub(super) complete: bool,
}

/// What is said in a file. JSON is written at the end, everything else part by part.
#[derive(Debug, Serialize)]
pub(super) struct Transcript {
    file: String,
    seconds: f64,
    text: String,
    sections: Vec<Part>,
}

impl Transcript {
    pub(super) fn new(path: &Path, seconds: f64) -> Self {
        Self {
            file: path.display().to_string(),
            seconds,
            text: String::new(),
            sections: Vec::new(),
        }
    }

    /// Takes the next part, whose text is on the screen already if that is the format.
    pub(super) fn push(&mut self, part: Part, format: TranscriptFormat) -> Result<()> {
        if !part.complete {
            eprintln!(
                "{}: the text from {} is cut off, -n allows more",
                screen::visible(&self.file),
                clock(part.start)
            );
        }
        match format {
            TranscriptFormat::Text => screen::print("\n")?,
            TranscriptFormat::Srt => screen::print(&subtitle(self.sections.len() + 1, &part))?,
            TranscriptFormat::Json => {}
        }
        if !self.text.is_empty() && !part.text.is_empty() {
            self.text.push(' ');
        }
        self.text.push_str(&part.text);
        self.sections.push(part);
        Ok(())
    }

    pub(super) fn finish(&self, format: TranscriptFormat) -> Result<()> {
        if self.sections.is_empty() {
            eprintln!("{}: nobody speaks", screen::visible(&self.file));
        }
        match format {
            TranscriptFormat::Json => json_line(self),
            TranscriptFormat::Text | TranscriptFormat::Srt => Ok(()),
        }
    }
}

/// A numbered subtitle.
fn subtitle(number: usize, part: &Part) -> String {
    // An empty line would end it early.
    let lines = part.text.lines().filter(|line| !line.trim().is_empty());
    let text = lines.collect::<Vec<_>>().join("\n");
    let (start, end) = (clock(part.start), clock(part.end));
    format!("{number}\n{start} --> {end}\n{text}\n\n")
}

/// `01:02:03,456`.
fn clock(seconds: f64) -> String {
    let milliseconds = (seconds * 1e3).round() as u64;
    let (seconds, rest) = (milliseconds / 1000, milliseconds % 1000);
    format!(
        "{:02}:{:02}:{:02},{rest:03}",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subtitles_have_numbers_times_and_no_empty_lines() {
        let part = Part {
            start: 59.9996,
            end: 3_725.25,
            text: "one\n\ntwo".into(),
            complete: true,
        };
        assert_eq!(
            subtitle(7, &part),
            "7\n00:01:00,000 --> 01:02:05,250\none\ntwo\n\n"
        );
    }
}
