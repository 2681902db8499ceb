//! Small text files that are replaced whole.

use std::io::Write;
use std::path::Path;

use lfm2_hub::{Overwrite, write_atomic};

use crate::Result;

/// Replaces the file at `path` by `text`; readers see the old text or the new one.
pub(crate) fn write_text(path: &Path, text: &str) -> Result<()> {
    Ok(write_atomic(path, Overwrite::Replace, |file| {
        file.write_all(text.as_bytes())
            .map_err(|e| lfm2_hub::Error::io(path, e))
    })?)
}
