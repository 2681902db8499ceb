//! [`Vocoder`]: whichever decoder of sound a checkpoint has.

use candle_core::Result;

use super::Frame;
use crate::{Detokenizer, DetokenizerStream, Mimi, MimiStream};

/// What makes sound of codes.
#[derive(Debug)]
pub enum Vocoder {
    /// The one of LFM2.5-Audio.
    Detokenizer(Box<Detokenizer>),
    /// The codec of LFM2-Audio.
    Mimi(Box<Mimi>),
}

/// A piece of sound on its way out.
#[derive(Debug)]
pub enum VocoderStream {
    /// Of a [`Detokenizer`].
    Detokenizer(Box<DetokenizerStream>),
    /// Of [`Mimi`].
    Mimi(Box<MimiStream>),
}

impl Vocoder {
    /// Codes per frame.
    pub fn codebooks(&self) -> usize {
        match self {
            Self::Detokenizer(detokenizer) => detokenizer.codebooks(),
            Self::Mimi(mimi) => mimi.codebooks(),
        }
    }

    /// The state of a piece of sound that has not begun.
    pub fn stream(&self) -> VocoderStream {
        match self {
            Self::Detokenizer(d) => VocoderStream::Detokenizer(Box::new(d.stream())),
            Self::Mimi(mimi) => VocoderStream::Mimi(Box::new(mimi.stream())),
        }
    }

    /// The sound of a frame, as much of it as is finished. A frame that is the end of audio, or has a
    /// code that stands for no sound, makes none.
    ///
    /// # Errors
    /// When the frame has another number of codes, the stream is one of another vocoder, or the device
    /// fails.
    pub fn push(&self, stream: &mut VocoderStream, frame: &Frame) -> Result<Vec<f32>> {
        if !frame.is_sound() {
            return Ok(Vec::new());
        }
        let frames = [frame.codes().to_vec()];
        match (self, stream) {
            (Self::Detokenizer(d), VocoderStream::Detokenizer(stream)) => stream.push(d, &frames),
            (Self::Mimi(mimi), VocoderStream::Mimi(stream)) => stream.push(mimi, &frames),
            _ => candle_core::bail!("a stream of another vocoder"),
        }
    }
}

impl VocoderStream {
    /// Ends the piece and returns its last samples.
    pub fn finish(self) -> Vec<f32> {
        match self {
            Self::Detokenizer(stream) => stream.finish(),
            Self::Mimi(_) => Vec::new(),
        }
    }
}
