//! The gradients of SwiGLU's product and of softmax.

use super::{load_part, store_part};
use crate::simd::{Kernel, Simd, math};
use crate::{Isa, ShapeError};

/// The gradients of [`silu_mul`](crate::silu_mul) into `dgate` and `dup`. `dy` holds the gradient of the
/// product and then the product itself, which the layer behind it needs for its own gradient.
///
/// With `s = sigmoid(gate)`: `dgate = dy up s (1 + gate (1 - s))`, `dup = dy gate s`.
///
/// # Errors
/// When the lengths differ.
pub fn silu_mul_gradient(
    isa: Isa,
    [gate, up]: [&[f32]; 2],
    dy: &mut [f32],
    [dgate, dup]: [&mut [f32]; 2],
) -> Result<(), ShapeError> {
    ShapeError::check("silu_mul up", gate.len(), up.len())?;
    ShapeError::check("silu_mul dy", gate.len(), dy.len())?;
    ShapeError::check("silu_mul dgate", gate.len(), dgate.len())?;
    ShapeError::check("silu_mul dup", gate.len(), dup.len())?;
    isa.run(SiluMul {
        gate,
        up,
        dy,
        dgate,
        dup,
    });
    Ok(())
}

struct SiluMul<'a> {
    gate: &'a [f32],
    up: &'a [f32],
    dy: &'a mut [f32],
    dgate: &'a mut [f32],
    dup: &'a mut [f32],
}

impl Kernel for SiluMul<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let one = s.splat(1.0);
        let inputs = self.gate.chunks(S::LANES).zip(self.up.chunks(S::LANES));
        let outputs = self
            .dgate
            .chunks_mut(S::LANES)
            .zip(self.dup.chunks_mut(S::LANES));
        let all = inputs.zip(outputs).zip(self.dy.chunks_mut(S::LANES));
        for (((gate, up), (dgate, dup)), dy) in all {
            let (gate, up, upstream) = (load_part(s, gate), load_part(s, up), load_part(s, dy));
            let sigmoid = math::sigmoid(s, gate);
            let silu = s.mul(gate, sigmoid);
            let slope = s.mul_add(silu, s.sub(one, sigmoid), sigmoid);
            store_part(s, dgate, s.mul(s.mul(upstream, up), slope));
            store_part(s, dup, s.mul(upstream, silu));
            store_part(s, dy, s.mul(silu, up));
        }
    }
}

/// The gradient of the scores whose [`scaled_softmax`](crate::scaled_softmax) is `p` and has the gradient
/// `dp`, in place of that: `p (dp - sum of dp p) scale`.
///
/// # Errors
/// When the lengths differ.
pub fn softmax_gradient(isa: Isa, p: &[f32], dp: &mut [f32], scale: f32) -> Result<(), ShapeError> {
    ShapeError::check("softmax dp", p.len(), dp.len())?;
    isa.run(Softmax { p, dp, scale });
    Ok(())
}

struct Softmax<'a> {
    p: &'a [f32],
    dp: &'a mut [f32],
    scale: f32,
}

impl Kernel for Softmax<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let mean = s.splat(math::dot(s, self.p, self.dp));
        let scale = s.splat(self.scale);
        let pairs = self.p.chunks(S::LANES).zip(self.dp.chunks_mut(S::LANES));
        for (p, dp) in pairs {
            let (weight, slope) = (load_part(s, p), s.sub(load_part(s, dp), mean));
            store_part(s, dp, s.mul(s.mul(weight, slope), scale));
        }
    }
}
