//! The one error of this crate's kernels.

/// Slices and sizes that do not fit together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ShapeError {
    /// A slice or dimension has the wrong size.
    #[error("{what}: expected {expected}, found {found}")]
    Size {
        /// Which argument.
        what: &'static str,
        /// The size the other arguments imply.
        expected: usize,
        /// The size it has.
        found: usize,
    },
    /// A size must divide another and does not.
    #[error("{what}: {found} is not a multiple of {divisor}")]
    NotMultiple {
        /// Which argument.
        what: &'static str,
        /// What it must be a multiple of.
        divisor: usize,
        /// The size it has.
        found: usize,
    },
    /// A size exceeds a bound.
    #[error("{what}: expected at most {limit}, found {found}")]
    TooLarge {
        /// Which argument.
        what: &'static str,
        /// The bound.
        limit: usize,
        /// The size it has.
        found: usize,
    },
    /// A size that must be positive is zero.
    #[error("{what}: expected at least 1, found 0")]
    Zero {
        /// Which argument.
        what: &'static str,
    },
}

impl ShapeError {
    /// `Ok` when `found` is `expected`.
    pub(crate) fn check(what: &'static str, expected: usize, found: usize) -> Result<(), Self> {
        if expected == found {
            Ok(())
        } else {
            Err(Self::Size {
                what,
                expected,
                found,
            })
        }
    }

    /// The quotient when `divisor` is positive and divides `found`.
    pub(crate) fn divide(what: &'static str, found: usize, divisor: usize) -> Result<usize, Self> {
        if divisor == 0 {
            Err(Self::Zero { what })
        } else if found.is_multiple_of(divisor) {
            Ok(found / divisor)
        } else {
            Err(Self::NotMultiple {
                what,
                divisor,
                found,
            })
        }
    }

    /// The product of sizes, or an error when it does not fit in memory.
    pub(crate) fn product(what: &'static str, sizes: &[usize]) -> Result<usize, Self> {
        let limit = isize::MAX as usize;
        let product = sizes
            .iter()
            .try_fold(1_usize, |product, &size| product.checked_mul(size));
        match product {
            Some(product) if product <= limit => Ok(product),
            _ => Err(Self::TooLarge {
                what,
                limit,
                found: usize::MAX,
            }),
        }
    }
}
