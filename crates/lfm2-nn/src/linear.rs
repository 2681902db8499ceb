//! [`Linear`] and [`Embedding`]: one type each, dense or quantised.

use candle_core::quantized::QMatMul;
use candle_core::{DType, Module, Result, Tensor};

use crate::{Matrix, ops};

/// `y = x W^T (+ b)` with a weight of plain numbers or of GGML blocks.
#[derive(Debug, Clone)]
pub struct Linear {
    weight: Weight,
    bias: Option<Tensor>,
}

#[derive(Debug, Clone)]
enum Weight {
    /// `(out, in)`; on a CPU possibly narrower than the activations.
    Dense(Tensor),
    Quantized(QMatMul),
}

impl Linear {
    /// From a weight `(out, in)` and a bias `(out)`.
    ///
    /// # Errors
    /// When the device cannot take the weight.
    pub fn new(weight: Matrix, bias: Option<Tensor>) -> lfm2_hub::Result<Self> {
        let weight = match weight {
            Matrix::Dense(weight) => Weight::Dense(weight),
            Matrix::Blocks(blocks) => Weight::Quantized(QMatMul::from_arc(blocks)?),
        };
        Ok(Self { weight, bias })
    }
}

impl Module for Linear {
    /// `(tokens, in)` to `(tokens, out)`.
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let y = match &self.weight {
            Weight::Dense(weight) => ops::matmul_t(x, weight)?,
            Weight::Quantized(weight) => weight.forward(&x.contiguous()?)?,
        };
        match &self.bias {
            Some(bias) => y.broadcast_add(bias),
            None => Ok(y),
        }
    }
}

/// A table of one vector per token id, which can also serve as the output head.
#[derive(Debug, Clone)]
pub struct Embedding {
    table: Matrix,
    dtype: DType,
}

impl Embedding {
    /// From a table `(vocab, hidden)`; looked-up rows are `dtype`.
    pub fn new(table: Matrix, dtype: DType) -> Self {
        Self { table, dtype }
    }

    /// The linear layer with this table as its weight: the tied output head.
    ///
    /// # Errors
    /// As [`Linear::new`].
    pub fn as_linear(&self) -> lfm2_hub::Result<Linear> {
        Linear::new(self.table.clone(), None)
    }
}

impl Module for Embedding {
    /// Ids `(tokens)` to vectors `(tokens, hidden)`.
    fn forward(&self, ids: &Tensor) -> Result<Tensor> {
        match &self.table {
            Matrix::Dense(table) => table.index_select(ids, 0)?.to_dtype(self.dtype),
            Matrix::Blocks(blocks) => blocks.embedding(ids)?.to_dtype(self.dtype),
        }
    }
}
