//! What tells one encoder from another, for embeddings that are kept.

use std::fmt::Write as _;
use std::sync::Arc;

use lfm2_hub::{Checkpoint, TensorSource};
use lfm2_text::LoadOptions;
use sha2::{Digest, Sha256};

use crate::Result;

/// Tensors of more elements are sampled.
const SMALL: usize = 1 << 18;
/// Pieces of a sample, and the elements or bytes of each.
const PIECES: usize = 64;
const PIECE: usize = 256;

/// SHA-256 over config, tokenizer, the way of loading, and the weights: small tensors whole, large ones
/// in pieces from the beginning to the end. Equal for every copy of a model, different after training.
pub(crate) fn id_of(
    kind: &str,
    checkpoint: &Checkpoint,
    parts: &[Arc<dyn TensorSource>],
    options: &LoadOptions,
) -> Result<String> {
    let mut hash = Sha256::new();
    let (device, accuracy) = (options.device.location(), options.accuracy);
    let loading = format!(
        "{device:?} {:?} {accuracy:?} {:?}",
        options.dtype, options.quantize
    );
    let config = checkpoint.config().to_string();
    for fact in [kind, &config, &loading] {
        feed(&mut hash, fact.as_bytes());
    }
    match checkpoint.info().tokenizer_json()? {
        Some(json) => feed(&mut hash, &json),
        None => feed(&mut hash, checkpoint.tokenizer()?.to_json()?.as_bytes()),
    }
    for source in parts {
        feed_tensors(&mut hash, &**source)?;
    }
    Ok(hex(&hash.finalize()))
}

fn feed_tensors(hash: &mut Sha256, source: &dyn TensorSource) -> Result<()> {
    let mut names = source.names();
    names.sort();
    for name in names {
        let Some(info) = source.info(&name) else {
            continue;
        };
        feed(
            hash,
            format!("{name} {:?} {:?}", info.shape, info.stored).as_bytes(),
        );
        if let Some(blocks) = source.blocks(&name)? {
            for (start, length) in samples(blocks.len()) {
                hash.update(blocks.get(start..start + length).unwrap_or_default());
            }
            continue;
        }
        for (start, length) in samples(info.shape.iter().product()) {
            for value in source.elements(&name, start..start + length)? {
                hash.update(value.to_le_bytes());
            }
        }
    }
    Ok(())
}

/// Where the sample of `length` things is taken: begin and length of each piece.
fn samples(length: usize) -> Vec<(usize, usize)> {
    if length <= SMALL {
        return vec![(0, length)];
    }
    let step = (length - PIECE) / (PIECES - 1);
    let last = length - PIECE;
    (0..PIECES)
        .map(|piece| (last - piece * step, PIECE))
        .collect()
}

/// Takes `bytes` in, so that nothing that follows can stand for a part of them.
pub(crate) fn feed(hash: &mut Sha256, bytes: &[u8]) {
    hash.update((bytes.len() as u64).to_le_bytes());
    hash.update(bytes);
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_reach_both_ends() {
        assert_eq!(samples(1000), [(0, 1000)]);
        let length = SMALL + 12_345;
        let found = samples(length);
        assert_eq!(found.len(), PIECES);
        let (first, last) = (found[PIECES - 1], found[0]);
        assert!(
            first.0 < PIECES && last.0 + last.1 == length,
            "{first:?} {last:?}"
        );
    }
}
