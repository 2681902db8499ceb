//! What a caller can ask of a generation: [`GenerationOptions`].
//!
//! Options are plain values with public fields; they are checked where they are used, once, by
//! [`GenerationOptions::validate`], and trusted behind that.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{Error, Result, Speculation};

/// Stop strings per generation.
pub const MAX_STOP_STRINGS: usize = 16;
/// Bytes of one stop string.
pub const MAX_STOP_BYTES: usize = 256;
/// Entries of [`GenerationOptions::logit_bias`].
pub const MAX_LOGIT_BIAS: usize = 1024;
/// Entries of [`GenerationOptions::stop_ids`].
pub const MAX_STOP_IDS: usize = 1024;
/// Most likely tokens that can be reported per drawn token.
pub const MAX_TOP_LOGPROBS: usize = 20;

/// What the model's own end-of-text tokens do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EndTokens {
    /// They end the generation.
    #[default]
    Stop,
    /// Generation goes on behind them: for benchmarks.
    Ignore,
}

/// How to continue a prompt.
///
/// The [`Default`] is what the family's model cards recommend for most text checkpoints;
/// [`recommended`](crate::recommended) knows the exceptions by name. [`GenerationOptions::neutral`]
/// changes nothing about the model's distribution and [`GenerationOptions::greedy`] always takes the
/// most likely token.
///
/// ```
/// use lfm2_generate::GenerationOptions;
///
/// let options = GenerationOptions::default().with_seed(7).with_max_new_tokens(200).with_stop("\n\n");
/// options.validate(65_536)?;
/// # Ok::<(), lfm2_generate::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct GenerationOptions {
    /// Divides the logits; 0 takes the most likely token instead of drawing. At least 0.
    pub temperature: f32,
    /// Keeps the `top_k` most likely tokens, and those as likely as the last of them; 0 keeps all.
    pub top_k: usize,
    /// Keeps the most likely tokens until their probabilities add up to this; 1 keeps all, 0 keeps
    /// the most likely one. In `0 ..= 1`.
    pub top_p: f32,
    /// Keeps tokens at least this times as likely as the most likely one; 0 keeps all. In `0 ..= 1`.
    pub min_p: f32,
    /// Makes tokens that occur in the prompt or the output less likely (above 1) or more likely
    /// (below 1): positive logits are divided by it, negative ones multiplied. Above 0; 1 is off.
    pub repetition_penalty: f32,
    /// Is taken from the logit of every token that occurs in the output. In `-2 ..= 2`; 0 is off.
    pub presence_penalty: f32,
    /// Is taken from the logit of a token once per occurrence in the output. In `-2 ..= 2`; 0 is off.
    pub frequency_penalty: f32,
    /// Is added to the logits of these tokens. Negative infinity forbids a token.
    pub logit_bias: BTreeMap<u32, f32>,
    /// Start of the random stream; `None` takes a new one each time.
    ///
    /// The same seed, options and prompt give the same text with the same build, instruction set and
    /// number of threads.
    pub seed: Option<u64>,
    /// Tokens to write at most; clamped to what the context has room for.
    pub max_new_tokens: usize,
    /// Strings that end the text. They, and what follows, are not part of it.
    pub stop: Vec<String>,
    /// Token ids that end the text, besides the model's own.
    pub stop_ids: Vec<u32>,
    /// Reports the log-probability of every drawn token, and of this many most likely tokens
    /// (possibly 0) beside it.
    pub logprobs: Option<usize>,
    /// What the model's own end-of-text tokens do.
    pub end_tokens: EndTokens,
    /// Whether tokens are guessed ahead, which changes the speed and not the text. A
    /// [`Batch`](crate::Batch) guesses nothing.
    pub speculation: Speculation,
}

impl Default for GenerationOptions {
    fn default() -> Self {
        Self {
            temperature: 0.3,
            min_p: 0.15,
            repetition_penalty: 1.05,
            ..Self::neutral()
        }
    }
}

impl GenerationOptions {
    /// Draws from the model's distribution as it is.
    pub fn neutral() -> Self {
        Self {
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            logit_bias: BTreeMap::new(),
            seed: None,
            max_new_tokens: 4096,
            stop: Vec::new(),
            stop_ids: Vec::new(),
            logprobs: None,
            end_tokens: EndTokens::Stop,
            speculation: Speculation::Off,
        }
    }

    /// Always takes the most likely token.
    pub fn greedy() -> Self {
        Self {
            temperature: 0.0,
            ..Self::neutral()
        }
    }

    /// Sets [`temperature`](Self::temperature).
    pub fn with_temperature(mut self, temperature: f32) -> Self {
        self.temperature = temperature;
        self
    }

    /// Sets [`top_k`](Self::top_k).
    pub fn with_top_k(mut self, top_k: usize) -> Self {
        self.top_k = top_k;
        self
    }

    /// Sets [`top_p`](Self::top_p).
    pub fn with_top_p(mut self, top_p: f32) -> Self {
        self.top_p = top_p;
        self
    }

    /// Sets [`min_p`](Self::min_p).
    pub fn with_min_p(mut self, min_p: f32) -> Self {
        self.min_p = min_p;
        self
    }

    /// Sets [`repetition_penalty`](Self::repetition_penalty).
    pub fn with_repetition_penalty(mut self, penalty: f32) -> Self {
        self.repetition_penalty = penalty;
        self
    }

    /// Sets [`presence_penalty`](Self::presence_penalty).
    pub fn with_presence_penalty(mut self, penalty: f32) -> Self {
        self.presence_penalty = penalty;
        self
    }

    /// Sets [`frequency_penalty`](Self::frequency_penalty).
    pub fn with_frequency_penalty(mut self, penalty: f32) -> Self {
        self.frequency_penalty = penalty;
        self
    }

    /// Adds an entry to [`logit_bias`](Self::logit_bias).
    pub fn with_logit_bias(mut self, id: u32, bias: f32) -> Self {
        self.logit_bias.insert(id, bias);
        self
    }

    /// Sets [`seed`](Self::seed).
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Sets [`max_new_tokens`](Self::max_new_tokens).
    pub fn with_max_new_tokens(mut self, tokens: usize) -> Self {
        self.max_new_tokens = tokens;
        self
    }

    /// Adds a [stop string](Self::stop).
    pub fn with_stop(mut self, stop: impl Into<String>) -> Self {
        self.stop.push(stop.into());
        self
    }

    /// Adds a [stop id](Self::stop_ids).
    pub fn with_stop_id(mut self, id: u32) -> Self {
        self.stop_ids.push(id);
        self
    }

    /// Sets [`logprobs`](Self::logprobs).
    pub fn with_logprobs(mut self, top: usize) -> Self {
        self.logprobs = Some(top);
        self
    }

    /// Sets [`end_tokens`](Self::end_tokens).
    pub fn with_end_tokens(mut self, end_tokens: EndTokens) -> Self {
        self.end_tokens = end_tokens;
        self
    }

    /// Sets [`speculation`](Self::speculation).
    pub fn with_speculation(mut self, speculation: Speculation) -> Self {
        self.speculation = speculation;
        self
    }

    /// Checks every option for a model of `vocab` tokens.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] names the first option that is out of its range, with the range.
    pub fn validate(&self, vocab: usize) -> Result<()> {
        self.check_numbers()?;
        self.check_counts()?;
        self.check_stop_strings()?;
        self.speculation.validate()?;
        for (id, bias) in &self.logit_bias {
            check_id("logit_bias", *id, vocab)?;
            if bias.is_nan() || *bias == f32::INFINITY {
                return Err(Error::option("logit_bias", "numbers below infinity", bias));
            }
        }
        self.stop_ids
            .iter()
            .try_for_each(|id| check_id("stop_ids", *id, vocab))
    }

    fn check_numbers(&self) -> Result<()> {
        let range = |option, value: f32, low: f32, high: f32| match value >= low && value <= high {
            true => Ok(()),
            false if high == f32::MAX => Err(Error::option(
                option,
                format!("a number from {low}"),
                &value,
            )),
            false => Err(Error::option(
                option,
                format!("a number in {low} ..= {high}"),
                &value,
            )),
        };
        range("temperature", self.temperature, 0.0, f32::MAX)?;
        range("top_p", self.top_p, 0.0, 1.0)?;
        range("min_p", self.min_p, 0.0, 1.0)?;
        range("presence_penalty", self.presence_penalty, -2.0, 2.0)?;
        range("frequency_penalty", self.frequency_penalty, -2.0, 2.0)?;
        if !(self.repetition_penalty > 0.0 && self.repetition_penalty.is_finite()) {
            return Err(Error::option(
                "repetition_penalty",
                "a number above 0",
                &self.repetition_penalty,
            ));
        }
        Ok(())
    }

    fn check_counts(&self) -> Result<()> {
        let counts = [
            ("stop", self.stop.len(), MAX_STOP_STRINGS),
            ("stop_ids", self.stop_ids.len(), MAX_STOP_IDS),
            ("logit_bias", self.logit_bias.len(), MAX_LOGIT_BIAS),
            ("logprobs", self.logprobs.unwrap_or(0), MAX_TOP_LOGPROBS),
        ];
        match counts.into_iter().find(|(_, found, limit)| found > limit) {
            Some((option, found, limit)) => {
                Err(Error::option(option, format!("at most {limit}"), &found))
            }
            None => Ok(()),
        }
    }

    fn check_stop_strings(&self) -> Result<()> {
        match self
            .stop
            .iter()
            .find(|stop| stop.is_empty() || stop.len() > MAX_STOP_BYTES)
        {
            Some(stop) => Err(Error::option(
                "stop",
                format!("1 to {MAX_STOP_BYTES} bytes each"),
                &format!("{} bytes", stop.len()),
            )),
            None => Ok(()),
        }
    }

    /// The ids that end the text, given the model's own.
    pub(crate) fn all_stop_ids(&self, model: &[u32]) -> BTreeSet<u32> {
        let model = match self.end_tokens {
            EndTokens::Stop => model,
            EndTokens::Ignore => &[],
        };
        model.iter().chain(&self.stop_ids).copied().collect()
    }
}

fn check_id(option: &'static str, id: u32, vocab: usize) -> Result<()> {
    match usize::try_from(id) {
        Ok(index) if index < vocab => Ok(()),
        _ => Err(Error::option(
            option,
            format!("ids below the vocabulary of {vocab}"),
            &id,
        )),
    }
}
