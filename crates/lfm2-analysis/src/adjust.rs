//! The correction of Benjamini and Hochberg for many tests at once.

/// Adjusted p-values, in the order given; something that is no number counts as 1.
pub fn benjamini_hochberg(p: &[f64]) -> Vec<f64> {
    let clean: Vec<f64> = p
        .iter()
        .map(|p| if p.is_nan() { 1.0 } else { *p })
        .collect();
    let count = clean.len() as f64;
    step_up(&clean, |p, rank| p * count / rank, 1.0)
}

/// [`benjamini_hochberg`] on natural logarithms, for p-values too small for a number.
pub fn benjamini_hochberg_ln(ln_p: &[f64]) -> Vec<f64> {
    let clean: Vec<f64> = ln_p
        .iter()
        .map(|p| if p.is_nan() { 0.0 } else { *p })
        .collect();
    let count = (clean.len() as f64).ln();
    step_up(&clean, |p, rank| p + (count - rank.ln()), 0.0)
}

/// From the largest value down, no adjusted value may exceed the one before, nor `most`.
fn step_up(values: &[f64], adjust: impl Fn(f64, f64) -> f64, most: f64) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut out = vec![most; values.len()];
    let mut least = most;
    for (rank, &at) in order.iter().enumerate().rev() {
        least = least.min(adjust(values[at], (rank + 1) as f64));
        out[at] = least;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worked_example_comes_out() {
        let found = benjamini_hochberg(&[0.01, 0.04, 0.03, 0.5, f64::NAN]);
        let expected = [0.05, 0.2 / 3.0, 0.2 / 3.0, 0.625, 1.0];
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-15, "{found} {expected}");
        }
        assert!(benjamini_hochberg(&[]).is_empty());
    }

    #[test]
    fn logarithms_are_adjusted_alike() {
        let p = [1e-300f64, 0.2, 0.03, 0.9, 1e-5, 0.03];
        let ln: Vec<f64> = p.iter().map(|p| p.ln()).collect();
        for (p, ln) in benjamini_hochberg(&p)
            .iter()
            .zip(benjamini_hochberg_ln(&ln))
        {
            assert!((p.ln() - ln).abs() < 1e-12);
        }
        let beyond = benjamini_hochberg_ln(&[-5000.0, -4000.0]);
        assert!((beyond[0] + 5000.0 - 2f64.ln()).abs() < 1e-9);
        assert_eq!(beyond[1], -4000.0);
    }
}
