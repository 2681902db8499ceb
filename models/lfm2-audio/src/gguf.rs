//! The layout of llama.cpp: four GGUF files beside each other.
//!
//! The backbone is an ordinary text model; `mmproj-…` holds encoder and adapter under names of its own,
//! `vocoder-…` the depth model and the tables of codes, `tokenizer-…` the stack of the detokenizer. Here
//! their tensors appear under the names of the published checkpoints.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::quantized::QTensor;
use lfm2_hub::gguf::{GgufFile, Metadata, OtherGguf};
use lfm2_hub::{Error, Limits, Mapping, Result, StoredType, TensorInfo, TensorSource, Tokenizer};
use lfm2_nn::{DType, Device, Tensor};
use serde_json::{Value, json};

use crate::config::CODE_ROWS;

/// Parts of an encoder layer: their names in the file, and the published ones.
const LAYER: [(&str, &str); 18] = [
    ("ffn_norm", "norm_feed_forward1"),
    ("ffn_up", "feed_forward1.linear1"),
    ("ffn_down", "feed_forward1.linear2"),
    ("ln1", "norm_self_att"),
    ("attn_q", "self_attn.linear_q"),
    ("attn_k", "self_attn.linear_k"),
    ("attn_v", "self_attn.linear_v"),
    ("attn_out", "self_attn.linear_out"),
    ("linear_pos", "self_attn.linear_pos"),
    ("norm_conv", "norm_conv"),
    ("conv_pw1", "conv.pointwise_conv1"),
    ("conv_dw", "conv.depthwise_conv"),
    ("conv_norm", "conv.batch_norm"),
    ("conv_pw2", "conv.pointwise_conv2"),
    ("ffn_norm_1", "norm_feed_forward2"),
    ("ffn_up_1", "feed_forward2.linear1"),
    ("ffn_down_1", "feed_forward2.linear2"),
    ("ln2", "norm_out"),
];
/// What the variance of a batch norm gets before its root is taken.
const NORM_EPS: f64 = 1e-5;

/// What the names of the files beside the backbone begin with. The last need not be there.
pub(crate) const PARTS: [&str; 3] = ["mmproj", "vocoder", "tokenizer"];

/// The files of an audio model in GGUF.
#[derive(Debug)]
pub(crate) struct AudioGguf {
    backbone: GgufFile,
    encoder: OtherGguf,
    vocoder: OtherGguf,
    detokenizer: Option<OtherGguf>,
}

impl AudioGguf {
    /// Opens the backbone at `path` and the files beside it.
    pub(crate) fn open(path: &Path, limits: &Limits, mapping: Mapping) -> Result<Self> {
        let required = |part: &str| {
            sibling(path, part)?.ok_or_else(|| Error::NotFound {
                what: format!("{part}-*.gguf beside {}", path.display()),
                hint: "an audio model in gguf is four files in one folder".to_owned(),
            })
        };
        let detokenizer = sibling(path, "tokenizer")?;
        Ok(Self {
            backbone: GgufFile::open(path, limits, mapping)?,
            encoder: OtherGguf::open(required("mmproj")?, limits, mapping)?,
            vocoder: OtherGguf::open(required("vocoder")?, limits, mapping)?,
            detokenizer: match detokenizer {
                Some(path) => Some(OtherGguf::open_stack(path, limits, mapping)?),
                None => None,
            },
        })
    }

    pub(crate) fn tokenizer(&self) -> Result<Tokenizer> {
        self.backbone.tokenizer()
    }

    /// The description of the model with the keys of a published `config.json`. What the files do not
    /// say is as in all released models.
    pub(crate) fn config(&self) -> Result<Value> {
        let metadata = self.encoder.metadata();
        let projector = metadata
            .str_opt("clip.audio.projector_type")?
            .or(metadata.str_opt("clip.projector_type")?);
        if projector != Some("lfm2a") {
            return Err(Error::Unsupported {
                what: format!("projector type {}", projector.unwrap_or("(none)")),
                hint: "lfm2a is".to_owned(),
            });
        }
        let number = |key: &str| metadata.usize(&format!("clip.audio.{key}"));
        let width = number("embedding_length")?;
        let encoder = self.encoder.tensors();
        let inner = rows(&encoder, "a.blk.0.ffn_up.weight")?;
        let vocoder = self.vocoder.tensors();
        let kernel = shape(&encoder, "a.blk.0.conv_dw.weight")?;
        let facts = self.vocoder.metadata();
        Ok(json!({
            "architectures": ["Lfm2AudioForConditionalGeneration"],
            "codebooks": rows(&vocoder, "audio_embedding.embedding.weight")? / CODE_ROWS,
            "tie_audio_embeddings": false,
            "semantic_codebook_factor": 100,
            "codebook_weight": "log",
            "interleaved_n_text": 6,
            "interleaved_n_audio": 12,
            "preprocessor": {
                "sample_rate": 16_000, "normalize": "per_feature", "window_size": 0.025,
                "window_stride": 0.01, "window": "hann", "features": number("num_mel_bins")?,
                "n_fft": 512, "log": true, "frame_splicing": 1, "pad_to": 0,
            },
            "encoder": {
                "feat_in": number("num_mel_bins")?, "feat_out": -1,
                "n_layers": number("block_count")?, "d_model": width,
                "n_heads": number("attention.head_count")?,
                "subsampling": "dw_striding", "subsampling_factor": 8,
                "subsampling_conv_channels": rows(&encoder, "a.conv1d.0.weight")?,
                "causal_downsampling": false, "ff_expansion_factor": inner / width.max(1),
                "self_attention_model": "rel_pos", "att_context_size": [-1, -1], "xscaling": false,
                "conv_kernel_size": kernel.last().copied().unwrap_or_default(),
                "conv_norm_type": "batch_norm",
            },
            "lfm": self.backbone.config(),
            "depthformer": {
                "layers": facts.usize("depthformer_n_layer")?,
                "dim": facts.usize("depthformer_n_embd")?,
                "tie": vocoder.info("depth_embeddings.0.to_logits.weight").is_none(),
            },
        }))
    }

    /// The tensors of `model.safetensors`.
    pub(crate) fn tensors(&self) -> Arc<dyn TensorSource> {
        Arc::new(Published {
            backbone: self.backbone.tensors(),
            encoder: Some(self.encoder.tensors()),
            vocoder: self.vocoder.tensors(),
        })
    }

    /// Config and tensors of the detokenizer, when there is one.
    pub(crate) fn detokenizer(&self) -> Result<Option<(Value, Arc<dyn TensorSource>)>> {
        let Some(file) = &self.detokenizer else {
            return Ok(None);
        };
        let tensors = file.tensors();
        let mut config = stack(file.metadata())?;
        config["output_size"] = rows(&tensors, "dense_2.weight")?.into();
        let published = Published {
            backbone: tensors,
            encoder: None,
            vocoder: self.vocoder.tensors(),
        };
        Ok(Some((config, Arc::new(published))))
    }
}

/// The description of a stack of LFM2 layers with a window, with the keys of a `config.json`.
fn stack(metadata: &Metadata) -> Result<Value> {
    let number = |key: &str| metadata.usize(&format!("lfm2.{key}"));
    let layers = number("block_count")?;
    let key = "lfm2.attention.head_count_kv";
    let heads = metadata.integers_opt(key)?.unwrap_or_default();
    let Some(kv_heads) = heads
        .iter()
        .find(|heads| **heads > 0)
        .filter(|_| heads.len() == layers)
    else {
        let detail = format!("{key}: expected {layers} numbers, not all 0, found {heads:?}");
        return Err(Error::invalid_file(metadata.path(), detail));
    };
    let kinds = heads.iter().map(|heads| {
        if *heads > 0 {
            "sliding_attention"
        } else {
            "conv"
        }
    });
    Ok(json!({
        "model_type": "lfm2",
        "hidden_size": number("embedding_length")?,
        // The width in a GGUF file is the final one.
        "intermediate_size": number("feed_forward_length")?,
        "block_auto_adjust_ff_dim": false,
        "num_hidden_layers": layers,
        "num_attention_heads": number("attention.head_count")?,
        "num_key_value_heads": kv_heads,
        "layer_types": kinds.collect::<Vec<_>>(),
        "conv_L_cache": number("shortconv.l_cache")?,
        "norm_eps": metadata.float("lfm2.attention.layer_norm_rms_epsilon")?,
        "rope_theta": metadata.float("lfm2.rope.freq_base")?,
        "sliding_window": number("attention.sliding_window")?,
    }))
}

/// The file that goes with the backbone at `path`: the one of the same name behind `part-`, or the only
/// one that begins with it.
fn sibling(path: &Path, part: &str) -> Result<Option<PathBuf>> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let own = path.file_name().unwrap_or_default().to_string_lossy();
    let same = folder.join(format!("{part}-{own}"));
    if same.is_file() {
        return Ok(Some(same));
    }
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(|error| Error::io(folder, error))? {
        let path = entry.map_err(|error| Error::io(folder, error))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with(&format!("{part}-")) && name.ends_with(".gguf") {
            found.push(path);
        }
    }
    match found.len() {
        0 | 1 => Ok(found.pop()),
        several => Err(Error::InvalidInput(format!(
            "{} has {several} files {part}-*.gguf, none of them {}",
            folder.display(),
            same.display()
        ))),
    }
}

fn shape(tensors: &Arc<dyn TensorSource>, name: &str) -> Result<Vec<usize>> {
    let missing = || Error::MissingTensor {
        name: name.to_owned(),
    };
    Ok(tensors.info(name).ok_or_else(missing)?.shape)
}

fn rows(tensors: &Arc<dyn TensorSource>, name: &str) -> Result<usize> {
    Ok(shape(tensors, name)?.first().copied().unwrap_or_default())
}

/// Tensors of several files under published names.
struct Published {
    /// Its names begin with `model.` here and with `lfm.` in audio checkpoints.
    backbone: Arc<dyn TensorSource>,
    encoder: Option<Arc<dyn TensorSource>>,
    vocoder: Arc<dyn TensorSource>,
}

/// Where a published tensor comes from.
enum Place<'a> {
    File(&'a Arc<dyn TensorSource>, String),
    /// Part of a batch norm that the file has folded into weight and bias: the same number everywhere.
    Constant(Vec<usize>, f64),
}

impl Published {
    fn find(&self, name: &str) -> Option<Place<'_>> {
        if let Some(rest) = name.strip_prefix("lfm.") {
            return Some(Place::File(&self.backbone, format!("model.{rest}")));
        }
        if let Some(rest) = name.strip_prefix("lin.") {
            return Some(Place::File(&self.backbone, format!("dense_2.{rest}")));
        }
        if let Some(encoder) = &self.encoder
            && let Some(own) = encoder_name(name)
        {
            return folded(encoder, &own).or(Some(Place::File(encoder, own)));
        }
        let own = name.replace(".bounded_attention.", ".attention.");
        Some(Place::File(&self.vocoder, own))
    }

    fn required(&self, name: &str) -> Result<Place<'_>> {
        self.find(name).ok_or_else(|| Error::MissingTensor {
            name: name.to_owned(),
        })
    }
}

/// The name in the file of encoder and adapter.
fn encoder_name(name: &str) -> Option<String> {
    if let Some(rest) = name.strip_prefix("audio_adapter.model.") {
        return Some(format!("mm.a.mlp.{rest}"));
    }
    let rest = name.strip_prefix("conformer.")?;
    if let Some(rest) = rest.strip_prefix("pre_encode.conv.") {
        return Some(format!("a.conv1d.{rest}"));
    }
    if rest.starts_with("pre_encode.out.") {
        return Some(format!("a.{rest}"));
    }
    let (layer, part) = rest.strip_prefix("layers.")?.split_once('.')?;
    if let Some(bias) = part.strip_prefix("self_attn.pos_bias_") {
        return Some(format!("a.blk.{layer}.pos_bias_{bias}"));
    }
    let (stem, kind) = part.rsplit_once('.')?;
    let (own, _) = LAYER.iter().find(|(_, published)| *published == stem)?;
    Some(format!("a.blk.{layer}.{own}.{kind}"))
}

/// The published name of a tensor of that file.
fn published_name(own: &str) -> Option<String> {
    if let Some(rest) = own.strip_prefix("mm.a.mlp.") {
        return Some(format!("audio_adapter.model.{rest}"));
    }
    let rest = own.strip_prefix("a.")?;
    if let Some(rest) = rest.strip_prefix("conv1d.") {
        return Some(format!("conformer.pre_encode.conv.{rest}"));
    }
    if rest.starts_with("pre_encode.out.") {
        return Some(format!("conformer.{rest}"));
    }
    let (layer, part) = rest.strip_prefix("blk.")?.split_once('.')?;
    if part.starts_with("pos_bias_") {
        return Some(format!("conformer.layers.{layer}.self_attn.{part}"));
    }
    let (stem, kind) = part.rsplit_once('.')?;
    let (_, published) = LAYER.iter().find(|(own, _)| *own == stem)?;
    Some(format!("conformer.layers.{layer}.{published}.{kind}"))
}

/// The statistics of a batch norm, which are no part of the file.
fn folded(encoder: &Arc<dyn TensorSource>, own: &str) -> Option<Place<'static>> {
    let (norm, kind) = own.rsplit_once('.')?;
    let value = match kind {
        "running_mean" => 0.0,
        "running_var" => 1.0 - NORM_EPS,
        _ => return None,
    };
    let weight = encoder.info(&format!("{norm}.weight"))?;
    Some(Place::Constant(vec![weight.shape.iter().product()], value))
}

/// Vectors may be stored with dimensions of one.
fn flat(name: &str, shape: Vec<usize>) -> Vec<usize> {
    if name.ends_with(".bias") {
        vec![shape.iter().product()]
    } else {
        shape
    }
}

impl TensorSource for Published {
    fn names(&self) -> Vec<String> {
        let backbone = self.backbone.names().into_iter().map(|name| {
            let lfm = name
                .strip_prefix("model.")
                .map(|rest| format!("lfm.{rest}"));
            lfm.unwrap_or(name)
        });
        let mut names: Vec<String> = backbone.collect();
        let encoder = self.encoder.iter().flat_map(|encoder| encoder.names());
        names.extend(encoder.map(|own| published_name(&own).unwrap_or(own)));
        let vocoder = self.vocoder.names().into_iter();
        names.extend(vocoder.map(|own| own.replace(".attention.", ".bounded_attention.")));
        names
    }

    fn info(&self, name: &str) -> Option<TensorInfo> {
        match self.find(name)? {
            Place::Constant(shape, _) => Some(TensorInfo {
                shape,
                stored: StoredType::Dense(DType::F32),
            }),
            Place::File(source, own) => {
                let info = source.info(&own)?;
                let shape = flat(name, info.shape);
                Some(TensorInfo { shape, ..info })
            }
        }
    }

    fn dense(&self, name: &str, dtype: DType, device: &Device) -> Result<Tensor> {
        match self.required(name)? {
            Place::Constant(shape, value) => {
                Ok(Tensor::full(value as f32, shape, device)?.to_dtype(dtype)?)
            }
            Place::File(source, own) => {
                let tensor = source.dense(&own, dtype, device)?;
                let shape = flat(name, tensor.dims().to_vec());
                Ok(tensor.reshape(shape)?)
            }
        }
    }

    fn quantized(&self, name: &str, device: &Device) -> Result<Option<Arc<QTensor>>> {
        match self.required(name)? {
            Place::Constant(..) => Ok(None),
            Place::File(source, own) => source.quantized(&own, device),
        }
    }

    fn blocks(&self, name: &str) -> Result<Option<Cow<'_, [u8]>>> {
        match self.required(name)? {
            Place::Constant(..) => Ok(None),
            Place::File(source, own) => source.blocks(&own),
        }
    }

    fn release(&self, name: &str) {
        if let Some(Place::File(source, own)) = self.find(name) {
            source.release(&own);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_encoder_go_both_ways() {
        for (published, own) in [
            ("conformer.pre_encode.conv.5.weight", "a.conv1d.5.weight"),
            ("conformer.pre_encode.out.bias", "a.pre_encode.out.bias"),
            ("conformer.layers.3.norm_out.weight", "a.blk.3.ln2.weight"),
            (
                "conformer.layers.11.self_attn.pos_bias_u",
                "a.blk.11.pos_bias_u",
            ),
            (
                "conformer.layers.0.feed_forward2.linear1.bias",
                "a.blk.0.ffn_up_1.bias",
            ),
            ("audio_adapter.model.3.weight", "mm.a.mlp.3.weight"),
        ] {
            assert_eq!(encoder_name(published).as_deref(), Some(own));
            assert_eq!(published_name(own).as_deref(), Some(published));
        }
        assert_eq!(encoder_name("depth_linear.weight"), None);
        assert_eq!(published_name("v.blk.0.ln1.weight"), None);
    }
}
