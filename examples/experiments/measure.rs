//! What a model can do, on data that no run has seen.

use std::path::Path;

use anyhow::Result;
use lfm2::{Cancel, TextModel};
use lfm2_train::data::DataFile;
use lfm2_train::eval::{
    AnswerOptions, Answerer, ChoiceOptions, ChoiceReport, ChoiceRow, PerplexityOptions, RecallRow,
    RowLog, answer, choice, perplexity, read_rows,
};
use serde::Deserialize;

use crate::lab::Lab;

/// Rows of the test set that are asked.
const QUESTIONS: usize = 300;

/// Named numbers in the order in which they are shown.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Figures(pub(crate) Vec<(String, f64)>);

impl Figures {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn with(mut self, name: &str, value: f64) -> Self {
        self.0.push((name.to_owned(), value));
        self
    }
}

/// What answers came to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Answered {
    /// The share that is right.
    pub(crate) right: f64,
    /// The mean number of words.
    pub(crate) words: f64,
}

/// Loss per token of stories that nobody trained on, in nats.
pub(crate) fn story_loss(lab: &Lab, checkpoint: &Path) -> Result<f64> {
    let model = TextModel::open(checkpoint)?;
    let data = DataFile::read(&lab.data.join("stories-valid.txt.gz"))?;
    let (mut log, cancel) = (RowLog::in_memory(), Cancel::new());
    let (options, keep) = (PerplexityOptions::default(), (&mut log, &cancel));
    let (network, tokenizer) = (model.network(), model.tokenizer());
    Ok(perplexity(network, tokenizer, &data, options, keep, |_, _, _| {})?.loss)
}

/// Questions on whole stories, answered greedily.
pub(crate) fn answers(lab: &Lab, checkpoint: &Path) -> Result<Answered> {
    let mut rows: Vec<RecallRow> = read_rows(&lab.data.join("recall.jsonl.gz"))?;
    rows.truncate(QUESTIONS);
    let model = TextModel::open(checkpoint)?;
    let options = AnswerOptions::default()
        .with_max_new_tokens(64)
        .with_batch(32);
    let (mut right, mut words) = (0, 0);
    let (mut log, cancel) = (RowLog::in_memory(), Cancel::new());
    answer(
        &answerer(&model)?,
        &rows,
        &options,
        &mut log,
        &cancel,
        |_, answer| {
            right += usize::from(answer.verdict);
            words += answer.output.split_whitespace().count();
        },
    )?;
    let count = rows.len() as f64;
    Ok(Answered {
        right: right as f64 / count,
        words: words as f64 / count,
    })
}

/// A pair of answers, the worse one with a known fault.
#[derive(Debug, Deserialize)]
struct PairRow {
    prompt: String,
    chosen: String,
    rejected: String,
    fault: String,
}

/// The fault of a worse answer that says something else; all others say the same in more words.
pub(crate) const WRONG_FACT: &str = "wrong fact";

/// How often the better answers of `pairs` are the likelier ones: where the worse one is wrong, and where
/// it is longer.
pub(crate) fn wins(checkpoint: &Path, pairs: &Path) -> Result<(ChoiceReport, ChoiceReport)> {
    let pairs: Vec<PairRow> = read_rows(pairs)?;
    let (wrong, long): (Vec<PairRow>, Vec<PairRow>) =
        pairs.into_iter().partition(|pair| pair.fault == WRONG_FACT);
    let model = TextModel::open(checkpoint)?;
    let answerer = answerer(&model)?;
    let report = |pairs: Vec<PairRow>| -> Result<ChoiceReport> {
        let rows = pairs.into_iter().map(|pair| ChoiceRow {
            prompt: pair.prompt,
            choices: vec![pair.chosen, pair.rejected],
            answer: 0,
        });
        let rows: Vec<ChoiceRow> = rows.collect();
        let (options, mut log) = (ChoiceOptions::default(), RowLog::in_memory());
        choice(
            &answerer,
            &rows,
            &options,
            &mut log,
            &Cancel::new(),
            |_, _| {},
        )?;
        Ok(ChoiceReport::of(log.rows()))
    };
    Ok((report(wrong)?, report(long)?))
}

fn answerer(model: &TextModel) -> Result<Answerer<'_>> {
    Ok(Answerer {
        model: model.network(),
        tokenizer: model.tokenizer(),
        template: model.template()?,
        stop_ids: model.generator().stop_ids(),
    })
}
