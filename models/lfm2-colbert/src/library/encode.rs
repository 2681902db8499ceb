//! What a library asks of a model of either kind.

use lfm2_hub::{Bos, SpecialTokens, Tokenizer};

use crate::{Ranked, Result, RetrievalModel, TokenVectors, rerank};

/// Documents that are encoded together for [`RetrievalModel::rerank`].
const BATCH: usize = 64;

impl RetrievalModel {
    /// The vectors of a question, each of length 1. A model with one vector per text gives one.
    ///
    /// # Errors
    /// When the text cannot be tokenised, or the weights are damaged so that a vector is not a number.
    pub fn encode_query(&self, text: &str) -> Result<TokenVectors> {
        match self {
            Self::LateInteraction(model) => model.encode_query(text),
            Self::SingleVector(model) => {
                let vectors = model.encode_queries(&[text])?;
                single(vectors.into_iter().next().unwrap_or_default())
            }
        }
    }

    /// The vectors of questions, in their order.
    ///
    /// # Errors
    /// As [`encode_query`](Self::encode_query).
    pub fn encode_queries<T: AsRef<str>>(&self, texts: &[T]) -> Result<Vec<TokenVectors>> {
        match self {
            Self::LateInteraction(model) => model.encode_queries(texts),
            Self::SingleVector(model) => {
                let vectors = model.encode_queries(texts)?;
                vectors.into_iter().map(single).collect()
            }
        }
    }

    /// The vectors of documents, in their order.
    ///
    /// # Errors
    /// As [`encode_query`](Self::encode_query).
    pub fn encode_documents<T: AsRef<str>>(&self, texts: &[T]) -> Result<Vec<TokenVectors>> {
        match self {
            Self::LateInteraction(model) => model.encode_documents(texts),
            Self::SingleVector(model) => {
                let vectors = model.encode_documents(texts)?;
                vectors.into_iter().map(single).collect()
            }
        }
    }

    /// Documents by how well they answer a question, best first; equals stay in the order given.
    ///
    /// # Errors
    /// As [`encode_query`](Self::encode_query).
    pub fn rerank<T: AsRef<str>>(&self, question: &str, documents: &[T]) -> Result<Vec<Ranked>> {
        let query = self.encode_query(question)?;
        let mut vectors = Vec::with_capacity(documents.len());
        for batch in documents.chunks(BATCH) {
            vectors.extend(self.encode_documents(batch)?);
        }
        let views: Vec<_> = vectors
            .iter()
            .map(TokenVectors::view)
            .collect::<Result<_>>()?;
        rerank(query.view()?, views)
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        match self {
            Self::LateInteraction(model) => model.tokenizer(),
            Self::SingleVector(model) => model.tokenizer(),
        }
    }

    /// The most tokens of its own that a document may have without losing its end.
    ///
    /// # Errors
    /// When the model's prompt cannot be tokenised.
    pub fn document_tokens(&self) -> Result<usize> {
        let beginning = |text: &str| {
            let tokenizer = self.tokenizer();
            let ids = tokenizer.encode(text, SpecialTokens::Parse, Bos::Add)?;
            Ok::<_, crate::Error>(ids.len())
        };
        Ok(match self {
            Self::LateInteraction(model) => {
                let prefix = usize::from(model.reader().document_prefix().is_some());
                let front = beginning("")? + prefix;
                model.settings().document_length.saturating_sub(front)
            }
            Self::SingleVector(model) => {
                let front = beginning(&model.settings().document_prompt)?;
                model.settings().length.saturating_sub(front)
            }
        })
    }

    /// Where the model came from, for people.
    pub fn origin(&self) -> &str {
        match self {
            Self::LateInteraction(model) => model.origin(),
            Self::SingleVector(model) => model.origin(),
        }
    }
}

/// One vector as that of a text with one token: MaxSim of two such is the cosine.
fn single(mut vector: Vec<f32>) -> Result<TokenVectors> {
    let length = vector.iter().map(|value| value * value).sum::<f32>().sqrt();
    if length > 0.0 {
        for value in &mut vector {
            *value /= length;
        }
    }
    let dim = vector.len();
    TokenVectors::new(vector, dim, vec![0])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vector_gets_the_length_one() {
        let vectors = single(vec![3.0, 4.0]).unwrap();
        assert_eq!((vectors.rows(), vectors.as_slice()), (1, &[0.6, 0.8][..]));
        assert_eq!(single(vec![0.0; 2]).unwrap().as_slice(), [0.0; 2]);
    }
}
