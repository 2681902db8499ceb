//! The header of one safetensors file.

use std::collections::BTreeMap;

use candle_core::DType;
use serde_json::{Map, Value};

use crate::json::{Numbers, parse_json};
use crate::mapped::FileBytes;
use crate::{Error, Limits, Result};

/// Bytes in front of the header that hold its length.
const LENGTH_BYTES: u64 = 8;
/// Header object, tensor object, list.
const HEADER_DEPTH: usize = 4;
const MAX_DIMENSIONS: usize = 8;

/// What a checked header says.
#[derive(Debug)]
pub(super) struct Header {
    /// Where the data starts, from the beginning of the file.
    pub(super) data_start: u64,
    pub(super) tensors: BTreeMap<String, Entry>,
}

/// One tensor of a file. `begin..end` lie inside the data and fit shape and type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) stored: FileType,
    pub(super) shape: Vec<usize>,
    pub(super) begin: u64,
    pub(super) end: u64,
}

/// The element types that a checkpoint may contain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FileType {
    /// A type that weights come in.
    Float(DType),
    /// Counters and masks that some tools leave in files. They may be there, but cannot be weights.
    Integer { name: &'static str, bytes: u64 },
}

impl FileType {
    fn parse(name: &str) -> Option<Self> {
        let integer = |name, bytes| Some(Self::Integer { name, bytes });
        match name {
            "F32" => Some(Self::Float(DType::F32)),
            "F16" => Some(Self::Float(DType::F16)),
            "BF16" => Some(Self::Float(DType::BF16)),
            "BOOL" => integer("BOOL", 1),
            "U8" => integer("U8", 1),
            "I8" => integer("I8", 1),
            "U16" => integer("U16", 2),
            "I16" => integer("I16", 2),
            "U32" => integer("U32", 4),
            "I32" => integer("I32", 4),
            "U64" => integer("U64", 8),
            "I64" => integer("I64", 8),
            _ => None,
        }
    }

    fn bytes(self) -> u64 {
        match self {
            Self::Float(dtype) => dtype.size_in_bytes() as u64,
            Self::Integer { bytes, .. } => bytes,
        }
    }
}

impl Header {
    /// Reads and checks the header of `file`. Nothing is allocated that the file's own length does
    /// not justify, and the data is not touched.
    ///
    /// # Errors
    /// [`Error::InvalidFile`], [`Error::Limit`], or [`Error::Unsupported`] for an element type that
    /// is neither a weight type nor an integer.
    pub(super) fn read(file: &FileBytes, limits: &Limits) -> Result<Self> {
        let invalid = |detail: String| Error::invalid_file(file.path(), detail);
        if file.length() < LENGTH_BYTES {
            return Err(invalid(format!(
                "{} bytes, shorter than the 8-byte header length",
                file.length()
            )));
        }
        let length: [u8; 8] = file
            .slice(0, LENGTH_BYTES)?
            .as_ref()
            .try_into()
            .map_err(|_| invalid("the 8-byte header length cannot be read".to_owned()))?;
        let length = u64::from_le_bytes(length);
        if length > limits.safetensors_header_bytes {
            let what = format!("{}: safetensors header bytes", file.path().display());
            return Err(Error::Limit {
                what,
                limit: limits.safetensors_header_bytes,
                found: length,
            });
        }
        let data_start = length.checked_add(LENGTH_BYTES).filter(|start| *start <= file.length()).ok_or_else(|| {
            let found = file.length();
            invalid(format!("the header says {length} bytes, but the file has {found} in all; download it again"))
        })?;
        let text = file.slice(LENGTH_BYTES, length)?;
        let Value::Object(entries) = parse_json(file.path(), &text, Numbers::Exact, HEADER_DEPTH)?
        else {
            return Err(invalid("the header is not a json object".to_owned()));
        };
        if entries.len() > limits.tensors {
            let what = format!("{}: tensors", file.path().display());
            return Err(Error::Limit {
                what,
                limit: limits.tensors as u64,
                found: entries.len() as u64,
            });
        }
        let mut tensors = BTreeMap::new();
        for (name, value) in entries {
            if name == "__metadata__" {
                check_metadata(&value).map_err(invalid)?;
            } else {
                let entry = read_entry(file, &name, &value)?;
                tensors.insert(name, entry);
            }
        }
        check_extents(file, data_start, &tensors)?;
        Ok(Self {
            data_start,
            tensors,
        })
    }
}

fn check_metadata(value: &Value) -> Result<(), String> {
    let strings = |map: &Map<String, Value>| map.values().all(Value::is_string);
    match value.as_object() {
        Some(map) if strings(map) => Ok(()),
        _ => Err("\"__metadata__\" is not an object of strings".to_owned()),
    }
}

fn read_entry(file: &FileBytes, name: &str, value: &Value) -> Result<Entry> {
    let invalid =
        |detail: &str| Error::invalid_file(file.path(), format!("tensor {name:?}: {detail}"));
    let type_name = value
        .get("dtype")
        .and_then(Value::as_str)
        .ok_or_else(|| invalid("\"dtype\" is not a string"))?;
    let stored = FileType::parse(type_name).ok_or_else(|| Error::Unsupported {
        what: format!(
            "type {type_name:?} of tensor {name:?} in {}",
            file.path().display()
        ),
        hint: "weights are F32, F16 or BF16".to_owned(),
    })?;
    let shape =
        unsigned_list(value, "shape").ok_or_else(|| invalid("\"shape\" is not a list of sizes"))?;
    if shape.len() > MAX_DIMENSIONS {
        return Err(invalid("has more than 8 dimensions"));
    }
    let offsets = unsigned_list(value, "data_offsets").unwrap_or_default();
    let &[begin, end] = offsets.as_slice() else {
        return Err(invalid("\"data_offsets\" is not a pair of positions"));
    };
    let size = shape.iter().try_fold(stored.bytes(), |size, dimension| {
        size.checked_mul(*dimension)
    });
    let size = size.ok_or_else(|| invalid("the product of \"shape\" overflows"))?;
    let extent = end
        .checked_sub(begin)
        .ok_or_else(|| invalid("\"data_offsets\" end before they start"))?;
    if size != extent {
        return Err(invalid(&format!(
            "{type_name} {shape:?} needs {size} bytes, \"data_offsets\" give {extent}"
        )));
    }
    let shape = shape
        .iter()
        .map(|dimension| usize::try_from(*dimension).ok())
        .collect::<Option<Vec<_>>>();
    let shape = shape.ok_or_else(|| invalid("\"shape\" does not fit this machine"))?;
    Ok(Entry {
        stored,
        shape,
        begin,
        end,
    })
}

fn unsigned_list(value: &Value, key: &str) -> Option<Vec<u64>> {
    value
        .get(key)?
        .as_array()?
        .iter()
        .map(Value::as_u64)
        .collect()
}

/// The data has to be filled by the tensors exactly: no hole to hide something in, no overlap to
/// give one byte two meanings, nothing missing at the end.
fn check_extents(
    file: &FileBytes,
    data_start: u64,
    tensors: &BTreeMap<String, Entry>,
) -> Result<()> {
    let mut order: Vec<(&String, &Entry)> = tensors.iter().collect();
    order.sort_by_key(|(_, entry)| (entry.begin, entry.end));
    let mut position = 0;
    for (name, entry) in order {
        if entry.begin != position {
            let what = if entry.begin < position {
                "overlaps another one"
            } else {
                "leaves a hole before it"
            };
            let detail = format!(
                "tensor {name:?} {what}: it starts at {} instead of {position}",
                entry.begin
            );
            return Err(Error::invalid_file(file.path(), detail));
        }
        position = entry.end;
    }
    let expected = data_start.checked_add(position);
    if expected == Some(file.length()) {
        return Ok(());
    }
    let found = file.length();
    let expected = expected.unwrap_or(u64::MAX);
    let hint = if found < expected {
        "; it is cut short, download it again"
    } else {
        " with bytes nobody owns"
    };
    Err(Error::invalid_file(
        file.path(),
        format!("expected {expected} bytes, found {found}{hint}"),
    ))
}
