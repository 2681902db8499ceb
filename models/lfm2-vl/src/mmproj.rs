//! [`Mmproj`]: tower and projector from the GGUF file that accompanies a text model in GGUF.
//!
//! Such files have an architecture of their own, `clip`, with other names for everything; here they are
//! offered under the names of the published safetensors files.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::quantized::QTensor;
use candle_core::{DType, Device, Tensor};
use lfm2_hub::gguf::{Array, Metadata, OtherGguf, Value as Entry};
use lfm2_hub::{
    Error, Fingerprint, Limits, Mapping, ModelSource, OpenOptions, Result, StoredType, TensorInfo,
    TensorSource,
};
use lfm2_nn::Activation;
use serde_json::{Value, json};

use crate::config::{ProjectorConfig, VisionConfig};
use crate::picture::CHANNELS;

/// The prefixes of the names under which tensors are offered.
pub(crate) const TOWER: &str = "model.vision_tower";
pub(crate) const PROJECTOR: &str = "model.multi_modal_projector";

const ARCHITECTURE: &str = "clip";
const PROJECTOR_TYPE: &str = "lfm2";

/// The weight of the patch embedding, which the file keeps as a convolution.
const PATCHES: &str = "v.patch_embd.weight";

/// Names of the file and of the published checkpoints, with and without weights and biases behind them.
const NAMES: [(&str, &str, &str); 6] = [
    ("v.patch_embd", TOWER, "embeddings.patch_embedding"),
    ("v.position_embd", TOWER, "embeddings.position_embedding"),
    ("v.post_ln", TOWER, "post_layernorm"),
    ("mm.input_norm", PROJECTOR, "layer_norm"),
    ("mm.1", PROJECTOR, "linear_1"),
    ("mm.2", PROJECTOR, "linear_2"),
];

/// The same inside a layer.
const LAYER: &str = "v.blk.";
const LAYER_NAMES: [(&str, &str); 8] = [
    ("ln1", "layer_norm1"),
    ("ln2", "layer_norm2"),
    ("attn_q", "self_attn.q_proj"),
    ("attn_k", "self_attn.k_proj"),
    ("attn_v", "self_attn.v_proj"),
    ("attn_out", "self_attn.out_proj"),
    ("ffn_up", "mlp.fc1"),
    ("ffn_down", "mlp.fc2"),
];

/// An opened file with the vision tower and the projector of a model.
#[derive(Debug)]
pub struct Mmproj {
    file: OtherGguf,
    limits: Limits,
}

impl Mmproj {
    /// Opens the file at `path`.
    ///
    /// # Errors
    /// As [`OtherGguf::open`], and [`Error::Unsupported`] for the projector of another family.
    pub fn open(path: impl AsRef<Path>, limits: &Limits, mapping: Mapping) -> Result<Self> {
        Self::new(OtherGguf::open(path, limits, mapping)?, limits)
    }

    /// Opens the file that `source` names: one on this machine, or one of a repository of the Hub.
    ///
    /// # Errors
    /// As [`OtherGguf::open_source`], and [`Error::Unsupported`] for the projector of another family.
    pub fn fetch(source: &ModelSource, files: &OpenOptions, limits: &Limits) -> Result<Self> {
        Self::new(OtherGguf::open_source(source, files)?, limits)
    }

    /// Opens the [file beside](Self::find_beside) the text model at `path`.
    ///
    /// # Errors
    /// As [`find_beside`](Self::find_beside) and [`open`](Self::open).
    pub fn beside(path: &Path, limits: &Limits, mapping: Mapping) -> Result<Self> {
        Self::open(Self::find_beside(path)?, limits, mapping)
    }

    /// The file that lies beside the text model at `path`: the only one in its folder whose name
    /// contains `mmproj`.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is none, [`Error::InvalidInput`] when there are several,
    /// [`Error::Io`].
    pub fn find_beside(path: &Path) -> Result<PathBuf> {
        let folder = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let mut found = Vec::new();
        for entry in std::fs::read_dir(folder).map_err(|e| Error::io(folder, e))? {
            let file = entry.map_err(|e| Error::io(folder, e))?.path();
            let name = file
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .to_lowercase();
            if name.contains("mmproj") && name.ends_with(".gguf") {
                found.push(file);
            }
        }
        found.sort();
        match &found[..] {
            [only] => Ok(only.clone()),
            [] => Err(Error::NotFound {
                what: format!("a file mmproj*.gguf in {}", folder.display()),
                hint: "pictures need the file with the vision tower beside the text model"
                    .to_owned(),
            }),
            several => Err(Error::InvalidInput(format!(
                "{} has {} files mmproj*.gguf, name one",
                folder.display(),
                several.len()
            ))),
        }
    }

    /// Takes a file that is open.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for the projector of another family.
    pub fn new(file: OtherGguf, limits: &Limits) -> Result<Self> {
        let metadata = file.metadata();
        for (key, expected) in [
            ("general.architecture", ARCHITECTURE),
            ("clip.projector_type", PROJECTOR_TYPE),
        ] {
            let found = metadata.str(key)?;
            if found != expected {
                return Err(Error::Unsupported {
                    what: format!("{key} \"{found}\" in {}", metadata.path().display()),
                    hint: format!("\"{expected}\" is"),
                });
            }
        }
        Ok(Self {
            file,
            limits: limits.clone(),
        })
    }

    /// The facts of tower and projector.
    ///
    /// # Errors
    /// [`Error::InvalidFile`] for keys and tensors that are missing or make no sense.
    pub fn config(&self) -> Result<(VisionConfig, ProjectorConfig)> {
        let metadata = self.file.metadata();
        let tensors = self.file.tensors();
        let rows = |name: &str| {
            let shape = tensors.info(name).map(|info| info.shape);
            shape
                .and_then(|shape| shape.first().copied())
                .ok_or_else(|| Error::MissingTensor {
                    name: name.to_owned(),
                })
        };
        let number = |key: &str| metadata.usize(&format!("clip.vision.{key}"));
        let tanh = metadata.bool_opt("clip.use_gelu")?.unwrap_or(true);
        if !tanh {
            return Err(Error::Unsupported {
                what: "clip.use_gelu false".to_owned(),
                hint: "towers with gelu are".to_owned(),
            });
        }
        let vision = json!({
            "hidden_size": number("embedding_length")?,
            "intermediate_size": number("feed_forward_length")?,
            "num_hidden_layers": number("block_count")?,
            "num_attention_heads": number("attention.head_count")?,
            "patch_size": number("patch_size")?,
            "num_patches": rows("v.position_embd.weight")?,
            "layer_norm_eps": metadata.float("clip.vision.attention.layer_norm_epsilon")?,
        });
        let projector = ProjectorConfig {
            factor: number("projector.scale_factor")?,
            hidden_size: rows("mm.1.weight")?,
            bias: tensors.info("mm.1.bias").is_some(),
            norm: tensors.info("mm.input_norm.weight").is_some(),
            activation: Activation::Gelu,
        };
        projector.check(&self.limits)?;
        Ok((
            VisionConfig::from_json(Some(&vision), &self.limits)?,
            projector,
        ))
    }

    /// What the file says of image settings, with the keys of a processor's files.
    ///
    /// # Errors
    /// [`Error::InvalidFile`] for keys that make no sense.
    pub fn settings(&self) -> Result<Value> {
        let metadata = self.file.metadata();
        let channels = |key: &str| match metadata.get(&format!("clip.vision.{key}")) {
            Some(Entry::Array(Array::F32(numbers))) => json!(numbers),
            _ => Value::Null,
        };
        Ok(json!({
            "encoder_patch_size": metadata.usize("clip.vision.patch_size")?,
            "downsample_factor": metadata.usize("clip.vision.projector.scale_factor")?,
            "image_mean": channels("image_mean"),
            "image_std": channels("image_std"),
        }))
    }

    /// The tensors under the names of the published checkpoints.
    pub fn tensors(&self) -> Arc<dyn TensorSource> {
        Arc::new(Published(self.file.tensors()))
    }

    /// The file's own description.
    pub fn metadata(&self) -> &Metadata {
        self.file.metadata()
    }
}

/// A file's tensors under published names.
struct Published(Arc<dyn TensorSource>);

/// The published name of a tensor; `None` for one that such models do not have.
fn published(name: &str) -> Option<String> {
    let (stem, kind) = name.rsplit_once('.')?;
    if !matches!(kind, "weight" | "bias") {
        return None;
    }
    if let Some(rest) = stem.strip_prefix(LAYER) {
        let (layer, part) = rest.split_once('.')?;
        // Only the plain spelling, so that no two names become one.
        let number = layer.parse::<usize>().ok()?;
        let (_, part) = LAYER_NAMES.iter().find(|(own, _)| *own == part)?;
        return (number.to_string() == layer)
            .then(|| format!("{TOWER}.encoder.layers.{layer}.{part}.{kind}"));
    }
    let (_, prefix, part) = NAMES.iter().find(|(own, ..)| *own == stem)?;
    Some(format!("{prefix}.{part}.{kind}"))
}

/// The name of the file, from the published one.
fn own(name: &str) -> Option<String> {
    let (stem, kind) = name.rsplit_once('.')?;
    let layers = stem
        .strip_prefix(TOWER)
        .and_then(|rest| rest.strip_prefix(".encoder.layers."));
    if let Some((layer, part)) = layers.and_then(|rest| rest.split_once('.')) {
        let (own, _) = LAYER_NAMES
            .iter()
            .find(|(_, published)| *published == part)?;
        return Some(format!("{LAYER}{layer}.{own}.{kind}"));
    }
    let of = |(_, prefix, part): &&(&str, &str, &str)| {
        stem.strip_prefix(prefix)
            .and_then(|rest| rest.strip_prefix('.'))
            == Some(*part)
    };
    let (own, ..) = NAMES.iter().find(of)?;
    Some(format!("{own}.{kind}"))
}

impl Published {
    fn required(name: &str) -> Result<String> {
        own(name).ok_or_else(|| Error::MissingTensor {
            name: name.to_owned(),
        })
    }

    /// The sides of the patches that the convolution sees, and whether it is one.
    fn patch(&self, own: &str) -> Option<(usize, usize)> {
        if own != PATCHES {
            return None;
        }
        match self.0.info(own)?.shape[..] {
            [outputs, CHANNELS, high, wide] if high == wide => Some((outputs, high)),
            _ => None,
        }
    }
}

impl TensorSource for Published {
    fn names(&self) -> Vec<String> {
        let names = self.0.names().into_iter();
        names.map(|name| published(&name).unwrap_or(name)).collect()
    }

    fn info(&self, name: &str) -> Option<TensorInfo> {
        let own = own(name)?;
        let info = self.0.info(&own)?;
        Some(match self.patch(&own) {
            None => info,
            Some((outputs, side)) => TensorInfo {
                shape: vec![outputs, side * side * CHANNELS],
                stored: match info.stored {
                    StoredType::Dense(dtype) => StoredType::Dense(dtype),
                    StoredType::Quantized(_) => StoredType::Dense(DType::F32),
                },
            },
        })
    }

    fn dense(&self, name: &str, dtype: DType, device: &Device) -> Result<Tensor> {
        let own = Self::required(name)?;
        let tensor = self.0.dense(&own, dtype, device)?;
        let Some((outputs, side)) = self.patch(&own) else {
            return Ok(tensor);
        };
        // Patches are read row by row with the channel fastest.
        let values = tensor.permute((0, 2, 3, 1))?.contiguous()?;
        Ok(values.reshape((outputs, side * side * CHANNELS))?)
    }

    fn quantized(&self, name: &str, device: &Device) -> Result<Option<Arc<QTensor>>> {
        let own = Self::required(name)?;
        match self.patch(&own) {
            Some(_) => Ok(None),
            None => self.0.quantized(&own, device),
        }
    }

    fn blocks(&self, name: &str) -> Result<Option<Cow<'_, [u8]>>> {
        let own = Self::required(name)?;
        match self.patch(&own) {
            Some(_) => Ok(None),
            None => self.0.blocks(&own),
        }
    }

    fn release(&self, name: &str) {
        if let Some(own) = own(name) {
            self.0.release(&own);
        }
    }

    fn fingerprint(&self) -> Result<Option<Fingerprint>> {
        self.0.fingerprint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_translated_back_and_forth() {
        let cases = [
            (
                "v.patch_embd.weight",
                "model.vision_tower.embeddings.patch_embedding.weight",
            ),
            ("v.post_ln.bias", "model.vision_tower.post_layernorm.bias"),
            (
                "v.blk.11.attn_out.bias",
                "model.vision_tower.encoder.layers.11.self_attn.out_proj.bias",
            ),
            (
                "v.blk.0.ffn_down.weight",
                "model.vision_tower.encoder.layers.0.mlp.fc2.weight",
            ),
            ("mm.1.weight", "model.multi_modal_projector.linear_1.weight"),
            (
                "mm.input_norm.bias",
                "model.multi_modal_projector.layer_norm.bias",
            ),
        ];
        for (file, name) in cases {
            assert_eq!(published(file).as_deref(), Some(name));
            assert_eq!(own(name).as_deref(), Some(file));
        }
    }

    #[test]
    fn foreign_and_odd_names_stay_foreign() {
        for name in [
            "v.blk.01.ln1.weight",
            "v.blk.x.ln1.weight",
            "v.blk.1.ln3.weight",
            "mm.3.weight",
            "mm.1.scale",
        ] {
            assert_eq!(published(name), None, "{name}");
        }
        for name in [
            "model.embed_tokens.weight",
            "model.vision_tower.head.weight",
            "weight",
        ] {
            assert_eq!(own(name), None, "{name}");
        }
    }
}
