//! [`TokenVectors`]: what late interaction knows of one text.

use crate::{Error, Result};

/// The vectors of one text, one per token that is kept, each of length 1.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenVectors {
    /// `(rows, dim)`.
    values: Vec<f32>,
    dim: usize,
    ids: Vec<u32>,
    positions: Vec<u32>,
    cut: bool,
}

impl TokenVectors {
    /// Vectors `(ids.len(), dim)` of tokens `ids` that follow each other from the first on.
    ///
    /// # Errors
    /// [`HubError::InvalidInput`](lfm2_hub::Error::InvalidInput) when there are more or fewer values, or
    /// `dim` is 0.
    pub fn new(values: Vec<f32>, dim: usize, ids: Vec<u32>) -> Result<Self> {
        let positions = (0..).take(ids.len()).collect();
        Self::with_positions(values, dim, ids, positions)
    }

    pub(crate) fn with_positions(
        values: Vec<f32>,
        dim: usize,
        ids: Vec<u32>,
        positions: Vec<u32>,
    ) -> Result<Self> {
        if dim == 0 || ids.len().checked_mul(dim) != Some(values.len()) {
            let (found, rows) = (values.len(), ids.len());
            let message = format!("{found} values for {rows} vectors of {dim} numbers");
            return Err(Error::input(message));
        }
        Ok(Self {
            values,
            dim,
            ids,
            positions,
            cut: false,
        })
    }

    /// The same vectors, of a text whose end was left out.
    pub(crate) fn cut_if(mut self, cut: bool) -> Self {
        self.cut = cut;
        self
    }

    /// Number of vectors.
    pub fn rows(&self) -> usize {
        self.ids.len()
    }

    /// Whether there are no vectors: no token was kept.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Numbers per vector.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Vector `row`, if there is one.
    pub fn row(&self, row: usize) -> Option<&[f32]> {
        self.values.chunks_exact(self.dim).nth(row)
    }

    /// The vectors, first to last.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[f32]> {
        self.values.chunks_exact(self.dim)
    }

    /// All vectors one after another, `(rows, dim)`.
    pub fn as_slice(&self) -> &[f32] {
        &self.values
    }

    /// [`as_slice`](Self::as_slice), owned.
    pub fn into_vec(self) -> Vec<f32> {
        self.values
    }

    /// The token that each vector belongs to; after [pooling](crate::pool_documents) the first of
    /// several.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// The place of each of these tokens in what the model read, from 0.
    pub fn positions(&self) -> &[u32] {
        &self.positions
    }

    /// Whether the text was longer than the model reads, and its end is missing.
    pub fn is_cut(&self) -> bool {
        self.cut
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_what_was_put_in() {
        let vectors = TokenVectors::new(vec![1., 2., 3., 4.], 2, vec![7, 9]).unwrap();
        assert_eq!((vectors.rows(), vectors.dim()), (2, 2));
        assert_eq!(vectors.row(1), Some(&[3., 4.][..]));
        assert_eq!(vectors.row(2), None);
        assert_eq!(vectors.iter().len(), 2);
        assert_eq!(
            (vectors.ids(), vectors.positions()),
            (&[7, 9][..], &[0, 1][..])
        );
    }

    #[test]
    fn no_rows_are_no_error_and_wrong_sizes_are() {
        assert!(
            TokenVectors::new(Vec::new(), 8, Vec::new())
                .unwrap()
                .is_empty()
        );
        assert!(TokenVectors::new(vec![0.; 3], 2, vec![1, 2]).is_err());
        assert!(TokenVectors::new(Vec::new(), 0, Vec::new()).is_err());
    }
}
