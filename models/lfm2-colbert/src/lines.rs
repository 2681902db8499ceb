//! Files of JSON lines that anybody may have written: read one line at a time, every error with
//! file and line.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use lfm2_hub::Error as HubError;
use serde_json::{Map, Value};

use crate::Result;

/// Bytes that one line may have.
const LINE_BYTES: u64 = 16 << 20;

/// The lines of a text file that are not blank.
#[derive(Debug)]
pub(crate) struct Lines {
    path: PathBuf,
    reader: BufReader<File>,
    number: usize,
    bytes: u64,
}

impl Lines {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|error| HubError::io(path, error))?;
        Ok(Self {
            path: path.to_path_buf(),
            reader: BufReader::new(file),
            number: 0,
            bytes: 0,
        })
    }

    /// The next line and its number, from 1; `None` at the end.
    pub(crate) fn read(&mut self) -> Result<Option<(usize, String)>> {
        loop {
            let mut bytes = Vec::new();
            let mut line = self.reader.by_ref().take(LINE_BYTES + 1);
            let read = line.read_until(b'\n', &mut bytes);
            let found = read.map_err(|error| HubError::io(&self.path, error))? as u64;
            if found == 0 {
                return Ok(None);
            }
            self.number += 1;
            self.bytes += found;
            if found > LINE_BYTES {
                let what = format!("{}:{}: bytes of a line", self.path.display(), self.number);
                let limit = LINE_BYTES;
                return Err(HubError::Limit { what, limit, found }.into());
            }
            let text = String::from_utf8(bytes).map_err(|error| {
                let at = error.utf8_error().valid_up_to();
                self.wrong(format!("not utf-8 at byte {at} of the line"))
            })?;
            // A byte order mark is no part of the first line.
            let text = text.trim_start_matches('\u{FEFF}').trim();
            if !text.is_empty() {
                return Ok(Some((self.number, text.to_owned())));
            }
        }
    }

    /// The bytes that were read so far.
    pub(crate) fn bytes_read(&self) -> u64 {
        self.bytes
    }

    /// The next line as a JSON object.
    pub(crate) fn read_object(&mut self) -> Result<Option<(usize, Map<String, Value>)>> {
        let Some((number, text)) = self.read()? else {
            return Ok(None);
        };
        let object = serde_json::from_str(&text)
            .map_err(|error| self.wrong(format!("expected a json object: {error}")))?;
        Ok(Some((number, object)))
    }

    /// An error about the line that was read last.
    pub(crate) fn wrong(&self, detail: impl std::fmt::Display) -> crate::Error {
        let place = format!("{}:{}", self.path.display(), self.number);
        HubError::invalid_file(place, detail.to_string()).into()
    }

    /// A field of the line that was read last, which has to be text where it is present.
    pub(crate) fn text(
        &self,
        object: &mut Map<String, Value>,
        key: &str,
    ) -> Result<Option<String>> {
        match object.remove(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => {
                Err(self.wrong(format!("{key:?}: expected text, found {}", kind(&other))))
            }
        }
    }

    /// The `id` or `_id` of the line that was read last: text, or a whole number.
    pub(crate) fn id(&self, object: &mut Map<String, Value>) -> Result<Option<String>> {
        let keys = ["id", "_id"];
        let Some((key, value)) = keys
            .into_iter()
            .find_map(|key| Some((key, object.remove(key)?)))
        else {
            return Ok(None);
        };
        match value {
            Value::Null => Ok(None),
            Value::String(text) if text.is_empty() => {
                Err(self.wrong(format!("{key:?}: expected an id, found empty text")))
            }
            Value::String(text) => Ok(Some(text)),
            Value::Number(number) if number.is_i64() || number.is_u64() => {
                Ok(Some(number.to_string()))
            }
            other => Err(self.wrong(format!(
                "{key:?}: expected text or a whole number, found {}",
                kind(&other)
            ))),
        }
    }
}

/// What a JSON value is, for messages.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
