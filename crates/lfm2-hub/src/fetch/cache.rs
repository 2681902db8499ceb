//! [`HubCache`]: repositories that are on this machine already, in the layout all Hub clients share.
//!
//! ```text
//! models--org--name/refs/main            the commit that `main` was when last asked
//! models--org--name/snapshots/COMMIT/f   links into blobs
//! models--org--name/blobs/ETAG           contents
//! models--org--name/.no_exist/COMMIT/f   files the commit is known not to have
//! ```

use std::path::PathBuf;

use super::{Fetch, Offline, Snapshot};
use crate::files::{is_plain_path, read_capped};
use crate::source::is_commit;
use crate::{Error, RepoId, Result, Revision};

/// A Hub cache, read without network.
#[derive(Debug, Clone)]
pub struct HubCache {
    folder: PathBuf,
    reason: Offline,
}

impl HubCache {
    /// The cache in `folder`, which need not exist.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self::because(Offline::Option, folder)
    }

    /// The cache in `folder`, which for this reason is all there is.
    pub(super) fn because(reason: Offline, folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
            reason,
        }
    }

    /// The folder of one repository.
    pub(super) fn repository(&self, id: &RepoId) -> PathBuf {
        self.folder
            .join(format!("models--{}--{}", id.owner(), id.name()))
    }

    #[cfg(feature = "download")]
    pub(super) fn locks(&self, id: &RepoId) -> PathBuf {
        self.folder
            .join(".locks")
            .join(format!("models--{}--{}", id.owner(), id.name()))
    }

    /// The snapshot of a commit, whether or not it is there.
    pub(super) fn at_commit(&self, id: &RepoId, commit: &str) -> Snapshot {
        Snapshot::new(
            id.clone(),
            commit,
            self.repository(id).join("snapshots").join(commit),
        )
    }

    /// The commit that `revision` was when it was last downloaded.
    pub(super) fn known_commit(&self, id: &RepoId, revision: &Revision) -> Result<Option<String>> {
        if revision.is_commit() {
            return Ok(Some(revision.as_str().to_owned()));
        }
        let path = self.reference(id, revision);
        if !path.is_file() {
            return Ok(None);
        }
        let text = String::from_utf8_lossy(&read_capped(&path, 1024, "reference bytes")?)
            .trim()
            .to_owned();
        if is_commit(&text) {
            Ok(Some(text))
        } else {
            Err(Error::invalid_file(
                &path,
                "expected a commit hash; remove the file and download again",
            ))
        }
    }

    pub(super) fn reference(&self, id: &RepoId, revision: &Revision) -> PathBuf {
        self.repository(id).join("refs").join(revision.as_str())
    }

    #[cfg(feature = "download")]
    /// The marker for a file that the commit does not have.
    pub(super) fn absence(&self, snapshot: &Snapshot, name: &str) -> PathBuf {
        self.repository(&snapshot.id)
            .join(".no_exist")
            .join(&snapshot.commit)
            .join(name)
    }

    /// The file of a snapshot, if its contents are there too.
    pub(super) fn present(&self, snapshot: &Snapshot, name: &str) -> Result<Option<PathBuf>> {
        if !is_plain_path(name) {
            return Err(Error::InvalidInput(format!(
                "{name:?} is not a plain file name"
            )));
        }
        let path = snapshot.folder.join(name);
        // `is_file` follows the link, so a lost blob counts as absent.
        Ok(path.is_file().then_some(path))
    }
}

impl Fetch for HubCache {
    fn snapshot(&self, id: &RepoId, revision: &Revision, _file: &str) -> Result<Snapshot> {
        let commit = self.known_commit(id, revision)?;
        let snapshot = commit.map(|commit| self.at_commit(id, &commit));
        snapshot
            .filter(|snapshot| snapshot.folder.is_dir())
            .ok_or_else(|| Error::NotFound {
                what: format!("{id}{}", revision.suffix()),
                hint: format!(
                    "it is not in the cache {}, and {}",
                    self.folder.display(),
                    self.reason
                ),
            })
    }

    fn file(&self, snapshot: &Snapshot, name: &str) -> Result<Option<PathBuf>> {
        if let Some(path) = self.present(snapshot, name)? {
            return Ok(Some(path));
        }
        let path = snapshot.folder.join(name);
        if path.symlink_metadata().is_ok() {
            return Err(Error::NotFound {
                what: format!("the contents of {}", path.display()),
                hint: format!(
                    "the cache is damaged; run `lfm2 download {}@{}` where there is a network",
                    snapshot.id, snapshot.commit
                ),
            });
        }
        Ok(None)
    }
}
