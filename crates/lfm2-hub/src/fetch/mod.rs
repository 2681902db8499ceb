//! Getting files of a Hub repository onto this machine.
//!
//! [`Fetch`] is the seam: the local cache implements it without any network, the client behind the
//! feature `download` with one, and a test can implement it in ten lines. Nothing here knows what
//! the files mean.

mod cache;
mod checkpoint;
#[cfg(feature = "download")]
mod client;
#[cfg(feature = "download")]
mod link;
mod progress;
#[cfg(feature = "download")]
mod remote;
mod settings;
#[cfg(feature = "download")]
mod transfer;

use std::path::PathBuf;

pub use cache::HubCache;
pub use checkpoint::{Parts, fetch_checkpoint, fetch_gguf};
pub(crate) use checkpoint::{chosen_fetch, fetch_parts, fetch_weights};
#[cfg(feature = "download")]
pub use client::HubClient;
pub use progress::{Progress, ProgressEvent};
pub(crate) use settings::{HubSettings, Offline};

use crate::{RepoId, Result, Revision};

/// One way to get the files of Hub repositories.
pub trait Fetch: Send + Sync {
    /// Finds out which commit `revision` is. All files are then taken from that commit, so that a
    /// push in between cannot mix two versions. `file` is one that is wanted from it; the Hub tells
    /// the commit when asked about a file.
    ///
    /// # Errors
    /// [`Error::NotFound`](crate::Error::NotFound) for an unknown repository, revision or file.
    fn snapshot(&self, id: &RepoId, revision: &Revision, file: &str) -> Result<Snapshot>;

    /// Makes the file `name` available in the folder of the snapshot; `None` when the repository
    /// has no such file.
    ///
    /// # Errors
    /// [`Error::NotFound`](crate::Error::NotFound) when it should be in the cache and is not,
    /// [`Error::Network`](crate::Error::Network) and others when a download fails.
    fn file(&self, snapshot: &Snapshot, name: &str) -> Result<Option<PathBuf>>;
}

/// One commit of one repository, and the folder with its files.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Snapshot {
    /// The repository.
    pub id: RepoId,
    /// The full commit hash.
    pub commit: String,
    /// Where its files are, or will be.
    pub folder: PathBuf,
}

impl Snapshot {
    /// The commit `commit` of a repository, with its files in `folder`.
    pub fn new(id: RepoId, commit: impl Into<String>, folder: impl Into<PathBuf>) -> Self {
        Self {
            id,
            commit: commit.into(),
            folder: folder.into(),
        }
    }
}
