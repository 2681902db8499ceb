//! Finding the tokens worth looking at in a vocabulary-sized slice of logits.

use std::cmp::Ordering;

use super::Candidate;
use crate::{Error, GenerationOptions, Result};

/// Independent running maxima: enough for the compiler to use wide registers.
const LANES: usize = 16;

/// The largest logit, in one pass that also looks for numbers no softmax can use.
pub(super) fn largest(logits: &[f32]) -> Result<f32> {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let mut unusable = [false; LANES];
    let mut see = |chunk: &[f32]| {
        for ((lane, bad), x) in lanes.iter_mut().zip(&mut unusable).zip(chunk) {
            *lane = if *x > *lane { *x } else { *lane };
            *bad |= x.is_nan() | (*x == f32::INFINITY);
        }
    };
    let (chunks, rest) = logits.as_chunks::<LANES>();
    chunks.iter().for_each(|chunk| see(chunk));
    see(rest);
    if unusable.contains(&true) {
        let position = logits
            .iter()
            .position(|x| x.is_nan() || *x == f32::INFINITY)
            .unwrap_or(0);
        return Err(Error::Logits {
            token: position,
            found: logits[position],
        });
    }
    match lanes.into_iter().fold(f32::NEG_INFINITY, f32::max) {
        f32::NEG_INFINITY => Err(Error::NothingLeft),
        largest => Ok(largest),
    }
}

/// The first token whose logit is `wanted`.
pub(super) fn position(logits: &[f32], wanted: f32) -> u32 {
    index(logits.iter().position(|x| *x == wanted).unwrap_or(0))
}

/// Writes the tokens that survive top-k, top-p and min-p to `kept`, in the order of ids, with
/// weights in place of probabilities, and returns the sum of the weights.
///
/// All three keep a beginning of the tokens in the order of their logits, so they can be decided
/// one after another on the weights `exp((logit - largest) / temperature)`; only top-p needs the
/// sum over what top-k left.
pub(super) fn keep(
    logits: &[f32],
    largest: f32,
    options: &GenerationOptions,
    kept: &mut Vec<Candidate>,
) -> f64 {
    let floor = match options.top_k {
        0 => f32::NEG_INFINITY,
        k => kth_largest(logits, k),
    };
    // Cheap test for what is certainly below min-p; unusable before top-p, which needs the sum.
    let scaled_floor = if options.top_p < 1.0 {
        f32::NEG_INFINITY
    } else {
        options.min_p.ln()
    };
    kept.clear();
    for (id, &x) in logits.iter().enumerate() {
        if x < floor || x == f32::NEG_INFINITY {
            continue;
        }
        // Subtracting first keeps extreme temperatures free of infinity / infinity.
        let scaled = (x - largest) / options.temperature;
        if scaled >= scaled_floor {
            kept.push(Candidate {
                id: index(id),
                probability: scaled.exp(),
            });
        }
    }
    if options.top_p < 1.0 {
        keep_mass(kept, f64::from(options.top_p));
        kept.retain(|c| c.probability >= options.min_p);
    }
    kept.iter().map(|c| f64::from(c.probability)).sum()
}

/// The `count` most likely tokens that are possible at all, most likely first.
pub(super) fn most_likely(logits: &[f32], count: usize) -> Vec<(u32, f32)> {
    if count == 0 {
        return Vec::new();
    }
    let floor = kth_largest(logits, count);
    let possible = |(_, x): &(usize, &f32)| **x >= floor && **x > f32::NEG_INFINITY;
    let mut top: Vec<(u32, f32)> = logits
        .iter()
        .enumerate()
        .filter(possible)
        .map(|(id, x)| (index(id), *x))
        .collect();
    top.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    top.truncate(count);
    top
}

/// The `k`-th largest logit; the smallest when there are fewer.
///
/// Collects up to twice `k` numbers above the best lower bound known, then raises the bound: nearly
/// every logit of a large vocabulary costs one comparison.
fn kth_largest(logits: &[f32], k: usize) -> f32 {
    if k >= logits.len() {
        return f32::NEG_INFINITY;
    }
    let mut bound = f32::NEG_INFINITY;
    let mut above: Vec<f32> = Vec::with_capacity(2 * k);
    for &x in logits {
        if x > bound {
            above.push(x);
            if above.len() == 2 * k {
                bound = cut(&mut above, k);
            }
        }
    }
    if above.len() >= k {
        cut(&mut above, k)
    } else {
        bound
    }
}

/// Keeps the `k` largest numbers and returns the smallest of them.
fn cut(numbers: &mut Vec<f32>, k: usize) -> f32 {
    let (_, kth, _) = numbers.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a));
    let kth = *kth;
    numbers.truncate(k);
    kth
}

/// Keeps the heaviest candidates, equal ones in the order of ids, until their weights reach `share`
/// of the whole; at least one. The result is in the order of ids.
fn keep_mass(candidates: &mut Vec<Candidate>, share: f64) {
    let wanted = share
        * candidates
            .iter()
            .map(|c| f64::from(c.probability))
            .sum::<f64>();
    // A few candidates nearly always hold the mass; sort all of them only when they do not.
    let mut sorted = 0;
    let mut taken = 0;
    let mut mass = 0.0;
    while taken < candidates.len() && (taken == 0 || mass < wanted) {
        if taken == sorted {
            sorted = (8 * sorted).max(256).min(candidates.len());
            sort_heaviest(&mut candidates[taken..], sorted - taken);
        }
        mass += f64::from(candidates[taken].probability);
        taken += 1;
    }
    candidates.truncate(taken);
    candidates.sort_unstable_by_key(|c| c.id);
}

/// Moves the `count` heaviest candidates to the front, sorted.
fn sort_heaviest(candidates: &mut [Candidate], count: usize) {
    let heavier = |a: &Candidate, b: &Candidate| -> Ordering {
        b.probability
            .total_cmp(&a.probability)
            .then(a.id.cmp(&b.id))
    };
    if count < candidates.len() {
        candidates.select_nth_unstable_by(count, heavier);
    }
    candidates[..count].sort_unstable_by(heavier);
}

/// Token ids are `u32`, so a vocabulary has no more.
fn index(position: usize) -> u32 {
    u32::try_from(position).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(logits: &[f32], options: &GenerationOptions) -> Vec<u32> {
        let mut candidates = Vec::new();
        let largest = largest(logits).unwrap();
        keep(logits, largest, options, &mut candidates);
        candidates.iter().map(|c| c.id).collect()
    }

    #[test]
    fn top_k_keeps_tokens_as_likely_as_the_last() {
        let neutral = GenerationOptions::neutral();
        assert_eq!(
            kept(&[1.0, 3.0, 2.0, 2.0, 0.0], &neutral.clone().with_top_k(2)),
            [1, 2, 3]
        );
        assert_eq!(
            kept(&[1.0, 3.0, 2.0, 2.0, 0.0], &neutral.clone().with_top_k(1)),
            [1]
        );
        assert_eq!(kept(&[1.0, 3.0], &neutral.with_top_k(100)), [0, 1]);
    }

    #[test]
    fn top_p_counts_what_top_k_left() {
        // Weights 4 : 2 : 1 : 1; of the first two, the first holds two thirds.
        let logits = [1f32.ln(), 4f32.ln(), 2f32.ln(), 1f32.ln()];
        let neutral = GenerationOptions::neutral();
        assert_eq!(kept(&logits, &neutral.clone().with_top_p(0.6)), [1, 2]);
        assert_eq!(
            kept(&logits, &neutral.clone().with_top_k(2).with_top_p(0.6)),
            [1]
        );
        assert_eq!(kept(&logits, &neutral.clone().with_top_p(0.0)), [1]);
        assert_eq!(kept(&logits, &neutral.with_top_p(0.999)), [0, 1, 2, 3]);
    }

    #[test]
    fn min_p_is_relative_to_the_most_likely() {
        let logits = [1f32.ln(), 4f32.ln(), 2f32.ln(), 3.9f32.ln()];
        let neutral = GenerationOptions::neutral();
        assert_eq!(kept(&logits, &neutral.clone().with_min_p(0.45)), [1, 2, 3]);
        assert_eq!(kept(&logits, &neutral.clone().with_min_p(1.0)), [1]);
        assert_eq!(
            kept(&logits, &neutral.with_top_p(0.9).with_min_p(0.6)),
            [1, 3]
        );
    }

    #[test]
    fn a_flat_distribution_is_cut_to_its_mass() {
        let logits = vec![0.0; 10_000];
        let ids = kept(&logits, &GenerationOptions::neutral().with_top_p(0.5));
        assert_eq!(ids, (0..5_000).collect::<Vec<u32>>());
    }

    #[test]
    fn the_largest_is_found_in_every_lane() {
        for at in 0..40 {
            let mut logits = vec![-1.0; 40];
            logits[at] = 5.0;
            assert_eq!(position(&logits, largest(&logits).unwrap()), at as u32);
            logits[at] = f32::NAN;
            assert!(matches!(largest(&logits), Err(Error::Logits { token, .. }) if token == at));
        }
    }

    #[test]
    fn most_likely_is_sorted_and_never_lists_the_impossible() {
        let logits = [0.0, f32::NEG_INFINITY, 2.0, 1.0, 2.0];
        assert_eq!(most_likely(&logits, 3), [(2, 2.0), (4, 2.0), (3, 1.0)]);
        assert_eq!(most_likely(&logits, 20).len(), 4);
    }
}
