//! Questions on a text given in the prompt: how much of its context a model uses.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::{Answer, Question};

/// One question: the prompt and a text that a right answer contains, in capitals or not, since an answer
/// that is a whole sentence begins with a capital.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecallRow {
    /// What the user says.
    pub prompt: String,
    /// What has to occur in the model's answer.
    pub answer: String,
}

impl Question for RecallRow {
    /// Whether the answer is right.
    type Verdict = bool;

    fn prompt(&self) -> Cow<'_, str> {
        Cow::Borrowed(&self.prompt)
    }

    fn judge(&self, output: &str) -> bool {
        output.to_lowercase().contains(&self.answer.to_lowercase())
    }
}

/// What a measurement came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RecallReport {
    /// Share of rows whose answer is right.
    pub accuracy: f64,
    /// The number of rows.
    pub rows: usize,
}

impl RecallReport {
    /// Counts answers; an accuracy of 0 where there is none.
    pub fn of(answers: &[Answer<bool>]) -> Self {
        let right = answers.iter().filter(|answer| answer.verdict).count();
        Self {
            accuracy: right as f64 / answers.len().max(1) as f64,
            rows: answers.len(),
        }
    }
}
