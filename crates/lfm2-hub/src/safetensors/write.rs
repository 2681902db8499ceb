//! Writing safetensors files.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use candle_core::{DType, Tensor};
use half::{bf16, f16};
use serde_json::{Map, Value, json};

use crate::files::{Overwrite, write_atomic};
use crate::{Error, Result};

/// A tensor of a file that is to be written: what its header says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorPlan {
    /// The tensor's name.
    pub name: String,
    /// The type of its elements.
    pub dtype: DType,
    /// Its dimensions, outermost first.
    pub shape: Vec<usize>,
}

impl TensorPlan {
    fn elements(&self) -> usize {
        self.shape.iter().product()
    }
}

/// Takes the elements of a tensor piece by piece, row after row.
pub type PieceSink<'a> = dyn FnMut(&Tensor) -> Result<()> + 'a;

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
    let mut order: Vec<(TensorPlan, &Tensor)> = tensors
        .into_iter()
        .map(|(name, tensor)| {
            let plan = TensorPlan {
                name: name.to_owned(),
                dtype: tensor.dtype(),
                shape: tensor.dims().to_vec(),
            };
            (plan, tensor)
        })
        .collect();
    order.sort_by(|(a, _), (b, _)| file_order(a, b));
    let (plans, tensors): (Vec<TensorPlan>, Vec<&Tensor>) = order.into_iter().unzip();
    let mut rest = tensors.into_iter();
    write_safetensors_streamed(path, plans, metadata, overwrite, |_, sink| {
        rest.next().map_or(Ok(()), sink)
    })
}

/// [`write_safetensors`] for tensors that do not fit into memory together: `fill` is called once for
/// every tensor, in the order of the file, and hands its elements over in pieces.
///
/// # Errors
/// As [`write_safetensors`]; [`Error::InvalidInput`] when the pieces of a tensor have another type or
/// another number of elements than its plan; whatever `fill` returns.
pub fn write_safetensors_streamed(
    path: &Path,
    mut tensors: Vec<TensorPlan>,
    metadata: &BTreeMap<String, String>,
    overwrite: Overwrite,
    mut fill: impl FnMut(&TensorPlan, &mut PieceSink<'_>) -> Result<()>,
) -> Result<()> {
    tensors.sort_by(file_order);
    let header = header(&tensors, metadata)?;
    write_atomic(path, overwrite, |file| {
        let io = |source| Error::io(path, source);
        file.write_all(&(header.len() as u64).to_le_bytes())
            .map_err(io)?;
        file.write_all(&header).map_err(io)?;
        for plan in &tensors {
            let mut written = 0;
            fill(plan, &mut |piece| {
                if piece.dtype() != plan.dtype {
                    return Err(misfit(plan, piece.dtype().as_str()));
                }
                written += piece.elem_count();
                file.write_all(&tensor_bytes(piece)?).map_err(io)
            })?;
            if written != plan.elements() {
                return Err(misfit(plan, &format!("{written} elements")));
            }
        }
        Ok(())
    })
}

/// Wide types first, so that every tensor is aligned to its own element size.
fn file_order(a: &TensorPlan, b: &TensorPlan) -> std::cmp::Ordering {
    let width = |plan: &TensorPlan| std::cmp::Reverse(plan.dtype.size_in_bytes());
    width(a).cmp(&width(b)).then_with(|| a.name.cmp(&b.name))
}

fn misfit(plan: &TensorPlan, found: &str) -> Error {
    Error::InvalidInput(format!(
        "tensor {:?} to write: expected {} {:?}, found {found}",
        plan.name,
        plan.dtype.as_str(),
        plan.shape
    ))
}

fn header(tensors: &[TensorPlan], metadata: &BTreeMap<String, String>) -> Result<Vec<u8>> {
    let mut entries = Map::new();
    if !metadata.is_empty() {
        entries.insert("__metadata__".to_owned(), json!(metadata));
    }
    let mut position = 0;
    for plan in tensors {
        let name = &plan.name;
        let dtype = type_name(plan.dtype).ok_or_else(|| Error::Unsupported {
            what: format!("writing tensor {name:?} of type {}", plan.dtype.as_str()),
            hint: "safetensors files hold floats, U8, U32 and I64".to_owned(),
        })?;
        let end = position + plan.elements() * plan.dtype.size_in_bytes();
        let entry = json!({ "dtype": dtype, "shape": plan.shape, "data_offsets": [position, end] });
        if *name == "__metadata__" || entries.insert(name.clone(), entry).is_some() {
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
