//! LFM2-Audio: speech in, speech out.
//!
//! | I want | use |
//! |---|---|
//! | to transcribe, read aloud or answer | [`AudioModel`] |
//! | to transcribe a clip of any length | [`AudioModel::transcribe_long`] |
//! | to follow sound that is still arriving, approximately | [`Live`] |
//! | several turns, or to follow every token | [`Session`], [`Generation`] |
//! | sound from a file, or into one | [`Clip`], [`write_wav`] |
//! | features of sound | [`MelFrontEnd`] |
//! | sound of codes | [`Detokenizer`], [`Mimi`] |
//! | codes of sound, for training | [`MimiEncoder`] |
//! | losses of a training sample | [`AudioModel::losses`] |
//! | made-up weights of any size | [`shapes`] |
//!
//! Sound is heard at 16 kHz as log-mel features; an encoder turns them into one input of the backbone
//! per 80 ms. The backbone is an ordinary LFM2 text model whose positions hold a token, a piece of what
//! is heard, or a frame of what is said. A frame is eight codes, which a depth model chooses one after
//! another, and a detokenizer or the Mimi codec turns into 24 kHz sound.

mod config;
mod depthformer;
mod detokenizer;
mod encoder;
mod gguf;
mod layout;
mod mel;
mod mimi;
mod model;
mod pauses;
mod rotary;
pub mod shapes;
mod sound;
mod types;

pub use config::{
    AudioConfig, CODES, CodebookWeight, DepthConfig, DetokenizerConfig, END_CODE, EncoderConfig,
    FRAME_SAMPLES, OUTPUT_RATE,
};
pub use depthformer::Depthformer;
pub use detokenizer::{Detokenizer, DetokenizerStream};
pub use encoder::{Adapter, Encoder, FRAMES_PER_STEP};
pub use mel::{Mel, MelConfig, MelFrontEnd, MelStream};
pub use mimi::{Mimi, MimiConfig, MimiEncoder, MimiEncoderStream, MimiStream};
pub use model::{
    AudioModel, AudioOptions, Chat, Ending, Event, Frame, Generation, GenerationOptions, Live,
    LiveOptions, LiveText, Losses, Mode, Output, Piece, Reply, Role, Sample, Sampling, Section,
    Sections, Sequence, Session, Spoken, Token, Vocoder, VocoderStream, Voice,
};
pub use pauses::{CutOptions, cut_at_pauses, voice_activity};
pub use sound::{Clip, Resampler, SoundLimits, wav_bytes, write_wav};
pub use types::PartTypes;

/// The instruction set of the kernels: what the environment says, or the best of this machine.
fn isa() -> candle_core::Result<lfm2_kernels::Isa> {
    use std::sync::OnceLock;

    static ISA: OnceLock<Result<lfm2_kernels::Isa, String>> = OnceLock::new();
    let isa = ISA.get_or_init(|| lfm2_kernels::Isa::from_env().map_err(|e| e.to_string()));
    isa.clone().map_err(candle_core::Error::msg)
}
