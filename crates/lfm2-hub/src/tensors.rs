//! The one way to tensors: [`TensorSource`].

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use candle_core::quantized::{GgmlDType, QStorage, QTensor};
use candle_core::{D, DType, Device, Tensor};

use crate::{Fingerprint, Result};

/// How a tensor's elements are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoredType {
    /// Plain floats: `F32`, `F16` or `BF16`.
    Dense(DType),
    /// GGML blocks.
    Quantized(GgmlDType),
}

/// What is known of a tensor before its data is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// Dimensions, outermost first, as in safetensors: a linear weight is `[out, in]`.
    pub shape: Vec<usize>,
    /// The storage type.
    pub stored: StoredType,
}

impl TensorInfo {
    /// How many bytes the elements take as they are stored.
    pub fn bytes(&self) -> u64 {
        let product = |sizes: &[usize]| sizes.iter().map(|&n| n as u64).product::<u64>();
        match (self.stored, self.shape.split_last()) {
            (StoredType::Dense(dtype), _) => product(&self.shape) * dtype.size_in_bytes() as u64,
            (StoredType::Quantized(_), None) => 0,
            (StoredType::Quantized(kind), Some((row, outer))) => {
                let blocks = row.div_ceil(kind.block_size()) as u64;
                product(outer) * blocks * kind.type_size() as u64
            }
        }
    }
}

/// The length that rows of `row` weights have in blocks that are made here. Files have whole blocks only; here the
/// last block of a row may be incomplete where blocks are short, with zeros behind its end. `None` where
/// the row has to stay as it is.
pub(crate) fn row_in_blocks(kind: GgmlDType, row: usize) -> Option<usize> {
    const SHORT: usize = 32;
    let block = kind.block_size();
    (block == SHORT || row.is_multiple_of(block)).then(|| row.next_multiple_of(block))
}

/// The numbers of a tensor of this shape whose rows fill up the blocks, see [`row_in_blocks`].
pub(crate) fn dequantized(
    blocks: Cow<'_, [u8]>,
    kind: GgmlDType,
    shape: &[usize],
) -> Result<Tensor> {
    let mut filled = shape.to_vec();
    if let Some(row) = filled.last_mut() {
        *row = row.next_multiple_of(kind.block_size());
    }
    let storage = QStorage::from_data(blocks, &Device::Cpu, kind)?;
    let numbers = QTensor::new(storage, filled)?.dequantize(&Device::Cpu)?;
    let row = shape.last().copied().unwrap_or_default();
    Ok(numbers.narrow(D::Minus1, 0, row)?.contiguous()?)
}

/// A set of named tensors: safetensors shards, a GGUF file, random numbers or trainable variables.
///
/// Names are those of the published safetensors checkpoints
/// (`model.layers.0.conv.in_proj.weight`), also for GGUF files. Stacked expert tensors of GGUF files
/// appear as `….feed_forward.experts.{w1,w2,w3}.weight` with shape `[experts, out, in]`.
pub trait TensorSource: Send + Sync {
    /// All tensor names, in no particular order.
    fn names(&self) -> Vec<String>;

    /// Shape and storage of one tensor; `None` when there is no such tensor.
    fn info(&self, name: &str) -> Option<TensorInfo>;

    /// One tensor as plain numbers of type `dtype` (dequantised where it is stored in blocks).
    ///
    /// # Errors
    /// [`Error::MissingTensor`](crate::Error::MissingTensor), or a read or device failure.
    fn dense(&self, name: &str, dtype: DType, device: &Device) -> Result<Tensor>;

    /// Elements `range` of one tensor, counted row by row, widened to `f32`. A source that can reads
    /// no more than these, so that large tensors can be worked through in pieces.
    ///
    /// # Errors
    /// As [`TensorSource::dense`], or when the tensor has fewer elements.
    fn elements(&self, name: &str, range: Range<usize>) -> Result<Vec<f32>> {
        let all = self.dense(name, DType::F32, &Device::Cpu)?.flatten_all()?;
        Ok(all.narrow(0, range.start, range.len())?.to_vec1()?)
    }

    /// One tensor in its stored blocks; `None` when it is stored as plain floats, or when its rows end within
    /// a block, which only [`blocks`](Self::blocks) gives.
    ///
    /// # Errors
    /// As [`TensorSource::dense`].
    fn quantized(&self, name: &str, device: &Device) -> Result<Option<Arc<QTensor>>>;

    /// The bytes of a tensor's blocks, row after row, each from a block of its own on; `None` when it is stored
    /// as plain floats.
    ///
    /// # Errors
    /// As [`TensorSource::dense`].
    fn blocks(&self, name: &str) -> Result<Option<Cow<'_, [u8]>>> {
        let blocks = self.quantized(name, &Device::Cpu)?;
        let bytes = blocks.map(|blocks| blocks.data().map(Cow::into_owned));
        Ok(bytes.transpose()?.map(Cow::Owned))
    }

    /// Says that the bytes of a tensor were read and will not be again, so that those of a mapped
    /// file may leave memory.
    fn release(&self, _name: &str) {}

    /// What stands for the contents of all tensors, so that what was made of them can be found again;
    /// `None` where nothing does.
    ///
    /// # Errors
    /// A read failure.
    fn fingerprint(&self) -> Result<Option<Fingerprint>> {
        Ok(None)
    }
}
