//! The embeddings of pairs of sentences, checked once.

use crate::error::{Error, Result};

const LARGEST: f32 = 1e6;

/// Embeddings of the pairs of one property: two matrices of `(pairs, dims)`.
#[derive(Debug, Clone, Copy)]
pub struct PairedEmbeddings<'a> {
    name: &'a str,
    first: &'a [f32],
    second: &'a [f32],
    dims: usize,
}

/// Whether a regression can work with a value; false for what is no number.
fn is_usable(value: f32) -> bool {
    value.abs() <= LARGEST
}

impl<'a> PairedEmbeddings<'a> {
    /// Embeddings of the property `name`: of first and second sentences, `(pairs, dims)` each.
    ///
    /// # Errors
    /// When the matrices are empty, are no whole rows, differ in length, or hold a value that is not
    /// finite or larger than a million in size: far beyond what encoders give, and where the penalty
    /// of a regression drowns in rounding.
    pub fn new(name: &'a str, first: &'a [f32], second: &'a [f32], dims: usize) -> Result<Self> {
        let shape = |detail: String| Error::Shape {
            name: name.to_owned(),
            detail,
        };
        if dims == 0 {
            return Err(shape("0 dimensions, expected at least 1".to_owned()));
        }
        if first.len() != second.len() {
            return Err(shape(format!(
                "{} numbers for first sentences and {} for second ones, expected as many",
                first.len(),
                second.len()
            )));
        }
        if first.is_empty() || !first.len().is_multiple_of(dims) {
            return Err(shape(format!(
                "{} numbers, expected whole rows of {dims}",
                first.len()
            )));
        }
        for (side, values) in [("first", first), ("second", second)] {
            if let Some(at) = values.iter().position(|value| !is_usable(*value)) {
                return Err(Error::OutOfRange {
                    name: name.to_owned(),
                    side,
                    pair: at / dims,
                    dim: at % dims,
                    value: values[at],
                });
            }
        }
        Ok(Self {
            name,
            first,
            second,
            dims,
        })
    }

    /// The property.
    pub fn name(&self) -> &'a str {
        self.name
    }

    /// Number of pairs.
    pub fn pairs(&self) -> usize {
        self.first.len() / self.dims
    }

    /// Number of dimensions.
    pub fn dims(&self) -> usize {
        self.dims
    }

    /// One dimension of row `row`: first sentences come first, second ones behind them.
    pub(crate) fn value(&self, row: usize, dim: usize) -> f64 {
        let pairs = self.pairs();
        let (side, pair) = if row < pairs {
            (self.first, row)
        } else {
            (self.second, row - pairs)
        };
        f64::from(side[pair * self.dims + dim])
    }

    /// One dimension of the given pairs: of first sentences and of second ones.
    pub(crate) fn columns(&self, pairs: &[usize], dim: usize) -> (Vec<f64>, Vec<f64>) {
        let column = |side: &[f32]| -> Vec<f64> {
            pairs
                .iter()
                .map(|pair| f64::from(side[pair * self.dims + dim]))
                .collect()
        };
        (column(self.first), column(self.second))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_both_sides_are_found() {
        let embeddings =
            PairedEmbeddings::new("x", &[1.0, 2.0, 3.0, 4.0], &[5.0, 6.0, 7.0, 8.0], 2).unwrap();
        assert_eq!((embeddings.pairs(), embeddings.dims()), (2, 2));
        assert_eq!(embeddings.value(1, 0), 3.0);
        assert_eq!(embeddings.value(2, 1), 6.0);
        assert_eq!(embeddings.columns(&[1], 1), (vec![4.0], vec![8.0]));
    }
}
