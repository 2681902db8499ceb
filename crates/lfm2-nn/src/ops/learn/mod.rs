//! The learning forms: kernels on the slices of CPU tensors, with a backward pass in closed form.
//!
//! In plain tensor operations a training step spends most of its time on broadcasts, copies and
//! sums over single axes; here each layer operation is one node of the graph that reads its
//! operands once forward and once backward. The loops outside the kernels run on one thread:
//! training keeps cores busy with several micro-batches at a time.

mod attention;
mod conv;
mod encoder;
mod linear;
mod many;
mod pointwise;
mod residual;

use candle_core::{CpuStorage, DType, Error, Layout, Result, Shape, Tensor, bail};
use lfm2_kernels::limits::Arithmetic;
use lfm2_kernels::profile::{self, Op, Work};
use lfm2_kernels::{self as kernels, MatMut, MatRef, Panels, Sum};

pub(crate) use attention::Attention;
pub(super) use attention::attention;
pub(super) use conv::short_conv;
pub(super) use encoder::{add_bias, gelu_tanh, layer_norm};
pub(super) use linear::matmul_t;
pub(super) use pointwise::{rms_norm, rope, silu_mul};
pub(crate) use residual::{AttentionWeights, ConvWeights, Norm};
pub(super) use residual::{attention as attention_layer, feed_forward, short_conv as conv_layer};

use super::fast::{isa, view};

/// Whether the learning form applies: `f32` on a CPU, and somebody asks for gradients.
pub(super) fn fits(tensors: &[&Tensor]) -> bool {
    tensors
        .iter()
        .all(|t| t.dtype() == DType::F32 && t.device().is_cpu())
        && tensors.iter().any(|t| t.track_op())
}

/// The elements of an operand of a custom operation.
fn operand<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    let CpuStorage::F32(values) = storage else {
        bail!("expected f32 values")
    };
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&values[start..end]),
        None => bail!("expected a contiguous tensor"),
    }
}

fn result(values: Vec<f32>, shape: impl Into<Shape>) -> Result<(CpuStorage, Shape)> {
    Ok((CpuStorage::F32(values), shape.into()))
}

/// A tensor of the shape of `like`.
fn tensor_like(values: Vec<f32>, like: &Tensor) -> Result<Tensor> {
    Tensor::from_vec(values, like.shape(), like.device())
}

/// `a (m, k) · b (n, k)ᵀ` into `out (m, n)`; all may be parts of wider matrices.
fn multiply_nt(a: Matrix<'_>, b: Matrix<'_>, out: &mut [f32], stride: usize) -> Result<()> {
    let (left, right) = (a.view()?, b.view()?);
    let out = MatMut::strided(out, a.rows, b.rows, stride).map_err(Error::wrap)?;
    kernels::matmul(isa()?, left, right, out).map_err(Error::wrap)
}

/// `a (m, k) · b (k, n)` into or to `out (m, n)`, as `sum` says; all may be parts of wider matrices.
fn multiply_nn(
    a: Matrix<'_>,
    b: Matrix<'_>,
    out: &mut [f32],
    stride: usize,
    sum: Sum,
) -> Result<()> {
    let (left, right) = (a.view()?, b.view()?);
    let out = MatMut::strided(out, a.rows, b.cols, stride).map_err(Error::wrap)?;
    kernels::matmul_nn(isa()?, left, right, out, sum).map_err(Error::wrap)
}

/// Adds `a (k, m)ᵀ · b (k, n)` to `out (m, n)`; all may be parts of wider matrices.
fn add_product_tn(a: Matrix<'_>, b: Matrix<'_>, out: &mut [f32], stride: usize) -> Result<()> {
    let (left, right) = (a.view()?, b.view()?);
    let out = MatMut::strided(out, a.cols, b.cols, stride).map_err(Error::wrap)?;
    kernels::matmul_tn(isa()?, left, right, out, Sum::Add).map_err(Error::wrap)
}

/// Times a product of `(m, k)` and `(k, n)`.
fn product_span(what: &'static str, [m, k, n]: [usize; 3]) -> profile::Span {
    let work = Work::dot(k * n * size_of::<f32>(), m * k * n, Arithmetic::F32);
    profile::span(Op::Matmul(what), &[m, k, n], work)
}

/// How the three products of a linear layer are called where time is measured.
const FORWARD: &str = "f32";
const TO_INPUTS: &str = "f32 to inputs";
const TO_WEIGHTS: &str = "f32 to weights";

/// `x (rows, k)` times packed panels `(k, n)` into or to `out (rows, n)`.
fn multiply_panels(
    what: &'static str,
    x: &[f32],
    w: &Panels,
    out: &mut [f32],
    sum: Sum,
) -> Result<()> {
    let (inputs, outputs) = (w.rows(), w.cols());
    let rows = x.len() / inputs.max(1);
    let _span = product_span(what, [rows, inputs, outputs]);
    let x = Matrix::new(x, rows, inputs).view()?;
    let out = MatMut::new(out, rows, outputs).map_err(Error::wrap)?;
    kernels::matmul_panels(isa()?, x, w, out, sum).map_err(Error::wrap)
}

/// A matrix whose rows start `stride` values apart.
#[derive(Clone, Copy)]
struct Matrix<'a> {
    values: &'a [f32],
    rows: usize,
    cols: usize,
    stride: usize,
}

impl<'a> Matrix<'a> {
    fn new(values: &'a [f32], rows: usize, cols: usize) -> Self {
        Self::strided(values, rows, cols, cols)
    }

    fn strided(values: &'a [f32], rows: usize, cols: usize, stride: usize) -> Self {
        Self {
            values,
            rows,
            cols,
            stride,
        }
    }

    fn view(&self) -> Result<MatRef<'a, f32>> {
        MatRef::strided(self.values, self.rows, self.cols, self.stride).map_err(Error::wrap)
    }

    /// A dense `(cols, rows)` copy.
    fn transposed(&self) -> Vec<f32> {
        let mut out = vec![0.0; self.rows * self.cols];
        self.transpose_into(&mut out);
        out
    }

    /// A dense `(cols, rows)` copy, into `out`.
    fn transpose_into(&self, out: &mut [f32]) {
        // Squares that fit the nearest cache, or every write would miss it.
        const SIDE: usize = 16;
        for row0 in (0..self.rows).step_by(SIDE) {
            for col0 in (0..self.cols).step_by(SIDE) {
                for row in row0..(row0 + SIDE).min(self.rows) {
                    let source = &self.values[row * self.stride..];
                    for col in col0..(col0 + SIDE).min(self.cols) {
                        out[col * self.rows + row] = source[col];
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device, Result, Tensor, Var};

    use crate::attention::Visibility;
    use crate::ops::plain;
    use crate::pass::Span;
    use crate::rope::Rope;
    use crate::short_conv::Window;

    pub(super) fn random(shape: &[usize], seed: u64) -> Var {
        let mut state = seed;
        let count: usize = shape.iter().product();
        let values = (0..count).map(|_| {
            state = state
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            ((state >> 33) as f32 / (1u64 << 31) as f32) * 2.0 - 1.0
        });
        Var::from_vec(values.collect::<Vec<f32>>(), shape, &Device::Cpu).unwrap()
    }

    /// Results and gradients of both forms agree, for a gradient that is not constant.
    pub(super) fn agree(
        inputs: &[&Var],
        learn: impl Fn() -> Result<Tensor>,
        plain: impl Fn() -> Result<Tensor>,
    ) {
        let (ours, reference) = (learn().unwrap(), plain().unwrap());
        assert_close(&ours, &reference, "result");
        let weights = random(ours.dims(), 99);
        let gradients = |y: &Tensor| {
            (y * weights.as_detached_tensor())
                .unwrap()
                .sum_all()
                .unwrap()
                .backward()
        };
        let (ours, reference) = (gradients(&ours).unwrap(), gradients(&reference).unwrap());
        for (i, input) in inputs.iter().enumerate() {
            let (ours, reference) = (ours.get(input).unwrap(), reference.get(input).unwrap());
            assert_close(ours, reference, &format!("gradient of input {i}"));
        }
    }

    fn assert_close(ours: &Tensor, reference: &Tensor, what: &str) {
        assert_eq!(ours.dims(), reference.dims(), "{what}");
        let flat = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let (ours, reference) = (flat(ours), flat(reference));
        let size = reference.iter().fold(1.0f32, |m, x| m.max(x.abs()));
        for (i, (a, b)) in ours.iter().zip(&reference).enumerate() {
            assert!(
                (a - b).abs() < 2e-5 * size,
                "{what}, element {i}: {a} and {b}"
            );
        }
    }

    #[test]
    fn linear_layers() {
        for (m, k, n) in [(1, 5, 3), (7, 16, 33), (70, 40, 24)] {
            let (x, w) = (random(&[m, k], 1), random(&[n, k], 2));
            agree(
                &[&x, &w],
                || super::matmul_t(&x, &w),
                || plain::matmul_t(&x, &w),
            );
        }
    }

    #[test]
    fn a_gradient_that_arrives_transposed_is_read_in_its_own_order() {
        let (x, w, v) = (random(&[5, 4], 1), random(&[6, 4], 2), random(&[3, 5], 3));
        let chain = |y: Result<Tensor>| v.matmul(&y?);
        agree(
            &[&x, &w],
            || chain(super::matmul_t(&x, &w))?.t(),
            || chain(plain::matmul_t(&x, &w))?.t(),
        );
    }

    #[test]
    fn norms() {
        let (x, w) = (random(&[5, 3, 8], 1), random(&[8], 2));
        agree(
            &[&x, &w],
            || super::rms_norm(&x, &w, 1e-3),
            || plain::rms_norm(&x, &w, 1e-3),
        );
    }

    #[test]
    fn norms_with_a_mean() {
        for dim in [8, 37] {
            let (x, w, b) = (
                random(&[5, 3, dim], 1),
                random(&[dim], 2),
                random(&[dim], 3),
            );
            agree(
                &[&x, &w, &b],
                || super::layer_norm(&x, &w, &b, 1e-3),
                || plain::layer_norm(&x, &w, &b, 1e-3),
            );
        }
    }

    #[test]
    fn smooth_units() {
        let x = random(&[6, 33], 1);
        let far = Var::from_tensor(&(x.as_tensor() * 30.0).unwrap()).unwrap();
        for x in [x, far] {
            agree(&[&x], || super::gelu_tanh(&x), || x.gelu());
        }
    }

    #[test]
    fn biases() {
        let (x, b) = (random(&[7, 19], 1), random(&[19], 2));
        agree(
            &[&x, &b],
            || super::add_bias(&x, &b),
            || x.broadcast_add(&b),
        );
    }

    #[test]
    fn gated_units() {
        let (gate, up) = (random(&[4, 37], 1), random(&[4, 37], 2));
        agree(
            &[&gate, &up],
            || super::silu_mul(&gate, &up),
            || plain::silu_mul(&gate, &up),
        );
    }

    #[test]
    fn rotations() {
        let x = random(&[5, 3, 8], 1);
        let rope = Rope::proportional(8, 100.0, 0.5);
        let table = rope
            .table(&[0, 1, 2, 0, 9], DType::F32, &Device::Cpu)
            .unwrap();
        agree(
            &[&x],
            || super::rope(&x, &table),
            || plain::rope(&x, &table),
        );
    }

    pub(super) fn spans(lens: &[usize]) -> Vec<Span> {
        let mut start = 0;
        let span = |(row, &len): (usize, &usize)| {
            start += len;
            Span {
                row,
                start: start - len,
                len,
                past: 0,
                // Filler at the end of every segment that is long enough.
                keys: len - len / 5,
            }
        };
        lens.iter().enumerate().map(span).collect()
    }

    #[test]
    fn attention_over_packed_segments() {
        let spans = spans(&[3, 1, 11]);
        let (q, k, v) = (
            random(&[15, 4, 8], 1),
            random(&[15, 2, 8], 2),
            random(&[15, 2, 8], 3),
        );
        for visibility in [
            Visibility::Causal,
            Visibility::Sliding { window: 3 },
            Visibility::Bidirectional,
        ] {
            let plain = || {
                let each = spans.iter().map(|s| {
                    let own = |t: &Tensor| t.narrow(0, s.start, s.len);
                    let by_head = |t: &Tensor| own(t)?.transpose(0, 1)?.contiguous();
                    let mask = crate::ops::Mask {
                        visibility,
                        past: 0,
                        keys: s.keys,
                    };
                    plain::attention(&own(&q)?, &by_head(&k)?, &by_head(&v)?, 0.7, mask)
                });
                Tensor::cat(&each.collect::<Result<Vec<_>>>()?, 0)
            };
            agree(
                &[&q, &k, &v],
                || super::attention([&q, &k, &v], &spans, 0.7, visibility),
                plain,
            );
        }
    }

    #[test]
    fn convolutions_over_packed_segments() {
        let spans = spans(&[5, 1, 2]);
        let (bcu, bias) = (random(&[8, 12], 1), random(&[4], 3));
        for (width, window) in [
            (3, Window::Causal),
            (4, Window::Centred),
            (1, Window::Causal),
        ] {
            let before = window.before(width);
            let kernel = random(&[4, width], 2);
            let plain = || {
                let each = spans
                    .iter()
                    .map(|s| naive_conv(&bcu.narrow(0, s.start, s.len)?, &kernel, before));
                Tensor::cat(&each.collect::<Result<Vec<_>>>()?, 0)
            };
            agree(
                &[&bcu, &kernel],
                || super::short_conv(&bcu, &kernel, None, &spans, window),
                plain,
            );
            let c = bcu.narrow(1, 4, 4).unwrap();
            let biased = || plain()? + c.broadcast_mul(&bias)?;
            agree(
                &[&bcu, &kernel, &bias],
                || super::short_conv(&bcu, &kernel, Some(&bias), &spans, window),
                biased,
            );
        }
    }

    /// `C * conv(B * u)` of one segment, position by position.
    pub(super) fn naive_conv(bcu: &Tensor, kernel: &Tensor, before: usize) -> Result<Tensor> {
        let (len, (channels, width)) = (bcu.dim(0)?, kernel.dims2()?);
        let part = |i: usize| bcu.narrow(1, channels * i, channels);
        let g = (part(0)? * part(2)?)?;
        let rows = (0..len).map(|t| {
            let mut sum = Tensor::zeros((1, channels), DType::F32, &Device::Cpu)?;
            for tap in 0..width {
                let Some(s) = (t + tap).checked_sub(before).filter(|&s| s < len) else {
                    continue;
                };
                sum = (sum + (g.narrow(0, s, 1)? * kernel.narrow(1, tap, 1)?.t()?)?)?;
            }
            sum * part(1)?.narrow(0, t, 1)?
        });
        Tensor::cat(&rows.collect::<Result<Vec<_>>>()?, 0)
    }
}
