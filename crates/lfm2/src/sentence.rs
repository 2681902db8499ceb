//! One vector per sentence, from any layer of any encoder.
//!
//! ```no_run
//! use std::ops::ControlFlow;
//! use lfm2::sentence::{self, EncodeOptions};
//!
//! # fn main() -> lfm2::Result<()> {
//! let encoder = sentence::open("LiquidAI/LFM2-350M")?;
//! let texts = ["It rains.", "It rained."];
//! let found = encoder.encode(&texts, &encoder.sites(), &EncodeOptions::default(), &mut |_| ControlFlow::Continue(()))?;
//! for layer in &found.vectors {
//!     println!("layer {}: {} numbers per sentence", layer.site, layer.dims);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Everything of the crate `lfm2-sentence`, with doors like those of other models.

use crate::OpenOptions;
use crate::hub::{Checkpoint, ModelSource};

pub use lfm2_sentence::*;

/// Opens an encoder: a folder, a GGUF file, or `organisation/name` of the Hub (downloaded with the
/// feature `download`, else taken from the local cache).
///
/// # Errors
/// When the text is no source, or the checkpoint is not there, damaged or of a kind that is not known.
pub fn open<S>(source: S) -> crate::Result<SentenceEncoder>
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
pub fn open_with<S>(source: S, options: &OpenOptions) -> crate::Result<SentenceEncoder>
where
    S: TryInto<ModelSource>,
    crate::Error: From<S::Error>,
{
    let checkpoint = Checkpoint::open(&source.try_into()?, &options.files)?;
    Ok(SentenceEncoder::from_checkpoint(
        &checkpoint,
        &options.load,
    )?)
}
