//! [`OtherGguf`]: a GGUF file of any architecture, with the names its writer chose.
//!
//! The towers, encoders and codecs that accompany a text model come in files of their own. What their
//! keys and tensors mean is up to the models that use them.

use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;

use super::metadata::Metadata;
use super::source::{Naming, Tensors};
use super::split::{self, Part};
use crate::mapped::{FileBytes, Mapping};
use crate::{Error, Limits, ModelSource, OpenOptions, Result, TensorSource, fetch_gguf};

/// Metadata and tensors of a GGUF file, or of several that belong together, whatever the architecture.
#[derive(Debug)]
pub struct OtherGguf {
    metadata: Metadata,
    tensors: Arc<Tensors>,
}

impl OtherGguf {
    /// Opens the file at `path`. Of several that belong together, any one will do.
    ///
    /// # Errors
    /// As [`GgufFile::open`](super::GgufFile::open), without what the architecture says.
    pub fn open(path: impl AsRef<Path>, limits: &Limits, mapping: Mapping) -> Result<Self> {
        let parts = split::open_all(path.as_ref(), limits, mapping)?;
        Self::from_parts(parts, Naming::Own)
    }

    /// Opens the file that `source` names: one on this machine, or one of a repository of the Hub, which
    /// is fetched.
    ///
    /// # Errors
    /// [`Error::InvalidInput`] for a source that is no such file, and as [`OtherGguf::open`] and
    /// [`fetch_gguf`].
    pub fn open_source(source: &ModelSource, options: &OpenOptions) -> Result<Self> {
        let path = match source {
            ModelSource::Gguf(path) => path.clone(),
            ModelSource::HubGguf { id, revision, file } => fetch_gguf(id, revision, file, options)?,
            ModelSource::Dir(_) | ModelSource::Hub { .. } => {
                return Err(Error::InvalidInput(format!(
                    "{source}: expected a gguf file, found a whole model"
                )));
            }
        };
        Self::open(path, &options.limits, options.mapping)
    }

    /// Opens the file at `path` with the tensors of LFM2 layers under the names of published checkpoints:
    /// a stack of such layers in a model that is no text model.
    ///
    /// # Errors
    /// As [`OtherGguf::open`].
    pub fn open_stack(path: impl AsRef<Path>, limits: &Limits, mapping: Mapping) -> Result<Self> {
        let parts = split::open_all(path.as_ref(), limits, mapping)?;
        Self::from_parts(parts, Naming::Published)
    }

    /// Opens a file that is in memory; `name` stands for its path in messages.
    ///
    /// # Errors
    /// As [`OtherGguf::open`].
    pub fn from_bytes(
        name: &str,
        bytes: impl Into<Cow<'static, [u8]>>,
        limits: &Limits,
    ) -> Result<Self> {
        let bytes = FileBytes::from_memory(name, bytes.into());
        Self::from_parts(vec![Part::read(bytes, limits)?], Naming::Own)
    }

    fn from_parts(parts: Vec<Part>, naming: Naming) -> Result<Self> {
        let Some(first) = parts.first() else {
            return Err(Error::InvalidInput(
                "a model needs at least one file".to_owned(),
            ));
        };
        Ok(Self {
            metadata: first.header.metadata.clone(),
            tensors: Arc::new(Tensors::new(parts, naming)?),
        })
    }

    /// Everything the file says apart from the weights.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// The tensors, with the shapes they have in the file, outermost dimension first, and under the names
    /// they have there unless [opened otherwise](Self::open_stack).
    pub fn tensors(&self) -> Arc<dyn TensorSource> {
        Arc::clone(&self.tensors) as Arc<dyn TensorSource>
    }
}
