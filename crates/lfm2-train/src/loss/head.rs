//! The output head and the next-token loss as one operation: logits are the widest activations of a small
//! model, and their gradients never exist as a tensor.

use std::sync::{Mutex, MutexGuard, PoisonError};

use candle_core::{
    CpuStorage, CustomOp2, DType, Error, Layout, Result, Shape, Storage, Tensor, bail,
};
use lfm2_kernels::profile::{Op, Work, span};
use lfm2_kernels::{MatMut, MatRef, Panels, Scratch, Sum, matmul_panels, matmul_tn};

use super::next_token::{NextToken, Target, next_token};
use super::number::slice;
use super::rows::RowLoss;
use crate::isa::isa;

/// Rows whose logits go from the product to the loss, or back, at a time: whole register tiles.
const ROWS: usize = 144;

/// [`next_token`] of the logits `hidden headᵀ`.
///
/// * `hidden`: `(tokens, width)`, what the head reads.
/// * `head`: `(vocab, width)`.
///
/// # Errors
/// As [`next_token`].
pub fn next_token_of(
    hidden: &Tensor,
    head: &Tensor,
    targets: &[Target],
    divisor: f64,
) -> Result<Tensor> {
    let fits = |t: &Tensor| t.dtype() == DType::F32 && t.device().is_cpu();
    if !fits(hidden) || !fits(head) {
        return next_token(&hidden.matmul(&head.t()?)?, targets, divisor);
    }
    if hidden.dims2()?.1 != head.dims2()?.1 {
        bail!("a head {:?} for states {:?}", head.dims(), hidden.dims());
    }
    let scale = if divisor == 0.0 { 0.0 } else { 1.0 / divisor };
    let op = Head {
        loss: NextToken::new((hidden.dim(0)?, head.dim(0)?), targets, scale)?,
        logits: Mutex::new(None),
    };
    hidden.contiguous()?.apply_op2(&head.contiguous()?, op)
}

struct Head {
    loss: NextToken,
    /// Of every row, for the backward pass.
    logits: Mutex<Option<Scratch>>,
}

impl Head {
    /// A panic leaves numbers that are still numbers.
    fn logits(&self) -> MutexGuard<'_, Option<Scratch>> {
        self.logits.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The first row of every group and how many it has.
fn groups(tokens: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..tokens)
        .step_by(ROWS)
        .map(move |first| (first, ROWS.min(tokens - first)))
}

fn rows(values: &[f32], count: usize, width: usize) -> Result<MatRef<'_, f32>> {
    MatRef::new(values, count, width).map_err(Error::wrap)
}

fn rows_mut(values: &mut [f32], count: usize, width: usize) -> Result<MatMut<'_, f32>> {
    MatMut::new(values, count, width).map_err(Error::wrap)
}

/// The numbers of an operand.
fn numbers<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    match storage {
        CpuStorage::F32(values) => slice(values, layout),
        _ => bail!("the head needs f32 numbers"),
    }
}

impl CustomOp2 for Head {
    fn name(&self) -> &'static str {
        "head-and-next-token-loss"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        w: &CpuStorage,
        w_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let ((tokens, width), (vocab, _)) = (x_layout.shape().dims2()?, w_layout.shape().dims2()?);
        let (x, w) = (numbers(x, x_layout)?, numbers(w, w_layout)?);
        let product = || span(Op::Matmul("f32"), &[ROWS, width, vocab], Work::NONE);
        let across = Panels::across(isa(), rows(w, vocab, width)?);
        let mut logits = Scratch::new(tokens * vocab);
        let mut sum = 0.0;
        for (first, count) in groups(tokens) {
            let own = &mut logits[first * vocab..][..count * vocab];
            {
                let _span = product();
                let x = rows(&x[first * width..][..count * width], count, width)?;
                let out = rows_mut(own, count, vocab)?;
                matmul_panels(isa(), x, &across, out, Sum::Replace).map_err(Error::wrap)?;
            }
            let _span = span(Op::Loss, &[vocab], Work::NONE);
            let values = own.chunks_exact(vocab.max(1)).enumerate();
            sum += values
                .map(|(row, logits)| self.loss.value(first + row, logits))
                .sum::<f64>();
        }
        *self.logits() = Some(logits);
        Ok((CpuStorage::F32(vec![sum as f32]), Shape::from(())))
    }

    fn bwd(
        &self,
        x: &Tensor,
        w: &Tensor,
        _loss: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let upstream = f64::from(dy.to_scalar::<f32>()?);
        let ((tokens, width), vocab) = (x.dims2()?, w.dim(0)?);
        let logits = self.logits();
        let Some(logits) = logits.as_ref() else {
            bail!("a loss without its forward pass")
        };
        let ((x_storage, x_layout), (w_storage, w_layout)) =
            (x.storage_and_layout(), w.storage_and_layout());
        let (Storage::Cpu(xs), Storage::Cpu(ws)) = (&*x_storage, &*w_storage) else {
            bail!("the head has a gradient on the CPU only")
        };
        let (xs, ws) = (numbers(xs, x_layout)?, numbers(ws, w_layout)?);
        let panels = Panels::new(isa(), rows(ws, vocab, width)?);
        let (mut dx, mut dw) = (vec![0.0; xs.len()], vec![0.0; ws.len()]);
        let mut scratch = Scratch::new(ROWS * vocab);
        for (first, count) in groups(tokens) {
            let slopes = &mut scratch[..count * vocab];
            {
                let _span = span(Op::Loss, &[vocab], Work::NONE);
                slopes.fill(0.0);
                let own = logits[first * vocab..][..count * vocab].chunks_exact(vocab.max(1));
                for (row, (out, logits)) in
                    slopes.chunks_exact_mut(vocab.max(1)).zip(own).enumerate()
                {
                    self.loss.gradient(first + row, logits, out, upstream);
                }
            }
            let slopes = rows(slopes, count, vocab)?;
            let part = first * width..(first + count) * width;
            {
                let _span = span(
                    Op::Matmul("f32 to inputs"),
                    &[ROWS, vocab, width],
                    Work::NONE,
                );
                let out = rows_mut(&mut dx[part.clone()], count, width)?;
                matmul_panels(isa(), slopes, &panels, out, Sum::Replace).map_err(Error::wrap)?;
            }
            let _span = span(
                Op::Matmul("f32 to weights"),
                &[vocab, ROWS, width],
                Work::NONE,
            );
            let (x, out) = (
                rows(&xs[part], count, width)?,
                rows_mut(&mut dw, vocab, width)?,
            );
            matmul_tn(isa(), slopes, x, out, Sum::Add).map_err(Error::wrap)?;
        }
        drop((x_storage, w_storage));
        let gradient = |values: Vec<f32>, of: &Tensor| {
            let wanted = of.track_op();
            wanted
                .then(|| Tensor::from_vec(values, of.shape(), of.device()))
                .transpose()
        };
        Ok((gradient(dx, x)?, gradient(dw, w)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Var};

    fn random(shape: (usize, usize), seed: u64) -> Var {
        let mut rng = crate::rng::Rng::new(seed);
        let values: Vec<f32> = (0..shape.0 * shape.1)
            .map(|_| rng.normal() as f32)
            .collect();
        Var::from_vec(values, shape, &Device::Cpu).unwrap()
    }

    fn assert_close(found: &Tensor, expected: &Tensor) {
        let flat = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        for (found, expected) in flat(found).iter().zip(flat(expected)) {
            assert!((found - expected).abs() < 2e-5, "{found} and {expected}");
        }
    }

    #[test]
    fn loss_and_gradients_are_those_of_the_head_and_the_loss_apart() -> Result<()> {
        for tokens in [1, 20, ROWS + 7] {
            let (hidden, head) = (random((tokens, 9), 1), random((21, 9), 2));
            let targets: Vec<Target> = (0..tokens)
                .map(|i| match i % 5 {
                    3 => Target::UNSCORED,
                    4 => Target {
                        id: 20,
                        weight: 0.5,
                    },
                    _ => Target::new((i * 7 % 21) as u32),
                })
                .collect();
            let divisor = super::super::weight(&targets);
            let whole = next_token_of(&hidden, &head, &targets, divisor)?;
            let apart = next_token(&hidden.matmul(&head.t()?)?, &targets, divisor)?;
            assert_close(&whole, &apart);
            // A factor behind the loss: the gradient that flows in must not be taken for 1.
            let (whole, apart) = ((whole * 3.0)?.backward()?, (apart * 3.0)?.backward()?);
            for var in [&hidden, &head] {
                assert_close(whole.get(var).unwrap(), apart.get(var).unwrap());
            }
        }
        Ok(())
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let (hidden, head) = (random((2, 3), 1), random((4, 3), 2));
        assert!(next_token_of(&hidden, &head, &[Target::new(0)], 1.0).is_err());
        assert!(next_token_of(&hidden, &head, &[Target::new(0), Target::new(4)], 1.0).is_err());
        assert!(next_token_of(&hidden, &random((4, 5), 2), &[Target::new(0); 2], 1.0).is_err());
    }

    #[test]
    fn double_precision_goes_through_the_logits() -> Result<()> {
        let hidden = random((2, 3), 1).to_dtype(DType::F64)?;
        let head = random((4, 3), 2).to_dtype(DType::F64)?;
        let targets = [Target::new(0), Target::new(3)];
        let loss = next_token_of(&hidden, &head, &targets, 2.0)?;
        assert_eq!(loss.dtype(), DType::F64);
        Ok(())
    }
}
