//! The file of packed weights: [`PackedFile`].
//!
//! ```text
//! 0     "LFM2PACK", version, checksum of the head, place and length of the head, checksum of these
//! 4096  bytes of the matrices, each from a multiple of 4096 on
//! ...   the head: json, up to the end of the file
//! ```
//!
//! The head has the fingerprint of the weights and, per matrix, name, format, shape, place and the
//! checksums of its pieces. Everything is checked like the file of a stranger: the head when the file
//! is opened, the pieces when they are read. What the bytes mean is up to the kernels.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::files::open_file;
use crate::mapped::read_exact_at;
use crate::{Error, Result};

const MAGIC: [u8; 8] = *b"LFM2PACK";
/// Changes whenever the form of the file does.
const VERSION: u32 = 1;
/// Bytes of the first part that mean something.
const START_BYTES: usize = 36;
/// Matrices begin at multiples of this.
const ALIGNMENT: u64 = 4096;
/// More than the head of any model takes.
const MAX_HEAD_BYTES: u64 = 64 << 20;

/// A matrix of a [`PackedFile`], or a stack of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PackedEntry {
    name: String,
    format: String,
    shape: Vec<usize>,
    offset: u64,
    length: u64,
    /// CRC-32 of every piece.
    checksums: Vec<u32>,
}

impl PackedEntry {
    /// The name of the format that the bytes are in.
    pub fn format(&self) -> &str {
        &self.format
    }

    /// Rows and columns, behind the number of matrices of a stack.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// How many bytes there are.
    pub fn length(&self) -> u64 {
        self.length
    }
}

/// A matrix to be stored, or a stack of them.
#[derive(Debug, Clone)]
pub struct PackedTensor<B> {
    /// A name that no other matrix has.
    pub name: String,
    /// The name of the format that the bytes are in.
    pub format: &'static str,
    /// Rows and columns, behind the number of matrices of a stack.
    pub shape: Vec<usize>,
    /// The bytes.
    pub bytes: B,
}

/// What a packed file was made of: the fingerprint of the weights, and how they were packed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Origin {
    /// SHA-256 in hexadecimal digits.
    pub(super) fingerprint: String,
    /// The version of the kernels' arrangement of bytes.
    pub(super) layout: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    origin: Origin,
    matrices: Vec<PackedEntry>,
}

/// Packed weights of an earlier start.
#[derive(Debug)]
pub struct PackedFile {
    path: PathBuf,
    file: File,
    matrices: HashMap<String, PackedEntry>,
}

impl PackedFile {
    /// Bytes of the pieces that are checked, and can be read, on their own; the last of a matrix may
    /// be shorter.
    pub const PIECE: usize = 256 << 10;

    /// Opens the file at `path` and checks its head.
    pub(super) fn open(path: &Path, origin: &Origin) -> Result<Self> {
        let file = open_file(path)?;
        let invalid = |detail: String| Error::invalid_file(path, detail);
        let io = |source| Error::io(path, source);
        let length = file.metadata().map_err(io)?.len();
        let mut start = [0; START_BYTES];
        read_exact_at(&file, &mut start, 0).map_err(io)?;
        let start = Start::parse(&start).map_err(invalid)?;
        if start.head_at.checked_add(start.head_bytes) != Some(length) {
            return Err(invalid(format!(
                "expected {} bytes at {} up to the end, found {length} bytes",
                start.head_bytes, start.head_at
            )));
        }
        let bytes = usize::try_from(start.head_bytes)
            .ok()
            .filter(|_| start.head_bytes <= MAX_HEAD_BYTES);
        let mut head = vec![0; bytes.ok_or_else(|| invalid("the head is too large".to_owned()))?];
        read_exact_at(&file, &mut head, start.head_at).map_err(io)?;
        let found = crc32fast::hash(&head);
        if found != start.head_checksum {
            return Err(invalid(format!(
                "head: expected checksum {:08x}, found {found:08x}",
                start.head_checksum
            )));
        }
        let head: Head =
            serde_json::from_slice(&head).map_err(|error| invalid(format!("head: {error}")))?;
        if head.origin != *origin {
            return Err(invalid(format!(
                "expected weights packed from {origin:?}, found {:?}",
                head.origin
            )));
        }
        let mut matrices = HashMap::with_capacity(head.matrices.len());
        for entry in head.matrices {
            entry.check(start.head_at).map_err(invalid)?;
            if let Some(twice) = matrices.insert(entry.name.clone(), entry) {
                return Err(invalid(format!("matrix {:?} occurs twice", twice.name)));
            }
        }
        let path = path.to_path_buf();
        Ok(Self {
            path,
            file,
            matrices,
        })
    }

    /// The matrix of that name.
    pub fn entry(&self, name: &str) -> Option<&PackedEntry> {
        self.matrices.get(name)
    }

    /// Reads the piece of a matrix that begins at byte `start`, a multiple of [`PIECE`](Self::PIECE).
    ///
    /// # Errors
    /// [`Error::InvalidFile`] when the bytes are not those that were stored,
    /// [`Error::InvalidInput`] when there is no such piece, [`Error::Io`].
    pub fn read_piece(&self, entry: &PackedEntry, start: usize, target: &mut [u8]) -> Result<()> {
        let index = start / Self::PIECE;
        let left = entry.length.checked_sub(start as u64);
        let piece = left.map(|left| left.min(Self::PIECE as u64));
        let expected = entry.checksums.get(index);
        let (Some(expected), true) = (
            expected,
            start.is_multiple_of(Self::PIECE) && piece == Some(target.len() as u64),
        ) else {
            return Err(Error::InvalidInput(format!(
                "{} bytes at {start} of matrix {:?} are not a piece of it",
                target.len(),
                entry.name
            )));
        };
        read_exact_at(&self.file, target, entry.offset + start as u64)
            .map_err(|source| Error::io(&self.path, source))?;
        let found = crc32fast::hash(target);
        if found == *expected {
            return Ok(());
        }
        let detail = format!(
            "matrix {:?}, piece {index}: expected checksum {expected:08x}, found {found:08x}",
            entry.name
        );
        Err(Error::invalid_file(&self.path, detail))
    }
}

impl PackedEntry {
    /// Holds an entry to the file, whose matrices end at `end`.
    fn check(&self, end: u64) -> Result<(), String> {
        let inside = self.offset >= ALIGNMENT
            && self.offset.is_multiple_of(ALIGNMENT)
            && self
                .offset
                .checked_add(self.length)
                .is_some_and(|last| last <= end);
        if !inside {
            return Err(format!(
                "matrix {:?}: {} bytes at {} are not between {ALIGNMENT} and {end}",
                self.name, self.length, self.offset
            ));
        }
        let pieces = self.length.div_ceil(PackedFile::PIECE as u64);
        if self.checksums.len() as u64 != pieces {
            return Err(format!(
                "matrix {:?}: expected {pieces} checksums, found {}",
                self.name,
                self.checksums.len()
            ));
        }
        Ok(())
    }
}

/// What stands at the start of the file.
struct Start {
    head_checksum: u32,
    head_at: u64,
    head_bytes: u64,
}

impl Start {
    fn to_bytes(&self) -> [u8; START_BYTES] {
        let mut bytes = [0; START_BYTES];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.head_checksum.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.head_at.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.head_bytes.to_le_bytes());
        let checksum = crc32fast::hash(&bytes[..32]);
        bytes[32..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    fn parse(bytes: &[u8; START_BYTES]) -> Result<Self, String> {
        let word = |at: usize| u32::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
        let long = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
        if bytes[..8] != MAGIC {
            return Err("not a file of packed weights".to_owned());
        }
        if word(8) != VERSION {
            return Err(format!("expected version {VERSION}, found {}", word(8)));
        }
        if word(32) != crc32fast::hash(&bytes[..32]) {
            return Err("the start is damaged".to_owned());
        }
        Ok(Self {
            head_checksum: word(12),
            head_at: long(16),
            head_bytes: long(24),
        })
    }
}

/// Writes a whole file.
pub(super) fn write<B: AsRef<[u8]>>(
    path: &Path,
    writer: &mut BufWriter<File>,
    origin: Origin,
    tensors: impl Iterator<Item = Result<PackedTensor<B>>>,
) -> Result<()> {
    let io = |source| Error::io(path, source);
    let mut at = 0;
    let mut matrices = Vec::new();
    for tensor in tensors {
        let tensor = tensor?;
        let bytes = tensor.bytes.as_ref();
        at = pad(writer, at.max(1)).map_err(io)?;
        let mut checksums = Vec::with_capacity(bytes.len().div_ceil(PackedFile::PIECE));
        for piece in bytes.chunks(PackedFile::PIECE) {
            checksums.push(crc32fast::hash(piece));
            writer.write_all(piece).map_err(io)?;
        }
        let length = bytes.len() as u64;
        matrices.push(PackedEntry {
            name: tensor.name,
            format: tensor.format.to_owned(),
            shape: tensor.shape,
            offset: at,
            length,
            checksums,
        });
        at += length;
    }
    at = pad(writer, at.max(1)).map_err(io)?;
    let head = serde_json::to_vec(&Head { origin, matrices })
        .map_err(|error| Error::invalid_file(path, error.to_string()))?;
    writer.write_all(&head).map_err(io)?;
    let start = Start {
        head_checksum: crc32fast::hash(&head),
        head_at: at,
        head_bytes: head.len() as u64,
    };
    writer.seek(SeekFrom::Start(0)).map_err(io)?;
    writer.write_all(&start.to_bytes()).map_err(io)
}

/// Moves on from byte `at` to where the next matrix may begin.
fn pad(writer: &mut BufWriter<File>, at: u64) -> std::io::Result<u64> {
    let next = at.next_multiple_of(ALIGNMENT);
    writer.seek(SeekFrom::Start(next))?;
    Ok(next)
}
