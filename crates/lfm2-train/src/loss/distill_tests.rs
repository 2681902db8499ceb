use candle_core::{Device, Result, Tensor, Var};
use proptest::prelude::*;

use super::*;
use crate::rng::Rng;

const VOCAB: usize = 9;

fn random(seed: u64, scale: f64) -> Vec<f64> {
    let mut rng = Rng::new(seed);
    (0..2 * VOCAB).map(|_| scale * rng.normal()).collect()
}

fn tensor(values: &[f64]) -> Tensor {
    Tensor::from_slice(values, (2, VOCAB), &Device::Cpu).unwrap()
}

fn teacher(seed: u64, k: usize) -> TopK {
    TopK::of_logits(&tensor(&random(seed, 2.0)), k).unwrap()
}

fn loss(student: &Tensor, list: &TopK, options: Distillation) -> Result<Tensor> {
    distill(student, list, &[1.0, 0.5], options, 1.5)
}

fn settings() -> impl Strategy<Value = Distillation> {
    let form = prop::sample::select(vec![Form::Decoupled, Form::Truncated]);
    let factor = prop::sample::select(vec![TemperatureFactor::One, TemperatureFactor::Squared]);
    (form, factor, 0.5..4.0f64).prop_map(|(form, factor, temperature)| {
        Distillation::default()
            .with_form(form)
            .with_factor(factor)
            .with_temperature(temperature)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn the_gradient_is_the_slope(options in settings(), seed in 0u64..1000, k in 1usize..=VOCAB) {
        let list = teacher(seed, k);
        let values = random(seed + 1, 2.0);
        let var = Var::from_tensor(&tensor(&values)).unwrap();
        // A factor after the loss: the gradient that flows in must not be taken for 1.
        let scaled = (loss(&var, &list, options).unwrap() * 3.0).unwrap();
        let grads = scaled.backward().unwrap();
        let found = grads.get(&var).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
        let at = |i: usize, step: f64| {
            let mut moved = values.clone();
            moved[i] += step;
            loss(&tensor(&moved), &list, options).unwrap().to_scalar::<f64>().unwrap()
        };
        for (i, found) in found.iter().enumerate() {
            let slope = 3.0 * (at(i, 1e-5) - at(i, -1e-5)) / 2e-5;
            prop_assert!((found - slope).abs() < 1e-7, "element {}: {} and {}", i, found, slope);
        }
    }

    #[test]
    fn a_distance_is_not_negative_and_knows_no_shift(
        options in settings(), seed in 0u64..1000, k in 1usize..=VOCAB, shift in -50.0..50.0f64,
    ) {
        let list = teacher(seed, k);
        let student = tensor(&random(seed + 1, 3.0));
        let here = loss(&student, &list, options).unwrap().to_scalar::<f64>().unwrap();
        let there = loss(&(student + shift).unwrap(), &list, options).unwrap();
        let there = there.to_scalar::<f64>().unwrap();
        prop_assert!(here >= -1e-12 && (here - there).abs() < 1e-9, "{} {}", here, there);
        let same = tensor(&random(seed, 2.0));
        let none = loss(&same, &list, options).unwrap().to_scalar::<f64>().unwrap();
        prop_assert!(none.abs() < 1e-12, "{}", none);
    }
}

#[test]
fn only_the_decoupled_form_sees_mass_outside_the_set() -> Result<()> {
    let values = random(3, 2.0);
    let list = TopK::of_logits(&tensor(&values), 3)?;
    let mut moved = values;
    for row in 0..2 {
        for &id in &list.ids[row * 3..(row + 1) * 3] {
            moved[row * VOCAB + id as usize] -= 40.0;
        }
    }
    let of = |form| -> Result<f64> {
        let options = Distillation::default().with_form(form);
        loss(&tensor(&moved), &list, options)?.to_scalar::<f64>()
    };
    assert!(of(Form::Truncated)?.abs() < 1e-12);
    assert!(of(Form::Decoupled)? > 10.0);
    Ok(())
}

#[test]
fn the_list_of_a_teacher_is_in_order_and_ties_go_to_the_lower_id() -> Result<()> {
    let logits = Tensor::new(&[[1.0f32, 3.0, 1.0, 3.0, 0.0]], &Device::Cpu)?;
    let list = TopK::of_logits(&logits, 3)?;
    assert_eq!(list.ids, [1, 3, 0]);
    let mass: f64 = list.logprobs.iter().map(|x| x.exp()).sum();
    assert!((mass + list.log_tails[0].exp() - 1.0).abs() < 1e-12);
    let whole = TopK::of_logits(&logits, 99)?;
    assert_eq!((whole.k, whole.log_tails[0]), (5, f64::NEG_INFINITY));
    assert!(TopK::of_logits(&logits, 0).is_err());
    Ok(())
}

#[test]
fn a_weight_of_0_leaves_a_token_out() -> Result<()> {
    let list = teacher(1, 3);
    let var = Var::from_tensor(&tensor(&random(2, 2.0)))?;
    let options = Distillation::default();
    let grads = distill(&var, &list, &[0.0, 1.0], options, 1.0)?.backward()?;
    let gradient = grads.get(&var).unwrap().to_vec2::<f64>()?;
    assert!(gradient[0].iter().all(|g| *g == 0.0) && gradient[1].iter().any(|g| *g != 0.0));
    let nothing = distill(&var, &list, &[0.0, 0.0], options, 0.0)?;
    assert_eq!(nothing.to_scalar::<f64>()?, 0.0);
    Ok(())
}

#[test]
fn lists_that_do_not_fit_are_refused() {
    let student = tensor(&random(2, 2.0));
    let message = |list: &TopK, options| loss(&student, list, options).unwrap_err().to_string();
    let options = Distillation::default();
    let mut twice = teacher(1, 3);
    twice.ids[1] = twice.ids[0];
    assert!(message(&twice, options).contains("occurs twice"));
    let mut outside = teacher(1, 3);
    outside.ids[4] = 99;
    assert!(message(&outside, options).contains("id 99 is outside"));
    let mut short = teacher(1, 3);
    short.log_tails.pop();
    assert!(message(&short, options).contains("for 2 tokens"));
    let cold = options.with_temperature(0.0);
    assert!(message(&teacher(1, 3), cold).contains("temperature 0"));
    assert!(distill(&student, &teacher(1, 3), &[1.0], options, 1.0).is_err());
}
