//! Functions of vectors, and the loops that apply them to slices.

use super::Simd;
use crate::element::load_head;

/// `e^x`, to about one unit in the last place, subnormal results included; NaN stays NaN.
///
/// `x = n ln 2 + r` with `|r| <= ln 2 / 2`; a polynomial of degree 7 gives `e^r`.
#[inline(always)]
pub(crate) fn exp<S: Simd>(s: S, x: S::V) -> S::V {
    // Adding this leaves a whole number in the low bits of the mantissa: rounding for one addition.
    const ROUND: f32 = 12_582_912.0;
    // `ln 2` in two parts, the first with so few bits that `n` times it is exact.
    const LN2_HIGH: f32 = 355.0 / 512.0;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    const COEFFICIENTS: [f32; 5] = [
        1.398_199_9e-3,
        8.333_452e-3,
        4.166_579_6e-2,
        1.666_666_5e-1,
        0.5,
    ];

    // Beyond these the result is infinite or zero. The constants come first, so NaN passes through.
    let x = s.min(s.splat(89.0), s.max(s.splat(-104.0), x));
    let rounded = s.mul_add(x, s.splat(std::f32::consts::LOG2_E), s.splat(ROUND));
    let n = s.sub(rounded, s.splat(ROUND));
    let r = s.mul_add(n, s.splat(-LN2_HIGH), x);
    let r = s.mul_add(n, s.splat(-LN2_LOW), r);
    let mut p = s.splat(1.987_569_1e-4);
    for coefficient in COEFFICIENTS {
        p = s.mul_add(p, r, s.splat(coefficient));
    }
    let p = s.add(s.mul_add(p, s.mul(r, r), r), s.splat(1.0));
    s.scale_by_power(p, n)
}

/// `1 / (1 + e^-x)`
#[inline(always)]
pub(crate) fn sigmoid<S: Simd>(s: S, x: S::V) -> S::V {
    let one = s.splat(1.0);
    s.div(one, s.add(one, exp(s, s.sub(s.zero(), x))))
}

/// `x / (1 + e^-x)`
#[inline(always)]
pub(crate) fn silu<S: Simd>(s: S, x: S::V) -> S::V {
    s.div(x, s.add(s.splat(1.0), exp(s, s.sub(s.zero(), x))))
}

/// `x (1 + tanh(z)) / 2 = x / (1 + e^-2z)` with `z = sqrt(2 / pi) (x + 0.044715 x^3)`
#[inline(always)]
pub(crate) fn gelu_tanh<S: Simd>(s: S, x: S::V) -> S::V {
    const SLOPE: f32 = -1.595_769; // -2 sqrt(2 / pi)
    const CUBIC: f32 = 0.044_715 * SLOPE;
    let slope = s.mul_add(s.mul(x, x), s.splat(CUBIC), s.splat(SLOPE));
    s.div(x, s.add(s.splat(1.0), exp(s, s.mul(x, slope))))
}

/// `x (1 + erf(x / sqrt(2))) / 2`.
///
/// With `t = 1 / (1 + p |x| / sqrt(2))` the probability of a normal number beyond `|x|` is a polynomial
/// in `t` times `e^(-x^2 / 2)`, to 1e-7 (Abramowitz and Stegun, 7.1.26).
#[inline(always)]
pub(crate) fn gelu_erf<S: Simd>(s: S, x: S::V) -> S::V {
    const STEP: f32 = 0.327_591_1 * std::f32::consts::FRAC_1_SQRT_2;
    // Half of the published ones, from the last to the first.
    const COEFFICIENTS: [f32; 5] = [
        0.530_702_7,
        -0.726_576,
        0.710_706_9,
        -0.142_248_37,
        0.127_414_8,
    ];
    let negative = s.sub(s.zero(), x);
    let size = s.max(x, negative);
    let one = s.splat(1.0);
    let t = s.div(one, s.mul_add(size, s.splat(STEP), one));
    let mut tail = s.splat(COEFFICIENTS[0]);
    for coefficient in &COEFFICIENTS[1..] {
        tail = s.mul_add(tail, t, s.splat(*coefficient));
    }
    let density = exp(s, s.mul(s.mul(size, size), s.splat(-0.5)));
    // `|x|` times the probability beyond it is what lies between the unit and `max(x, 0)`.
    let beyond = s.mul(s.mul(s.mul(tail, t), density), size);
    s.sub(s.max(x, s.zero()), beyond)
}

/// A function of one vector.
pub(crate) trait Map: Copy + Sync {
    /// Its value; implementations must be `#[inline(always)]`.
    fn apply<S: Simd>(self, s: S, x: S::V) -> S::V;
}

/// Replaces every value by its image.
#[inline(always)]
pub(crate) fn map_in_place<S: Simd>(s: S, values: &mut [f32], map: impl Map) {
    let mut chunks = values.chunks_exact_mut(S::LANES);
    for chunk in &mut chunks {
        s.store(chunk, map.apply(s, s.load(chunk)));
    }
    let tail = chunks.into_remainder();
    if !tail.is_empty() {
        s.store_head(tail, map.apply(s, load_head(s, tail)));
    }
}

/// The largest value; NaN is skipped, and negative infinity is the least answer.
#[inline(always)]
pub(crate) fn max<S: Simd>(s: S, values: &[f32]) -> f32 {
    let least = s.splat(f32::NEG_INFINITY);
    let mut best = [least; 4];
    let mut chunks = values.chunks_exact(4 * S::LANES);
    for chunk in &mut chunks {
        for (lane, part) in best.iter_mut().zip(chunk.chunks_exact(S::LANES)) {
            *lane = s.max(s.load(part), *lane);
        }
    }
    let best = s.max(s.max(best[0], best[1]), s.max(best[2], best[3]));
    let tail = chunks.remainder().iter();
    tail.fold(
        s.max_lane(best),
        |max, &value| if value > max { value } else { max },
    )
}

/// The scalar product. Both slices have the same length.
#[inline(always)]
pub(crate) fn dot<S: Simd>(s: S, a: &[f32], b: &[f32]) -> f32 {
    debug_assert_eq!(a.len(), b.len());
    let mut sums = [s.zero(); 4];
    let mut a = a.chunks_exact(4 * S::LANES);
    let mut b = b.chunks_exact(4 * S::LANES);
    for (a, b) in (&mut a).zip(&mut b) {
        for ((sum, a), b) in sums
            .iter_mut()
            .zip(a.chunks_exact(S::LANES))
            .zip(b.chunks_exact(S::LANES))
        {
            *sum = s.mul_add(s.load(a), s.load(b), *sum);
        }
    }
    for (a, b) in a
        .remainder()
        .chunks(S::LANES)
        .zip(b.remainder().chunks(S::LANES))
    {
        sums[0] = s.mul_add(load_head(s, a), load_head(s, b), sums[0]);
    }
    s.sum(s.add(s.add(sums[0], sums[1]), s.add(sums[2], sums[3])))
}
