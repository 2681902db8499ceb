//! Text from stdin, which may be anything.

use std::io::{BufRead, Read};

use anyhow::{Context, Result};
use lfm2::hub::{Error, Limits};

use crate::exit::invalid;

/// Reads all of `reader`, which has to be UTF-8 and no longer than a tokenizer would take.
pub(crate) fn read_text(reader: impl Read, what: &str) -> Result<String> {
    let limit = Limits::default().encode_bytes;
    let mut bytes = Vec::new();
    let cap = limit as u64 + 1;
    reader
        .take(cap)
        .read_to_end(&mut bytes)
        .with_context(|| format!("reading {what}"))?;
    if bytes.len() > limit {
        let (what, limit) = (format!("bytes of {what}"), limit as u64);
        return Err(Error::Limit {
            what,
            limit,
            found: cap,
        }
        .into());
    }
    utf8(bytes, what)
}

/// Lines of text that are not blank, each no longer than a tokenizer would take.
#[derive(Debug)]
pub(crate) struct TextLines<R> {
    reader: R,
    name: String,
    number: usize,
}

impl<R: BufRead> TextLines<R> {
    /// Reads from `reader`, which messages call `name`.
    pub(crate) fn new(reader: R, name: impl Into<String>) -> Self {
        Self {
            reader,
            name: name.into(),
            number: 0,
        }
    }

    /// The next line without its end, and its number, from 1.
    pub(crate) fn read(&mut self) -> Result<Option<(usize, String)>> {
        let limit = Limits::default().encode_bytes as u64;
        loop {
            let mut bytes = Vec::new();
            let mut line = self.reader.by_ref().take(limit + 1);
            let read = line.read_until(b'\n', &mut bytes);
            let found = read.with_context(|| format!("reading {}", self.name))? as u64;
            if found == 0 {
                return Ok(None);
            }
            self.number += 1;
            let place = format!("{} line {}", self.name, self.number);
            if found > limit {
                let what = format!("bytes of {place}");
                return Err(Error::Limit { what, limit, found }.into());
            }
            let mut text = utf8(bytes, &place)?;
            text.truncate(text.trim_end_matches(['\r', '\n']).len());
            if !text.trim().is_empty() {
                return Ok(Some((self.number, text)));
            }
        }
    }
}

/// The bytes as text.
pub(crate) fn utf8(bytes: Vec<u8>, what: &str) -> Result<String> {
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        invalid(format!("{what} is not utf-8 at byte {at}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tk_04_broken_text_is_refused_with_its_place_and_odd_text_is_kept() {
        let error = read_text(&b"abc\xFFd"[..], "stdin").unwrap_err();
        assert_eq!(error.to_string(), "stdin is not utf-8 at byte 3");
        let odd = "nul \0, replacement \u{FFFD}, right to left \u{202E}\u{200F}";
        assert_eq!(read_text(odd.as_bytes(), "stdin").unwrap(), odd);
    }

    #[test]
    fn endless_input_is_not_read_to_its_end() {
        let error = read_text(std::io::repeat(b'a'), "stdin").unwrap_err();
        assert!(error.to_string().contains("over the limit"), "{error}");
    }
}
