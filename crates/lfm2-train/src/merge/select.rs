//! The largest magnitudes of a stream, found without holding it.

use crate::Result;

/// Above how many candidates the search goes on by counting instead of sorting.
const HELD: u64 = 1 << 20;
/// Bits that are told apart in one pass.
const STEP: u32 = 16;

/// Where the largest magnitudes end: those above the threshold are kept, and the first few that are
/// equal to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// Bits of the threshold; magnitudes are not negative, so their bits are in their order.
    threshold: u64,
    /// How many that are equal to it are still to be kept.
    equal: u64,
}

impl Cut {
    /// Keeps everything.
    pub const ALL: Self = Self {
        threshold: 0,
        equal: u64::MAX,
    };
    /// Keeps nothing.
    pub const NONE: Self = Self {
        threshold: u64::MAX,
        equal: 0,
    };

    /// The cut that keeps the `keep` largest of the numbers that every call of `pass` hands over, by
    /// magnitude; of equal ones the first.
    ///
    /// # Errors
    /// Of `pass`.
    pub fn find(
        keep: u64,
        mut pass: impl FnMut(&mut dyn FnMut(f64)) -> Result<()>,
    ) -> Result<Self> {
        if keep == 0 {
            return Ok(Self::NONE);
        }
        // The upper `64 - shift` bits of the threshold are known to be `prefix`.
        let (mut prefix, mut shift, mut left) = (0u64, u64::BITS, keep);
        while shift > 0 {
            shift -= STEP;
            let mut counts = vec![0u64; 1 << STEP];
            pass(&mut |x| {
                let bits = bits(x);
                if above(bits, shift + STEP) == prefix {
                    counts[(bits >> shift) as usize & ((1 << STEP) - 1)] += 1;
                }
            })?;
            let mut bin = counts.len();
            let mut found = 0;
            while bin > 0 {
                bin -= 1;
                if counts[bin] >= left {
                    found = counts[bin];
                    break;
                }
                left -= counts[bin];
            }
            if found == 0 {
                return Ok(Self::ALL);
            }
            prefix = (prefix << STEP) | bin as u64;
            if found <= HELD {
                return Self::among(prefix, shift, left, &mut pass);
            }
        }
        Ok(Self {
            threshold: prefix,
            equal: left,
        })
    }

    /// The cut where the candidates with the upper bits `prefix` are few enough to be sorted.
    fn among(
        prefix: u64,
        shift: u32,
        keep: u64,
        pass: &mut impl FnMut(&mut dyn FnMut(f64)) -> Result<()>,
    ) -> Result<Self> {
        let mut candidates = Vec::new();
        pass(&mut |x| {
            if above(bits(x), shift) == prefix {
                candidates.push(bits(x));
            }
        })?;
        candidates.sort_unstable_by(|a, b| b.cmp(a));
        let last = (keep as usize).saturating_sub(1);
        let Some(&threshold) = candidates.get(last) else {
            return Ok(Self::ALL);
        };
        let larger = candidates.iter().take_while(|&&c| c > threshold).count() as u64;
        Ok(Self {
            threshold,
            equal: keep - larger,
        })
    }

    /// Whether the next number of the stream is kept. Has to be asked for all of them in order.
    pub fn keeps(&mut self, x: f64) -> bool {
        let bits = bits(x);
        if bits == self.threshold && self.equal > 0 {
            self.equal -= 1;
            return true;
        }
        bits > self.threshold
    }

    /// The cut for the first part of a stream, of which `equal` numbers are at the threshold; this
    /// one is left for the rest.
    pub(super) fn split(&mut self, equal: u64) -> Self {
        let first = self.equal.min(equal);
        self.equal -= first;
        Self {
            threshold: self.threshold,
            equal: first,
        }
    }

    /// Whether a number is exactly at the threshold.
    pub(super) fn is_at(&self, x: f64) -> bool {
        bits(x) == self.threshold
    }
}

fn bits(x: f64) -> u64 {
    x.abs().to_bits()
}

/// The bits of `bits` from `shift` up.
fn above(bits: u64, shift: u32) -> u64 {
    bits.checked_shr(shift).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Stable sort by falling magnitude, as a plain program would do it.
    fn naive(values: &[f64], keep: usize) -> Vec<bool> {
        let mut order: Vec<usize> = (0..values.len()).collect();
        order.sort_by(|&a, &b| values[b].abs().total_cmp(&values[a].abs()));
        let mut kept = vec![false; values.len()];
        order.iter().take(keep).for_each(|&i| kept[i] = true);
        kept
    }

    fn found(values: &[f64], keep: usize) -> Vec<bool> {
        let mut cut = Cut::find(keep as u64, |take| {
            values.iter().for_each(|&x| take(x));
            Ok(())
        })
        .unwrap();
        values.iter().map(|&x| cut.keeps(x)).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn the_largest_are_those_of_a_sort(
            values in prop::collection::vec((-4i32..5).prop_map(|n| f64::from(n) * 0.3), 1..40),
            share in 0.0..1.0f64,
        ) {
            let keep = (share * values.len() as f64) as usize;
            prop_assert_eq!(found(&values, keep), naive(&values, keep));
        }
    }

    #[test]
    fn more_equal_numbers_than_can_be_held_are_counted() {
        let n = HELD as usize + 5;
        let mut values = vec![0.25; n];
        values[n - 1] = 3.0;
        let kept = found(&values, 4);
        assert_eq!(kept.iter().filter(|k| **k).count(), 4);
        assert!(kept[0] && kept[1] && kept[2] && !kept[3] && kept[n - 1]);
    }

    #[test]
    fn everything_and_nothing() {
        let values = [0.0, -1.0, 2.0];
        assert_eq!(found(&values, 0), [false; 3]);
        assert_eq!(found(&values, 3), [true; 3]);
        assert_eq!(found(&values, 9), [true; 3]);
    }

    #[test]
    fn a_cut_is_split_between_parts_of_a_stream() {
        let mut cut = Cut {
            threshold: 1f64.to_bits(),
            equal: 3,
        };
        let mut first = cut.split(2);
        assert!(first.keeps(1.0) && first.keeps(-1.0) && !first.keeps(1.0));
        assert!(cut.keeps(1.0) && !cut.keeps(1.0) && cut.keeps(2.0));
    }
}
