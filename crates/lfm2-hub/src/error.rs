//! What can go wrong between a model's name and its tensors.

use std::path::{Path, PathBuf};

/// The result of anything that reads a checkpoint.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The coarse class of an error, shared by every crate of the family.
///
/// Exit codes of the command and the status of a server follow from the kind alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The thing asked for does not exist.
    NotFound,
    /// A model file is damaged or contradicts itself.
    InvalidModel,
    /// The caller's input or options make no sense.
    InvalidInput,
    /// The input is fine but this build or this model cannot do it.
    Unsupported,
    /// A configured limit was reached.
    Limit,
    /// Too much is going on; trying again later can help.
    Busy,
    /// The caller stopped the work.
    Cancelled,
    /// The operating system or the network failed.
    Io,
    /// A fault of this library.
    Internal,
}

/// Errors of opening, checking, downloading and writing model files.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Reading or writing a file failed.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: std::io::Error,
    },
    /// Something that should exist does not.
    #[error("{what} not found: {hint}")]
    NotFound {
        /// What was looked for, and where.
        what: String,
        /// What the caller can do.
        hint: String,
    },
    /// A file breaks the rules of its format.
    #[error("{}: {detail}", path.display())]
    InvalidFile {
        /// The file.
        path: PathBuf,
        /// What is wrong and where.
        detail: String,
    },
    /// A config key, or a pair of them, has no valid meaning.
    #[error("config: {keys}: {detail}")]
    InvalidConfig {
        /// The key or keys, as spelled in the file.
        keys: String,
        /// Expected and found.
        detail: String,
    },
    /// The model needs a tensor that the checkpoint lacks.
    #[error("tensor \"{name}\" is missing from the checkpoint")]
    MissingTensor {
        /// The tensor's full name.
        name: String,
    },
    /// A tensor has another shape than the config says.
    #[error("tensor \"{name}\": expected {expected:?}, found {found:?}")]
    TensorShape {
        /// The tensor's full name.
        name: String,
        /// The shape that follows from the config.
        expected: Vec<usize>,
        /// The shape in the file.
        found: Vec<usize>,
    },
    /// The input is well formed, but not something this build can use.
    #[error("{what} is not supported: {hint}")]
    Unsupported {
        /// The thing found.
        what: String,
        /// What is supported instead.
        hint: String,
    },
    /// A configured limit was exceeded.
    #[error("{what}: {found} is over the limit of {limit}")]
    Limit {
        /// The limited thing.
        what: String,
        /// The limit.
        limit: u64,
        /// What was found.
        found: u64,
    },
    /// The caller passed something that makes no sense.
    #[error("{0}")]
    InvalidInput(String),
    /// Talking to a server failed.
    #[error("{address}: {detail}")]
    Network {
        /// The address without query, which could hold secrets.
        address: String,
        /// The status of the answer, when there was one.
        status: Option<u16>,
        /// What happened.
        detail: String,
    },
    /// A server refuses access.
    #[error("access to {what} denied: {hint}")]
    Denied {
        /// The repository.
        what: String,
        /// What the caller can do.
        hint: String,
    },
    /// A tensor operation failed.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}

impl Error {
    /// The coarse class of this error.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
                ErrorKind::NotFound
            }
            Self::Network {
                status: Some(429 | 503),
                ..
            } => ErrorKind::Busy,
            Self::Io { .. } | Self::Network { .. } => ErrorKind::Io,
            Self::NotFound { .. } => ErrorKind::NotFound,
            Self::InvalidFile { .. }
            | Self::InvalidConfig { .. }
            | Self::MissingTensor { .. }
            | Self::TensorShape { .. } => ErrorKind::InvalidModel,
            Self::Unsupported { .. } => ErrorKind::Unsupported,
            Self::Limit { .. } => ErrorKind::Limit,
            Self::InvalidInput(_) | Self::Denied { .. } => ErrorKind::InvalidInput,
            Self::Candle(_) => ErrorKind::Internal,
        }
    }

    /// An [`Error::Io`] at `path`.
    pub fn io(path: impl AsRef<Path>, source: std::io::Error) -> Self {
        Self::Io {
            path: path.as_ref().to_path_buf(),
            source,
        }
    }

    /// An [`Error::InvalidFile`] at `path`.
    pub fn invalid_file(path: impl AsRef<Path>, detail: impl Into<String>) -> Self {
        Self::InvalidFile {
            path: path.as_ref().to_path_buf(),
            detail: detail.into(),
        }
    }

    /// An [`Error::InvalidConfig`] about `keys`.
    pub fn config(keys: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::InvalidConfig {
            keys: keys.into(),
            detail: detail.into(),
        }
    }
}
