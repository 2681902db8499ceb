//! Embeddings with dimensions that are known to tell the sides apart.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// Embeddings of some pairs, and which dimensions tell the sides apart.
#[derive(Debug, Clone)]
pub(crate) struct Planted {
    pub(crate) first: Vec<f32>,
    pub(crate) second: Vec<f32>,
    pub(crate) dims: usize,
    pub(crate) strong: Vec<usize>,
}

/// About normal numbers.
pub(crate) fn noise(random: &mut ChaCha8Rng) -> f32 {
    let fraction = |random: &mut ChaCha8Rng| (random.next_u32() >> 8) as f32 / (1 << 24) as f32;
    (0..6).map(|_| fraction(random)).sum::<f32>() * 1.4 - 4.2
}

/// `pairs` pairs whose sides share most of their noise; `strong` dimensions differ by `shift`.
pub(crate) fn planted(
    pairs: usize,
    dims: usize,
    strong: &[usize],
    shift: f32,
    seed: u64,
) -> Planted {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let (mut first, mut second) = (Vec::new(), Vec::new());
    for _ in 0..pairs {
        for dim in 0..dims {
            let shared = noise(&mut random);
            first.push(shared + 0.4 * noise(&mut random));
            let by = if strong.contains(&dim) { shift } else { 0.0 };
            second.push(shared + 0.4 * noise(&mut random) + by);
        }
    }
    Planted {
        first,
        second,
        dims,
        strong: strong.to_vec(),
    }
}
