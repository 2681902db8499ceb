//! Reading a row of logits: the best, the best few, and the normaliser.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use crate::Isa;
use crate::activation::{Max, SumShiftedExp};

/// Values that [`top_k`] looks at together: one comparison with the least value kept so far
/// dismisses most blocks.
const BLOCK: usize = 64;

/// The index of the largest value, the first of equals; NaN is never chosen.
///
/// `None` when there is nothing but NaN.
pub fn argmax(isa: Isa, values: &[f32]) -> Option<usize> {
    let max = isa.run(Max { values });
    values.iter().position(|&value| value == max)
}

/// `ln(sum(e^x))`, accurate for long rows and large values.
///
/// Negative infinity for an empty row, NaN for a row with NaN.
pub fn log_sum_exp(isa: Isa, values: &[f32]) -> f32 {
    log_sum_exp_wide(isa, values) as f32
}

/// [`log_sum_exp`] before it is rounded, for differences of such.
pub fn log_sum_exp_wide(isa: Isa, values: &[f32]) -> f64 {
    let max = isa.run(Max { values });
    if max.is_infinite() {
        return if values.iter().any(|value| value.is_nan()) {
            f64::NAN
        } else {
            f64::from(max)
        };
    }
    f64::from(max) + isa.run(SumShiftedExp { values, shift: max }).ln()
}

/// The `k` largest values with their indices, largest first; of equals, lower indices first.
///
/// NaN counts as less than everything. There are fewer than `k` when the row is shorter.
pub fn top_k(isa: Isa, values: &[f32], k: usize) -> Vec<(usize, f32)> {
    let k = k.min(values.len());
    if k == 0 {
        return Vec::new();
    }
    // The worst of those kept is on top.
    let mut kept = BinaryHeap::with_capacity(k + 1);
    for (block, content) in values.chunks(BLOCK).enumerate() {
        // Later indices lose against equals, so only a larger value can enter a full heap.
        if let Some(Kept(_, worst)) = kept.peek().filter(|_| kept.len() == k)
            && isa.run(Max { values: content }) <= *worst
        {
            continue;
        }
        for (offset, &value) in content.iter().enumerate() {
            kept.push(Kept(block * BLOCK + offset, value));
            if kept.len() > k {
                kept.pop();
            }
        }
    }
    kept.into_sorted_vec()
        .into_iter()
        .map(|Kept(index, value)| (index, value))
        .collect()
}

/// An index and its value, ordered from best to worst.
#[derive(Debug, Clone, Copy)]
struct Kept(usize, f32);

impl Ord for Kept {
    fn cmp(&self, other: &Self) -> Ordering {
        let rank = |value: f32| (value.is_nan(), -value);
        let (nan, value) = rank(self.1);
        let (other_nan, other_value) = rank(other.1);
        nan.cmp(&other_nan)
            .then(value.partial_cmp(&other_value).unwrap_or(Ordering::Equal))
            .then(self.0.cmp(&other.0))
    }
}

impl PartialOrd for Kept {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Kept {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Kept {}
