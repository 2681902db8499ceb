//! Metadata of a GGUF file: typed values under string keys, in file order.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// The type of a metadata value, with the numbers of the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // The variants are the format's own names.
pub enum ValueType {
    U8 = 0,
    I8 = 1,
    U16 = 2,
    I16 = 3,
    U32 = 4,
    I32 = 5,
    F32 = 6,
    Bool = 7,
    String = 8,
    Array = 9,
    U64 = 10,
    I64 = 11,
    F64 = 12,
}

impl ValueType {
    const ALL: [Self; 13] = [
        Self::U8,
        Self::I8,
        Self::U16,
        Self::I16,
        Self::U32,
        Self::I32,
        Self::F32,
        Self::Bool,
        Self::String,
        Self::Array,
        Self::U64,
        Self::I64,
        Self::F64,
    ];

    pub(super) fn from_id(id: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.id() == id)
    }

    pub(super) fn id(self) -> u32 {
        self as u32
    }

    /// The least number of bytes a value of this type takes in a file.
    pub(super) fn least_bytes(self) -> u64 {
        match self {
            Self::U8 | Self::I8 | Self::Bool => 1,
            Self::U16 | Self::I16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::U64 | Self::I64 | Self::F64 | Self::String => 8,
            Self::Array => 12,
        }
    }
}

/// A list of values of one type.
///
/// Numbers are kept in their own width, so an array never takes much more memory than its bytes in
/// the file.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)] // The variants are the format's own names.
pub enum Array {
    U8(Vec<u8>),
    I8(Vec<i8>),
    U16(Vec<u16>),
    I16(Vec<i16>),
    U32(Vec<u32>),
    I32(Vec<i32>),
    F32(Vec<f32>),
    Bool(Vec<bool>),
    String(Vec<String>),
    Array(Vec<Array>),
    U64(Vec<u64>),
    I64(Vec<i64>),
    F64(Vec<f64>),
}

/// Runs the same expression on the vector inside an [`Array`], whatever its element type.
macro_rules! with_elements {
    ($array:expr, $values:ident => $body:expr) => {
        match $array {
            Array::U8($values) => $body,
            Array::I8($values) => $body,
            Array::U16($values) => $body,
            Array::I16($values) => $body,
            Array::U32($values) => $body,
            Array::I32($values) => $body,
            Array::F32($values) => $body,
            Array::Bool($values) => $body,
            Array::String($values) => $body,
            Array::Array($values) => $body,
            Array::U64($values) => $body,
            Array::I64($values) => $body,
            Array::F64($values) => $body,
        }
    };
}
pub(super) use with_elements;

impl Array {
    /// The type of the elements.
    pub fn element_type(&self) -> ValueType {
        match self {
            Self::U8(_) => ValueType::U8,
            Self::I8(_) => ValueType::I8,
            Self::U16(_) => ValueType::U16,
            Self::I16(_) => ValueType::I16,
            Self::U32(_) => ValueType::U32,
            Self::I32(_) => ValueType::I32,
            Self::F32(_) => ValueType::F32,
            Self::Bool(_) => ValueType::Bool,
            Self::String(_) => ValueType::String,
            Self::Array(_) => ValueType::Array,
            Self::U64(_) => ValueType::U64,
            Self::I64(_) => ValueType::I64,
            Self::F64(_) => ValueType::F64,
        }
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        with_elements!(self, values => values.len())
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The elements as integers; `None` when they are no integers or do not fit.
    fn integers(&self) -> Option<Vec<i64>> {
        match self {
            Self::U8(v) => Some(v.iter().map(|&x| x.into()).collect()),
            Self::I8(v) => Some(v.iter().map(|&x| x.into()).collect()),
            Self::U16(v) => Some(v.iter().map(|&x| x.into()).collect()),
            Self::I16(v) => Some(v.iter().map(|&x| x.into()).collect()),
            Self::U32(v) => Some(v.iter().map(|&x| x.into()).collect()),
            Self::I32(v) => Some(v.iter().map(|&x| x.into()).collect()),
            Self::U64(v) => v.iter().map(|&x| i64::try_from(x).ok()).collect(),
            Self::I64(v) => Some(v.clone()),
            _ => None,
        }
    }
}

/// One metadata value.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)] // The variants are the format's own names.
pub enum Value {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    String(String),
    Array(Array),
    U64(u64),
    I64(i64),
    F64(f64),
}

impl Value {
    /// The type of the value.
    pub fn value_type(&self) -> ValueType {
        match self {
            Self::U8(_) => ValueType::U8,
            Self::I8(_) => ValueType::I8,
            Self::U16(_) => ValueType::U16,
            Self::I16(_) => ValueType::I16,
            Self::U32(_) => ValueType::U32,
            Self::I32(_) => ValueType::I32,
            Self::F32(_) => ValueType::F32,
            Self::Bool(_) => ValueType::Bool,
            Self::String(_) => ValueType::String,
            Self::Array(_) => ValueType::Array,
            Self::U64(_) => ValueType::U64,
            Self::I64(_) => ValueType::I64,
            Self::F64(_) => ValueType::F64,
        }
    }

    fn integer(&self) -> Option<i128> {
        match self {
            Self::U8(v) => Some((*v).into()),
            Self::I8(v) => Some((*v).into()),
            Self::U16(v) => Some((*v).into()),
            Self::I16(v) => Some((*v).into()),
            Self::U32(v) => Some((*v).into()),
            Self::I32(v) => Some((*v).into()),
            Self::U64(v) => Some((*v).into()),
            Self::I64(v) => Some((*v).into()),
            _ => None,
        }
    }

    fn describe(&self) -> String {
        match self {
            Self::Array(array) => format!("array of {:?}", array.element_type()),
            other => format!("{:?}", other.value_type()),
        }
    }
}

/// The metadata of one file: keys with values, in file order, each key once.
///
/// The typed accessors come in pairs: `x(key)` is an error when the key is missing, `x_opt(key)`
/// gives `None`. Both are an error that names the key and both types when the value has another
/// type. Integers may be of any width, as writers differ in it.
#[derive(Debug, Clone, Default)]
pub struct Metadata {
    /// Named in errors.
    path: PathBuf,
    entries: Vec<(String, Value)>,
    index: HashMap<String, usize>,
}

impl Metadata {
    /// Empty metadata of the file at `path`, which errors will name.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            ..Self::default()
        }
    }

    /// The file this belongs to.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The entries in file order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.entries
            .iter()
            .map(|(key, value)| (key.as_str(), value))
    }

    /// The number of entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are no entries.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The raw value of a key.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.index
            .get(key)
            .and_then(|&i| self.entries.get(i))
            .map(|(_, value)| value)
    }

    /// Adds an entry at the end.
    ///
    /// # Errors
    /// [`Error::InvalidFile`] when the key is there already.
    pub fn insert(&mut self, key: impl Into<String>, value: Value) -> Result<()> {
        let key = key.into();
        if self.index.contains_key(&key) {
            return Err(self.invalid(format!("metadata key \"{key}\" occurs twice")));
        }
        self.index.insert(key.clone(), self.entries.len());
        self.entries.push((key, value));
        Ok(())
    }

    /// An integer that is at least zero.
    ///
    /// # Errors
    /// [`Error::InvalidFile`] when it is missing, of another type, negative or too large.
    pub fn usize(&self, key: &str) -> Result<usize> {
        self.required(key, self.usize_opt(key)?)
    }

    /// As [`Metadata::usize`], `None` when missing.
    ///
    /// # Errors
    /// [`Error::InvalidFile`] when it is of another type, negative or too large.
    pub fn usize_opt(&self, key: &str) -> Result<Option<usize>> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        let integer = value
            .integer()
            .ok_or_else(|| self.wrong_type(key, "an integer", value))?;
        let fits = usize::try_from(integer).map_err(|_| {
            self.invalid(format!("metadata key \"{key}\": {integer} is out of range"))
        })?;
        Ok(Some(fits))
    }

    /// A float, of either width.
    ///
    /// # Errors
    /// [`Error::InvalidFile`] when it is missing, of another type or not finite.
    pub fn float(&self, key: &str) -> Result<f64> {
        self.required(key, self.float_opt(key)?)
    }

    /// As [`Metadata::float`], `None` when missing. An `f32` comes back as the shortest decimal
    /// that is the same `f32`, so that `1e-5` stays `1e-5`.
    ///
    /// # Errors
    /// [`Error::InvalidFile`] when it is of another type or not finite.
    pub fn float_opt(&self, key: &str) -> Result<Option<f64>> {
        let float = match self.get(key) {
            None => return Ok(None),
            Some(Value::F32(v)) => v.to_string().parse().unwrap_or(f64::from(*v)),
            Some(Value::F64(v)) => *v,
            Some(other) => return Err(self.wrong_type(key, "a float", other)),
        };
        if !float.is_finite() {
            return Err(self.invalid(format!("metadata key \"{key}\": {float} is not finite")));
        }
        Ok(Some(float))
    }

    /// A boolean, `None` when missing.
    ///
    /// # Errors
    /// [`Error::InvalidFile`] when it is of another type.
    pub fn bool_opt(&self, key: &str) -> Result<Option<bool>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Bool(v)) => Ok(Some(*v)),
            Some(other) => Err(self.wrong_type(key, "Bool", other)),
        }
    }

    /// A string.
    ///
    /// # Errors
    /// [`Error::InvalidFile`] when it is missing or of another type.
    pub fn str(&self, key: &str) -> Result<&str> {
        self.required(key, self.str_opt(key)?)
    }

    /// As [`Metadata::str`], `None` when missing.
    ///
    /// # Errors
    /// [`Error::InvalidFile`] when it is of another type.
    pub fn str_opt(&self, key: &str) -> Result<Option<&str>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::String(v)) => Ok(Some(v)),
            Some(other) => Err(self.wrong_type(key, "String", other)),
        }
    }

    /// A list of strings.
    ///
    /// # Errors
    /// [`Error::InvalidFile`] when it is missing or of another type.
    pub fn strings(&self, key: &str) -> Result<&[String]> {
        match self.get(key) {
            None => Err(self.missing(key)),
            Some(Value::Array(Array::String(v))) => Ok(v),
            Some(other) => Err(self.wrong_type(key, "array of String", other)),
        }
    }

    /// A list of integers of any width, `None` when missing.
    ///
    /// # Errors
    /// [`Error::InvalidFile`] when it is of another type.
    pub fn integers_opt(&self, key: &str) -> Result<Option<Vec<i64>>> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        let integers = match value {
            Value::Array(array) => array.integers(),
            _ => None,
        };
        integers
            .map(Some)
            .ok_or_else(|| self.wrong_type(key, "array of integers", value))
    }

    /// An [`Error::InvalidFile`] about this file.
    pub(super) fn invalid(&self, detail: impl Into<String>) -> Error {
        Error::invalid_file(&self.path, detail)
    }

    fn required<T>(&self, key: &str, value: Option<T>) -> Result<T> {
        value.ok_or_else(|| self.missing(key))
    }

    fn missing(&self, key: &str) -> Error {
        self.invalid(format!("metadata key \"{key}\" is missing"))
    }

    fn wrong_type(&self, key: &str, expected: &str, found: &Value) -> Error {
        self.invalid(format!(
            "metadata key \"{key}\": expected {expected}, found {}",
            found.describe()
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(value: Value) -> Metadata {
        let mut metadata = Metadata::new("model.gguf");
        metadata.insert("key", value).unwrap();
        metadata
    }

    #[test]
    fn type_numbers_read_back() {
        for kind in ValueType::ALL {
            assert_eq!(ValueType::from_id(kind.id()), Some(kind));
        }
        assert_eq!(ValueType::from_id(13), None);
    }

    #[test]
    fn integers_of_every_width_are_one_kind() {
        for value in [Value::U8(7), Value::I16(7), Value::U32(7), Value::I64(7)] {
            assert_eq!(metadata(value).usize("key").unwrap(), 7);
        }
        assert!(
            metadata(Value::I8(-1))
                .usize("key")
                .unwrap_err()
                .to_string()
                .contains("-1")
        );
        assert!(metadata(Value::F32(7.0)).usize("key").is_err());
    }

    #[test]
    fn floats_keep_their_decimal_spelling() {
        assert_eq!(metadata(Value::F32(1e-5)).float("key").unwrap(), 1e-5);
        assert!(metadata(Value::F32(f32::NAN)).float("key").is_err());
    }

    #[test]
    fn errors_name_the_file_the_key_and_both_types() {
        let error = metadata(Value::Array(Array::U8(vec![1])))
            .strings("key")
            .unwrap_err()
            .to_string();
        assert_eq!(
            error,
            "model.gguf: metadata key \"key\": expected array of String, found array of U8"
        );
        let error = metadata(Value::U8(1)).str("other").unwrap_err().to_string();
        assert_eq!(error, "model.gguf: metadata key \"other\" is missing");
    }
}
