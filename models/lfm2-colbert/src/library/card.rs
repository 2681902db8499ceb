//! What a library knows of itself beside its index: with which model and how texts were cut.

use std::path::Path;

use lfm2_hub::{Error as HubError, Overwrite, write_atomic};
use serde::{Deserialize, Serialize};

use crate::{ChunkOptions, Result};

/// The file beside those of the index.
const FILE: &str = "library.json";
/// The version of the file that this library reads and writes.
const VERSION: u32 = 1;
/// Bytes that the file may have.
const MOST_BYTES: u64 = 1 << 20;

/// What `library.json` in the folder of an index says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LibraryCard {
    version: u32,
    /// Where the model was found, where somebody said so.
    pub model: Option<String>,
    /// Tokens of a chunk.
    pub chunk_tokens: usize,
    /// Tokens that neighbouring chunks share, about.
    pub overlap: usize,
}

impl LibraryCard {
    pub(super) fn new(model: Option<String>, chunks: ChunkOptions) -> Self {
        Self {
            version: VERSION,
            model,
            chunk_tokens: chunks.max_tokens,
            overlap: chunks.overlap,
        }
    }

    /// Whether there is a library in `folder`.
    pub fn exists(folder: &Path) -> bool {
        folder.join(FILE).is_file()
    }

    /// Reads the card of the library in `folder`.
    ///
    /// # Errors
    /// When there is none, or it is damaged or of another version.
    pub fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(FILE);
        let facts = std::fs::metadata(&path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => HubError::NotFound {
                what: format!("index {}", folder.display()),
                hint: "make it with `lfm2 index build`".to_owned(),
            },
            _ => HubError::io(&path, error),
        })?;
        if facts.len() > MOST_BYTES {
            return Err(HubError::Limit {
                what: format!("{}: bytes", path.display()),
                limit: MOST_BYTES,
                found: facts.len(),
            }
            .into());
        }
        let bytes = std::fs::read(&path).map_err(|error| HubError::io(&path, error))?;
        let card: Self = serde_json::from_slice(&bytes)
            .map_err(|error| HubError::invalid_file(&path, error.to_string()))?;
        if card.version != VERSION {
            let found = card.version;
            return Err(HubError::Unsupported {
                what: format!("{}: version {found}", path.display()),
                hint: format!("expected {VERSION}, build the index again"),
            }
            .into());
        }
        Ok(card)
    }

    pub(super) fn write(&self, folder: &Path) -> Result<()> {
        let path = folder.join(FILE);
        write_atomic(&path, Overwrite::Replace, |writer| {
            serde_json::to_writer_pretty(writer, self)
                .map_err(|error| HubError::io(&path, error.into()))
        })?;
        Ok(())
    }

    pub(super) fn chunks(&self) -> ChunkOptions {
        ChunkOptions::default()
            .with_max_tokens(self.chunk_tokens)
            .with_overlap(self.overlap)
    }
}
