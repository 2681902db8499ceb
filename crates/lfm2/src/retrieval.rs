//! Texts that can be searched by meaning.
//!
//! ```no_run
//! use lfm2::retrieval::{self, Library, SearchOptions};
//!
//! # fn main() -> lfm2::Result<()> {
//! let model = retrieval::open("LiquidAI/LFM2-ColBERT-350M")?;
//! let mut library = Library::create("docs.index", model, &Default::default())?;
//! library.add_files(&["docs", "README.md"])?;
//! for answer in library.search("how do I make a model smaller?", &SearchOptions::top(3))? {
//!     println!("{:6.3}  {}: {}", answer.score, answer.document, answer.heading);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Adding the same files again encodes only what has changed. All that is behind this, models,
//! indexes, chunks, evaluation, is here too: everything of the crate `lfm2-colbert`.

use crate::OpenOptions;
use crate::hub::{Checkpoint, ModelSource};

pub use lfm2_colbert::index::{
    Bits, Engine, Filter, IndexError, IndexInfo, PlaidOptions, SearchOptions,
};
pub use lfm2_colbert::*;

/// The tiny model that is compiled into the program: it finds English texts by words and what goes
/// with them, in a few milliseconds each.
///
/// ```
/// # fn main() -> lfm2::Result<()> {
/// let model = lfm2::retrieval::embedded()?;
/// let texts = ["The cat sat on the mat.", "Rain fell on the sea all night."];
/// let ranking = model.rerank("where did it rain?", &texts)?;
/// assert_eq!(ranking[0].index, 1);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// None: a test of this crate opens it.
#[cfg(feature = "embedded")]
pub fn embedded() -> crate::Result<RetrievalModel> {
    let checkpoint = crate::embedded::colbert()?;
    Ok(RetrievalModel::from_checkpoint(
        &checkpoint,
        &Default::default(),
    )?)
}

/// Opens a retrieval model, of one vector per token or one per text: a folder, a GGUF file, or
/// `organisation/name` of the Hub (downloaded with the feature `download`, else taken from the
/// local cache).
///
/// # Errors
/// When the text is no source, or the checkpoint is not there, damaged or no retrieval model.
pub fn open<S>(source: S) -> crate::Result<RetrievalModel>
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
pub fn open_with<S>(source: S, options: &OpenOptions) -> crate::Result<RetrievalModel>
where
    S: TryInto<ModelSource>,
    crate::Error: From<S::Error>,
{
    let checkpoint = Checkpoint::open(&source.try_into()?, &options.files)?;
    Ok(RetrievalModel::from_checkpoint(&checkpoint, &options.load)?)
}
