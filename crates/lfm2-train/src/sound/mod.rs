//! Training a detokenizer: from codes of sound to sound.
//!
//! A [`SoundRun`] learns from the rows of a manifest that have codes. The stack gives the magnitudes and phases of
//! overlapping transforms; what it is asked for is that the magnitudes are those of the right sound, and that the sound
//! they make together has the right [spectra](Waves) at several resolutions. Nothing asks for one phase rather than
//! another, only for phases that fit together.

mod export;
mod objective;
mod options;
mod run;
mod waves;

pub use objective::{Segment, SoundObjective};
pub use options::{SoundBase, SoundOptions, SoundTag};
pub use run::SoundRun;
pub use waves::Waves;
