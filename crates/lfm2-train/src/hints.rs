//! [`Hints`]: what rows that are no text show, said in words.
//!
//! A small model that learns from answers alone finds out late what the rows of a picture should say at all: an
//! answer's gradient reaches them through every layer of the text model. Where it is known what a row shows, the
//! row is asked to be nearer to the embedding of the right word than to those of the other words in question, so
//! that the text model reads it as it reads words. It takes no parameters, and nothing of it is left in the
//! finished model.

use candle_core::{Result, Tensor};
use lfm2_text::TextModel;

use crate::loss::{self, Target};

/// How much further apart probabilities are than products of rows and embeddings, which are of about 1.
const SHARPNESS: f64 = 8.0;

/// Words to tell apart, and rows of a batch with the right one each.
#[derive(Debug, Clone, PartialEq)]
pub struct Hints {
    /// The words' token ids.
    words: Vec<u32>,
    /// Where the rows stand among the packed tokens of the batch.
    places: Vec<u32>,
    /// By row the number of its word in `words`.
    targets: Vec<Target>,
}

impl Hints {
    /// No rows yet.
    pub fn new(words: Vec<u32>) -> Self {
        Self {
            words,
            places: Vec::new(),
            targets: Vec::new(),
        }
    }

    /// The words' token ids.
    pub fn words(&self) -> &[u32] {
        &self.words
    }

    /// Says that the row at packed token `place` shows word number `word`, with a weight in the loss.
    pub fn push(&mut self, place: u32, word: u32, weight: f32) {
        self.places.push(place);
        self.targets.push(Target { id: word, weight });
    }

    /// The weighted cross-entropy of all rows of `x` that were pushed, divided by `divisor`: a scalar with a
    /// graph, which reaches the rows and the embeddings of the words. `x` is `(tokens, hidden)`, the embeddings
    /// of the batch.
    ///
    /// # Errors
    /// When a place or a word is outside, or the device fails.
    pub fn loss(&self, x: &Tensor, text: &TextModel, divisor: f64) -> Result<Tensor> {
        let device = x.device();
        let rows = x.index_select(&Tensor::new(self.places.as_slice(), device)?, 0)?;
        let words = text.embed_tokens(&Tensor::new(self.words.as_slice(), device)?)?;
        let logits = (rows.matmul(&words.t()?)? * SHARPNESS)?;
        loss::next_token(&logits, &self.targets, divisor)
    }
}
