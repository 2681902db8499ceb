//! The parts of the cache that are written: locks, references, markers and links.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use super::remote::Etag;
use super::{HubCache, Snapshot};
use crate::files::{Overwrite, write_atomic};
use crate::{Error, RepoId, Result, Revision};

/// Held while one blob is downloaded, so that two processes do not write the same file. The
/// operating system releases it when the holder ends, however it ends.
pub(super) struct Lock(#[expect(dead_code, reason = "held, not read")] File);

impl HubCache {
    pub(super) fn lock(&self, id: &RepoId, etag: &Etag) -> Result<Lock> {
        let path = self.locks(id).join(format!("{}.lock", etag.as_str()));
        make_parent(&path)?;
        let lock = File::create(&path).and_then(|file| file.lock().map(|()| Lock(file)));
        lock.map_err(|source| Error::io(&path, source))
    }

    pub(super) fn blob(&self, id: &RepoId, etag: &Etag) -> Result<PathBuf> {
        let path = self.repository(id).join("blobs").join(etag.as_str());
        make_parent(&path)?;
        Ok(path)
    }

    /// Notes which commit `revision` is now.
    pub(super) fn remember(&self, id: &RepoId, revision: &Revision, commit: &str) -> Result<()> {
        if self.known_commit(id, revision).ok().flatten().as_deref() == Some(commit) {
            return Ok(());
        }
        let path = self.reference(id, revision);
        make_parent(&path)?;
        write_atomic(&path, Overwrite::Replace, |file| {
            file.write_all(commit.as_bytes())
                .map_err(|source| Error::io(&path, source))
        })
    }

    /// Notes that the commit has no such file, so that nobody asks again. A cache that cannot be
    /// written only costs the question.
    pub(super) fn mark_absent(&self, snapshot: &Snapshot, name: &str) {
        let path = self.absence(snapshot, name);
        let marked = make_parent(&path).map(|()| File::create(&path));
        if !matches!(marked, Ok(Ok(_))) {
            tracing::debug!(path = %path.display(), "could not note that the file does not exist");
        }
    }

    /// Puts the blob into the snapshot under its name.
    pub(super) fn link(&self, snapshot: &Snapshot, name: &str, etag: &Etag) -> Result<PathBuf> {
        let path = snapshot.folder.join(name);
        make_parent(&path)?;
        // Made under another name and moved, so that a reader always finds the old or the new one.
        let draft = snapshot
            .folder
            .join(format!(".{}.{}.tmp", etag.as_str(), std::process::id()));
        let io = |source| Error::io(&path, source);
        if draft.symlink_metadata().is_ok() {
            std::fs::remove_file(&draft).map_err(io)?;
        }
        let depth = 2 + name.matches('/').count();
        place(&self.repository(&snapshot.id), etag, &draft, depth).map_err(io)?;
        std::fs::rename(&draft, &path).map_err(io)?;
        Ok(path)
    }
}

/// Links the blob as a file that will be `depth` folders below the repository's.
#[cfg(unix)]
fn place(_repository: &Path, etag: &Etag, path: &Path, depth: usize) -> std::io::Result<()> {
    let up: PathBuf = std::iter::repeat_n("..", depth).collect();
    std::os::unix::fs::symlink(up.join("blobs").join(etag.as_str()), path)
}

/// Links need rights on Windows that ordinary users lack.
#[cfg(not(unix))]
fn place(repository: &Path, etag: &Etag, path: &Path, _depth: usize) -> std::io::Result<()> {
    std::fs::copy(repository.join("blobs").join(etag.as_str()), path).map(drop)
}

fn make_parent(path: &Path) -> Result<()> {
    match path.parent() {
        Some(parent) => std::fs::create_dir_all(parent).map_err(|source| Error::io(parent, source)),
        None => Ok(()),
    }
}
