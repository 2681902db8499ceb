//! [`GgufFile`]: an opened model, with its tensors as a [`TensorSource`].

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use candle_core::quantized::{QStorage, QTensor};
use candle_core::{DType, Device, Tensor};
use serde_json::{Value as Json, json};

use super::hyper::Hyper;
use super::metadata::Metadata;
use super::quantization::Quantization;
use super::split::{self, Part};
use super::{config, names, tokens};
use crate::mapped::{FileBytes, Mapping};
use crate::{Error, Fingerprint, Limits, Result, StoredType, TensorInfo, TensorSource, Tokenizer};

/// An LFM2 model in a GGUF file, or in several that belong together.
///
/// Opening reads and checks the head only; weights are read when they are asked for.
pub struct GgufFile {
    version: u32,
    metadata: Metadata,
    hyper: Hyper,
    ids: tokens::TokenIds,
    limits: Limits,
    tensors: Arc<Tensors>,
}

impl GgufFile {
    /// Opens the model at `path`. Of a model that is cut into several files, any one will do.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::NotFound`] for a missing file of several, [`Error::InvalidFile`] for
    /// a malformed or truncated file, [`Error::Unsupported`] for another architecture, version or
    /// tensor type, [`Error::TensorShape`] for a tensor that contradicts the metadata,
    /// [`Error::Limit`].
    pub fn open(path: impl AsRef<Path>, limits: &Limits, mapping: Mapping) -> Result<Self> {
        Self::from_parts(split::open_all(path.as_ref(), limits, mapping)?, limits)
    }

    /// Opens a model that is in memory; `name` stands for its path in messages.
    ///
    /// # Errors
    /// As [`GgufFile::open`].
    pub fn from_bytes(
        name: &str,
        bytes: impl Into<Cow<'static, [u8]>>,
        limits: &Limits,
    ) -> Result<Self> {
        let bytes = FileBytes::from_memory(name, bytes.into());
        Self::from_parts(vec![Part::read(bytes, limits)?], limits)
    }

    fn from_parts(parts: Vec<Part>, limits: &Limits) -> Result<Self> {
        let Some(first) = parts.first() else {
            return Err(Error::InvalidInput(
                "a model needs at least one file".to_owned(),
            ));
        };
        let (version, metadata) = (first.header.version, first.header.metadata.clone());
        let names: HashSet<&str> = parts
            .iter()
            .flat_map(|part| &part.header.tensors)
            .map(|tensor| tensor.name.as_str())
            .collect();
        let hyper = Hyper::from_metadata(&metadata, &|name| names.contains(name), limits)?;
        let ids = tokens::TokenIds::from_metadata(&metadata)?;
        let tensors = Tensors::new(parts, Naming::Published)?;
        for planned in names::plan(&hyper) {
            let Some(tensor) = tensors.by_name.get(&planned.published) else {
                continue;
            };
            let expected = names::published_shape(&planned.gguf, &planned.shape);
            if tensor.shape != expected {
                let (name, found) = (planned.published, tensor.shape.clone());
                return Err(Error::TensorShape {
                    name,
                    expected,
                    found,
                });
            }
        }
        Ok(Self {
            version,
            metadata,
            hyper,
            ids,
            limits: limits.clone(),
            tensors: Arc::new(tensors),
        })
    }

    /// The version of the format.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Everything the file says apart from the weights.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// The model's description, with the keys of a published `config.json`.
    pub fn config(&self) -> Json {
        config::to_config(&self.hyper, &self.ids)
    }

    /// The ids that frame a text.
    pub fn token_ids(&self) -> &tokens::TokenIds {
        &self.ids
    }

    /// The ids that frame a text, with the keys of a published `generation_config.json`.
    pub fn generation_config(&self) -> Json {
        json!({
            "bos_token_id": self.ids.bos,
            "eos_token_id": self.ids.eos,
            "pad_token_id": self.ids.pad,
        })
    }

    /// The tensors, under their published names.
    pub fn tensors(&self) -> Arc<dyn TensorSource> {
        Arc::clone(&self.tensors) as Arc<dyn TensorSource>
    }

    /// How a tensor, given by its published name, is stored.
    pub fn stored_as(&self, name: &str) -> Option<Quantization> {
        self.tensors.by_name.get(name).map(|tensor| tensor.kind)
    }

    /// Builds the tokenizer that the file describes.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for another kind of tokenizer, [`Error::InvalidFile`] for a
    /// vocabulary that contradicts itself or the model, [`Error::Limit`].
    pub fn tokenizer(&self) -> Result<Tokenizer> {
        let path = self.metadata.path();
        let tokenizer = Tokenizer::new(
            path,
            tokens::tokenizer(&self.metadata, &self.limits)?,
            &self.limits,
        )?;
        let (found, rows) = (tokenizer.vocab_size(), self.hyper.vocab);
        if found > rows {
            return Err(Error::invalid_file(
                path,
                format!("{found} tokens for {rows} rows of the embedding"),
            ));
        }
        Ok(tokenizer)
    }

    /// The chat template, where the file has one.
    ///
    /// # Errors
    /// [`Error::InvalidFile`] when it is no string, [`Error::Limit`].
    pub fn chat_template(&self) -> Result<Option<&str>> {
        tokens::chat_template(&self.metadata, &self.limits)
    }
}

impl fmt::Debug for GgufFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GgufFile")
            .field("path", &self.metadata.path())
            .field("version", &self.version)
            .field("hyper", &self.hyper)
            .field("tensors", &self.tensors.by_name.len())
            .finish_non_exhaustive()
    }
}

/// What tensors are called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Naming {
    /// As in the published checkpoints of the family.
    Published,
    /// As in the file.
    Own,
}

/// The tensors of all files of a model.
#[derive(Debug)]
pub(super) struct Tensors {
    files: Vec<FileBytes>,
    by_name: BTreeMap<String, Stored>,
}

/// Where and how a tensor is stored.
#[derive(Debug)]
struct Stored {
    file: usize,
    start: u64,
    bytes: u64,
    kind: Quantization,
    /// As exposed, see [`names::published_shape`].
    shape: Vec<usize>,
}

impl Tensors {
    pub(super) fn new(parts: Vec<Part>, naming: Naming) -> Result<Self> {
        let mut files = Vec::with_capacity(parts.len());
        let mut by_name = BTreeMap::new();
        for (file, part) in parts.into_iter().enumerate() {
            for tensor in part.header.tensors {
                let (name, shape) = match naming {
                    Naming::Own => (tensor.name, tensor.shape),
                    Naming::Published => {
                        let shape = names::published_shape(&tensor.name, &tensor.shape);
                        // A tensor LFM2 does not have keeps its name, so that it shows up as unused.
                        let name = names::published_name(&tensor.name);
                        (name.unwrap_or(tensor.name), shape)
                    }
                };
                let stored = Stored {
                    file,
                    start: tensor.start,
                    bytes: tensor.bytes,
                    kind: tensor.kind,
                    shape,
                };
                if by_name.insert(name.clone(), stored).is_some() {
                    return Err(part
                        .header
                        .metadata
                        .invalid(format!("tensor \"{name}\" occurs twice")));
                }
            }
            files.push(part.bytes);
        }
        Ok(Self { files, by_name })
    }

    fn stored(&self, name: &str) -> Result<&Stored> {
        self.by_name.get(name).ok_or_else(|| Error::MissingTensor {
            name: name.to_owned(),
        })
    }

    fn data(&self, stored: &Stored) -> Result<Cow<'_, [u8]>> {
        let file = self.files.get(stored.file);
        let file = file
            .ok_or_else(|| Error::InvalidInput(format!("no file {} of the model", stored.file)))?;
        file.slice(stored.start, stored.bytes)
    }

    fn candle_blocks(&self, stored: &Stored, device: &Device) -> Result<QTensor> {
        let data = self.data(stored)?;
        let aligned = Aligned::new(&data);
        let storage =
            QStorage::from_data(Cow::Borrowed(aligned.bytes()), device, stored.kind.ggml())?;
        Ok(QTensor::new(storage, stored.shape.as_slice())?)
    }
}

impl TensorSource for Tensors {
    fn names(&self) -> Vec<String> {
        self.by_name.keys().cloned().collect()
    }

    fn info(&self, name: &str) -> Option<TensorInfo> {
        let stored = self.by_name.get(name)?;
        Some(TensorInfo {
            shape: stored.shape.clone(),
            stored: stored.kind.stored(),
        })
    }

    fn dense(&self, name: &str, dtype: DType, device: &Device) -> Result<Tensor> {
        let stored = self.stored(name)?;
        let tensor = match stored.kind.stored() {
            StoredType::Dense(own) => {
                Tensor::from_raw_buffer(&self.data(stored)?, own, &stored.shape, device)?
            }
            StoredType::Quantized(_) => self.candle_blocks(stored, device)?.dequantize(device)?,
        };
        Ok(tensor.to_dtype(dtype)?)
    }

    fn quantized(&self, name: &str, device: &Device) -> Result<Option<Arc<QTensor>>> {
        let stored = self.stored(name)?;
        match stored.kind.stored() {
            StoredType::Dense(_) => Ok(None),
            StoredType::Quantized(_) => Ok(Some(Arc::new(self.candle_blocks(stored, device)?))),
        }
    }

    fn blocks(&self, name: &str) -> Result<Option<Cow<'_, [u8]>>> {
        let stored = self.stored(name)?;
        match stored.kind.stored() {
            StoredType::Dense(_) => Ok(None),
            StoredType::Quantized(_) => self.data(stored).map(Some),
        }
    }

    fn release(&self, name: &str) {
        if let Some(stored) = self.by_name.get(name)
            && let Some(file) = self.files.get(stored.file)
        {
            file.release(stored.start, stored.bytes);
        }
    }

    fn fingerprint(&self) -> Result<Option<Fingerprint>> {
        Fingerprint::of(&self.files)
    }
}

/// Candle takes blocks only from an even address; a file may align its data to a single byte.
enum Aligned<'a> {
    Borrowed(&'a [u8]),
    Copied { buffer: Vec<u8>, start: usize },
}

impl<'a> Aligned<'a> {
    const ALIGNMENT: usize = 4;

    fn new(bytes: &'a [u8]) -> Self {
        if bytes.as_ptr().align_offset(Self::ALIGNMENT) == 0 {
            return Self::Borrowed(bytes);
        }
        let mut buffer = vec![0; bytes.len() + Self::ALIGNMENT];
        let start = buffer
            .as_ptr()
            .align_offset(Self::ALIGNMENT)
            .min(Self::ALIGNMENT);
        buffer[start..start + bytes.len()].copy_from_slice(bytes);
        Self::Copied { buffer, start }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Self::Borrowed(bytes) => bytes,
            Self::Copied { buffer, start } => {
                &buffer[*start..buffer.len() - Self::ALIGNMENT + start]
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misaligned_bytes_are_moved_and_keep_their_values() {
        let bytes: Vec<u8> = (0..64).collect();
        for start in 0..8 {
            let slice = &bytes[start..start + 20];
            let aligned = Aligned::new(slice);
            assert_eq!(aligned.bytes(), slice);
            assert_eq!(aligned.bytes().as_ptr().align_offset(Aligned::ALIGNMENT), 0);
        }
    }
}
