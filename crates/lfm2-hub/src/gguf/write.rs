//! Writing GGUF files: version 3, one tensor after the other, never the whole model in memory.

use std::io::Write;
use std::path::Path;

use super::header::{MAGIC, alignment};
use super::metadata::{Array, Metadata, Value, ValueType, with_elements};
use super::quantization::Quantization;
use crate::files::{Overwrite, write_atomic};
use crate::{Error, Result};

const VERSION: u32 = 3;

/// A tensor to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewTensor {
    /// Its name in the file.
    pub name: String,
    /// Its dimensions, outermost first.
    pub shape: Vec<usize>,
    /// How its numbers are stored.
    pub kind: Quantization,
}

impl NewTensor {
    /// The bytes of its data.
    fn bytes(&self) -> Result<usize> {
        let elements = self
            .shape
            .iter()
            .try_fold(1usize, |product, &size| product.checked_mul(size));
        let whole_rows = self
            .shape
            .last()
            .is_some_and(|row| row.is_multiple_of(self.kind.block_size()));
        elements
            .filter(|_| whole_rows)
            .and_then(|elements| self.kind.bytes(elements))
            .ok_or_else(|| {
                let Self { name, shape, kind } = self;
                Error::InvalidInput(format!(
                    "tensor \"{name}\" of shape {shape:?} cannot be stored as {kind}"
                ))
            })
    }
}

/// Writes a GGUF file. `fill` is called once per tensor, in order, with its index and a writer that
/// takes exactly the bytes of its data.
///
/// The file appears under its name only when it is complete.
///
/// # Errors
/// [`Error::InvalidInput`] when `path` exists and may not be overwritten, or for a tensor whose
/// shape does not fit its type or whose data has another length; [`Error::Io`]; whatever `fill`
/// returns.
pub fn write_gguf(
    path: &Path,
    overwrite: Overwrite,
    metadata: &Metadata,
    tensors: &[NewTensor],
    mut fill: impl FnMut(usize, &mut dyn Write) -> Result<()>,
) -> Result<()> {
    let alignment = alignment(metadata)?;
    let sizes = tensors
        .iter()
        .map(NewTensor::bytes)
        .collect::<Result<Vec<_>>>()?;
    let mut head = head(metadata, tensors, &sizes, alignment)?;
    head.resize(head.len() + padding(head.len(), alignment), 0);
    write_atomic(path, overwrite, |file| {
        let io = |source| Error::io(path, source);
        file.write_all(&head).map_err(io)?;
        for (index, (tensor, &bytes)) in tensors.iter().zip(&sizes).enumerate() {
            let mut exact = Exact {
                inner: &mut *file,
                left: bytes,
            };
            fill(index, &mut exact)?;
            if exact.left > 0 {
                let (name, left) = (&tensor.name, exact.left);
                return Err(Error::InvalidInput(format!(
                    "tensor \"{name}\": {left} of {bytes} bytes were not written"
                )));
            }
            let zeros = vec![0; padding(bytes, alignment)];
            file.write_all(&zeros).map_err(io)?;
        }
        Ok(())
    })
}

/// A writer that takes no more than a given number of bytes.
struct Exact<'a> {
    inner: &'a mut dyn Write,
    left: usize,
}

impl Write for Exact<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if bytes.len() > self.left {
            return Err(std::io::Error::other("more data than the tensor has"));
        }
        let written = self.inner.write(bytes)?;
        self.left -= written;
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}

/// Bytes from `length` to the next multiple of `alignment`, a power of two.
fn padding(length: usize, alignment: u64) -> usize {
    let alignment = usize::try_from(alignment).unwrap_or(1);
    length.wrapping_neg() & (alignment - 1)
}

fn head(
    metadata: &Metadata,
    tensors: &[NewTensor],
    sizes: &[usize],
    alignment: u64,
) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    out.extend(MAGIC);
    out.extend(VERSION.to_le_bytes());
    put_length(&mut out, tensors.len());
    put_length(&mut out, metadata.len());
    for (key, value) in metadata.iter() {
        put_string(&mut out, key);
        put_value(&mut out, value);
    }
    let mut offset = 0usize;
    for (tensor, &size) in tensors.iter().zip(sizes) {
        put_string(&mut out, &tensor.name);
        let rank = u32::try_from(tensor.shape.len());
        out.extend(
            rank.map_err(|_| Error::InvalidInput("too many dimensions".to_owned()))?
                .to_le_bytes(),
        );
        for dimension in tensor.shape.iter().rev() {
            put_length(&mut out, *dimension);
        }
        out.extend(tensor.kind.type_id().to_le_bytes());
        put_length(&mut out, offset);
        offset = size
            .checked_add(padding(size, alignment))
            .and_then(|size| offset.checked_add(size))
            .ok_or_else(|| Error::InvalidInput("the model is larger than any file".to_owned()))?;
    }
    Ok(out)
}

fn put_length(out: &mut Vec<u8>, length: usize) {
    out.extend((length as u64).to_le_bytes());
}

fn put_string(out: &mut Vec<u8>, text: &str) {
    put_length(out, text.len());
    out.extend(text.as_bytes());
}

fn put_type(out: &mut Vec<u8>, kind: ValueType) {
    out.extend(kind.id().to_le_bytes());
}

fn put_value(out: &mut Vec<u8>, value: &Value) {
    put_type(out, value.value_type());
    match value {
        Value::U8(v) => v.put(out),
        Value::I8(v) => v.put(out),
        Value::U16(v) => v.put(out),
        Value::I16(v) => v.put(out),
        Value::U32(v) => v.put(out),
        Value::I32(v) => v.put(out),
        Value::F32(v) => v.put(out),
        Value::Bool(v) => v.put(out),
        Value::String(v) => v.put(out),
        Value::Array(v) => v.put(out),
        Value::U64(v) => v.put(out),
        Value::I64(v) => v.put(out),
        Value::F64(v) => v.put(out),
    }
}

/// The bytes of a value without its type.
trait Put {
    fn put(&self, out: &mut Vec<u8>);
}

macro_rules! put_numbers {
    ($($type:ty),+) => {
        $(impl Put for $type {
            fn put(&self, out: &mut Vec<u8>) {
                out.extend(self.to_le_bytes());
            }
        })+
    };
}
put_numbers!(u8, i8, u16, i16, u32, i32, f32, u64, i64, f64);

impl Put for bool {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }
}

impl Put for String {
    fn put(&self, out: &mut Vec<u8>) {
        put_string(out, self);
    }
}

impl Put for Array {
    fn put(&self, out: &mut Vec<u8>) {
        put_type(out, self.element_type());
        put_length(out, self.len());
        with_elements!(self, values => values.iter().for_each(|value| value.put(out)));
    }
}
