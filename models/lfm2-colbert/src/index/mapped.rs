//! Files in memory: the only module of this crate with `unsafe`.

use std::fs::File;
use std::path::{Path, PathBuf};

use half::f16;
use memmap2::Mmap;

use super::manifest::FileEntry;
use super::{Check, IndexError, Result};

/// A file whose length, and perhaps content, has been compared with the manifest.
#[derive(Debug)]
pub(super) struct Mapped {
    path: PathBuf,
    /// `None` for an empty file, which cannot be mapped on every system.
    map: Option<Mmap>,
}

impl Mapped {
    pub(super) fn open(path: PathBuf, entry: &FileEntry, check: Check) -> Result<Self> {
        let file = File::open(&path).map_err(IndexError::io(&path))?;
        let found = file.metadata().map_err(IndexError::io(&path))?.len();
        if found != entry.bytes {
            let detail = format!("expected {} bytes, found {found}", entry.bytes);
            return Err(IndexError::damaged(&path, detail));
        }
        let map = if found == 0 {
            None
        } else {
            Some(map(&path, &file)?)
        };
        let mapped = Self { path, map };
        if check == Check::Whole {
            let found = crc32fast::hash(mapped.bytes());
            if found != entry.crc32 {
                let detail = format!("checksum: expected {}, found {found}", entry.crc32);
                return Err(IndexError::damaged(&mapped.path, detail));
            }
        }
        Ok(mapped)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn bytes(&self) -> &[u8] {
        self.map.as_deref().unwrap_or_default()
    }
}

#[expect(unsafe_code, reason = "mapping a file is unsafe by nature")]
fn map(path: &Path, file: &File) -> Result<Mmap> {
    // SAFETY: the map is private to this module, read-only, and handed out only as a slice of the
    // length it was made with. Files of an index never change once the manifest names them; what we
    // cannot exclude is another program shortening one, which the module's documentation says.
    unsafe { Mmap::map(file) }.map_err(IndexError::io(path))
}

/// Bytes as the numbers they are in a file; `None` when they are not whole numbers, do not start where
/// a number may, or this machine's begin with the highest byte.
#[expect(unsafe_code, reason = "a cast from bytes to numbers")]
pub(super) fn as_f16(bytes: &[u8]) -> Option<&[f16]> {
    // SAFETY: every pattern of 16 bits is an `f16`; `align_to` takes care of alignment and length.
    let (before, numbers, after) = unsafe { bytes.align_to::<f16>() };
    let whole = before.is_empty() && after.is_empty() && cfg!(target_endian = "little");
    whole.then_some(numbers)
}
