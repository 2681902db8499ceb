//! The arithmetic of merging, element by element.

use super::Combine;

/// The weighted changes of all models at one element as one change.
pub(super) fn combine(rule: Combine, weights: &[f64], changes: &[f64]) -> f64 {
    let weighted = || weights.iter().zip(changes).map(|(w, d)| w * d);
    let sum: f64 = weighted().sum();
    if rule == Combine::Sum {
        return sum;
    }
    let agrees = |x: f64| if sum >= 0.0 { x > 0.0 } else { x < 0.0 };
    let (mut total, mut taking_part) = (0.0, 0.0);
    for (x, weight) in weighted().zip(weights) {
        if agrees(x) {
            total += x;
            taking_part += weight;
        }
    }
    match rule {
        Combine::AgreeingMean if taking_part != 0.0 => total / taking_part,
        _ => total,
    }
}

/// The probabilities of the elements of a block to be kept: by the rank of the magnitude, ascending,
/// equals in their order, within each of the `inner` interleaved rows of `row` elements.
pub(super) fn ranked(
    changes: &[f64],
    (row, inner): (usize, usize),
    (density, epsilon): (f64, f64),
) -> Vec<f64> {
    let mut probabilities = vec![0.0; changes.len()];
    let mut order: Vec<usize> = Vec::with_capacity(row);
    let blocks = changes.len() / (row * inner).max(1);
    for start in (0..blocks).flat_map(|b| (0..inner).map(move |k| b * row * inner + k)) {
        let at = |i: usize| start + i * inner;
        order.clear();
        order.extend(0..row);
        order.sort_by(|&a, &b| changes[at(a)].abs().total_cmp(&changes[at(b)].abs()));
        for (rank, &i) in order.iter().enumerate() {
            let share = if row > 1 {
                rank as f64 / (row - 1) as f64
            } else {
                0.0
            };
            probabilities[at(i)] = (density - epsilon) + 2.0 * epsilon * share;
        }
    }
    probabilities
}

/// The weights of two points that lie `t` along the arc between them; of the line where the arc is
/// almost straight or a point is at the origin.
pub(super) fn slerp(t: f64, dot: f64, norms: f64) -> (f64, f64) {
    let cosine = dot / norms;
    if !cosine.is_finite() || cosine.abs() > 0.9995 {
        return (1.0 - t, t);
    }
    let angle = cosine.acos();
    (
        ((1.0 - t) * angle).sin() / angle.sin(),
        (t * angle).sin() / angle.sin(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signs_are_elected_by_weighted_mass() {
        let weights = [0.5, 0.3, 0.2];
        let changes = [1.0, -2.0, 3.0];
        assert!((combine(Combine::Sum, &weights, &changes) - 0.5).abs() < 1e-15);
        assert!((combine(Combine::AgreeingSum, &weights, &changes) - 1.1).abs() < 1e-15);
        let mean = combine(Combine::AgreeingMean, &weights, &changes);
        assert!((mean - 1.1 / 0.7).abs() < 1e-15);
        assert_eq!(combine(Combine::AgreeingMean, &weights, &[0.0; 3]), 0.0);
    }

    #[test]
    fn ranks_go_along_the_second_dimension() {
        // Two blocks of 2 rows by 2 columns: ranks are within columns.
        let changes = [1.0, -9.0, -2.0, 3.0, 0.5, 0.5, 0.1, 0.5];
        let found = ranked(&changes, (2, 2), (0.5, 0.25));
        assert_eq!(found, [0.25, 0.75, 0.75, 0.25, 0.75, 0.25, 0.25, 0.75]);
        assert_eq!(ranked(&[4.0, 5.0], (1, 2), (0.5, 0.25)), [0.25, 0.25]);
    }

    #[test]
    fn tr_06_slerp_has_exact_ends_and_a_line_for_zero_vectors() {
        assert_eq!(slerp(0.0, 0.3, 1.0), (1.0, 0.0));
        assert_eq!(slerp(1.0, 0.3, 1.0), (0.0, 1.0));
        assert_eq!(slerp(0.25, 0.0, 0.0), (0.75, 0.25));
        assert_eq!(slerp(0.25, 1.0, 1.0), (0.75, 0.25));
        let (a, b) = slerp(0.5, 0.0, 1.0);
        assert!((a - 0.5f64.sqrt()).abs() < 1e-15 && (a - b).abs() < 1e-15);
    }
}
