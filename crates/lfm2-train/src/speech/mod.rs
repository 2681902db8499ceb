//! Training speech models: an encoder, an adapter and a text model together.
//!
//! A [`SpeechRun`] learns to transcribe clips of sound, by the objective [`Mixed`](crate::Mixed), and to speak where it
//! is given codes of sound. Clips and transcripts are the rows of a manifest, sound is changed at random as the run
//! goes, and where the manifest says when each word was spoken, the rows of the encoder are [hinted](crate::Hints) at
//! it. What makes sound of codes is trained by a [`SoundRun`](crate::sound::SoundRun).

mod augment;
mod export;
mod feed;
mod front;
mod objective;
mod options;
mod rows;
mod run;
pub(crate) mod start;

pub use augment::AugmentOptions;
pub use feed::SpeechFeed;
pub use objective::{SpeechBatch, SpeechObjective};
pub use options::{
    LengthGrowth, SpeakData, SpeechBase, SpeechData, SpeechOptions, SpeechRates, SpeechTag,
};
pub use rows::{SpokenRow, SpokenRows, SpokenWord};
pub use run::SpeechRun;
