//! Walking a checkpoint by name: [`Weights`].

use std::collections::BTreeSet;
use std::fmt::Display;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::quantized::GgmlDType;
use candle_core::{DType, Device, Tensor};
use lfm2_hub::{Error, PackedCache, Result, StoredType, TensorInfo, TensorSource};
use lfm2_kernels::packed::{BlockType, PackedMatrix, PackedStack};

use crate::loading::{Loading, PackedName};
use crate::{Embedding, Linear, LoadProgress};

/// Whether a linear layer has a bias vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bias {
    /// `y = x W^T`.
    Without,
    /// `y = x W^T + b`.
    With,
}

impl From<bool> for Bias {
    fn from(with: bool) -> Self {
        if with { Self::With } else { Self::Without }
    }
}

/// How finely activations are kept where they meet weights, on a CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Accuracy {
    /// About as finely as the weights are: with 4-bit weights rounded to 8 bits per 32 values where
    /// feed-forward layers begin and in experts, and to 16 bits elsewhere, with `bf16` weights to
    /// `bf16`. Logits keep a mean cosine of at least 0.999 to the exact ones.
    #[default]
    ByWeights,
    /// So finely that it does not show: 16 bits per 32 values with weights in blocks, and `f32` with
    /// all others. Prompts are read at half the speed.
    Exact,
    /// As coarsely as the kernels can: 8 bits per 32 values with weights in blocks of 4 and 8 bits, about as `bf16`
    /// rounds, and otherwise as [`ByWeights`](Self::ByWeights). For what hears and sees, whose errors no later token
    /// depends on; not for what writes.
    Coarse,
}

/// A view of a [`TensorSource`] under a name prefix, with the number type and device to load to.
///
/// Remembers which tensors were asked for, so that the rest can be reported.
#[derive(Clone)]
pub struct Weights {
    source: Arc<dyn TensorSource>,
    prefix: String,
    dtype: DType,
    device: Device,
    accuracy: Accuracy,
    used: Arc<Mutex<BTreeSet<String>>>,
    loading: Arc<Loading>,
}

impl std::fmt::Debug for Weights {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Weights")
            .field("prefix", &self.prefix)
            .field("dtype", &self.dtype)
            .field("device", &self.device)
            .finish_non_exhaustive()
    }
}

impl Weights {
    /// The root of `source`. Activations, and with them norms and biases, are `dtype`; matrices
    /// stay as they are stored where the device can use them like that.
    pub fn new(source: Arc<dyn TensorSource>, dtype: DType, device: &Device) -> Self {
        Self {
            source,
            prefix: String::new(),
            dtype,
            device: device.clone(),
            accuracy: Accuracy::default(),
            used: Arc::default(),
            loading: Arc::default(),
        }
    }

    /// Tells `progress` how far loading is, and takes packed weights from `cache` where it has them.
    /// What it lacks is stored there by [`finish`](Self::finish).
    pub fn with_loading(
        mut self,
        cache: Option<&PackedCache>,
        progress: Option<LoadProgress>,
    ) -> Self {
        let mut loading = Loading::default();
        if let Some(cache) = cache.filter(|_| self.packs()) {
            loading.set_cache(cache, self.source.as_ref());
        }
        if let Some(progress) = progress {
            loading.set_progress(progress, self.source.as_ref());
        }
        self.loading = Arc::new(loading);
        self
    }

    /// Says that everything is loaded: packed weights are stored for the next start, if a cache was
    /// given and has not got them. Failing to is no error.
    pub fn finish(&self) {
        self.loading.finish();
    }

    /// Sets how finely activations are kept where they meet weights.
    pub fn with_accuracy(mut self, accuracy: Accuracy) -> Self {
        self.accuracy = accuracy;
        self
    }

    /// The same tensors with [`Accuracy::Coarse`], unless everything is to be exact.
    pub fn coarse(&self) -> Self {
        let accuracy = match self.accuracy {
            Accuracy::Exact => Accuracy::Exact,
            Accuracy::ByWeights | Accuracy::Coarse => Accuracy::Coarse,
        };
        self.clone().with_accuracy(accuracy)
    }

    /// The tensors under `part.`; like Candle's `VarBuilder::pp`.
    pub fn pp(&self, part: impl Display) -> Self {
        let mut below = self.clone();
        let part = part.to_string();
        if !part.is_empty() {
            below.prefix = self.name(&part);
        }
        below
    }

    /// How finely activations are kept where they meet weights.
    pub fn accuracy(&self) -> Accuracy {
        self.accuracy
    }

    /// The number type of activations.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Where tensors are loaded to.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The full name of `name` under this prefix.
    pub fn name(&self, name: &str) -> String {
        if self.prefix.is_empty() {
            name.to_owned()
        } else {
            format!("{}.{name}", self.prefix)
        }
    }

    /// Shape and storage of a tensor, if it exists.
    pub fn info(&self, name: &str) -> Option<TensorInfo> {
        self.source.info(&self.name(name))
    }

    /// Whether a tensor exists.
    pub fn contains(&self, name: &str) -> bool {
        self.info(name).is_some()
    }

    /// All tensor names of the whole source, whatever the prefix.
    pub fn all_names(&self) -> Vec<String> {
        self.source.names()
    }

    /// Tensors of the whole source that nobody asked for, sorted.
    pub fn unused(&self) -> Vec<String> {
        let used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let mut names: Vec<String> = self
            .source
            .names()
            .into_iter()
            .filter(|n| !used.contains(n))
            .collect();
        names.sort();
        names
    }

    /// A tensor of exactly this shape in the activation type.
    ///
    /// # Errors
    /// When it is missing, has another shape, or cannot be read.
    pub fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        self.tensor_as(name, shape, self.dtype)
    }

    /// [`tensor`](Self::tensor) in the number type `dtype`.
    ///
    /// # Errors
    /// As [`tensor`](Self::tensor).
    pub fn tensor_as(&self, name: &str, shape: &[usize], dtype: DType) -> Result<Tensor> {
        let (name, info) = self.claim(name, &[shape])?;
        let tensor = self.source.dense(&name, dtype, &self.device)?;
        self.loading.loaded(&info);
        Ok(tensor)
    }

    /// The kernel of a depthwise convolution as `(channels, width)`, stored as `[channels, 1, width]`
    /// (published files), `[channels, width, 1]` (MLX repacks) or `[channels, width]` (GGUF).
    ///
    /// # Errors
    /// As [`tensor`](Self::tensor).
    pub fn conv_kernel(&self, channels: usize, width: usize) -> Result<Tensor> {
        let shapes: [&[usize]; 3] = [
            &[channels, 1, width],
            &[channels, width, 1],
            &[channels, width],
        ];
        let (name, info) = self.claim("weight", &shapes)?;
        let kernel = self.source.dense(&name, self.dtype, &self.device)?;
        self.loading.loaded(&info);
        Ok(kernel.reshape((channels, width))?)
    }

    /// The linear layer whose `weight` is `[output, input]`.
    ///
    /// # Errors
    /// As [`tensor`](Self::tensor).
    pub fn linear(&self, input: usize, output: usize, bias: Bias) -> Result<Linear> {
        let bias = match bias {
            Bias::With => Some(self.tensor("bias", &[output])?),
            Bias::Without => None,
        };
        let linear = Linear::new(self.matrix("weight", &[output, input])?, bias)?;
        Ok(linear.with_accuracy(self.accuracy))
    }

    /// [`linear`](Self::linear) for a layer whose errors grow on their way, see [`Linear::fine`]; unless everything
    /// may be coarse.
    ///
    /// # Errors
    /// As [`tensor`](Self::tensor).
    pub fn fine_linear(&self, input: usize, output: usize, bias: Bias) -> Result<Linear> {
        let linear = self.linear(input, output, bias)?;
        Ok(match self.accuracy {
            Accuracy::ByWeights | Accuracy::Exact => linear.fine(),
            Accuracy::Coarse => linear,
        })
    }

    /// The embedding table whose `weight` is `[vocab, hidden]`.
    ///
    /// # Errors
    /// As [`tensor`](Self::tensor).
    pub fn embedding(&self, vocab: usize, hidden: usize) -> Result<Embedding> {
        let table = self.matrix("weight", &[vocab, hidden])?;
        Ok(Embedding::new(table, self.dtype, self.accuracy))
    }

    /// A matrix, or a stack of them, in the form it is stored in: blocks stay blocks, half floats
    /// stay half floats on a CPU (where the kernels widen them in registers). On a CPU blocks are
    /// sorted for the kernels, so that their bytes in the source are not needed any more.
    ///
    /// # Errors
    /// As [`tensor`](Self::tensor).
    pub fn matrix(&self, name: &str, shape: &[usize]) -> Result<Matrix> {
        let (name, info) = self.claim(name, &[shape])?;
        let matrix = match self.packed(&name, &info)? {
            Some(packed) => packed,
            None => {
                let matrix = self.unpacked(&name, &info)?;
                // Copied to where it is used, so that the bytes of a mapped file need not stay.
                self.source.release(&name);
                matrix
            }
        };
        self.loading.loaded(&info);
        Ok(matrix)
    }

    /// A matrix that the kernels take as it is, or another device than a CPU.
    fn unpacked(&self, name: &str, info: &TensorInfo) -> Result<Matrix> {
        if let Some(blocks) = self.source.quantized(name, &self.device)? {
            return Ok(Matrix::Blocks(blocks));
        }
        let dtype = match info.stored {
            StoredType::Dense(stored @ (DType::BF16 | DType::F16)) if self.packs() => stored,
            _ => self.dtype,
        };
        let numbers = self.source.dense(name, dtype, &self.device)?;
        Ok(Matrix::Dense(numbers))
    }

    /// Whether the kernels compute with the weights in the form that suits them.
    fn packs(&self) -> bool {
        self.device.is_cpu() && self.dtype == DType::F32
    }

    /// The blocks of a tensor sorted for the kernels, where those compute with it.
    fn packed(&self, name: &str, info: &TensorInfo) -> Result<Option<Matrix>> {
        let StoredType::Quantized(stored) = info.stored else {
            return Ok(None);
        };
        let Some(kind) = block_type(stored) else {
            return Ok(None);
        };
        if !self.packs() {
            return Ok(None);
        }
        let shape = match info.shape[..] {
            [rows, cols] => [1, rows, cols],
            [count, rows, cols] => [count, rows, cols],
            _ => return Ok(None),
        };
        let tensor = PackedName { name, kind, shape };
        let stack = match self.loading.recall(tensor) {
            Some(stack) => stack,
            None => match self.pack(tensor)? {
                Some(stack) => stack,
                None => return Ok(None),
            },
        };
        Ok(match info.shape.len() {
            2 => stack.matrix(0).map(Matrix::Packed),
            _ => Some(Matrix::PackedStack(stack)),
        })
    }

    /// Sorts the matrices of a tensor for the kernels; `None` when it is not stored in blocks.
    fn pack(&self, tensor: PackedName<'_>) -> Result<Option<PackedStack>> {
        let PackedName { name, kind, shape } = tensor;
        let Some(blocks) = self.source.blocks(name)? else {
            return Ok(None);
        };
        let stack = PackedStack::from_blocks(kind, shape, &blocks)
            .map_err(|e| Error::InvalidInput(format!("tensor \"{name}\": {e}")))?;
        drop(blocks);
        self.source.release(name);
        self.loading.remember(tensor, &stack);
        Ok(Some(stack))
    }

    fn claim(&self, name: &str, shapes: &[&[usize]]) -> Result<(String, TensorInfo)> {
        let name = self.name(name);
        let Some(info) = self.source.info(&name) else {
            return Err(Error::MissingTensor { name });
        };
        if !shapes.iter().any(|s| **s == info.shape[..]) {
            let expected = shapes.first().map_or_else(Vec::new, |s| s.to_vec());
            return Err(Error::TensorShape {
                name,
                expected,
                found: info.shape,
            });
        }
        self.used
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(name.clone());
        Ok((name, info))
    }
}

/// A weight matrix as it lies in memory, `(out, in)`, or a stack of them, `(count, out, in)`.
#[derive(Debug, Clone)]
pub enum Matrix {
    /// Plain numbers.
    Dense(Tensor),
    /// GGML blocks, sorted for the CPU's kernels.
    Packed(PackedMatrix),
    /// A stack of such matrices.
    PackedStack(PackedStack),
    /// GGML blocks along the rows, for other devices.
    Blocks(Arc<candle_core::quantized::QTensor>),
}

impl Matrix {
    /// Matrix `index` of a stack.
    ///
    /// # Errors
    /// When this is not a stack or has fewer matrices.
    pub fn index(&self, index: usize) -> Result<Self> {
        let missing =
            || Error::InvalidInput(format!("matrix {index} of a stack that does not have it"));
        match self {
            Self::Dense(stack) => Ok(Self::Dense(stack.get(index)?.contiguous()?)),
            Self::PackedStack(stack) => stack.matrix(index).map(Self::Packed).ok_or_else(missing),
            Self::Packed(_) => Err(missing()),
            Self::Blocks(stack) => Ok(Self::Blocks(Arc::new(index_blocks(stack, index)?))),
        }
    }

    /// Rows `start..start + len` of a matrix of plain numbers.
    ///
    /// # Errors
    /// When the rows do not exist, or this matrix is stored in blocks.
    pub fn rows(&self, start: usize, len: usize) -> Result<Self> {
        match self {
            Self::Dense(matrix) => Ok(Self::Dense(matrix.narrow(0, start, len)?.contiguous()?)),
            Self::Packed(_) | Self::PackedStack(_) | Self::Blocks(_) => Err(Error::Unsupported {
                what: "a packed gate_up_proj stored in blocks".into(),
                hint: "GGUF files keep ffn_gate_exps and ffn_up_exps apart".into(),
            }),
        }
    }
}

/// The kernels' name of a block format, if they have it.
fn block_type(stored: GgmlDType) -> Option<BlockType> {
    Some(match stored {
        GgmlDType::Q4_0 => BlockType::Q4_0,
        GgmlDType::Q4_1 => BlockType::Q4_1,
        GgmlDType::Q5_0 => BlockType::Q5_0,
        GgmlDType::Q5_1 => BlockType::Q5_1,
        GgmlDType::Q8_0 => BlockType::Q8_0,
        GgmlDType::Q4K => BlockType::Q4_K,
        GgmlDType::Q5K => BlockType::Q5_K,
        GgmlDType::Q6K => BlockType::Q6_K,
        _ => return None,
    })
}

/// One matrix of a stack of GGML blocks, copied: blocks never straddle rows, so neither matrices.
fn index_blocks(
    stack: &candle_core::quantized::QTensor,
    index: usize,
) -> candle_core::Result<candle_core::quantized::QTensor> {
    use candle_core::quantized::{QStorage, QTensor};
    let (count, rows, cols) = stack.shape().dims3()?;
    let data = stack.data()?;
    let size = data.len() / count;
    let Some(slice) = data.get(index * size..(index + 1) * size) else {
        candle_core::bail!("matrix {index} of a stack of {count}");
    };
    let storage = QStorage::from_data(slice.to_vec().into(), &stack.device(), stack.dtype())?;
    QTensor::new(storage, (rows, cols))
}
