//! What can go wrong with an index.

use std::path::{Path, PathBuf};

use lfm2_hub::ErrorKind;
use lfm2_kernels::{IsaError, ShapeError};

/// The result of this module's functions.
pub type Result<T> = std::result::Result<T, IndexError>;

/// Errors of building, opening, changing and searching indexes.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IndexError {
    /// A file is missing or damaged, or cannot be read or written.
    #[error(transparent)]
    File(#[from] lfm2_hub::Error),
    /// The index was written by another version of this library.
    #[error("{}: index format {found} is not supported: expected {expected}, build the index again", path.display())]
    Version {
        /// The manifest.
        path: PathBuf,
        /// The version that this library reads and writes.
        expected: u64,
        /// The version of the file.
        found: u64,
    },
    /// The index holds vectors of another model.
    #[error("{}: the index was built with model {found}, expected {expected}: build it again with this model", path.display())]
    OtherModel {
        /// The folder of the index.
        path: PathBuf,
        /// The fingerprint asked for.
        expected: String,
        /// The fingerprint of the index.
        found: String,
    },
    /// Another process or another writer is changing the index.
    #[error("{}: the index is being changed by somebody else: try again later", path.display())]
    Busy {
        /// The lock.
        path: PathBuf,
    },
    /// The id is taken.
    #[error("document \"{id}\" is in the index already")]
    Duplicate {
        /// The id.
        id: String,
    },
    /// Vectors of the wrong width.
    #[error("vectors of {what}: expected {expected} dimensions, found {found}")]
    Dimensions {
        /// The document, or the query.
        what: String,
        /// The width of the index.
        expected: usize,
        /// The width given.
        found: usize,
    },
    /// A vector with a value that is not a number, infinite, or too large for the stored format.
    #[error("vectors of {what}: row {row} has a value that is not finite")]
    NotFinite {
        /// The document, or the query.
        what: String,
        /// The row.
        row: usize,
    },
    /// A filter that cannot be understood.
    #[error("filter at character {at}: expected {expected}")]
    Filter {
        /// Where, counted from 1.
        at: usize,
        /// What should have been there.
        expected: &'static str,
    },
    /// A value that makes no sense.
    #[error("{0}")]
    InvalidInput(String),
    /// This build or this index cannot do it.
    #[error("{what} is not supported: {hint}")]
    Unsupported {
        /// The thing asked for.
        what: String,
        /// What can be done instead.
        hint: String,
    },
    /// The writer failed before and has nothing left that could be committed.
    #[error("the change has failed before: begin a new one")]
    Failed,
    /// The PLAID engine failed.
    #[cfg(feature = "plaid")]
    #[error("{}: {source}", path.display())]
    Plaid {
        /// The folder of the compressed form.
        path: PathBuf,
        /// What it said.
        #[source]
        source: Box<next_plaid::Error>,
    },
    /// Matrices that do not fit together.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// The environment asks for instructions that are not there.
    #[error(transparent)]
    Isa(#[from] IsaError),
}

impl IndexError {
    /// The coarse class of this error.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::File(error) => error.kind(),
            Self::Version { .. } | Self::Unsupported { .. } => ErrorKind::Unsupported,
            Self::OtherModel { .. }
            | Self::Duplicate { .. }
            | Self::Dimensions { .. }
            | Self::NotFinite { .. }
            | Self::Filter { .. }
            | Self::InvalidInput(_)
            | Self::Shape(_)
            | Self::Isa(_) => ErrorKind::InvalidInput,
            Self::Busy { .. } => ErrorKind::Busy,
            Self::Failed => ErrorKind::Io,
            #[cfg(feature = "plaid")]
            Self::Plaid { .. } => ErrorKind::Io,
        }
    }

    /// A failure of the file system at `path`.
    pub(super) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self + '_ {
        move |source| lfm2_hub::Error::io(path, source).into()
    }

    /// A file that is not what it should be.
    pub(super) fn damaged(path: &Path, detail: impl Into<String>) -> Self {
        lfm2_hub::Error::invalid_file(path, detail).into()
    }
}
