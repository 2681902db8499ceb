//! Guessing tokens ahead, and checking all guesses in one pass of the model.
//!
//! Decoding reads every weight once per token. A pass over a few tokens reads them once too, so a
//! guess that turns out right is a token for nearly nothing. What is written stays the same: every
//! token is drawn from the model's own logits, and what was fed for a wrong guess is taken back.

mod drafter;
mod governor;
mod lookup;
mod speculator;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

pub(crate) use drafter::Drafter;
pub(crate) use speculator::{Speculator, Target};

/// Tokens that can be guessed ahead at once.
pub const MAX_DRAFT: usize = 32;

const DEFAULT_DRAFT: usize = 8;

/// How tokens are guessed ahead. No choice changes what is written, only how fast.
///
/// Tokens have the distribution they have without, after all penalties and cuts. The most likely
/// token, and guesses that are not [drawn](DraftChoice::Sampled), even give the very same text from the
/// same seed, as far as the model computes the same logits for a token alone and among others.
///
/// ```
/// use lfm2_generate::{GenerationOptions, Speculation};
///
/// let options = GenerationOptions::greedy().with_speculation(Speculation::lookup());
/// # options.validate(65_536)?;
/// # Ok::<(), lfm2_generate::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Speculation {
    /// One token per pass.
    #[default]
    Off,
    /// What followed the last time that the newest tokens occurred in prompt or output: for answers
    /// that quote, edit or repeat.
    PromptLookup {
        /// Tokens to guess at most; 1 to [`MAX_DRAFT`].
        #[serde(default = "default_draft")]
        max_draft: usize,
        /// How many of them.
        #[serde(default)]
        pace: Pace,
    },
    /// What a smaller model of the same vocabulary writes:
    /// [`Generator::with_draft`](crate::Generator::with_draft).
    DraftModel {
        /// Tokens to guess at most; 1 to [`MAX_DRAFT`].
        #[serde(default = "default_draft")]
        max_draft: usize,
        /// How many of them.
        #[serde(default)]
        pace: Pace,
        /// How the smaller model chooses.
        #[serde(default)]
        choice: DraftChoice,
    },
}

/// How many tokens are guessed ahead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pace {
    /// As many as pay, by the time that passes took and the share of guesses that was right; none
    /// where nothing pays.
    #[default]
    Adaptive,
    /// Always the most that is allowed: for measuring.
    Constant,
}

/// How a draft model chooses the tokens it proposes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DraftChoice {
    /// The most likely ones. The text of a seed stays what it is.
    #[default]
    Greedy,
    /// Drawn like the text itself; right more often where much is possible. The text of a seed is
    /// another one, of the same distribution.
    Sampled,
}

impl Speculation {
    /// Guesses from prompt and output.
    pub fn lookup() -> Self {
        Self::PromptLookup {
            max_draft: DEFAULT_DRAFT,
            pace: Pace::Adaptive,
        }
    }

    /// Guesses of the generator's draft model.
    pub fn draft_model() -> Self {
        Self::DraftModel {
            max_draft: DEFAULT_DRAFT,
            pace: Pace::Adaptive,
            choice: DraftChoice::Greedy,
        }
    }

    /// Sets how many tokens are guessed at most.
    pub fn with_max_draft(mut self, tokens: usize) -> Self {
        match &mut self {
            Self::Off => {}
            Self::PromptLookup { max_draft, .. } | Self::DraftModel { max_draft, .. } => {
                *max_draft = tokens;
            }
        }
        self
    }

    /// Sets how many of the allowed tokens are guessed.
    pub fn with_pace(mut self, new: Pace) -> Self {
        match &mut self {
            Self::Off => {}
            Self::PromptLookup { pace, .. } | Self::DraftModel { pace, .. } => *pace = new,
        }
        self
    }

    pub(crate) fn validate(self) -> Result<()> {
        match self {
            Self::Off => Ok(()),
            Self::PromptLookup { max_draft, .. } | Self::DraftModel { max_draft, .. } => {
                if (1..=MAX_DRAFT).contains(&max_draft) {
                    return Ok(());
                }
                let expected = format!("1 to {MAX_DRAFT} tokens");
                Err(Error::option("speculation", expected, &max_draft))
            }
        }
    }
}

fn default_draft() -> usize {
    DEFAULT_DRAFT
}
