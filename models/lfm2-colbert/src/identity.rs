//! What tells one model from another, for indexes that hold the vectors of one.

use std::fmt;

use lfm2_hub::{Result, StoredType, TensorSource};
use lfm2_nn::{DType, Device};
use lfm2_text::TextConfig;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Tensors of more elements take no part.
const SMALL: usize = 1 << 18;

/// Stands for a model: equal for every copy of it and whatever its weights are quantised to while they
/// are loaded, different after any training.
///
/// A SHA-256 over the shape of the model and the values of its small tensors: norms, convolution
/// kernels, biases, and the linear layers behind the trunk.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ModelId(String);

impl ModelId {
    /// The id that was written as `text`.
    pub fn from_text(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// 64 hexadecimal digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Of a model with these tensors, `kind` being what it makes of a text.
    pub(crate) fn of(kind: &str, config: &TextConfig, tensors: &dyn TensorSource) -> Result<Self> {
        let mut hash = Sha256::new();
        let sight = if config.bidirectional { "both" } else { "back" };
        let facts = format!(
            "{kind}\n{config}\n{} {} {} {} {} {sight}\n",
            config.vocab_size, config.hidden_size, config.heads, config.kv_heads, config.conv_width,
        );
        hash.update(facts);
        let mut names = tensors.names();
        names.sort();
        for name in names {
            let Some(info) = tensors.info(&name) else {
                continue;
            };
            // Blocks are not the model's own values.
            let small = info.shape.iter().product::<usize>() <= SMALL;
            if !small || matches!(info.stored, StoredType::Quantized(_)) {
                continue;
            }
            let values = tensors.dense(&name, DType::F32, &Device::Cpu)?;
            hash.update(name.as_bytes());
            hash.update([0]);
            for value in values.flatten_all()?.to_vec1::<f32>()? {
                hash.update(value.to_le_bytes());
            }
        }
        let digest = hash.finalize();
        Ok(Self(
            digest.iter().map(|byte| format!("{byte:02x}")).collect(),
        ))
    }
}

impl fmt::Display for ModelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
