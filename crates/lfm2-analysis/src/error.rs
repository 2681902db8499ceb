//! What can go wrong between pairs of sentences and a report.

use std::path::{Path, PathBuf};

/// The result of anything in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The coarse class of an error; exit codes follow from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The thing asked for does not exist.
    NotFound,
    /// The caller's input or options make no sense.
    InvalidInput,
    /// A limit was reached.
    Limit,
    /// The caller stopped the work.
    Cancelled,
    /// The operating system failed.
    Io,
    /// A fault of this library.
    Internal,
}

/// Errors of reading pairs, analysing embeddings and writing reports.
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
    /// A file of pairs is not in a form that can be read.
    #[error("{}: line {line}: {detail}", path.display())]
    PairFile {
        /// The file.
        path: PathBuf,
        /// Line number, from 1.
        line: usize,
        /// Expected and found.
        detail: String,
    },
    /// A file of pairs holds nothing that can be used.
    #[error("{}: no usable pair: {detail}", path.display())]
    NoPairs {
        /// The file.
        path: PathBuf,
        /// What was found instead.
        detail: String,
    },
    /// A file is larger than this library reads.
    #[error("{}: {found} bytes, at most {limit} are read", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        found: u64,
        /// The limit.
        limit: u64,
    },
    /// Embeddings do not form matrices of one shape.
    #[error("embeddings of \"{name}\": {detail}")]
    Shape {
        /// The property.
        name: String,
        /// Expected and found.
        detail: String,
    },
    /// An embedding holds something that is no number, or one that regressions cannot work with.
    #[error(
        "embeddings of \"{name}\": {side} sentence of pair {pair}, dimension {dim}: {value} is not a number of at most 1e6 in size"
    )]
    OutOfRange {
        /// The property.
        name: String,
        /// "first" or "second".
        side: &'static str,
        /// The pair, from 0.
        pair: usize,
        /// The dimension, from 0.
        dim: usize,
        /// What was found.
        value: f32,
    },
    /// There are too few pairs for what was asked.
    #[error("\"{name}\": {found} {what}, at least {needed} are needed")]
    TooFew {
        /// The property.
        name: String,
        /// What there is too little of.
        what: &'static str,
        /// How many are needed.
        needed: usize,
        /// How many there are.
        found: usize,
    },
    /// Rows of a split do not fit the data.
    #[error("split of \"{name}\": {detail}")]
    Split {
        /// The property.
        name: String,
        /// Expected and found.
        detail: String,
    },
    /// An option has no valid meaning.
    #[error("{key}: {detail}")]
    InvalidOption {
        /// The option.
        key: &'static str,
        /// Expected and found.
        detail: String,
    },
    /// A regression did not come to an end.
    #[error(
        "the logistic regression on {dims} dimensions and {rows} rows did not converge: the largest slope left is {gradient:e}"
    )]
    NotConverged {
        /// Dimensions of the regression.
        dims: usize,
        /// Rows of the regression.
        rows: usize,
        /// Largest absolute entry of the gradient.
        gradient: f64,
    },
    /// The caller stopped the analysis.
    #[error("stopped by the caller")]
    Cancelled,
    /// A picture cannot be drawn, which is a fault of this library.
    #[error("a picture of the report cannot be drawn: {detail}")]
    Picture {
        /// What the drawing library said.
        detail: String,
    },
    /// A report cannot be put into words, which is a fault of this library.
    #[error("the report cannot be written as json: {0}")]
    Json(#[from] serde_json::Error),
}

impl Error {
    /// The class of this error.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
                ErrorKind::NotFound
            }
            Self::Io { .. } => ErrorKind::Io,
            Self::PairFile { .. }
            | Self::NoPairs { .. }
            | Self::Shape { .. }
            | Self::OutOfRange { .. }
            | Self::TooFew { .. }
            | Self::Split { .. }
            | Self::InvalidOption { .. } => ErrorKind::InvalidInput,
            Self::TooLarge { .. } => ErrorKind::Limit,
            Self::Cancelled => ErrorKind::Cancelled,
            Self::NotConverged { .. } | Self::Picture { .. } | Self::Json(_) => ErrorKind::Internal,
        }
    }

    pub(crate) fn io(path: &Path, source: std::io::Error) -> Self {
        Self::Io {
            path: path.to_path_buf(),
            source,
        }
    }
}
