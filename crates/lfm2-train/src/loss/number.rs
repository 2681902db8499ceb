//! The two float types losses are computed in, and sums over rows of them.

use candle_core::{CpuStorage, Layout, Result, WithDType, bail};
use lfm2_kernels as kernels;

use crate::isa::isa;

/// `f32` or `f64`.
pub(super) trait Number:
    WithDType + std::ops::Sub<Output = Self> + std::ops::SubAssign + std::ops::MulAssign + PartialOrd
{
    fn exp(self) -> Self;

    /// `ln sum(exp(row))`, summed in `f64`; minus infinity for an empty row.
    fn log_sum_exp(row: &[Self]) -> f64 {
        log_sum_exp_of(row.iter().copied())
    }

    /// `scale * softmax(row)` into `out`.
    fn softmax(row: &[Self], out: &mut [Self], scale: f64) {
        let top = largest(row.iter().copied());
        let mut sum = 0.0;
        for (out, &x) in out.iter_mut().zip(row) {
            let e = (x - top).exp();
            sum += e.to_f64();
            *out = e;
        }
        let factor = Self::from_f64(scale / sum);
        for out in out.iter_mut() {
            *out *= factor;
        }
    }
}

/// By the kernels; the type of the tests keeps to the formulas.
impl Number for f32 {
    fn exp(self) -> Self {
        self.exp()
    }

    fn log_sum_exp(row: &[Self]) -> f64 {
        kernels::log_sum_exp_wide(isa(), row)
    }

    fn softmax(row: &[Self], out: &mut [Self], scale: f64) {
        let len = row.len().min(out.len());
        out[..len].copy_from_slice(&row[..len]);
        kernels::softmax(isa(), &mut out[..len]);
        let scale = scale as Self;
        out.iter_mut().for_each(|out| *out *= scale);
    }
}

impl Number for f64 {
    fn exp(self) -> Self {
        self.exp()
    }
}

/// The largest value; what is not a number is passed over here and spoils the sum, as it should.
fn largest<T: Number>(row: impl Iterator<Item = T>) -> T {
    row.fold(T::from_f64(f64::NEG_INFINITY), |best, x| {
        if x > best { x } else { best }
    })
}

/// `ln sum(exp(row))`, summed in `f64`; minus infinity for an empty row.
pub(super) fn log_sum_exp<T: Number>(row: &[T]) -> f64 {
    T::log_sum_exp(row)
}

/// [`log_sum_exp`] of values that do not lie side by side; they are passed over twice.
pub(super) fn log_sum_exp_of<T: Number>(values: impl Iterator<Item = T> + Clone) -> f64 {
    let top = largest(values.clone());
    if top.to_f64() == f64::NEG_INFINITY {
        // Nothing, or nothing but minus infinity and values that are not numbers.
        return values
            .map(WithDType::to_f64)
            .fold(f64::NEG_INFINITY, |a, x| if x.is_nan() { x } else { a });
    }
    let sum: f64 = values.map(|x| (x - top).exp().to_f64()).sum();
    sum.ln() + top.to_f64()
}

/// `ln(exp(a) + exp(b))`.
pub(super) fn log_add_exp(a: f64, b: f64) -> f64 {
    let (high, low) = if a >= b { (a, b) } else { (b, a) };
    if high == f64::NEG_INFINITY {
        return high;
    }
    high + (low - high).exp().ln_1p()
}

/// `scale * softmax(row)` into `out`.
pub(super) fn softmax<T: Number>(row: &[T], out: &mut [T], scale: f64) {
    T::softmax(row, out, scale);
}

/// The numbers of a contiguous tensor.
pub(super) fn slice<'a, T>(data: &'a [T], layout: &Layout) -> Result<&'a [T]> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&data[start..end]),
        None => bail!("the loss needs contiguous numbers"),
    }
}

/// The numbers of a contiguous tensor of either float type, as `f64`.
pub(super) fn numbers(storage: &CpuStorage, layout: &Layout) -> Result<Vec<f64>> {
    Ok(match storage {
        CpuStorage::F32(data) => slice(data, layout)?.iter().map(|&x| f64::from(x)).collect(),
        CpuStorage::F64(data) => slice(data, layout)?.to_vec(),
        _ => bail!("the loss needs f32 or f64 numbers"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_give_what_the_formulas_give() {
        let mut rng = crate::rng::Rng::new(8);
        for len in [1, 3, 16, 37, 300] {
            let wide: Vec<f64> = (0..len).map(|_| 4.0 * rng.normal()).collect();
            let row: Vec<f32> = wide.iter().map(|x| *x as f32).collect();
            let wide: Vec<f64> = row.iter().map(|x| f64::from(*x)).collect();
            assert!(
                (log_sum_exp(&row) - log_sum_exp(&wide)).abs() < 1e-6,
                "{len}"
            );
            let (mut found, mut expected) = (vec![0f32; len], vec![0f64; len]);
            softmax(&row, &mut found, 0.3);
            softmax(&wide, &mut expected, 0.3);
            for (found, expected) in found.iter().zip(&expected) {
                assert!((f64::from(*found) - expected).abs() < 1e-7, "{len}");
            }
        }
        assert_eq!(log_sum_exp::<f32>(&[]), f64::NEG_INFINITY);
        assert!(log_sum_exp(&[0f32, f32::NAN]).is_nan());
    }
}
