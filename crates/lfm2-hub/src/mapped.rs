//! The bytes of a weight file: mapped into memory, read on demand, or already in memory.
//!
//! The only module of this crate with `unsafe`.

use std::borrow::Cow;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::files::open_file;
use crate::packed::FileStamp;
use crate::{Error, Result};

/// How the bytes of a weight file get into memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mapping {
    /// Map the file. Opening is instant and pages are shared between processes, but when another
    /// process shortens the file meanwhile, the operating system ends this one with `SIGBUS`.
    #[default]
    Map,
    /// Read what is needed when it is needed. A file that shrinks is then an ordinary error.
    Read,
}

/// A weight file of known length.
#[derive(Debug, Clone)]
pub(crate) struct FileBytes {
    path: PathBuf,
    length: u64,
    /// `None` for what is not a file.
    stamp: Option<FileStamp>,
    store: Store,
}

#[derive(Debug, Clone)]
enum Store {
    Map(Arc<memmap2::Mmap>),
    Read(Arc<File>),
    Memory(Cow<'static, [u8]>),
}

impl FileBytes {
    /// Opens the file at `path`. Nothing of it is read yet.
    pub(crate) fn open(path: &Path, mapping: Mapping) -> Result<Self> {
        let file = open_file(path)?;
        let metadata = file.metadata().map_err(|source| Error::io(path, source))?;
        let length = metadata.len();
        let store = match mapping {
            Mapping::Map if length > 0 => Store::Map(Arc::new(map(path, &file)?)),
            // An empty file cannot be mapped on every system.
            Mapping::Map | Mapping::Read => Store::Read(Arc::new(file)),
        };
        Ok(Self {
            path: path.to_path_buf(),
            length,
            stamp: FileStamp::of(&metadata),
            store,
        })
    }

    /// Bytes that are in memory already; `name` stands for the path in messages.
    pub(crate) fn from_memory(name: &str, bytes: Cow<'static, [u8]>) -> Self {
        let length = bytes.len() as u64;
        Self {
            path: PathBuf::from(name),
            length,
            stamp: None,
            store: Store::Memory(bytes),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// The file system's record of the file when it was opened.
    pub(crate) fn stamp(&self) -> Option<FileStamp> {
        self.stamp
    }

    /// The `length` bytes from `offset` on, borrowed where that is possible.
    ///
    /// # Errors
    /// [`Error::InvalidFile`] when the file is shorter than that, before anything is allocated;
    /// [`Error::Io`] when reading fails or the file has shrunk since it was opened.
    pub(crate) fn slice(&self, offset: u64, length: u64) -> Result<Cow<'_, [u8]>> {
        let past_end = || {
            let detail = format!(
                "{length} bytes at {offset} are past the end of {} bytes",
                self.length
            );
            Error::invalid_file(&self.path, detail)
        };
        let end = offset
            .checked_add(length)
            .filter(|end| *end <= self.length)
            .ok_or_else(past_end)?;
        let bytes: &[u8] = match &self.store {
            Store::Map(map) => map,
            Store::Memory(bytes) => bytes,
            Store::Read(file) => {
                let count = usize::try_from(length).map_err(|_| past_end())?;
                let mut buffer = vec![0; count];
                read_exact_at(file, &mut buffer, offset)
                    .map_err(|source| Error::io(&self.path, source))?;
                return Ok(Cow::Owned(buffer));
            }
        };
        let range = usize::try_from(offset).ok().zip(usize::try_from(end).ok());
        range
            .and_then(|(start, end)| bytes.get(start..end))
            .map(Cow::Borrowed)
            .ok_or_else(past_end)
    }
}

impl FileBytes {
    /// Lets the pages of a mapped file that lie wholly within `length` bytes from `offset` leave
    /// memory. They come back when they are read again.
    pub(crate) fn release(&self, offset: u64, length: u64) {
        let range = usize::try_from(offset)
            .ok()
            .zip(usize::try_from(length).ok());
        if let (Store::Map(map), Some((offset, length))) = (&self.store, range)
            && offset
                .checked_add(length)
                .is_some_and(|end| end <= map.len())
        {
            let first = offset.next_multiple_of(PAGE);
            let end = (offset + length) / PAGE * PAGE;
            if first < end {
                release(map, first, end - first);
            }
        }
    }
}

/// No smaller than a page of any system, so that no page is given up that is needed.
const PAGE: usize = 1 << 16;

#[cfg(unix)]
#[expect(unsafe_code, reason = "the advice is unsafe for other kinds of memory")]
fn release(map: &memmap2::Mmap, offset: usize, length: usize) {
    use memmap2::UncheckedAdvice;
    // SAFETY: the map is of a file and never written to, so pages that are dropped come back with
    // the same content.
    let advised = unsafe { map.unchecked_advise_range(UncheckedAdvice::DontNeed, offset, length) };
    if let Err(error) = advised {
        tracing::debug!(%error, "pages of a weight file stay in memory");
    }
}

#[cfg(not(unix))]
fn release(_map: &memmap2::Mmap, _offset: usize, _length: usize) {}

#[expect(
    unsafe_code,
    reason = "mapping a file is unsafe by nature; see `Mapping`"
)]
fn map(path: &Path, file: &File) -> Result<memmap2::Mmap> {
    // SAFETY: the map is private to this module, read-only, and handed out only as `&[u8]` within
    // the length it was made with. What we cannot exclude is another process changing the file;
    // `Mapping::Map` documents that, and `Mapping::Read` avoids it.
    unsafe { memmap2::Mmap::map(file) }.map_err(|source| Error::io(path, source))
}

/// Fills `buffer` with what stands in the file from byte `offset` on.
#[cfg(unix)]
pub(crate) fn read_exact_at(file: &File, buffer: &mut [u8], offset: u64) -> std::io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, buffer, offset)
}

/// Fills `buffer` with what stands in the file from byte `offset` on.
#[cfg(windows)]
pub(crate) fn read_exact_at(
    file: &File,
    mut buffer: &mut [u8],
    mut offset: u64,
) -> std::io::Result<()> {
    while !buffer.is_empty() {
        match std::os::windows::fs::FileExt::seek_read(file, buffer, offset)? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            count => {
                buffer = &mut buffer[count..];
                offset += count as u64;
            }
        }
    }
    Ok(())
}
