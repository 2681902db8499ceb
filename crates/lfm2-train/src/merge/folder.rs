//! Merging checkpoint folders into a checkpoint folder.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use candle_core::DType;
use lfm2_hub::{Checkpoint, Mapping, ModelSource, OpenOptions, StoredType, TensorSource};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{MergeInputs, MergeProgress, MergeRecipe, Method, merge_tensors};
use crate::file::write_text;
use crate::lora::LoraSource;
use crate::options::ExportDtype;
use crate::{Error, Result};

/// The weights of the result.
const WEIGHTS: &str = "model.safetensors";

/// What a merge came to.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MergeReport {
    /// Tensors in the result.
    pub tensors: usize,
    /// The folder whose config, tokenizer and template the result has.
    pub files_of: PathBuf,
}

/// Merges checkpoint folders as `recipe` says into a folder that opens like any other; its config,
/// tokenizer and template are those of the base, or of the first model.
///
/// # Errors
/// As [`merge_tensors`]; [`Error::InvalidOption`] when tokenizers differ or a model has weights in
/// more than one place; errors of files.
pub fn merge_checkpoints(
    recipe: &MergeRecipe,
    out: &Path,
    progress: &mut dyn FnMut(MergeProgress<'_>),
) -> Result<MergeReport> {
    let weights: Vec<f64> = recipe.models.iter().map(|(_, weight)| *weight).collect();
    recipe.method.validate(&weights)?;
    let folders = recipe
        .base
        .iter()
        .chain(recipe.models.iter().map(|(path, _)| path));
    let mut checkpoints = Vec::new();
    for folder in folders.clone() {
        checkpoints.push(open(folder)?);
    }
    let Some(files_of) = folders.clone().next() else {
        return Err(Error::option("models", "expected at least 1, found 0"));
    };
    check_tokenizers(&folders.map(PathBuf::as_path).collect::<Vec<_>>())?;
    let sources: Vec<_> = checkpoints.iter().map(Checkpoint::tensors).collect();
    let mut sources = sources.iter().map(|source| &**source as &dyn TensorSource);
    let inputs = MergeInputs {
        base: recipe.base.as_ref().and_then(|_| sources.next()),
        models: sources.zip(weights).collect(),
        seed: recipe.seed,
        dtype: recipe.dtype.map(ExportDtype::dtype),
    };
    let tensors = write_weights(&recipe.method, &inputs, out, progress)?;
    copy_files(files_of, out, recipe.dtype)?;
    write_text(&out.join("README.md"), &card(recipe))?;
    Ok(MergeReport {
        tensors,
        files_of: files_of.clone(),
    })
}

/// Adds the adapters of a PEFT folder to the weights of the checkpoint folder `model` and writes the
/// sum to `out`.
///
/// # Errors
/// As [`LoraSource::open`]; errors of files.
pub fn merge_adapter(
    model: &Path,
    adapter: &Path,
    dtype: Option<ExportDtype>,
    out: &Path,
    progress: &mut dyn FnMut(MergeProgress<'_>),
) -> Result<MergeReport> {
    let checkpoint = open(model)?;
    let source = LoraSource::open(checkpoint.tensors(), adapter)?;
    // The type of the result is that of the weights, not of the adapters.
    let stored = |name: &String| match checkpoint.tensors().info(name)?.stored {
        StoredType::Dense(dtype) if dtype != DType::F32 => Some(dtype),
        _ => None,
    };
    let wanted = dtype.map(ExportDtype::dtype);
    let inputs = MergeInputs {
        base: None,
        models: vec![(&source, 1.0)],
        seed: 0,
        dtype: wanted.or_else(|| source.names().iter().find_map(stored)),
    };
    let tensors = write_weights(&Method::Soup, &inputs, out, progress)?;
    copy_files(model, out, dtype)?;
    let name = model.file_name().unwrap_or(model.as_os_str());
    let text = format!("# {} with adapters\n", name.to_string_lossy());
    write_text(&out.join("README.md"), &text)?;
    Ok(MergeReport {
        tensors,
        files_of: model.to_path_buf(),
    })
}

/// Writes the merged weights and returns the number of tensors. A folder that was made for nothing is
/// removed again.
fn write_weights(
    method: &Method,
    inputs: &MergeInputs<'_>,
    out: &Path,
    progress: &mut dyn FnMut(MergeProgress<'_>),
) -> Result<usize> {
    let is_new = !out.exists();
    std::fs::create_dir_all(out).map_err(|e| Error::io(out, e))?;
    let mut tensors = 0;
    let merged = merge_tensors(method, inputs, &out.join(WEIGHTS), &mut |at| {
        tensors = at.of;
        progress(at);
    });
    if merged.is_err() && is_new {
        // Fails where something is in it, and then it stays.
        let _ = std::fs::remove_dir(out);
    }
    merged.map(|()| tensors)
}

fn open(folder: &Path) -> Result<Checkpoint> {
    if folder.join("modules.json").exists() {
        let detail =
            "weights of a retrieval model are in several files, which merging does not read";
        return Err(Error::run_folder(folder, detail));
    }
    // Read, not mapped: every byte is looked at once, and memory stays small.
    let options = OpenOptions::default().mapping(Mapping::Read);
    Ok(Checkpoint::open(&ModelSource::from_path(folder), &options)?)
}

/// Refuses models whose ids mean different tokens.
fn check_tokenizers(folders: &[&Path]) -> Result<()> {
    let mut first: Option<(&Path, Vec<u8>)> = None;
    for folder in folders {
        let path = folder.join("tokenizer.json");
        let hash = match std::fs::read(&path) {
            Ok(bytes) => Sha256::digest(bytes).to_vec(),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
            Err(e) => return Err(Error::io(path, e)),
        };
        match &first {
            Some((other, expected)) if *expected != hash => {
                let detail = format!("differs from the one in {}", other.display());
                return Err(Error::run_folder(path, detail));
            }
            Some(_) => {}
            None => first = Some((folder, hash)),
        }
    }
    Ok(())
}

/// Copies every file beside the weights; the config says the type of the result.
fn copy_files(from: &Path, to: &Path, dtype: Option<ExportDtype>) -> Result<()> {
    if !from.is_dir() {
        return Ok(());
    }
    for entry in std::fs::read_dir(from).map_err(|e| Error::io(from, e))? {
        let entry = entry.map_err(|e| Error::io(from, e))?;
        let (path, name) = (entry.path(), entry.file_name());
        let text = name.to_string_lossy();
        let is_weights = text.ends_with(".safetensors") || text.ends_with(".index.json");
        if !path.is_file() || is_weights || text == "README.md" || text.starts_with('.') {
            continue;
        }
        let target = to.join(&name);
        match (text.as_ref(), dtype) {
            ("config.json", Some(dtype)) => {
                let config = std::fs::read_to_string(&path).map_err(|e| Error::io(&path, e))?;
                let mut config: Value = serde_json::from_str(&config)
                    .map_err(|e| Error::run_folder(&path, e.to_string()))?;
                if let Value::Object(keys) = &mut config {
                    keys.remove("torch_dtype");
                    keys.insert("dtype".into(), json!(dtype.config_name()));
                }
                write_text(&target, &format!("{config:#}\n"))?;
            }
            _ => {
                std::fs::copy(&path, &target).map_err(|e| Error::io(&target, e))?;
            }
        }
    }
    Ok(())
}

/// The model card. Formatting into a string cannot fail, so the results are not looked at.
fn card(recipe: &MergeRecipe) -> String {
    let name = |path: &Path| {
        let name = path.file_name().unwrap_or(path.as_os_str());
        name.to_string_lossy().into_owned()
    };
    let mut text = String::from("# A merge\n\n| model | weight |\n|---|---|\n");
    for (model, weight) in &recipe.models {
        let _ = writeln!(text, "| {} | {weight} |", name(model));
    }
    if let Some(base) = &recipe.base {
        let _ = write!(text, "\nBase: {}.\n", name(base));
    }
    let method = serde_json::to_string_pretty(&recipe.method).unwrap_or_default();
    let _ = write!(
        text,
        "\nMethod, with seed {}:\n\n```json\n{method}\n```\n",
        recipe.seed
    );
    text
}
