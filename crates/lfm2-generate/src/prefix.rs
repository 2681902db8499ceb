//! What a row of a cache has in common with a new prompt.

use lfm2_nn::{Cache, Decoder};

use crate::Result;

/// How many tokens at the start of `prompt` row `row` was fed already. The last token of the prompt
/// never counts: it is always fed, since its logits are needed.
pub(crate) fn known_len(cache: &Cache, row: usize, prompt: &[u32]) -> usize {
    let fed = cache.fed_ids(row);
    let common = fed
        .iter()
        .zip(prompt)
        .take_while(|(fed, id)| **fed == Some(**id));
    common.count().min(prompt.len().saturating_sub(1))
}

/// Cuts row `row` to its first `len` tokens.
pub(crate) fn keep(decoder: &dyn Decoder, cache: &mut Cache, row: usize, len: usize) -> Result<()> {
    if len == 0 {
        cache.clear_row(row);
    } else if len < cache.len(row) {
        decoder.rewind(cache, row, len)?;
    }
    Ok(())
}
