//! What a model has read and said: text, clips and frames of codes, in order.

use candle_core::{Result, Tensor, bail};

use super::AudioModel;
use crate::config::{CODE_ROWS, CODES, END_CODE};
use crate::{Encoder, Mel};

/// The codes of 80 ms of sound, one per codebook; or the end of audio.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame(Vec<u32>);

impl Frame {
    /// A frame of these codes. Whether the first is the end of audio decides for all of them.
    pub fn new(mut codes: Vec<u32>) -> Self {
        if codes.first() == Some(&END_CODE) {
            codes.fill(END_CODE);
        }
        Self(codes)
    }

    /// The codes, first codebook first.
    pub fn codes(&self) -> &[u32] {
        &self.0
    }

    /// Whether this is the end of audio.
    pub fn is_end(&self) -> bool {
        self.0.first() == Some(&END_CODE)
    }

    /// Whether every code stands for a sound. A frame that is not the end of audio may still contain its
    /// code; such a frame stays in the history, but makes no sound.
    pub fn is_sound(&self) -> bool {
        self.0.iter().all(|code| *code < CODES)
    }

    /// Refuses another number of codes, and codes that no table has.
    pub(super) fn check(&self, codebooks: usize) -> Result<()> {
        if self.0.len() != codebooks {
            bail!("a frame of {} codes, expected {codebooks}", self.0.len());
        }
        match self.0.iter().find(|code| **code as usize >= CODE_ROWS) {
            Some(code) => bail!("code {code} of a frame, expected codes up to {END_CODE}"),
            None => Ok(()),
        }
    }
}

/// A run of positions of one kind.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Piece {
    /// Token ids.
    Text(Vec<u32>),
    /// Features of a clip that is heard.
    Clip(Mel),
    /// Frames that were said.
    Frames(Vec<Frame>),
}

impl Piece {
    /// Positions of the backbone this takes.
    pub fn positions(&self) -> usize {
        match self {
            Self::Text(ids) => ids.len(),
            Self::Clip(mel) => Encoder::steps(mel.frames()),
            Self::Frames(frames) => frames.len(),
        }
    }
}

/// Pieces one after another.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sequence(Vec<Piece>);

impl Sequence {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a piece.
    pub fn push(&mut self, piece: Piece) {
        self.0.push(piece);
    }

    /// The pieces.
    pub fn pieces(&self) -> &[Piece] {
        &self.0
    }

    /// Positions of the backbone all pieces take.
    pub fn positions(&self) -> usize {
        self.0.iter().map(Piece::positions).sum()
    }

    /// Whether there is nothing to read.
    pub fn is_empty(&self) -> bool {
        self.positions() == 0
    }
}

impl From<Vec<Piece>> for Sequence {
    fn from(pieces: Vec<Piece>) -> Self {
        Self(pieces)
    }
}

impl AudioModel {
    /// Inputs of the backbone for a sequence, `(positions, hidden)`.
    ///
    /// # Errors
    /// When the sequence is empty, an id or a code is out of range, or the device fails.
    pub fn embed(&self, sequence: &Sequence) -> Result<Tensor> {
        let clips = sequence.pieces().iter().filter_map(|piece| match piece {
            Piece::Clip(mel) => Some(mel),
            _ => None,
        });
        let mut clips = self.embed_clips(&clips.collect::<Vec<_>>())?.into_iter();
        let mut parts = Vec::with_capacity(sequence.pieces().len());
        for piece in sequence.pieces().iter().filter(|p| p.positions() > 0) {
            parts.push(match piece {
                Piece::Text(ids) => {
                    let ids = Tensor::new(ids.as_slice(), self.device())?;
                    self.text.embed_tokens(&ids)?
                }
                Piece::Frames(frames) => self.embed_frames(frames)?,
                Piece::Clip(_) => match clips.next() {
                    Some(clip) => clip,
                    None => bail!("a clip that was not encoded"),
                },
            });
        }
        if parts.is_empty() {
            bail!("an empty sequence");
        }
        Tensor::cat(&parts, 0)
    }
}
