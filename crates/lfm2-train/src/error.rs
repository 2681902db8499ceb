//! What can go wrong while training.

use std::path::{Path, PathBuf};

use lfm2_hub::ErrorKind;

/// The result of anything in this crate that touches data, files or options.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Errors of data reading, training and resuming.
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
    /// A line of a data file is not in the declared format.
    #[error("{}: line {line}: {detail}", path.display())]
    Data {
        /// The data file.
        path: PathBuf,
        /// Line number, from 1.
        line: usize,
        /// Expected and found.
        detail: String,
    },
    /// A data file as a whole cannot be used: nothing in it, or nothing in it is scored.
    #[error("{}: {detail}", path.display())]
    EmptyData {
        /// The data file.
        path: PathBuf,
        /// What is missing.
        detail: String,
    },
    /// An option of the run has no valid meaning.
    #[error("{key}: {detail}")]
    InvalidOption {
        /// The option, as spelled in the run's configuration.
        key: String,
        /// Expected and found.
        detail: String,
    },
    /// A run folder was made with other settings than the ones it is resumed with.
    #[error("{}: {key} differs: expected {expected}, found {found}; resume with the old value or force it", path.display())]
    RunMismatch {
        /// The file that holds the settings of the interrupted run.
        path: PathBuf,
        /// The setting.
        key: String,
        /// The value of the interrupted run.
        expected: String,
        /// The value given now.
        found: String,
    },
    /// A run folder's contents do not fit what was asked.
    #[error("{}: {detail}", path.display())]
    RunFolder {
        /// The folder or file.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// The loss or a gradient is not a finite number; the state before this step was saved.
    #[error("step {step}: {what} is {value}; the state of step {} is saved", step - 1)]
    NonFinite {
        /// The step that failed, from 1.
        step: u64,
        /// The quantity: "loss" or "gradient norm".
        what: &'static str,
        /// Its value.
        value: f64,
    },
    /// The caller stopped the run; the state after `step` is saved.
    #[error("stopped after step {step}; its state is saved")]
    Cancelled {
        /// The last finished step.
        step: u64,
    },
    /// The tokenizer could not be trained or written.
    #[error("tokenizer: {0}")]
    Tokenizer(String),
    /// A checkpoint, tokenizer or tensor file failed.
    #[error(transparent)]
    Hub(#[from] lfm2_hub::Error),
    /// The chat template failed.
    #[error(transparent)]
    Template(#[from] lfm2_generate::Error),
    /// A retrieval model, or a text for one, failed.
    #[error(transparent)]
    Retrieval(#[from] lfm2_colbert::Error),
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
            Self::Io { .. } => ErrorKind::Io,
            Self::Data { .. }
            | Self::EmptyData { .. }
            | Self::InvalidOption { .. }
            | Self::RunMismatch { .. }
            | Self::RunFolder { .. } => ErrorKind::InvalidInput,
            Self::NonFinite { .. } | Self::Tokenizer(_) | Self::Candle(_) => ErrorKind::Internal,
            Self::Cancelled { .. } => ErrorKind::Cancelled,
            Self::Hub(e) => e.kind(),
            Self::Template(e) => e.kind(),
            Self::Retrieval(e) => e.kind(),
        }
    }

    pub(crate) fn io(path: impl AsRef<Path>, source: std::io::Error) -> Self {
        Self::Io {
            path: path.as_ref().to_path_buf(),
            source,
        }
    }

    pub(crate) fn data(path: impl AsRef<Path>, line: usize, detail: impl Into<String>) -> Self {
        Self::Data {
            path: path.as_ref().to_path_buf(),
            line,
            detail: detail.into(),
        }
    }

    pub(crate) fn option(key: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::InvalidOption {
            key: key.into(),
            detail: detail.into(),
        }
    }

    pub(crate) fn run_folder(path: impl AsRef<Path>, detail: impl Into<String>) -> Self {
        Self::RunFolder {
            path: path.as_ref().to_path_buf(),
            detail: detail.into(),
        }
    }
}
