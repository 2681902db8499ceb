//! Greedy soup: which models to average.

use crate::{Error, Result};

/// Chooses models for a soup: the best one first, then every other in order of `scores` that does not
/// make the soup's score fall. Returns their indices.
///
/// `scores` are those of the models alone, higher is better, and `evaluate` gives the score of the mean
/// of some of them.
///
/// # Errors
/// [`Error::InvalidOption`] when there is no model or a score is not a number; errors of `evaluate`.
pub fn greedy_soup(
    scores: &[f64],
    mut evaluate: impl FnMut(&[usize]) -> Result<f64>,
) -> Result<Vec<usize>> {
    if scores.is_empty() {
        return Err(Error::option("models", "expected at least 1, found 0"));
    }
    if let Some(model) = scores.iter().position(|s| s.is_nan()) {
        return Err(Error::option(
            "score",
            format!("that of model {model} is not a number"),
        ));
    }
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    let mut soup = vec![order[0]];
    let mut best = scores[order[0]];
    for &model in &order[1..] {
        soup.push(model);
        let score = evaluate(&soup)?;
        // A score that is not a number compares as smaller.
        if score >= best {
            best = score;
        } else {
            soup.pop();
        }
    }
    Ok(soup)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_that_lowers_the_score_is_left_out() {
        // The score of a soup is the mean of these worths.
        let worth = [0.3, 0.9, 0.5, 0.9];
        let mut asked = Vec::new();
        let soup = greedy_soup(&worth, |soup| {
            asked.push(soup.to_vec());
            Ok(soup.iter().map(|&i| worth[i]).sum::<f64>() / soup.len() as f64)
        });
        assert_eq!(soup.unwrap(), [1, 3]);
        assert_eq!(asked, [vec![1, 3], vec![1, 3, 2], vec![1, 3, 0]]);
        assert!(greedy_soup(&[], |_| Ok(0.0)).is_err());
        assert!(greedy_soup(&[f64::NAN], |_| Ok(0.0)).is_err());
    }
}
