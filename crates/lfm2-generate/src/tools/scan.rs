//! [`Scanner`]: model output, in pieces of any size, to reasoning, content and tool calls.
//!
//! The one place that knows where think blocks and calls begin and end. Events do not depend on
//! how the text was cut into pieces, except that a stretch of text may come as several events.

use super::{TOOL_CALL_END, TOOL_CALL_START, ToolCall, parse};

/// Marks around reasoning: plain text of the thinking models, tokens of the math model.
const THINK_BLOCKS: [(&str, &str); 2] = [("<think>", "</think>"), ("<|cot_start|>", "<|cot_end|>")];

/// What a scanner looks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Think blocks only; calls stay text.
    Reasoning,
    /// Think blocks and calls.
    Calls,
}

/// A piece of output.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Event {
    Reasoning(String),
    Content(String),
    Call(ToolCall),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Content,
    /// Inside a think block with this end.
    Reasoning(&'static str),
    /// Inside a call; the start marker has been taken away.
    Call,
}

/// The state between two pieces.
#[derive(Debug, Clone)]
pub(crate) struct Scanner {
    mode: Mode,
    state: State,
    /// Text that may still become part of a marker or of a call.
    held: String,
    /// How far the held text of a call has been searched for its end.
    searched: usize,
}

impl Scanner {
    /// A scanner at the beginning of an answer.
    pub(crate) fn new(mode: Mode) -> Self {
        Self {
            mode,
            state: State::Content,
            held: String::new(),
            searched: 0,
        }
    }

    /// The same, when the prompt has already opened a `<think>` block.
    pub(crate) fn inside_think_block(mut self) -> Self {
        self.state = State::Reasoning(THINK_BLOCKS[0].1);
        self
    }

    /// Takes the next piece and returns what is certain by now.
    pub(crate) fn push(&mut self, piece: &str) -> Vec<Event> {
        self.held.push_str(piece);
        let mut events = Vec::new();
        while self.step(&mut events) {}
        events
    }

    /// Ends the text. A call without end marker counts when it is complete; other held text is
    /// what it looks like.
    pub(crate) fn finish(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        let held = std::mem::take(&mut self.held);
        match self.state {
            State::Content => emit(&mut events, Event::Content, held),
            State::Reasoning(_) => emit(&mut events, Event::Reasoning, held),
            State::Call => match parse::calls(&held) {
                Some(calls) => events.extend(calls.into_iter().map(Event::Call)),
                None => emit(
                    &mut events,
                    Event::Content,
                    format!("{TOOL_CALL_START}{held}"),
                ),
            },
        }
        self.state = State::Content;
        self.searched = 0;
        events
    }

    /// Goes to the next marker; `false` when more text is needed.
    fn step(&mut self, events: &mut Vec<Event>) -> bool {
        match self.state {
            State::Content => self.step_content(events),
            State::Reasoning(end) => {
                let found = self.take_until(&[end], |text| emit(events, Event::Reasoning, text));
                if found.is_some() {
                    self.state = State::Content;
                }
                found.is_some()
            }
            State::Call => self.step_call(events),
        }
    }

    fn step_content(&mut self, events: &mut Vec<Event>) -> bool {
        let [(think, think_end), (cot, cot_end)] = THINK_BLOCKS;
        let starts = [think, cot, TOOL_CALL_START];
        let starts = match self.mode {
            Mode::Calls => &starts[..],
            Mode::Reasoning => &starts[..2],
        };
        let found = self.take_until(starts, |text| emit(events, Event::Content, text));
        self.state = match found {
            Some(0) => State::Reasoning(think_end),
            Some(1) => State::Reasoning(cot_end),
            Some(_) => State::Call,
            None => State::Content,
        };
        found.is_some()
    }

    fn step_call(&mut self, events: &mut Vec<Event>) -> bool {
        let unsearched = self.held.get(self.searched..).unwrap_or_default();
        let Some(at) = unsearched.find(TOOL_CALL_END) else {
            // Searching goes on where the end could begin in what has come.
            self.searched = self.held.len() - partial_marker(&self.held, &[TOOL_CALL_END]);
            return false;
        };
        let end = self.searched + at;
        let rest = self.held.split_off(end + TOOL_CALL_END.len());
        let mut text = std::mem::replace(&mut self.held, rest);
        match parse::calls(text.get(..end).unwrap_or_default()) {
            Some(calls) => events.extend(calls.into_iter().map(Event::Call)),
            None => {
                text.insert_str(0, TOOL_CALL_START);
                emit(events, Event::Content, text);
            }
        }
        self.searched = 0;
        self.state = State::Content;
        true
    }

    /// Hands over the text in front of the first of `markers` and drops the marker; without one,
    /// hands over everything that cannot be the beginning of one. Returns the marker's index.
    fn take_until(&mut self, markers: &[&str], mut out: impl FnMut(String)) -> Option<usize> {
        let first = markers
            .iter()
            .enumerate()
            .filter_map(|(index, marker)| Some((self.held.find(marker)?, index, marker.len())))
            .min();
        let (end, marker) = match first {
            Some((at, index, length)) => (at, Some((index, length))),
            None => (self.held.len() - partial_marker(&self.held, markers), None),
        };
        let rest = self
            .held
            .split_off(end + marker.map_or(0, |(_, length)| length));
        let mut text = std::mem::replace(&mut self.held, rest);
        text.truncate(end);
        out(text);
        marker.map(|(index, _)| index)
    }
}

/// Bytes at the end of `text` that may be the beginning of a marker. The markers are ASCII.
fn partial_marker(text: &str, markers: &[&str]) -> usize {
    let is_partial = |length: &usize| {
        markers
            .iter()
            .any(|marker| marker.get(..*length).is_some_and(|m| text.ends_with(m)))
    };
    let longest = markers
        .iter()
        .map(|marker| marker.len() - 1)
        .max()
        .unwrap_or_default();
    (1..=longest).rev().find(is_partial).unwrap_or_default()
}

fn emit(events: &mut Vec<Event>, kind: fn(String) -> Event, text: String) {
    if !text.is_empty() {
        events.push(kind(text));
    }
}
