//! [`SafetensorsSource`]: the tensors of one or more safetensors files.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use candle_core::quantized::QTensor;
use candle_core::{DType, Device, Tensor};

use super::header::{Entry, FileType, Header};
use super::index::ShardIndex;
use crate::files::{Folder, read_capped};
use crate::mapped::{FileBytes, Mapping};
use crate::{Error, Fingerprint, Limits, Result, StoredType, TensorInfo, TensorSource};

/// The file of an unsharded checkpoint.
pub(crate) const SINGLE_FILE: &str = "model.safetensors";
/// The index of a sharded one.
pub(crate) const INDEX_FILE: &str = "model.safetensors.index.json";

/// The tensors of a safetensors checkpoint. Opening reads headers only.
#[derive(Debug)]
pub struct SafetensorsSource {
    shards: Vec<Shard>,
    tensors: HashMap<String, Location>,
}

#[derive(Debug)]
struct Shard {
    file: FileBytes,
    data_start: u64,
}

#[derive(Debug)]
struct Location {
    shard: usize,
    entry: Entry,
}

impl SafetensorsSource {
    /// Opens one safetensors file.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::InvalidFile`], [`Error::Limit`] or [`Error::Unsupported`]; all of
    /// them before any data is mapped into tensors.
    pub fn open(path: &Path, mapping: Mapping, limits: &Limits) -> Result<Self> {
        Self::from_shards(vec![FileBytes::open(path, mapping)?], limits)
    }

    /// Reads a safetensors file that is in memory; `name` stands for its path in messages.
    ///
    /// # Errors
    /// As [`SafetensorsSource::open`].
    pub fn from_bytes(
        name: &str,
        bytes: impl Into<Cow<'static, [u8]>>,
        limits: &Limits,
    ) -> Result<Self> {
        Self::from_shards(vec![FileBytes::from_memory(name, bytes.into())], limits)
    }

    /// Opens the weights of a checkpoint folder: the shards of its index, else the single file.
    pub(crate) fn open_folder(folder: &Folder, mapping: Mapping, limits: &Limits) -> Result<Self> {
        let Some(path) = folder.file(INDEX_FILE)? else {
            let hint = "the folder has neither safetensors weights nor an index of them";
            return Self::open(&folder.required(SINGLE_FILE, hint)?, mapping, limits);
        };
        let bytes = read_capped(&path, limits.index_bytes, "shard index bytes")?;
        let index = ShardIndex::parse(&path, &bytes, limits)?;
        let names: Vec<&str> = index.files().into_iter().collect();
        let mut files = Vec::with_capacity(names.len());
        for name in &names {
            let hint = format!("{INDEX_FILE} lists it; download the checkpoint again");
            files.push(FileBytes::open(&folder.required(name, &hint)?, mapping)?);
        }
        let mut source = Self::from_shards(files, limits)?;
        source.restrict_to(&path, &index, &names)?;
        Ok(source)
    }

    fn from_shards(files: Vec<FileBytes>, limits: &Limits) -> Result<Self> {
        let mut source = Self {
            shards: Vec::with_capacity(files.len()),
            tensors: HashMap::new(),
        };
        for file in files {
            let header = Header::read(&file, limits)?;
            let shard = source.shards.len();
            for (name, entry) in header.tensors {
                if let Some(first) = source
                    .tensors
                    .get(&name)
                    .and_then(|first| source.shards.get(first.shard))
                {
                    let detail =
                        format!("tensor {name:?} is also in {}", first.file.path().display());
                    return Err(Error::invalid_file(file.path(), detail));
                }
                source.tensors.insert(name, Location { shard, entry });
            }
            if source.tensors.len() > limits.tensors {
                let found = source.tensors.len() as u64;
                return Err(Error::Limit {
                    what: "tensors".to_owned(),
                    limit: limits.tensors as u64,
                    found,
                });
            }
            source.shards.push(Shard {
                file,
                data_start: header.data_start,
            });
        }
        Ok(source)
    }

    /// Holds the files to what the index says of them. `names` are the shards' names in order.
    fn restrict_to(&mut self, path: &Path, index: &ShardIndex, names: &[&str]) -> Result<()> {
        for (tensor, file) in &index.weight_map {
            let found = self
                .tensors
                .get(tensor)
                .and_then(|location| names.get(location.shard));
            if found != Some(&file.as_str()) {
                let found = found.map_or("in no file".to_owned(), |name| format!("in {name}"));
                let detail = format!("tensor {tensor:?}: expected in {file}, found {found}");
                return Err(Error::invalid_file(path, detail));
            }
        }
        self.tensors.retain(|tensor, _| {
            let listed = index.weight_map.contains_key(tensor);
            if !listed {
                tracing::warn!(%tensor, index = %path.display(), "tensor is not in the index and is left out");
            }
            listed
        });
        Ok(())
    }

    /// Elements `range` of a tensor of type `U32`, counted row by row.
    ///
    /// # Errors
    /// [`Error::MissingTensor`], [`Error::Unsupported`] for a tensor of another type,
    /// [`Error::InvalidInput`] when it has fewer elements, or a read failure.
    pub fn integers(&self, name: &str, range: Range<usize>) -> Result<Vec<u32>> {
        let (shard, entry) = self.location(name)?;
        let FileType::Integer { name: "U32", .. } = entry.stored else {
            return Err(Error::Unsupported {
                what: format!(
                    "the type of tensor {name:?} in {}",
                    shard.file.path().display()
                ),
                hint: "expected U32".to_owned(),
            });
        };
        let bytes = self.stored_elements(name, range, size_of::<u32>())?;
        let words = bytes.as_chunks::<4>().0.iter();
        Ok(words.map(|&word| u32::from_le_bytes(word)).collect())
    }

    /// Shape of a tensor of any type, `U32` ones included.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.tensors.get(name).map(|t| t.entry.shape.as_slice())
    }

    /// The bytes of elements `range` of `size` bytes each.
    fn stored_elements(
        &self,
        name: &str,
        range: Range<usize>,
        size: usize,
    ) -> Result<Cow<'_, [u8]>> {
        let (shard, entry) = self.location(name)?;
        let size = size as u64;
        let (start, end) = (range.start as u64, range.end as u64);
        let elements = (entry.end - entry.begin) / size;
        if start > end || end > elements {
            let detail = format!("tensor {name:?} has {elements} elements, asked for {range:?}");
            return Err(Error::InvalidInput(detail));
        }
        let begin = shard.data_start + entry.begin + start * size;
        shard.file.slice(begin, (end - start) * size)
    }

    /// A tensor that can be weights, and its type.
    fn weights(&self, name: &str) -> Result<(&Shard, &Entry, DType)> {
        let (shard, entry) = self.location(name)?;
        match entry.stored {
            FileType::Float(stored) => Ok((shard, entry, stored)),
            FileType::Integer { name: found, .. } => Err(Error::Unsupported {
                what: format!(
                    "type {found} of tensor {name:?} in {}",
                    shard.file.path().display()
                ),
                hint: "weights are F32, F16 or BF16".to_owned(),
            }),
        }
    }

    fn location(&self, name: &str) -> Result<(&Shard, &Entry)> {
        let location = self.tensors.get(name);
        location
            .and_then(|location| Some((self.shards.get(location.shard)?, &location.entry)))
            .ok_or_else(|| Error::MissingTensor {
                name: name.to_owned(),
            })
    }
}

impl TensorSource for SafetensorsSource {
    fn names(&self) -> Vec<String> {
        let weights = self
            .tensors
            .iter()
            .filter(|(_, location)| matches!(location.entry.stored, FileType::Float(_)));
        weights.map(|(name, _)| name.clone()).collect()
    }

    fn info(&self, name: &str) -> Option<TensorInfo> {
        let entry = &self.tensors.get(name)?.entry;
        match entry.stored {
            FileType::Float(dtype) => Some(TensorInfo {
                shape: entry.shape.clone(),
                stored: StoredType::Dense(dtype),
            }),
            FileType::Integer { .. } => None,
        }
    }

    fn dense(&self, name: &str, dtype: DType, device: &Device) -> Result<Tensor> {
        let (shard, entry, stored) = self.weights(name)?;
        // The header check made sure of both: the sum stays inside the file, the end after the start.
        let bytes = shard
            .file
            .slice(shard.data_start + entry.begin, entry.end - entry.begin)?;
        let tensor = Tensor::from_raw_buffer(&bytes, stored, &entry.shape, &Device::Cpu)?;
        Ok(tensor.to_dtype(dtype)?.to_device(device)?)
    }

    fn elements(&self, name: &str, range: Range<usize>) -> Result<Vec<f32>> {
        let (_, _, stored) = self.weights(name)?;
        let bytes = self.stored_elements(name, range.clone(), stored.size_in_bytes())?;
        let part = Tensor::from_raw_buffer(&bytes, stored, &[range.len()], &Device::Cpu)?;
        Ok(part.to_dtype(DType::F32)?.to_vec1()?)
    }

    fn quantized(&self, name: &str, _device: &Device) -> Result<Option<Arc<QTensor>>> {
        self.location(name).map(|_| None)
    }

    fn release(&self, name: &str) {
        if let Ok((shard, entry)) = self.location(name) {
            let start = shard.data_start + entry.begin;
            shard.file.release(start, entry.end - entry.begin);
        }
    }

    fn fingerprint(&self) -> Result<Option<Fingerprint>> {
        Fingerprint::of(self.shards.iter().map(|shard| &shard.file))
    }
}
