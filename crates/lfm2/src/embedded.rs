//! The checkpoint that is compiled into the program.

use std::borrow::Cow;

use crate::Result;
use crate::hub::{Checkpoint, Limits, MemoryFiles};

/// A file of the embedded checkpoint's folder, as a literal: `include_bytes!` takes no constants.
macro_rules! file {
    ($name:literal) => {
        concat!("../../../models/lfm2-tiny-stories/", $name)
    };
}

/// The name that stands for the folder in messages and chooses the recommended options.
const NAME: &str = "lfm2-tiny-stories";

static CONFIG: &[u8] = include_bytes!(file!("config.json"));
static WEIGHTS: &[u8] = include_bytes!(file!("model.safetensors"));
static GENERATION_CONFIG: &[u8] = include_bytes!(file!("generation_config.json"));
static TOKENIZER: &[u8] = include_bytes!(file!("tokenizer.json"));
static CHAT_TEMPLATE: &str = include_str!(file!("chat_template.jinja"));

/// The checkpoint behind [`TextModel::embedded`](crate::TextModel::embedded), with its files.
///
/// # Errors
/// None: a test of this crate opens it.
pub fn embedded_checkpoint() -> Result<Checkpoint> {
    let files = MemoryFiles {
        config: Cow::Borrowed(CONFIG),
        weights: Cow::Borrowed(WEIGHTS),
        generation_config: Some(Cow::Borrowed(GENERATION_CONFIG)),
        tokenizer: Some(Cow::Borrowed(TOKENIZER)),
        chat_template: Some(Cow::Borrowed(CHAT_TEMPLATE)),
        ..MemoryFiles::default()
    };
    Ok(Checkpoint::from_memory(NAME, files, &Limits::default())?)
}
