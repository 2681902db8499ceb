//! Distillation from the largest logits of a teacher.
//!
//! Knows the teacher's list as numbers, not where it comes from. Notation of the comments: `S` is the
//! teacher's set, `p` and `q` the mass that teacher and student put on it, `tau` the temperature.

use candle_core::{Result, Tensor, bail};
use serde::{Deserialize, Serialize};

use super::number::{Number, log_add_exp, log_sum_exp_of};
use super::rows::{RowLoss, apply};

/// What a teacher says about the next token, for some tokens: the likeliest ids and their
/// probabilities.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TopK {
    /// Entries per token.
    pub k: usize,
    /// The ids, `k` per token, likeliest first.
    pub ids: Vec<u32>,
    /// Logarithms of their probabilities over the whole vocabulary.
    pub logprobs: Vec<f64>,
    /// Per token the logarithm of the probability of all other ids together; minus infinity or
    /// anything below -1e29 where there is none.
    pub log_tails: Vec<f64>,
}

impl TopK {
    /// The list of every row of logits, `(tokens, vocab)`: the `k` largest (all, where there are
    /// fewer), ties to the lower id.
    ///
    /// # Errors
    /// When the logits are not a matrix on the CPU, or `k` is 0.
    pub fn of_logits(logits: &Tensor, k: usize) -> Result<Self> {
        let (tokens, vocab) = logits.dims2()?;
        if k == 0 {
            bail!("a teacher's list of 0 ids");
        }
        let k = k.min(vocab);
        let rows = logits.to_dtype(candle_core::DType::F64)?;
        let mut list = Self {
            k,
            ids: Vec::with_capacity(tokens * k),
            logprobs: Vec::with_capacity(tokens * k),
            log_tails: Vec::with_capacity(tokens),
        };
        for row in 0..tokens {
            list.push(&rows.get(row)?.to_vec1::<f64>()?);
        }
        Ok(list)
    }

    fn push(&mut self, logits: &[f64]) {
        let mut order: Vec<u32> = (0..logits.len() as u32).collect();
        let by_value = |&a: &u32, &b: &u32| {
            logits[b as usize]
                .total_cmp(&logits[a as usize])
                .then(a.cmp(&b))
        };
        if self.k < order.len() {
            order.select_nth_unstable_by(self.k - 1, by_value);
        }
        let (inside, outside) = order.split_at_mut(self.k);
        inside.sort_unstable_by(by_value);
        // In the order of ids, so that the sum does not depend on the selection.
        outside.sort_unstable();
        let top = log_sum_exp_of(inside.iter().map(|&id| logits[id as usize]));
        let rest = log_sum_exp_of(outside.iter().map(|&id| logits[id as usize]));
        let all = log_add_exp(top, rest);
        self.logprobs
            .extend(inside.iter().map(|&id| logits[id as usize] - all));
        self.ids.extend_from_slice(inside);
        self.log_tails.push(rest - all);
    }

    /// The number of tokens.
    pub fn tokens(&self) -> usize {
        self.log_tails.len()
    }

    /// Appends the lists of `other`.
    ///
    /// # Errors
    /// When it has another number of entries per token.
    pub fn extend(&mut self, other: &Self) -> Result<()> {
        if self.tokens() == 0 {
            self.k = other.k;
        }
        if self.k != other.k {
            bail!("lists of {} ids beside lists of {}", other.k, self.k);
        }
        self.ids.extend_from_slice(&other.ids);
        self.logprobs.extend_from_slice(&other.logprobs);
        self.log_tails.extend_from_slice(&other.log_tails);
        Ok(())
    }

    fn check(&self, tokens: usize, vocab: usize) -> Result<()> {
        let entries = self.tokens() * self.k;
        if self.tokens() != tokens || self.ids.len() != entries || self.logprobs.len() != entries {
            bail!(
                "{} ids and {} probabilities for {tokens} tokens with {} each",
                self.ids.len(),
                self.logprobs.len(),
                self.k
            );
        }
        if self.k == 0 || self.k > vocab {
            bail!("lists of {} ids for a vocabulary of {vocab}", self.k);
        }
        for ids in self.ids.chunks(self.k) {
            let mut sorted = ids.to_vec();
            sorted.sort_unstable();
            if sorted.windows(2).any(|pair| pair[0] == pair[1]) {
                bail!("an id occurs twice in a teacher's list: {ids:?}");
            }
            if let Some(bad) = sorted.last().filter(|&&id| id as usize >= vocab) {
                bail!("the teacher's id {bad} is outside a vocabulary of {vocab}");
            }
        }
        Ok(())
    }
}

/// How teacher and student are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// The mass on the teacher's set without temperature, plus what happens inside the set with it:
    /// `KL(p, q) + p * KL_tau(P|S, Q|S)`.
    #[default]
    Decoupled,
    /// The set alone, tempered and normalised to 1. The student may move mass out of the set at no
    /// cost; it is here for comparison.
    Truncated,
}

/// Whether the tempered part is multiplied by the square of the temperature, which keeps the size of
/// its gradient.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TemperatureFactor {
    /// It is not.
    #[default]
    One,
    /// It is.
    Squared,
}

/// Settings of the distillation loss.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Distillation {
    /// The temperature.
    pub temperature: f64,
    /// How teacher and student are compared.
    pub form: Form,
    /// The factor of the tempered part.
    pub factor: TemperatureFactor,
}

impl Default for Distillation {
    fn default() -> Self {
        Self {
            temperature: 2.0,
            form: Form::Decoupled,
            factor: TemperatureFactor::One,
        }
    }
}

impl Distillation {
    /// Sets the temperature.
    pub fn with_temperature(mut self, temperature: f64) -> Self {
        self.temperature = temperature;
        self
    }

    /// Sets how teacher and student are compared.
    pub fn with_form(mut self, form: Form) -> Self {
        self.form = form;
        self
    }

    /// Sets the factor of the tempered part.
    pub fn with_factor(mut self, factor: TemperatureFactor) -> Self {
        self.factor = factor;
        self
    }

    /// Checks that every setting is in its range.
    ///
    /// # Errors
    /// [`InvalidOption`](crate::Error::InvalidOption) naming the field.
    pub fn validate(&self) -> crate::Result<()> {
        let key = "objective.loss";
        self.check()
            .map_err(|e| crate::Error::option(key, e.to_string()))
    }

    fn factor(&self) -> f64 {
        match self.factor {
            TemperatureFactor::One => 1.0,
            TemperatureFactor::Squared => self.temperature * self.temperature,
        }
    }

    fn check(&self) -> Result<()> {
        if !(self.temperature.is_finite() && self.temperature > 0.0) {
            bail!(
                "temperature {}: expected a number above 0",
                self.temperature
            );
        }
        Ok(())
    }
}

/// The parts of the decoupled loss of one token.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DistillTerms {
    /// `KL` between the masses on and off the teacher's set, without temperature.
    pub binary: f64,
    /// `KL` between the tempered distributions inside the set.
    pub conditional: f64,
    /// The teacher's mass on the set.
    pub teacher_mass: f64,
    /// The student's mass on the set.
    pub student_mass: f64,
}

/// The distance between a teacher and a student: the weighted sum over tokens, divided by `divisor`.
///
/// * `logits`: the student's, `(tokens, vocab)`, as in [`next_token`](super::next_token).
/// * `teacher`: its list for every token.
/// * `weights`: how much every token counts; 0 leaves it out.
/// * `divisor`: the sum of the weights of the whole optimiser step; 0 gives loss 0.
///
/// One operation with a gradient in closed form; sums are made in `f64`.
///
/// # Errors
/// When shapes disagree, an id is outside the vocabulary or occurs twice, the temperature is not
/// above 0, or the logits are not on the CPU.
pub fn distill(
    logits: &Tensor,
    teacher: &TopK,
    weights: &[f32],
    options: Distillation,
    divisor: f64,
) -> Result<Tensor> {
    let (tokens, vocab) = logits.dims2()?;
    options.check()?;
    teacher.check(tokens, vocab)?;
    if weights.len() != tokens {
        bail!("{} weights for {tokens} tokens", weights.len());
    }
    let scale = if divisor == 0.0 { 0.0 } else { 1.0 / divisor };
    let loss = Distill {
        teacher: teacher.clone(),
        weights: weights.iter().map(|&w| scale * f64::from(w)).collect(),
        options,
    };
    apply(logits, loss, &[tokens])?.squeeze(0)
}

/// The parts of the decoupled loss of every token, without a graph. Arguments as in [`distill`].
///
/// # Errors
/// As [`distill`].
pub fn distill_terms(
    logits: &Tensor,
    teacher: &TopK,
    options: Distillation,
) -> Result<Vec<DistillTerms>> {
    let (tokens, vocab) = logits.dims2()?;
    options.check()?;
    teacher.check(tokens, vocab)?;
    let rows = logits.detach().to_dtype(candle_core::DType::F64)?;
    let term = |row: usize| {
        let logits = rows.get(row)?.to_vec1::<f64>()?;
        let view = View::new(teacher, row, &logits, options.temperature);
        Ok(DistillTerms {
            binary: view.binary(),
            conditional: view.conditional(),
            teacher_mass: view.log_p.exp(),
            student_mass: view.log_q.exp(),
        })
    };
    (0..tokens).map(term).collect()
}

struct Distill {
    teacher: TopK,
    /// Per token, over the divisor.
    weights: Vec<f64>,
    options: Distillation,
}

impl Distill {
    fn weight(&self, row: usize) -> f64 {
        self.weights.get(row).copied().unwrap_or(0.0)
    }

    /// The weight of the tempered part.
    fn tempered(&self, view: &View<'_>) -> f64 {
        self.options.factor()
            * match self.options.form {
                Form::Decoupled => view.log_p.exp(),
                Form::Truncated => 1.0,
            }
    }
}

impl RowLoss for Distill {
    const NAME: &'static str = "distillation-loss";

    fn value<T: Number>(&self, row: usize, logits: &[T]) -> f64 {
        let weight = self.weight(row);
        if weight == 0.0 {
            return 0.0;
        }
        let view = View::new(&self.teacher, row, logits, self.options.temperature);
        let binary = match self.options.form {
            Form::Decoupled => view.binary(),
            Form::Truncated => 0.0,
        };
        weight * (binary + self.tempered(&view) * view.conditional())
    }

    fn gradient<T: Number>(&self, row: usize, logits: &[T], out: &mut [T], upstream: f64) {
        let weight = self.weight(row) * upstream;
        if weight == 0.0 {
            return;
        }
        let view = View::new(&self.teacher, row, logits, self.options.temperature);
        if self.options.form == Form::Decoupled {
            // `tail * q - p * (1 - q)`, and both masses off the set as numbers of their own: nothing
            // is lost where the teacher or the student is almost certain.
            let pull = weight
                * (view.log_tail.exp() * view.log_q.exp() - view.log_p.exp() * view.log_off.exp());
            let (factor, lse_off) = (T::from_f64(-pull), T::from_f64(view.lse_off));
            for gap in view.gaps() {
                for (out, &x) in out[gap.clone()].iter_mut().zip(&logits[gap]) {
                    *out = factor;
                    *out *= (x - lse_off).exp();
                }
            }
            for &id in view.ids {
                let x = logits[id as usize].to_f64();
                out[id as usize] = T::from_f64(pull * (x - view.lse_on).exp());
            }
        }
        let factor = weight * self.tempered(&view) / self.options.temperature;
        for (i, &id) in view.ids.iter().enumerate() {
            let (p, q) = view.pair(i);
            let so_far = out[id as usize].to_f64();
            out[id as usize] = T::from_f64(so_far + factor * (q.exp() - p.exp()));
        }
    }
}

/// One token: the teacher's list and the student's sums on and off it.
struct View<'a> {
    ids: &'a [u32],
    /// The ids in ascending order: between them are the logits off the set.
    sorted: Vec<u32>,
    vocab: usize,
    /// Logarithms of the teacher's mass on and off the set.
    log_p: f64,
    log_tail: f64,
    /// Logarithms of the student's mass on and off the set.
    log_q: f64,
    log_off: f64,
    /// Logarithms of the sums of the student's exponentials on and off the set.
    lse_on: f64,
    lse_off: f64,
    /// The tempered distributions inside the set, as logarithms: teacher, student.
    inside: Vec<(f64, f64)>,
}

impl<'a> View<'a> {
    fn new<T: Number>(teacher: &'a TopK, row: usize, logits: &[T], temperature: f64) -> Self {
        let of_row = row * teacher.k..(row + 1) * teacher.k;
        let (ids, logprobs) = (&teacher.ids[of_row.clone()], &teacher.logprobs[of_row]);
        let mut sorted = ids.to_vec();
        sorted.sort_unstable();
        let on: Vec<f64> = ids.iter().map(|&id| logits[id as usize].to_f64()).collect();
        let lse_on = log_sum_exp_of(on.iter().copied());
        let off = gaps(&sorted, logits.len()).flat_map(|gap| logits[gap].iter().copied());
        let lse_off = log_sum_exp_of(off);
        let lse = log_add_exp(lse_on, lse_off);
        let (student, student_sum) = tempered(&on, temperature);
        let (list, list_sum) = tempered(logprobs, temperature);
        let inside = list.iter().zip(&student);
        Self {
            log_p: log_sum_exp_of(logprobs.iter().copied()),
            log_tail: teacher.log_tails[row],
            log_q: lse_on - lse,
            log_off: lse_off - lse,
            lse_on,
            lse_off,
            inside: inside
                .map(|(t, s)| (t - list_sum, s - student_sum))
                .collect(),
            ids,
            vocab: logits.len(),
            sorted,
        }
    }

    fn gaps(&self) -> impl Iterator<Item = std::ops::Range<usize>> {
        gaps(&self.sorted, self.vocab)
    }

    /// Logarithms of the tempered probabilities of entry `i`: teacher, student.
    fn pair(&self, i: usize) -> (f64, f64) {
        self.inside[i]
    }

    /// `KL` of the masses on and off the set; 0 ln 0 is 0.
    fn binary(&self) -> f64 {
        let part = |teacher: f64, student: f64| {
            let mass = teacher.exp();
            if mass > 0.0 {
                mass * (teacher - student)
            } else {
                0.0
            }
        };
        let off = if self.ids.len() < self.vocab {
            part(self.log_tail, self.log_off)
        } else {
            0.0
        };
        part(self.log_p, self.log_q) + off
    }

    fn conditional(&self) -> f64 {
        let parts = self.inside.iter().map(|(p, q)| {
            let mass = p.exp();
            if mass > 0.0 { mass * (p - q) } else { 0.0 }
        });
        parts.sum()
    }
}

/// The values over the temperature, and the logarithm of the sum of their exponentials.
fn tempered(values: &[f64], temperature: f64) -> (Vec<f64>, f64) {
    let scaled: Vec<f64> = values.iter().map(|x| x / temperature).collect();
    let sum = log_sum_exp_of(scaled.iter().copied());
    (scaled, sum)
}

/// The ranges of `0..len` between the members of `sorted`.
fn gaps(sorted: &[u32], len: usize) -> impl Iterator<Item = std::ops::Range<usize>> + Clone {
    let starts = std::iter::once(0).chain(sorted.iter().map(|&id| id as usize + 1));
    let ends = sorted.iter().map(|&id| id as usize).chain([len]);
    starts.zip(ends).map(|(start, end)| start..end)
}

#[cfg(test)]
#[path = "distill_tests.rs"]
mod tests;
