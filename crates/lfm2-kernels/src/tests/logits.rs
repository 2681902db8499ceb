use proptest::prelude::*;

use super::{Random, config, isas, most, naive};
use crate::{argmax, log_sum_exp, top_k};

/// Values with many equals, some infinite and some NaN.
fn rough_values() -> impl Strategy<Value = Vec<f32>> {
    let value = prop_oneof![
        8 => (-20_i8..20).prop_map(|value| f32::from(value) / 4.0),
        1 => Just(f32::NEG_INFINITY),
        1 => Just(f32::INFINITY),
        1 => Just(f32::NAN),
        1 => Just(-0.0),
    ];
    prop::collection::vec(value, 0..=most(300, 40))
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn top_k_is_a_stable_sort(values in rough_values(), k in 0..=most(310, 50)) {
        let expected = naive::top_k(&values, k);
        for isa in isas() {
            let found = top_k(isa, &values, k);
            let indices: Vec<usize> = found.iter().map(|(index, _)| *index).collect();
            prop_assert_eq!(&indices, &expected);
            prop_assert!(found.iter().all(|(i, value)| value.to_bits() == values[*i].to_bits()));
        }
    }

    #[test]
    fn argmax_is_the_first_of_the_top(values in rough_values()) {
        let expected = naive::top_k(&values, 1).first().copied().filter(|&i| !values[i].is_nan());
        for isa in isas() {
            prop_assert_eq!(argmax(isa, &values), expected);
        }
    }

    #[test]
    fn log_sum_exp_matches(len in 1..=most(3000, 300), offset in 0_usize..4, scale in 0.0_f32..200.0, seed: u64) {
        let mut values = Random(seed).values(len, offset);
        values.iter_mut().for_each(|value| *value *= scale);
        let expected = naive::log_sum_exp(&values);
        for isa in isas() {
            let found = f64::from(log_sum_exp(isa, &values));
            prop_assert!((found - expected).abs() <= 1e-6 * expected.abs().max(1.0));
        }
    }
}

#[test]
fn log_sum_exp_of_extremes() {
    for isa in isas() {
        assert_eq!(log_sum_exp(isa, &[]), f32::NEG_INFINITY);
        assert_eq!(
            log_sum_exp(isa, &[f32::NEG_INFINITY; 20]),
            f32::NEG_INFINITY
        );
        assert_eq!(log_sum_exp(isa, &[f32::INFINITY, 1.0]), f32::INFINITY);
        assert_eq!(log_sum_exp(isa, &[f32::MAX; 2]), f32::MAX);
        assert!(log_sum_exp(isa, &[f32::NAN, 1.0]).is_nan());
        assert!(log_sum_exp(isa, &[f32::NAN, f32::NEG_INFINITY]).is_nan());
    }
}

#[test]
fn argmax_of_nothing_is_none() {
    for isa in isas() {
        assert_eq!(argmax(isa, &[]), None);
        assert_eq!(argmax(isa, &[f32::NAN; 40]), None);
        assert_eq!(argmax(isa, &[f32::NAN, f32::NEG_INFINITY]), Some(1));
    }
}
