//! The masked next-token loss over packed logits.
//!
//! Knows logits and target ids, not models or documents. Both losses of pre-training and of
//! fine-tuning are this one: they differ only in which targets are scored.

use candle_core::{CpuStorage, CustomOp1, DType, Layout, Result, Shape, Tensor, WithDType, bail};
use rayon::prelude::*;

/// What a token should be followed by, and how much that counts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Target {
    /// The id of the token that follows.
    pub id: u32,
    /// Weight in the loss; 0 where the prediction is not scored.
    pub weight: f32,
}

impl Target {
    /// The target of a token whose prediction is not scored.
    pub const UNSCORED: Self = Self {
        id: u32::MAX,
        weight: 0.0,
    };

    /// A target of weight 1.
    pub fn new(id: u32) -> Self {
        Self { id, weight: 1.0 }
    }

    fn is_scored(self) -> bool {
        self.weight != 0.0
    }
}

/// Cross-entropy of next-token predictions: the weighted sum over scored tokens of
/// `ln sum(exp(logits)) - logits[target]`, divided by `divisor`.
///
/// * `logits`: `(tokens, vocab)`, `f32` or `f64`; half-precision logits are widened to `f32`.
/// * `targets`: one per token.
/// * `divisor`: the [`weight`] of all targets of the whole optimiser step, of which these may be a
///   part; 0 gives loss 0.
///
/// The gradient has a closed form, `weight * (softmax - onehot) / divisor`, so no graph as wide as the
/// vocabulary is built. Where nothing is scored, loss and gradient are exactly 0.
///
/// # Errors
/// When the shapes disagree, a target is outside the vocabulary, or the logits are not on the CPU.
pub fn next_token(logits: &Tensor, targets: &[Target], divisor: f64) -> Result<Tensor> {
    let (tokens, vocab) = logits.dims2()?;
    if tokens != targets.len() {
        bail!("{tokens} rows of logits for {} targets", targets.len());
    }
    if let Some(bad) = targets
        .iter()
        .find(|t| t.is_scored() && t.id as usize >= vocab)
    {
        bail!("target {} is outside a vocabulary of {vocab}", bad.id);
    }
    let logits = match logits.dtype() {
        DType::F32 | DType::F64 => logits.contiguous()?,
        _ => logits.to_dtype(DType::F32)?.contiguous()?,
    };
    let scale = if divisor == 0.0 { 0.0 } else { 1.0 / divisor };
    logits.apply_op1(NextToken {
        targets: targets.to_vec(),
        scale,
    })
}

/// How many of `targets` are scored.
pub fn scored(targets: &[Target]) -> usize {
    targets.iter().filter(|t| t.is_scored()).count()
}

/// The sum of the weights of `targets`.
pub fn weight(targets: &[Target]) -> f64 {
    targets.iter().map(|t| f64::from(t.weight)).sum()
}

/// `exp` of a mean loss per token.
pub fn perplexity(mean_loss: f64) -> f64 {
    mean_loss.exp()
}

struct NextToken {
    targets: Vec<Target>,
    scale: f64,
}

impl NextToken {
    /// The loss of each row, in `f64`, summed in row order: the same for any number of threads.
    fn loss<T: Number>(&self, logits: &[T], vocab: usize) -> f64 {
        let rows = logits.par_chunks(vocab).zip(&self.targets);
        let losses: Vec<f64> = rows.map(|(row, &target)| row_loss(row, target)).collect();
        losses.iter().sum::<f64>() * self.scale
    }

    fn gradient<T: Number>(&self, logits: &[T], vocab: usize, upstream: f64) -> Vec<T> {
        let mut gradient = vec![T::from_f64(0.0); logits.len()];
        let rows = gradient
            .par_chunks_mut(vocab)
            .zip(logits.par_chunks(vocab))
            .zip(&self.targets);
        rows.for_each(|((out, row), &target)| {
            if target.is_scored() {
                let scale = self.scale * upstream * f64::from(target.weight);
                row_gradient(out, row, target.id as usize, T::from_f64(scale));
            }
        });
        gradient
    }
}

impl CustomOp1 for NextToken {
    fn name(&self) -> &'static str {
        "next-token-loss"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let vocab = layout.shape().dims2()?.1;
        let loss = match storage {
            CpuStorage::F32(data) => {
                CpuStorage::F32(vec![self.loss(slice(data, layout)?, vocab) as f32])
            }
            CpuStorage::F64(data) => CpuStorage::F64(vec![self.loss(slice(data, layout)?, vocab)]),
            _ => bail!("the loss needs f32 or f64 logits"),
        };
        Ok((loss, Shape::from(())))
    }

    fn bwd(&self, logits: &Tensor, _loss: &Tensor, upstream: &Tensor) -> Result<Option<Tensor>> {
        let (shape, vocab) = (logits.shape().clone(), logits.dims2()?.1);
        let upstream = upstream.to_dtype(DType::F64)?.to_scalar::<f64>()?;
        let (storage, layout) = logits.storage_and_layout();
        let gradient = match &*storage {
            candle_core::Storage::Cpu(CpuStorage::F32(data)) => Tensor::from_vec(
                self.gradient(slice(data, layout)?, vocab, upstream),
                shape,
                logits.device(),
            )?,
            candle_core::Storage::Cpu(CpuStorage::F64(data)) => Tensor::from_vec(
                self.gradient(slice(data, layout)?, vocab, upstream),
                shape,
                logits.device(),
            )?,
            _ => bail!("the loss has a gradient for f32 and f64 logits on the CPU only"),
        };
        Ok(Some(gradient))
    }
}

fn slice<'a, T>(data: &'a [T], layout: &Layout) -> Result<&'a [T]> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&data[start..end]),
        None => bail!("the loss needs contiguous logits"),
    }
}

/// The two float types the loss is computed in.
trait Number:
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
fn largest<T: Number>(row: &[T]) -> T {
    row.iter()
        .copied()
        .fold(T::from_f64(f64::NEG_INFINITY), |best, x| {
            if x > best { x } else { best }
        })
}

fn row_loss<T: Number>(row: &[T], target: Target) -> f64 {
    if !target.is_scored() {
        return 0.0;
    }
    let largest = largest(row);
    let mut sum = 0.0;
    for &x in row {
        sum += (x - largest).exp().to_f64();
    }
    f64::from(target.weight) * (sum.ln() + largest.to_f64() - row[target.id as usize].to_f64())
}

fn row_gradient<T: Number>(out: &mut [T], row: &[T], target: usize, scale: T) {
    let largest = largest(row);
    let mut sum = 0.0;
    for (out, &x) in out.iter_mut().zip(row) {
        let e = (x - largest).exp();
        sum += e.to_f64();
        *out = e;
    }
    let factor = T::from_f64(scale.to_f64() / sum);
    for out in out.iter_mut() {
        *out *= factor;
    }
    out[target] -= scale;
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Var};

    fn random_logits(tokens: usize, vocab: usize) -> Vec<f64> {
        let mut rng = crate::rng::Rng::new(5);
        (0..tokens * vocab).map(|_| 3.0 * rng.normal()).collect()
    }

    #[test]
    fn the_gradient_agrees_with_finite_differences() -> Result<()> {
        let halved = Target { id: 6, weight: 0.5 };
        let targets = [Target::new(2), Target::UNSCORED, halved, Target::new(0)];
        let (tokens, vocab) = (4, 7);
        let data = random_logits(tokens, vocab);
        let loss_of = |data: &[f64]| -> Result<f64> {
            let logits = Tensor::from_slice(data, (tokens, vocab), &Device::Cpu)?;
            next_token(&logits, &targets, 5.0)?.to_scalar::<f64>()
        };
        let var = Var::from_vec(data.clone(), (tokens, vocab), &Device::Cpu)?;
        // A factor after the loss: the gradient that flows in must not be taken for 1.
        let loss = (next_token(&var, &targets, 5.0)? * 3.0)?;
        let grads = loss.backward()?;
        let gradient = grads.get(&var).unwrap().flatten_all()?.to_vec1::<f64>()?;
        for i in 0..data.len() {
            let (mut up, mut down) = (data.clone(), data.clone());
            up[i] += 1e-5;
            down[i] -= 1e-5;
            let expected = 3.0 * (loss_of(&up)? - loss_of(&down)?) / 2e-5;
            assert!(
                (gradient[i] - expected).abs() < 1e-8,
                "element {i}: {} and {expected}",
                gradient[i]
            );
        }
        Ok(())
    }

    #[test]
    fn nothing_scored_gives_loss_0_and_gradient_0() -> Result<()> {
        let var = Var::from_vec(vec![1f32, 2., 3., 4.], (2, 2), &Device::Cpu)?;
        let loss = next_token(&var, &[Target::UNSCORED, Target::UNSCORED], 0.0)?;
        assert_eq!(loss.to_scalar::<f32>()?, 0.0);
        let grads = loss.backward()?;
        assert_eq!(
            grads.get(&var).unwrap().to_vec2::<f32>()?,
            [[0.0, 0.0], [0.0, 0.0]]
        );
        Ok(())
    }

    #[test]
    fn huge_logits_stay_finite_and_bad_ones_do_not_hide() -> Result<()> {
        let huge = Tensor::new(&[[1e30f32, -1e30, 0.0]], &Device::Cpu)?;
        assert_eq!(
            next_token(&huge, &[Target::new(0)], 1.0)?.to_scalar::<f32>()?,
            0.0
        );
        let bad = Tensor::new(&[[0.0, f32::NAN, 1.0]], &Device::Cpu)?;
        assert!(
            next_token(&bad, &[Target::new(0)], 1.0)?
                .to_scalar::<f32>()?
                .is_nan()
        );
        Ok(())
    }

    #[test]
    fn a_target_outside_the_vocabulary_and_a_missing_target_are_refused() -> Result<()> {
        let logits = Tensor::zeros((2, 3), DType::F32, &Device::Cpu)?;
        assert!(
            next_token(&logits, &[Target::new(0), Target::new(3)], 2.0)
                .unwrap_err()
                .to_string()
                .contains("target 3")
        );
        assert!(next_token(&logits, &[Target::new(0)], 1.0).is_err());
        Ok(())
    }

    #[test]
    fn perplexity_of_a_uniform_guess_is_the_vocabulary() -> Result<()> {
        let logits = Tensor::zeros((3, 8), DType::F64, &Device::Cpu)?;
        let loss = next_token(&logits, &[1, 2, 3].map(Target::new), 3.0)?.to_scalar::<f64>()?;
        assert!((perplexity(loss) - 8.0).abs() < 1e-12);
        Ok(())
    }
}
