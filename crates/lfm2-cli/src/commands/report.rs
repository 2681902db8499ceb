//! What a finished answer took, in words and as JSON.

use lfm2::generate::{Finish, FinishReason};
use serde::Serialize;

/// The counts and speeds of an answer, for JSON.
#[derive(Debug, Serialize)]
pub(crate) struct Usage {
    finish: &'static str,
    prompt_tokens: usize,
    generated_tokens: usize,
    /// Tokens guessed ahead, and how many of them were right.
    drafted_tokens: usize,
    accepted_tokens: usize,
    /// Seconds until the first token.
    first_token_seconds: f64,
    prefill_tokens_per_second: Option<f64>,
    decode_tokens_per_second: Option<f64>,
}

impl Usage {
    pub(crate) fn new(finish: &Finish) -> Self {
        Self {
            finish: reason(finish),
            prompt_tokens: finish.prompt_tokens,
            generated_tokens: finish.generated_tokens,
            drafted_tokens: finish.drafted_tokens,
            accepted_tokens: finish.accepted_tokens,
            first_token_seconds: finish.prefill_time.as_secs_f64(),
            prefill_tokens_per_second: finish.prefill_speed(),
            decode_tokens_per_second: finish.decode_speed(),
        }
    }
}

/// One line for people.
pub(crate) fn summary(finish: &Finish) -> String {
    let speed = |speed: Option<f64>| speed.map_or(String::new(), |s| format!(", {s:.1} tokens/s"));
    let reused = match finish.reused_tokens {
        0 => String::new(),
        n => format!(" ({n} of them known)"),
    };
    let guesses = match (finish.drafted_tokens, finish.accepted_tokens) {
        (0, _) => String::new(),
        (drafted, accepted) => format!(", {accepted} of {drafted} guesses right"),
    };
    format!(
        "prompt: {} tokens{reused} in {:.2} s{}; answer: {} tokens in {:.2} s{}{guesses}; ended by {}",
        finish.prompt_tokens,
        finish.prefill_time.as_secs_f64(),
        speed(finish.prefill_speed()),
        finish.generated_tokens,
        finish.decode_time.as_secs_f64(),
        speed(finish.decode_speed()),
        reason(finish),
    )
}

fn reason(finish: &Finish) -> &'static str {
    match finish.reason {
        FinishReason::Stop(_) => "stop",
        FinishReason::Length => "length",
        FinishReason::Cancelled => "cancelled",
    }
}
