//! Fewer numbers per vector: what each output dimension is worth, and models that give only some.
//!
//! Late interaction is linear in its dimensions up to the choice of matches, so what a dimension adds to
//! the distance between relevant and other documents is a sum that can be read off.

use std::collections::BTreeMap;
use std::path::Path;

use lfm2_hub::{
    Checkpoint, Error as HubError, Overwrite, Result as HubResult, StoredType, TensorSource,
    write_atomic, write_safetensors,
};
use lfm2_kernels::MatRef;
use lfm2_nn::{Device, Tensor};
use serde_json::{Value, json};

use crate::modules::Modules;
use crate::score::dimension_parts;
use crate::{Error, Result, TokenVectors};

/// JSON files of a checkpoint that pruning does not change.
const UNCHANGED: [&str; 5] = [
    "modules.json",
    "config_sentence_transformers.json",
    "sentence_bert_config.json",
    "special_tokens_map.json",
    "tokenizer_config.json",
];
/// What a pruned model was made of.
const RECORD: &str = "pruned.json";
const WEIGHTS: &str = "model.safetensors";

impl TokenVectors {
    /// The same vectors with the numbers of some dimensions only, in the order given, brought to length 1
    /// again: what the model without the other dimensions gives.
    ///
    /// # Errors
    /// When there are no dimensions, one does not exist or is named twice.
    pub fn keep_dimensions(&self, kept: &[usize]) -> Result<Self> {
        let values = kept_values(self.as_slice(), self.dim(), kept)?;
        let (ids, positions) = (self.ids().to_vec(), self.positions().to_vec());
        Ok(Self::with_positions(values, kept.len(), ids, positions)?.cut_if(self.is_cut()))
    }
}

/// The numbers of some dimensions of vectors `(rows, dim)`, each vector brought to length 1.
pub(crate) fn kept_values(values: &[f32], dim: usize, kept: &[usize]) -> Result<Vec<f32>> {
    check(kept, dim)?;
    let rows = values.chunks_exact(dim.max(1));
    let mut found = Vec::with_capacity(rows.len() * kept.len());
    for row in rows {
        let own = kept.iter().filter_map(|&dim| row.get(dim));
        let square: f64 = own.clone().map(|value| f64::from(*value).powi(2)).sum();
        let length = square.sqrt().max(1e-12);
        found.extend(own.map(|value| (f64::from(*value) / length) as f32));
    }
    Ok(found)
}

fn check(kept: &[usize], dim: usize) -> Result<()> {
    let mut seen = vec![false; dim];
    if kept.is_empty() {
        return Err(Error::input(
            "dimensions to keep: none, expected at least 1",
        ));
    }
    for &number in kept {
        match seen.get_mut(number) {
            Some(seen) if !*seen => *seen = true,
            Some(_) => {
                return Err(Error::input(format!("dimension {number} is there twice")));
            }
            None => {
                return Err(Error::input(format!(
                    "dimension {number}: vectors have {dim}, numbered from 0"
                )));
            }
        }
    }
    Ok(())
}

/// What each dimension adds to the distance between the scores of `relevant` documents and those of
/// `others` for one question: the mean of its [parts](dimension_parts) over the former less that over the
/// latter. No documents count as parts of 0.
///
/// # Errors
/// When the widths differ.
pub fn dimension_values(
    query: MatRef<'_, f32>,
    relevant: &[MatRef<'_, f32>],
    others: &[MatRef<'_, f32>],
) -> Result<Vec<f64>> {
    let mut values = vec![0.0; query.cols()];
    for (documents, sign) in [(relevant, 1.0), (others, -1.0)] {
        let weight = sign / documents.len().max(1) as f64;
        for document in documents {
            let parts = dimension_parts(query, *document)?;
            values
                .iter_mut()
                .zip(parts)
                .for_each(|(value, part)| *value += weight * part);
        }
    }
    Ok(values)
}

/// Writes the late-interaction model of `checkpoint` with only the output dimensions `kept` to `folder`:
/// a checkpoint like any other, of which [`ColbertModel::open`](crate::ColbertModel::open) and PyLate make
/// vectors of so many numbers. The last linear layer loses the other rows; weights that stay as they are
/// become hard links where the file system can, else copies. `pruned.json` says what was kept.
///
/// # Errors
/// When the checkpoint is a GGUF file or has no linear layer behind its trunk, a dimension is wrong, or a
/// file cannot be written.
pub fn write_pruned(checkpoint: &Checkpoint, kept: &[usize], folder: &Path) -> Result<()> {
    let info = checkpoint.info();
    let modules = Modules::read(checkpoint)?;
    let (Some(last), Some(spec)) = (modules.folders.last(), modules.dense.last()) else {
        return Err(HubError::Unsupported {
            what: format!("leaving out dimensions of {}", info.origin()),
            hint: "a folder of a late-interaction model with a linear layer is".to_owned(),
        }
        .into());
    };
    check(kept, spec.output)?;
    make(folder)?;
    for name in &modules.folders {
        make(&folder.join(name))?;
        let source = checkpoint.tensors_in(name)?;
        let config = format!("{name}/config.json");
        let mut json = info.json(&config)?.unwrap_or_default();
        let rows = (name == last).then_some(kept);
        if rows.is_some() {
            json["out_features"] = json!(kept.len());
        }
        write_json(&folder.join(&config), &json)?;
        write_tensors(&folder.join(name).join(WEIGHTS), &*source, rows)?;
    }
    write_json(&folder.join("config.json"), info.config())?;
    for name in UNCHANGED {
        if let Some(json) = info.json(name)? {
            write_json(&folder.join(name), &json)?;
        }
    }
    if let Some(bytes) = info.tokenizer_json()? {
        write_bytes(&folder.join("tokenizer.json"), &bytes)?;
    }
    write_trunk(checkpoint, folder)?;
    let record = json!({"from": info.origin(), "dimensions": spec.output, "kept": kept});
    Ok(write_json(&folder.join(RECORD), &record)?)
}

/// The weights of the trunk: linked or copied from a folder, else written.
fn write_trunk(checkpoint: &Checkpoint, folder: &Path) -> HubResult<()> {
    const INDEX: &str = "model.safetensors.index.json";
    let info = checkpoint.info();
    if !info.path_of("config.json").is_file() {
        return write_tensors(&folder.join(WEIGHTS), &*checkpoint.tensors(), None);
    }
    let mut names = vec![WEIGHTS.to_owned()];
    if let Some(index) = info
        .json(INDEX)?
        .filter(|_| !info.path_of(WEIGHTS).is_file())
    {
        write_json(&folder.join(INDEX), &index)?;
        let files = index["weight_map"].as_object().into_iter().flatten();
        let mut shards: Vec<String> = files
            .filter_map(|(_, file)| Some(file.as_str()?.to_owned()))
            .collect();
        shards.sort();
        shards.dedup();
        names = shards;
    }
    for name in names {
        let from = info.path_of(&name);
        let from = from
            .canonicalize()
            .map_err(|source| HubError::io(&from, source))?;
        link(&from, &folder.join(&name))?;
    }
    Ok(())
}

/// Puts the file `from` at `to` as well, without a second copy where that is possible.
fn link(from: &Path, to: &Path) -> HubResult<()> {
    let io = |source| HubError::io(to, source);
    if to.exists() {
        std::fs::remove_file(to).map_err(io)?;
    }
    if std::fs::hard_link(from, to).is_ok() {
        return Ok(());
    }
    std::fs::copy(from, to).map(|_| ()).map_err(io)
}

/// Writes all tensors of `source` as they are stored, or only `rows` of each.
fn write_tensors(path: &Path, source: &dyn TensorSource, rows: Option<&[usize]>) -> HubResult<()> {
    let rows = rows.map(|rows| rows.iter().map(|&row| row as i64).collect::<Vec<_>>());
    let mut tensors = Vec::new();
    for name in source.names() {
        let Some(info) = source.info(&name) else {
            continue;
        };
        let StoredType::Dense(dtype) = info.stored else {
            return Err(HubError::Unsupported {
                what: format!("tensor {name:?} in blocks"),
                hint: "leave dimensions out of the checkpoint that was quantised".to_owned(),
            });
        };
        let mut tensor = source.dense(&name, dtype, &Device::Cpu)?;
        if let Some(rows) = &rows {
            tensor = tensor.index_select(&Tensor::new(rows.as_slice(), &Device::Cpu)?, 0)?;
        }
        tensors.push((name, tensor));
    }
    let named = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor));
    let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
    write_safetensors(path, named, &metadata, Overwrite::Replace)
}

fn make(folder: &Path) -> HubResult<()> {
    std::fs::create_dir_all(folder).map_err(|source| HubError::io(folder, source))
}

fn write_json(path: &Path, json: &Value) -> HubResult<()> {
    write_bytes(path, format!("{json:#}\n").as_bytes())
}

fn write_bytes(path: &Path, bytes: &[u8]) -> HubResult<()> {
    write_atomic(path, Overwrite::Replace, |file| {
        std::io::Write::write_all(file, bytes).map_err(|source| HubError::io(path, source))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vectors(values: &[f32]) -> TokenVectors {
        let ids = (0..).take(values.len() / 3).collect();
        TokenVectors::new(values.to_vec(), 3, ids).unwrap()
    }

    #[test]
    fn kept_dimensions_have_length_one_again() {
        let kept = vectors(&[0.6, 0.0, 0.8, 0.0, 1.0, 0.0])
            .keep_dimensions(&[2, 0])
            .unwrap();
        assert_eq!((kept.dim(), kept.rows()), (2, 2));
        for (found, expected) in kept.as_slice().iter().zip([0.8, 0.6, 0.0, 0.0]) {
            assert!((found - expected).abs() < 1e-6, "{kept:?}");
        }
    }

    #[test]
    fn dimensions_that_do_not_exist_are_refused() {
        let all = vectors(&[1.0, 0.0, 0.0]);
        for kept in [&[][..], &[3], &[1, 1]] {
            assert!(all.keep_dimensions(kept).is_err(), "{kept:?}");
        }
    }

    #[test]
    fn a_dimension_is_worth_what_it_adds_to_the_right_documents() {
        let query = vectors(&[0.6, 0.8, 0.0]);
        let right = MatRef::new(&[1.0, 0.0, 0.0], 1, 3).unwrap();
        let wrong = [[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]];
        let wrong = wrong.each_ref().map(|row| MatRef::new(row, 1, 3).unwrap());
        let values = dimension_values(query.view().unwrap(), &[right], &wrong).unwrap();
        for (found, expected) in values.iter().zip([0.6, -0.4, 0.0]) {
            assert!((found - expected).abs() < 1e-6, "{values:?}");
        }
        let nothing = dimension_values(query.view().unwrap(), &[], &[]).unwrap();
        assert_eq!(nothing, [0.0; 3]);
    }
}
