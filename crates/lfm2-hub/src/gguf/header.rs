//! The head of a GGUF file: version, metadata and the table of tensors, all checked.
//!
//! A [`Header`] exists only when every tensor it lists lies inside the file, aligned and apart from
//! the others. What the keys and names mean is not known here.

use std::collections::HashSet;

use super::cursor::Cursor;
use super::metadata::{Metadata, Value};
use super::quantization::Quantization;
use crate::mapped::FileBytes;
use crate::{Error, Limits, Result};

pub(super) const MAGIC: [u8; 4] = *b"GGUF";
const DEFAULT_ALIGNMENT: u64 = 32;
const ALIGNMENT_KEY: &str = "general.alignment";
const MAX_ALIGNMENT: u64 = 1 << 20;

/// The least bytes of a metadata entry: key length, type and a one-byte value.
const LEAST_ENTRY: u64 = 8 + 4 + 1;
/// The least bytes of a tensor entry: name length, dimension count, one dimension, type, offset.
const LEAST_TENSOR: u64 = 8 + 4 + 8 + 4 + 8;

/// One tensor of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TensorEntry {
    pub(super) name: String,
    /// Dimensions, outermost first (the file has them innermost first).
    pub(super) shape: Vec<usize>,
    pub(super) kind: Quantization,
    /// Where the data starts, from the start of the file.
    pub(super) start: u64,
    /// How many bytes of data there are.
    pub(super) bytes: u64,
}

/// A checked head of a file.
#[derive(Debug, Clone)]
pub(super) struct Header {
    pub(super) version: u32,
    pub(super) metadata: Metadata,
    pub(super) tensors: Vec<TensorEntry>,
}

impl Header {
    /// Reads and checks the head of `file`.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for another version or tensor type, [`Error::Limit`],
    /// [`Error::InvalidFile`] for everything malformed, [`Error::Io`].
    pub(super) fn read(file: &FileBytes, limits: &Limits) -> Result<Self> {
        let mut cursor = Cursor::new(file, limits);
        let version = read_version(&mut cursor)?;
        let tensor_count = cursor.u64("the tensor count")?;
        let entry_count = cursor.u64("the metadata count")?;
        check_count(
            &cursor,
            "tensors",
            tensor_count,
            LEAST_TENSOR,
            limits.tensors as u64,
        )?;
        check_count(
            &cursor,
            "metadata entries",
            entry_count,
            LEAST_ENTRY,
            limits.gguf_entries,
        )?;

        let mut metadata = Metadata::new(file.path());
        for _ in 0..entry_count {
            let key = cursor.string("metadata key", limits.gguf_key_bytes)?;
            let value = cursor.value(&key)?;
            metadata.insert(key, value)?;
        }
        let alignment = alignment(&metadata)?;

        let mut tensors = Vec::new();
        let mut names = HashSet::new();
        for _ in 0..tensor_count {
            let tensor = read_tensor(&mut cursor)?;
            if !names.insert(tensor.name.clone()) {
                return Err(cursor.invalid(format!("tensor \"{}\" occurs twice", tensor.name)));
            }
            tensors.push(tensor);
        }
        let data = cursor.position().checked_next_multiple_of(alignment);
        let data = data.ok_or_else(|| cursor.invalid("tensor data starts past any file"))?;
        place(&cursor, &mut tensors, data, alignment, file.length())?;
        Ok(Self {
            version,
            metadata,
            tensors,
        })
    }
}

fn read_version(cursor: &mut Cursor<'_>) -> Result<u32> {
    let big_endian = || Error::Unsupported {
        what: "a big-endian GGUF file".to_owned(),
        hint: "convert the file to little-endian".to_owned(),
    };
    if cursor.remaining() < MAGIC.len() as u64 {
        let length = cursor.remaining();
        return Err(cursor.invalid(format!("not a GGUF file: it has only {length} bytes")));
    }
    let magic = cursor.u32("the magic number")?.to_le_bytes();
    let mut reversed = MAGIC;
    reversed.reverse();
    if magic == reversed {
        return Err(big_endian());
    }
    if magic != MAGIC {
        return Err(cursor.invalid(format!(
            "not a GGUF file: starts with {magic:02x?}, expected \"GGUF\""
        )));
    }
    let version = cursor.u32("the version")?;
    if version & 0xFFFF == 0 && version != 0 {
        return Err(big_endian());
    }
    if !matches!(version, 2 | 3) {
        let hint = "versions 2 and 3 are supported".to_owned();
        return Err(Error::Unsupported {
            what: format!("GGUF version {version}"),
            hint,
        });
    }
    Ok(version)
}

/// Refuses a count that the rest of the file could not hold, before anyone loops over it.
fn check_count(cursor: &Cursor<'_>, what: &str, count: u64, least: u64, limit: u64) -> Result<()> {
    if count
        .checked_mul(least)
        .is_none_or(|bytes| bytes > cursor.remaining())
    {
        let left = cursor.remaining();
        return Err(cursor.invalid(format!(
            "{count} {what} do not fit into the {left} bytes left"
        )));
    }
    cursor.check_limit(what, count, limit)
}

/// The alignment of tensor data, 32 unless the file says otherwise.
pub(super) fn alignment(metadata: &Metadata) -> Result<u64> {
    let alignment = match metadata.get(ALIGNMENT_KEY) {
        None => return Ok(DEFAULT_ALIGNMENT),
        Some(Value::U32(alignment)) => u64::from(*alignment),
        Some(Value::U64(alignment)) => *alignment,
        Some(other) => {
            let found = other.value_type();
            return Err(metadata.invalid(format!(
                "metadata key \"{ALIGNMENT_KEY}\": expected U32, found {found:?}"
            )));
        }
    };
    if !alignment.is_power_of_two() || alignment > MAX_ALIGNMENT {
        return Err(metadata.invalid(format!(
            "metadata key \"{ALIGNMENT_KEY}\": expected a power of two up to {MAX_ALIGNMENT}, found {alignment}"
        )));
    }
    Ok(alignment)
}

/// Reads one row of the table; `start` is still counted from the start of the data.
fn read_tensor(cursor: &mut Cursor<'_>) -> Result<TensorEntry> {
    let limits = cursor.limits();
    let name = cursor.string("tensor name", limits.gguf_key_bytes)?;
    let rank = cursor.u32("a dimension count")?;
    if rank == 0 || rank > limits.gguf_dimensions {
        let most = limits.gguf_dimensions;
        return Err(cursor.invalid(format!(
            "tensor \"{name}\": expected 1 to {most} dimensions, found {rank}"
        )));
    }
    let mut shape = Vec::new();
    for _ in 0..rank {
        let dimension = cursor.u64("a dimension")?;
        match usize::try_from(dimension) {
            Ok(size) if size > 0 => shape.push(size),
            _ => {
                return Err(cursor.invalid(format!(
                    "tensor \"{name}\": dimension {dimension} is out of range"
                )));
            }
        }
    }
    let kind = Quantization::from_type_id(cursor.u32("a tensor type")?, &name)?;
    let start = cursor.u64("a tensor offset")?;
    let row = shape.first().copied().unwrap_or(0);
    shape.reverse();
    let bytes = bytes_of(&shape, row, kind)
        .map_err(|detail| cursor.invalid(format!("tensor \"{name}\": {detail}")))?;
    Ok(TensorEntry {
        name,
        shape,
        kind,
        start,
        bytes,
    })
}

/// Bytes of a tensor with rows of `row` elements.
fn bytes_of(shape: &[usize], row: usize, kind: Quantization) -> Result<u64, String> {
    if !row.is_multiple_of(kind.block_size()) {
        return Err(format!(
            "rows of {row} are no whole number of {kind} blocks of {}",
            kind.block_size()
        ));
    }
    let elements = shape
        .iter()
        .try_fold(1usize, |product, &size| product.checked_mul(size));
    let bytes = elements
        .and_then(|elements| kind.bytes(elements))
        .and_then(|bytes| u64::try_from(bytes).ok());
    bytes.ok_or_else(|| format!("shape {shape:?} is larger than any file"))
}

/// Turns offsets into places in the file: aligned, inside, and apart from each other.
fn place(
    cursor: &Cursor<'_>,
    tensors: &mut [TensorEntry],
    data: u64,
    alignment: u64,
    length: u64,
) -> Result<()> {
    let mut extents = Vec::new();
    for (i, tensor) in tensors.iter_mut().enumerate() {
        let offset = tensor.start;
        if !offset.is_multiple_of(alignment) {
            let name = &tensor.name;
            return Err(cursor.invalid(format!(
                "tensor \"{name}\": offset {offset} is not aligned to {alignment}"
            )));
        }
        let end = data
            .checked_add(offset)
            .and_then(|start| Some((start, start.checked_add(tensor.bytes)?)));
        let Some((start, end)) = end.filter(|(_, end)| *end <= length) else {
            return Err(cursor.invalid(format!(
                "tensor \"{}\": {} bytes at {offset} of the data at {data} end past the file of {length} bytes, \
                 the file may be truncated: download it again",
                tensor.name, tensor.bytes
            )));
        };
        tensor.start = start;
        extents.push((start, end, i));
    }
    extents.sort_unstable();
    for pair in extents.windows(2) {
        if let [(_, end, first), (start, _, second)] = pair
            && start < end
        {
            let name = |i: &usize| tensors.get(*i).map_or("", |t| t.name.as_str());
            return Err(cursor.invalid(format!(
                "tensors \"{}\" and \"{}\" overlap",
                name(first),
                name(second)
            )));
        }
    }
    Ok(())
}
