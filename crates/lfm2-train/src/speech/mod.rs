//! Training speech models: an encoder, an adapter and a text model together.
//!
//! A [`SpeechRun`] learns to transcribe clips of sound; its objective is [`Mixed`](crate::Mixed). Clips and
//! transcripts are the rows of a manifest, sound is changed at random as the run goes, and where the manifest says
//! when each word was spoken, the rows of the encoder are [hinted](crate::Hints) at it.

mod augment;
mod export;
mod feed;
mod front;
mod options;
mod rows;
mod run;
mod start;

pub use augment::AugmentOptions;
pub use feed::SpeechFeed;
pub use options::{LengthGrowth, SpeechBase, SpeechData, SpeechOptions, SpeechRates, SpeechTag};
pub use rows::{SpokenRow, SpokenRows, SpokenWord};
pub use run::SpeechRun;
