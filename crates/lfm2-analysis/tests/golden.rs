//! Every golden case: statistics, elimination, scores and accuracies of the reference.

mod support;

use std::path::Path;
use std::sync::atomic::AtomicBool;

use anyhow::{Result, ensure};
use lfm2_analysis::{
    LogP, Null, PairedEmbeddings, Property, Selection, Sides, Solver, Split, Study, StudyOptions,
    benjamini_hochberg, edi, minus_ln_p, mutual_information, wilcoxon,
};
use serde_json::Value;
use support::{Case, ensure_close, for_any_case, for_every_case};

/// The embeddings of a case, and what every test of it needs.
struct Embedded {
    first: Vec<f32>,
    second: Vec<f32>,
    dims: usize,
}

impl Embedded {
    fn open(case: &Case) -> Result<Self> {
        let (first, dims) = case.matrix("first")?;
        let (second, other) = case.matrix("second")?;
        ensure!(dims == other && dims == case.count("dims")?);
        Ok(Self {
            first,
            second,
            dims,
        })
    }

    fn pairs(&self) -> Result<PairedEmbeddings<'_>> {
        Ok(PairedEmbeddings::new(
            "case",
            &self.first,
            &self.second,
            self.dims,
        )?)
    }

    fn sides(&self, case: &Case, solver: Solver) -> Result<Sides> {
        let split = Split::from_rows(
            "case",
            self.pairs()?.pairs(),
            case.indices("train_index")?,
            case.indices("test_index")?,
        )?;
        Ok(Sides::new(&self.pairs()?, &split, solver)?)
    }

    fn column(&self, side: &[f32], dim: usize) -> Vec<f64> {
        side.iter()
            .skip(dim)
            .step_by(self.dims)
            .map(|x| f64::from(*x))
            .collect()
    }

    fn selection(&self, null: Null) -> Result<Selection> {
        let pairs = self.pairs()?;
        Ok(Selection::new(
            &pairs,
            &(0..pairs.pairs()).collect::<Vec<_>>(),
            null,
        ))
    }
}

fn is_analysis(case: &Case) -> bool {
    case.has("first") && case.has("edi")
}

fn is_exact(case: &Case) -> bool {
    is_analysis(case) && case.has("exact_elimination_order")
}

#[test]
fn signed_ranks_and_their_chances_are_the_references() -> Result<()> {
    for_every_case(is_analysis, |case| {
        let found = Embedded::open(case)?.selection(Null::Normal)?;
        let of = |get: fn(&lfm2_analysis::SignedRank) -> f64| -> Vec<f64> {
            found.wilcoxon.iter().map(get).collect()
        };
        ensure_close(
            "statistic",
            &of(|t| t.statistic),
            &case.f64s("wilcoxon_statistic")?,
            0.0,
            0.0,
        )?;
        ensure_close(
            "rplus",
            &of(|t| t.rank_sum_positive),
            &case.f64s("wilcoxon_rplus")?,
            0.0,
            0.0,
        )?;
        ensure_close(
            "rminus",
            &of(|t| t.rank_sum_negative),
            &case.f64s("wilcoxon_rminus")?,
            0.0,
            0.0,
        )?;
        ensure_close(
            "n",
            &of(|t| t.n as f64),
            &case.f64s("wilcoxon_n")?,
            0.0,
            0.0,
        )?;
        ensure_close(
            "ties",
            &of(|t| t.ties),
            &case.f64s("wilcoxon_tie")?,
            0.0,
            0.0,
        )?;
        ensure_close("z", &of(|t| t.z), &case.f64s("wilcoxon_z")?, 0.0, 1e-10)?;
        ensure_close(
            "p",
            &of(|t| t.p),
            &case.f64s("wilcoxon_p_normal")?,
            0.0,
            1e-10,
        )?;
        ensure_close(
            "ln p",
            &of(|t| t.ln_p.exp()),
            &case.f64s("wilcoxon_p_normal")?,
            0.0,
            1e-10,
        )?;
        ensure_close(
            "adjusted",
            &found.p_adjusted,
            &case.f64s("wilcoxon_p_bh")?,
            1e-12,
            0.0,
        )?;
        let logs: Vec<f64> = found.ln_p_adjusted.iter().map(|ln_p| ln_p.exp()).collect();
        ensure_close(
            "adjusted logs",
            &logs,
            &case.f64s("wilcoxon_p_bh")?,
            1e-12,
            0.0,
        )?;
        let auto = Embedded::open(case)?.selection(Null::Auto)?;
        let p: Vec<f64> = auto.wilcoxon.iter().map(|test| test.p).collect();
        ensure_close("p of the library", &p, &case.f64s("scipy_p")?, 0.0, 1e-10)?;
        ensure_close(
            "mean difference",
            &found.mean_difference,
            &case.f64s("mean_difference")?,
            1e-9,
            1e-9,
        )
    })
}

#[test]
fn exact_chances_of_small_samples_are_the_references() -> Result<()> {
    for_every_case(
        |case| case.has("d0") && !case.rows().is_empty(),
        |case| {
            for (i, row) in case.rows().iter().enumerate() {
                let sample = case.f64s(&format!("d{i}"))?;
                let number = |key: &str| row[key].as_f64().unwrap_or(f64::NAN);
                let (auto, normal) = (
                    wilcoxon(&sample, Null::Auto),
                    wilcoxon(&sample, Null::Normal),
                );
                ensure_close(
                    "statistic",
                    &[auto.statistic],
                    &[number("statistic")],
                    0.0,
                    0.0,
                )?;
                ensure_close(
                    "rplus",
                    &[auto.rank_sum_positive],
                    &[number("rplus")],
                    0.0,
                    0.0,
                )?;
                ensure_close("exact p", &[auto.p], &[number("p_exact")], 0.0, 1e-12)?;
                ensure_close("normal p", &[normal.p], &[number("p_normal")], 0.0, 1e-10)?;
            }
            Ok(())
        },
    )
}

#[test]
fn mutual_information_and_its_edges_are_the_references() -> Result<()> {
    for_every_case(is_analysis, |case| {
        let embedded = Embedded::open(case)?;
        let edges = case.f64s("quantile_edges")?;
        let mut nats = Vec::new();
        for dim in 0..embedded.dims {
            let first = embedded.column(&embedded.first, dim);
            let found = mutual_information(&first, &embedded.column(&embedded.second, dim));
            let width = found.edges.len();
            ensure_close(
                "edges",
                &found.edges,
                &edges[dim * width..][..width],
                1e-12,
                1e-6,
            )?;
            nats.push(found.nats);
        }
        ensure_close(
            "information",
            &nats,
            &case.f64s("mutual_information")?,
            1e-12,
            0.0,
        )
    })
}

#[test]
fn converged_elimination_has_the_references_order_and_weights() -> Result<()> {
    for_every_case(is_exact, |case| {
        let embedded = Embedded::open(case)?;
        let sides = embedded.sides(case, Solver::Exact)?;
        let all: Vec<usize> = (0..embedded.dims).collect();
        let full = sides.fit(&all)?;
        ensure_close(
            "weights",
            &full.weights,
            &case.f64s("exact_full_coef")?,
            1e-5,
            0.0,
        )?;
        ensure_close(
            "intercept",
            &[full.intercept],
            &case.f64s("exact_full_intercept")?,
            1e-5,
            0.0,
        )?;
        ensure_close(
            "objective",
            &[sides.objective(&full)],
            &[case.number("exact_objective_full")?],
            0.0,
            1e-8,
        )?;
        ensure_close(
            "accuracy",
            &[sides.accuracy(&full)],
            &[case.number("exact_accuracy_full")?],
            1e-12,
            0.0,
        )?;

        let found = sides.eliminate(case.count("keep")?, &AtomicBool::new(false))?;
        ensure!(
            found.dropped == case.indices("exact_elimination_order")?,
            "order {:?}",
            found.dropped
        );
        ensure!(
            found.fit.dims == case.indices("exact_selected")?,
            "left {:?}",
            found.fit.dims
        );
        let sizes: Vec<f64> = found
            .fit
            .weights
            .iter()
            .map(|weight| weight.abs())
            .collect();
        ensure_close(
            "importance",
            &sizes,
            &case.f64s("exact_importance")?,
            1e-5,
            0.0,
        )?;
        let objective = case.number("exact_objective_selected")?;
        ensure_close(
            "objective left",
            &[sides.objective(&found.fit)],
            &[objective],
            0.0,
            1e-8,
        )?;
        let accuracy = case.number("exact_accuracy_selected")?;
        ensure_close(
            "accuracy left",
            &[sides.accuracy(&found.fit)],
            &[accuracy],
            1e-12,
            0.0,
        )?;

        let p = case.f64s("wilcoxon_p_bh")?;
        let scores = edi(
            &case.f64s("mutual_information")?,
            &minus_ln_p(&p, &[], LogP::Published),
            &found.importance(embedded.dims),
        );
        ensure_close(
            "score of elimination",
            &scores.elimination,
            &case.f64s("exact_score_rfe")?,
            2e-5,
            0.0,
        )?;
        ensure_close("edi", &scores.edi, &case.f64s("exact_edi")?, 1e-5, 0.0)
    })
}

#[test]
fn scores_follow_from_the_references_parts() -> Result<()> {
    for_every_case(is_analysis, |case| {
        let p = case.f64s("wilcoxon_p_bh")?;
        let mut importance = vec![0.0; case.count("dims")?];
        for (dim, value) in case
            .indices("rfe_selected")?
            .into_iter()
            .zip(case.f64s("rfe_importance")?)
        {
            importance[dim] = value;
        }
        let scores = edi(
            &case.f64s("mutual_information")?,
            &minus_ln_p(&p, &[], LogP::Published),
            &importance,
        );
        ensure_close(
            "information",
            &scores.information,
            &case.f64s("score_mi")?,
            1e-9,
            0.0,
        )?;
        ensure_close(
            "test",
            &scores.test,
            &case.f64s("score_wilcoxon")?,
            1e-9,
            0.0,
        )?;
        ensure_close(
            "elimination",
            &scores.elimination,
            &case.f64s("score_rfe")?,
            1e-9,
            0.0,
        )?;
        ensure_close("edi", &scores.edi, &case.f64s("edi")?, 1e-9, 0.0)?;
        let order = scores.order();
        let value = |order: &[usize]| order.iter().map(|&dim| scores.edi[dim]).collect::<Vec<_>>();
        // Scores that are equal up to rounding may change places.
        ensure_close(
            "order",
            &value(&order),
            &value(&case.indices("edi_order")?),
            1e-12,
            0.0,
        )
    })
}

#[test]
fn published_tables_come_out_again() -> Result<()> {
    let is_published = |case: &Case| case.rows().iter().any(|row| row["prefix"].is_string());
    let checked = for_any_case(is_published, |case| {
        for row in case.rows() {
            let prefix = row["prefix"].as_str().unwrap_or_default();
            let read = |name: &str| case.f64s(&format!("{prefix}{name}"));
            let information = read("mutual_information")?;
            let adjusted = read("wilcoxon_p_bh")?;
            ensure_close(
                "adjusted",
                &benjamini_hochberg(&read("wilcoxon_p")?),
                &adjusted,
                1e-12,
                1e-10,
            )?;
            let mut importance = vec![0.0; information.len()];
            let selected = case.indices(&format!("{prefix}rfe_selected"))?;
            for (dim, value) in selected.into_iter().zip(read("rfe_importance")?) {
                importance[dim] = value;
            }
            let scores = edi(
                &information,
                &minus_ln_p(&adjusted, &[], LogP::Published),
                &importance,
            );
            ensure_close(prefix, &scores.edi, &read("edi")?, 1e-10, 0.0)?;
        }
        Ok(())
    })?;
    println!("{checked} files of published tables");
    Ok(())
}

#[test]
fn the_librarys_elimination_and_accuracies_are_followed() -> Result<()> {
    for_every_case(is_analysis, |case| {
        let embedded = Embedded::open(case)?;
        let sides = embedded.sides(case, Solver::Library)?;
        let never = AtomicBool::new(false);
        let found = sides.eliminate(case.count("keep")?, &never)?;
        let expected = case.indices("rfe_selected")?;
        // A last digit can turn an early elimination: nine tenths are enough.
        let same = found
            .fit
            .dims
            .iter()
            .filter(|dim| expected.contains(dim))
            .count();
        println!("{}: {same} of {}", case.name, expected.len());
        ensure!(
            same + (expected.len() / 10).max(1) >= expected.len(),
            "left {:?}, expected {expected:?}",
            found.fit.dims
        );
        if same == expected.len() {
            let sizes: Vec<f64> = found
                .fit
                .weights
                .iter()
                .map(|weight| weight.abs())
                .collect();
            ensure_close(
                "importance",
                &sizes,
                &case.f64s("rfe_importance")?,
                1e-4,
                0.0,
            )?;
        }
        let order = case.indices("edi_order")?;
        let test_rows = case.indices("test_index")?.len() as f64;
        let all: Vec<usize> = (0..embedded.dims).collect();
        let baseline = sides.accuracy_of(&all)?;
        // Where margins are close to 0, the last digit of a sum may decide: one row more or less.
        let one_row = 1.01 / test_rows;
        ensure_close(
            "baseline",
            &[baseline],
            &[case.number("baseline_accuracy")?],
            one_row,
            0.0,
        )?;
        let low: Vec<usize> = order
            .iter()
            .rev()
            .take(case.count("low_n")?)
            .copied()
            .collect();
        ensure_close(
            "low",
            &[sides.accuracy_of(&low)?],
            &[case.number("low_edi_accuracy")?],
            one_row,
            0.0,
        )?;
        let climb = sides.climb(&order, 0.95 * baseline, &never)?;
        ensure_close(
            "climb",
            &climb,
            &case.f64s("incremental_accuracy")?,
            one_row,
            0.0,
        )?;

        let rows = |pairs: &str| -> Result<Vec<usize>> {
            let first = case.indices(pairs)?;
            let count = embedded.pairs()?.pairs();
            Ok(first
                .iter()
                .copied()
                .chain(first.iter().map(|pair| pair + count))
                .collect())
        };
        let split = Split::from_rows(
            "case",
            embedded.pairs()?.pairs(),
            rows("pair_train")?,
            rows("pair_test")?,
        )?;
        let sides = Sides::new(&embedded.pairs()?, &split, Solver::Library)?;
        let one_row = 1.01 / split.test().len() as f64;
        for (key, dims) in [
            ("pair_split_baseline", &all[..]),
            ("pair_split_low_edi", &low[..]),
            ("pair_split_top10", &order[..10.min(order.len())]),
        ] {
            ensure_close(
                key,
                &[sides.accuracy_of(dims)?],
                &[case.number(key)?],
                one_row,
                0.0,
            )?;
        }
        Ok(())
    })
}

/// The run over all ten published sets with all-MiniLM-L6-v2: `LFM2_MINILM=DIR` names the folder that
/// `scripts/bench/ldsp_minilm.py` writes, `LFM2_GOLDEN` where the table lies.
#[test]
fn the_table_of_minilm_comes_out_again() -> Result<()> {
    /// Of accuracies, with room for the last bit of a difference.
    const WITHIN: f64 = 0.01 + 1e-9;

    let (Some(folder), Some(golden)) = (std::env::var_os("LFM2_MINILM"), lfm2_golden::folder())
    else {
        println!("left out: LFM2_MINILM and LFM2_GOLDEN name no folders");
        return Ok(());
    };
    let table = std::fs::read(golden.join("ldsp/minilm_full_table.json"))?;
    let table: Vec<Value> = serde_json::from_slice(&table)?;
    let mut apart = Vec::new();
    let mut widest = (0.0f64, String::new());
    for row in &table {
        let name = row["property"].as_str().unwrap_or_default();
        let case = Case::open(&Path::new(&folder).join(format!("{name}.json")))?;
        let embedded = Embedded::open(&case)?;
        let pairs = embedded.pairs()?;
        let split = Split::from_rows(
            name,
            pairs.pairs(),
            case.indices("train_index")?,
            case.indices("test_index")?,
        )?;
        let property = Property::new(pairs).split(split);
        let study = Study::run(
            &[property],
            &StudyOptions::published(),
            &(),
            &AtomicBool::new(false),
        )?;
        let found = &study.properties[0];
        let mut expect = |key: &str, found: f64, by: f64| {
            let expected = row[key].as_f64().unwrap_or(f64::NAN);
            let gap = (found - expected).abs();
            if key.contains("accuracy") && gap > widest.0 {
                widest = (gap, format!("{key} of {name}"));
            }
            if gap > by || expected.is_nan() {
                apart.push(format!("{name}: {key}: {found}, expected {expected}"));
            }
        };
        expect("baseline_accuracy", found.evaluation.baseline, WITHIN);
        // Of a property that no dimension tells, the sixth digit of an embedding decides which
        // dimensions are lowest or eliminated last: the reference itself gives 0.4225 and 0.4525 for
        // one cell on two processors.
        let chosen = if row["bh_significant_005"] == 0 {
            0.025
        } else {
            WITHIN
        };
        expect("low_edi_accuracy", found.evaluation.low, chosen);
        expect("rfe_accuracy", found.evaluation.eliminated, chosen);
        expect(
            "accuracy_there",
            found.evaluation.climb.last().copied().unwrap_or(f64::NAN),
            WITHIN,
        );
        expect("bh_significant_005", found.significant as f64, 0.0);
        expect("top_edi", found.scores.edi[found.order[0]], 0.01);
        expect("top_dimension", found.order[0] as f64, 0.0);
    }
    ensure!(apart.is_empty(), "{}", apart.join("\n"));
    let (gap, cell) = widest;
    println!(
        "{} properties; accuracies at most {gap:.4} apart ({cell})",
        table.len()
    );
    Ok(())
}
