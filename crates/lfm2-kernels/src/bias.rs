//! What follows a product in encoders: the bias of a linear layer, and an activation behind it, in one
//! pass.

use crate::activation::{GeluErf, GeluTanh, Silu};
use crate::element::load_head;
use crate::norm::each_block;
use crate::simd::math::Map;
use crate::simd::{Kernel, Simd};
use crate::{Isa, ShapeError};

/// Adds `bias (dim)` to every row of `y (rows, dim)`.
///
/// # Errors
/// When `bias` is empty or `y` is not whole rows.
pub fn add_bias(isa: Isa, y: &mut [f32], bias: &[f32]) -> Result<(), ShapeError> {
    add_and_map(isa, y, bias, Same)
}

/// [`add_bias`], then [`gelu_tanh`](crate::gelu_tanh).
///
/// # Errors
/// As [`add_bias`].
pub fn add_bias_gelu_tanh(isa: Isa, y: &mut [f32], bias: &[f32]) -> Result<(), ShapeError> {
    add_and_map(isa, y, bias, GeluTanh)
}

/// [`add_bias`], then [`gelu_erf`](crate::gelu_erf).
///
/// # Errors
/// As [`add_bias`].
pub fn add_bias_gelu_erf(isa: Isa, y: &mut [f32], bias: &[f32]) -> Result<(), ShapeError> {
    add_and_map(isa, y, bias, GeluErf)
}

/// [`add_bias`], then [`silu`](crate::silu).
///
/// # Errors
/// As [`add_bias`].
pub fn add_bias_silu(isa: Isa, y: &mut [f32], bias: &[f32]) -> Result<(), ShapeError> {
    add_and_map(isa, y, bias, Silu)
}

fn add_and_map(isa: Isa, y: &mut [f32], bias: &[f32], map: impl Map) -> Result<(), ShapeError> {
    ShapeError::divide("add_bias y", y.len(), bias.len())?;
    each_block(y, bias.len(), |_, rows| {
        isa.run(AddAndMap { rows, bias, map });
    });
    Ok(())
}

#[derive(Clone, Copy)]
struct Same;

impl Map for Same {
    #[inline(always)]
    fn apply<S: Simd>(self, _: S, x: S::V) -> S::V {
        x
    }
}

/// `rows = map(rows + bias)`, for whole rows.
struct AddAndMap<'a, M> {
    rows: &'a mut [f32],
    bias: &'a [f32],
    map: M,
}

impl<M: Map> Kernel for AddAndMap<'_, M> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for row in self.rows.chunks_exact_mut(self.bias.len()) {
            let biases = self.bias.chunks(S::LANES);
            for (y, bias) in row.chunks_mut(S::LANES).zip(biases) {
                if y.len() == S::LANES {
                    let sum = s.add(s.load(y), s.load(bias));
                    s.store(y, self.map.apply(s, sum));
                } else {
                    let sum = s.add(load_head(s, y), load_head(s, bias));
                    s.store_head(y, self.map.apply(s, sum));
                }
            }
        }
    }
}
