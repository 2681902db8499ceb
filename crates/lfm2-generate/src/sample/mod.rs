//! From logits to the next token.
//!
//! Transforms run in the reference's order: repetition penalty on the raw logits (prompt and
//! output), presence and frequency penalty (output only), logit bias, temperature, top-k, top-p,
//! min-p, softmax, draw. Log-probabilities are those of the raw logits, before any of it, so that
//! they measure the model and not the options. Nothing here knows of tensors or text.
//!
//! The vocabulary is large, so the usual settings never sort it: a greedy choice is one pass, and
//! top-k and min-p find a threshold and look only at what is above it.

mod history;
mod proposal;
mod random;
mod select;

use history::History;
pub use proposal::Proposal;
use random::RandomStream;

use crate::{Error, GenerationOptions, Result};

/// A token with its probability.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Candidate {
    /// The token.
    pub id: u32,
    /// Its probability after all transforms.
    pub probability: f32,
}

/// A token with its log-probability under the raw logits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TokenLogprob {
    /// The token.
    pub id: u32,
    /// Natural logarithm of its probability.
    pub logprob: f32,
}

/// A drawn token.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Token {
    /// The token.
    pub id: u32,
    /// Its log-probability, when [`GenerationOptions::logprobs`] asks for it.
    pub logprob: Option<f32>,
    /// The most likely tokens, most likely first, as many as asked for.
    pub top: Vec<TokenLogprob>,
}

/// Draws tokens for one sequence.
///
/// It remembers what the sequence contains, for the penalties. Random numbers come from ChaCha with
/// 12 rounds, seeded with the option's 8 bytes (little endian) followed by zeros. Every draw takes
/// one 64-bit word, whose upper 53 bits are a fraction of the kept probability mass, walked in the
/// order of ids; a greedy choice takes none.
///
/// ```
/// use lfm2_generate::{GenerationOptions, Sampler};
///
/// let mut sampler = Sampler::new(&GenerationOptions::greedy(), 3)?;
/// assert_eq!(sampler.sample(&mut [0.1, 2.0, -1.0])?.id, 1);
/// # Ok::<(), lfm2_generate::Error>(())
/// ```
#[derive(Debug)]
pub struct Sampler {
    options: GenerationOptions,
    history: History,
    random: RandomStream,
    // Kept between tokens: it can be as large as the vocabulary.
    candidates: Vec<Candidate>,
}

impl Sampler {
    /// A sampler for a model of `vocab` tokens.
    ///
    /// # Errors
    /// As [`GenerationOptions::validate`].
    pub fn new(options: &GenerationOptions, vocab: usize) -> Result<Self> {
        options.validate(vocab)?;
        Ok(Self {
            history: History::new(options),
            random: RandomStream::new(options.seed),
            options: options.clone(),
            candidates: Vec::new(),
        })
    }

    /// The seed of the random stream: the given one, or the one that was made up.
    pub fn seed(&self) -> u64 {
        self.random.seed()
    }

    /// Tells the sampler what the prompt contains, for the repetition penalty.
    pub fn observe_prompt(&mut self, ids: &[u32]) {
        self.history.observe_prompt(ids);
    }

    /// Draws the next token and remembers it.
    ///
    /// `logits` has one number per token of the vocabulary and is changed by penalties and bias.
    ///
    /// # Errors
    /// [`Error::Logits`] when a logit is NaN or positive infinity, or there is none;
    /// [`Error::NothingLeft`] when every token is forbidden.
    pub fn sample(&mut self, logits: &mut [f32]) -> Result<Token> {
        self.draw(logits, Self::choose)
    }

    fn draw(
        &mut self,
        logits: &mut [f32],
        choose: impl FnOnce(&mut Self, &mut [f32]) -> Result<u32>,
    ) -> Result<Token> {
        let raw = self
            .options
            .logprobs
            .map(|top| RawLogprobs::new(logits, top));
        let id = choose(self, logits)?;
        self.history.observe_output(id);
        Ok(match raw {
            None => Token {
                id,
                logprob: None,
                top: Vec::new(),
            },
            // The chosen logit may have been changed; `raw` knows what it was.
            Some(raw) => Token {
                id,
                logprob: Some(raw.of(id)),
                top: raw.top,
            },
        })
    }

    /// The distribution that [`sample`](Self::sample) would draw from, in the order of ids; a single
    /// candidate when greedy. Takes no random number and remembers nothing.
    ///
    /// # Errors
    /// As [`Sampler::sample`].
    pub fn distribution(&mut self, logits: &mut [f32]) -> Result<&[Candidate]> {
        self.history.penalise(logits);
        let largest = select::largest(logits)?;
        if self.options.temperature == 0.0 {
            let id = select::position(logits, largest);
            self.candidates.clear();
            self.candidates.push(Candidate {
                id,
                probability: 1.0,
            });
            return Ok(&self.candidates);
        }
        let mass = select::keep(logits, largest, &self.options, &mut self.candidates);
        for candidate in &mut self.candidates {
            candidate.probability = (f64::from(candidate.probability) / mass) as f32;
        }
        Ok(&self.candidates)
    }

    fn choose(&mut self, logits: &mut [f32]) -> Result<u32> {
        self.history.penalise(logits);
        let largest = select::largest(logits)?;
        if self.options.temperature == 0.0 {
            return Ok(select::position(logits, largest));
        }
        let mass = select::keep(logits, largest, &self.options, &mut self.candidates);
        self.pick(mass)
    }

    /// Draws one of the candidates, whose weights add up to `mass`.
    fn pick(&mut self, mass: f64) -> Result<u32> {
        let mut left = self.random.fraction() * mass;
        for candidate in &self.candidates {
            left -= f64::from(candidate.probability);
            if left < 0.0 {
                return Ok(candidate.id);
            }
        }
        // Rounding can leave a crumb of mass behind the last candidate.
        let last = self.candidates.iter().rev().find(|c| c.probability > 0.0);
        last.map(|c| c.id).ok_or(Error::NothingLeft)
    }
}

/// Log-probabilities of logits that are about to be changed.
struct RawLogprobs {
    logits: Vec<f32>,
    log_mass: f32,
    top: Vec<TokenLogprob>,
}

impl RawLogprobs {
    fn new(logits: &[f32], top: usize) -> Self {
        let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let mass: f64 = logits.iter().map(|x| f64::from((x - largest).exp())).sum();
        let log_mass = largest + mass.ln() as f32;
        let top = select::most_likely(logits, top);
        let top = top
            .into_iter()
            .map(|(id, x)| TokenLogprob {
                id,
                logprob: x - log_mass,
            })
            .collect();
        Self {
            logits: logits.to_vec(),
            log_mass,
            top,
        }
    }

    fn of(&self, id: u32) -> f32 {
        self.logits
            .get(id as usize)
            .map_or(f32::NEG_INFINITY, |x| x - self.log_mass)
    }
}
