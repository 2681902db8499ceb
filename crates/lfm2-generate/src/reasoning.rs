//! Reasoning in front of an answer: `<think>...</think>`, or `<|cot_start|>...<|cot_end|>`.
//!
//! For answers without tool calls; [`crate::ToolCallStream`] separates both at once.

use crate::tools::{Event, Mode, Scanner};

/// A piece of an answer of a reasoning model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReasoningEvent {
    /// Reasoning, without its marks.
    Reasoning(String),
    /// The answer.
    Answer(String),
}

/// Splits reasoning from the answer while it is being written.
///
/// A block that never ends is reasoning up to the end; an end mark without beginning is text.
///
/// ```
/// use lfm2_generate::{ReasoningEvent, ReasoningStream};
/// let mut stream = ReasoningStream::new();
/// let pieces = stream.push("<think>Simple.</think>Four.");
/// assert_eq!(pieces, [ReasoningEvent::Reasoning("Simple.".into()), ReasoningEvent::Answer("Four.".into())]);
/// ```
#[derive(Debug, Clone)]
pub struct ReasoningStream {
    scanner: Scanner,
}

impl ReasoningStream {
    /// A stream at the beginning of an answer.
    pub fn new() -> Self {
        Self {
            scanner: Scanner::new(Mode::Reasoning),
        }
    }

    /// A stream for a prompt that has already opened a `<think>` block.
    pub fn inside_think_block() -> Self {
        Self {
            scanner: Scanner::new(Mode::Reasoning).inside_think_block(),
        }
    }

    /// Takes the next piece of text and returns what is certain by now.
    pub fn push(&mut self, piece: &str) -> Vec<ReasoningEvent> {
        self.scanner
            .push(piece)
            .into_iter()
            .filter_map(piece_of)
            .collect()
    }

    /// Ends the answer and returns what was held back; the stream can then be used again.
    pub fn finish(&mut self) -> Vec<ReasoningEvent> {
        self.scanner
            .finish()
            .into_iter()
            .filter_map(piece_of)
            .collect()
    }
}

impl Default for ReasoningStream {
    fn default() -> Self {
        Self::new()
    }
}

/// The reasoning and the answer of a whole text.
pub fn split_reasoning(text: &str) -> (String, String) {
    let mut stream = ReasoningStream::new();
    let mut pieces = stream.push(text);
    pieces.extend(stream.finish());
    let (mut reasoning, mut answer) = (String::new(), String::new());
    for piece in pieces {
        match piece {
            ReasoningEvent::Reasoning(text) => reasoning.push_str(&text),
            ReasoningEvent::Answer(text) => answer.push_str(&text),
        }
    }
    (reasoning, answer)
}

fn piece_of(event: Event) -> Option<ReasoningEvent> {
    match event {
        Event::Reasoning(text) => Some(ReasoningEvent::Reasoning(text)),
        Event::Content(text) => Some(ReasoningEvent::Answer(text)),
        // Not looked for in this mode.
        Event::Call(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_of_both_kinds_are_reasoning() {
        for (open, close) in [("<think>", "</think>"), ("<|cot_start|>", "<|cot_end|>")] {
            let text = format!("{open}a < b{close}\n\nYes.");
            assert_eq!(split_reasoning(&text), ("a < b".into(), "\n\nYes.".into()));
        }
    }

    #[test]
    fn marks_without_partner_follow_the_rule() {
        assert_eq!(
            split_reasoning("<think>no end"),
            ("no end".into(), String::new())
        );
        assert_eq!(
            split_reasoning("a</think>b"),
            (String::new(), "a</think>b".into())
        );
        assert_eq!(
            split_reasoning("a <thin"),
            (String::new(), "a <thin".into())
        );
        assert_eq!(
            split_reasoning("<think>a<|cot_end|></think>b").0,
            "a<|cot_end|>"
        );
    }

    #[test]
    fn a_prompt_can_open_the_block() {
        let mut stream = ReasoningStream::inside_think_block();
        let mut pieces = stream.push("because</thi");
        pieces.extend(stream.push("nk>so"));
        assert_eq!(
            pieces,
            [
                ReasoningEvent::Reasoning("because".into()),
                ReasoningEvent::Answer("so".into())
            ]
        );
    }

    #[test]
    fn calls_stay_in_the_answer() {
        let text = "<|tool_call_start|>[f()]<|tool_call_end|>";
        assert_eq!(split_reasoning(text).1, text);
    }
}
