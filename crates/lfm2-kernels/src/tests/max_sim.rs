use std::ops::Range;

use half::f16;
use proptest::prelude::*;

use super::{Random, Stored, config, isas, most, naive};
use crate::{DocumentRows, Isa, MatRef, ShapeError, max_sim, max_sim_matches, threads::alone};

/// Consecutive ranges of these lengths.
fn ranges(lengths: &[usize]) -> Vec<Range<usize>> {
    let mut end = 0;
    let range = |&length: &usize| {
        end += length;
        end - length..end
    };
    lengths.iter().map(range).collect()
}

/// Scores and matches on every instruction set, against the naive ones of the widened rows; `view`
/// gives some of the stored rows.
fn check<'a>(
    query: MatRef<'_, f32>,
    view: &dyn Fn(Range<usize>) -> DocumentRows<'a>,
    wide: &[f32],
    lengths: &[usize],
) {
    let documents = ranges(lengths);
    let dim = query.cols();
    let rows = view(0..lengths.iter().sum());
    let expected: Vec<Vec<f64>> = documents
        .iter()
        .map(|d| naive::max_sim(query, &wide[d.start * dim..d.end * dim]))
        .collect();
    let scores: Vec<f64> = expected.iter().map(|best| best.iter().sum()).collect();
    // The parts of a sum can be much larger than the sum.
    let near = |found: f32, expected: f64, parts: usize| {
        let error = (f64::from(found) - expected).abs();
        assert!(
            error <= 2e-6 * (dim * parts) as f64,
            "expected {expected}, found {found}"
        );
    };
    for isa in isas() {
        let mut found = vec![f32::NAN; documents.len()];
        max_sim(isa, query, rows, &documents, &mut found).unwrap();
        for (&found, &expected) in found.iter().zip(&scores) {
            near(found, expected, query.rows());
        }
        for (document, best) in documents.iter().zip(&expected) {
            let matches = max_sim_matches(isa, query, view(document.clone())).unwrap();
            assert_eq!(matches.len(), best.len(), "{isa}");
            for (i, (m, &best)) in matches.iter().zip(best).enumerate() {
                let row = &wide[(document.start + m.row) * dim..][..dim];
                near(m.similarity, best, 1);
                near(
                    m.similarity,
                    naive::matmul(query.row(i), row, 1, dim, 1)[0],
                    1,
                );
            }
        }
    }
}

/// Some rows of values that are `dim` wide.
fn matrix<T>(values: &[T], rows: Range<usize>, dim: usize) -> MatRef<'_, T> {
    MatRef::new(&values[rows.start * dim..rows.end * dim], rows.len(), dim).unwrap()
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn max_sim_matches_the_naive_sum(
        rows in 0..=most(70, 20),
        dim in 1..=most(140, 20),
        lengths in prop::collection::vec(0..=most(40, 14), 0..8),
        offset in 0_usize..4,
        seed: u64,
    ) {
        let mut random = Random(seed);
        let query = random.values(rows * dim, offset);
        let query = MatRef::new(&query, rows, dim).unwrap();
        let total = lengths.iter().sum::<usize>();

        let full = random.values(total * dim, offset);
        check(query, &|rows| matrix(&full, rows, dim).into(), &full, &lengths);

        let half = random.stored::<f16>(total * dim, offset);
        let wide = f16::widened(&half);
        check(query, &|rows| matrix(&half, rows, dim).into(), &wide, &lengths);

        let bytes: Vec<i8> = (0..total * dim).map(|_| (random.next() * 127.0) as i8).collect();
        let scales: Vec<f32> = (0..total).map(|_| random.next() / 100.0).collect();
        let wide: Vec<f32> = bytes.iter().enumerate()
            .map(|(i, &b)| f32::from(b) * scales[i / dim]).collect();
        let view = |rows: Range<usize>| DocumentRows::I8 {
            values: matrix(&bytes, rows.clone(), dim),
            scales: &scales[rows],
        };
        check(query, &view, &wide, &lengths);
    }
}

#[test]
#[cfg_attr(miri, ignore = "too large")]
fn long_vectors_are_summed_in_pieces() {
    let (rows, dim, lengths) = (35, 2500, [13, 1, 30]);
    let mut random = Random(3);
    let query = random.values(rows * dim, 1);
    let documents = random.values(44 * dim, 1);
    let view = |rows| matrix(&documents, rows, dim).into();
    check(
        MatRef::new(&query, rows, dim).unwrap(),
        &view,
        &documents,
        &lengths,
    );
}

#[test]
#[cfg_attr(miri, ignore = "too large")]
fn scores_do_not_depend_on_threads_or_neighbours() {
    let (rows, dim) = (32, 128);
    let mut random = Random(5);
    let query = random.values(rows * dim, 0);
    let query = MatRef::new(&query, rows, dim).unwrap();
    let lengths: Vec<usize> = (0..60).map(|i| i * 7 % 150).collect();
    let total = lengths.iter().sum();
    let values = random.stored::<f16>(total * dim, 0);
    let view = DocumentRows::from(MatRef::new(&values, total, dim).unwrap());
    let documents = ranges(&lengths);
    let isa = Isa::best();
    let mut together = vec![0.0; documents.len()];
    max_sim(isa, query, view, &documents, &mut together).unwrap();
    for (document, &score) in documents.iter().zip(&together) {
        let mut one = [f32::NAN];
        let document = std::slice::from_ref(document);
        alone(|| max_sim(isa, query, view, document, &mut one)).unwrap();
        assert_eq!(one[0].to_bits(), score.to_bits());
    }
}

#[test]
fn documents_may_come_in_any_order_and_overlap() {
    let rows = [1.0, 0.0, 0.0, 1.0, -1.0, -1.0_f32];
    let view = DocumentRows::from(MatRef::new(&rows, 3, 2).unwrap());
    let query = [1.0, 0.0, 0.0, 2.0];
    let query = MatRef::new(&query, 2, 2).unwrap();
    for isa in isas() {
        let mut scores = [f32::NAN; 5];
        let documents = [2..3, 0..2, 0..3, 1..1, 1..3];
        max_sim(isa, query, view, &documents, &mut scores).unwrap();
        // Only negative products: the maximum is negative too.
        assert_eq!(scores, [-3.0, 3.0, 3.0, 0.0, 2.0]);
    }
}

#[test]
fn the_first_of_equal_rows_is_the_match() {
    let rows = [0.5_f32; 40];
    let query = [1.0_f32; 4];
    for isa in isas() {
        let view = MatRef::new(&rows, 20, 2).unwrap().into();
        let matches = max_sim_matches(isa, MatRef::new(&query, 2, 2).unwrap(), view).unwrap();
        assert!(matches.iter().all(|m| m.row == 0 && m.similarity == 1.0));
    }
}

#[test]
fn empty_sides_score_nothing() {
    for isa in isas() {
        let none = MatRef::new(&[], 0, 3).unwrap();
        let rows = DocumentRows::from(MatRef::new(&[1.0; 6], 2, 3).unwrap());
        let mut scores = [f32::NAN; 2];
        max_sim(isa, none, rows, &[0..1, 0..2], &mut scores).unwrap();
        assert_eq!(scores, [0.0; 2]);
        assert_eq!(max_sim_matches(isa, none, rows).unwrap(), []);
        let query = MatRef::new(&[1.0; 3], 1, 3).unwrap();
        assert_eq!(max_sim_matches(isa, query, none.into()).unwrap(), []);
        max_sim(isa, query, none.into(), &[], &mut []).unwrap();
    }
}

#[test]
fn nan_is_never_a_maximum() {
    let rows = [f32::NAN, 1.0, -2.0];
    let query = [1.0_f32];
    for isa in isas() {
        let rows = DocumentRows::from(MatRef::new(&rows, 3, 1).unwrap());
        let query = MatRef::new(&query, 1, 1).unwrap();
        let mut scores = [0.0];
        max_sim(isa, query, rows, &ranges(&[3]), &mut scores).unwrap();
        assert_eq!(scores, [1.0]);
        assert_eq!(max_sim_matches(isa, query, rows).unwrap()[0].row, 1);
    }
}

#[test]
fn max_sim_checks_shapes() {
    let isa = Isa::best();
    let query = MatRef::new(&[1.0; 6], 2, 3).unwrap();
    let rows = DocumentRows::from(MatRef::new(&[1.0; 9], 3, 3).unwrap());
    let run = |documents: &[Range<usize>]| {
        let mut scores = vec![7.0; documents.len()];
        let result = max_sim(isa, query, rows, documents, &mut scores);
        assert!(result.is_ok() || scores.iter().all(|&score| score == 7.0));
        result
    };
    assert!(run(&[0..3, 3..3]).is_ok());
    let past_end = ShapeError::TooLarge {
        what: "end of a document",
        limit: 3,
        found: 4,
    };
    assert_eq!(run(&[0..1, 2..4]), Err(past_end));
    let reversed = Range { start: 2, end: 1 };
    assert!(run(std::slice::from_ref(&reversed)).is_err());
    assert!(max_sim(isa, query, rows, &ranges(&[1]), &mut []).is_err());
    let narrow = DocumentRows::from(MatRef::new(&[1.0; 4], 2, 2).unwrap());
    assert!(max_sim(isa, query, narrow, &[], &mut []).is_err());
    assert!(max_sim_matches(isa, query, narrow).is_err());
    let values = MatRef::new(&[1_i8; 6], 2, 3).unwrap();
    let rows = DocumentRows::I8 {
        values,
        scales: &[1.0],
    };
    assert!(max_sim_matches(isa, query, rows).is_err());
}
