//! Tensors as the layers want them, whatever a checkpoint calls them and however it shapes them.

use std::sync::Arc;

use candle_core::quantized::QTensor;
use lfm2_hub::{Fingerprint, Result, TensorInfo, TensorSource};
use lfm2_nn::{DType, Device, Tensor};

/// Shows convolutions with kernels of one step, `[out, in, 1]` or `[out, in, 1, 1]`, as the matrices
/// they are, so that they are loaded, quantised and packed like every other matrix.
pub(crate) struct AsMatrices {
    tensors: Arc<dyn TensorSource>,
    hidden: Vec<String>,
}

impl AsMatrices {
    pub(crate) fn new(tensors: Arc<dyn TensorSource>) -> Self {
        Self::without(tensors, Vec::new())
    }

    /// Without the tensors `hidden`, which nobody needs and nobody should miss.
    pub(crate) fn without(tensors: Arc<dyn TensorSource>, hidden: Vec<String>) -> Self {
        Self { tensors, hidden }
    }
}

/// A shape without the steps of a kernel of one step.
pub(crate) fn matrix_shape(mut shape: Vec<usize>) -> Vec<usize> {
    while shape.len() > 2 && shape.last() == Some(&1) {
        shape.pop();
    }
    shape
}

impl TensorSource for AsMatrices {
    fn names(&self) -> Vec<String> {
        let mut names = self.tensors.names();
        names.retain(|name| !self.hidden.contains(name));
        names
    }

    fn info(&self, name: &str) -> Option<TensorInfo> {
        let info = self.tensors.info(name)?;
        Some(TensorInfo {
            shape: matrix_shape(info.shape),
            ..info
        })
    }

    fn dense(&self, name: &str, dtype: DType, device: &Device) -> Result<Tensor> {
        let tensor = self.tensors.dense(name, dtype, device)?;
        let shape = matrix_shape(tensor.dims().to_vec());
        Ok(tensor.reshape(shape)?)
    }

    fn quantized(&self, name: &str, device: &Device) -> Result<Option<Arc<QTensor>>> {
        self.tensors.quantized(name, device)
    }

    fn blocks(&self, name: &str) -> Result<Option<std::borrow::Cow<'_, [u8]>>> {
        self.tensors.blocks(name)
    }

    fn release(&self, name: &str) {
        self.tensors.release(name);
    }

    fn fingerprint(&self) -> Result<Option<Fingerprint>> {
        self.tensors.fingerprint()
    }
}
