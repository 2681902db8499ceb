//! [`AudioModel`]: encoder, backbone, depth model and a decoder of sound, put together.

mod chat;
mod generate;
mod live;
mod open;
mod reply;
mod sampling;
mod sections;
mod sequence;
mod session;
mod text;
mod train;
mod turns;
mod vocoder;

use candle_core::Result;
use lfm2_hub::Tokenizer;
use lfm2_nn::{Device, Embedding, Module, Tensor};
use lfm2_text::TextModel;

use crate::config::{AudioConfig, CODE_ROWS};
use crate::{Adapter, Depthformer, Encoder, Mel, MelFrontEnd};

pub use chat::{Chat, Role, Voice};
pub use generate::{Ending, Generation, GenerationOptions, Mode, Token};
pub use live::{Live, LiveOptions, LiveText};
pub use open::{AudioOptions, Output};
pub use reply::{Event, Reply, Spoken};
pub use sampling::Sampling;
pub use sections::{Section, Sections};
pub use sequence::{Frame, Piece, Sequence};
pub use session::Session;
pub use train::{Losses, Sample};
pub use vocoder::{Vocoder, VocoderStream};

/// An LFM2-Audio model. Immutable, and can be shared between threads; what changes while it listens and
/// speaks is in a [`Session`].
///
/// ```no_run
/// use lfm2_audio::{AudioModel, AudioOptions, Clip, GenerationOptions, SoundLimits};
///
/// # fn main() -> lfm2_hub::Result<()> {
/// let model = AudioModel::open(&"LFM2.5-Audio-1.5B".parse()?, &AudioOptions::default())?;
/// let clip = Clip::open("question.wav".as_ref(), &SoundLimits::default())?;
/// let answer = model.transcribe(&clip, &GenerationOptions::greedy())?.finish()?;
/// println!("{}", answer.text);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct AudioModel {
    config: AudioConfig,
    front: MelFrontEnd,
    encoder: Encoder,
    adapter: Adapter,
    text: TextModel,
    /// The tables of all codebooks, one after another.
    codes: Embedding,
    depth: Depthformer,
    tokenizer: Tokenizer,
    special: SpecialIds,
    vocoder: Option<Vocoder>,
}

/// Tokens the rules of generation know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SpecialIds {
    /// Ends a turn.
    pub(crate) end_of_turn: u32,
    /// Turns to audio, in sequential generation.
    pub(crate) audio_start: u32,
    /// Says that the text is over, in interleaved generation.
    pub(crate) text_end: u32,
}

impl SpecialIds {
    /// By name, or the numbers of the released files.
    fn of(tokenizer: &Tokenizer) -> Self {
        let id = |name, released| tokenizer.id_of(name).unwrap_or(released);
        Self {
            end_of_turn: id("<|im_end|>", 7),
            audio_start: id("<|audio_start|>", 128),
            text_end: id("<|text_end|>", 130),
        }
    }

    fn all(self) -> [u32; 3] {
        [self.end_of_turn, self.audio_start, self.text_end]
    }
}

impl AudioModel {
    /// The model's facts.
    pub fn config(&self) -> &AudioConfig {
        &self.config
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// What turns clips into features.
    pub fn front_end(&self) -> &MelFrontEnd {
        &self.front
    }

    /// What turns features into vectors.
    pub fn encoder(&self) -> &Encoder {
        &self.encoder
    }

    /// What turns those into inputs of the backbone.
    pub fn adapter(&self) -> &Adapter {
        &self.adapter
    }

    /// The backbone.
    pub fn text_model(&self) -> &TextModel {
        &self.text
    }

    /// What turns hidden states into frames of codes.
    pub fn depthformer(&self) -> &Depthformer {
        &self.depth
    }

    /// What turns frames of codes into sound; `None` where the checkpoint has nothing that does.
    pub fn vocoder(&self) -> Option<&Vocoder> {
        self.vocoder.as_ref()
    }

    /// Where the model is.
    pub fn device(&self) -> &Device {
        lfm2_nn::Decoder::device(&self.text)
    }

    /// Inputs of the backbone for clips, `(steps, hidden)` each; all go through the encoder together.
    ///
    /// # Errors
    /// When the device fails.
    pub fn embed_clips(&self, clips: &[&Mel]) -> Result<Vec<Tensor>> {
        let dtype = self.text.dtype();
        let features: Vec<Tensor> = clips
            .iter()
            .map(|mel| mel.tensor(self.device())?.to_dtype(dtype))
            .collect::<Result<_>>()?;
        let encoded = self.encoder.forward(&features)?;
        encoded.iter().map(|x| self.adapter.forward(x)).collect()
    }

    /// Inputs of the backbone for frames of codes, `(frames, hidden)`.
    ///
    /// # Errors
    /// When a frame has another number of codes, or a code beyond the end of audio.
    pub fn embed_frames(&self, frames: &[Frame]) -> Result<Tensor> {
        let codebooks = self.config.codebooks;
        let mut ids = Vec::with_capacity(frames.len() * codebooks);
        for frame in frames {
            frame.check(codebooks)?;
            let codes = frame.codes().iter().zip(0u32..);
            ids.extend(codes.map(|(code, k)| code + k * CODE_ROWS as u32));
        }
        let ids = Tensor::from_vec(ids, frames.len() * codebooks, self.device())?;
        let rows = self.codes.forward(&ids)?;
        let width = rows.dim(1)?;
        rows.reshape((frames.len(), codebooks, width))?.sum(1)
    }
}
