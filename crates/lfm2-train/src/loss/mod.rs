//! Losses as single operations with gradients in closed form.
//!
//! | I want | use |
//! |---|---|
//! | the next token, or only some of them | [`next_token`] |
//! | to learn from a teacher's likeliest tokens | [`distill`] |
//! | to prefer one answer to another | [`sequence_logprobs`], [`preference`] |
//! | texts found by their queries | [`retrieval`] |
//! | experts that are used evenly, by a gradient | [`switch_loss`], [`router_z_loss`] |
//!
//! Knows logits and numbers, not models or documents.

mod distill;
mod next_token;
mod number;
mod preference;
pub mod retrieval;
mod router;
mod rows;

pub use distill::{
    DistillTerms, Distillation, Form, TemperatureFactor, TopK, distill, distill_terms,
};
pub use next_token::{Target, next_token, perplexity, scored, sequence_logprobs, weight};
pub use preference::{
    Absolute, Answer, PairFacts, PairLoss, Preference, Reference, Relative, RewardUnit, preference,
    preference_terms,
};
pub use router::{router_z_loss, switch_loss};
