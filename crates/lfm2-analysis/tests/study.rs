//! Whole studies: planted dimensions are found, bad input is told, reports are complete.

#[path = "support/planted.rs"]
mod planted;

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use lfm2_analysis::{
    DimensionShares, Error, LayerStudy, LogP, PairedEmbeddings, Property, Report, ReportInfo,
    Select, Solver, Split, SplitBy, Study, StudyEvent, StudyOptions, StudyProgress,
};
use planted::{Planted, planted};
use proptest::prelude::*;

static NEVER: AtomicBool = AtomicBool::new(false);

fn property<'a>(name: &'a str, planted: &'a Planted) -> Result<Property<'a>> {
    let embeddings = PairedEmbeddings::new(name, &planted.first, &planted.second, planted.dims)?;
    Ok(Property::new(embeddings))
}

fn run(properties: &[Property<'_>], options: &StudyOptions) -> Result<Study> {
    Ok(Study::run(properties, options, &(), &NEVER)?)
}

fn small() -> StudyOptions {
    let mut options = StudyOptions::default();
    options.keep = 6;
    options.low = 10;
    options
}

#[test]
fn planted_dimensions_are_found_with_both_splits() -> Result<()> {
    let planted = planted(200, 40, &[3, 17, 30], 1.2, 1);
    for split in [SplitBy::Pair, SplitBy::Sentence] {
        for solver in [Solver::Exact, Solver::Library] {
            let mut options = small();
            options.split = split;
            options.solver = solver;
            let study = run(&[property("x", &planted)?], &options)?;
            let found = &study.properties[0];
            let mut best = found.order[..3].to_vec();
            best.sort_unstable();
            assert_eq!(best, planted.strong, "{split:?} {solver:?}");
            assert!(
                found.evaluation.baseline > 0.75,
                "{}",
                found.evaluation.baseline
            );
            assert!(found.evaluation.dims_needed.is_some_and(|count| count <= 6));
            assert!(
                found.significant >= 3 && found.significant < 12,
                "{}",
                found.significant
            );
            for dim in &planted.strong {
                assert!(found.elimination.fit.dims.contains(dim));
            }
        }
    }
    Ok(())
}

#[test]
fn a_split_by_sentence_pushes_useless_dimensions_below_chance() -> Result<()> {
    let nothing = planted(400, 30, &[], 0.0, 2);
    let mut options = small();
    let by_pair = run(&[property("x", &nothing)?], &options)?.properties[0]
        .evaluation
        .baseline;
    options.split = SplitBy::Sentence;
    let by_sentence = run(&[property("x", &nothing)?], &options)?.properties[0]
        .evaluation
        .baseline;
    assert!((by_pair - 0.5).abs() < 0.1, "{by_pair}");
    assert!(by_sentence < 0.47, "{by_sentence}");
    Ok(())
}

#[test]
fn dimensions_are_tried_on_other_properties_and_properties_are_told_apart() -> Result<()> {
    let sets = [
        planted(120, 30, &[1, 2], 2.0, 3),
        planted(120, 30, &[1, 8], 2.0, 4),
        planted(120, 30, &[], 0.0, 5),
    ];
    let properties = [
        property("one", &sets[0])?,
        property("two", &sets[1])?,
        property("control", &sets[2])?,
    ];
    let mut options = small();
    options.cross = 2;
    let study = run(&properties, &options)?;
    let one = &study.properties[0].evaluation;
    assert_eq!(one.cross.len(), 2);
    let best = one.best_cross().context("another property")?;
    assert_eq!(best.from, "two");
    assert!(
        best.accuracy > 0.7 && best.accuracy < one.baseline,
        "{best:?} {}",
        one.baseline
    );
    let classifier = study.classifier.as_ref().context("three properties")?;
    assert!(classifier.accuracy > 0.9, "{classifier:?}");
    assert_eq!(classifier.confusion.iter().flatten().sum::<usize>(), 72);
    assert_eq!(study.properties[2].significant, 0);
    Ok(())
}

#[test]
fn selection_from_training_rows_never_sees_the_test() -> Result<()> {
    let mut set = planted(60, 12, &[], 0.0, 6);
    let rows: (Vec<usize>, Vec<usize>) = (0..120).partition(|row| row % 60 < 40);
    let split = Split::from_rows("x", 60, rows.0, rows.1)?;
    let study = |set: &Planted, select| -> Result<Study> {
        let mut options = small();
        options.select = select;
        run(&[property("x", set)?.split(split.clone())], &options)
    };
    let (all, train) = (study(&set, Select::All)?, study(&set, Select::TrainOnly)?);
    assert_eq!(
        (
            all.properties[0].selection.pairs,
            train.properties[0].selection.pairs
        ),
        (60, 40)
    );
    // Whatever happens to test rows leaves scores from training rows as they are.
    for value in &mut set.second[40 * 12..] {
        *value += 5.0;
    }
    assert_eq!(
        study(&set, Select::TrainOnly)?.properties[0].scores,
        train.properties[0].scores
    );
    assert_ne!(
        study(&set, Select::All)?.properties[0].scores,
        all.properties[0].scores
    );
    Ok(())
}

#[test]
fn logarithms_of_p_order_what_the_published_score_cannot() -> Result<()> {
    let mut set = planted(400, 12, &[0, 1], 3.0, 7);
    // Dimension 1 differs on most pairs only.
    for pair in 0..20 {
        set.second[pair * 12 + 1] -= 8.0;
    }
    let mut options = small();
    options.log_p = LogP::Published;
    let published = run(&[property("x", &set)?], &options)?;
    assert!(published.properties[0].scores.test[1] > 0.999);
    options.log_p = LogP::Exact;
    let exact = run(&[property("x", &set)?], &options)?;
    assert!(exact.properties[0].scores.test[1] < 0.95);
    assert_eq!(exact.properties[0].saturated, 1);
    Ok(())
}

#[test]
fn a_study_is_the_same_every_time() -> Result<()> {
    let sets = [planted(80, 20, &[1], 1.0, 8), planted(80, 20, &[2], 1.0, 9)];
    let properties = [property("one", &sets[0])?, property("two", &sets[1])?];
    let once = run(&properties, &small())?;
    assert_eq!(once, run(&properties, &small())?);
    let read: Study = serde_json::from_str(&serde_json::to_string(&once)?)?;
    assert_eq!(
        (&read.options, &read.properties[0].order),
        (&once.options, &once.properties[0].order)
    );
    let mut other = small();
    other.seed = 1;
    assert_ne!(
        once.properties[0].evaluation,
        run(&properties, &other)?.properties[0].evaluation
    );
    Ok(())
}

#[test]
fn an_01_constant_and_tied_columns_have_defined_results() -> Result<()> {
    let mut set = planted(60, 8, &[5], 2.0, 10);
    for pair in 0..60 {
        for side in [&mut set.first, &mut set.second] {
            side[pair * 8] = 7.5;
            side[pair * 8 + 1] = (pair % 2) as f32;
            side[pair * 8 + 2] = side[pair * 8 + 2].round();
        }
    }
    for options in [small(), StudyOptions::published()] {
        let study = run(&[property("x", &set)?], &options)?;
        let found = &study.properties[0];
        for dim in [0, 1] {
            assert_eq!(
                (
                    found.selection.wilcoxon[dim].p,
                    found.selection.p_adjusted[dim]
                ),
                (1.0, 1.0)
            );
            assert!(found.selection.information[dim].abs() < 1e-15);
        }
        assert_eq!(found.order[0], 5);
        assert!(
            found
                .scores
                .edi
                .iter()
                .all(|score| (0.0..=1.0).contains(score))
        );
    }
    Ok(())
}

#[test]
fn an_01_all_constant_is_noise_and_not_an_error() -> Result<()> {
    let ones = vec![1.0; 40 * 6];
    let set = Planted {
        first: ones.clone(),
        second: ones,
        dims: 6,
        strong: Vec::new(),
    };
    let study = run(&[property("x", &set)?], &small())?;
    let found = &study.properties[0];
    assert_eq!((found.significant, found.above_cut_off), (0, 0));
    assert!(found.scores.edi.iter().all(|score| *score == 0.0));
    Ok(())
}

#[test]
fn an_01_fewer_dimensions_than_elimination_keeps() -> Result<()> {
    let set = planted(50, 3, &[1], 2.0, 11);
    for solver in [Solver::Exact, Solver::Library] {
        let mut options = StudyOptions::default();
        options.solver = solver;
        let study = run(&[property("x", &set)?], &options)?;
        let found = &study.properties[0];
        assert!(found.elimination.dropped.is_empty());
        assert_eq!(found.elimination.fit.dims, [0, 1, 2]);
        assert_eq!(found.evaluation.low_dims, 1);
        assert_eq!(found.order[0], 1);
    }
    Ok(())
}

#[test]
fn an_01_nothing_but_numbers_is_taken() {
    let (good, mut bad) = (vec![0.5; 12], vec![0.5; 12]);
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -1.1e6] {
        bad[7] = value;
        let error = PairedEmbeddings::new("tense", &good, &bad, 4).expect_err("no number");
        let expected = format!(
            "embeddings of \"tense\": second sentence of pair 1, dimension 3: {value} is not a number of at most 1e6 in size"
        );
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn an_01_unequal_counts_and_shapes_are_refused() {
    let ones = [1.0f32; 12];
    for (first, second, dims, expected) in [
        (
            &ones[..],
            &ones[..8],
            4,
            "12 numbers for first sentences and 8 for second ones",
        ),
        (
            &ones[..],
            &ones[..],
            5,
            "12 numbers, expected whole rows of 5",
        ),
        (&ones[..], &ones[..], 0, "0 dimensions"),
        (&[], &[], 4, "0 numbers, expected whole rows of 4"),
    ] {
        let error = PairedEmbeddings::new("x", first, second, dims).expect_err("a wrong shape");
        assert!(
            matches!(error, Error::Shape { .. }) && error.to_string().contains(expected),
            "{error}"
        );
    }
}

#[test]
fn an_01_too_few_pairs_are_told() -> Result<()> {
    for (pairs, split) in [(1, SplitBy::Pair), (1, SplitBy::Sentence)] {
        let set = planted(pairs, 4, &[], 0.0, 12);
        let mut options = small();
        options.split = split;
        let error =
            Study::run(&[property("x", &set)?], &options, &(), &NEVER).expect_err("one pair");
        assert!(matches!(error, Error::TooFew { .. }), "{error}");
        assert!(error.to_string().starts_with("\"x\": 1 "), "{error}");
    }
    // Four pairs are little, but enough for numbers.
    let set = planted(4, 4, &[1], 3.0, 13);
    let study = run(&[property("x", &set)?], &small())?;
    assert_eq!(
        (
            study.properties[0].train_rows,
            study.properties[0].test_rows
        ),
        (6, 2)
    );
    Ok(())
}

#[test]
fn properties_that_do_not_go_together_are_refused() -> Result<()> {
    let (narrow, wide) = (planted(10, 4, &[], 0.0, 14), planted(10, 5, &[], 0.0, 15));
    let message = |properties: &[Property<'_>]| {
        Study::run(properties, &small(), &(), &NEVER)
            .expect_err("wrong properties")
            .to_string()
    };
    assert!(message(&[]).contains("none, expected at least one"));
    let differ = message(&[property("a", &narrow)?, property("b", &wide)?]);
    assert_eq!(differ, "embeddings of \"b\": 5 dimensions, \"a\" has 4");
    assert!(
        message(&[property("a", &narrow)?, property("a", &narrow)?])
            .contains("\"a\" is there twice")
    );
    Ok(())
}

#[test]
fn options_without_meaning_are_refused() -> Result<()> {
    let set = planted(10, 4, &[], 0.0, 16);
    let refuse = |expected: &str, change: &dyn Fn(&mut StudyOptions)| -> Result<()> {
        let mut options = small();
        change(&mut options);
        let error =
            Study::run(&[property("x", &set)?], &options, &(), &NEVER).expect_err("a wrong option");
        assert!(error.to_string().starts_with(expected), "{error}");
        Ok(())
    };
    refuse("keep: 0", &|options| options.keep = 0)?;
    refuse("low: 0", &|options| options.low = 0)?;
    refuse("cross: 0", &|options| options.cross = 0)?;
    refuse("reach: 1.5", &|options| options.reach = 1.5)?;
    refuse("cut_off: NaN", &|options| options.cut_off = f64::NAN)?;
    Ok(())
}

#[test]
fn a_study_can_be_watched_and_stopped() -> Result<()> {
    struct Watcher(Mutex<Vec<String>>, AtomicBool);
    impl StudyProgress for Watcher {
        fn event(&self, event: StudyEvent<'_>) {
            self.0.lock().expect("no panic").push(format!("{event:?}"));
            self.1.store(true, Ordering::Relaxed);
        }
    }
    let set = planted(30, 6, &[], 0.0, 17);
    let watcher = Watcher(Mutex::default(), AtomicBool::new(false));
    Study::run(&[property("x", &set)?], &small(), &watcher, &NEVER)?;
    let seen = watcher.0.lock().expect("no panic").clone();
    assert_eq!(seen.len(), 3);
    assert!(seen[0].contains("done: 1, of: 1"), "{seen:?}");

    let stopped = Study::run(
        &[property("x", &set)?],
        &small(),
        &(),
        &AtomicBool::new(true),
    );
    assert!(matches!(stopped, Err(Error::Cancelled)));
    Ok(())
}

#[test]
fn a_report_is_complete_and_needs_no_other_file() -> Result<()> {
    let sets = [
        planted(60, 20, &[1], 1.5, 18),
        planted(60, 20, &[2], 1.5, 19),
    ];
    let properties = [
        property("one <b>", &sets[0])?,
        property("control", &sets[1])?,
    ];
    let study = run(&properties, &small())?;
    let layers = ["0", "1"].map(|layer| LayerStudy::run(layer, &properties, &small(), &NEVER));
    let layers = layers.into_iter().collect::<Result<Vec<_>, _>>()?;
    assert_eq!(
        layers[1].properties[0].baseline,
        study.properties[0].evaluation.baseline
    );
    assert_eq!(
        layers[1].properties[0].significant,
        study.properties[0].significant
    );
    let shares = [DimensionShares {
        name: "one <b>".to_owned(),
        shares: vec![0.05; 20],
    }];
    let folder = tempfile::TempDir::new()?;
    let out = folder.path().join("new/report");
    let info = ReportInfo {
        model: "tiny & small".to_owned(),
        command: "lfm2 analyze dims".to_owned(),
        ..ReportInfo::default()
    };
    let report = Report::new(&study, &info)
        .with_layers(&layers)
        .with_shares(&shares);
    let paths = report.write(&out)?;
    assert_eq!(paths.len(), std::fs::read_dir(&out)?.count());
    let page = std::fs::read_to_string(out.join("report.html"))?;
    for part in [
        "one &lt;b&gt;",
        "tiny &amp; small",
        "lfm2 analyze dims",
        "train-only",
        "Readable with",
        "0 of 20 dimensions have less than half",
        "<svg",
    ] {
        assert!(page.contains(part), "{part}");
    }
    for foreign in ["<script", "src=", "href=", "url(", "<b>", "NaN"] {
        assert!(!page.contains(foreign), "{foreign}");
    }
    let table = std::fs::read_to_string(out.join("dimensions.csv"))?;
    assert_eq!(table.lines().count(), 1 + 2 * 20);
    assert!(
        table
            .lines()
            .skip(1)
            .all(|row| row.split(',').count() == 17)
    );
    let saved: serde_json::Value = serde_json::from_slice(&std::fs::read(out.join("study.json"))?)?;
    let read: Study = serde_json::from_value(saved["study"].clone())?;
    assert_eq!(read.properties[1].order, study.properties[1].order);
    // Once more over the old files, without layers and shares: two tables and two pictures less.
    let pictures = if cfg!(feature = "png") { 4 } else { 2 };
    assert_eq!(study.write(&out, &info)?.len(), paths.len() - 2 - pictures);
    Ok(())
}

#[test]
fn a_report_that_cannot_be_written_names_the_place() -> Result<()> {
    let set = planted(30, 4, &[], 0.0, 20);
    let study = run(&[property("x", &set)?], &small())?;
    let folder = tempfile::TempDir::new()?;
    let file = folder.path().join("file");
    std::fs::write(&file, "")?;
    let error = study
        .write(&file.join("report"), &ReportInfo::default())
        .expect_err("a file in the way");
    assert!(error.to_string().contains("report"), "{error}");
    std::fs::create_dir_all(folder.path().join("out/study.json"))?;
    let error = study
        .write(&folder.path().join("out"), &ReportInfo::default())
        .expect_err("a folder in the way");
    assert!(error.to_string().contains("study.json"), "{error}");
    let left = std::fs::read_dir(folder.path().join("out"))?.filter_map(Result::ok);
    assert!(
        left.map(|entry| entry.file_name())
            .all(|name| !name.to_string_lossy().contains("partial"))
    );
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    #[test]
    fn any_numbers_have_a_study(
        pairs in 3usize..12,
        dims in 1usize..7,
        scale in -12i32..6,
        seed in any::<u64>(),
        published in any::<bool>(),
    ) {
        let mut set = planted(pairs, dims, &[0], 1.0, seed);
        for value in set.first.iter_mut().chain(&mut set.second) {
            *value *= 10f32.powi(scale);
        }
        let options = if published { StudyOptions::published() } else { StudyOptions::default() };
        let embeddings = PairedEmbeddings::new("x", &set.first, &set.second, dims).expect("numbers");
        match Study::run(&[Property::new(embeddings)], &options, &(), &NEVER) {
            Ok(study) => {
                let scores = &study.properties[0].scores.edi;
                prop_assert!(scores.iter().all(|score| (0.0..=1.0 + 1e-12).contains(score)), "{scores:?}");
            }
            // So few rows can all be of one side, or no pair be whole.
            Err(Error::TooFew { .. }) => {}
            Err(error) => prop_assert!(false, "{error}"),
        }
    }
}
