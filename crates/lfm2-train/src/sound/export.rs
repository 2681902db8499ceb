//! A trained detokenizer as the folder that stands in those of published speech models.

use std::path::Path;

use serde_json::Value;

use crate::file::{write_text, write_weights};
use crate::options::ExportDtype;
use crate::variables::Parameters;
use crate::{Error, Result};

/// Writes the folder, replacing files of the same names.
pub(super) fn export(
    folder: &Path,
    config: &Value,
    parameters: &Parameters,
    dtype: ExportDtype,
) -> Result<()> {
    std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
    write_text(&folder.join("config.json"), &format!("{config:#}\n"))?;
    let tensors = parameters.export(dtype.dtype())?;
    write_weights(&folder.join("model.safetensors"), &tensors)
}
