//! Data files: plain or gzip, as blocks of text or JSON lines.

use std::io::Read;
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use crate::{Error, Result};

/// The most bytes of text one data file may hold; larger sets come in several files.
const MAX_BYTES: u64 = 4 << 30;

/// A data file in memory.
#[derive(Debug, Clone)]
pub struct DataFile {
    path: PathBuf,
    text: String,
    sha256: String,
}

/// One row of a JSON-lines file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JsonLine<T> {
    /// The line, from 1.
    pub line: usize,
    /// Its content.
    pub row: T,
}

impl DataFile {
    /// Reads a UTF-8 file, decompressing it when it is gzip (told by its first bytes, not its name).
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Data`] with the line of the first byte that is not UTF-8.
    pub fn read(path: &Path) -> Result<Self> {
        let stored = std::fs::read(path).map_err(|e| Error::io(path, e))?;
        let sha256 = Sha256::digest(&stored)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let bytes = if stored.starts_with(&[0x1f, 0x8b]) {
            decompress(path, &stored)?
        } else {
            stored
        };
        let text = String::from_utf8(bytes).map_err(|e| {
            let before = &e.as_bytes()[..e.utf8_error().valid_up_to()];
            let line = before.iter().filter(|&&b| b == b'\n').count() + 1;
            Error::data(path, line, "not UTF-8")
        })?;
        Ok(Self {
            path: path.to_path_buf(),
            text,
            sha256,
        })
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// SHA-256 of the file as stored, in hexadecimal.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// Blocks of lines between empty lines, without surrounding blanks.
    pub fn blocks(&self) -> impl Iterator<Item = &str> {
        Blocks { rest: &self.text }
    }

    /// Every line that is not empty, parsed as JSON.
    ///
    /// # Errors
    /// [`Error::Data`] with the number of the first line that is not the JSON expected.
    pub fn json_lines<T: DeserializeOwned>(&self) -> Result<Vec<JsonLine<T>>> {
        let lines = self
            .text
            .lines()
            .enumerate()
            .filter(|(_, text)| !text.trim().is_empty());
        let parsed = lines.map(|(i, text)| {
            let row = serde_json::from_str(text)
                .map_err(|e| Error::data(&self.path, i + 1, e.to_string()))?;
            Ok(JsonLine { line: i + 1, row })
        });
        parsed.collect()
    }
}

fn decompress(path: &Path, stored: &[u8]) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut reader = MultiGzDecoder::new(stored).take(MAX_BYTES + 1);
    reader
        .read_to_end(&mut bytes)
        .map_err(|e| Error::io(path, e))?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(lfm2_hub::Error::Limit {
            what: format!("{}: bytes of text", path.display()),
            limit: MAX_BYTES,
            found: bytes.len() as u64,
        }
        .into());
    }
    Ok(bytes)
}

struct Blocks<'a> {
    rest: &'a str,
}

impl<'a> Iterator for Blocks<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        self.rest = self.rest.trim_start();
        if self.rest.is_empty() {
            return None;
        }
        let mut end = 0;
        for line in self.rest.split_inclusive('\n') {
            if line.trim().is_empty() {
                break;
            }
            end += line.len();
        }
        let (block, rest) = self.rest.split_at(end);
        self.rest = rest;
        Some(block.trim_end())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> DataFile {
        DataFile {
            path: PathBuf::from("x"),
            text: text.to_string(),
            sha256: String::new(),
        }
    }

    #[test]
    fn blocks_end_at_empty_lines_of_any_kind() {
        let blocks: Vec<_> = file("\n\none\ntwo\n\n \t\n\nthree\r\n\r\nfour")
            .blocks()
            .map(str::to_string)
            .collect();
        assert_eq!(blocks, ["one\ntwo", "three", "four"]);
        assert_eq!(file(" \n\n").blocks().count(), 0);
    }

    #[test]
    fn a_broken_json_line_is_named() {
        let error = file("{\"a\":1}\n\n{\"a\":2}\n{\"a\":")
            .json_lines::<serde_json::Value>()
            .unwrap_err();
        assert!(error.to_string().starts_with("x: line 4: "), "{error}");
    }

    #[test]
    fn bytes_that_are_not_text_are_named_by_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bad.txt");
        std::fs::write(&path, b"fine\nalso fine\nb\xffd").unwrap();
        assert!(
            DataFile::read(&path)
                .unwrap_err()
                .to_string()
                .contains("line 3: not UTF-8")
        );
    }
}
