//! [`ToolCallStream`] and [`parse`]: calls out of text that arrives piece by piece, or at once.

use super::{Event, Mode, Scanner, ToolCall};

/// What a [`ToolCallStream`] found.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum ToolEvent {
    /// Reasoning in front of the answer, without its marks.
    Reasoning(String),
    /// Text of the answer, for people.
    Content(String),
    /// A complete call.
    Call(ToolCall),
}

impl From<Event> for ToolEvent {
    fn from(event: Event) -> Self {
        match event {
            Event::Reasoning(text) => Self::Reasoning(text),
            Event::Content(text) => Self::Content(text),
            Event::Call(call) => Self::Call(call),
        }
    }
}

/// Separates an answer into reasoning, content and tool calls while it is being written.
///
/// Never fails: what looks like a call but is none comes out as content, markers included, as it
/// was written. Text that may still turn out to be a marker is held back.
///
/// ```
/// use lfm2_generate::{ToolCallStream, ToolEvent};
/// let mut stream = ToolCallStream::new();
/// let mut events = stream.push("Let me see.<|tool_call");
/// events.extend(stream.push("_start|>[time(city='Rome')]<|tool_call_end|>"));
/// events.extend(stream.finish());
/// assert_eq!(events[0], ToolEvent::Content("Let me see.".into()));
/// assert!(matches!(&events[1], ToolEvent::Call(call) if call.name == "time"));
/// ```
#[derive(Debug, Clone)]
pub struct ToolCallStream {
    scanner: Scanner,
}

impl ToolCallStream {
    /// A stream at the beginning of an answer.
    pub fn new() -> Self {
        Self {
            scanner: Scanner::new(Mode::Calls),
        }
    }

    /// A stream for a prompt that has already opened a `<think>` block.
    pub fn inside_think_block() -> Self {
        Self {
            scanner: Scanner::new(Mode::Calls).inside_think_block(),
        }
    }

    /// Takes the next piece of text and returns what is certain by now.
    pub fn push(&mut self, piece: &str) -> Vec<ToolEvent> {
        self.scanner
            .push(piece)
            .into_iter()
            .map(ToolEvent::from)
            .collect()
    }

    /// Ends the answer and returns what was held back; the stream can then be used again.
    pub fn finish(&mut self) -> Vec<ToolEvent> {
        self.scanner
            .finish()
            .into_iter()
            .map(ToolEvent::from)
            .collect()
    }
}

impl Default for ToolCallStream {
    fn default() -> Self {
        Self::new()
    }
}

/// A whole answer, taken apart.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct ToolOutput {
    /// The reasoning, without its marks.
    pub reasoning: String,
    /// The text around the calls.
    pub content: String,
    /// The calls in the order written.
    pub calls: Vec<ToolCall>,
}

impl FromIterator<ToolEvent> for ToolOutput {
    fn from_iter<I: IntoIterator<Item = ToolEvent>>(events: I) -> Self {
        let mut output = Self::default();
        for event in events {
            match event {
                ToolEvent::Reasoning(text) => output.reasoning.push_str(&text),
                ToolEvent::Content(text) => output.content.push_str(&text),
                ToolEvent::Call(call) => output.calls.push(call),
            }
        }
        output
    }
}

/// Takes a whole answer apart; the same as one [`ToolCallStream`] over all of it.
///
/// Whether a called tool exists is for the caller to check.
pub fn parse(text: &str) -> ToolOutput {
    let mut stream = ToolCallStream::new();
    let mut events = stream.push(text);
    events.extend(stream.finish());
    events.into_iter().collect()
}
