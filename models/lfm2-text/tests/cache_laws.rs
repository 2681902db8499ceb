//! Laws of the cache: pieces = whole, rewound = fresh, forked = independent, together = alone.
#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on should say where"
)]

mod support;

use std::sync::OnceLock;

use anyhow::{Result, ensure};
use lfm2_nn::{Cache, CacheSpec, DType, Decoder, Input, Segment, Step, Tensor, Want};
use lfm2_text::TextModel;
use proptest::prelude::*;
use support::{Case, cases, ensure_close, feed, logits, max_diff};

/// Logits of these random models spread over about 3; f32 noise is far below.
const NOISE: f64 = 2e-4;

/// Every golden case with its model, loaded once.
fn models() -> &'static [(Case, TextModel)] {
    static MODELS: OnceLock<Vec<(Case, TextModel)>> = OnceLock::new();
    MODELS.get_or_init(|| {
        let load = |case: Case| case.model().map(|model| (case, model));
        cases()
            .unwrap()
            .into_iter()
            .map(load)
            .collect::<Result<_>>()
            .unwrap()
    })
}

fn ids_for(model: &TextModel, seed: u64, len: usize) -> Vec<u32> {
    let vocab = model.vocab_size() as u64;
    (0..len as u64)
        .map(|i| (seed.wrapping_add(i).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 33) % vocab)
        .map(|i| i as u32)
        .collect()
}

fn check(result: Result<()>) -> Result<(), TestCaseError> {
    result.map_err(|e| TestCaseError::fail(format!("{e:#}")))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn any_split_equals_the_whole(seed: u64, cuts in prop::collection::vec(1usize..9, 1..8)) {
        for (case, model) in models() {
            let len = cuts.iter().sum();
            let ids = ids_for(model, seed, len);
            let whole = logits(model, &ids).unwrap();
            let mut cache = model.new_cache(CacheSpec::rows(1).with_capacity(1));
            let mut at = 0;
            for cut in &cuts {
                let piece = feed(model, &ids[at..at + cut], &mut cache, Want::AllLogits).unwrap();
                check(ensure_close(&case.name, &piece, &whole.narrow(0, at, *cut).unwrap(), NOISE))?;
                at += cut;
            }
        }
    }

    #[test]
    fn rewinding_to_any_boundary_equals_starting_again(seed: u64, len in 1usize..40, back in 0usize..40, again in 1usize..6) {
        for (case, model) in models() {
            let keep = len.saturating_sub(back);
            let ids = ids_for(model, seed, len);
            let mut cache = model.new_cache(CacheSpec::rows(1));
            feed(model, &ids, &mut cache, Want::LastLogits).unwrap();
            model.rewind(&mut cache, 0, keep).unwrap();
            prop_assert_eq!(cache.len(0), keep);

            let rest = ids_for(model, seed ^ 1, again);
            let mut fresh = model.new_cache(CacheSpec::rows(1));
            if keep > 0 {
                feed(model, &ids[..keep], &mut fresh, Want::LastLogits).unwrap();
            }
            let expected = feed(model, &rest, &mut fresh, Want::AllLogits).unwrap();
            let found = feed(model, &rest, &mut cache, Want::AllLogits).unwrap();
            check(ensure_close(&case.name, &found, &expected, NOISE))?;
        }
    }

    #[test]
    fn sequences_together_equal_each_alone(seed: u64, steps in prop::collection::vec(prop::collection::vec(0usize..5, 3), 1..5)) {
        for (case, model) in models() {
            let mut together = model.new_cache(CacheSpec::rows(3));
            let mut alone: Vec<Cache> = (0..3).map(|_| model.new_cache(CacheSpec::rows(1))).collect();
            for (i, lens) in steps.iter().enumerate().filter(|(_, lens)| lens.iter().any(|&l| l > 0)) {
                let rows: Vec<Vec<u32>> = lens.iter().enumerate().map(|(r, &len)| ids_for(model, seed ^ (r + 10 * i) as u64, len)).collect();
                let packed = Tensor::new(rows.concat(), model.device()).unwrap();
                let found = model.forward(Input::Ids(&packed), &Step::rows(lens), &mut together, Want::AllLogits).unwrap();
                let mut at = 0;
                for (row, ids) in rows.iter().enumerate().filter(|(_, ids)| !ids.is_empty()) {
                    let expected = feed(model, ids, &mut alone[row], Want::AllLogits).unwrap();
                    check(ensure_close(&case.name, &found.narrow(0, at, ids.len()).unwrap(), &expected, NOISE))?;
                    at += ids.len();
                }
            }
        }
    }
}

#[test]
fn a_fork_goes_its_own_way() -> Result<()> {
    for (_, model) in models() {
        let ids = ids_for(model, 3, 9);
        let mut cache = model.new_cache(CacheSpec::rows(1));
        feed(model, &ids, &mut cache, Want::LastLogits)?;
        let mut fork = cache.fork()?;
        let row = cache.fork_row(0)?;
        let expected = feed(model, &[5, 6], &mut fork.fork()?, Want::AllLogits)?;

        feed(model, &[9, 9, 9], &mut cache, Want::LastLogits)?;
        ensure_close(
            "fork",
            &feed(model, &[5, 6], &mut fork, Want::AllLogits)?,
            &expected,
            0.0,
        )?;
        let step = Step::segments_of(vec![Segment { row, len: 2 }]);
        let input = Tensor::new(&[5u32, 6], model.device())?;
        let found = model.forward(Input::Ids(&input), &step, &mut cache, Want::AllLogits)?;
        ensure_close("forked row", &found, &expected, 0.0)?;
        ensure!(cache.len(0) == 12 && cache.len(row) == 11);
    }
    Ok(())
}

#[test]
fn documents_packed_without_state_do_not_see_each_other() -> Result<()> {
    for (case, model) in models() {
        let documents: Vec<Vec<u32>> = [1, 7, 2, 12]
            .iter()
            .map(|&len| ids_for(model, len as u64, len))
            .collect();
        let lens: Vec<usize> = documents.iter().map(Vec::len).collect();
        let packed = Tensor::new(documents.concat(), model.device())?;
        let found = model.forward(
            Input::Ids(&packed),
            &Step::rows(&lens),
            &mut Cache::stateless(4),
            Want::AllLogits,
        )?;
        let mut at = 0;
        for document in &documents {
            let expected = logits(model, document)?;
            ensure_close(
                &case.name,
                &found.narrow(0, at, document.len())?,
                &expected,
                NOISE,
            )?;
            at += document.len();
        }
    }
    Ok(())
}

#[test]
fn a_cleared_cache_remembers_nothing() -> Result<()> {
    for (case, model) in models() {
        let mut cache = model.new_cache(CacheSpec::rows(1));
        feed(model, &ids_for(model, 1, 20), &mut cache, Want::LastLogits)?;
        cache.clear();
        ensure!(cache.is_empty() && cache.bytes() == 0);
        let found = feed(model, &[4], &mut cache, Want::AllLogits)?;
        ensure_close(&case.name, &found, &logits(model, &[4])?, 0.0)?;
    }
    Ok(())
}

#[test]
fn half_precision_keys_and_values_stay_close() -> Result<()> {
    for (case, model) in models() {
        let ids = ids_for(model, 2, 24);
        let expected = logits(model, &ids)?;
        let mut cache = model.new_cache(CacheSpec::rows(1).with_kv_dtype(DType::F16));
        let found = feed(model, &ids, &mut cache, Want::AllLogits)?;
        let difference = max_diff(&found, &expected)?;
        ensure!(difference < 0.2, "{}: {difference}", case.name);
    }
    Ok(())
}

#[test]
fn a_tiny_rewind_that_replays_one_token_less_is_noticed() -> Result<()> {
    // The replay length is a sum over the layers; were it one shorter, states would be wrong. The
    // property above would catch that only if states matter, which is shown here.
    let (_, model) = &models()[0];
    let ids = ids_for(model, 8, 30);
    let mut whole = model.new_cache(CacheSpec::rows(1));
    feed(model, &ids, &mut whole, Want::LastLogits)?;
    let mut short = model.new_cache(CacheSpec::rows(1));
    let replay = whole.layout().replay_len();
    feed(model, &ids[30 - replay..], &mut short, Want::LastLogits)?;
    let a = feed(model, &[3], &mut whole, Want::AllLogits)?;
    let b = feed(model, &[3], &mut short, Want::AllLogits)?;
    ensure!(
        max_diff(&a, &b)? > 1e-2,
        "forgetting the distant past changes nothing"
    );
    Ok(())
}

#[test]
fn misuse_is_an_error_and_not_a_panic() -> Result<()> {
    let (_, model) = &models()[0];
    let vocab = model.vocab_size() as u32;
    let mut cache = model.new_cache(CacheSpec::rows(1));
    let run = |ids: &[u32], step: Step, cache: &mut Cache| {
        let ids = Tensor::new(ids, model.device())?;
        model.forward(Input::Ids(&ids), &step, cache, Want::LastLogits)
    };
    ensure!(
        run(&[vocab], Step::single(1), &mut cache).is_err(),
        "an id outside the vocabulary"
    );
    cache.clear();
    ensure!(
        run(&[1, 2], Step::single(3), &mut cache).is_err(),
        "fewer ids than the step says"
    );
    ensure!(
        run(
            &[1],
            Step::segments_of(vec![Segment { row: 4, len: 1 }]),
            &mut cache
        )
        .is_err(),
        "a row that is not there"
    );
    ensure!(run(&[], Step::rows(&[0]), &mut cache).is_err(), "no tokens");
    ensure!(model.rewind(&mut cache, 0, 1).is_err(), "rewinding forward");
    ensure!(
        model.rewind(&mut cache, 2, 0).is_err(),
        "rewinding a row that is not there"
    );

    let x = model.embed_tokens(&Tensor::new(&[1u32, 2, 3], model.device())?)?;
    model.forward(
        Input::Embeddings(&x),
        &Step::single(3),
        &mut cache,
        Want::LastLogits,
    )?;
    ensure!(
        model.rewind(&mut cache, 0, 2).is_err(),
        "embeddings cannot be replayed"
    );
    ensure!(cache.len(0) == 3, "a refused rewind changes nothing");
    model.rewind(&mut cache, 0, 0)?;
    Ok(())
}

#[test]
fn a_saved_cache_goes_on_where_it_was() -> Result<()> {
    let folder = tempfile::tempdir()?;
    for (case, model) in models() {
        let path = folder.path().join(&case.name);
        let mut cache = model.new_cache(CacheSpec::rows(1));
        feed(model, &ids_for(model, 6, 11), &mut cache, Want::LastLogits)?;
        cache.save(&path)?;
        let mut loaded = model.new_cache(CacheSpec::rows(1));
        loaded.load(&path)?;
        model.rewind(&mut loaded, 0, 9)?;
        model.rewind(&mut cache, 0, 9)?;
        let expected = feed(model, &[3, 1], &mut cache, Want::AllLogits)?;
        let found = feed(model, &[3, 1], &mut loaded, Want::AllLogits)?;
        ensure_close(&case.name, &found, &expected, 0.0)?;
    }
    Ok(())
}
