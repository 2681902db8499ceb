//! Losses as single operations with gradients in closed form.
//!
//! | I want | use |
//! |---|---|
//! | the next token, or only some of them | [`next_token`], [`next_token_of`] |
//! | to learn from a teacher's likeliest tokens | [`distill`] |
//! | to prefer one answer to another | [`sequence_logprobs`], [`preference`] |
//! | texts found by their queries | [`retrieval`] |
//! | experts that are used evenly, by a gradient | [`switch_loss`], [`router_z_loss`] |
//!
//! Knows logits and numbers, not models or documents.
//!
//! ```
//! use candle_core::{Device, Tensor, Var};
//! use lfm2_train::loss::{Distillation, TopK, distill};
//!
//! let teacher = Tensor::new(&[[2f32, 1.0, 0.0, -1.0]], &Device::Cpu)?;
//! let student = Var::new(&[[0f32, 0.0, 0.0, 0.0]], &Device::Cpu)?;
//! let list = TopK::of_logits(&teacher, 2)?;
//! let loss = distill(&student, &list, &[1.0], Distillation::default(), 1.0)?;
//! let grads = loss.backward()?;
//! // Descending makes what the teacher likes likelier.
//! assert!(grads.get(&student).is_some_and(|g| g.to_vec2::<f32>().is_ok_and(|g| g[0][0] < 0.0)));
//! # Ok::<(), candle_core::Error>(())
//! ```

mod distill;
mod head;
mod next_token;
mod number;
mod preference;
pub mod retrieval;
mod router;
mod rows;

pub use distill::{
    DistillTerms, Distillation, Form, TemperatureFactor, TopK, distill, distill_terms,
};
pub use head::next_token_of;
pub use next_token::{Target, next_token, perplexity, scored, sequence_logprobs, weight};
pub use preference::{
    Absolute, Answer, PairFacts, PairLoss, Preference, Reference, Relative, RewardUnit, preference,
    preference_terms,
};
pub use router::{router_z_loss, switch_loss};
