//! Backward passes against differences of the naive forward passes.

use proptest::prelude::*;

use super::{Random, assert_near, config, isas, most, naive};
use crate::gradients::{
    ConvGradient, RmsNormed, rms_norm_gradient, short_conv_gradient, silu_mul_gradient,
    softmax_gradient,
};
use crate::{ConvKernel, Sum, scaled_softmax};

/// How the sum of `dy` times a function's values changes with every argument, in double precision.
fn differences(x: &[f32], dy: &[f32], f: impl Fn(&[f32]) -> Vec<f64>) -> Vec<f64> {
    let total = |x: &[f32]| -> f64 {
        let products = f(x).into_iter().zip(dy).map(|(y, dy)| y * f64::from(*dy));
        products.sum()
    };
    let of = |i: usize| {
        let mut moved = x.to_vec();
        moved[i] = x[i] + 1e-3;
        let (up, right) = (total(&moved), f64::from(moved[i]));
        moved[i] = x[i] - 1e-3;
        (up - total(&moved)) / (right - f64::from(moved[i]))
    };
    (0..x.len()).map(of).collect()
}

fn plus(values: &[f64], before: &[f32]) -> Vec<f64> {
    let sums = values.iter().zip(before);
    sums.map(|(value, before)| value + f64::from(*before))
        .collect()
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn rms_norm(rows in 0_usize..=3, dim in 1_usize..=most(40, 18), seed: u64) {
        let mut random = Random(seed);
        let (x, weight) = (random.values(rows * dim, 1), random.values(dim, 0));
        let (dy, before) = (random.values(rows * dim, 1), random.values(rows * dim, 1));
        let started = random.values(dim, 0);
        // An eps that keeps single values from steep slopes.
        let of = RmsNormed { x: &x, weight: &weight, eps: 0.3 };
        let dx = differences(&x, &dy, |x| naive::rms_norm(x, &weight, 0.3));
        let dweight = plus(&differences(&weight, &dy, |w| naive::rms_norm(&x, w, 0.3)), &started);
        for isa in isas() {
            for sum in [Sum::Replace, Sum::Add] {
                let (mut found, mut of_weight) = (before.clone(), started.clone());
                rms_norm_gradient(isa, of, &dy, &mut found, sum, &mut of_weight).unwrap();
                let expected = if sum == Sum::Add { plus(&dx, &before) } else { dx.clone() };
                assert_near(&found, &expected, 1e-4, isa.name());
                assert_near(&of_weight, &dweight, 1e-4, isa.name());
            }
        }
    }

    #[test]
    fn silu_mul(len in 0_usize..=most(70, 20), seed: u64) {
        let mut random = Random(seed);
        let (gate, up, dy) = (random.values(len, 1), random.values(len, 0), random.values(len, 1));
        let product = |gate: &[f32], up: &[f32]| -> Vec<f64> {
            gate.iter().zip(up).map(|(g, u)| naive::silu(*g) * f64::from(*u)).collect()
        };
        let expected = [
            differences(&gate, &dy, |gate| product(gate, &up)),
            differences(&up, &dy, |up| product(&gate, up)),
        ];
        for isa in isas() {
            let (mut dgate, mut dup) = (random.values(len, 1), random.values(len, 1));
            let mut inside = dy.clone();
            silu_mul_gradient(isa, [&gate, &up], &mut inside, [&mut dgate, &mut dup]).unwrap();
            assert_near(&dgate, &expected[0], 1e-4, isa.name());
            assert_near(&dup, &expected[1], 1e-4, isa.name());
            assert_near(&inside, &product(&gate, &up), 1e-6, isa.name());
        }
    }

    #[test]
    fn softmax(len in 1_usize..=most(50, 20), scale in 0.1_f32..3.0, seed: u64) {
        let mut random = Random(seed);
        let (scores, dp) = (random.values(len, 1), random.values(len, 0));
        let scaled = |x: &[f32]| naive::softmax(&x.iter().map(|x| x * scale).collect::<Vec<_>>());
        let expected = differences(&scores, &dp, scaled);
        for isa in isas() {
            let mut p = scores.clone();
            scaled_softmax(isa, &mut p, scale);
            assert_near(&p, &scaled(&scores), 1e-6, isa.name());
            let mut slopes = dp.clone();
            softmax_gradient(isa, &p, &mut slopes, scale).unwrap();
            // Slopes that cancel are small beside the weights.
            super::assert_near_by(&slopes, &expected, 1e-4, isa.name());
        }
    }

    #[test]
    fn short_conv(
        tokens in 0_usize..=6, channels in 1_usize..=most(20, 9), taps in 1_usize..=4,
        centred: bool, biased: bool, seed: u64,
    ) {
        let mut random = Random(seed);
        let (bcx, dy) = (random.values(tokens * 3 * channels, 1), random.values(tokens * channels, 0));
        let (weight, bias) = (random.values(channels * taps, 0), random.values(channels, 0));
        let bias = biased.then_some(bias);
        let before = if centred { taps / 2 } else { taps - 1 };
        let conv = |bcx: &[f32], weight: &[f32], bias: Option<&[f32]>| {
            naive::short_conv(bcx, weight, bias, channels, &[], before)
        };
        let dbcx = differences(&bcx, &dy, |x| conv(x, &weight, bias.as_deref()));
        let by_channel = differences(&weight, &dy, |w| conv(&bcx, w, bias.as_deref()));
        let dtaps: Vec<f64> =
            (0..taps).flat_map(|t| by_channel[t..].iter().step_by(taps).copied()).collect();
        let started = random.values(channels, 0);
        let zero = vec![0.0; channels];
        let dbias = differences(bias.as_deref().unwrap_or(&zero), &dy, |b| conv(&bcx, &weight, Some(b)));
        let kernel = ConvKernel::new(&weight, bias.as_deref(), channels).unwrap();
        for isa in isas() {
            let (mut found, mut y) = (random.values(bcx.len(), 1), random.values(dy.len(), 1));
            let (mut of_taps, mut of_bias) = (vec![0.0; taps * channels], started.clone());
            let out = ConvGradient {
                bcx: &mut found,
                y: &mut y,
                taps: &mut of_taps,
                bias: &mut of_bias,
            };
            short_conv_gradient(isa, &bcx, &kernel, before, &dy, out).unwrap();
            assert_near(&found, &dbcx, 1e-4, isa.name());
            assert_near(&y, &conv(&bcx, &weight, bias.as_deref()), 1e-5, isa.name());
            assert_near(&of_taps, &dtaps, 1e-4, isa.name());
            assert_near(&of_bias, &plus(&dbias, &started), 1e-4, isa.name());
        }
    }
}

#[test]
fn lengths_that_differ_are_refused() {
    let isa = isas()[0];
    let (x, mut out, mut dw) = ([0.0; 6], [0.0; 6], [0.0; 3]);
    let of = RmsNormed {
        x: &x,
        weight: &[1.0; 3],
        eps: 1e-5,
    };
    assert!(rms_norm_gradient(isa, of, &x[..3], &mut out, Sum::Add, &mut dw).is_err());
    assert!(rms_norm_gradient(isa, of, &x, &mut out[..3], Sum::Add, &mut dw).is_err());
    assert!(rms_norm_gradient(isa, of, &x, &mut out, Sum::Add, &mut dw[..1]).is_err());
    let (mut a, mut b, mut c) = ([0.0; 2], [0.0; 2], [0.0; 1]);
    assert!(silu_mul_gradient(isa, [&x[..2], &x[..2]], &mut a, [&mut b, &mut c]).is_err());
    assert!(softmax_gradient(isa, &x[..3], &mut a, 1.0).is_err());
    let kernel = ConvKernel::new(&[1.0; 3], None, 1).unwrap();
    let out = ConvGradient {
        bcx: &mut out,
        y: &mut a,
        taps: &mut dw,
        bias: &mut c,
    };
    assert!(short_conv_gradient(isa, &x[..3], &kernel, 2, &x[..2], out).is_err());
}
