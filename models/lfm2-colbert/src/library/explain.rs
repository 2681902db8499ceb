//! Why a chunk was found: which word of the question met which word of the text.

use std::ops::Range;

use lfm2_hub::{Error as HubError, Specials};
use serde::Serialize;

use super::{Answer, Library};
use crate::index::IndexError;
use crate::{Error, Result, RetrievalModel, TokenVectors, explain};

/// The part that one token of the question has in a score.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
#[non_exhaustive]
pub struct Meeting {
    /// The token of the question.
    pub query: String,
    /// The token of the text that is closest to it.
    pub text: String,
    /// How close they are: the similarities of all tokens add up to the score.
    pub similarity: f32,
    /// Whether the token of the question is filler behind its words.
    pub filler: bool,
    /// Where the token of the text is in [`Answer::passage`], in bytes. It may end inside a character;
    /// `None` for the tokens in front of the text.
    pub bytes: Option<Range<usize>>,
}

impl Library {
    /// Why a question found an answer: one meeting for each token of the question, in their order.
    ///
    /// # Errors
    /// When the model has one vector per text, the answer is not in the index any more, or the index
    /// holds other tokens of it than the model reads.
    pub fn explain(&self, query: &TokenVectors, answer: &Answer) -> Result<Vec<Meeting>> {
        let RetrievalModel::LateInteraction(model) = &self.model else {
            return Err(HubError::Unsupported {
                what: "an explanation of a score".to_owned(),
                hint: "the model has one vector per text, not one per word".to_owned(),
            }
            .into());
        };
        let stored = self
            .index
            .vectors(&answer.id)?
            .ok_or_else(|| HubError::NotFound {
                what: format!("chunk {:?}", answer.id),
                hint: "it was deleted after it was found".to_owned(),
            })?;
        let (reader, passage) = (model.reader(), answer.passage());
        let input = reader.document(&passage)?;
        if input.kept().len() != stored.rows() {
            let text = format!(
                "chunk {:?}: expected {} vectors, found {}",
                answer.id,
                input.kept().len(),
                stored.rows()
            );
            return Err(Error::input(text));
        }
        let places = reader.places(&passage, &input)?;
        let filler = query.ids().iter().rev();
        let filler = filler
            .take_while(|id| Some(**id) == reader.filler())
            .count();
        let words = query.rows() - filler;
        let token = |id: Option<&u32>| match id {
            Some(id) => Ok(reader.tokenizer().decode(&[*id], Specials::Keep)?),
            None => Ok::<_, Error>(String::new()),
        };
        let document = stored.view().map_err(IndexError::from)?;
        let meetings = explain(query.view()?, document)?.into_iter().map(|found| {
            let place = input
                .kept()
                .get(found.document_row)
                .map(|place| *place as usize);
            let bytes = place.and_then(|place| places.get(place)?.clone());
            let own = bytes.clone().and_then(|bytes| passage.get(bytes));
            let text = match own {
                Some(text) => text.to_owned(),
                None => token(place.and_then(|place| input.ids().get(place)))?,
            };
            Ok(Meeting {
                query: token(query.ids().get(found.query_row))?,
                text,
                similarity: found.similarity,
                filler: found.query_row >= words,
                bytes,
            })
        });
        meetings.collect()
    }
}
