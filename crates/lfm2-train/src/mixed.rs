//! [`Mixed`]: learning to answer about what is not text.
//!
//! A [`Front`] makes rows that stand in a prompt where text has embeddings: of pictures by a tower and a
//! projector, of sound by an encoder and an adapter. The loss is next-token prediction on what the
//! assistant says, and its gradient goes through the text model into the front. Where batches come from
//! is a [`Feed`]'s to know.

use std::fmt;

use candle_core::{D, Tensor};
use lfm2_nn::{Cache, Decoder, Input, Want};
use lfm2_text::TextModel;

use crate::data::{Document, MicroBatch};
use crate::hints::Hints;
use crate::loss::{self, Target};
use crate::objective::{BatchSize, LossUnit, Objective, Outcome, ValidationSet};
use crate::{Error, Result};

/// A text model with something in front of it that reads what is not text.
pub trait Front: fmt::Debug + Send + Sync {
    /// What is read: a view of a picture, a clip of sound.
    type Piece: fmt::Debug + Send + Sync;

    /// The embeddings `(tokens, hidden)` of `ids`, which have a place for every row of `pieces`; the rows
    /// of all pieces, in order, stand there.
    ///
    /// # Errors
    /// When there are more or fewer places than rows, or the device fails.
    fn embed(&self, ids: &[u32], pieces: &[Self::Piece]) -> candle_core::Result<Tensor>;

    /// The model that reads the embeddings.
    fn text(&self) -> &TextModel;
}

/// Where the batches of a run come from.
pub trait Feed: fmt::Debug + Send + Sync {
    /// What stands in them beside text.
    type Piece: fmt::Debug + Send + Sync;

    /// The batches of step `step`, from 1; the same whenever they are asked for.
    ///
    /// # Errors
    /// When data cannot be read or do not fit.
    fn step(&self, step: u64) -> Result<Vec<MixedBatch<Self::Piece>>>;
}

/// Packed conversations, and what stands in them beside text.
#[derive(Debug, Clone)]
pub struct MixedBatch<P> {
    documents: MicroBatch,
    pieces: Vec<P>,
    hints: Vec<Hints>,
}

impl<P> Default for MixedBatch<P> {
    fn default() -> Self {
        Self {
            documents: MicroBatch::default(),
            pieces: Vec::new(),
            hints: Vec::new(),
        }
    }
}

impl<P> MixedBatch<P> {
    /// Appends a conversation, which has a place for every row of `pieces`.
    pub fn push(&mut self, document: &Document, pieces: impl IntoIterator<Item = P>) {
        self.documents.push(document);
        self.pieces.extend(pieces);
    }

    /// The conversations.
    pub fn documents(&self) -> &MicroBatch {
        &self.documents
    }

    /// What stands in them, in order.
    pub fn pieces(&self) -> &[P] {
        &self.pieces
    }

    /// Says what the row at packed token `place` shows: word number `word` of `words`.
    pub fn hint(&mut self, words: &[u32], (place, word): (u32, u32), weight: f32) {
        let known = self.hints.iter().position(|h| h.words() == words);
        let index = known.unwrap_or_else(|| {
            self.hints.push(Hints::new(words.to_vec()));
            self.hints.len() - 1
        });
        if let Some(hints) = self.hints.get_mut(index) {
            hints.push(place, word, weight);
        }
    }
}

/// The objective: the next token of every answer.
#[derive(Debug)]
pub struct Mixed<F: Front, D> {
    front: F,
    feed: D,
    /// How much a hint counts beside a token of an answer.
    hints: f64,
    validation: Vec<ValidationSet<MixedBatch<F::Piece>>>,
}

impl<F: Front, D: Feed<Piece = F::Piece>> Mixed<F, D> {
    /// Learning from `feed`, measured on `validation`. The model has to be built over the parameters of
    /// the run.
    pub fn new(front: F, feed: D, validation: Vec<ValidationSet<MixedBatch<F::Piece>>>) -> Self {
        Self {
            front,
            feed,
            hints: 0.0,
            validation,
        }
    }

    /// Learning from [hints](Hints), too, where batches have some: `weight` is what one counts beside a token of
    /// an answer.
    #[must_use]
    pub fn with_hints(self, weight: f64) -> Self {
        Self {
            hints: weight,
            ..self
        }
    }

    /// The model in its present state.
    pub fn front(&self) -> &F {
        &self.front
    }
}

impl<F: Front, D: Feed<Piece = F::Piece>> Objective for Mixed<F, D> {
    type Batch = MixedBatch<F::Piece>;

    fn next_step(&mut self, step: u64) -> Result<Vec<Self::Batch>> {
        self.feed.step(step)
    }

    /// A feed has no place that moves.
    fn skip(&mut self, _step: u64) -> Result<()> {
        Ok(())
    }

    fn validation(&self) -> &[ValidationSet<Self::Batch>] {
        &self.validation
    }

    fn size(&self, batch: &Self::Batch) -> BatchSize {
        let documents = &batch.documents;
        BatchSize {
            tokens: documents.tokens(),
            scored: documents.scored(),
            weight: documents.weight(),
        }
    }

    fn unit(&self) -> LossUnit {
        LossUnit::Token
    }

    fn loss(&self, batch: &Self::Batch, divisor: f64) -> candle_core::Result<Outcome> {
        let documents = &batch.documents;
        let x = self.front.embed(documents.token_ids(), &batch.pieces)?;
        let mut cache = Cache::stateless(documents.documents());
        let text = self.front.text();
        let hidden = text.forward(
            Input::Embeddings(&x),
            &documents.step(),
            &mut cache,
            Want::Hidden,
        )?;
        // Most tokens are of pictures and questions, which nobody predicts.
        let scored = |target: &&Target| target.weight != 0.0;
        let places = (0u32..).zip(documents.targets());
        let places: Vec<u32> = places.filter(|(_, t)| scored(t)).map(|(i, _)| i).collect();
        let targets: Vec<Target> = documents.targets().iter().filter(scored).copied().collect();
        let hidden = hidden.index_select(&Tensor::new(places.as_slice(), x.device())?, 0)?;
        let logits = text.head(&hidden)?;
        let right = right_answers(&logits, &targets, &places)?;
        let mut loss = loss::next_token(&logits, &targets, divisor)?;
        if self.hints > 0.0 {
            for hints in &batch.hints {
                loss = (loss + (hints.loss(&x, text, divisor)? * self.hints)?)?;
            }
        }
        Ok(Outcome {
            figures: vec![("right", right / divisor)],
            ..Outcome::new(loss)
        })
    }
}

/// The weight of all targets that belong to an answer of which every token would have been written.
/// Targets at consecutive `places` are one answer.
fn right_answers(logits: &Tensor, targets: &[Target], places: &[u32]) -> candle_core::Result<f64> {
    let found: Vec<u32> = logits.detach().argmax(D::Minus1)?.to_vec1()?;
    let mut rest = (targets, found.as_slice());
    let mut right = 0.0;
    for answer in places.chunk_by(|a, b| a + 1 == *b) {
        let (expected, targets) = rest.0.split_at(answer.len());
        let (found, after) = rest.1.split_at(answer.len());
        rest = (targets, after);
        if expected
            .iter()
            .zip(found)
            .all(|(target, id)| target.id == *id)
        {
            right += loss::weight(expected);
        }
    }
    Ok(right)
}

/// A picture's model is a front of views.
impl Front for lfm2_vl::VlModel {
    type Piece = lfm2_vl::View;

    fn embed(&self, ids: &[u32], pieces: &[Self::Piece]) -> candle_core::Result<Tensor> {
        self.embed(ids, pieces).map_err(candle_core::Error::wrap)
    }

    fn text(&self) -> &TextModel {
        self.text()
    }
}

/// A conversation whose token `place` is replaced by `run`, once for every one of `runs`: what a thing
/// becomes in a prompt is not predicted.
///
/// # Errors
/// [`Error::InvalidOption`] when there are more or fewer places than runs.
pub(crate) fn expand(document: &Document, place: u32, runs: &[Vec<u32>]) -> Result<Document> {
    let places = document.tokens().iter().filter(|id| **id == place).count();
    if places != runs.len() {
        let detail = format!(
            "expected {places} things that are no text, found {}",
            runs.len()
        );
        return Err(Error::option("document", detail));
    }
    let (mut tokens, mut weights) = (Vec::new(), Vec::new());
    let mut runs = runs.iter();
    for (&id, &weight) in document.tokens().iter().zip(document.weights()) {
        match (id == place).then(|| runs.next()).flatten() {
            Some(run) => {
                tokens.extend_from_slice(run);
                weights.resize(tokens.len(), 0.0);
            }
            None => {
                tokens.push(id);
                weights.push(weight);
            }
        }
    }
    Document::new(tokens, weights)
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn things_take_the_places_they_are_given() {
        let document = Document::new(vec![1, 9, 5, 9, 6], vec![1.0, 1.0, 0.5, 0.0, 1.0]).unwrap();
        let found = expand(&document, 9, &[vec![9, 9], vec![2, 9, 3]]).unwrap();
        assert_eq!(found.tokens(), [1, 9, 9, 5, 2, 9, 3, 6]);
        assert_eq!(found.weights(), [1.0, 0.0, 0.0, 0.5, 0.0, 0.0, 0.0, 1.0]);
        assert!(expand(&document, 9, &[vec![9]]).is_err());
    }

    #[test]
    fn an_answer_with_one_wrong_token_is_wrong() {
        let logits =
            Tensor::new(&[[0f32, 9.], [9., 0.], [0., 9.], [9., 0.]], &Device::Cpu).unwrap();
        let targets: Vec<Target> = [1, 1, 1, 0].map(Target::new).into();
        // The first two are one answer, with a mistake; the others are one each.
        let right = right_answers(&logits, &targets, &[3, 4, 8, 11]).unwrap();
        assert_eq!(right, 2.0);
    }
}
