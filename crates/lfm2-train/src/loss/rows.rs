//! Losses that are sums over rows of logits, as one operation with a gradient of its own each: no
//! graph as wide as the vocabulary is built.

use candle_core::{CpuStorage, CustomOp1, DType, Layout, Result, Shape, Storage, Tensor, bail};
use lfm2_kernels::profile::{Op, Work, span};
use rayon::prelude::*;

use super::number::{Number, numbers, slice};

/// A loss with a value and a gradient for every row of logits.
pub(super) trait RowLoss: Send + Sync {
    /// The operation's name in messages.
    const NAME: &'static str;

    /// The value of row `row`.
    fn value<T: Number>(&self, row: usize, logits: &[T]) -> f64;

    /// `upstream` times the gradient of [`value`](Self::value) into `out`, which holds zeros.
    fn gradient<T: Number>(&self, row: usize, logits: &[T], out: &mut [T], upstream: f64);
}

/// The sums of `loss` over groups of `lens` rows one after another, `(groups)`.
///
/// Half-precision logits are widened to `f32`.
pub(super) fn apply(
    logits: &Tensor,
    loss: impl RowLoss + 'static,
    lens: &[usize],
) -> Result<Tensor> {
    let rows = logits.dims2()?.0;
    let sum = lens.iter().try_fold(0usize, |sum, &n| sum.checked_add(n));
    if sum != Some(rows) {
        bail!("groups of {lens:?} rows for {rows} rows of logits");
    }
    let logits = match logits.dtype() {
        DType::F32 | DType::F64 => logits.contiguous()?,
        _ => logits.to_dtype(DType::F32)?.contiguous()?,
    };
    logits.apply_op1(Rows {
        loss,
        lens: lens.to_vec(),
    })
}

struct Rows<L> {
    loss: L,
    lens: Vec<usize>,
}

impl<L: RowLoss> Rows<L> {
    /// The sums, in `f64` and in row order: the same for any number of threads.
    fn sums<T: Number>(&self, logits: &[T], vocab: usize) -> Vec<f64> {
        let rows = logits.par_chunks(vocab.max(1)).enumerate();
        let values: Vec<f64> = rows.map(|(i, row)| self.loss.value(i, row)).collect();
        let mut rest = values.as_slice();
        let sums = self.lens.iter().map(|&len| {
            let (group, after) = rest.split_at(len.min(rest.len()));
            rest = after;
            group.iter().sum()
        });
        sums.collect()
    }

    fn gradient<T: Number>(&self, logits: &[T], vocab: usize, upstream: &[f64]) -> Vec<T> {
        let of_row: Vec<f64> = self
            .lens
            .iter()
            .zip(upstream)
            .flat_map(|(&len, &upstream)| std::iter::repeat_n(upstream, len))
            .collect();
        let mut gradient = vec![T::from_f64(0.0); logits.len()];
        let rows = gradient
            .par_chunks_mut(vocab.max(1))
            .zip(logits.par_chunks(vocab.max(1)))
            .zip(&of_row)
            .enumerate();
        rows.for_each(|(i, ((out, row), &upstream))| self.loss.gradient(i, row, out, upstream));
        gradient
    }
}

impl<L: RowLoss> CustomOp1 for Rows<L> {
    fn name(&self) -> &'static str {
        L::NAME
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let vocab = layout.shape().dims2()?.1;
        let _span = span(Op::Loss, &[vocab], Work::NONE);
        let sums = match storage {
            CpuStorage::F32(data) => {
                let sums = self.sums(slice(data, layout)?, vocab);
                CpuStorage::F32(sums.into_iter().map(|x| x as f32).collect())
            }
            CpuStorage::F64(data) => CpuStorage::F64(self.sums(slice(data, layout)?, vocab)),
            _ => bail!("the loss needs f32 or f64 logits"),
        };
        Ok((sums, Shape::from(self.lens.len())))
    }

    fn bwd(&self, logits: &Tensor, _sums: &Tensor, upstream: &Tensor) -> Result<Option<Tensor>> {
        let (shape, vocab) = (logits.shape().clone(), logits.dims2()?.1);
        let _span = span(Op::Loss, &[vocab], Work::NONE);
        let upstream = {
            let upstream = upstream.contiguous()?;
            let (storage, layout) = upstream.storage_and_layout();
            match &*storage {
                Storage::Cpu(storage) => numbers(storage, layout)?,
                _ => bail!("the loss has a gradient on the CPU only"),
            }
        };
        let (storage, layout) = logits.storage_and_layout();
        let device = logits.device();
        Ok(Some(match &*storage {
            Storage::Cpu(CpuStorage::F32(data)) => {
                let gradient = self.gradient(slice(data, layout)?, vocab, &upstream);
                Tensor::from_vec(gradient, shape, device)?
            }
            Storage::Cpu(CpuStorage::F64(data)) => {
                let gradient = self.gradient(slice(data, layout)?, vocab, &upstream);
                Tensor::from_vec(gradient, shape, device)?
            }
            _ => bail!("the loss has a gradient for f32 and f64 logits on the CPU only"),
        }))
    }
}
