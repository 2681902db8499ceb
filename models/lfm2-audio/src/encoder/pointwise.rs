//! What the layers do between their products, in two forms: on plain values, and with Candle for other
//! devices and gradients. On values it takes a fraction of the time, for want of temporaries and with
//! the kernels' exponential.

use candle_core::{DType, Result, Tensor};
use lfm2_kernels as kernels;

/// Whether the form on values applies.
pub(super) fn plain(tensors: &[&Tensor]) -> bool {
    let fits = |t: &&Tensor| t.dtype() == DType::F32 && t.device().is_cpu() && !t.track_op();
    tensors.iter().all(fits)
}

/// The values of a tensor of `f32`, in order.
pub(super) fn values(x: &Tensor) -> Result<Vec<f32>> {
    x.flatten_all()?.to_vec1()
}

/// The first half of every row times the sigmoid of the second, `(rows, 2 width)` to `(rows, width)`.
pub(super) fn gate(x: &Tensor) -> Result<Tensor> {
    let (rows, both) = x.dims2()?;
    let width = both / 2;
    if !plain(&[x]) {
        let half = |start| x.narrow(1, start, width)?.contiguous();
        return half(0)? * candle_nn::ops::sigmoid(&half(width)?)?;
    }
    let all = values(x)?;
    let pairs = || all.chunks_exact(both.max(1)).map(|row| row.split_at(width));
    let mut out: Vec<f32> = pairs().flat_map(|(_, gates)| gates).copied().collect();
    kernels::sigmoid(crate::isa()?, &mut out);
    for (out, (passed, _)) in out.chunks_exact_mut(width.max(1)).zip(pairs()) {
        out.iter_mut().zip(passed).for_each(|(out, x)| *out *= x);
    }
    Tensor::from_vec(out, (rows, width), x.device())
}

/// A convolution of every column of `x (steps, width)` with its column of `kernel (taps, width)`,
/// centred, with zeros beyond the ends, and a `bias (width)`.
pub(super) fn depthwise(x: &Tensor, kernel: &Tensor, bias: &Tensor) -> Result<Tensor> {
    let ((steps, width), taps) = (x.dims2()?, kernel.dim(0)?);
    if !plain(&[x, kernel, bias]) {
        let x = x.pad_with_zeros(0, taps / 2, taps / 2)?.contiguous()?;
        let mut sum = x.narrow(0, 0, steps)?.broadcast_mul(&kernel.get(0)?)?;
        for tap in 1..taps {
            sum = (sum + x.narrow(0, tap, steps)?.broadcast_mul(&kernel.get(tap)?)?)?;
        }
        return sum.broadcast_add(bias);
    }
    let (image, weights, bias) = (values(x)?, values(kernel)?, values(bias)?);
    let mut out = bias.repeat(steps);
    for (step, sums) in out.chunks_exact_mut(width.max(1)).enumerate() {
        for (tap, weights) in weights.chunks_exact(width.max(1)).enumerate() {
            // Steps before the first one wrap around, beyond the last.
            let at = (step + tap).wrapping_sub(taps / 2);
            let Some(row) = image.chunks_exact(width.max(1)).nth(at) else {
                continue;
            };
            for ((sum, value), weight) in sums.iter_mut().zip(row).zip(weights) {
                *sum += value * weight;
            }
        }
    }
    Tensor::from_vec(out, (steps, width), x.device())
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Var};

    fn random(shape: &[usize]) -> Result<Tensor> {
        Tensor::randn(0f32, 1., shape, &Device::Cpu)
    }

    /// The form with gradients of `f` gives the same, and gradients.
    fn ensure_same(x: &Tensor, f: impl Fn(&Tensor) -> Result<Tensor>) -> Result<()> {
        let tracked = Var::from_tensor(x)?;
        let learnt = f(tracked.as_tensor())?;
        let found = f(x)?;
        assert_eq!(found.dims(), learnt.dims());
        let difference = (found - &learnt)?.abs()?.max_all()?.to_scalar::<f32>()?;
        assert!(difference < 1e-5, "{difference}");
        let grads = learnt.sum_all()?.backward()?;
        assert!(grads.get(tracked.as_tensor()).is_some());
        Ok(())
    }

    #[test]
    fn both_forms_give_the_same() -> Result<()> {
        ensure_same(&random(&[5, 34])?, gate)?;
        // Also with fewer steps than the kernel has values.
        for (steps, taps) in [(11, 9), (3, 9), (1, 3), (6, 1)] {
            let (kernel, bias) = (random(&[taps, 19])?, random(&[19])?);
            ensure_same(&random(&[steps, 19])?, |x| depthwise(x, &kernel, &bias))?;
        }
        Ok(())
    }
}
