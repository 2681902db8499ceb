//! Choosing a token or a code.

use candle_core::{Error, Result, bail};
use lfm2_kernels::{argmax, top_k};
use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// How one of several is chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// What logits are divided by; `None` or 0 chooses the best.
    pub temperature: Option<f32>,
    /// How many of the best may be chosen, and all that equal the last of them; `None` is all.
    pub top_k: Option<usize>,
}

impl Sampling {
    /// Always the best.
    pub const GREEDY: Self = Self {
        temperature: None,
        top_k: None,
    };

    /// One of the `top_k` best.
    pub fn new(temperature: f32, top_k: usize) -> Self {
        Self {
            temperature: Some(temperature),
            top_k: Some(top_k),
        }
    }

    /// The temperature, when there is anything to choose.
    fn random(&self) -> Option<f32> {
        self.temperature
            .filter(|t| *t > 0.0 && self.top_k != Some(1))
    }
}

/// Chooses, with a stream of random numbers of its own.
#[derive(Debug)]
pub(super) struct Chooser {
    words: ChaCha12Rng,
}

impl Chooser {
    pub(super) fn new(seed: u64) -> Self {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        Self {
            words: ChaCha12Rng::from_seed(bytes),
        }
    }

    /// The index of the chosen logit.
    pub(super) fn choose(&mut self, logits: &[f32], how: Sampling) -> Result<u32> {
        let isa = crate::isa()?;
        let Some(best) = argmax(isa, logits) else {
            bail!("no logit is a number")
        };
        let Some(temperature) = how.random() else {
            return u32::try_from(best).map_err(Error::wrap);
        };
        let least = match how.top_k {
            Some(k) => top_k(isa, logits, k).last().map_or(f32::MIN, |last| last.1),
            None => f32::MIN,
        };
        let largest = f64::from(logits[best]);
        let weight = |logit: f32| {
            if logit >= least {
                ((f64::from(logit) - largest) / f64::from(temperature)).exp()
            } else {
                0.0
            }
        };
        let total: f64 = logits.iter().map(|logit| weight(*logit)).sum();
        let mut left = total * self.fraction();
        for (index, logit) in (0u32..).zip(logits) {
            let weight = weight(*logit);
            if weight > 0.0 && left < weight {
                return Ok(index);
            }
            left -= weight;
        }
        u32::try_from(best).map_err(Error::wrap)
    }

    /// A number in `0 .. 1` with 53 random bits.
    fn fraction(&mut self) -> f64 {
        (self.words.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_temperature_or_one_candidate_is_greedy() -> Result<()> {
        let logits = [0.5, 3.0, 3.0, -1.0];
        let mut chooser = Chooser::new(1);
        for how in [
            Sampling::GREEDY,
            Sampling::new(0.0, 3),
            Sampling::new(2.0, 1),
        ] {
            assert_eq!(chooser.choose(&logits, how)?, 1);
        }
        assert!(chooser.choose(&[f32::NAN], Sampling::GREEDY).is_err());
        Ok(())
    }

    #[test]
    fn chosen_ones_are_among_the_best_as_often_as_they_should() -> Result<()> {
        // Two of equal rank stay, though only one fits.
        let logits = [1.0, f32::NAN, 2.0, 1.0, -5.0];
        let mut chooser = Chooser::new(7);
        let mut counts = [0usize; 5];
        for _ in 0..20_000 {
            counts[chooser.choose(&logits, Sampling::new(1.0, 2))? as usize] += 1;
        }
        assert_eq!([counts[1], counts[4]], [0, 0]);
        let share = |n: usize| n as f64 / 20_000.0;
        let expected = 1.0 / (1.0 + 2.0 * (-1f64).exp());
        assert!((share(counts[2]) - expected).abs() < 0.02);
        assert!((share(counts[0]) - share(counts[3])).abs() < 0.02);
        Ok(())
    }

    #[test]
    fn a_seed_gives_the_same_choices() -> Result<()> {
        let logits: Vec<f32> = (0..50).map(|i| (i % 7) as f32).collect();
        let run = |seed| -> Result<Vec<u32>> {
            let mut chooser = Chooser::new(seed);
            (0..20)
                .map(|_| chooser.choose(&logits, Sampling::new(1.0, 40)))
                .collect()
        };
        assert_eq!(run(3)?, run(3)?);
        assert_ne!(run(3)?, run(4)?);
        Ok(())
    }
}
