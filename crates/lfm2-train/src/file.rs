//! Files that are read or replaced whole.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use candle_core::Tensor;
use lfm2_hub::{Overwrite, write_atomic, write_safetensors};
use serde::de::DeserializeOwned;

use crate::{Error, Result};

/// What the JSON file at `path` says.
///
/// # Errors
/// [`Error::Io`], and [`Error::RunFolder`] when it is not the JSON expected.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, e))?;
    serde_json::from_str(&text).map_err(|e| Error::run_folder(path, e.to_string()))
}

/// Replaces the weights at `path`, with the metadata that other readers expect.
pub(crate) fn write_weights(path: &Path, tensors: &BTreeMap<String, Tensor>) -> Result<()> {
    let named = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor));
    let metadata = BTreeMap::from([("format".to_string(), "pt".to_string())]);
    Ok(write_safetensors(
        path,
        named,
        &metadata,
        Overwrite::Replace,
    )?)
}

/// Replaces the file at `path` by `text`; readers see the old text or the new one.
pub(crate) fn write_text(path: &Path, text: &str) -> Result<()> {
    Ok(write_atomic(path, Overwrite::Replace, |file| {
        file.write_all(text.as_bytes())
            .map_err(|e| lfm2_hub::Error::io(path, e))
    })?)
}
