//! Measuring what a model can do.
//!
//! | I want to know | use |
//! |---|---|
//! | how well a text is predicted | [`perplexity`] |
//! | whether the right one of some answers is the likeliest | [`choice`], [`ChoiceRow`] |
//! | whether facts of a text in the prompt are found | [`answer`], [`RecallRow`] |
//! | whether word problems are solved | [`answer`], [`NumberRow`] |
//! | whether rules on the form of an answer are kept | [`answer`], [`RuleRow`] |
//! | something else that can be told from an answer | [`answer`] with a [`Question`] of my own |
//!
//! Outcomes go into a [`RowLog`], in memory or in a file; with the latter, a measurement that was stopped
//! goes on where it was. A report is counted from the log, so it is the same either way.

mod answer;
mod choice;
mod log;
mod numbers;
mod perplexity;
mod recall;
mod rules;

pub(crate) use answer::greedy;
pub use answer::{Answer, AnswerOptions, Answerer, Question, answer, read_rows, rows_of};
pub use choice::{
    ChoiceOptions, ChoiceOutcome, ChoiceReport, ChoiceRow, ChoiceScore, Frame, choice,
};
pub use log::RowLog;
pub use numbers::{NumberReport, NumberRow, NumberVerdict, last_number};
pub use perplexity::{BatchLoss, PerplexityOptions, PerplexityReport, perplexity};
pub use recall::{RecallReport, RecallRow};
pub use rules::{Rule, RuleReport, RuleRow, RuleScore, RuleVerdict};
