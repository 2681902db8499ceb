//! Functions of single values, and softmax. All share one vector exponential that is accurate to
//! about one unit in the last place.

use crate::element::load_head;
use crate::simd::math::{self, Map};
use crate::simd::{Kernel, Simd};
use crate::threads::for_each_chunk;
use crate::{Isa, ShapeError};

/// Values one thread takes at a time.
const TASK_VALUES: usize = 1 << 13;

/// One value costs as much as about this many multiply-adds.
const WORK_PER_VALUE: usize = 4;

/// Values between two steps of double precision in long sums.
const SUM_BLOCK: usize = 1 << 10;

#[derive(Clone, Copy)]
struct Exp;

impl Map for Exp {
    #[inline(always)]
    fn apply<S: Simd>(self, s: S, x: S::V) -> S::V {
        math::exp(s, x)
    }
}

#[derive(Clone, Copy)]
struct Sigmoid;

impl Map for Sigmoid {
    #[inline(always)]
    fn apply<S: Simd>(self, s: S, x: S::V) -> S::V {
        math::sigmoid(s, x)
    }
}

#[derive(Clone, Copy)]
pub(crate) struct Silu;

impl Map for Silu {
    #[inline(always)]
    fn apply<S: Simd>(self, s: S, x: S::V) -> S::V {
        math::silu(s, x)
    }
}

#[derive(Clone, Copy)]
pub(crate) struct GeluErf;

impl Map for GeluErf {
    #[inline(always)]
    fn apply<S: Simd>(self, s: S, x: S::V) -> S::V {
        math::gelu_erf(s, x)
    }
}

#[derive(Clone, Copy)]
pub(crate) struct GeluTanh;

impl Map for GeluTanh {
    #[inline(always)]
    fn apply<S: Simd>(self, s: S, x: S::V) -> S::V {
        math::gelu_tanh(s, x)
    }
}

/// Replaces every value by its exponential.
pub fn exp(isa: Isa, values: &mut [f32]) {
    map(isa, values, Exp);
}

/// Replaces every value by `1 / (1 + e^-x)`; by zero where that is below `1e-38`.
pub fn sigmoid(isa: Isa, values: &mut [f32]) {
    map(isa, values, Sigmoid);
}

/// Replaces every value by `x / (1 + e^-x)`; by zero where that is between `-1e-36` and `0`.
pub fn silu(isa: Isa, values: &mut [f32]) {
    map(isa, values, Silu);
}

/// Replaces every value by `x (1 + erf(x / sqrt(2))) / 2`, to about `1e-7` of its size before.
pub fn gelu_erf(isa: Isa, values: &mut [f32]) {
    map(isa, values, GeluErf);
}

/// Replaces every value by `x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2`, to about `1e-7` of
/// itself, and of 1 where it is negligible.
pub fn gelu_tanh(isa: Isa, values: &mut [f32]) {
    map(isa, values, GeluTanh);
}

/// SwiGLU's product: `out = silu(gate) * up`, value by value.
///
/// # Errors
/// When the lengths differ.
pub fn silu_mul(isa: Isa, gate: &[f32], up: &[f32], out: &mut [f32]) -> Result<(), ShapeError> {
    ShapeError::check("silu_mul up", gate.len(), up.len())?;
    ShapeError::check("silu_mul out", gate.len(), out.len())?;
    let work = gate.len() * WORK_PER_VALUE;
    for_each_chunk(out, TASK_VALUES, work, |task, out| {
        let range = task * TASK_VALUES..task * TASK_VALUES + out.len();
        isa.run(SiluMul {
            gate: &gate[range.clone()],
            up: &up[range],
            out,
        });
    });
    Ok(())
}

/// Replaces a row of scores by its softmax.
///
/// A row with NaN, positive infinity or only negative infinity becomes NaN, as in other libraries.
pub fn softmax(isa: Isa, row: &mut [f32]) {
    scaled_softmax(isa, row, 1.0);
}

/// Replaces a row of scores by the softmax of `scale` times them, as [`softmax`]; `scale` is positive.
pub fn scaled_softmax(isa: Isa, row: &mut [f32], scale: f32) {
    let max = isa.run(Max { values: row });
    let sum = isa.run(ShiftedExp {
        values: row,
        scale,
        shift: max * scale,
    });
    isa.run(Scale {
        values: row,
        factor: (1.0 / sum) as f32,
    });
}

fn map(isa: Isa, values: &mut [f32], map: impl Map) {
    let work = values.len() * WORK_PER_VALUE;
    for_each_chunk(values, TASK_VALUES, work, |_, values| {
        isa.run(MapAll { values, map });
    });
}

struct MapAll<'a, M> {
    values: &'a mut [f32],
    map: M,
}

impl<M: Map> Kernel for MapAll<'_, M> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        math::map_in_place(s, self.values, self.map);
    }
}

/// `gate = silu(gate) * up`, for whole vectors of every instruction set.
pub(crate) struct SiluMulInPlace<'a> {
    pub(crate) gate: &'a mut [f32],
    pub(crate) up: &'a [f32],
}

impl Kernel for SiluMulInPlace<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        assert!(self.gate.len() == self.up.len() && self.gate.len().is_multiple_of(S::LANES));
        let ups = self.up.chunks_exact(S::LANES);
        for (gate, up) in self.gate.chunks_exact_mut(S::LANES).zip(ups) {
            let product = s.mul(math::silu(s, s.load(gate)), s.load(up));
            s.store(gate, product);
        }
    }
}

/// `out = silu(gate) * up`; all three are as long.
struct SiluMul<'a> {
    gate: &'a [f32],
    up: &'a [f32],
    out: &'a mut [f32],
}

impl Kernel for SiluMul<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let inputs = self.gate.chunks(S::LANES).zip(self.up.chunks(S::LANES));
        for (out, (gate, up)) in self.out.chunks_mut(S::LANES).zip(inputs) {
            if out.len() == S::LANES {
                s.store(out, s.mul(math::silu(s, s.load(gate)), s.load(up)));
            } else {
                let y = s.mul(math::silu(s, load_head(s, gate)), load_head(s, up));
                s.store_head(out, y);
            }
        }
    }
}

/// The largest value, NaN skipped.
pub(crate) struct Max<'a> {
    pub(crate) values: &'a [f32],
}

impl Kernel for Max<'_> {
    type Output = f32;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f32 {
        math::max(s, self.values)
    }
}

#[inline(always)]
fn shifted_exp<S: Simd>(s: S, x: S::V, scale: S::V, shift: S::V) -> S::V {
    math::exp(s, s.sub(s.mul(x, scale), shift))
}

/// Replaces every value by `e^(scale value - shift)` and returns the sum.
struct ShiftedExp<'a> {
    values: &'a mut [f32],
    scale: f32,
    shift: f32,
}

impl Kernel for ShiftedExp<'_> {
    type Output = f64;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f64 {
        let (scale, shift) = (s.splat(self.scale), s.splat(self.shift));
        let mut total = 0.0;
        for block in self.values.chunks_mut(SUM_BLOCK) {
            let mut sum = s.zero();
            let mut chunks = block.chunks_exact_mut(S::LANES);
            for chunk in &mut chunks {
                let y = shifted_exp(s, s.load(chunk), scale, shift);
                s.store(chunk, y);
                sum = s.add(sum, y);
            }
            total += f64::from(s.sum(sum));
            let tail = chunks.into_remainder();
            if !tail.is_empty() {
                s.store_head(tail, shifted_exp(s, load_head(s, tail), scale, shift));
                total += tail.iter().copied().map(f64::from).sum::<f64>();
            }
        }
        total
    }
}

/// The sum of `e^(value - shift)`.
pub(crate) struct SumShiftedExp<'a> {
    pub(crate) values: &'a [f32],
    pub(crate) shift: f32,
}

impl Kernel for SumShiftedExp<'_> {
    type Output = f64;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f64 {
        let shift = s.splat(self.shift);
        let mut total = 0.0;
        for block in self.values.chunks(SUM_BLOCK) {
            let mut sum = s.zero();
            let mut chunks = block.chunks_exact(S::LANES);
            for chunk in &mut chunks {
                sum = s.add(sum, math::exp(s, s.sub(s.load(chunk), shift)));
            }
            total += f64::from(s.sum(sum));
            total += chunks
                .remainder()
                .iter()
                .map(|&x| f64::from(x - self.shift).exp())
                .sum::<f64>();
        }
        total
    }
}

struct Scale<'a> {
    values: &'a mut [f32],
    factor: f32,
}

impl Kernel for Scale<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let factor = s.splat(self.factor);
        let mut chunks = self.values.chunks_exact_mut(S::LANES);
        for chunk in &mut chunks {
            s.store(chunk, s.mul(s.load(chunk), factor));
        }
        for value in chunks.into_remainder() {
            *value *= self.factor;
        }
    }
}
