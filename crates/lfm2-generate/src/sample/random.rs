//! The random stream of a sampler; its form is part of the documented behaviour of
//! [`Sampler`](super::Sampler).

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};

use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

#[derive(Debug)]
pub(super) struct RandomStream {
    seed: u64,
    words: ChaCha12Rng,
}

impl RandomStream {
    pub(super) fn new(seed: Option<u64>) -> Self {
        // The standard library seeds its hash maps from the operating system.
        let seed = seed.unwrap_or_else(|| RandomState::new().build_hasher().finish());
        // Spelled out, because how `seed_from_u64` spreads its argument may change.
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        Self {
            seed,
            words: ChaCha12Rng::from_seed(bytes),
        }
    }

    /// Numbers that have nothing to do with those of [`new`](Self::new) with the same seed.
    pub(super) fn for_proposals(seed: u64) -> Self {
        let mut stream = Self::new(Some(seed));
        stream.words.set_stream(1);
        stream
    }

    pub(super) fn seed(&self) -> u64 {
        self.seed
    }

    /// A number in `0 .. 1` with 53 random bits.
    pub(super) fn fraction(&mut self) -> f64 {
        (self.words.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_of_a_seed_never_changes() {
        let mut stream = RandomStream::new(Some(42));
        let first: Vec<u64> = (0..3).map(|_| (stream.fraction() * 1e6) as u64).collect();
        // From the definition of ChaCha, worked out by another program.
        assert_eq!(first, [432_029, 161_078, 672_156]);
    }

    #[test]
    fn without_a_seed_streams_differ() {
        assert_ne!(
            RandomStream::new(None).seed(),
            RandomStream::new(None).seed()
        );
    }
}
