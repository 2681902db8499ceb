//! Reading forward through the head of a file, never past its end.

use std::borrow::Cow;

use super::metadata::{Array, Value, ValueType};
use crate::mapped::FileBytes;
use crate::{Error, Limits, Result};

/// How much is read at once from a file that is not mapped.
const WINDOW: u64 = 1 << 20;

/// A position in a file. Every length is compared with the bytes left before anything is allocated.
pub(super) struct Cursor<'a> {
    file: &'a FileBytes,
    limits: &'a Limits,
    /// Part of the file in memory, and where it starts.
    window: Cow<'a, [u8]>,
    window_start: u64,
    at: u64,
}

/// Reads one little-endian number.
macro_rules! number {
    ($($name:ident: $type:ty),+) => {
        $(pub(super) fn $name(&mut self, what: &str) -> Result<$type> {
            let mut bytes = [0; size_of::<$type>()];
            bytes.copy_from_slice(self.take(size_of::<$type>() as u64, what)?);
            Ok(<$type>::from_le_bytes(bytes))
        })+
    };
}

impl<'a> Cursor<'a> {
    pub(super) fn new(file: &'a FileBytes, limits: &'a Limits) -> Self {
        Self {
            file,
            limits,
            window: Cow::Borrowed(&[]),
            window_start: 0,
            at: 0,
        }
    }

    pub(super) fn limits(&self) -> &'a Limits {
        self.limits
    }

    /// Where the next byte is read from.
    pub(super) fn position(&self) -> u64 {
        self.at
    }

    /// Bytes between here and the end of the file.
    pub(super) fn remaining(&self) -> u64 {
        self.file.length().saturating_sub(self.at)
    }

    pub(super) fn invalid(&self, detail: impl Into<String>) -> Error {
        Error::invalid_file(self.file.path(), detail)
    }

    /// An [`Error::Limit`] when `found` is over `limit`.
    pub(super) fn check_limit(&self, what: &str, found: u64, limit: u64) -> Result<()> {
        if found <= limit {
            return Ok(());
        }
        Err(Error::Limit {
            what: format!("{}: {what}", self.file.path().display()),
            limit,
            found,
        })
    }

    number!(u8: u8, i8: i8, u16: u16, i16: i16, u32: u32, i32: i32, u64: u64, i64: i64, f32: f32, f64: f64);

    /// A string of at most `limit` bytes, its length in front.
    pub(super) fn string(&mut self, what: &str, limit: u64) -> Result<String> {
        let length = self.u64(what)?;
        if length > self.remaining() {
            let left = self.remaining();
            return Err(self.invalid(format!(
                "{what} of {length} bytes is longer than the {left} bytes left"
            )));
        }
        self.check_limit(&format!("bytes of {what}"), length, limit)?;
        let bytes = self.take(length, what)?.to_vec();
        String::from_utf8(bytes)
            .map_err(|error| self.invalid(format!("{what} is not utf-8: {}", error.utf8_error())))
    }

    /// A metadata value with its type in front; `key` is for messages.
    pub(super) fn value(&mut self, key: &str) -> Result<Value> {
        let what = format!("value of \"{key}\"");
        Ok(match self.value_type(&what)? {
            ValueType::U8 => Value::U8(self.u8(&what)?),
            ValueType::I8 => Value::I8(self.i8(&what)?),
            ValueType::U16 => Value::U16(self.u16(&what)?),
            ValueType::I16 => Value::I16(self.i16(&what)?),
            ValueType::U32 => Value::U32(self.u32(&what)?),
            ValueType::I32 => Value::I32(self.i32(&what)?),
            ValueType::F32 => Value::F32(self.f32(&what)?),
            ValueType::Bool => Value::Bool(self.bool(&what)?),
            ValueType::String => Value::String(self.string(&what, self.limits.gguf_string_bytes)?),
            ValueType::Array => Value::Array(self.array(&what, self.limits.gguf_nesting)?),
            ValueType::U64 => Value::U64(self.u64(&what)?),
            ValueType::I64 => Value::I64(self.i64(&what)?),
            ValueType::F64 => Value::F64(self.f64(&what)?),
        })
    }

    /// An array that may hold arrays for `depth` levels more.
    fn array(&mut self, what: &str, depth: usize) -> Result<Array> {
        let Some(depth) = depth.checked_sub(1) else {
            return Err(self.invalid(format!(
                "{what}: arrays nested over {} deep",
                self.limits.gguf_nesting
            )));
        };
        let element = self.value_type(what)?;
        let count = self.u64(what)?;
        let least = count.checked_mul(element.least_bytes());
        if least.is_none_or(|least| least > self.remaining()) {
            let left = self.remaining();
            return Err(self.invalid(format!(
                "{what}: {count} elements do not fit into the {left} bytes left"
            )));
        }
        self.check_limit(
            &format!("elements of {what}"),
            count,
            self.limits.gguf_array_elements,
        )?;
        let string_bytes = self.limits.gguf_string_bytes;
        Ok(match element {
            ValueType::U8 => Array::U8(self.list(count, |c| c.u8(what))?),
            ValueType::I8 => Array::I8(self.list(count, |c| c.i8(what))?),
            ValueType::U16 => Array::U16(self.list(count, |c| c.u16(what))?),
            ValueType::I16 => Array::I16(self.list(count, |c| c.i16(what))?),
            ValueType::U32 => Array::U32(self.list(count, |c| c.u32(what))?),
            ValueType::I32 => Array::I32(self.list(count, |c| c.i32(what))?),
            ValueType::F32 => Array::F32(self.list(count, |c| c.f32(what))?),
            ValueType::Bool => Array::Bool(self.list(count, |c| c.bool(what))?),
            ValueType::String => Array::String(self.list(count, |c| c.string(what, string_bytes))?),
            ValueType::Array => Array::Array(self.list(count, |c| c.array(what, depth))?),
            ValueType::U64 => Array::U64(self.list(count, |c| c.u64(what))?),
            ValueType::I64 => Array::I64(self.list(count, |c| c.i64(what))?),
            ValueType::F64 => Array::F64(self.list(count, |c| c.f64(what))?),
        })
    }

    fn list<T>(
        &mut self,
        count: u64,
        mut read: impl FnMut(&mut Self) -> Result<T>,
    ) -> Result<Vec<T>> {
        (0..count).map(|_| read(self)).collect()
    }

    fn bool(&mut self, what: &str) -> Result<bool> {
        match self.u8(what)? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(self.invalid(format!("{what}: expected a boolean 0 or 1, found {other}"))),
        }
    }

    fn value_type(&mut self, what: &str) -> Result<ValueType> {
        let id = self.u32(what)?;
        ValueType::from_id(id)
            .ok_or_else(|| self.invalid(format!("{what}: unknown value type {id}")))
    }

    /// The next `count` bytes.
    fn take(&mut self, count: u64, what: &str) -> Result<&[u8]> {
        if count > self.remaining() {
            return Err(self.invalid(format!(
                "ends at byte {} in the middle of {what}",
                self.file.length()
            )));
        }
        let window_end = self.window_start + self.window.len() as u64;
        if self.at + count > window_end {
            self.window = self
                .file
                .slice(self.at, count.max(WINDOW).min(self.remaining()))?;
            self.window_start = self.at;
        }
        let ends = (
            self.at - self.window_start,
            self.at - self.window_start + count,
        );
        self.at += count;
        let range = usize::try_from(ends.0)
            .ok()
            .zip(usize::try_from(ends.1).ok());
        let bytes = range.and_then(|(start, end)| self.window.get(start..end));
        bytes.ok_or_else(|| Error::invalid_file(self.file.path(), format!("cannot read {what}")))
    }
}
