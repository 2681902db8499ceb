//! From a checkpoint to a GGUF file.

use std::panic::resume_unwind;
use std::path::Path;

use candle_core::quantized::QTensor;
use candle_core::{DType, Device, Tensor};
use serde_json::Value as Json;

use super::hyper::{ARCHITECTURE_KEY, Architecture, Hyper};
use super::metadata::{Metadata, Value};
use super::names::{self, Planned, Precision};
use super::quantization::Quantization;
use super::write::{NewTensor, write_gguf};
use super::{config, k_blocks, tokens};
use crate::files::Overwrite;
use crate::json::{Numbers, parse_json};
use crate::{Error, Limits, Result, TensorSource};

/// The largest finite `F16`, in which every block type keeps its scales.
const F16_MAX: f32 = 65504.0;
/// Rows that are no multiple of this stay `F32`, whatever the type of the file.
const ROW_UNIT: usize = 32;
const TOKENIZER_FILE: &str = "tokenizer.json";

/// What goes into the file.
#[derive(Clone, Copy)]
pub struct QuantizeInput<'a> {
    /// The checkpoint's `config.json`.
    pub config: &'a Json,
    /// Its `generation_config.json`, whose token ids win over those of the config.
    pub generation_config: Option<&'a Json>,
    /// The contents of its `tokenizer.json`.
    pub tokenizer: &'a [u8],
    /// Its chat template.
    pub chat_template: Option<&'a str>,
    /// Its weights, under published names.
    pub tensors: &'a dyn TensorSource,
}

impl std::fmt::Debug for QuantizeInput<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("QuantizeInput")
            .field("config", self.config)
            .finish_non_exhaustive()
    }
}

/// How the file is written.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct QuantizeOptions {
    /// The type of the weight matrices.
    pub quantization: Quantization,
    /// The type of the embedding table and the head. By default that of the file, but at least
    /// `Q8_0`: the table is the head as well, and errors in it go straight into the logits.
    pub embedding: Quantization,
    /// The model's name in the file.
    pub name: String,
    /// What to do when the file exists.
    pub overwrite: Overwrite,
    /// Bounds on what the checkpoint may ask for.
    pub limits: Limits,
}

impl QuantizeOptions {
    /// The customary choices for `quantization`.
    pub fn new(quantization: Quantization, name: impl Into<String>) -> Self {
        let embedding = match quantization {
            Quantization::F32 | Quantization::F16 | Quantization::BF16 => quantization,
            _ => Quantization::Q8_0,
        };
        let (overwrite, limits) = (Overwrite::default(), Limits::default());
        Self {
            quantization,
            embedding,
            name: name.into(),
            overwrite,
            limits,
        }
    }
}

/// A tensor that is about to be written.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct QuantizeProgress<'a> {
    /// Its name in the file.
    pub tensor: &'a str,
    /// Its type in the file.
    pub kind: Quantization,
    /// How many tensors are written already.
    pub done: usize,
    /// How many there are.
    pub total: usize,
}

/// A tensor that could not be stored in the type asked for, as its rows are not whole blocks.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Fallback {
    /// Its name in the file.
    pub tensor: String,
    /// The length of its rows.
    pub row: usize,
    /// The type it would have had.
    pub wanted: Quantization,
    /// The type it has.
    pub used: Quantization,
}

/// What came out.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct QuantizeReport {
    /// How many tensors the file has.
    pub tensors: usize,
    /// Tensors of another type than asked for.
    pub fallbacks: Vec<Fallback>,
    /// Tensors of the checkpoint that are not part of an LFM2 text model and were left out.
    pub unused: Vec<String>,
}

/// Writes a checkpoint as a GGUF file.
///
/// Norms, convolution kernels, biases and the router stay `F32`. A row that is not a whole number
/// of 256-blocks falls back from `Q4_K` to `Q5_0`, from `Q5_K` to `Q5_1` and from `Q6_K` to `Q8_0`;
/// one that is no multiple of 32 stays `F32`. The report lists both. `progress` is called before
/// each tensor. One tensor of the checkpoint is in memory at a time.
///
/// # Errors
/// [`Error::Unsupported`] for a model or tokenizer the format cannot hold, [`Error::MissingTensor`]
/// and [`Error::TensorShape`] for weights that do not fit the config, [`Error::InvalidInput`] for
/// weights that are not finite or when the file exists, [`Error::Io`].
pub fn quantize(
    input: &QuantizeInput<'_>,
    path: &Path,
    options: &QuantizeOptions,
    mut progress: impl FnMut(QuantizeProgress<'_>),
) -> Result<QuantizeReport> {
    let source = Source {
        tensors: input.tensors,
        prefix: prefix(input.tensors)?,
    };
    let hyper = config::from_config(input.config, source.dense_width(), &options.limits)?;
    let metadata = metadata(input, path, options, &hyper)?;
    let mut report = QuantizeReport::default();
    let mut plan = Vec::new();
    let mut used = Vec::new();
    for planned in names::plan(&hyper) {
        let pieces = source.pieces(&planned)?;
        let kind = choose(&planned, options, &mut report.fallbacks);
        used.extend(pieces.iter().map(|piece| piece.name.clone()));
        plan.push((
            NewTensor {
                name: planned.gguf,
                shape: planned.shape,
                kind,
            },
            pieces,
        ));
    }
    report.tensors = plan.len();
    report.unused = input.tensors.names();
    report.unused.retain(|name| !used.contains(name));
    report.unused.sort_unstable();

    let (tensors, pieces): (Vec<_>, Vec<_>) = plan.into_iter().unzip();
    write_gguf(
        path,
        options.overwrite,
        &metadata,
        &tensors,
        |index, out| {
            let (Some(tensor), Some(pieces)) = (tensors.get(index), pieces.get(index)) else {
                return Err(Error::InvalidInput(format!("there is no tensor {index}")));
            };
            progress(QuantizeProgress {
                tensor: &tensor.name,
                kind: tensor.kind,
                done: index,
                total: tensors.len(),
            });
            pieces.iter().try_for_each(|piece| {
                let bytes = encode(&piece.read(input.tensors)?, tensor.kind, &piece.name)?;
                out.write_all(&bytes)
                    .map_err(|source| Error::io(path, source))
            })
        },
    )?;
    Ok(report)
}

fn metadata(
    input: &QuantizeInput<'_>,
    path: &Path,
    options: &QuantizeOptions,
    hyper: &Hyper,
) -> Result<Metadata> {
    let mut metadata = Metadata::new(path);
    let architecture = if hyper.moe.is_some() {
        Architecture::Moe
    } else {
        Architecture::Dense
    };
    metadata.insert(
        ARCHITECTURE_KEY,
        Value::String(architecture.name().to_owned()),
    )?;
    metadata.insert("general.name", Value::String(options.name.clone()))?;
    metadata.insert(
        "general.file_type",
        Value::U32(options.quantization.file_type()),
    )?;
    hyper.write_metadata(&mut metadata)?;
    let found = input.tokenizer.len() as u64;
    if found > options.limits.tokenizer_bytes {
        let what = format!("{TOKENIZER_FILE}: bytes");
        return Err(Error::Limit {
            what,
            limit: options.limits.tokenizer_bytes,
            found,
        });
    }
    let tokenizer = parse_json(
        Path::new(TOKENIZER_FILE),
        input.tokenizer,
        Numbers::Float,
        options.limits.json_depth,
    )?;
    let ids = tokens::TokenIds::from_configs(input.generation_config, input.config)?;
    tokens::write_metadata(&mut metadata, &tokenizer, &ids, hyper.vocab)?;
    if let Some(template) = input.chat_template {
        tokens::write_chat_template(&mut metadata, template)?;
    }
    Ok(metadata)
}

/// The type a tensor gets.
fn choose(
    planned: &Planned,
    options: &QuantizeOptions,
    fallbacks: &mut Vec<Fallback>,
) -> Quantization {
    let wanted = match planned.precision {
        Precision::Full => return Quantization::F32,
        Precision::Weight => options.quantization,
        Precision::Embedding => options.embedding,
    };
    let row = planned.shape.last().copied().unwrap_or(0);
    let used = match wanted {
        _ if !row.is_multiple_of(ROW_UNIT) => Quantization::F32,
        wanted if row.is_multiple_of(wanted.block_size()) => wanted,
        Quantization::Q4K => Quantization::Q5_0,
        Quantization::Q5K => Quantization::Q5_1,
        _ => Quantization::Q8_0,
    };
    if used != wanted {
        fallbacks.push(Fallback {
            tensor: planned.gguf.clone(),
            row,
            wanted,
            used,
        });
    }
    used
}

/// The bytes of a tensor in the type `kind`; `name` is for messages.
pub(crate) fn encode(tensor: &Tensor, kind: Quantization, name: &str) -> Result<Vec<u8>> {
    let values = tensor.flatten_all()?.to_vec1::<f32>()?;
    let bound = match kind {
        Quantization::F32 | Quantization::BF16 => f32::MAX,
        _ => F16_MAX,
    };
    if let Some(value) = values
        .iter()
        .find(|value| value.is_nan() || value.abs() > bound)
    {
        let detail = format!("tensor \"{name}\" has the value {value}, which {kind} cannot hold");
        return Err(Error::InvalidInput(detail));
    }
    let row = tensor.dims().last().copied().unwrap_or(1);
    // Whole rows for every core: blocks do not depend on each other.
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let part = (values.len() / row).div_ceil(workers).max(1) * row;
    let parts: Vec<Vec<u8>> = std::thread::scope(|scope| {
        let spawn = |part| scope.spawn(move || blocks(part, kind));
        let running: Vec<_> = values.chunks(part).map(spawn).collect();
        running
            .into_iter()
            .map(|worker| worker.join().unwrap_or_else(|panic| resume_unwind(panic)))
            .collect::<Result<_>>()
    })?;
    Ok(parts.concat())
}

/// The blocks of whole rows.
fn blocks(values: &[f32], kind: Quantization) -> Result<Vec<u8>> {
    match kind {
        Quantization::Q4K => Ok(k_blocks::q4_k(values)),
        Quantization::Q5K => Ok(k_blocks::q5_k(values)),
        _ => {
            // Candle quantises the whole storage of a tensor, so this must not be a view.
            let tensor = Tensor::from_slice(values, values.len(), &Device::Cpu)?;
            Ok(QTensor::quantize(&tensor, kind.ggml())?
                .data()?
                .into_owned())
        }
    }
}

/// The weights of a checkpoint, whatever its layout.
struct Source<'a> {
    tensors: &'a dyn TensorSource,
    /// What the checkpoint has instead of `model.`.
    prefix: &'static str,
}

/// A tensor of the checkpoint, or a part of one, that follows others in a tensor of the file.
struct Piece {
    name: String,
    shape: Vec<usize>,
    rows: Rows,
}

/// Which rows of a tensor belong to a piece.
#[derive(Clone, Copy)]
enum Rows {
    All,
    /// Of a packed gate-and-up projection, the `width` rows from `start` on of every expert.
    OfEveryExpert {
        start: usize,
        width: usize,
    },
}

impl Piece {
    fn read(&self, tensors: &dyn TensorSource) -> Result<Tensor> {
        let tensor = tensors.dense(&self.name, DType::F32, &Device::Cpu)?;
        let tensor = match self.rows {
            Rows::All => tensor,
            Rows::OfEveryExpert { start, width } => tensor.narrow(1, start, width)?,
        };
        Ok(tensor.contiguous()?.reshape(self.shape.as_slice())?)
    }
}

/// Where published checkpoints keep the text model.
const PREFIXES: [&str; 5] = [
    "model.",
    "",
    "language_model.model.",
    "model.language_model.",
    "lfm.",
];

fn prefix(tensors: &dyn TensorSource) -> Result<&'static str> {
    let has = |prefix: &&str| {
        tensors
            .info(&format!("{prefix}embed_tokens.weight"))
            .is_some()
    };
    let missing = || Error::MissingTensor {
        name: "model.embed_tokens.weight".to_owned(),
    };
    PREFIXES.into_iter().find(has).ok_or_else(missing)
}

impl Source<'_> {
    /// The name in this checkpoint of a tensor with a published name.
    fn name(&self, published: &str) -> String {
        match published.strip_prefix("model.") {
            Some(rest) => format!("{}{rest}", self.prefix),
            None => published.to_owned(),
        }
    }

    /// The width of the first layer's feed-forward part, where that is dense.
    fn dense_width(&self) -> Option<usize> {
        let info = self
            .tensors
            .info(&self.name("model.layers.0.feed_forward.w1.weight"))?;
        info.shape.first().copied()
    }

    /// Where the data of a tensor of the file comes from, in order.
    fn pieces(&self, planned: &Planned) -> Result<Vec<Piece>> {
        let name = self.name(&planned.published);
        let Some((layer, matrix)) = name.split_once(".feed_forward.experts.") else {
            return Ok(vec![self.whole(name, &planned.shape)?]);
        };
        let matrix = matrix.trim_end_matches(".weight");
        let (experts, shape) = planned.shape.split_first().unwrap_or((&0, &[]));
        let base = format!("{layer}.feed_forward");
        if let Some(stacked) = self.stacked(&base, matrix) {
            return Ok(vec![self.whole(stacked, &planned.shape)?]);
        }
        if matrix != "w2"
            && self
                .tensors
                .info(&format!("{base}.experts.gate_up_proj"))
                .is_some()
        {
            return Ok(vec![self.packed(
                format!("{base}.experts.gate_up_proj"),
                matrix,
                &planned.shape,
            )?]);
        }
        let single = |expert| self.whole(format!("{base}.experts.{expert}.{matrix}.weight"), shape);
        (0..*experts).map(single).collect()
    }

    /// The name of a tensor with all experts in it, if the checkpoint has one.
    fn stacked(&self, base: &str, matrix: &str) -> Option<String> {
        let (switch, packed) = match matrix {
            "w1" => ("gate_proj", None),
            "w3" => ("up_proj", None),
            _ => ("down_proj", Some(format!("{base}.experts.down_proj"))),
        };
        let own = format!("{base}.experts.{matrix}.weight");
        let switch = format!("{base}.switch_mlp.{switch}.weight");
        [Some(own), Some(switch), packed]
            .into_iter()
            .flatten()
            .find(|name| self.tensors.info(name).is_some())
    }

    /// The gate (`w1`) or up (`w3`) rows of every expert of a packed projection.
    fn packed(&self, name: String, matrix: &str, shape: &[usize]) -> Result<Piece> {
        let &[experts, width, hidden] = shape else {
            return Err(Error::InvalidInput(format!(
                "tensor \"{name}\": experts have no shape {shape:?}"
            )));
        };
        let whole = self.whole(name, &[experts, 2 * width, hidden])?;
        let start = if matrix == "w1" { 0 } else { width };
        Ok(Piece {
            shape: shape.to_vec(),
            rows: Rows::OfEveryExpert { start, width },
            ..whole
        })
    }

    /// A tensor of the checkpoint as a whole. Dimensions of one may be anywhere: a convolution
    /// kernel is stored as `[D, 1, L]`, `[D, L, 1]` or `[D, L]`.
    fn whole(&self, name: String, shape: &[usize]) -> Result<Piece> {
        let Some(info) = self.tensors.info(&name) else {
            return Err(Error::MissingTensor { name });
        };
        let squeezed = |shape: &[usize]| {
            shape
                .iter()
                .copied()
                .filter(|&size| size != 1)
                .collect::<Vec<_>>()
        };
        if squeezed(&info.shape) != squeezed(shape) {
            return Err(Error::TensorShape {
                name,
                expected: shape.to_vec(),
                found: info.shape,
            });
        }
        Ok(Piece {
            name,
            shape: shape.to_vec(),
            rows: Rows::All,
        })
    }
}
