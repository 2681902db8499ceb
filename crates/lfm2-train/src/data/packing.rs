//! Documents one after another in micro-batches of bounded size.

use candle_core::{Device, Result, Tensor};
use lfm2_nn::Step;

use super::Document;
use crate::loss::{self, Target};

/// Whole documents packed into one token matrix. Each is a segment of its own, so neither attention
/// nor a convolution sees across a border.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct MicroBatch {
    ids: Vec<u32>,
    targets: Vec<Target>,
    lens: Vec<usize>,
    places: Vec<u64>,
}

impl MicroBatch {
    /// Appends a document.
    pub fn push(&mut self, document: &Document) {
        self.ids.extend_from_slice(document.tokens());
        self.targets
            .extend((0..document.len()).map(|i| document.target(i)));
        self.lens.push(document.len());
        self.places.push(document.place);
    }

    /// Whether there is no document.
    pub fn is_empty(&self) -> bool {
        self.lens.is_empty()
    }

    /// The packed ids, `(tokens)`.
    ///
    /// # Errors
    /// When the device fails.
    pub fn ids(&self, device: &Device) -> Result<Tensor> {
        Tensor::new(self.ids.as_slice(), device)
    }

    /// The packed ids.
    pub(crate) fn token_ids(&self) -> &[u32] {
        &self.ids
    }

    /// The target of every packed token; [`Target::UNSCORED`] where nothing is predicted.
    pub fn targets(&self) -> &[Target] {
        &self.targets
    }

    /// The tokens of every document, one after another.
    pub fn lens(&self) -> &[usize] {
        &self.lens
    }

    /// The tokens of every document and where its first one is in the order of all training tokens.
    pub(crate) fn places(&self) -> impl Iterator<Item = (&[u32], u64)> {
        let mut rest = self.ids.as_slice();
        self.lens
            .iter()
            .zip(&self.places)
            .map(move |(&len, &place)| {
                let (ids, after) = rest.split_at(len);
                rest = after;
                (ids, place)
            })
    }

    /// The segments: one row per document.
    pub fn step(&self) -> Step {
        Step::rows(&self.lens)
    }

    /// The number of documents.
    pub fn documents(&self) -> usize {
        self.lens.len()
    }

    /// The number of tokens.
    pub fn tokens(&self) -> usize {
        self.ids.len()
    }

    /// The number of predicted tokens.
    pub fn scored(&self) -> usize {
        loss::scored(&self.targets)
    }

    /// The weight of all predicted tokens.
    pub fn weight(&self) -> f64 {
        loss::weight(&self.targets)
    }
}

/// All documents in order, in micro-batches of at most `max_tokens` (a longer document has one for
/// itself).
pub fn pack<'a>(
    documents: impl IntoIterator<Item = &'a Document>,
    max_tokens: usize,
) -> Vec<MicroBatch> {
    let mut packed = Vec::new();
    let mut open = MicroBatch::default();
    for document in documents {
        if !open.is_empty() && open.tokens() + document.len() > max_tokens {
            packed.push(std::mem::take(&mut open));
        }
        open.push(document);
    }
    if !open.is_empty() {
        packed.push(open);
    }
    packed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(tokens: &[u32]) -> Document {
        Document::new(tokens.to_vec(), vec![1.0; tokens.len()]).unwrap()
    }

    #[test]
    fn targets_never_cross_a_border() {
        let documents = [document(&[1, 10, 11]), document(&[1, 20])];
        let packed = pack(&documents, 8);
        assert_eq!(packed.len(), 1);
        let (scored, unscored) = (Target::new, Target::UNSCORED);
        assert_eq!(
            packed[0].targets(),
            [scored(10), scored(11), unscored, scored(20), unscored]
        );
        assert_eq!(packed[0].step(), Step::rows(&[3, 2]));
        assert_eq!(
            (
                packed[0].tokens(),
                packed[0].scored(),
                packed[0].documents()
            ),
            (5, 3, 2)
        );
    }

    #[test]
    fn no_micro_batch_is_over_size_and_no_document_is_lost() {
        let documents: Vec<Document> = (1..40)
            .map(|n| document(&vec![n; 1 + n as usize % 9]))
            .collect();
        let packed = pack(&documents, 12);
        assert!(packed.iter().all(|m| m.tokens() <= 12 && !m.is_empty()));
        assert_eq!(
            packed.iter().map(MicroBatch::documents).sum::<usize>(),
            documents.len()
        );
        assert_eq!(
            packed.iter().map(MicroBatch::tokens).sum::<usize>(),
            documents.iter().map(Document::len).sum::<usize>()
        );
        assert!(pack(&[], 12).is_empty());
    }
}
