//! What a generation gives: pieces of text, why it ended and what it took.

use std::fmt;
use std::time::Duration;

use crate::{StopCause, Token};

/// Text that came with one token.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Piece {
    /// The text that became certain; empty while a character or a possible stop string is open.
    pub text: String,
    /// The drawn token; `None` for text that was held back when the generation was cancelled.
    pub token: Option<Token>,
}

impl fmt::Display for Piece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Why a generation is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FinishReason {
    /// The text came to its end.
    Stop(StopCause),
    /// The number of tokens asked for, or the context, is used up.
    Length,
    /// [`Cancel`](crate::Cancel) was used.
    Cancelled,
}

/// What a finished generation took.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finish {
    /// Why it is over.
    pub reason: FinishReason,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Tokens of the prompt that were in the cache already.
    pub reused_tokens: usize,
    /// Tokens drawn, an end token included.
    pub generated_tokens: usize,
    /// Tokens that were guessed ahead and checked; see [`Speculation`](crate::Speculation).
    pub drafted_tokens: usize,
    /// Guessed tokens that became text.
    pub accepted_tokens: usize,
    /// From the first forward pass to the first token.
    pub prefill_time: Duration,
    /// From the first token to the end.
    pub decode_time: Duration,
}

impl Finish {
    /// Tokens per second after the first; `None` when there was only one.
    pub fn decode_speed(&self) -> Option<f64> {
        let tokens = self.generated_tokens.checked_sub(1).filter(|n| *n > 0)?;
        Some(tokens as f64 / self.decode_time.as_secs_f64())
    }

    /// Prompt tokens per second, reused ones left out; `None` when all were reused.
    pub fn prefill_speed(&self) -> Option<f64> {
        let tokens = self
            .prompt_tokens
            .checked_sub(self.reused_tokens)
            .filter(|n| *n > 0)?;
        Some(tokens as f64 / self.prefill_time.as_secs_f64())
    }
}

/// A whole answer.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Output {
    /// The text.
    pub text: String,
    /// The drawn tokens.
    pub tokens: Vec<Token>,
    /// How it ended.
    pub finish: Finish,
}

impl Output {
    /// The pieces of a generation put together.
    pub(crate) fn new(pieces: impl IntoIterator<Item = Piece>, finish: Finish) -> Self {
        let mut text = String::new();
        let mut tokens = Vec::new();
        for piece in pieces {
            text.push_str(&piece.text);
            tokens.extend(piece.token);
        }
        Self {
            text,
            tokens,
            finish,
        }
    }
}
