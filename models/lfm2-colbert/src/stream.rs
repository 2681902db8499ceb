//! [`DocumentStream`]: any number of documents in bounded memory.

use std::collections::VecDeque;

use crate::reader::TokenInput;
use crate::{ColbertModel, Error, Result, TokenVectors};

/// How documents are put together to batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct EncodeOptions {
    /// Tokens of a batch. A longer document is a batch of its own. More tokens take more memory, and
    /// make better use of weights up to about the default.
    pub batch_tokens: usize,
}

impl Default for EncodeOptions {
    fn default() -> Self {
        Self { batch_tokens: 2048 }
    }
}

impl EncodeOptions {
    /// Sets the tokens of a batch.
    pub fn with_batch_tokens(mut self, tokens: usize) -> Self {
        self.batch_tokens = tokens;
        self
    }
}

/// Cuts texts that follow each other into batches of at most `tokens` tokens, or of one text.
///
/// There is no padding, so it is no matter which texts share a batch, and their order can stay.
pub(crate) fn batches(
    mut inputs: &[TokenInput],
    tokens: usize,
) -> impl Iterator<Item = &[TokenInput]> {
    std::iter::from_fn(move || {
        let mut sum = 0;
        let fits = |input: &&TokenInput| {
            let first = sum == 0;
            sum += input.ids().len();
            first || sum <= tokens
        };
        let count = inputs.iter().take_while(fits).count();
        let (batch, rest) = inputs.split_at(count);
        inputs = rest;
        (count > 0).then_some(batch)
    })
}

/// The vectors of documents in their order, made by [`ColbertModel::stream`].
///
/// Every item belongs to one text. One that cannot be read is an error of its own and the others follow;
/// after a failure of the model itself there are no more.
#[derive(Debug)]
pub struct DocumentStream<'m, I> {
    model: &'m ColbertModel,
    texts: I,
    options: EncodeOptions,
    /// Read, but too much for the last batch.
    waiting: Option<TokenInput>,
    /// An error of a text, which comes behind the batch before it.
    failed: Option<Error>,
    ready: VecDeque<Result<TokenVectors>>,
    ended: bool,
}

impl<'m, I> DocumentStream<'m, I>
where
    I: Iterator,
    I::Item: AsRef<str>,
{
    pub(crate) fn new(model: &'m ColbertModel, texts: I, options: EncodeOptions) -> Self {
        Self {
            model,
            texts,
            options,
            waiting: None,
            failed: None,
            ready: VecDeque::new(),
            ended: false,
        }
    }

    /// Reads texts until a batch is full, one of them fails, or there are no more.
    fn read(&mut self) -> Vec<TokenInput> {
        let mut batch: Vec<TokenInput> = self.waiting.take().into_iter().collect();
        let mut tokens: usize = batch.iter().map(|input| input.ids().len()).sum();
        while tokens < self.options.batch_tokens {
            let Some(text) = self.texts.next() else {
                self.ended = true;
                break;
            };
            match self.model.reader().document(text.as_ref()) {
                Ok(input) => {
                    tokens += input.ids().len();
                    if tokens > self.options.batch_tokens && !batch.is_empty() {
                        self.waiting = Some(input);
                        break;
                    }
                    batch.push(input);
                }
                Err(error) => {
                    self.failed = Some(error);
                    break;
                }
            }
        }
        batch
    }
}

impl<I> Iterator for DocumentStream<'_, I>
where
    I: Iterator,
    I::Item: AsRef<str>,
{
    type Item = Result<TokenVectors>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.ready.is_empty() && (!self.ended || self.waiting.is_some()) {
            let batch = self.read();
            match self.model.encode_batch(&batch) {
                Ok(vectors) => self.ready.extend(vectors.into_iter().map(Ok)),
                Err(error) => {
                    self.ready.push_back(Err(error));
                    self.waiting = None;
                    self.ended = true;
                }
            }
            self.ready.extend(self.failed.take().map(Err));
        }
        self.ready.pop_front()
    }
}
