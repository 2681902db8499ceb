//! The two float types losses are computed in, and sums over rows of them.

use candle_core::{CpuStorage, Layout, Result, WithDType, bail};

/// `f32` or `f64`.
pub(super) trait Number:
    WithDType + std::ops::Sub<Output = Self> + std::ops::SubAssign + std::ops::MulAssign + PartialOrd
{
    fn exp(self) -> Self;
}

impl Number for f32 {
    fn exp(self) -> Self {
        self.exp()
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
    log_sum_exp_of(row.iter().copied())
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
    let top = largest(row.iter().copied());
    let mut sum = 0.0;
    for (out, &x) in out.iter_mut().zip(row) {
        let e = (x - top).exp();
        sum += e.to_f64();
        *out = e;
    }
    let factor = T::from_f64(scale / sum);
    for out in out.iter_mut() {
        *out *= factor;
    }
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
