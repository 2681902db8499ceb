//! Files that only some kinds of models have, found where the checkpoint is.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;

use super::{Checkpoint, CheckpointInfo, TOKENIZER, TextFiles};
use crate::fetch::{Fetch, Snapshot, fetch_weights};
use crate::files::{Folder, is_plain_path, read_capped};
use crate::gguf::GgufFile;
use crate::json::{Numbers, parse_json, read_json};
use crate::safetensors::SINGLE_FILE;
use crate::{Error, Limits, Mapping, Result, SafetensorsSource, TensorSource};

/// A folder with the files of a checkpoint, and where more of them come from.
#[derive(Debug)]
pub(super) struct FolderFiles {
    pub(super) folder: Folder,
    pub(super) remote: Option<Remote>,
    pub(super) mapping: Mapping,
}

/// The commit of a Hub repository whose files the folder holds.
pub(super) struct Remote {
    pub(super) fetch: Arc<dyn Fetch>,
    pub(super) snapshot: Snapshot,
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.snapshot.fmt(f)
    }
}

impl FolderFiles {
    /// The file `name`, which may be in a folder within this one, fetched if need be.
    fn file(&self, name: &str) -> Result<Option<PathBuf>> {
        if !is_plain_path(name) {
            // Which refuses it.
            return self.folder.file(name);
        }
        if let Some(remote) = &self.remote {
            remote.fetch.file(&remote.snapshot, name)?;
        }
        match name.split_once('/') {
            None => self.folder.file(name),
            Some((folder, file)) => match self.folder.inside(folder)? {
                Some(folder) => folder.file(file),
                None => Ok(None),
            },
        }
    }

    /// The safetensors weights in the folder `name` within this one.
    fn tensors(&self, name: &str, limits: &Limits) -> Result<Arc<dyn TensorSource>> {
        if let Some(Remote { fetch, snapshot }) = &self.remote {
            // What is missing is an error where it is opened.
            fetch_weights(&**fetch, snapshot, Some(name), limits)?;
        }
        let folder = self.folder.inside(name)?.ok_or_else(|| Error::NotFound {
            what: format!("folder {}", self.folder.path().join(name).display()),
            hint: "another file of the checkpoint says that weights are there".to_owned(),
        })?;
        let source = SafetensorsSource::open_folder(&folder, self.mapping, limits)?;
        Ok(Arc::new(source))
    }
}

/// The name of a file that is in memory.
pub(super) type More = BTreeMap<Cow<'static, str>, Cow<'static, [u8]>>;

/// Parses a file that is in memory, if it is there; `origin` stands for the folder.
pub(super) fn memory_json(
    origin: &str,
    more: &More,
    name: &str,
    numbers: Numbers,
    limits: &Limits,
) -> Result<Option<Value>> {
    let Some(bytes) = more.get(name) else {
        return Ok(None);
    };
    let path = Path::new(origin).join(name);
    parse_json(&path, bytes, numbers, limits.json_depth).map(Some)
}

impl CheckpointInfo {
    /// Reads another JSON file of the checkpoint, such as `modules.json` or `1_Dense/config.json`;
    /// `None` where there is none, as in GGUF files. Those of a Hub source are fetched when they are
    /// asked for.
    ///
    /// # Errors
    /// [`Error::InvalidFile`] for a name that is not one of at most two plain parts, and whatever
    /// reading a file gives.
    pub fn json(&self, name: &str) -> Result<Option<Value>> {
        match &self.text {
            TextFiles::Folder(files) => match files.file(name)? {
                Some(path) => read_json(&path, Numbers::Exact, &self.limits).map(Some),
                None => Ok(None),
            },
            TextFiles::Gguf(_) => Ok(None),
            TextFiles::Memory { more, .. } => {
                memory_json(&self.origin, more, name, Numbers::Exact, &self.limits)
            }
        }
    }

    /// The contents of `tokenizer.json`, for tokenizers that are not byte-level BPE; `None` where there
    /// is none, as in GGUF files.
    ///
    /// # Errors
    /// [`Error::Limit`] on its size, and whatever reading a file gives.
    pub fn tokenizer_json(&self) -> Result<Option<Cow<'_, [u8]>>> {
        match &self.text {
            TextFiles::Folder(files) => match files.folder.file(TOKENIZER)? {
                Some(path) => {
                    let bytes = read_capped(&path, self.limits.tokenizer_bytes, "tokenizer bytes")?;
                    Ok(Some(Cow::Owned(bytes)))
                }
                None => Ok(None),
            },
            TextFiles::Gguf(_) => Ok(None),
            TextFiles::Memory { tokenizer, .. } => Ok(tokenizer.as_deref().map(Cow::Borrowed)),
        }
    }

    /// How messages should call the file `name` of this checkpoint.
    pub fn path_of(&self, name: &str) -> PathBuf {
        match &self.text {
            TextFiles::Folder(files) => files.folder.path().join(name),
            TextFiles::Gguf(_) | TextFiles::Memory { .. } => Path::new(&self.origin).join(name),
        }
    }

    /// The GGUF file that the checkpoint is, if it is one.
    pub fn gguf(&self) -> Option<&GgufFile> {
        match &self.text {
            TextFiles::Gguf(file) => Some(file),
            TextFiles::Folder(_) | TextFiles::Memory { .. } => None,
        }
    }
}

impl Checkpoint {
    /// The tensors of the safetensors file `name`, which is none of the weights, such as that of a codec;
    /// `None` where there is none.
    ///
    /// # Errors
    /// As [`CheckpointInfo::json`].
    pub fn tensors_of(&self, name: &str) -> Result<Option<Arc<dyn TensorSource>>> {
        let info = &self.info;
        let source = match &info.text {
            TextFiles::Folder(files) => match files.file(name)? {
                Some(path) => SafetensorsSource::open(&path, files.mapping, &info.limits)?,
                None => return Ok(None),
            },
            TextFiles::Gguf(_) => return Ok(None),
            TextFiles::Memory { more, .. } => match more.get(name) {
                Some(bytes) => {
                    let path = info.path_of(name).display().to_string();
                    SafetensorsSource::from_bytes(&path, bytes.clone(), &info.limits)?
                }
                None => return Ok(None),
            },
        };
        Ok(Some(Arc::new(source)))
    }

    /// The tensors in the folder `name` of the checkpoint, such as `1_Dense`, under the names they have
    /// there.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is no such folder or no safetensors file in it, else as
    /// [`Checkpoint::open`].
    pub fn tensors_in(&self, name: &str) -> Result<Arc<dyn TensorSource>> {
        let info = &self.info;
        let file = format!("{name}/{SINGLE_FILE}");
        let missing = || Error::NotFound {
            what: info.path_of(&file).display().to_string(),
            hint: "the checkpoint has no such part".to_owned(),
        };
        match &info.text {
            TextFiles::Folder(files) => files.tensors(name, &info.limits),
            TextFiles::Gguf(_) => Err(missing()),
            TextFiles::Memory { more, .. } => {
                let bytes = more.get(file.as_str()).ok_or_else(missing)?;
                let name = info.path_of(&file).display().to_string();
                let source = SafetensorsSource::from_bytes(&name, bytes.clone(), &info.limits)?;
                Ok(Arc::new(source))
            }
        }
    }
}
