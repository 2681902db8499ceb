//! Rotary embedding of adjacent pairs `(2i, 2i + 1)`.
//!
//! The backbone rotates halves of a head instead; the depth model and Mimi rotate pairs.

use candle_core::{Result, Tensor};
use lfm2_nn::{DType, Device};

/// The frequencies of heads of one size.
#[derive(Debug, Clone)]
pub(crate) struct PairRotary {
    frequencies: Vec<f32>,
}

impl PairRotary {
    pub(crate) fn new(head_dim: usize, theta: f64) -> Self {
        let frequency = |i: usize| theta.powf(-2.0 * i as f64 / head_dim as f64) as f32;
        Self {
            frequencies: (0..head_dim / 2).map(frequency).collect(),
        }
    }

    /// Rotates the heads of one token, one after another in `values`, by its position.
    pub(crate) fn rotate(&self, values: &mut [f32], position: usize) {
        let turns: Vec<(f32, f32)> = self
            .frequencies
            .iter()
            .map(|f| (position as f32 * f).sin_cos())
            .collect();
        for head in values.chunks_exact_mut(2 * turns.len().max(1)) {
            for (pair, (sin, cos)) in head.chunks_exact_mut(2).zip(&turns) {
                if let [a, b] = pair {
                    (*a, *b) = (*a * cos - *b * sin, *a * sin + *b * cos);
                }
            }
        }
    }

    /// Rotates `(rows, positions, heads, head_dim)`, position by position from 0; carries gradients.
    pub(crate) fn rotate_all(&self, x: &Tensor) -> Result<Tensor> {
        let (rows, positions, heads, head_dim) = x.dims4()?;
        let (cos, sin) = self.table(positions, x.dtype(), x.device())?;
        let pairs = x.reshape((rows, positions, heads, head_dim / 2, 2))?;
        let half = |i| pairs.narrow(4, i, 1)?.squeeze(4)?.contiguous();
        let (a, b) = (half(0)?, half(1)?);
        let first = (a.broadcast_mul(&cos)? - b.broadcast_mul(&sin)?)?;
        let second = (a.broadcast_mul(&sin)? + b.broadcast_mul(&cos)?)?;
        Tensor::stack(&[first, second], 4)?.reshape((rows, positions, heads, head_dim))
    }

    /// Cosine and sine, `(positions, 1, head_dim / 2)`.
    fn table(&self, positions: usize, dtype: DType, device: &Device) -> Result<(Tensor, Tensor)> {
        let shape = (positions, 1, self.frequencies.len());
        let angles =
            || (0..positions).flat_map(|p| self.frequencies.iter().map(move |f| p as f32 * f));
        let tensor = |values: Vec<f32>| Tensor::from_vec(values, shape, device)?.to_dtype(dtype);
        Ok((
            tensor(angles().map(f32::cos).collect())?,
            tensor(angles().map(f32::sin).collect())?,
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_turn_and_both_forms_agree() -> Result<()> {
        let rotary = PairRotary::new(4, 100.0);
        let values = [1f32, 0., 0., 2., 3., 4., 5., 6.];
        let mut one = values;
        rotary.rotate(&mut one, 3);
        let (sin, cos) = 3f32.sin_cos();
        assert!((one[0] - cos).abs() < 1e-6 && (one[1] - sin).abs() < 1e-6);
        let (sin, cos) = 0.3f32.sin_cos();
        assert!((one[2] + 2. * sin).abs() < 1e-6 && (one[3] - 2. * cos).abs() < 1e-6);

        let all = Tensor::new(&values, &Device::Cpu)?
            .reshape((1, 1, 2, 4))?
            .repeat((1, 4, 1, 1))?;
        let all: Vec<f32> = rotary
            .rotate_all(&all)?
            .get(0)?
            .get(3)?
            .flatten_all()?
            .to_vec1()?;
        assert!(all.iter().zip(one).all(|(a, b)| (a - b).abs() < 1e-6));
        Ok(())
    }
}
