//! Losses over pairs of answers, one better than the other.
//!
//! Knows log-probabilities of whole answers, not models. Every member of the family is a relative part
//! (how far the better answer is ahead) plus an absolute part (what each answer is worth alone).

use candle_core::{CpuStorage, CustomOp2, DType, Layout, Result, Shape, Storage, Tensor, bail};
use serde::{Deserialize, Serialize};

use super::number::numbers;

/// What is asked of the lead of the better answer, `z`: the difference of rewards less the margin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Relative {
    /// Nothing.
    None,
    /// `-ln sigmoid(z)`, as in DPO.
    Logistic,
    /// `max(0, 1 - z)`, as in SLiC.
    Hinge,
    /// `(z' - 1 / (2 beta))^2` with `z'` the difference of log-ratios less the margin, as in IPO.
    Square,
}

/// What is asked of each answer alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Absolute {
    /// Nothing.
    None,
    /// APO-zero: the better answer becomes likelier, the worse one less likely.
    Zero,
    /// APO-down: both become less likely, the worse one more so.
    Down,
    /// The better answer stays likely: its cross-entropy per token.
    Imitate,
}

/// Whether rewards are per answer or per token of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RewardUnit {
    /// Of the whole answer: longer answers weigh more.
    Answer,
    /// The mean over the tokens of the answer.
    #[default]
    Token,
}

/// What log-probabilities are compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reference {
    /// Those of the model before the run.
    #[default]
    Base,
    /// Nothing, as in SimPO.
    None,
}

/// A member of the family.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Preference {
    /// The relative part.
    pub relative: Relative,
    /// The absolute part.
    pub absolute: Absolute,
    /// The weight of the absolute part.
    pub absolute_weight: f64,
    /// The scale of rewards.
    pub beta: f64,
    /// How far ahead the better answer has to be.
    pub margin: f64,
    /// Whether rewards are per answer or per token.
    pub unit: RewardUnit,
    /// What log-probabilities are compared with.
    pub reference: Reference,
}

/// The length-normalised mixture of DPO and APO-zero.
impl Default for Preference {
    fn default() -> Self {
        Self {
            relative: Relative::Logistic,
            absolute: Absolute::Zero,
            absolute_weight: 0.5,
            beta: 5.0,
            margin: 0.0,
            unit: RewardUnit::Token,
            reference: Reference::Base,
        }
    }
}

impl Preference {
    /// A loss with these parts; the rest as the default.
    pub fn new(relative: Relative, absolute: Absolute, absolute_weight: f64) -> Self {
        Self {
            relative,
            absolute,
            absolute_weight,
            ..Self::default()
        }
    }

    /// SimPO: no reference, rewards per token.
    pub fn simpo() -> Self {
        Self {
            reference: Reference::None,
            ..Self::new(Relative::Logistic, Absolute::None, 0.0)
        }
    }

    /// Sets the scale of rewards.
    pub fn with_beta(mut self, beta: f64) -> Self {
        self.beta = beta;
        self
    }

    /// Sets how far ahead the better answer has to be.
    pub fn with_margin(mut self, margin: f64) -> Self {
        self.margin = margin;
        self
    }

    /// Sets whether rewards are per answer or per token.
    pub fn with_unit(mut self, unit: RewardUnit) -> Self {
        self.unit = unit;
        self
    }

    /// Checks that every setting is in its range.
    ///
    /// # Errors
    /// [`InvalidOption`](crate::Error::InvalidOption) naming the field.
    pub fn validate(&self) -> crate::Result<()> {
        let wrong = |key: &str, expected: &str, found: f64| {
            let detail = format!("expected {expected}, found {found}");
            Err(crate::Error::option(
                format!("objective.loss.{key}"),
                detail,
            ))
        };
        if !(self.beta.is_finite() && self.beta > 0.0) {
            return wrong("beta", "a number above 0", self.beta);
        }
        if !self.margin.is_finite() {
            return wrong("margin", "a number", self.margin);
        }
        if !(self.absolute_weight.is_finite() && self.absolute_weight >= 0.0) {
            let found = self.absolute_weight;
            return wrong("absolute_weight", "a number of at least 0", found);
        }
        if self.relative == Relative::None && self.absolute == Absolute::None {
            let detail = "expected a relative or an absolute part, found neither";
            return Err(crate::Error::option("objective.loss.relative", detail));
        }
        Ok(())
    }

    /// The loss of one pair from its log-probabilities, and its derivatives.
    pub fn pair(&self, better: Answer, worse: Answer) -> PairLoss {
        let (ratio_better, step_better) = self.ratio(better);
        let (ratio_worse, step_worse) = self.ratio(worse);
        let (reward_better, reward_worse) = (self.beta * ratio_better, self.beta * ratio_worse);
        let lead = reward_better - reward_worse;
        let relative = self.relative(lead);
        let mut value = relative.value;
        // Derivatives by the two rewards, by the lead, and by the better log-probability itself.
        let (mut by_better, mut by_worse, mut by_lead) = (0.0, 0.0, relative.slope);
        let mut direct = 0.0;
        let weight = self.absolute_weight;
        match self.absolute {
            Absolute::None => {}
            Absolute::Zero => {
                let (up, down) = (sigmoid(reward_better), sigmoid(reward_worse));
                value += weight * ((1.0 - up) + down);
                by_better -= weight * up * (1.0 - up);
                by_worse += weight * down * (1.0 - down);
            }
            Absolute::Down => {
                let (down, ahead) = (sigmoid(reward_better), sigmoid(lead));
                value += weight * (down + (1.0 - ahead));
                by_better += weight * down * (1.0 - down);
                by_lead -= weight * ahead * (1.0 - ahead);
            }
            Absolute::Imitate => {
                value -= weight * better.logprob / better.tokens;
                direct -= weight / better.tokens;
            }
        }
        PairLoss {
            value,
            by_better: self.beta * step_better * (by_better + by_lead) + direct,
            by_worse: self.beta * step_worse * (by_worse - by_lead),
            lead,
        }
    }

    /// The log-ratio of an answer, and its derivative by the log-probability.
    fn ratio(&self, answer: Answer) -> (f64, f64) {
        let reference = match self.reference {
            Reference::Base => answer.reference,
            Reference::None => 0.0,
        };
        let per = match self.unit {
            RewardUnit::Answer => 1.0,
            RewardUnit::Token => answer.tokens,
        };
        ((answer.logprob - reference) / per, 1.0 / per)
    }

    fn relative(&self, lead: f64) -> Slope {
        let z = lead - self.margin;
        match self.relative {
            Relative::None => Slope {
                value: 0.0,
                slope: 0.0,
            },
            Relative::Logistic => Slope {
                value: softplus(-z),
                slope: -sigmoid(-z),
            },
            Relative::Hinge => Slope {
                value: (1.0 - z).max(0.0),
                slope: if z < 1.0 { -1.0 } else { 0.0 },
            },
            Relative::Square => {
                let off = lead / self.beta - self.margin - 0.5 / self.beta;
                Slope {
                    value: off * off,
                    slope: 2.0 * off / self.beta,
                }
            }
        }
    }
}

/// A value and its derivative.
struct Slope {
    value: f64,
    slope: f64,
}

/// `ln(1 + exp(x))` without overflow.
fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

fn sigmoid(x: f64) -> f64 {
    if x >= 0.0 {
        1.0 / (1.0 + (-x).exp())
    } else {
        let e = x.exp();
        e / (1.0 + e)
    }
}

/// What is known of an answer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Answer {
    /// Its log-probability under the model, summed over its tokens.
    pub logprob: f64,
    /// The same under the reference.
    pub reference: f64,
    /// The number of its tokens, at least 1.
    pub tokens: f64,
}

/// The loss of a pair.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PairLoss {
    /// The loss.
    pub value: f64,
    /// Its derivative by the log-probability of the better answer.
    pub by_better: f64,
    /// The same for the worse one.
    pub by_worse: f64,
    /// How far the better answer is ahead.
    pub lead: f64,
}

/// What the reference and the tokenizer know of a batch of pairs.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PairFacts {
    /// Log-probabilities of the better answers under the reference; zeros where there is none.
    pub reference_better: Vec<f64>,
    /// The same for the worse ones.
    pub reference_worse: Vec<f64>,
    /// Tokens of the better answers.
    pub tokens_better: Vec<usize>,
    /// Tokens of the worse ones.
    pub tokens_worse: Vec<usize>,
}

impl PairFacts {
    fn pairs(&self) -> Option<usize> {
        let n = self.tokens_better.len();
        let same = [
            self.tokens_worse.len(),
            self.reference_better.len(),
            self.reference_worse.len(),
        ];
        same.iter().all(|&len| len == n).then_some(n)
    }
}

/// The sum of the losses of pairs, divided by `divisor`.
///
/// * `better`, `worse`: log-probabilities of the answers, `(pairs)`, `f32` or `f64`, as of
///   [`sequence_logprobs`](super::sequence_logprobs).
/// * `divisor`: the pairs of the whole optimiser step; 0 gives loss 0.
///
/// # Errors
/// When the shapes disagree, an answer has no token, or the tensors are not on the CPU.
pub fn preference(
    better: &Tensor,
    worse: &Tensor,
    facts: &PairFacts,
    options: Preference,
    divisor: f64,
) -> Result<Tensor> {
    let pairs = better.dims1()?;
    if worse.dims1()? != pairs || facts.pairs() != Some(pairs) {
        bail!(
            "{pairs} better answers for {} worse ones and {facts:?}",
            worse.dims1()?
        );
    }
    let empty = |tokens: &[usize]| tokens.iter().position(|&n| n == 0);
    if let Some(pair) = empty(&facts.tokens_better).or_else(|| empty(&facts.tokens_worse)) {
        bail!("pair {pair}: an answer has no token");
    }
    let scale = if divisor == 0.0 { 0.0 } else { 1.0 / divisor };
    let op = Pairs {
        facts: facts.clone(),
        options,
        scale,
    };
    better.contiguous()?.apply_op2(&worse.contiguous()?, op)
}

/// The losses of every pair, without a graph. Arguments as in [`preference`].
///
/// # Errors
/// As [`preference`].
pub fn preference_terms(
    better: &Tensor,
    worse: &Tensor,
    facts: &PairFacts,
    options: Preference,
) -> Result<Vec<PairLoss>> {
    let values = |x: &Tensor| x.detach().to_dtype(DType::F64)?.to_vec1::<f64>();
    let op = Pairs {
        facts: facts.clone(),
        options,
        scale: 1.0,
    };
    Ok(op.terms(&values(better)?, &values(worse)?))
}

struct Pairs {
    facts: PairFacts,
    options: Preference,
    scale: f64,
}

impl Pairs {
    fn terms(&self, better: &[f64], worse: &[f64]) -> Vec<PairLoss> {
        let facts = &self.facts;
        let answer = |logprob: f64, reference: f64, tokens: usize| Answer {
            logprob,
            reference,
            tokens: tokens as f64,
        };
        let better = better
            .iter()
            .zip(&facts.reference_better)
            .zip(&facts.tokens_better)
            .map(|((&x, &r), &n)| answer(x, r, n));
        let worse = worse
            .iter()
            .zip(&facts.reference_worse)
            .zip(&facts.tokens_worse)
            .map(|((&x, &r), &n)| answer(x, r, n));
        better
            .zip(worse)
            .map(|(better, worse)| self.options.pair(better, worse))
            .collect()
    }
}

impl CustomOp2 for Pairs {
    fn name(&self) -> &'static str {
        "preference-loss"
    }

    fn cpu_fwd(
        &self,
        better: &CpuStorage,
        better_layout: &Layout,
        worse: &CpuStorage,
        worse_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let terms = self.terms(
            &numbers(better, better_layout)?,
            &numbers(worse, worse_layout)?,
        );
        let loss = self.scale * terms.iter().map(|t| t.value).sum::<f64>();
        let storage = match better {
            CpuStorage::F64(_) => CpuStorage::F64(vec![loss]),
            _ => CpuStorage::F32(vec![loss as f32]),
        };
        Ok((storage, Shape::from(())))
    }

    fn bwd(
        &self,
        better: &Tensor,
        worse: &Tensor,
        _loss: &Tensor,
        upstream: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let scale = self.scale * upstream.to_dtype(DType::F64)?.to_scalar::<f64>()?;
        let values = |x: &Tensor| -> Result<Vec<f64>> {
            match &*x.storage_and_layout().0 {
                Storage::Cpu(storage) => numbers(storage, x.layout()),
                _ => bail!("the loss has a gradient on the CPU only"),
            }
        };
        let terms = self.terms(&values(better)?, &values(worse)?);
        let gradient = |of: &Tensor, part: fn(&PairLoss) -> f64| {
            let data: Vec<f64> = terms.iter().map(|t| scale * part(t)).collect();
            Tensor::new(data, of.device())?.to_dtype(of.dtype())
        };
        Ok((
            Some(gradient(better, |t| t.by_better)?),
            Some(gradient(worse, |t| t.by_worse)?),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Var};
    use proptest::prelude::*;

    fn answer(logprob: f64, reference: f64, tokens: f64) -> Answer {
        Answer {
            logprob,
            reference,
            tokens,
        }
    }

    fn family() -> impl Strategy<Value = Preference> {
        let relative =
            prop::sample::select(vec![Relative::None, Relative::Logistic, Relative::Square]);
        let absolute = prop::sample::select(vec![
            Absolute::None,
            Absolute::Zero,
            Absolute::Down,
            Absolute::Imitate,
        ]);
        let unit = prop::sample::select(vec![RewardUnit::Answer, RewardUnit::Token]);
        let reference = prop::sample::select(vec![Reference::Base, Reference::None]);
        (relative, absolute, unit, reference, 0.05..4.0, -1.0..1.0).prop_map(
            |(relative, absolute, unit, reference, beta, margin)| Preference {
                unit,
                reference,
                beta,
                margin,
                ..Preference::new(relative, absolute, 0.7)
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn derivatives_are_the_slopes(
            options in family(), a in -40.0..0.0, b in -40.0..0.0, ra in -40.0..0.0, rb in -40.0..0.0,
            na in 1.0f64..30.0, nb in 1.0f64..30.0,
        ) {
            let (na, nb) = (na.floor(), nb.floor());
            let value = |a, b| options.pair(answer(a, ra, na), answer(b, rb, nb)).value;
            let found = options.pair(answer(a, ra, na), answer(b, rb, nb));
            let h = 1e-5;
            let better = (value(a + h, b) - value(a - h, b)) / (2.0 * h);
            let worse = (value(a, b + h) - value(a, b - h)) / (2.0 * h);
            let close = |x: f64, y: f64| (x - y).abs() < 1e-4 * x.abs().max(1.0);
            prop_assert!(close(found.by_better, better), "{} {better}", found.by_better);
            prop_assert!(close(found.by_worse, worse), "{} {worse}", found.by_worse);
        }
    }

    #[test]
    fn huge_leads_stay_finite() {
        for lead in [-1e6, 1e6] {
            let loss = Preference::default()
                .with_unit(RewardUnit::Answer)
                .pair(answer(lead, 0.0, 3.0), answer(0.0, 0.0, 3.0));
            assert!(loss.value.is_finite() && loss.by_better.is_finite() && loss.value >= 0.0);
        }
    }

    #[test]
    fn tr_08_equal_answers_teach_nothing_about_their_order() {
        let dpo = Preference::new(Relative::Logistic, Absolute::None, 0.0);
        let same = answer(-3.0, -2.0, 4.0);
        let loss = dpo.pair(same, same);
        assert!((loss.value - 2f64.ln()).abs() < 1e-12 && loss.lead == 0.0);
        assert_eq!(loss.by_better, -loss.by_worse);
    }

    #[test]
    fn tr_08_an_answer_without_tokens_is_refused() -> Result<()> {
        let one = Var::from_vec(vec![-1f32], 1, &Device::Cpu)?;
        let facts = PairFacts {
            reference_better: vec![0.0],
            reference_worse: vec![0.0],
            tokens_better: vec![1],
            tokens_worse: vec![0],
        };
        let error = preference(&one, &one, &facts, Preference::default(), 1.0).unwrap_err();
        assert!(error.to_string().contains("pair 0"), "{error}");
        Ok(())
    }

    #[test]
    fn settings_out_of_range_are_refused_by_name() {
        let message = |p: Preference| p.validate().unwrap_err().to_string();
        let nothing = Preference::new(Relative::None, Absolute::None, 0.0);
        assert!(message(nothing).contains("objective.loss.relative"));
        assert!(message(Preference::default().with_beta(0.0)).contains("objective.loss.beta"));
        assert!(
            message(Preference::default().with_margin(f64::NAN)).contains("objective.loss.margin")
        );
    }
}
