//! What `lfm2 batch` writes: one line per prompt, in the order of the prompts.

use std::collections::BTreeMap;

use anyhow::{Error, Result};
use lfm2::generate::{Finish, ToolCall, ToolEvent};
use serde::Serialize;
use serde_json::Value;

use crate::commands::report::Usage;
use crate::exit;
use crate::ui::json_line;

/// The results that cannot be written yet, since one before them is missing.
#[derive(Debug, Default)]
pub(crate) struct Results {
    expected: usize,
    ready: BTreeMap<usize, Row>,
    written: usize,
    failed: usize,
    first_error: Option<Error>,
}

/// The place of a result that is not there yet.
#[derive(Debug)]
pub(crate) struct Origin {
    place: usize,
    line: usize,
    id: Option<Value>,
    seed: Option<u64>,
}

#[derive(Debug, Serialize)]
struct Row {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<Value>,
    line: usize,
    #[serde(flatten)]
    outcome: Outcome,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Outcome {
    Answer {
        text: String,
        #[serde(skip_serializing_if = "String::is_empty")]
        reasoning: String,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        tool_calls: Vec<ToolCall>,
        seed: Option<u64>,
        #[serde(flatten)]
        usage: Usage,
    },
    Failure {
        error: String,
    },
}

impl Results {
    /// Reserves the next place.
    pub(crate) fn expect(&mut self, line: usize, id: Option<Value>, seed: Option<u64>) -> Origin {
        let place = self.expected;
        self.expected += 1;
        Origin {
            place,
            line,
            id,
            seed,
        }
    }

    /// A text that was continued.
    pub(crate) fn text(&mut self, origin: Origin, text: String, finish: &Finish) {
        self.answer(origin, vec![ToolEvent::Content(text)], finish);
    }

    /// A conversation that was answered.
    pub(crate) fn answer(&mut self, origin: Origin, events: Vec<ToolEvent>, finish: &Finish) {
        let (mut text, mut reasoning, mut tool_calls) = (String::new(), String::new(), Vec::new());
        for event in events {
            match event {
                ToolEvent::Content(piece) => text.push_str(&piece),
                ToolEvent::Reasoning(piece) => reasoning.push_str(&piece),
                ToolEvent::Call(call) => tool_calls.push(call),
                _ => {}
            }
        }
        let outcome = Outcome::Answer {
            text,
            reasoning,
            tool_calls,
            seed: origin.seed,
            usage: Usage::new(finish),
        };
        self.put(origin, outcome);
    }

    /// A prompt that nothing came of.
    pub(crate) fn failed(&mut self, origin: Origin, error: Error) {
        let text = exit::one_line(&error);
        self.failed += 1;
        if self.first_error.is_none() {
            self.first_error = Some(error.context(format!("line {}", origin.line)));
        }
        self.put(origin, Outcome::Failure { error: text });
    }

    fn put(&mut self, origin: Origin, outcome: Outcome) {
        let row = Row {
            id: origin.id,
            line: origin.line,
            outcome,
        };
        self.ready.insert(origin.place, row);
    }

    /// Writes what is complete up to here.
    pub(crate) fn write(&mut self) -> Result<()> {
        while let Some(row) = self.ready.remove(&self.written) {
            json_line(&row)?;
            self.written += 1;
        }
        Ok(())
    }

    /// How many were written.
    pub(crate) fn written(&self) -> usize {
        self.written
    }

    /// The first failure, when there was one.
    pub(crate) fn outcome(self) -> Result<()> {
        let (failed, all) = (self.failed, self.expected);
        match self.first_error {
            None => Ok(()),
            Some(error) => Err(error.context(format!("{failed} of {all} texts failed"))),
        }
    }
}
