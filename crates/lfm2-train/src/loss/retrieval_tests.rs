use candle_core::{DType, Device, Result, Tensor, Var};
use proptest::prelude::*;

use super::*;
use crate::rng::Rng;

fn random(rows: usize, dim: usize, seed: u64) -> Vec<f64> {
    let mut rng = Rng::new(seed);
    (0..rows * dim).map(|_| rng.normal()).collect()
}

fn tensor(values: &[f64], dim: usize) -> Tensor {
    Tensor::from_slice(values, (values.len() / dim, dim), &Device::Cpu).unwrap()
}

/// By the definition: sum of maxima, one product after another.
fn naive(queries: &[Vec<Vec<f64>>], documents: &[Vec<Vec<f64>>]) -> Vec<Vec<f64>> {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let best = |q: &Vec<f64>, document: &Vec<Vec<f64>>| {
        let all = document.iter().map(|d| dot(q, d));
        let best = all.fold(f64::NEG_INFINITY, f64::max);
        if document.is_empty() { 0.0 } else { best }
    };
    let score = |query: &Vec<Vec<f64>>, d| query.iter().map(|q| best(q, d)).sum();
    let row = |query| documents.iter().map(|d| score(query, d)).collect();
    queries.iter().map(row).collect()
}

/// The rows of every text that count.
fn texts(values: &[f64], dim: usize, rows: &TextRows) -> Vec<Vec<Vec<f64>>> {
    let row = |r: usize| values[r * dim..(r + 1) * dim].to_vec();
    (0..rows.texts())
        .map(|t| rows.of(t).filter(|&r| rows.counted[r]).map(row).collect())
        .collect()
}

fn some(rows: usize, seed: u64) -> Vec<bool> {
    let mut rng = Rng::new(seed);
    (0..rows).map(|_| rng.below(4) > 0).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn scores_are_sums_of_maxima(
        q_lens in prop::collection::vec(0usize..5, 1..4),
        d_lens in prop::collection::vec(0usize..12, 1..6),
        dim in 1usize..20,
        seed in 0u64..1000,
    ) {
        let (q_rows, d_rows) = (TextRows::new(&q_lens), TextRows::new(&d_lens));
        let (q, d) = (random(q_rows.rows(), dim, seed), random(d_rows.rows(), dim, seed + 1));
        let q_rows = q_rows.counting(some(q.len() / dim, seed + 2)).unwrap();
        let d_rows = d_rows.counting(some(d.len() / dim, seed + 3)).unwrap();
        let expected = naive(&texts(&q, dim, &q_rows), &texts(&d, dim, &d_rows));
        for (dtype, tolerance) in [(DType::F64, 1e-12), (DType::F32, 1e-4)] {
            let cast = |values: &[f64]| tensor(values, dim).to_dtype(dtype).unwrap();
            let (q, d) = (cast(&q), cast(&d));
            let found = max_sim((&q, &q_rows), (&d, &d_rows), Pairing::All, Uncounted::LeftOut);
            let found = found.unwrap().to_dtype(DType::F64).unwrap().to_vec2::<f64>().unwrap();
            for (found, expected) in found.iter().flatten().zip(expected.iter().flatten()) {
                prop_assert!((found - expected).abs() < tolerance, "{found} and {expected}");
            }
        }
    }
}

/// Gradients of `loss` with respect to both operands against finite differences.
fn check_gradients(loss: impl Fn(&Tensor, &Tensor) -> Result<Tensor>) {
    let dim = 5;
    let values = [random(7, dim, 3), random(12, dim, 4)];
    let var = |v: &[f64]| Var::from_tensor(&tensor(v, dim)).unwrap();
    let vars = [var(&values[0]), var(&values[1])];
    // A factor behind the loss: the gradient that flows in must not be taken for 1.
    let total = (loss(&vars[0], &vars[1]).unwrap() * 3.0).unwrap();
    let grads = total.backward().unwrap();
    let at = |values: &[Vec<f64>; 2]| {
        let [q, d] = [tensor(&values[0], dim), tensor(&values[1], dim)];
        3.0 * loss(&q, &d).unwrap().to_scalar::<f64>().unwrap()
    };
    for (operand, var) in vars.iter().enumerate() {
        let found = grads.get(var).unwrap().flatten_all().unwrap();
        for (i, found) in found.to_vec1::<f64>().unwrap().into_iter().enumerate() {
            let moved = |by: f64| {
                let mut values = values.clone();
                values[operand][i] += by;
                at(&values)
            };
            let expected = (moved(1e-6) - moved(-1e-6)) / 2e-6;
            assert!(
                (found - expected).abs() < 1e-6,
                "operand {operand}, element {i}: {found} and {expected}"
            );
        }
    }
}

fn batch() -> (TextRows, TextRows) {
    let documents = TextRows::new(&[3, 1, 4, 4]);
    (
        TextRows::new(&[4, 3]),
        documents.counting(some(12, 8)).unwrap(),
    )
}

#[test]
fn gradients_of_the_contrastive_loss_agree_with_finite_differences() {
    let (queries, documents) = batch();
    for uncounted in [Uncounted::LeftOut, Uncounted::Zero] {
        check_gradients(|q, d| {
            let scores = max_sim((q, &queries), (d, &documents), Pairing::All, uncounted)?;
            contrastive(&scores, &positives(2, 2), 0.7, 2.0)
        });
    }
}

#[test]
fn gradients_of_distillation_agree_with_finite_differences() {
    let (queries, documents) = batch();
    for scaling in [Scaling::MinMax, Scaling::Temperature(0.4)] {
        check_gradients(|q, d| {
            let sides = ((q, &queries), (d, &documents));
            let scores = max_sim(sides.0, sides.1, Pairing::Own, Uncounted::LeftOut)?;
            distillation(&scores, &[0.3, -1.0, 2.0, 0.0], &[1.0, 0.5], scaling, 2.0)
        });
    }
}

#[test]
fn a_student_that_agrees_with_its_teacher_has_no_loss() -> Result<()> {
    let scores = Tensor::new(&[[1.0f64, 3.0, 2.0]], &Device::Cpu)?;
    let own = [2.0, 6.0, 4.0];
    let loss = distillation(&scores, &own, &[1.0], Scaling::Temperature(0.5), 1.0)?;
    assert!(loss.to_scalar::<f64>()?.abs() < 1e-12);
    let stretched = [0.0, 1.0, 0.5];
    let loss = distillation(&scores, &stretched, &[1.0], Scaling::MinMax, 1.0)?;
    assert!(loss.to_scalar::<f64>()?.abs() < 1e-8);
    Ok(())
}

#[test]
fn a_document_without_rows_that_count_scores_0_and_learns_nothing() -> Result<()> {
    let q = Var::from_tensor(&tensor(&[1.0, 2.0], 2))?;
    let d = Var::from_tensor(&tensor(&[-1.0, -1.0, 5.0, 5.0], 2))?;
    let rows = TextRows::new(&[1, 1, 0]).counting(vec![true, false])?;
    let scores = max_sim(
        (&q, &TextRows::new(&[1])),
        (&d, &rows),
        Pairing::All,
        Uncounted::LeftOut,
    )?;
    assert_eq!(scores.to_vec2::<f64>()?, [[-3.0, 0.0, 0.0]]);
    let grads = scores.sum_all()?.backward()?;
    let of = |var: &Var| grads.get(var).unwrap().to_vec2::<f64>();
    assert_eq!(of(&q)?, [[-1.0, -1.0]]);
    assert_eq!(of(&d)?, [[1.0, 2.0], [0.0, 0.0]]);
    Ok(())
}

#[test]
fn what_is_not_a_number_does_not_hide() -> Result<()> {
    let q = Tensor::new(&[[1.0f32, 0.0]], &Device::Cpu)?;
    let d = Tensor::new(&[[9.0f32, 0.0], [f32::NAN, 0.0], [1.0, 0.0]], &Device::Cpu)?;
    let (own, theirs) = (TextRows::new(&[1]), TextRows::new(&[3]));
    let scores = max_sim((&q, &own), (&d, &theirs), Pairing::All, Uncounted::LeftOut)?;
    assert!(scores.to_vec2::<f32>()?[0][0].is_nan());
    Ok(())
}

#[test]
fn ranks_count_what_stands_before() -> Result<()> {
    let scores = Tensor::new(&[[3.0f32, 1.0, 2.0], [1.0, 1.0, 1.0]], &Device::Cpu)?;
    assert_eq!(ranks(&scores, &[2, 1])?, [2, 2]);
    assert!(ranks(&scores, &[3, 0]).is_err() && ranks(&scores, &[0]).is_err());
    Ok(())
}

#[test]
fn operands_that_do_not_fit_are_refused() {
    let q = tensor(&random(2, 3, 1), 3);
    let d = tensor(&random(3, 3, 2), 3);
    let score = |q_lens: &[usize], d_lens: &[usize], pairing| {
        let rows = (TextRows::new(q_lens), TextRows::new(d_lens));
        max_sim((&q, &rows.0), (&d, &rows.1), pairing, Uncounted::LeftOut)
    };
    assert!(score(&[1, 1], &[1, 2], Pairing::Own).is_ok());
    assert!(score(&[1, 2], &[1, 2], Pairing::All).is_err());
    assert!(score(&[1, 1], &[1, 1, 1], Pairing::Own).is_err());
    assert!(TextRows::new(&[2]).counting(vec![true]).is_err());
    let wide = q.to_dtype(DType::F32).unwrap();
    let rows = (TextRows::new(&[2]), TextRows::new(&[3]));
    let mixed = max_sim(
        (&wide, &rows.0),
        (&d, &rows.1),
        Pairing::All,
        Uncounted::LeftOut,
    );
    assert!(mixed.is_err());
    assert!(distillation(&q, &[0.0; 5], &[1.0; 2], Scaling::MinMax, 1.0).is_err());
}
