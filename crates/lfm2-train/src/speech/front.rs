//! A speech model is a front of features.

use candle_core::{Result, Tensor};
use lfm2_audio::{AudioModel, Mel, Piece, Sample};
use lfm2_text::TextModel;

use crate::bpe;
use crate::data::Document;
use crate::mixed::Front;

/// The token that stands where a row of a clip goes. No text has it.
const PLACE: u32 = bpe::PAD;

impl Front for AudioModel {
    type Piece = Mel;

    fn embed(&self, ids: &[u32], pieces: &[Mel]) -> Result<Tensor> {
        let words = self
            .text_model()
            .embed_tokens(&Tensor::new(ids, self.device())?)?;
        let clips = self.embed_clips(&pieces.iter().collect::<Vec<_>>())?;
        let rows = clips
            .iter()
            .map(|rows| rows.dim(0))
            .sum::<Result<usize>>()?;
        let places = ids.iter().filter(|id| **id == PLACE).count();
        if places != rows {
            candle_core::bail!("places for {places} rows of sound, found {rows} rows")
        }
        if rows == 0 {
            return Ok(words);
        }
        let mut next = ids.len() as u32;
        let order = ids.iter().zip(0u32..).map(|(id, own)| match *id == PLACE {
            true => {
                next += 1;
                next - 1
            }
            false => own,
        });
        let order: Vec<u32> = order.collect();
        let all: Vec<&Tensor> = std::iter::once(&words).chain(&clips).collect();
        Tensor::cat(&all, 0)?.index_select(&Tensor::new(order, self.device())?, 0)
    }

    fn text(&self) -> &TextModel {
        self.text_model()
    }
}

/// A sample of text and clips as a document with a place for every row, its clips, and the place of the first row
/// of each.
pub(super) fn document(sample: &Sample) -> crate::Result<(Document, Vec<Mel>, Vec<u32>)> {
    let (mut tokens, mut clips, mut firsts) = (Vec::new(), Vec::new(), Vec::new());
    for piece in sample.sequence.pieces() {
        let positions = piece.positions();
        match piece {
            Piece::Text(ids) => tokens.extend_from_slice(ids),
            Piece::Clip(mel) => {
                firsts.push(tokens.len() as u32);
                tokens.resize(tokens.len() + positions, PLACE);
                clips.push(mel.clone());
            }
            _ => return Err(crate::Error::option("data", "expected text and clips only")),
        }
    }
    let weights = sample
        .supervised
        .iter()
        .map(|learnt| f32::from(u8::from(*learnt)));
    Ok((Document::new(tokens, weights.collect())?, clips, firsts))
}
