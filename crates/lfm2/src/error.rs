//! What can go wrong behind the door: one error for all rooms.

use std::convert::Infallible;

use crate::hub::ErrorKind;

/// The result of anything in this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of any of the crates behind this one. [`Error::kind`] is all that most callers need.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Opening, checking or downloading model files failed.
    #[error(transparent)]
    Hub(#[from] lfm2_hub::Error),
    /// A prompt, template, option or generation failed.
    #[error(transparent)]
    Generate(#[from] lfm2_generate::Error),
    /// Encoding, indexing or searching texts failed.
    #[error(transparent)]
    Retrieval(#[from] lfm2_colbert::Error),
    /// Encoding sentences failed.
    #[error(transparent)]
    Sentence(#[from] lfm2_sentence::Error),
    /// A tensor operation failed.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}

impl Error {
    /// The coarse class of this error.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Hub(error) => error.kind(),
            Self::Generate(error) => error.kind(),
            Self::Retrieval(error) => error.kind(),
            Self::Sentence(error) => error.kind(),
            Self::Candle(_) => ErrorKind::Internal,
        }
    }
}

/// Sources that need no parsing cannot fail to be one.
impl From<Infallible> for Error {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}
