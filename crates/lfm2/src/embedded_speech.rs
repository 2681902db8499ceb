//! The speech model that is compiled into the program.

use std::borrow::Cow;

use crate::Result;
use crate::hub::{Checkpoint, Limits, MemoryFiles};

/// A name and the bytes of that file of the embedded checkpoint's folder.
macro_rules! named {
    ($name:literal) => {
        ($name, file!($name))
    };
}

/// The bytes of a file of the embedded checkpoint's folder.
macro_rules! file {
    ($name:literal) => {
        include_bytes!(concat!("../../../models/lfm2-tiny-audio/", $name)).as_slice()
    };
}

/// The name that stands for the folder in messages.
const NAME: &str = "lfm2-tiny-audio";

static CONFIG: &[u8] = file!("config.json");
static WEIGHTS: &[u8] = file!("model.safetensors");
static TOKENIZER: &[u8] = file!("tokenizer.json");
static MORE: [(&str, &[u8]); 2] = [
    named!("tokenizer_config.json"),
    named!("special_tokens_map.json"),
];

/// The checkpoint behind [`embedded`](crate::speech::embedded), with its files.
///
/// # Errors
/// None: a test of this crate opens it.
pub fn embedded_checkpoint() -> Result<Checkpoint> {
    let more = MORE.map(|(name, bytes)| (Cow::Borrowed(name), Cow::Borrowed(bytes)));
    let files = MemoryFiles {
        config: Cow::Borrowed(CONFIG),
        weights: Cow::Borrowed(WEIGHTS),
        tokenizer: Some(Cow::Borrowed(TOKENIZER)),
        more: more.into(),
        ..MemoryFiles::default()
    };
    Ok(Checkpoint::from_memory(NAME, files, &Limits::default())?)
}
