//! `model.safetensors.index.json`: which tensor is in which file.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::Value;

use crate::files::is_plain_file_name;
use crate::json::{Numbers, parse_json};
use crate::{Error, Limits, Result};

/// A checked index. Its file names are plain ones.
#[derive(Debug)]
pub(crate) struct ShardIndex {
    /// Tensor name to file name.
    pub(crate) weight_map: BTreeMap<String, String>,
}

impl ShardIndex {
    /// Reads the contents of an index; `path` is for messages.
    ///
    /// # Errors
    /// [`Error::InvalidFile`] for a wrong structure or a file name that is not a plain one,
    /// [`Error::Limit`] on the number of files and tensors.
    pub(crate) fn parse(path: &Path, bytes: &[u8], limits: &Limits) -> Result<Self> {
        let value = parse_json(path, bytes, Numbers::Float, limits.json_depth)?;
        let map = value
            .get("weight_map")
            .and_then(Value::as_object)
            .ok_or_else(|| Error::invalid_file(path, "\"weight_map\" is not an object"))?;
        let limit = |what: &str, limit: usize, found: usize| {
            let what = format!("{}: {what}", path.display());
            Err(Error::Limit {
                what,
                limit: limit as u64,
                found: found as u64,
            })
        };
        if map.len() > limits.tensors {
            return limit("tensors", limits.tensors, map.len());
        }
        let mut weight_map = BTreeMap::new();
        for (tensor, file) in map {
            let file = file
                .as_str()
                .filter(|name| is_plain_file_name(name))
                .ok_or_else(|| {
                    Error::invalid_file(
                        path,
                        format!("tensor {tensor:?}: {file} is not a plain file name"),
                    )
                })?;
            weight_map.insert(tensor.clone(), file.to_owned());
        }
        let index = Self { weight_map };
        let files = index.files().len();
        if files > limits.shards {
            limit("shards", limits.shards, files)
        } else {
            Ok(index)
        }
    }

    /// The names of all files, each once.
    pub(crate) fn files(&self) -> BTreeSet<&str> {
        self.weight_map.values().map(String::as_str).collect()
    }
}
