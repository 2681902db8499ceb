//! The masked next-token loss over packed logits.
//!
//! Both losses of pre-training and of fine-tuning are this one: they differ only in which targets are
//! scored.

use candle_core::{Result, Tensor, bail};

use super::number::{Number, log_sum_exp, softmax};
use super::rows::{RowLoss, apply};

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
    let scale = if divisor == 0.0 { 0.0 } else { 1.0 / divisor };
    let loss = NextToken::new(logits.dims2()?, targets, scale)?;
    apply(logits, loss, &[targets.len()])?.squeeze(0)
}

/// The log-probability of every sequence of a pack: the weighted sum of
/// `logits[target] - ln sum(exp(logits))` over its scored tokens, `(sequences)`.
///
/// * `logits`: `(tokens, vocab)`, as in [`next_token`].
/// * `targets`: one per token.
/// * `lens`: tokens of every sequence, one after another.
///
/// # Errors
/// As [`next_token`], or when `lens` do not add up to the tokens.
pub fn sequence_logprobs(logits: &Tensor, targets: &[Target], lens: &[usize]) -> Result<Tensor> {
    apply(
        logits,
        NextToken::new(logits.dims2()?, targets, -1.0)?,
        lens,
    )
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

pub(super) struct NextToken {
    targets: Vec<Target>,
    scale: f64,
}

impl NextToken {
    /// For `tokens` rows of `vocab` logits.
    pub(super) fn new(
        (tokens, vocab): (usize, usize),
        targets: &[Target],
        scale: f64,
    ) -> Result<Self> {
        if tokens != targets.len() {
            bail!("{tokens} rows of logits for {} targets", targets.len());
        }
        if let Some(bad) = targets
            .iter()
            .find(|t| t.is_scored() && t.id as usize >= vocab)
        {
            bail!("target {} is outside a vocabulary of {vocab}", bad.id);
        }
        Ok(Self {
            targets: targets.to_vec(),
            scale,
        })
    }

    fn target(&self, row: usize) -> Option<Target> {
        self.targets.get(row).copied().filter(|t| t.is_scored())
    }
}

impl RowLoss for NextToken {
    const NAME: &'static str = "next-token-loss";

    fn value<T: Number>(&self, row: usize, logits: &[T]) -> f64 {
        let Some(target) = self.target(row) else {
            return 0.0;
        };
        let surprise = log_sum_exp(logits) - logits[target.id as usize].to_f64();
        self.scale * f64::from(target.weight) * surprise
    }

    fn gradient<T: Number>(&self, row: usize, logits: &[T], out: &mut [T], upstream: f64) {
        if let Some(target) = self.target(row) {
            let scale = self.scale * upstream * f64::from(target.weight);
            softmax(logits, out, scale);
            out[target.id as usize] -= T::from_f64(scale);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device, Var};

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

    #[test]
    fn sequences_have_the_sum_of_their_own_tokens() -> Result<()> {
        let data = random_logits(5, 4);
        let var = Var::from_vec(data, (5, 4), &Device::Cpu)?;
        let targets = [1, 2, 0, 3, 1].map(Target::new);
        let all = sequence_logprobs(&var, &targets, &[2, 3])?;
        let first = next_token(&var.narrow(0, 0, 2)?, &targets[..2], 1.0)?;
        let second = next_token(&var.narrow(0, 2, 3)?, &targets[2..], 1.0)?;
        let found = all.to_vec1::<f64>()?;
        assert!((found[0] + first.to_scalar::<f64>()?).abs() < 1e-12);
        assert!((found[1] + second.to_scalar::<f64>()?).abs() < 1e-12);
        // Only the second sequence takes part here.
        let grads = all.narrow(0, 1, 1)?.sum_all()?.backward()?;
        let gradient = grads.get(&var).unwrap().to_vec2::<f64>()?;
        assert!(gradient[..2].iter().flatten().all(|g| *g == 0.0));
        assert!(gradient[2..].iter().flatten().all(|g| *g != 0.0));
        assert!(sequence_logprobs(&var, &targets, &[2, 2]).is_err());
        Ok(())
    }
}
