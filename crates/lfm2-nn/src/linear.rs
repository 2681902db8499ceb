//! [`Linear`] and [`Embedding`]: one type each, dense or quantised.

use candle_core::quantized::QMatMul;
use candle_core::{DType, Module, Result, Tensor, bail};

use crate::ops::Tail;
use crate::ops::packed::Packed;
use crate::{Accuracy, Activation, Matrix, ops};

/// `y = x W^T (+ b)` with a weight of plain numbers or of GGML blocks.
#[derive(Debug, Clone)]
pub struct Linear {
    weight: Weight,
    bias: Option<Tensor>,
}

#[derive(Debug, Clone)]
enum Weight {
    /// `(out, in)`; on a CPU possibly narrower than the activations.
    Dense {
        weight: Tensor,
        accuracy: Accuracy,
    },
    Packed(Packed),
    Quantized(QMatMul),
}

impl Linear {
    /// From a weight `(out, in)` and a bias `(out)`.
    ///
    /// # Errors
    /// When the device cannot take the weight.
    pub fn new(weight: Matrix, bias: Option<Tensor>) -> lfm2_hub::Result<Self> {
        let weight = match weight {
            Matrix::Dense(weight) => Weight::Dense {
                weight,
                accuracy: Accuracy::ByWeights,
            },
            Matrix::Packed(weight) => Weight::Packed(Packed::new(weight)),
            Matrix::PackedStack(_) => {
                return Err(lfm2_hub::Error::InvalidInput(
                    "a linear layer has one matrix, found a stack".to_owned(),
                ));
            }
            Matrix::Blocks(blocks) => Weight::Quantized(QMatMul::from_arc(blocks)?),
        };
        Ok(Self { weight, bias })
    }

    /// The same layer with activations that are rounded more finely where the weight is in blocks.
    ///
    /// For layers whose errors grow on their way: those of a mixer are multiplied with each other, and
    /// a router turns a small one of the layers before it into another expert.
    pub fn fine(self) -> Self {
        let weight = match self.weight {
            Weight::Packed(weight) => Weight::Packed(weight.fine()),
            other => other,
        };
        Self { weight, ..self }
    }

    /// The same layer with activations of 8 bits where the kernels can, which takes half the arithmetic
    /// with weights of 8 bits.
    ///
    /// For encoders, whose errors no later token depends on; not for layers that are to be exact.
    pub fn coarse(self) -> Self {
        let weight = match self.weight {
            Weight::Packed(weight) => Weight::Packed(weight.coarse()),
            other => other,
        };
        Self { weight, ..self }
    }

    /// The same layer with activations that are rounded as `accuracy` says.
    pub fn with_accuracy(self, accuracy: Accuracy) -> Self {
        match accuracy {
            Accuracy::ByWeights => self,
            Accuracy::Exact => self.exact(),
            Accuracy::Coarse => self.coarse(),
        }
    }

    /// The same layer with activations that are not rounded noticeably, see [`Accuracy::Exact`].
    pub fn exact(self) -> Self {
        let weight = match self.weight {
            Weight::Dense { weight, .. } => Weight::Dense {
                weight,
                accuracy: Accuracy::Exact,
            },
            other => other,
        };
        Self { weight, ..self }.fine()
    }

    /// Whether activations are rounded about as coarsely as `bf16` on their way through.
    pub fn is_coarse(&self) -> bool {
        match &self.weight {
            Weight::Dense { weight, accuracy } => {
                weight.dtype() == DType::BF16 && *accuracy != Accuracy::Exact
            }
            Weight::Packed(weight) => weight.is_coarse(),
            Weight::Quantized(_) => false,
        }
    }

    /// Whether the layer never changes: neither weight nor bias is learnt.
    pub fn is_constant(&self) -> bool {
        let constant = |t: &Tensor| !t.track_op();
        self.bias.as_ref().is_none_or(constant)
            && match &self.weight {
                Weight::Dense { weight, .. } => constant(weight),
                Weight::Packed(_) | Weight::Quantized(_) => true,
            }
    }

    /// The weight, when it is packed and there is no bias.
    pub(crate) fn packed(&self) -> Option<&Packed> {
        match (&self.weight, &self.bias) {
            (Weight::Packed(weight), None) => Some(weight),
            _ => None,
        }
    }

    /// The weight `(out, in)`, when it is plain numbers and there is no bias.
    pub fn dense(&self) -> Option<&Tensor> {
        match (&self.weight, &self.bias) {
            (Weight::Dense { weight, .. }, None) => Some(weight),
            _ => None,
        }
    }

    /// `(tokens, in)` to `(tokens, out)` of several layers that read the same input.
    ///
    /// # Errors
    /// When shapes disagree or the device fails.
    pub fn forward_each<const N: usize>(layers: [&Self; N], x: &Tensor) -> Result<[Tensor; N]> {
        let packed = layers.iter().filter_map(|layer| match &layer.weight {
            Weight::Packed(weight) => Some((weight, layer.tail(None))),
            _ => None,
        });
        let packed: Vec<_> = packed.collect();
        let each: Vec<Tensor> = if packed.len() == N {
            ops::packed::matmul(x, &packed)?
        } else {
            layers.iter().map(|l| l.forward(x)).collect::<Result<_>>()?
        };
        each.try_into()
            .map_err(|_| candle_core::Error::msg("one result per layer"))
    }

    /// The activation of the layer's `y (tokens, out)`, in fewer passes than one after the other.
    ///
    /// # Errors
    /// When shapes disagree or the device fails.
    pub fn forward_activated(&self, x: &Tensor, activation: Activation) -> Result<Tensor> {
        self.forward_with(x, self.tail(Some(activation)))
    }

    /// What follows the product.
    fn tail(&self, activation: Option<Activation>) -> Tail<'_> {
        let bias = self.bias.as_ref();
        Tail { bias, activation }
    }

    fn forward_with(&self, x: &Tensor, tail: Tail<'_>) -> Result<Tensor> {
        match &self.weight {
            Weight::Dense { weight, accuracy } => ops::linear(x, weight, *accuracy, tail),
            Weight::Packed(weight) => Ok(ops::packed::matmul(x, &[(weight, tail)])?.remove(0)),
            Weight::Quantized(weight) => tail.apply(weight.forward(&x.contiguous()?)?),
        }
    }
}

impl Module for Linear {
    /// `(tokens, in)` to `(tokens, out)`.
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.forward_with(x, self.tail(None))
    }
}

/// A table of one vector per token id, which can also serve as the output head.
#[derive(Debug, Clone)]
pub struct Embedding {
    table: Matrix,
    dtype: DType,
    accuracy: Accuracy,
}

impl Embedding {
    /// From a table `(vocab, hidden)`; looked-up rows are `dtype`, and `accuracy` is that of
    /// [`as_linear`](Self::as_linear).
    pub fn new(table: Matrix, dtype: DType, accuracy: Accuracy) -> Self {
        Self {
            table,
            dtype,
            accuracy,
        }
    }

    /// The linear layer with this table as its weight: the tied output head.
    ///
    /// # Errors
    /// As [`Linear::new`].
    pub fn as_linear(&self) -> lfm2_hub::Result<Linear> {
        let linear = Linear::new(self.table.clone(), None)?;
        Ok(linear.with_accuracy(self.accuracy))
    }
}

impl Module for Embedding {
    /// Ids `(tokens)` to vectors `(tokens, hidden)`.
    fn forward(&self, ids: &Tensor) -> Result<Tensor> {
        match &self.table {
            Matrix::Dense(table) => table.index_select(ids, 0)?.to_dtype(self.dtype),
            Matrix::Packed(table) => ops::packed::rows(table, ids)?.to_dtype(self.dtype),
            Matrix::Blocks(blocks) => blocks.embedding(ids)?.to_dtype(self.dtype),
            Matrix::PackedStack(_) => bail!("an embedding has one table, found a stack"),
        }
    }
}
