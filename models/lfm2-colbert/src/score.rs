//! MaxSim of one query with one document, and where it comes from.

use lfm2_kernels::{Isa, MatRef};

use crate::index::IndexError;
use crate::{Error, Result, TokenVectors};

/// Which document token a query token met: a part of a MaxSim score.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TokenMatch {
    /// The row of the query.
    pub query_row: usize,
    /// The most similar row of the document, the first of equals.
    pub document_row: usize,
    /// Their scalar product: what the score has from this query token.
    pub similarity: f32,
}

/// MaxSim of `query (rows, dim)` and `document (rows, dim)`: for each query row the largest scalar
/// product with a document row, summed up.
///
/// A document without rows scores 0. A maximum may be negative.
///
/// # Errors
/// When the widths differ.
pub fn max_sim(query: MatRef<'_, f32>, document: MatRef<'_, f32>) -> Result<f32> {
    let mut score = [0.0];
    let all = 0..document.rows();
    let isa = isa()?;
    lfm2_kernels::max_sim(isa, query, document.into(), &[all], &mut score).map_err(wrong)?;
    Ok(score[0])
}

/// The parts of the score of `query (rows, dim)` with `document (rows, dim)`, one for each query row;
/// none when the document has no rows.
///
/// # Errors
/// When the widths differ.
pub fn explain(query: MatRef<'_, f32>, document: MatRef<'_, f32>) -> Result<Vec<TokenMatch>> {
    let matches = lfm2_kernels::max_sim_matches(isa()?, query, document.into()).map_err(wrong)?;
    let numbered = matches.into_iter().enumerate();
    Ok(numbered
        .map(|(query_row, found)| TokenMatch {
            query_row,
            document_row: found.row,
            similarity: found.similarity,
        })
        .collect())
}

/// The parts of the score of `query (rows, dim)` with `document (rows, dim)`, one for each dimension: the
/// products of that dimension in all pairs of tokens that met. They add up to [`max_sim`]; all are 0
/// when the document has no rows.
///
/// # Errors
/// When the widths differ.
pub fn dimension_parts(query: MatRef<'_, f32>, document: MatRef<'_, f32>) -> Result<Vec<f64>> {
    let mut parts = vec![0.0; query.cols()];
    for met in explain(query, document)? {
        let (own, other) = (query.row(met.query_row), document.row(met.document_row));
        let products = own
            .iter()
            .zip(other)
            .map(|(a, b)| f64::from(*a) * f64::from(*b));
        parts
            .iter_mut()
            .zip(products)
            .for_each(|(part, product)| *part += product);
    }
    Ok(parts)
}

impl TokenVectors {
    /// A view `(rows, dim)`, for scores and indexes.
    ///
    /// # Errors
    /// Never, since the values are whole rows.
    pub fn view(&self) -> Result<MatRef<'_, f32>> {
        MatRef::new(self.as_slice(), self.rows(), self.dim()).map_err(wrong)
    }
}

/// The instructions to use.
pub(crate) fn isa() -> Result<Isa> {
    Isa::from_env().map_err(wrong)
}

pub(crate) fn wrong(error: impl Into<IndexError>) -> Error {
    Error::Index(error.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(values: &[f32]) -> MatRef<'_, f32> {
        MatRef::new(values, values.len() / 2, 2).unwrap()
    }

    #[test]
    fn the_parts_add_up_to_the_score() {
        let query = view(&[1.0, 0.0, 0.0, -1.0, 0.6, 0.8]);
        let document = view(&[0.0, 1.0, 0.8, 0.6]);
        let parts = explain(query, document).unwrap();
        let sum: f32 = parts.iter().map(|part| part.similarity).sum();
        assert!((sum - max_sim(query, document).unwrap()).abs() < 1e-6);
        let rows: Vec<_> = parts
            .iter()
            .map(|p| (p.query_row, p.document_row))
            .collect();
        assert_eq!(rows, [(0, 1), (1, 1), (2, 1)]);
        assert!(
            (parts[1].similarity - -0.6).abs() < 1e-6,
            "negative ones count as they are"
        );
    }

    #[test]
    fn dimensions_add_up_to_the_score_as_tokens_do() {
        let query = view(&[1.0, 0.0, 0.0, -1.0, 0.6, 0.8]);
        let document = view(&[0.0, 1.0, 0.8, 0.6]);
        let parts = dimension_parts(query, document).unwrap();
        // 1.0 * 0.8 + 0.0 * 0.8 + 0.6 * 0.8, and 0.0 * 0.6 - 1.0 * 0.6 + 0.8 * 0.6.
        for (found, expected) in parts.iter().zip([1.28, -0.12]) {
            assert!((found - expected).abs() < 1e-6, "{parts:?}");
        }
        let score = f64::from(max_sim(query, document).unwrap());
        assert!((parts.iter().sum::<f64>() - score).abs() < 1e-6);
        assert_eq!(dimension_parts(query, view(&[])).unwrap(), [0.0, 0.0]);
    }

    #[test]
    fn no_vectors_score_nothing_and_explain_nothing() {
        let query = view(&[1.0, 0.0]);
        assert_eq!(max_sim(query, view(&[])).unwrap(), 0.0);
        assert!(explain(query, view(&[])).unwrap().is_empty());
        assert_eq!(max_sim(view(&[]), query).unwrap(), 0.0);
    }

    #[test]
    fn other_widths_are_refused() {
        let wide = MatRef::new(&[1.0; 3], 1, 3).unwrap();
        assert!(max_sim(view(&[1.0, 0.0]), wide).is_err());
        assert!(explain(view(&[1.0, 0.0]), wide).is_err());
    }

    #[test]
    fn token_vectors_are_viewed_in_place() {
        let vectors = TokenVectors::new(vec![1., 2., 3., 4.], 2, vec![7, 9]).unwrap();
        assert_eq!(vectors.view().unwrap().row(1), [3., 4.]);
    }
}
