use proptest::prelude::*;

use super::{Random, assert_near, config, isas, most, naive};
use crate::{
    ConvKernel, Isa, add_bias, add_bias_gelu_erf, add_bias_gelu_tanh, add_bias_silu, add_rms_norm,
    exp, gelu_erf, gelu_tanh, layer_norm, rms_norm, rms_norm_in_place, rope, short_conv,
    short_conv_centred, sigmoid, silu, silu_mul, softmax,
};

/// How many units in the last place `found` is away, or a huge number.
fn ulps(found: f32, expected: f64) -> f64 {
    if f64::from(found) == expected || (found.is_infinite() && expected as f32 == found) {
        return 0.0;
    }
    let rounded = (expected as f32).abs().max(f32::MIN_POSITIVE);
    let unit = f64::from(f32::from_bits(rounded.to_bits() + 1)) - f64::from(rounded);
    (f64::from(found) - expected).abs() / unit
}

/// Many finite arguments, denser where functions bend.
fn arguments() -> Vec<f32> {
    let mut x: Vec<f32> = (-200_000..200_000)
        .step_by(most(1, 1999))
        .map(|i| i as f32 * 5e-4 + 1e-5)
        .collect();
    x.extend((-40..40).flat_map(|e| [2f32.powi(e), -(2f32.powi(e))]));
    x.extend([
        0.0, -0.0, 88.722, 88.7229, -87.3, -103.0, -103.98, -104.5, 1e30, -1e30,
    ]);
    x.extend([f32::MAX, f32::MIN, f32::MIN_POSITIVE, 1e-45, f32::INFINITY]);
    x
}

#[track_caller]
fn check_function(apply: fn(Isa, &mut [f32]), oracle: fn(f32) -> f64, limit: f64, x: &[f32]) {
    for isa in isas() {
        let mut y = x.to_vec();
        apply(isa, &mut y);
        for (&x, &y) in x.iter().zip(&y) {
            let error = ulps(y, oracle(x));
            assert!(
                error <= limit,
                "{isa}: f({x:e}) = {y:e}, {error} units from {:e}",
                oracle(x)
            );
        }
        for len in 0..=130 {
            let mut part = x[1..1 + len].to_vec();
            apply(isa, &mut part);
            assert_eq!(part, y[1..1 + len], "{isa}: length {len}");
        }
        let mut nan = [f32::NAN; 3];
        apply(isa, &mut nan);
        assert!(nan.iter().all(|y| y.is_nan()), "{isa}: NaN");
    }
}

#[test]
fn exp_is_accurate_everywhere() {
    let mut x = arguments();
    x.push(f32::NEG_INFINITY);
    check_function(exp, |x| f64::from(x).exp(), 1.5, &x);
}

#[test]
fn sigmoid_is_accurate_where_it_is_not_negligible() {
    // Further left the exponential overflows, and the answer is a clean zero instead of 1e-39.
    let x: Vec<f32> = arguments().into_iter().filter(|&x| x > -88.0).collect();
    check_function(sigmoid, naive::sigmoid, 2.5, &x);
    for isa in isas() {
        let mut tiny = [-88.8, -100.0, -1e30, f32::NEG_INFINITY];
        sigmoid(isa, &mut tiny);
        assert!(
            tiny.iter().all(|&y| (0.0..1e-38).contains(&y)),
            "{isa}: {tiny:?}"
        );
    }
}

#[test]
fn silu_is_accurate_where_it_is_not_negligible() {
    let x: Vec<f32> = arguments().into_iter().filter(|&x| x > -88.0).collect();
    check_function(silu, naive::silu, 3.0, &x);
    for isa in isas() {
        let mut tiny = [-88.8, -100.0, -1e30, f32::MIN];
        silu(isa, &mut tiny);
        assert!(tiny.iter().all(|y| y.abs() < 1e-35), "{isa}: {tiny:?}");
    }
}

#[test]
fn gelu_is_near_its_formula_everywhere() {
    let x = arguments();
    for isa in isas() {
        let mut y = x.clone();
        gelu_tanh(isa, &mut y);
        for (&x, &y) in x.iter().zip(&y) {
            let expected = naive::gelu_tanh(x);
            let error = (f64::from(y) - expected).abs();
            let near = f64::from(y) == expected || error <= 1e-7 + 4e-7 * expected.abs();
            assert!(near, "{isa}: gelu({x:e}) = {y:e}, expected {expected:e}");
        }
        for len in 0..=130 {
            let mut part = x[1..1 + len].to_vec();
            gelu_tanh(isa, &mut part);
            assert_eq!(part, y[1..1 + len], "{isa}: length {len}");
        }
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn silu_mul_matches(len in 0_usize..=130, offset in 0_usize..4, seed: u64) {
        let mut random = Random(seed);
        let mut gate = random.values(len, offset);
        gate.iter_mut().for_each(|gate| *gate *= 10.0);
        let up = random.values(len, offset);
        let expected: Vec<f64> =
            gate.iter().zip(up.iter()).map(|(&g, &u)| naive::silu(g) * f64::from(u)).collect();
        for isa in isas() {
            let mut out = random.values(len, offset);
            silu_mul(isa, &gate, &up, &mut out).unwrap();
            assert_near(&out, &expected, 1e-6, isa.name());
        }
    }

    #[test]
    fn softmax_matches(len in 1_usize..=130, offset in 0_usize..4, scale in 0.0_f32..50.0, seed: u64) {
        let mut row = Random(seed).values(len, offset);
        row.iter_mut().for_each(|value| *value *= scale);
        let expected = naive::softmax(&row);
        for isa in isas() {
            let mut out = row.clone();
            softmax(isa, &mut out);
            assert_near(&out, &expected, 2e-6, isa.name());
        }
    }

    #[test]
    fn rms_norm_matches_in_all_forms(
        rows in 0_usize..=5, dim in 1_usize..=130, offset in 0_usize..4, seed: u64,
    ) {
        let mut random = Random(seed);
        let x = random.values(rows * dim, offset);
        let delta = random.values(rows * dim, offset);
        let weight = random.values(dim, offset);
        let sum: Vec<f32> = x.iter().zip(delta.iter()).map(|(a, b)| a + b).collect();
        let expected = naive::rms_norm(&x, &weight, 1e-5);
        let expected_sum = naive::rms_norm(&sum, &weight, 1e-5);
        for isa in isas() {
            let mut out = random.values(rows * dim, offset);
            rms_norm(isa, &x, &weight, 1e-5, &mut out).unwrap();
            assert_near(&out, &expected, 2e-6, isa.name());
            let mut in_place = x.clone();
            rms_norm_in_place(isa, &mut in_place, &weight, 1e-5).unwrap();
            prop_assert_eq!(&in_place[..], &out[..]);
            let mut residual = x.clone();
            add_rms_norm(isa, &mut residual, &delta, &weight, 1e-5, &mut out).unwrap();
            prop_assert_eq!(&residual[..], &sum[..]);
            assert_near(&out, &expected_sum, 2e-6, isa.name());
        }
    }

    #[test]
    fn layer_norm_matches(rows in 0_usize..=5, dim in 1_usize..=130, offset in 0_usize..4, seed: u64) {
        let mut random = Random(seed);
        let x = random.values(rows * dim, offset);
        let (weight, bias) = (random.values(dim, offset), random.values(dim, 1));
        let expected = naive::layer_norm(&x, &weight, &bias, 1e-3);
        for isa in isas() {
            let mut out = random.values(rows * dim, offset);
            layer_norm(isa, &x, [&weight, &bias], 1e-3, &mut out).unwrap();
            assert_near(&out, &expected, 5e-6, isa.name());
        }
    }

    #[test]
    fn biases_are_added_to_every_row_before_the_unit(
        rows in 0_usize..=5, dim in 1_usize..=70, offset in 0_usize..4, seed: u64,
    ) {
        let mut random = Random(seed);
        let x = random.values(rows * dim, offset);
        let bias = random.values(dim, offset);
        let sums: Vec<f32> = x.iter().zip(bias.iter().cycle()).map(|(x, b)| x + b).collect();
        for isa in isas() {
            let with = |f: &dyn Fn(&mut [f32])| {
                let mut values = x.to_vec();
                f(&mut values);
                values
            };
            prop_assert_eq!(&with(&|y| add_bias(isa, y, &bias).unwrap()), &sums);
            let apart = |f: fn(Isa, &mut [f32])| {
                let mut values = sums.clone();
                f(isa, &mut values);
                values
            };
            prop_assert_eq!(with(&|y| add_bias_gelu_tanh(isa, y, &bias).unwrap()), apart(gelu_tanh));
            prop_assert_eq!(with(&|y| add_bias_gelu_erf(isa, y, &bias).unwrap()), apart(gelu_erf));
            prop_assert_eq!(with(&|y| add_bias_silu(isa, y, &bias).unwrap()), apart(silu));
        }
    }

    #[test]
    fn rope_matches_with_all_or_some_pairs(
        tokens in 1_usize..=20, heads in 1_usize..=3, half in 1_usize..=65, part in 0.0_f32..=1.0, seed: u64,
    ) {
        let mut random = Random(seed);
        let pairs = (part * half as f32).round() as usize;
        let x = random.values(tokens * heads * 2 * half, 1);
        let angles = random.values(tokens * pairs, 0);
        let cos: Vec<f32> = angles.iter().map(|a| (a * 4.0).cos()).collect();
        let sin: Vec<f32> = angles.iter().map(|a| (a * 4.0).sin()).collect();
        let expected = naive::rope(&x, &cos, &sin, heads, 2 * half);
        for isa in isas() {
            let mut out = x.clone();
            rope(isa, &mut out, &cos, &sin, heads, 2 * half).unwrap();
            assert_near(&out, &expected, 1e-6, isa.name());
        }
    }

    #[test]
    fn short_conv_matches_and_may_be_fed_in_pieces(
        tokens in 0_usize..=40, channels in 1_usize..=40, taps in 1_usize..=8,
        biased: bool, cut in 0.0_f32..=1.0, seed: u64,
    ) {
        let mut random = Random(seed);
        let bcx = random.values(tokens * 3 * channels, 1);
        let weight = random.values(channels * taps, 0);
        let bias = biased.then(|| random.values(channels, 0));
        let before = random.values((taps - 1) * channels, 0);
        let expected =
            naive::short_conv(&bcx, &weight, bias.as_deref(), channels, &before, taps - 1);
        let kernel = ConvKernel::new(&weight, bias.as_deref(), channels).unwrap();
        let cut = (cut * tokens as f32) as usize;
        for isa in isas() {
            let mut state = before.clone();
            let mut out = random.values(tokens * channels, 1);
            short_conv(isa, &bcx, &kernel, &mut state, &mut out).unwrap();
            assert_near(&out, &expected, 1e-6, isa.name());

            let mut state_of_pieces = before.clone();
            let mut pieces = random.values(tokens * channels, 1);
            let (first, second) = pieces.split_at_mut(cut * channels);
            let (bcx_first, bcx_second) = bcx.split_at(cut * 3 * channels);
            short_conv(isa, bcx_first, &kernel, &mut state_of_pieces, first).unwrap();
            short_conv(isa, bcx_second, &kernel, &mut state_of_pieces, second).unwrap();
            prop_assert_eq!(&pieces[..], &out[..]);
            prop_assert_eq!(&state_of_pieces[..], &state[..]);
        }
    }

    #[test]
    fn centred_conv_pads_half_its_taps(
        tokens in 0_usize..=40, channels in 1_usize..=40, taps in 1_usize..=8, seed: u64,
    ) {
        let mut random = Random(seed);
        let bcx = random.values(tokens * 3 * channels, 1);
        let weight = random.values(channels * taps, 0);
        let expected = naive::short_conv(&bcx, &weight, None, channels, &[], taps / 2);
        let kernel = ConvKernel::new(&weight, None, channels).unwrap();
        for isa in isas() {
            let mut out = random.values(tokens * channels, 1);
            short_conv_centred(isa, &bcx, &kernel, &mut out).unwrap();
            assert_near(&out, &expected, 1e-6, isa.name());
        }
    }
}

#[test]
fn conv_state_holds_the_last_products_oldest_first() {
    // Two channels, three taps; B, C, u of one token are 2, 1, 3 and 4, 1, 5.
    let kernel = ConvKernel::new(&[0.0; 6], None, 2).unwrap();
    let mut state = vec![1.0, 2.0, 3.0, 4.0];
    let mut out = [0.0; 2];
    short_conv(
        Isa::best(),
        &[2.0, 4.0, 1.0, 1.0, 3.0, 5.0],
        &kernel,
        &mut state,
        &mut out,
    )
    .unwrap();
    assert_eq!(state, [3.0, 4.0, 6.0, 20.0]);
}

#[test]
fn softmax_of_extremes() {
    for isa in isas() {
        let mut one = [f32::MAX, f32::MIN, f32::NEG_INFINITY];
        softmax(isa, &mut one);
        assert_eq!(one, [1.0, 0.0, 0.0]);
        let mut hidden = [f32::NEG_INFINITY; 3];
        softmax(isa, &mut hidden);
        assert!(hidden.iter().all(|value| value.is_nan()));
        softmax(isa, &mut []);
    }
}

#[test]
fn rms_norm_of_zeros_is_zero() {
    for isa in isas() {
        let mut out = [1.0; 5];
        rms_norm(isa, &[0.0; 5], &[1.0; 5], 1e-5, &mut out).unwrap();
        assert_eq!(out, [0.0; 5]);
    }
}

#[test]
fn the_exact_gelu_has_the_values_of_its_formula() {
    // scipy: x * norm.cdf(x)
    let expected = [
        (-40.0, 0.0),
        (-6.0, -5.919_526e-9),
        (-3.0, -0.004_049_694),
        (-1.0, -0.158_655_25),
        (-0.1, -0.046_017_22),
        (0.0, 0.0),
        (1e-3, 5.003_989e-4),
        (0.5, 0.345_731_23),
        (2.0, 1.954_499_7),
        (40.0, 40.0),
    ];
    for isa in isas() {
        for (x, y) in expected {
            let mut values = [x; 3];
            gelu_erf(isa, &mut values);
            let near = |found: f32| (found - y).abs() <= 2e-7 * (1.0 + x.abs());
            assert!(values.into_iter().all(near), "{isa} {x}: {values:?}");
        }
        // What two opposite numbers give differs by their size: the two tails together are one.
        for x in (0..200).map(|i| i as f32 * 0.05) {
            let mut values = [x, -x];
            gelu_erf(isa, &mut values);
            assert!(
                (values[0] - values[1] - x).abs() <= 1e-6 * (1.0 + x),
                "{isa} {x}"
            );
        }
        let mut odd = [f32::NAN, f32::INFINITY];
        gelu_erf(isa, &mut odd);
        assert!(odd[0].is_nan(), "{isa} {odd:?}");
    }
}

#[test]
fn biases_of_another_length_are_refused() {
    let isa = Isa::best();
    assert!(add_bias(isa, &mut [0.0; 5], &[1.0; 2]).is_err());
    assert!(layer_norm(isa, &[0.0; 4], [&[1.0; 2], &[1.0; 3]], 1e-5, &mut [0.0; 4]).is_err());
}

#[test]
fn partial_rotation_keeps_the_other_pairs() {
    let x: Vec<f32> = (0..20).map(|i| i as f32 * 0.3 - 2.0).collect();
    for isa in isas() {
        let mut turned = x.clone();
        // Two heads of five pairs, of which the first two turn by a quarter.
        rope(isa, &mut turned, &[0.0; 2], &[1.0; 2], 2, 10).unwrap();
        for head in [0, 10] {
            for pair in 0..2 {
                assert_eq!(turned[head + pair], -x[head + pair + 5]);
                assert_eq!(turned[head + pair + 5], x[head + pair]);
            }
            assert_eq!(turned[head + 2..head + 5], x[head + 2..head + 5]);
            assert_eq!(turned[head + 7..head + 10], x[head + 7..head + 10]);
        }
    }
}

#[test]
fn nan_stays_in_its_row_or_channel() {
    for isa in isas() {
        let mut x = vec![1.0; 60];
        x[25] = f32::NAN;
        let mut out = vec![0.0; 60];
        rms_norm(isa, &x, &[1.0; 20], 1e-5, &mut out).unwrap();
        assert!(
            out.iter()
                .enumerate()
                .all(|(i, y)| y.is_nan() == (20..40).contains(&i))
        );
        // Channel 1 of the input gate of token 1, which tokens 1 to 3 of 5 see.
        let channels = 4;
        let mut bcx = vec![1.0; 5 * 3 * channels];
        bcx[3 * channels + 1] = f32::NAN;
        let kernel = ConvKernel::new(&[1.0; 12], None, channels).unwrap();
        let mut out = vec![0.0; 5 * channels];
        short_conv(isa, &bcx, &kernel, &mut [0.0; 8], &mut out).unwrap();
        let nan: Vec<usize> = (0..20).filter(|&i| out[i].is_nan()).collect();
        assert_eq!(nan, [5, 9, 13]);
    }
}
