//! [`RetrievalModel`]: whichever kind a checkpoint holds.

use lfm2_hub::{Checkpoint, ModelSource, OpenOptions};
use lfm2_text::LoadOptions;

use crate::modules::Modules;
use crate::{ColbertModel, EmbeddingModel, ModelId, Result};

/// A model of one of the two kinds, as its files say.
#[derive(Debug, Clone)]
pub enum RetrievalModel {
    /// One vector per token.
    LateInteraction(ColbertModel),
    /// One vector per text.
    SingleVector(EmbeddingModel),
}

impl RetrievalModel {
    /// Opens a model of either kind.
    ///
    /// # Errors
    /// As [`ColbertModel::open`].
    pub fn open(source: &ModelSource) -> Result<Self> {
        let checkpoint = Checkpoint::open(source, &OpenOptions::default())?;
        Self::from_checkpoint(&checkpoint, &LoadOptions::default())
    }

    /// Builds the model of an opened checkpoint: one vector per text if its modules pool, or, in a GGUF
    /// file, if there is no linear layer behind the trunk.
    ///
    /// # Errors
    /// As [`ColbertModel::from_checkpoint`].
    pub fn from_checkpoint(checkpoint: &Checkpoint, options: &LoadOptions) -> Result<Self> {
        let modules = Modules::read(checkpoint)?;
        Ok(match modules.pooling {
            None => {
                Self::LateInteraction(ColbertModel::with_modules(checkpoint, &modules, options)?)
            }
            Some(_) => {
                Self::SingleVector(EmbeddingModel::with_modules(checkpoint, &modules, options)?)
            }
        })
    }

    /// What tells this model from others.
    pub fn id(&self) -> &ModelId {
        match self {
            Self::LateInteraction(model) => model.id(),
            Self::SingleVector(model) => model.id(),
        }
    }

    /// Numbers per vector.
    pub fn dim(&self) -> usize {
        match self {
            Self::LateInteraction(model) => model.dim(),
            Self::SingleVector(model) => model.dim(),
        }
    }
}
