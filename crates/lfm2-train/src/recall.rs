//! Measuring how much of its context a model uses: questions on a text given in the prompt.

use std::path::Path;

use candle_core::{D, Tensor};
use lfm2_generate::{Cancel, ChatPrompt, ChatTemplate, Message, RenderOptions};
use lfm2_hub::{Specials, Tokenizer};
use lfm2_nn::{CacheSpec, Decoder, Input, Segment, Step, Want};
use serde::{Deserialize, Serialize};

use crate::data::DataFile;
use crate::{Error, Result};

/// One question: the prompt and a text that a right answer contains, in capitals or not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecallRow {
    /// What the user says.
    pub prompt: String,
    /// What has to occur in the model's answer.
    pub answer: String,
}

/// Reads rows of `{"prompt", "answer"}` as JSON lines, plain or gzip.
///
/// # Errors
/// [`Error::Data`] with the line of a broken row, [`Error::EmptyData`] when there is none.
pub fn read_recall(path: &Path) -> Result<Vec<RecallRow>> {
    let rows: Vec<_> = DataFile::read(path)?
        .json_lines()?
        .into_iter()
        .map(|line| line.row)
        .collect();
    if rows.is_empty() {
        return Err(Error::EmptyData {
            path: path.to_path_buf(),
            detail: "there is no row in this file".into(),
        });
    }
    Ok(rows)
}

/// How to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecallOptions {
    /// Tokens an answer may have.
    pub max_new_tokens: usize,
    /// Rows that are answered together.
    pub batch: usize,
}

impl Default for RecallOptions {
    fn default() -> Self {
        Self {
            max_new_tokens: 32,
            batch: 16,
        }
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

/// One row's outcome, passed to the caller as it is known.
#[derive(Debug)]
#[non_exhaustive]
pub struct RecallOutcome<'a> {
    /// The row.
    pub row: &'a RecallRow,
    /// What the model said.
    pub output: &'a str,
    /// Whether the output contains the answer; case does not count, since an answer that is a whole
    /// sentence begins with a capital.
    pub right: bool,
}

/// A model with its text side, ready to answer.
#[derive(Clone, Copy)]
pub struct Answerer<'a> {
    /// The model.
    pub model: &'a dyn Decoder,
    /// Text to ids.
    pub tokenizer: &'a Tokenizer,
    /// Conversations to text.
    pub template: &'a ChatTemplate,
    /// Ids that end an answer.
    pub stop_ids: &'a [u32],
}

impl std::fmt::Debug for Answerer<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Answerer")
            .field("stop_ids", &self.stop_ids)
            .finish_non_exhaustive()
    }
}

/// Answers every row greedily, as the only user turn of a conversation, and counts the answers that
/// contain the right one, whatever its case.
///
/// # Errors
/// [`Error::Cancelled`] with the number of finished rows; errors of template, tokenizer and model.
pub fn recall(
    answerer: &Answerer<'_>,
    rows: &[RecallRow],
    options: &RecallOptions,
    cancel: &Cancel,
    mut outcome: impl FnMut(&RecallOutcome<'_>),
) -> Result<RecallReport> {
    if rows.is_empty() || options.batch == 0 {
        return Err(Error::option(
            "recall",
            "expected at least one row and a batch of at least 1, found 0",
        ));
    }
    let (mut right, mut done) = (0, 0);
    for rows in rows.chunks(options.batch) {
        if cancel.is_cancelled() {
            return Err(Error::Cancelled { step: done });
        }
        for (row, output) in rows
            .iter()
            .zip(answerer.answers(rows, options.max_new_tokens)?)
        {
            let hit = output.to_lowercase().contains(&row.answer.to_lowercase());
            right += usize::from(hit);
            outcome(&RecallOutcome {
                row,
                output: &output,
                right: hit,
            });
        }
        done += rows.len() as u64;
    }
    Ok(RecallReport {
        accuracy: right as f64 / rows.len() as f64,
        rows: rows.len(),
    })
}

impl Answerer<'_> {
    /// The greedy answers to `rows`, decoded together.
    fn answers(&self, rows: &[RecallRow], max_new_tokens: usize) -> Result<Vec<String>> {
        let prompts = rows
            .iter()
            .map(|row| self.prompt(row))
            .collect::<Result<Vec<_>>>()?;
        let answers = greedy(self.model, &prompts, self.stop_ids, max_new_tokens)?;
        answers
            .iter()
            .map(|ids| Ok(self.tokenizer.decode(ids, Specials::Skip)?))
            .collect()
    }

    fn prompt(&self, row: &RecallRow) -> Result<Vec<u32>> {
        let messages = [Message::user(row.prompt.as_str())];
        let options = RenderOptions::default();
        let prompt = ChatPrompt::new(self.tokenizer, self.template, &messages, &[], &options)?;
        Ok(prompt.ids().to_vec())
    }
}

/// The likeliest tokens behind every prompt, one by one, up to a stop id or `max_new_tokens`; all prompts
/// together.
pub(crate) fn greedy(
    model: &dyn Decoder,
    prompts: &[Vec<u32>],
    stop_ids: &[u32],
    max_new_tokens: usize,
) -> Result<Vec<Vec<u32>>> {
    let lens: Vec<usize> = prompts.iter().map(Vec::len).collect();
    let longest = lens.iter().max().copied().unwrap_or_default();
    let spec = CacheSpec::rows(prompts.len()).with_capacity(longest + max_new_tokens);
    let mut cache = model.new_cache(spec);
    let mut answers = vec![Vec::new(); prompts.len()];
    let mut step = Step::rows(&lens);
    let mut ids = prompts.concat();
    for _ in 0..max_new_tokens {
        let input = Tensor::new(ids.as_slice(), model.device())?;
        let logits = model.forward(Input::Ids(&input), &step, &mut cache, Want::LastLogits)?;
        let best = logits.argmax(D::Minus1)?.to_vec1::<u32>()?;
        let open = step
            .segments()
            .iter()
            .zip(best)
            .filter(|(_, id)| !stop_ids.contains(id));
        let open: Vec<(usize, u32)> = open.map(|(segment, id)| (segment.row, id)).collect();
        if open.is_empty() {
            break;
        }
        step = Step::segments_of(
            open.iter()
                .map(|&(row, _)| Segment { row, len: 1 })
                .collect(),
        );
        ids = open.iter().map(|&(_, id)| id).collect();
        for (row, id) in open {
            if let Some(answer) = answers.get_mut(row) {
                answer.push(id);
            }
        }
    }
    Ok(answers)
}
