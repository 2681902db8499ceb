//! The checkpoints that are compiled into the program: small models that work offline from the first minute.
//!
//! Each is a folder under `models/` in the layout of the published ones, with a card that says what it can do.

use std::borrow::Cow;
use std::path::Path;

use crate::Result;
use crate::hub::{Checkpoint, Error, Limits, MemoryFiles};

/// A folder under `models/` with some of its files.
struct Folder {
    /// Its name, which stands for the folder in messages and chooses the recommended options.
    name: &'static str,
    files: &'static [(&'static str, &'static [u8])],
}

/// The [`Folder`] with these files; `include_bytes!` takes literals alone.
macro_rules! folder {
    ($folder:literal: $($file:literal),+ $(,)?) => {
        Folder {
            name: $folder,
            files: &[$((
                $file,
                include_bytes!(concat!("../../../models/", $folder, "/", $file)).as_slice(),
            )),+],
        }
    };
}

static STORIES: Folder = folder!(
    "lfm2-tiny-stories":
    "config.json",
    "model.safetensors",
    "generation_config.json",
    "tokenizer.json",
    "chat_template.jinja",
);

static COLBERT: Folder = folder!(
    "lfm2-tiny-colbert":
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    "modules.json",
    "config_sentence_transformers.json",
    "sentence_bert_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "1_Dense/config.json",
    "1_Dense/model.safetensors",
);

static VL: Folder = folder!(
    "lfm2-tiny-vl":
    "config.json",
    "model.safetensors",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "processor_config.json",
);

static AUDIO: Folder = folder!(
    "lfm2-tiny-audio":
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "audio_detokenizer/config.json",
    "audio_detokenizer/model.safetensors",
);

/// The text model: writes stories for children and answers questions about them. It is behind
/// [`TextModel::embedded`](crate::TextModel::embedded).
///
/// # Errors
/// None: a test of this crate opens it.
pub fn stories() -> Result<Checkpoint> {
    STORIES.open()
}

/// The retrieval model, behind [`retrieval::embedded`](crate::retrieval::embedded).
///
/// # Errors
/// None: a test of this crate opens it.
pub fn colbert() -> Result<Checkpoint> {
    COLBERT.open()
}

/// The model that reads pictures of coloured shapes, behind [`VlModel::embedded`](crate::VlModel::embedded).
///
/// # Errors
/// None: a test of this crate opens it.
pub fn vl() -> Result<Checkpoint> {
    VL.open()
}

/// The speech model, which hears, reads aloud and repeats English digits, behind [`speech::embedded`](crate::speech::embedded).
///
/// # Errors
/// None: a test of this crate opens it.
pub fn audio() -> Result<Checkpoint> {
    AUDIO.open()
}

impl Folder {
    fn open(&self) -> Result<Checkpoint> {
        let mut files = MemoryFiles::default();
        for &(name, bytes) in self.files {
            match name {
                "config.json" => files.config = Cow::Borrowed(bytes),
                "model.safetensors" => files.weights = Cow::Borrowed(bytes),
                "generation_config.json" => files.generation_config = Some(Cow::Borrowed(bytes)),
                "tokenizer.json" => files.tokenizer = Some(Cow::Borrowed(bytes)),
                "chat_template.jinja" => {
                    let text = std::str::from_utf8(bytes).map_err(|e| {
                        Error::invalid_file(Path::new(self.name).join(name), e.to_string())
                    })?;
                    files.chat_template = Some(Cow::Borrowed(text));
                }
                _ => {
                    files.more.insert(Cow::Borrowed(name), Cow::Borrowed(bytes));
                }
            }
        }
        Ok(Checkpoint::from_memory(
            self.name,
            files,
            &Limits::default(),
        )?)
    }
}
