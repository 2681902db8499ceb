//! JSON files of a checkpoint, read strictly: capped in size and depth, and no key twice.
//!
//! A duplicate key has two meanings, and readers disagree on which one wins; serde_json silently
//! takes the last. Nothing here knows what the keys mean.

use std::fmt;
use std::path::Path;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::files::read_capped;
use crate::{Error, Limits, Result};

/// What to do with a number that no integer or float type holds faithfully.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Numbers {
    /// Refuse negative zero and integers beyond 64 bits: they cannot be sizes or ids.
    Exact,
    /// Take them as floats. Tokenizer configs say "unlimited" as 10^30.
    Float,
}

/// Reads the JSON file at `path`.
///
/// # Errors
/// [`Error::Io`], [`Error::Limit`] on size, [`Error::InvalidFile`] on anything malformed, too deep
/// or doubled.
pub(crate) fn read_json(path: &Path, numbers: Numbers, limits: &Limits) -> Result<Value> {
    let bytes = read_capped(path, limits.json_bytes, "json file bytes")?;
    parse_json(path, &bytes, numbers, limits.json_depth)
}

/// Parses `bytes`; `path` is for messages only. A UTF-8 byte order mark is skipped.
///
/// # Errors
/// As [`read_json`].
pub(crate) fn parse_json(
    path: &Path,
    bytes: &[u8],
    numbers: Numbers,
    max_depth: usize,
) -> Result<Value> {
    let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err(Error::invalid_file(
            path,
            "expected json, found an empty file",
        ));
    }
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let seed = StrictValue {
        depth: max_depth,
        numbers,
    };
    seed.deserialize(&mut reader)
        .and_then(|value| reader.end().map(|()| value))
        .map_err(|source| Error::invalid_file(path, format!("not valid json: {source}")))
}

/// The longest key that an error message quotes whole.
const QUOTED_KEY: usize = 200;

struct StrictValue {
    depth: usize,
    numbers: Numbers,
}

impl StrictValue {
    fn deeper<E: serde::de::Error>(&self) -> Result<Self, E> {
        match self.depth.checked_sub(1) {
            Some(depth) => Ok(Self {
                depth,
                numbers: self.numbers,
            }),
            None => Err(E::custom("nested too deeply")),
        }
    }
}

impl<'de> DeserializeSeed<'de> for StrictValue {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for StrictValue {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a json value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        const TWO_TO_64: f64 = 18_446_744_073_709_551_616.0;
        let negative_zero = value == 0.0 && value.is_sign_negative();
        if self.numbers == Numbers::Exact && (negative_zero || value.abs() >= TWO_TO_64) {
            return Err(E::custom(format!("number {value:?} is out of range")));
        }
        Number::from_f64(value)
            .map(Value::Number)
            .ok_or_else(|| E::custom("number is not finite"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(self.deeper()?)? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            if map.contains_key(&key) {
                let shown: String = key.chars().take(QUOTED_KEY).collect();
                return Err(A::Error::custom(format!("key {shown:?} is given twice")));
            }
            let value = entries.next_value_seed(self.deeper()?)?;
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}
