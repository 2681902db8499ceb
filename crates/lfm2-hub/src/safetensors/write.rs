//! Writing safetensors files.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use candle_core::{DType, Tensor};
use half::{bf16, f16};
use serde_json::{Map, Value, json};

use crate::files::{Overwrite, write_atomic};
use crate::{Error, Result};

/// Writes `tensors` and string `metadata` to a new safetensors file at `path`.
///
/// The file appears complete or not at all. Equal contents give equal bytes, whatever the order of
/// the arguments. Only one tensor at a time is copied.
///
/// # Errors
/// [`Error::InvalidInput`] when the file exists and `overwrite` refuses, or for a name given twice;
/// [`Error::Unsupported`] for an element type without a safetensors name; [`Error::Io`].
pub fn write_safetensors<'a>(
    path: &Path,
    tensors: impl IntoIterator<Item = (&'a str, &'a Tensor)>,
    metadata: &BTreeMap<String, String>,
    overwrite: Overwrite,
) -> Result<()> {
    let mut order: Vec<(&str, &Tensor)> = tensors.into_iter().collect();
    // Wide types first, so that every tensor is aligned to its own element size.
    order.sort_by_key(|(name, tensor)| (std::cmp::Reverse(tensor.dtype().size_in_bytes()), *name));
    let header = header(&order, metadata)?;
    write_atomic(path, overwrite, |file| {
        let io = |source| Error::io(path, source);
        file.write_all(&(header.len() as u64).to_le_bytes())
            .map_err(io)?;
        file.write_all(&header).map_err(io)?;
        for (_, tensor) in &order {
            file.write_all(&tensor_bytes(tensor)?).map_err(io)?;
        }
        Ok(())
    })
}

fn header(tensors: &[(&str, &Tensor)], metadata: &BTreeMap<String, String>) -> Result<Vec<u8>> {
    let mut entries = Map::new();
    if !metadata.is_empty() {
        entries.insert("__metadata__".to_owned(), json!(metadata));
    }
    let mut position = 0;
    for (name, tensor) in tensors {
        let dtype = type_name(tensor.dtype()).ok_or_else(|| Error::Unsupported {
            what: format!(
                "writing tensor {name:?} of type {}",
                tensor.dtype().as_str()
            ),
            hint: "safetensors files hold floats, U8, U32 and I64".to_owned(),
        })?;
        let end = position + tensor.elem_count() * tensor.dtype().size_in_bytes();
        let entry =
            json!({ "dtype": dtype, "shape": tensor.dims(), "data_offsets": [position, end] });
        if *name == "__metadata__" || entries.insert((*name).to_owned(), entry).is_some() {
            return Err(Error::InvalidInput(format!(
                "tensor name {name:?} is given twice or reserved"
            )));
        }
        position = end;
    }
    let mut header = Value::Object(entries).to_string().into_bytes();
    // The format allows trailing spaces; they align the data.
    header.resize(header.len().next_multiple_of(8), b' ');
    Ok(header)
}

fn type_name(dtype: DType) -> Option<&'static str> {
    match dtype {
        DType::F32 => Some("F32"),
        DType::F16 => Some("F16"),
        DType::BF16 => Some("BF16"),
        DType::U8 => Some("U8"),
        DType::U32 => Some("U32"),
        DType::I64 => Some("I64"),
        _ => None,
    }
}

fn tensor_bytes(tensor: &Tensor) -> Result<Vec<u8>> {
    let flat = tensor.flatten_all()?;
    Ok(match tensor.dtype() {
        DType::F32 => little_endian(flat.to_vec1::<f32>()?, f32::to_le_bytes),
        DType::F16 => little_endian(flat.to_vec1::<f16>()?, f16::to_le_bytes),
        DType::BF16 => little_endian(flat.to_vec1::<bf16>()?, bf16::to_le_bytes),
        DType::U32 => little_endian(flat.to_vec1::<u32>()?, u32::to_le_bytes),
        DType::I64 => little_endian(flat.to_vec1::<i64>()?, i64::to_le_bytes),
        _ => flat.to_vec1::<u8>()?,
    })
}

fn little_endian<T, const N: usize>(values: Vec<T>, convert: fn(T) -> [u8; N]) -> Vec<u8> {
    values.into_iter().flat_map(convert).collect()
}
