//! Tests that are answered in words: a prompt, a greedy answer, and a judge.

use std::borrow::Cow;
use std::path::Path;

use candle_core::{D, Tensor};
use lfm2_generate::{Cancel, ChatPrompt, ChatTemplate, Message, RenderOptions};
use lfm2_hub::{Specials, Tokenizer};
use lfm2_nn::{CacheSpec, Decoder, Input, Segment, Step, Want};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::RowLog;
use crate::data::DataFile;
use crate::{Error, Result};

/// A row of a test: what is asked, and what is to be said of an answer.
pub trait Question {
    /// What a judge says of an answer.
    type Verdict: Serialize + DeserializeOwned;

    /// What the user says, as the only turn of a conversation.
    fn prompt(&self) -> Cow<'_, str>;

    /// Judges what the model said.
    fn judge(&self, output: &str) -> Self::Verdict;
}

/// A judged answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Answer<V> {
    /// What the model said.
    pub output: String,
    /// What the judge says of it.
    pub verdict: V,
}

/// How questions are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct AnswerOptions {
    /// Tokens an answer may have.
    pub max_new_tokens: usize,
    /// Rows that are answered together.
    pub batch: usize,
}

impl Default for AnswerOptions {
    fn default() -> Self {
        Self {
            max_new_tokens: 32,
            batch: 16,
        }
    }
}

impl AnswerOptions {
    /// Sets how many tokens an answer may have.
    pub fn with_max_new_tokens(mut self, tokens: usize) -> Self {
        self.max_new_tokens = tokens;
        self
    }

    /// Sets how many rows are answered together.
    pub fn with_batch(mut self, rows: usize) -> Self {
        self.batch = rows;
        self
    }
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

/// Reads the rows of a test as JSON lines, plain or gzip.
///
/// # Errors
/// [`Error::Data`] with the line of a broken row, [`Error::EmptyData`] when there is none.
pub fn read_rows<R: DeserializeOwned>(path: &Path) -> Result<Vec<R>> {
    rows_of(&DataFile::read(path)?)
}

/// The rows of a file that is in memory.
///
/// # Errors
/// As [`read_rows`].
pub fn rows_of<R: DeserializeOwned>(file: &DataFile) -> Result<Vec<R>> {
    let lines = file.json_lines()?;
    if lines.is_empty() {
        return Err(Error::EmptyData {
            path: file.path().to_path_buf(),
            detail: "there is no row in this file".into(),
        });
    }
    Ok(lines.into_iter().map(|line| line.row).collect())
}

/// Answers greedily every row that `log` does not hold yet, and judges the answers. `told` hears of every
/// new one.
///
/// # Errors
/// [`Error::InvalidOption`] when there is no row or nothing may be said; [`Error::Cancelled`] with the
/// number of finished rows, which are in the log; errors of template, tokenizer, model and log.
pub fn answer<Q: Question>(
    answerer: &Answerer<'_>,
    rows: &[Q],
    options: &AnswerOptions,
    log: &mut RowLog<Answer<Q::Verdict>>,
    cancel: &Cancel,
    mut told: impl FnMut(&Q, &Answer<Q::Verdict>),
) -> Result<()> {
    if rows.is_empty() || options.batch == 0 || options.max_new_tokens == 0 {
        let detail = "expected at least one row, a batch and an answer of at least 1, found 0";
        return Err(Error::option("rows", detail));
    }
    let open = rows.get(log.rows().len()..).unwrap_or_default();
    for rows in open.chunks(options.batch) {
        if cancel.is_cancelled() {
            let step = log.rows().len() as u64;
            return Err(Error::Cancelled { step });
        }
        let outputs = answerer.answers(rows, options.max_new_tokens)?;
        for (row, output) in rows.iter().zip(outputs) {
            let verdict = row.judge(&output);
            let answer = Answer { output, verdict };
            told(row, &answer);
            log.push(answer)?;
        }
    }
    Ok(())
}

impl Answerer<'_> {
    /// The greedy answers to `rows`, decoded together.
    fn answers<Q: Question>(&self, rows: &[Q], max_new_tokens: usize) -> Result<Vec<String>> {
        let prompts = rows
            .iter()
            .map(|row| self.prompt(row.prompt().as_ref()))
            .collect::<Result<Vec<_>>>()?;
        let answers = greedy(self.model, &prompts, self.stop_ids, max_new_tokens)?;
        answers
            .iter()
            .map(|ids| Ok(self.tokenizer.decode(ids, Specials::Skip)?))
            .collect()
    }

    /// The ids of a conversation in which the user says `text` and the assistant is to begin.
    pub(super) fn prompt(&self, text: &str) -> Result<Vec<u32>> {
        let messages = [Message::user(text)];
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
