//! Mutual information between a dimension, cut into bins of equal counts, and the side of the pair.

/// Edges of the bins; one less is the number of intervals between them.
pub const EDGES: usize = 10;

/// What one dimension tells about the side.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Information {
    /// In nats; at most `ln 2`.
    pub nats: f64,
    /// The quantiles that bound the bins, from the smallest value to the largest.
    pub edges: [f64; EDGES],
}

/// Mutual information between the side and the value of a dimension. The largest value has a bin of
/// its own behind the last edge. Values must be numbers; without any, the information is 0.
pub fn mutual_information(first: &[f64], second: &[f64]) -> Information {
    let mut sorted: Vec<f64> = first.iter().chain(second).copied().collect();
    if sorted.is_empty() {
        return Information {
            nats: 0.0,
            edges: [0.0; EDGES],
        };
    }
    sorted.sort_unstable_by(f64::total_cmp);
    let edges = std::array::from_fn(|k| quantile(&sorted, k));
    let bins = [count(first, &edges), count(second, &edges)];
    Information {
        nats: from_counts(&bins),
        edges,
    }
}

/// Edge `k`: a quantile by linear interpolation, with the rounding of numpy. Where an edge falls on
/// a value, a last digit decides about its bin.
fn quantile(sorted: &[f64], k: usize) -> f64 {
    let last = sorted.len() - 1;
    if k + 1 == EDGES {
        return sorted[last];
    }
    let share = k as f64 * (1.0 / (EDGES - 1) as f64);
    let place = last as f64 * share;
    let below = (place.floor() as usize).min(last);
    let (low, high) = (sorted[below], sorted[(below + 1).min(last)]);
    let rest = place - below as f64;
    if rest < 0.5 {
        low + (high - low) * rest
    } else {
        high - (high - low) * (1.0 - rest)
    }
}

/// How many values have each number of edges at or below them.
fn count(values: &[f64], edges: &[f64; EDGES]) -> [usize; EDGES + 1] {
    let mut counts = [0; EDGES + 1];
    for value in values {
        counts[edges.partition_point(|edge| edge <= value)] += 1;
    }
    counts
}

fn from_counts(bins: &[[usize; EDGES + 1]; 2]) -> f64 {
    let sides = bins.map(|side| side.iter().sum::<usize>() as f64);
    let total = sides[0] + sides[1];
    let mut nats = 0.0;
    for (counts, side) in bins.iter().zip(sides) {
        for (bin, &count) in counts.iter().enumerate() {
            if count > 0 {
                let both = (bins[0][bin] + bins[1][bin]) as f64;
                let count = count as f64;
                nats += count / total * (count * total / (side * both)).ln();
            }
        }
    }
    nats.max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides_apart_tell_all_and_sides_alike_nothing() {
        let low: Vec<f64> = (0..90).map(f64::from).collect();
        let high: Vec<f64> = (0..90).map(|i| f64::from(i) + 1000.0).collect();
        let told = mutual_information(&low, &high).nats;
        // The middle bin holds both sides.
        assert!(told > 0.6 && told <= 2f64.ln(), "{told}");
        let untold = mutual_information(&low, &low).nats;
        assert!(untold.abs() < 1e-15, "{untold}");
    }

    #[test]
    fn constant_and_missing_values_tell_nothing() {
        let found = mutual_information(&[3.0; 5], &[3.0; 5]);
        assert_eq!((found.nats, found.edges), (0.0, [3.0; EDGES]));
        assert_eq!(mutual_information(&[], &[]).nats, 0.0);
        assert_eq!(mutual_information(&[1.0], &[]).nats, 0.0);
    }

    #[test]
    fn edges_are_interpolated_between_values() {
        let values: Vec<f64> = (0..10).map(f64::from).collect();
        let found = mutual_information(&values[..5], &values[5..]);
        for (k, edge) in found.edges.iter().enumerate() {
            assert!((edge - k as f64).abs() < 1e-12);
        }
        assert_eq!(found.edges[0], 0.0);
        assert_eq!(found.edges[EDGES - 1], 9.0);
    }
}
