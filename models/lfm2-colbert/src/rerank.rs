//! Ordering documents that something else has found.

use lfm2_kernels::MatRef;

use crate::Result;
use crate::score::{isa, wrong};

/// A document and its score.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ranked {
    /// Its place among the documents given, from 0.
    pub index: usize,
    /// MaxSim with the query.
    pub score: f32,
}

/// All `documents`, each `(rows, dim)`, by their MaxSim with `query (rows, dim)`, best first; equals
/// stay in the order given.
///
/// # Errors
/// When the widths differ.
pub fn rerank<'a>(
    query: MatRef<'_, f32>,
    documents: impl IntoIterator<Item = MatRef<'a, f32>>,
) -> Result<Vec<Ranked>> {
    let dim = query.cols();
    let (mut rows, mut ranges) = (Vec::new(), Vec::new());
    let mut count = 0;
    for document in documents {
        // Side by side only rows of one width make a matrix.
        lfm2_kernels::max_sim(isa()?, query, document.into(), &[], &mut []).map_err(wrong)?;
        for row in 0..document.rows() {
            rows.extend_from_slice(document.row(row));
        }
        ranges.push(count..count + document.rows());
        count += document.rows();
    }
    let rows = MatRef::new(&rows, count, dim).map_err(wrong)?;
    let mut scores = vec![0.0; ranges.len()];
    lfm2_kernels::max_sim(isa()?, query, rows.into(), &ranges, &mut scores).map_err(wrong)?;
    let scores = scores.into_iter().enumerate();
    let mut ranked: Vec<_> = scores
        .map(|(index, score)| Ranked { index, score })
        .collect();
    ranked.sort_by(|a, b| b.score.total_cmp(&a.score));
    Ok(ranked)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(values: &[f32]) -> MatRef<'_, f32> {
        MatRef::new(values, values.len() / 2, 2).unwrap()
    }

    #[test]
    fn best_first_and_equals_as_given() {
        let query = view(&[1.0, 0.0]);
        let documents = [
            &[0.5, 0.0][..],
            &[-1.0, 0.0],
            &[0.0, 1.0, 0.5, 9.0],
            &[],
            &[0.7, 0.0],
        ];
        let ranked = rerank(query, documents.map(view)).unwrap();
        let order: Vec<_> = ranked.iter().map(|r| r.index).collect();
        assert_eq!(order, [4, 0, 2, 3, 1]);
        assert_eq!((ranked[3].score, ranked[4].score), (0.0, -1.0));
    }

    #[test]
    fn nothing_to_rank_is_no_error_and_another_width_is() {
        let query = view(&[1.0, 0.0]);
        assert!(rerank(query, []).unwrap().is_empty());
        let wide = MatRef::new(&[1.0; 4], 1, 4).unwrap();
        assert!(rerank(query, [wide]).is_err());
    }
}
