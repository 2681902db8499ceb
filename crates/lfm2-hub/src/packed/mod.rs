//! [`PackedCache`]: weights as the kernels want them, kept from one start to the next.
//!
//! Knows files, their age and the room they take. What is in them, and when it pays to keep it, is
//! up to who loads the weights.

mod file;
mod fingerprint;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha256};

use self::file::Origin;
use crate::files::write_unsynced;
use crate::{Error, Result};

pub use file::{PackedEntry, PackedFile, PackedTensor};
pub(crate) use fingerprint::FileStamp;
pub use fingerprint::Fingerprint;

/// How files of packed weights end.
const EXTENSION: &str = "lfm2-packed";
/// Free bytes that are left on the disk.
const KEEP_FREE: u64 = 2 << 30;
/// After which time a half-written file belongs to a program that is gone.
const ABANDONED: Duration = Duration::from_secs(24 * 3600);

/// A folder with packed weights, one file per model.
///
/// A file is found again by the [`Fingerprint`] of the weights it was made of, so weights that change
/// are packed anew. Files are written under another name first, checked when they are read, and may
/// be deleted at any time; a damaged one is as good as none.
///
/// ```no_run
/// use lfm2_hub::PackedCache;
///
/// let cache = PackedCache::user_folder().map(PackedCache::new);
/// let small = PackedCache::new("packed").with_max_bytes(4 << 30);
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct PackedCache {
    folder: PathBuf,
    max_bytes: u64,
    min_bytes: u64,
    tick: Duration,
}

/// What became of packed weights that were to be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stored {
    /// They are in the folder.
    Written,
    /// They are packed again sooner than they are found.
    TooSmall,
    /// The folder may not become as large.
    TooLarge,
    /// The disk would be too full.
    NoRoom,
    /// Their source has changed meanwhile, or too short a time ago to be told from a later change.
    Unsettled,
}

impl PackedCache {
    /// The folder may hold 16 GiB, unless told otherwise.
    pub const DEFAULT_MAX_BYTES: u64 = 16 << 30;
    /// Models of less than 32 MiB are not stored, unless told otherwise.
    pub const DEFAULT_MIN_BYTES: u64 = 32 << 20;
    /// Weights that were changed less than 50 ms ago are not stored, unless told otherwise.
    pub const DEFAULT_TICK: Duration = Duration::from_millis(50);

    /// The cache in `folder`, which need not exist.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
            max_bytes: Self::DEFAULT_MAX_BYTES,
            min_bytes: Self::DEFAULT_MIN_BYTES,
            tick: Self::DEFAULT_TICK,
        }
    }

    /// The folder `lfm2/packed` where this user's programs keep such things: in `XDG_CACHE_HOME` or
    /// `~/.cache`, `~/Library/Caches` or `%LOCALAPPDATA%`. `None` for a user without a home.
    pub fn user_folder() -> Option<PathBuf> {
        let variable = |name| {
            let folder = std::env::var_os(name).map(PathBuf::from);
            folder.filter(|folder| folder.is_absolute())
        };
        let home = |below: &str| std::env::home_dir().map(|home| home.join(below));
        let caches = if cfg!(windows) {
            variable("LOCALAPPDATA")
        } else if cfg!(target_os = "macos") {
            home("Library/Caches")
        } else {
            variable("XDG_CACHE_HOME").or_else(|| home(".cache"))
        };
        Some(caches?.join("lfm2").join("packed"))
    }

    /// How many bytes the folder may hold. The files that were not used for the longest time go first.
    pub fn with_max_bytes(mut self, max_bytes: u64) -> Self {
        self.max_bytes = max_bytes;
        self
    }

    /// From how many bytes on packed weights are stored.
    pub fn with_min_bytes(mut self, min_bytes: u64) -> Self {
        self.min_bytes = min_bytes;
        self
    }

    /// How far apart two changes of a file must be for its file system to record different times.
    pub fn with_tick(mut self, tick: Duration) -> Self {
        self.tick = tick;
        self
    }

    /// Where the files are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The packed weights of `source` in the kernels' arrangement `layout`, if they are here and
    /// undamaged.
    pub fn open(&self, source: &Fingerprint, layout: u32) -> Option<PackedFile> {
        let origin = Origin::of(source, layout);
        let path = self.path(source, &origin);
        match PackedFile::open(&path, &origin) {
            Ok(file) => {
                mark_used(&path);
                Some(file)
            }
            Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => {
                tracing::debug!(%error, "packed weights are made anew");
                None
            }
        }
    }

    /// Stores packed weights of `source`, if there is reason to and room for it, in place of older
    /// ones. There will be some `bytes` of them; they are written as they come, and under their
    /// name only when all of them have come.
    ///
    /// # Errors
    /// [`Error::Io`] when the folder cannot be made or written to, or the first error that comes
    /// instead of a matrix. Nothing is stored then.
    pub fn store<B: AsRef<[u8]>>(
        &self,
        source: &Fingerprint,
        layout: u32,
        bytes: u64,
        tensors: impl IntoIterator<Item = Result<PackedTensor<B>>>,
    ) -> Result<Stored> {
        if bytes < self.min_bytes {
            return Ok(Stored::TooSmall);
        }
        if bytes > self.max_bytes {
            return Ok(Stored::TooLarge);
        }
        let folder = &self.folder;
        std::fs::create_dir_all(folder).map_err(|error| Error::io(folder, error))?;
        let origin = Origin::of(source, layout);
        let path = self.path(source, &origin);
        self.make_room(bytes, &path);
        if free_bytes(folder).is_some_and(|free| free < bytes.saturating_add(KEEP_FREE)) {
            return Ok(Stored::NoRoom);
        }
        let mut settled = true;
        let written = write_unsynced(&path, |writer| {
            file::write(&path, writer, origin, tensors.into_iter())?;
            settled = source.is_settled(self.tick);
            if settled {
                return Ok(());
            }
            let name = source.name().display();
            Err(Error::InvalidInput(format!("{name}: changed just now")))
        });
        match written {
            Err(_) if !settled => Ok(Stored::Unsettled),
            written => written.map(|()| Stored::Written),
        }
    }

    fn path(&self, source: &Fingerprint, origin: &Origin) -> PathBuf {
        let stem = source.name().file_stem().unwrap_or(OsStr::new("model"));
        let plain = |c: char| {
            if c.is_ascii_alphanumeric() || matches!(c, '-' | '.') {
                c
            } else {
                '_'
            }
        };
        let stem: String = stem.to_string_lossy().chars().take(64).map(plain).collect();
        let key = Sha256::digest(format!("{} {}", origin.fingerprint, origin.layout));
        self.folder
            .join(format!("{stem}-{}.{EXTENSION}", &hex(&key)[..32]))
    }

    /// Deletes what was not used for the longest time until `bytes` more fit, and what programs left
    /// that were stopped. The file at `replaced` does not count.
    fn make_room(&self, bytes: u64, replaced: &Path) {
        let mut files: Vec<(SystemTime, u64, PathBuf)> = Vec::new();
        let entries = std::fs::read_dir(&self.folder).into_iter().flatten();
        for entry in entries.flatten() {
            let path = entry.path();
            let Ok(metadata) = entry.metadata() else {
                continue;
            };
            let used = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            if path.extension() == Some(OsStr::new(EXTENSION)) && path != replaced {
                files.push((used, metadata.len(), path));
            } else if is_abandoned(&path, used) {
                remove(&path);
            }
        }
        files.sort();
        let mut total: u64 = files.iter().map(|(_, length, _)| length).sum();
        for (_, length, path) in files {
            if total.saturating_add(bytes) <= self.max_bytes {
                return;
            }
            remove(&path);
            total -= length;
        }
    }
}

impl Origin {
    fn of(source: &Fingerprint, layout: u32) -> Self {
        Self {
            fingerprint: hex(source.digest()),
            layout,
        }
    }
}

/// Whether a file in the cache is what is left of one that was never finished.
fn is_abandoned(path: &Path, used: SystemTime) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = name.starts_with(".lfm2-") && name.ends_with(".tmp");
    temporary && used.elapsed().is_ok_and(|age| age > ABANDONED)
}

fn remove(path: &Path) {
    match std::fs::remove_file(path) {
        Ok(()) => tracing::debug!(path = %path.display(), "removed packed weights"),
        Err(error) => {
            tracing::debug!(path = %path.display(), %error, "packed weights stay");
        }
    }
}

/// Notes that a file is in use, so that others go first.
fn mark_used(path: &Path) {
    let marked = std::fs::File::open(path).and_then(|file| file.set_modified(SystemTime::now()));
    if let Err(error) = marked {
        tracing::debug!(path = %path.display(), %error, "could not note the use of packed weights");
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// How many bytes this user can still write, where the system says so.
#[cfg(unix)]
fn free_bytes(folder: &Path) -> Option<u64> {
    let room = rustix::fs::statvfs(folder).ok()?;
    Some(room.f_bavail.saturating_mul(room.f_frsize))
}

#[cfg(not(unix))]
fn free_bytes(_folder: &Path) -> Option<u64> {
    None
}
