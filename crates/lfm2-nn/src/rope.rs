//! Rotary position embedding, halves form, with the table of one forward pass only.

use candle_core::{DType, Device, Result, Tensor};

/// The frequencies of one kind of rotary embedding.
#[derive(Debug, Clone, PartialEq)]
pub struct Rope {
    /// `head_dim / 2` frequencies; zero where nothing is rotated.
    inv_freq: Vec<f32>,
}

impl Rope {
    /// All of `head_dim` rotated: `theta^(-2i/d)` for `i < d/2`.
    pub fn new(head_dim: usize, theta: f64) -> Self {
        Self::proportional(head_dim, theta, 1.0)
    }

    /// The first `factor * d/2` frequencies as in [`Rope::new`], the rest zero: the "proportional"
    /// rule of LFM3, whose exponents run over the full head.
    pub fn proportional(head_dim: usize, theta: f64, factor: f64) -> Self {
        let half = head_dim / 2;
        let rotated = (factor * half as f64) as usize;
        let frequency = |i: usize| {
            if i < rotated {
                1.0 / (theta as f32).powf(2.0 * i as f32 / head_dim as f32)
            } else {
                0.0
            }
        };
        Self {
            inv_freq: (0..half).map(frequency).collect(),
        }
    }

    /// Cosine and sine for these positions, `f32` angles cast to `dtype`.
    ///
    /// # Errors
    /// When the device is out of memory.
    pub fn table(&self, positions: &[usize], dtype: DType, device: &Device) -> Result<RopeTable> {
        let shape = (positions.len(), 1, self.inv_freq.len());
        let angles = || {
            positions
                .iter()
                .flat_map(|&p| self.inv_freq.iter().map(move |f| p as f32 * f))
        };
        let cos: Vec<f32> = angles().map(f32::cos).collect();
        let sin: Vec<f32> = angles().map(f32::sin).collect();
        let tensor = |values: Vec<f32>| Tensor::from_vec(values, shape, device)?.to_dtype(dtype);
        Ok(RopeTable {
            cos: tensor(cos)?,
            sin: tensor(sin)?,
        })
    }
}

/// Cosine and sine of one forward pass, `(tokens, 1, head_dim / 2)` each.
#[derive(Debug, Clone)]
pub struct RopeTable {
    pub(crate) cos: Tensor,
    pub(crate) sin: Tensor,
}

impl RopeTable {
    /// Rotates `(tokens, heads, head_dim)`: pair `(i, i + d/2)` by the angle of frequency `i`.
    ///
    /// # Errors
    /// When shapes disagree.
    pub fn apply(&self, x: &Tensor) -> Result<Tensor> {
        crate::ops::rope(x, self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn position_zero_is_the_identity_and_angles_grow_with_position() -> Result<()> {
        let table = Rope::new(4, 100.0).table(&[0, 3], DType::F32, &Device::Cpu)?;
        let x = Tensor::new(&[[[1f32, 2., 3., 4.]], [[1., 2., 3., 4.]]], &Device::Cpu)?;
        let y = table.apply(&x)?.to_vec3::<f32>()?;
        assert_eq!(y[0][0], [1., 2., 3., 4.]);
        let (s, c) = 3f32.sin_cos();
        assert!((y[1][0][0] - (c - 3. * s)).abs() < 1e-6);
        assert!((y[1][0][2] - (3. * c + s)).abs() < 1e-6);
        let (s, c) = 0.3f32.sin_cos();
        assert!((y[1][0][1] - (2. * c - 4. * s)).abs() < 1e-6);
        Ok(())
    }

    #[test]
    fn proportional_leaves_the_upper_frequencies_alone() -> Result<()> {
        let rope = Rope::proportional(8, 1e6, 0.5);
        assert_eq!(rope.inv_freq[2..], [0.0, 0.0]);
        assert_eq!(rope.inv_freq[..2], Rope::new(8, 1e6).inv_freq[..2]);
        Ok(())
    }
}
