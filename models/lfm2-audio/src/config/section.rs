//! Typed access to the keys of one object of a config; every error names the whole key.

use lfm2_hub::{Error, Limits, Result};
use serde_json::{Map, Value};

/// An object of a config and its path, which is empty for the config itself.
#[derive(Clone, Copy)]
pub(super) struct Section<'a> {
    path: &'a str,
    map: &'a Map<String, Value>,
}

impl<'a> Section<'a> {
    pub(super) fn root(json: &'a Value) -> Result<Self> {
        match json.as_object() {
            Some(map) => Ok(Self { path: "", map }),
            None => Err(Error::config("config.json", "expected an object")),
        }
    }

    /// The object under `key`, which has to be there.
    pub(super) fn section(self, key: &'a str) -> Result<Section<'a>> {
        let value = self.required(key)?;
        match value.as_object() {
            Some(map) => Ok(Section { path: key, map }),
            None => Err(self.wrong(key, "an object", value)),
        }
    }

    /// The value of a key; `null` counts as absent.
    pub(super) fn get(self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    pub(super) fn required(self, key: &str) -> Result<&'a Value> {
        self.get(key)
            .ok_or_else(|| Error::config(self.full(key), "missing"))
    }

    /// A whole number from 1 to `limit`; also accepts `64.0`.
    pub(super) fn size(self, key: &str, limit: usize) -> Result<usize> {
        let value = self.required(key)?;
        let whole = value.as_u64().or_else(|| {
            let float = value.as_f64()?;
            (float >= 0.0 && float.fract() == 0.0 && float < 9.0e15).then_some(float as u64)
        });
        match whole.and_then(|n| usize::try_from(n).ok()) {
            Some(0) | None => Err(self.wrong(key, "a whole number from 1", value)),
            Some(found) if found > limit => Err(Error::Limit {
                what: format!("config: {}", self.full(key)),
                limit: limit as u64,
                found: found as u64,
            }),
            Some(found) => Ok(found),
        }
    }

    /// A width of the model.
    pub(super) fn width(self, key: &str, limits: &Limits) -> Result<usize> {
        self.size(key, limits.hidden_size)
    }

    pub(super) fn float(self, key: &str) -> Result<f64> {
        let value = self.required(key)?;
        let finite = value.as_f64().filter(|float| float.is_finite());
        finite.ok_or_else(|| self.wrong(key, "a finite number", value))
    }

    pub(super) fn float_or(self, key: &str, default: f64) -> Result<f64> {
        match self.get(key) {
            Some(_) => self.float(key),
            None => Ok(default),
        }
    }

    pub(super) fn bool(self, key: &str) -> Result<bool> {
        let value = self.required(key)?;
        let found = value.as_bool();
        found.ok_or_else(|| self.wrong(key, "true or false", value))
    }

    /// Refuses any value but `expected`; a key that is absent is what `expected` says when that is
    /// `null`.
    pub(super) fn only(self, key: &str, expected: &Value) -> Result<()> {
        let found = match self.get(key) {
            Some(found) => found,
            None if expected.is_null() => return Ok(()),
            None => return Err(Error::config(self.full(key), "missing")),
        };
        let same_number = || Some(found.as_f64()? == expected.as_f64()?);
        if found == expected || same_number() == Some(true) {
            return Ok(());
        }
        Err(Error::Unsupported {
            what: format!("config: {} = {}", self.full(key), shown(found)),
            hint: format!("only {expected} is"),
        })
    }

    pub(super) fn wrong(self, key: &str, expected: &str, found: &Value) -> Error {
        let detail = format!("expected {expected}, found {}", shown(found));
        Error::config(self.full(key), detail)
    }

    fn full(self, key: &str) -> String {
        if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        }
    }
}

/// A value as it is written, at most a line of it.
fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(77) {
        Some((cut, _)) => format!("{}…", &text[..cut]),
        None => text,
    }
}
