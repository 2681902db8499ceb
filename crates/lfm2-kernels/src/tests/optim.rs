use super::{Random, assert_near, isas};
use crate::optim::{AdamWFactors, adamw, sum_of_squares};

const FACTORS: AdamWFactors = AdamWFactors {
    beta1: 0.9,
    beta2: 0.95,
    rest1: 0.1,
    rest2: 0.05,
    eps: 1e-3,
    scale: 0.7,
    step: 0.02,
    root: 1.5,
    keep: 0.99,
};

/// One weight in double precision.
fn naive(g: f32, [m, v, w]: [f32; 3]) -> [f64; 3] {
    let [beta1, beta2, rest1, rest2, eps, scale, step, root, keep] = [
        FACTORS.beta1,
        FACTORS.beta2,
        FACTORS.rest1,
        FACTORS.rest2,
        FACTORS.eps,
        FACTORS.scale,
        FACTORS.step,
        FACTORS.root,
        FACTORS.keep,
    ]
    .map(f64::from);
    let (g, m, v, w) = (
        f64::from(g) * scale,
        f64::from(m),
        f64::from(v),
        f64::from(w),
    );
    let m = beta1 * m + rest1 * g;
    let v = beta2 * v + rest2 * g * g;
    [m, v, keep * w - step * m / (v.sqrt() * root + eps)]
}

#[test]
fn an_update_is_that_of_the_formula_on_every_length() {
    let mut random = Random(3);
    for len in (0..=40).chain([129]) {
        let (gradient, first) = (random.values(len, 1), random.values(len, 0));
        let mut second = random.values(len, 1);
        second.iter_mut().for_each(|v| *v = v.abs());
        let weights = random.values(len, 0);
        let expected: Vec<[f64; 3]> = (0..len)
            .map(|i| naive(gradient[i], [first[i], second[i], weights[i]]))
            .collect();
        for isa in isas() {
            let (mut m, mut v, mut w) = (first.clone(), second.clone(), weights.clone());
            adamw(isa, FACTORS, &gradient, [&mut m, &mut v], &mut w).unwrap();
            for (found, part) in [(&m, 0), (&v, 1), (&w, 2)] {
                let expected: Vec<f64> = expected.iter().map(|e| e[part]).collect();
                assert_near(found, &expected, 1e-6, isa.name());
            }
        }
    }
}

#[test]
fn squares_are_those_of_a_loop() {
    let mut random = Random(4);
    for len in (0..=70).step_by(7).chain([1000]) {
        let a = random.values(len, 1);
        let expected: f64 = a.iter().map(|x| f64::from(*x).powi(2)).sum();
        for isa in isas() {
            let found = sum_of_squares(isa, &a);
            assert!(
                (found - expected).abs() <= 1e-12 * expected,
                "{isa}: {found} {expected}"
            );
        }
    }
}

#[test]
fn lengths_that_differ_are_refused() {
    let isa = isas()[0];
    let (mut a, mut b, mut c) = ([0.0; 2], [0.0; 2], [0.0; 2]);
    assert!(adamw(isa, FACTORS, &[1.0], [&mut a, &mut b], &mut c).is_err());
    assert!(adamw(isa, FACTORS, &[1.0; 2], [&mut a[..1], &mut b], &mut c).is_err());
}
