//! Which files of folders are read.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use lfm2_hub::Error as HubError;

use super::{Documents, ReadOptions, Skipped};
use crate::Result;

/// The files below some paths, in a fixed order.
#[derive(Debug, Clone)]
pub struct Listing {
    pub(super) files: Vec<ListedFile>,
    pub(super) skipped: Vec<Skipped>,
    pub(super) options: ReadOptions,
}

/// A file to read.
#[derive(Debug, Clone)]
pub(super) struct ListedFile {
    pub(super) path: PathBuf,
    pub(super) bytes: u64,
    pub(super) origin: Origin,
}

/// Why a file is on the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// Somebody named it, and wants to know when it cannot be read.
    Named,
    /// It is in a folder, among others.
    Found,
}

impl Listing {
    /// Lists files and, for folders, all files below them sorted by name.
    ///
    /// Hidden files and folders (with a name that begins with a dot) and symbolic links inside a
    /// folder are left out, so no loop of links can lead anywhere; paths that are named may be
    /// either. A path that occurs twice is listed once.
    ///
    /// # Errors
    /// A path that does not exist, or more files or deeper folders than the options allow. A folder
    /// that cannot be read is skipped with a note unless it is named.
    pub fn new(paths: &[impl AsRef<Path>], options: &ReadOptions) -> Result<Self> {
        let mut walk = Walk {
            listing: Self {
                files: Vec::new(),
                skipped: Vec::new(),
                options: options.clone(),
            },
            seen: HashSet::new(),
            excluded: options
                .excluded
                .iter()
                .filter_map(|path| path.canonicalize().ok())
                .collect(),
        };
        for path in paths {
            let path = path.as_ref();
            let facts = fs::metadata(path).map_err(|error| HubError::io(path, error))?;
            if facts.is_dir() {
                walk.folder(path, Origin::Named, 0)?;
            } else {
                walk.file(path.to_path_buf(), facts.len(), Origin::Named)?;
            }
        }
        Ok(walk.listing)
    }

    /// How many files there are to read.
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// Whether there is nothing to read.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// The bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    /// Reads the documents one after another.
    pub fn documents(self) -> Documents {
        Documents::new(self)
    }
}

/// A walk through folders.
struct Walk {
    listing: Listing,
    seen: HashSet<PathBuf>,
    excluded: Vec<PathBuf>,
}

impl Walk {
    fn file(&mut self, path: PathBuf, bytes: u64, origin: Origin) -> Result<()> {
        if !self.seen.insert(path.clone()) {
            return Ok(());
        }
        let limit = self.listing.options.max_files;
        if self.listing.files.len() >= limit {
            return Err(HubError::Limit {
                what: format!("files up to {}", path.display()),
                limit: limit as u64,
                found: limit as u64 + 1,
            }
            .into());
        }
        self.listing.files.push(ListedFile {
            path,
            bytes,
            origin,
        });
        Ok(())
    }

    fn skip(&mut self, path: PathBuf, reason: impl Into<String>) {
        let reason = reason.into();
        self.listing.skipped.push(Skipped { path, reason });
    }

    fn folder(&mut self, folder: &Path, origin: Origin, depth: usize) -> Result<()> {
        let limit = self.listing.options.max_depth;
        if depth > limit {
            return Err(HubError::Limit {
                what: format!("nesting of {}", folder.display()),
                limit: limit as u64,
                found: depth as u64,
            }
            .into());
        }
        if self.is_excluded(folder) {
            return Ok(());
        }
        let entries = fs::read_dir(folder).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        let mut entries = match (entries, origin) {
            (Ok(entries), _) => entries,
            (Err(error), Origin::Named) => return Err(HubError::io(folder, error).into()),
            (Err(error), Origin::Found) => {
                self.skip(folder.to_path_buf(), error.to_string());
                return Ok(());
            }
        };
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            if entry.file_name().as_encoded_bytes().starts_with(b".") {
                continue;
            }
            // `folder/./a` and `a` are the same file under `.`.
            let path = match folder == Path::new(".") {
                true => PathBuf::from(entry.file_name()),
                false => entry.path(),
            };
            match entry.metadata() {
                Ok(facts) if facts.is_symlink() => self.skip(path, "a symbolic link"),
                Ok(facts) if facts.is_dir() => self.folder(&path, Origin::Found, depth + 1)?,
                Ok(facts) if facts.is_file() => self.file(path, facts.len(), Origin::Found)?,
                Ok(_) => self.skip(path, "not a file"),
                Err(error) => self.skip(path, error.to_string()),
            }
        }
        Ok(())
    }

    fn is_excluded(&self, folder: &Path) -> bool {
        // Asking the system for every folder is only worth it when there is something to exclude.
        !self.excluded.is_empty()
            && folder
                .canonicalize()
                .is_ok_and(|folder| self.excluded.contains(&folder))
    }
}
