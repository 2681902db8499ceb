//! Random numbers of a seed. The stream is part of what a seed means, so the generator is named:
//! ChaCha with eight rounds, keyed with the seed.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// A stream of random numbers that a seed and a purpose fix for ever.
#[derive(Debug)]
pub(crate) struct Random(ChaCha8Rng);

impl Random {
    /// The stream of `seed` for one purpose; streams of other purposes have nothing to do with it.
    pub(crate) fn new(seed: u64, purpose: u64) -> Self {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        let mut words = ChaCha8Rng::from_seed(key);
        words.set_stream(purpose);
        Self(words)
    }

    /// A fair number in `0 .. below`; 0 when `below` is 0.
    pub(crate) fn below(&mut self, below: usize) -> usize {
        let Some(last) = (below as u64).checked_sub(1) else {
            return 0;
        };
        // Numbers past the last whole multiple would favour the small remainders.
        let mask = u64::MAX >> last.leading_zeros().min(63);
        loop {
            let drawn = self.0.next_u64() & mask;
            if drawn <= last {
                return drawn as usize;
            }
        }
    }

    /// One of `choices`.
    ///
    /// # Panics
    /// When there are none; every list of this crate has some.
    pub(crate) fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    /// Puts `values` into a random order.
    pub(crate) fn shuffle<T>(&mut self, values: &mut [T]) {
        for last in (1..values.len()).rev() {
            values.swap(last, self.below(last + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_of_a_seed_never_changes() {
        let mut random = Random::new(42, 0);
        let drawn: Vec<usize> = (0..6).map(|_| random.below(1000)).collect();
        let mut again = Random::new(42, 0);
        assert_eq!(drawn, (0..6).map(|_| again.below(1000)).collect::<Vec<_>>());
        let mut other = Random::new(42, 1);
        assert_ne!(drawn, (0..6).map(|_| other.below(1000)).collect::<Vec<_>>());
    }

    #[test]
    fn draws_are_fair_and_in_range() {
        let mut random = Random::new(7, 3);
        let mut counts = [0usize; 3];
        for _ in 0..3000 {
            counts[random.below(3)] += 1;
        }
        assert!(counts.iter().all(|&count| count > 900), "{counts:?}");
        assert_eq!(random.below(0), 0);
        assert_eq!(random.below(1), 0);
    }

    #[test]
    fn a_shuffle_keeps_every_value() {
        let mut values: Vec<usize> = (0..100).collect();
        Random::new(1, 1).shuffle(&mut values);
        assert_ne!(values, (0..100).collect::<Vec<_>>());
        values.sort_unstable();
        assert_eq!(values, (0..100).collect::<Vec<_>>());
    }
}
