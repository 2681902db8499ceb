//! Typed access to the keys of a JSON object; every error names the key and what was found.

use lfm2_hub::{Error, Result};
use serde_json::{Map, Value};

/// A JSON object being read as a config. `null` counts as absent; every error names the key.
#[derive(Debug, Clone, Copy)]
pub struct Keys<'a>(&'a Map<String, Value>);

impl<'a> Keys<'a> {
    /// The keys of `json`, which messages call `name`.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`] when it is no object.
    pub fn new(name: &str, json: &'a Value) -> Result<Self> {
        match json.as_object() {
            Some(object) => Ok(Self(object)),
            None => Err(wrong(name, "an object", json)),
        }
    }

    /// The value of a key.
    pub fn get(self, key: &str) -> Option<&'a Value> {
        self.0.get(key).filter(|v| !v.is_null())
    }

    /// A whole number from 0; also accepts `64.0`.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`] for anything else.
    pub fn size(self, key: &str) -> Result<Option<usize>> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        let whole = value.as_u64().or_else(|| {
            let float = value.as_f64()?;
            (float >= 0.0 && float.fract() == 0.0 && float < 9.0e15).then_some(float as u64)
        });
        match whole.and_then(|n| usize::try_from(n).ok()) {
            Some(n) => Ok(Some(n)),
            None => Err(wrong(key, "a whole number from 0", value)),
        }
    }

    /// [`size`](Self::size) with a default and an upper limit.
    ///
    /// # Errors
    /// As [`size`](Self::size), and [`Error::Limit`].
    pub fn bounded(self, key: &str, default: usize, limit: usize) -> Result<usize> {
        let found = self.size(key)?.unwrap_or(default);
        if found > limit {
            return Err(Error::Limit {
                what: format!("config: {key}"),
                limit: limit as u64,
                found: found as u64,
            });
        }
        Ok(found)
    }

    /// A finite number.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`] for anything else.
    pub fn float(self, key: &str) -> Result<Option<f64>> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        match value.as_f64().filter(|f| f.is_finite()) {
            Some(f) => Ok(Some(f)),
            None => Err(wrong(key, "a finite number", value)),
        }
    }

    /// `true` or `false`.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`] for anything else.
    pub fn bool(self, key: &str) -> Result<Option<bool>> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        value
            .as_bool()
            .map(Some)
            .ok_or_else(|| wrong(key, "true or false", value))
    }

    /// A string.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`] for anything else.
    pub fn str(self, key: &str) -> Result<Option<&'a str>> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        value
            .as_str()
            .map(Some)
            .ok_or_else(|| wrong(key, "a string", value))
    }

    /// An object.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`] for anything else.
    pub fn object(self, key: &str) -> Result<Option<Keys<'a>>> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        value
            .as_object()
            .map(|o| Some(Keys(o)))
            .ok_or_else(|| wrong(key, "an object", value))
    }

    /// A list.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`] for anything else.
    pub fn array(self, key: &str) -> Result<Option<&'a [Value]>> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        value
            .as_array()
            .map(|a| Some(&a[..]))
            .ok_or_else(|| wrong(key, "a list", value))
    }

    /// One token id or a list of them, each below `vocab`.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`] for anything else.
    pub fn token_ids(self, key: &str, vocab: usize) -> Result<Vec<u32>> {
        let Some(value) = self.get(key) else {
            return Ok(Vec::new());
        };
        let list = value
            .as_array()
            .map_or(std::slice::from_ref(value), |a| &a[..]);
        list.iter()
            .map(|v| {
                let id = v
                    .as_u64()
                    .filter(|&id| id < vocab as u64)
                    .and_then(|id| u32::try_from(id).ok());
                id.ok_or_else(|| wrong(key, &format!("token ids below vocab_size {vocab}"), value))
            })
            .collect()
    }
}

/// The error of a key with another value than `expected`.
pub fn wrong(key: &str, expected: &str, found: &Value) -> Error {
    let mut found = found.to_string();
    if found.len() > 80 {
        let cut = (0..=77)
            .rev()
            .find(|&i| found.is_char_boundary(i))
            .unwrap_or(0);
        found.truncate(cut);
        found.push('…');
    }
    Error::config(key, format!("expected {expected}, found {found}"))
}
