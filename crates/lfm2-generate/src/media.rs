//! [`Media`]: what stands in a prompt where messages have pictures or sound.

use std::fmt;

use crate::{Message, Result};

/// Puts tokens of pictures or sound where a chat template wrote placeholders.
///
/// The templates of the family write one token per part and know nothing else of it. What the part
/// shows, and which tokens that makes, is known to whoever decodes them: the tokens have to be ones that
/// the decoder [accepts](lfm2_nn::Decoder::accepts).
pub trait Media: fmt::Debug + Send + Sync {
    /// The prompt `ids`, rendered from `messages`, with every placeholder replaced. Called once per
    /// answer with the whole conversation, so what is expensive should be remembered.
    ///
    /// # Errors
    /// When a part is unknown or cannot be read, and [`Error::Cancelled`](crate::Error::Cancelled) when
    /// the work was stopped.
    fn fill(&self, ids: &[u32], messages: &[Message]) -> Result<Vec<u32>>;
}
