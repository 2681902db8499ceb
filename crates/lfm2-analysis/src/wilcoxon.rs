//! The signed-rank test of Wilcoxon: do the differences of pairs lean to one side?
//!
//! The tail of the normal distribution is the complementary error function of `libm`, which is exact
//! to the last digits far out, where statistics crates work with one minus the distribution; beyond
//! what an `f64` holds, a series gives its logarithm.

use std::f64::consts::{PI, SQRT_2};

use serde::{Deserialize, Serialize};

/// The largest sample whose exact distribution is counted out.
const EXACT: usize = 50;
/// From here on the tail is computed by its logarithm.
const FAR: f64 = 20.0;

/// The distribution that a signed-rank sum is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Null {
    /// The exact one for at most 50 differences without ties and zeros, otherwise the normal one.
    Auto,
    /// The normal distribution, corrected for ties, not for continuity.
    Normal,
}

/// What the signed-rank test says about one sample.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SignedRank {
    /// Differences other than zero.
    pub n: usize,
    /// Sum of the ranks of positive differences.
    pub rank_sum_positive: f64,
    /// Sum of the ranks of negative differences.
    pub rank_sum_negative: f64,
    /// The smaller of the two sums.
    pub statistic: f64,
    /// Sum of `t^3 - t` over groups of `t` equal sizes.
    pub ties: f64,
    /// The statistic in standard deviations from its mean; 0 without differences.
    pub z: f64,
    /// Chance of a statistic as small, on two sides; 1 without differences.
    pub p: f64,
    /// Its natural logarithm, also where `p` is too small for a number.
    pub ln_p: f64,
}

/// Tests whether `differences` lean to one side. Zeros are left out, equal sizes share their mean
/// rank. Differences must be numbers.
pub fn wilcoxon(differences: &[f64], null: Null) -> SignedRank {
    let mut sizes: Vec<f64> = differences.iter().copied().filter(|d| *d != 0.0).collect();
    sizes.sort_unstable_by(|a, b| a.abs().total_cmp(&b.abs()));
    let n = sizes.len();
    let (mut positive, mut negative, mut ties) = (0.0, 0.0, 0.0);
    let mut start = 0;
    while start < n {
        let size = sizes[start].abs();
        let len = sizes[start..]
            .iter()
            .take_while(|d| d.abs() == size)
            .count();
        // Ranks start at one.
        let rank = start as f64 + (len as f64 + 1.0) / 2.0;
        for difference in &sizes[start..start + len] {
            let sum = if *difference > 0.0 {
                &mut positive
            } else {
                &mut negative
            };
            *sum += rank;
        }
        ties += (len as f64).powi(3) - len as f64;
        start += len;
    }
    let statistic = f64::min(positive, negative);
    let (z, normal_p, normal_ln_p) = normal(n, statistic, ties);
    let is_exact = null == Null::Auto
        && n > 0
        && differences.len() <= EXACT
        && n == differences.len()
        && ties == 0.0;
    let p = if is_exact {
        exact(n, statistic)
    } else {
        normal_p
    };
    SignedRank {
        n,
        rank_sum_positive: positive,
        rank_sum_negative: negative,
        statistic,
        ties,
        z,
        p,
        ln_p: if is_exact { p.ln() } else { normal_ln_p },
    }
}

/// Standard score, p and its logarithm by the normal distribution.
fn normal(n: usize, statistic: f64, ties: f64) -> (f64, f64, f64) {
    if n == 0 {
        return (0.0, 1.0, 0.0);
    }
    let n = n as f64;
    let mean = n * (n + 1.0) / 4.0;
    let variance = (n * (n + 1.0) * (2.0 * n + 1.0) - ties / 2.0) / 24.0;
    let z = (statistic - mean) / variance.sqrt();
    let x = z.abs() / SQRT_2;
    (z, libm::erfc(x), ln_erfc(x))
}

/// The logarithm of the complementary error function, for `x` of zero and more.
fn ln_erfc(x: f64) -> f64 {
    if x < FAR {
        return libm::erfc(x).ln();
    }
    // exp(-x^2) / (x sqrt(pi)) times a series in 1 / (2 x^2), whose tenth term is below 1e-20 here.
    let step = -0.5 / (x * x);
    let mut term = 1.0;
    let mut sum = 1.0;
    for k in 1..10 {
        term *= step * f64::from(2 * k - 1);
        sum += term;
    }
    -x * x - (x * PI.sqrt()).ln() + sum.ln()
}

/// The exact chance on two sides of a sum of ranks of at most `statistic`, for `n` of at most
/// [`EXACT`] different sizes.
fn exact(n: usize, statistic: f64) -> f64 {
    let most = statistic as usize;
    // How many of the sets of the first ranks have each sum. Counts stay below 2^50, so they are exact.
    let mut sets = vec![0.0; most + 1];
    sets[0] = 1.0;
    for rank in 1..=n {
        for sum in (rank..=most).rev() {
            sets[sum] += sets[sum - rank];
        }
    }
    let below: f64 = sets.iter().sum();
    (2.0 * below / (n as f64).exp2()).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_sample_is_counted_out() {
        // Of the 32 sets of ranks 1 to 5, seven have a sum of at most 4, one of them empty.
        let found = wilcoxon(&[-1.0, 2.0, -3.0, 4.0, 5.0], Null::Auto);
        assert_eq!((found.n, found.statistic), (5, 4.0));
        assert_eq!(
            (found.rank_sum_positive, found.rank_sum_negative),
            (11.0, 4.0)
        );
        assert_eq!(found.p, 14.0 / 32.0);
        assert_eq!(wilcoxon(&[1.0], Null::Auto).p, 1.0);
    }

    #[test]
    fn every_exact_chance_is_that_of_all_signs() {
        for n in 1..=9usize {
            for signs in 0..1usize << n {
                let sample: Vec<f64> = (0..n)
                    .map(|i| (i + 1) as f64 * if signs >> i & 1 == 1 { 1.0 } else { -1.0 })
                    .collect();
                let found = wilcoxon(&sample, Null::Auto);
                let as_small = (0..1usize << n)
                    .map(|other| {
                        (0..n)
                            .filter(|i| other >> i & 1 == 1)
                            .map(|i| i + 1)
                            .sum::<usize>()
                    })
                    .filter(|sum| *sum as f64 <= found.statistic)
                    .count();
                let p = (2.0 * as_small as f64 / (1usize << n) as f64).min(1.0);
                assert_eq!(found.p, p, "{sample:?}");
            }
        }
    }

    #[test]
    fn ties_share_ranks_and_zeros_count_nothing() {
        let found = wilcoxon(&[0.0, 2.0, -2.0, 2.0, 1.0, 0.0], Null::Auto);
        assert_eq!((found.n, found.ties), (4, 24.0));
        assert_eq!(
            (found.rank_sum_positive, found.rank_sum_negative),
            (7.0, 3.0)
        );
        // Ties and zeros: the normal distribution, although the sample is small.
        let variance: f64 = (4.0 * 5.0 * 9.0 - 12.0) / 24.0;
        assert!((found.z - (3.0 - 5.0) / variance.sqrt()).abs() < 1e-15);
    }

    #[test]
    fn nothing_that_differs_says_nothing() {
        for sample in [&[][..], &[0.0; 7]] {
            let found = wilcoxon(sample, Null::Auto);
            assert_eq!((found.n, found.p, found.ln_p, found.z), (0, 1.0, 0.0, 0.0));
        }
    }

    #[test]
    fn the_logarithm_goes_on_where_numbers_end() {
        // One side only: the farther out, the larger the sample.
        for n in [1000usize, 1060, 2000, 100_000] {
            let sample: Vec<f64> = (1..=n).map(|i| i as f64).collect();
            let found = wilcoxon(&sample, Null::Auto);
            assert!(found.ln_p.is_finite() && found.ln_p < -300.0);
            if found.p > 1e-300 {
                assert!((found.p.ln() - found.ln_p).abs() < 1e-10);
            }
        }
        // Both forms meet; the reference is ln(erfc(25)) to twenty digits.
        let near = libm::erfc(20.0).ln();
        assert!((ln_erfc(20.0) - near).abs() < 1e-12 * near.abs());
        assert!((ln_erfc(25.0) + 628.792_039_174_071_7).abs() < 1e-9);
    }
}
