//! [`InBlocks`]: a dense checkpoint that is quantised while it is read.

use std::borrow::Cow;
use std::sync::Arc;

use candle_core::quantized::{QStorage, QTensor};
use candle_core::{D, DType, Device, Tensor};

use crate::gguf::{Quantization, encode};
use crate::tensors::{dequantized, row_in_blocks};
use crate::{Fingerprint, Result, StoredType, TensorInfo, TensorSource};

/// Says what type a matrix gets, by its name; `None` for one that stays as it is.
type Rule = Box<dyn Fn(&str) -> Option<Quantization> + Send + Sync>;

/// The tensors of a checkpoint with its matrices in blocks, made when they are asked for: a dense
/// checkpoint that takes as much memory and time as a quantised one.
///
/// Embedding tables and heads get at least 8 bits, and so do vision towers and their projectors. What is small and sensitive stays as it is: norms,
/// convolution kernels, biases, routers; and so do matrices whose rows do not divide into blocks of 256, those
/// that are stored in blocks already, and experts that are stored as one packed tensor.
///
/// The blocks are those that [`quantize`](crate::gguf::quantize) writes to a file. The last one of a row may be
/// incomplete where blocks have 32 weights; what is missing is zero.
pub struct InBlocks {
    source: Arc<dyn TensorSource>,
    rule: Rule,
    /// What tells this rule from others.
    way: String,
}

impl std::fmt::Debug for InBlocks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InBlocks")
            .field("way", &self.way)
            .finish_non_exhaustive()
    }
}

impl InBlocks {
    /// The tensors of `source`, with matrices of type `matrices`.
    pub fn new(source: Arc<dyn TensorSource>, matrices: Quantization) -> Self {
        let tables = matrices.at_least_8_bits();
        let way = format!("{matrices} {tables}");
        Self::by_rule(source, way, move |name| usual(name, matrices, tables))
    }

    /// The tensors of `source` with types by name, for models with parts of their own: `rule` says which
    /// type a matrix gets, and `None` for what stays as it is. Two rules need two names (`way`), by which
    /// packed weights are kept apart.
    pub fn by_rule(
        source: Arc<dyn TensorSource>,
        way: impl Into<String>,
        rule: impl Fn(&str) -> Option<Quantization> + Send + Sync + 'static,
    ) -> Self {
        Self {
            source,
            rule: Box::new(rule),
            way: way.into(),
        }
    }

    /// The type a tensor gets; `None` for one that stays as it is.
    fn kind(&self, name: &str) -> Option<Quantization> {
        let kind = (self.rule)(name)?;
        let info = self.source.info(name)?;
        let row = *info.shape.last()?;
        let dense = matches!(info.stored, StoredType::Dense(_));
        let blocks = matches!(kind.stored(), StoredType::Quantized(_));
        let fits = info.shape.len() == 2 && row_in_blocks(kind.ggml(), row).is_some();
        (dense && blocks && fits).then_some(kind)
    }

    /// The blocks of a tensor, which becomes one of type `kind`.
    fn encoded(&self, name: &str, kind: Quantization) -> Result<Vec<u8>> {
        let numbers = self.source.dense(name, DType::F32, &Device::Cpu)?;
        let row = numbers.dim(D::Minus1)?;
        let missing = row.next_multiple_of(kind.block_size()) - row;
        encode(&numbers.pad_with_zeros(D::Minus1, 0, missing)?, kind, name)
    }
}

/// The rule for text models, also inside others.
fn usual(name: &str, matrices: Quantization, tables: Quantization) -> Option<Quantization> {
    let module = name.strip_suffix(".weight")?;
    let last = module.rsplit('.').next()?;
    let sees = |part: &str| name.contains(part);
    match last {
        "embed_tokens" | "lm_head" => Some(tables),
        "position_embedding" => None,
        // What reads pictures loses more by 4 bits than it gains.
        _ if sees("vision_tower.") || sees("multi_modal_projector.") => Some(tables),
        "w1" | "w2" | "w3" => Some(matrices),
        _ if last.ends_with("_proj") => Some(matrices),
        _ => None,
    }
}

impl TensorSource for InBlocks {
    fn names(&self) -> Vec<String> {
        self.source.names()
    }

    fn info(&self, name: &str) -> Option<TensorInfo> {
        let info = self.source.info(name)?;
        let stored = self.kind(name).map_or(info.stored, Quantization::stored);
        Some(TensorInfo { stored, ..info })
    }

    fn dense(&self, name: &str, dtype: DType, device: &Device) -> Result<Tensor> {
        let (Some(kind), Some(info)) = (self.kind(name), self.source.info(name)) else {
            return self.source.dense(name, dtype, device);
        };
        let blocks = self.encoded(name, kind)?.into();
        let numbers = dequantized(blocks, kind.ggml(), &info.shape)?;
        Ok(numbers.to_dtype(dtype)?.to_device(device)?)
    }

    fn quantized(&self, name: &str, device: &Device) -> Result<Option<Arc<QTensor>>> {
        let (Some(kind), Some(info)) = (self.kind(name), self.source.info(name)) else {
            return self.source.quantized(name, device);
        };
        let row = info.shape.last().copied().unwrap_or_default();
        if !row.is_multiple_of(kind.block_size()) {
            return Ok(None);
        }
        let bytes = self.encoded(name, kind)?;
        let storage = QStorage::from_data(bytes.into(), device, kind.ggml())?;
        Ok(Some(Arc::new(QTensor::new(
            storage,
            info.shape.as_slice(),
        )?)))
    }

    fn blocks(&self, name: &str) -> Result<Option<Cow<'_, [u8]>>> {
        let Some(kind) = self.kind(name) else {
            return self.source.blocks(name);
        };
        Ok(Some(self.encoded(name, kind)?.into()))
    }

    fn release(&self, name: &str) {
        self.source.release(name);
    }

    fn fingerprint(&self) -> Result<Option<Fingerprint>> {
        // Versions may choose other blocks for the same numbers.
        let way = format!("blocks {} {}", self.way, env!("CARGO_PKG_VERSION"));
        let source = self.source.fingerprint()?;
        Ok(source.map(|source| source.derived(&way)))
    }
}
