//! The seam between models and everything that generates with them.

use candle_core::{Device, Result, Tensor};

use crate::{Cache, CacheSpec, Step};

/// What a forward pass reads.
#[derive(Debug, Clone, Copy)]
pub enum Input<'a> {
    /// Packed token ids, `(tokens)`, `u32`.
    Ids(&'a Tensor),
    /// Packed input embeddings, `(tokens, hidden)`: where images or sound are spliced in.
    Embeddings(&'a Tensor),
}

/// What a forward pass returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// Logits of the last token of every segment, `(segments, vocab)`.
    LastLogits,
    /// Logits of every packed token, `(tokens, vocab)`.
    AllLogits,
    /// Hidden states after the final norm, `(tokens, hidden)`.
    Hidden,
}

/// A model that continues sequences.
///
/// Models are immutable and can be shared between threads; everything that changes is in the
/// [`Cache`].
pub trait Decoder: Send + Sync {
    /// The number of logits per token.
    fn vocab_size(&self) -> usize;

    /// Whether `id` can be fed: those of the vocabulary can. A model that reads more than text has ids
    /// of its own behind them, which are never drawn.
    fn accepts(&self, id: u32) -> bool {
        (id as usize) < self.vocab_size()
    }

    /// Where the weights are, and where ids have to be.
    fn device(&self) -> &Device;

    /// An empty cache that fits this model.
    fn new_cache(&self, spec: CacheSpec) -> Cache;

    /// Feeds the tokens of `step` to the sequences in `cache` and advances them.
    ///
    /// Feeding a sequence in pieces of any size gives the same result as feeding it at once.
    ///
    /// # Errors
    /// When shapes disagree, an id is outside the vocabulary, or the device fails. The cache is
    /// unusable for the rows of `step` afterwards until it is cleared.
    fn forward(
        &self,
        input: Input<'_>,
        step: &Step,
        cache: &mut Cache,
        want: Want,
    ) -> Result<Tensor>;

    /// Cuts row `row` back to its first `len` tokens, exactly.
    ///
    /// # Errors
    /// When the row is shorter than `len`, or was fed embeddings where ids are needed to replay.
    fn rewind(&self, cache: &mut Cache, row: usize, len: usize) -> Result<()>;
}
