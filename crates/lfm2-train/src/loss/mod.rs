//! Losses as single operations with gradients in closed form.
//!
//! Knows logits and numbers, not models or documents.

mod next_token;

pub use next_token::{Target, next_token, perplexity, scored, weight};
