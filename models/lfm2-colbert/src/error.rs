//! What can go wrong between a text and its rank.

use lfm2_hub::ErrorKind;

/// The result of anything in this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Errors of encoders, indexes and evaluations.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Files, configs, texts and options.
    #[error(transparent)]
    Hub(#[from] lfm2_hub::Error),
    /// A tensor operation failed.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
    /// Building, changing or searching an index.
    #[error(transparent)]
    Index(#[from] crate::index::IndexError),
}

impl Error {
    /// The coarse class of this error.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Hub(error) => error.kind(),
            Self::Candle(_) => ErrorKind::Internal,
            Self::Index(error) => error.kind(),
        }
    }

    /// Input or options that make no sense.
    pub(crate) fn input(message: impl Into<String>) -> Self {
        Self::Hub(lfm2_hub::Error::InvalidInput(message.into()))
    }
}
