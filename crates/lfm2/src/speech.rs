//! Speech: transcribed, read aloud, answered.
//!
//! ```no_run
//! use lfm2::speech::{self, Clip, GenerationOptions, SoundLimits, Voice, write_wav};
//!
//! # fn main() -> lfm2::Result<()> {
//! let model = speech::open("LiquidAI/LFM2.5-Audio-1.5B")?;
//!
//! let question = Clip::open("question.wav".as_ref(), &SoundLimits::default())?;
//! let said = model.transcribe(&question, &GenerationOptions::greedy())?.finish()?;
//! println!("{}", said.text);
//!
//! let spoken = model.speak(&said.text, &Voice::UkFemale, &GenerationOptions::speech())?.finish()?;
//! write_wav("again.wav".as_ref(), &spoken.samples, speech::OUTPUT_RATE)?;
//! # Ok(())
//! # }
//! ```
//!
//! All that is behind this, encoder, codecs, sessions, shapes, is here too: everything of the crate
//! `lfm2-audio`.

use crate::OpenOptions;
use crate::hub::ModelSource;

pub use lfm2_audio::*;

/// Opens a speech model: a folder, a GGUF file with the three that belong to it beside it, or
/// `organisation/name` of the Hub (downloaded with the feature `download`, else taken from the local
/// cache).
///
/// # Errors
/// When the text is no source, or the checkpoint is not there, damaged or no speech model.
pub fn open<S>(source: S) -> crate::Result<AudioModel>
where
    S: TryInto<ModelSource>,
    crate::Error: From<S::Error>,
{
    open_with(source, &OpenOptions::default())
}

/// [`open`] with other options.
///
/// # Errors
/// As [`open`].
pub fn open_with<S>(source: S, options: &OpenOptions) -> crate::Result<AudioModel>
where
    S: TryInto<ModelSource>,
    crate::Error: From<S::Error>,
{
    let options = AudioOptions::default()
        .with_open(options.files.clone())
        .with_load(options.load.clone());
    Ok(AudioModel::open(&source.try_into()?, &options)?)
}

/// The speech model that is compiled into the program: it writes down strings of English digits, and knows nothing
/// else.
///
/// # Errors
/// None: a test of this crate opens it.
#[cfg(feature = "embedded")]
pub fn embedded() -> crate::Result<AudioModel> {
    Ok(AudioModel::from_checkpoint(
        &crate::embedded::audio()?,
        &AudioOptions::default(),
    )?)
}

/// Seconds of sound that [`embedded`] should get at a time: it was trained on strings of up to eight digits, and so
/// many are said in that time.
#[cfg(feature = "embedded")]
pub const EMBEDDED_SECONDS: f64 = 3.0;
