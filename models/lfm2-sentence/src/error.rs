//! What can go wrong between a sentence and its vector.

use lfm2_hub::ErrorKind;

/// The result of anything in this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Errors of opening encoders and of encoding.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Files, configs, texts and options.
    #[error(transparent)]
    Hub(#[from] lfm2_hub::Error),
    /// A retrieval model.
    #[error(transparent)]
    Colbert(#[from] lfm2_colbert::Error),
    /// A tensor operation failed.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
    /// The caller stopped the work.
    #[error("stopped by the caller")]
    Cancelled,
}

impl Error {
    /// The coarse class of this error.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Hub(error) => error.kind(),
            Self::Colbert(error) => error.kind(),
            Self::Candle(_) => ErrorKind::Internal,
            Self::Cancelled => ErrorKind::Cancelled,
        }
    }

    /// Input or options that make no sense.
    pub(crate) fn input(message: impl Into<String>) -> Self {
        Self::Hub(lfm2_hub::Error::InvalidInput(message.into()))
    }
}
