//! [`Picture`]: pixels, and nothing of the file they came from.

use std::fmt;

use lfm2_hub::{Error, Result};

use crate::plan::Size;

/// Values per pixel: red, green, blue.
pub const CHANNELS: usize = 3;

/// A picture of 8-bit red, green and blue, `(height, width, 3)`, rows from the top. Never empty.
#[derive(Clone, PartialEq, Eq)]
pub struct Picture {
    width: usize,
    height: usize,
    pixels: Vec<u8>,
}

impl Picture {
    /// A picture of these pixels, `(height, width, 3)`.
    ///
    /// # Errors
    /// [`Error::InvalidInput`] when a side is 0 or the pixels are not as many as the sides say.
    pub fn new(width: usize, height: usize, pixels: Vec<u8>) -> Result<Self> {
        let expected = width
            .checked_mul(height)
            .and_then(|n| n.checked_mul(CHANNELS));
        if width == 0 || height == 0 {
            return Err(Error::InvalidInput(format!(
                "a picture of {width} x {height} has no pixels"
            )));
        }
        if expected != Some(pixels.len()) {
            return Err(Error::InvalidInput(format!(
                "a picture of {width} x {height}: expected {CHANNELS} bytes per pixel, found {} in all",
                pixels.len()
            )));
        }
        Ok(Self {
            width,
            height,
            pixels,
        })
    }

    /// A picture whose pixel in column `x` and row `y` is `colour(x, y)`.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn from_fn(
        width: usize,
        height: usize,
        mut colour: impl FnMut(usize, usize) -> [u8; CHANNELS],
    ) -> Result<Self> {
        let rows = (0..height).flat_map(|y| (0..width).map(move |x| (x, y)));
        let pixels = rows.flat_map(|(x, y)| colour(x, y)).collect();
        Self::new(width, height, pixels)
    }

    /// Columns; at least 1.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Rows; at least 1.
    pub fn height(&self) -> usize {
        self.height
    }

    /// Both sides.
    pub fn size(&self) -> Size {
        Size::new(self.width, self.height)
    }

    /// The values, `(height, width, 3)`.
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    /// The values of one row, `(width, 3)`; empty when there is no such row.
    pub(crate) fn row(&self, y: usize) -> &[u8] {
        let len = self.width * CHANNELS;
        self.pixels.get(y * len..(y + 1) * len).unwrap_or_default()
    }
}

impl fmt::Debug for Picture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Picture({} x {})", self.width, self.height)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pixels_have_to_fill_the_sides() {
        assert!(Picture::new(2, 1, vec![0; 6]).is_ok());
        for (width, height, bytes) in [(0, 1, 0), (1, 0, 0), (2, 1, 5), (usize::MAX, 2, 6)] {
            let error = Picture::new(width, height, vec![0; bytes]).unwrap_err();
            assert!(matches!(error, Error::InvalidInput(_)), "{error}");
        }
    }

    #[test]
    fn rows_are_those_of_the_function() {
        let picture = Picture::from_fn(3, 2, |x, y| [x as u8, y as u8, 9]).unwrap();
        assert_eq!(picture.row(1), [0, 1, 9, 1, 1, 9, 2, 1, 9]);
        assert!(picture.row(2).is_empty());
    }
}
