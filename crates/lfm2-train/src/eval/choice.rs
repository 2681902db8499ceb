//! Multiple choice: the answer that a model finds likeliest, with and without regard to its length.

use candle_core::{Device, Tensor};
use lfm2_generate::Cancel;
use lfm2_hub::{Bos, SpecialTokens};
use lfm2_nn::{Cache, CacheSpec, Input, Segment, Step, Want};
use serde::{Deserialize, Serialize};

use super::{Answerer, RowLog};
use crate::loss::{self, Target};
use crate::{Error, Result};

/// Ends a turn of the assistant.
const END_OF_TURN: &str = "<|im_end|>";

/// A question with its possible answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChoiceRow {
    /// What comes before the answer.
    pub prompt: String,
    /// The answers.
    pub choices: Vec<String>,
    /// The place of the right one, from 0.
    pub answer: usize,
}

/// How prompt and answer become one text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Frame {
    /// The prompt is what the user says, the answer what the assistant says, its end included.
    #[default]
    Chat,
    /// The answer follows the prompt as it stands, blanks included; tokens do not cross the border.
    Text,
}

/// How to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ChoiceOptions {
    /// How prompt and answer become one text.
    pub frame: Frame,
    /// Rows that are read together.
    pub batch: usize,
}

impl Default for ChoiceOptions {
    fn default() -> Self {
        Self {
            frame: Frame::Chat,
            batch: 8,
        }
    }
}

impl ChoiceOptions {
    /// Sets how prompt and answer become one text.
    pub fn with_frame(mut self, frame: Frame) -> Self {
        self.frame = frame;
        self
    }

    /// Sets how many rows are read together.
    pub fn with_batch(mut self, rows: usize) -> Self {
        self.batch = rows;
        self
    }
}

/// One answer as a model sees it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ChoiceScore {
    /// Log-probability of all its tokens together.
    pub log_prob: f64,
    /// Its scored tokens.
    pub tokens: usize,
    /// Its bytes.
    pub bytes: usize,
}

impl ChoiceScore {
    /// Log-probability per token.
    pub fn per_token(&self) -> f64 {
        self.log_prob / self.tokens as f64
    }

    /// Log-probability per byte: what the choice of a tokenizer does not change.
    pub fn per_byte(&self) -> f64 {
        self.log_prob / self.bytes as f64
    }
}

/// The answers of a row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChoiceOutcome {
    /// In the order of the row.
    pub scores: Vec<ChoiceScore>,
    /// The place of the right one.
    pub answer: usize,
}

impl ChoiceOutcome {
    /// Whether the right answer has the highest value. The first of equals counts as highest, and what
    /// is not a number as lowest.
    pub fn is_right(&self, value: impl Fn(&ChoiceScore) -> f64) -> bool {
        let (mut best, mut most) = (None, f64::NEG_INFINITY);
        for (place, score) in self.scores.iter().enumerate() {
            let value = value(score);
            if value > most {
                (best, most) = (Some(place), value);
            }
        }
        best == Some(self.answer)
    }
}

/// What a measurement came to: shares of rows in which the right answer is the likeliest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChoiceReport {
    /// By the likelihood of whole answers, which favours short ones.
    pub by_sum: f64,
    /// By the likelihood per token.
    pub by_token: f64,
    /// By the likelihood per byte.
    pub by_byte: f64,
    /// What guessing would get.
    pub by_chance: f64,
    /// The number of rows.
    pub rows: usize,
}

impl ChoiceReport {
    /// Counts outcomes; shares of 0 where there is none.
    pub fn of(outcomes: &[ChoiceOutcome]) -> Self {
        let count = outcomes.len().max(1) as f64;
        let share = |value: fn(&ChoiceScore) -> f64| {
            outcomes.iter().filter(|row| row.is_right(value)).count() as f64 / count
        };
        let chance = outcomes
            .iter()
            .map(|row| 1.0 / row.scores.len().max(1) as f64);
        Self {
            by_sum: share(|score| score.log_prob),
            by_token: share(ChoiceScore::per_token),
            by_byte: share(ChoiceScore::per_byte),
            by_chance: chance.sum::<f64>() / count,
            rows: outcomes.len(),
        }
    }
}

/// Measures the likelihood of every answer of every row that `log` does not hold yet. A prompt is read
/// once, however many answers there are. `told` hears of every new row.
///
/// # Errors
/// [`Error::InvalidOption`] naming the row when it has fewer than two answers, an empty one, or no right
/// one; [`Error::Cancelled`] with the number of finished rows, which are in the log; errors of template,
/// tokenizer, model and log.
pub fn choice(
    answerer: &Answerer<'_>,
    rows: &[ChoiceRow],
    options: &ChoiceOptions,
    log: &mut RowLog<ChoiceOutcome>,
    cancel: &Cancel,
    mut told: impl FnMut(&ChoiceRow, &ChoiceOutcome),
) -> Result<()> {
    if rows.is_empty() || options.batch == 0 {
        let detail = "expected at least one row and a batch of at least 1, found 0";
        return Err(Error::option("rows", detail));
    }
    let encoded = rows.iter().enumerate().skip(log.rows().len());
    let encoded = encoded.map(|(i, row)| Encoded::new(answerer, row, options.frame, i + 1));
    let encoded = encoded.collect::<Result<Vec<_>>>()?;
    let open = rows.get(log.rows().len()..).unwrap_or_default();
    for (rows, encoded) in open
        .chunks(options.batch)
        .zip(encoded.chunks(options.batch))
    {
        if cancel.is_cancelled() {
            let step = log.rows().len() as u64;
            return Err(Error::Cancelled { step });
        }
        for (row, scores) in rows.iter().zip(scores(answerer, encoded)?) {
            let answer = row.answer;
            let outcome = ChoiceOutcome { scores, answer };
            told(row, &outcome);
            log.push(outcome)?;
        }
    }
    Ok(())
}

/// A row as ids.
struct Encoded {
    /// All of the prompt but its last token.
    prompt: Vec<u32>,
    /// The last token of the prompt and an answer, for every answer.
    answers: Vec<Vec<u32>>,
    /// Bytes of every answer.
    bytes: Vec<usize>,
}

impl Encoded {
    fn new(answerer: &Answerer<'_>, row: &ChoiceRow, frame: Frame, number: usize) -> Result<Self> {
        let wrong = |detail: String| Err(Error::option(format!("row {number}"), detail));
        let count = row.choices.len();
        if count < 2 || row.answer >= count {
            return wrong(format!(
                "expected at least 2 choices and the place of the right one, found {count} and {}",
                row.answer
            ));
        }
        let tokenizer = answerer.tokenizer;
        let mut prompt = match frame {
            Frame::Chat => answerer.prompt(&row.prompt)?,
            Frame::Text => tokenizer.encode(&row.prompt, SpecialTokens::Literal, Bos::Add)?,
        };
        let Some(last) = prompt.pop() else {
            return wrong("expected something before the answer, found nothing".into());
        };
        let end = match frame {
            Frame::Chat => tokenizer.encode(END_OF_TURN, SpecialTokens::Parse, Bos::Omit)?,
            Frame::Text => Vec::new(),
        };
        let mut answers = Vec::with_capacity(count);
        for choice in &row.choices {
            if choice.is_empty() {
                return wrong("expected choices of at least one letter, found an empty one".into());
            }
            let mut ids = vec![last];
            ids.extend(tokenizer.encode(choice, SpecialTokens::Literal, Bos::Omit)?);
            ids.extend(&end);
            answers.push(ids);
        }
        Ok(Self {
            prompt,
            answers,
            bytes: row.choices.iter().map(String::len).collect(),
        })
    }
}

/// The scores of all answers of some rows: the prompts in one pass, the answers in another, each behind a
/// copy of what the cache holds of its prompt.
fn scores(answerer: &Answerer<'_>, rows: &[Encoded]) -> Result<Vec<Vec<ChoiceScore>>> {
    let model = answerer.model;
    let longest = |row: &Encoded| {
        let answer = row.answers.iter().map(Vec::len).max().unwrap_or_default();
        row.prompt.len() + answer
    };
    let capacity = rows.iter().map(longest).max().unwrap_or_default();
    let mut cache = model.new_cache(CacheSpec::rows(rows.len()).with_capacity(capacity));
    let prompts = rows
        .iter()
        .enumerate()
        .map(|(row, encoded)| (row, encoded.prompt.as_slice()));
    forward(answerer, &mut cache, prompts.collect(), Want::LastLogits)?;

    let mut answers: Vec<(usize, &[u32])> = Vec::new();
    for (row, encoded) in rows.iter().enumerate() {
        for (number, answer) in encoded.answers.iter().enumerate() {
            // Copies are made before the row itself goes on.
            let place = if number == 0 {
                row
            } else {
                cache.fork_row(row)?
            };
            answers.push((place, answer));
        }
    }
    let inputs = answers
        .iter()
        .map(|&(row, ids)| (row, ids.split_last().map_or(ids, |(_, rest)| rest)));
    let Some(logits) = forward(answerer, &mut cache, inputs.collect(), Want::AllLogits)? else {
        return Ok(Vec::new());
    };
    let targets = answers
        .iter()
        .flat_map(|(_, ids)| ids.iter().skip(1).map(|&id| Target::new(id)));
    let targets: Vec<Target> = targets.collect();
    let lens: Vec<usize> = answers.iter().map(|(_, ids)| ids.len() - 1).collect();
    let logits = logits.to_device(&Device::Cpu)?;
    let sums = loss::sequence_logprobs(&logits, &targets, &lens)?;
    let mut sums = sums
        .to_dtype(candle_core::DType::F64)?
        .to_vec1::<f64>()?
        .into_iter();
    let scores = rows.iter().map(|encoded| {
        let of_row = encoded
            .answers
            .iter()
            .zip(&encoded.bytes)
            .zip(sums.by_ref());
        let of_row = of_row.map(|((ids, &bytes), log_prob)| ChoiceScore {
            log_prob,
            tokens: ids.len() - 1,
            bytes,
        });
        of_row.collect()
    });
    Ok(scores.collect())
}

/// One pass over `texts`, each with its row in the cache; nothing where all are empty.
fn forward(
    answerer: &Answerer<'_>,
    cache: &mut Cache,
    texts: Vec<(usize, &[u32])>,
    want: Want,
) -> Result<Option<Tensor>> {
    let texts = texts.into_iter().filter(|(_, ids)| !ids.is_empty());
    let (segments, ids): (Vec<Segment>, Vec<&[u32]>) = texts
        .map(|(row, ids)| {
            (
                Segment {
                    row,
                    len: ids.len(),
                },
                ids,
            )
        })
        .unzip();
    if segments.is_empty() {
        return Ok(None);
    }
    let model = answerer.model;
    let ids = Tensor::new(ids.concat().as_slice(), model.device())?;
    let step = Step::segments_of(segments);
    Ok(Some(model.forward(Input::Ids(&ids), &step, cache, want)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(scores: &[(f64, usize, usize)], answer: usize) -> ChoiceOutcome {
        let scores = scores.iter().map(|&(log_prob, tokens, bytes)| ChoiceScore {
            log_prob,
            tokens,
            bytes,
        });
        ChoiceOutcome {
            scores: scores.collect(),
            answer,
        }
    }

    #[test]
    fn length_decides_what_is_likeliest() {
        // Short answers win by their sum, long ones by the mean, and letters are not tokens.
        let outcomes = [
            outcome(&[(-2.0, 1, 4), (-3.0, 3, 30)], 0),
            outcome(&[(-2.0, 1, 4), (-3.0, 3, 3)], 1),
        ];
        let report = ChoiceReport::of(&outcomes);
        assert_eq!(
            (report.by_sum, report.by_token, report.by_byte),
            (0.5, 0.5, 0.0)
        );
        assert_eq!((report.by_chance, report.rows), (0.5, 2));
        assert_eq!(ChoiceReport::of(&[]).by_sum, 0.0);
    }

    #[test]
    fn the_first_of_equals_counts() {
        let equal = [(-1.0, 1, 1), (-1.0, 1, 1)];
        assert!(outcome(&equal, 0).is_right(|score| score.log_prob));
        assert!(!outcome(&equal, 1).is_right(|score| score.log_prob));
        assert!(outcome(&[(f64::NAN, 1, 1), (-1.0, 1, 1)], 1).is_right(|s| s.log_prob));
        assert!(!outcome(&[(f64::NAN, 1, 1)], 0).is_right(|s| s.log_prob));
    }
}
