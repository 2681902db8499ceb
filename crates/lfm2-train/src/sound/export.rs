//! A trained detokenizer as the folder that stands in those of published speech models.

use std::collections::BTreeMap;
use std::path::Path;

use lfm2_hub::{Overwrite, write_safetensors};
use serde_json::Value;

use crate::file::write_text;
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
    let named = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor));
    let metadata = BTreeMap::from([("format".to_string(), "pt".to_string())]);
    let path = folder.join("model.safetensors");
    Ok(write_safetensors(
        &path,
        named,
        &metadata,
        Overwrite::Replace,
    )?)
}
