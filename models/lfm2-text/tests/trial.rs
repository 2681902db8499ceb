//! Trials: going back inside one gives the very state that was there, without feeding anything.
#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on should say where"
)]

mod support;

use anyhow::{Result, ensure};
use lfm2_nn::{Cache, CacheSpec, DType, Decoder, LayerCache, Tensor, Want};
use lfm2_text::{LoadOptions, TextModel};
use support::{cases, feed};

/// Convolution states of row 0, as numbers.
fn states(cache: &Cache) -> Result<Vec<Vec<f32>>> {
    let row = cache.row(0).unwrap();
    let layers = (0..).map_while(|layer| row.layer(layer));
    let states = layers.filter_map(|layer| match layer {
        LayerCache::Conv(state) => Some(state),
        LayerCache::Kv(_) => None,
    });
    states
        .map(|state| Ok(state.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?))
        .collect()
}

fn numbers(x: &Tensor) -> Result<Vec<f32>> {
    Ok(x.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?)
}

/// Feeds `start` tokens, then in a trial `pieces`, goes back to every length in turn, and compares
/// with the states that were there when each token was fed.
fn compare(model: &TextModel, start: &[u32], pieces: &[&[u32]]) -> Result<()> {
    let mut cache = model.new_cache(CacheSpec::rows(1).with_capacity(1));
    if !start.is_empty() {
        feed(model, start, &mut cache, Want::Hidden)?;
    }
    cache.begin_trial(0)?;
    let mut known = Vec::new();
    for piece in pieces {
        let mut copy = cache.fork()?;
        for id in *piece {
            feed(model, &[*id], &mut copy, Want::Hidden)?;
            known.push(states(&copy)?);
        }
        feed(model, piece, &mut cache, Want::Hidden)?;
    }
    let all: Vec<u32> = pieces.concat();
    for keep in (1..=all.len()).rev() {
        // The ids to replay are what the trial saves.
        ensure!(
            cache.cut(0, start.len() + keep)?.is_empty(),
            "ids to replay"
        );
        let (found, expected) = (states(&cache)?, &known[keep - 1]);
        for (found, expected) in found.iter().zip(expected) {
            let same = found
                .iter()
                .zip(expected)
                .all(|(x, y)| (x - y).abs() <= 1e-5 * y.abs().max(1.0));
            ensure!(same, "states differ after keeping {keep}");
        }
        let mut fresh = model.new_cache(CacheSpec::rows(1));
        let kept = [start, &all[..keep]].concat();
        feed(model, &kept, &mut fresh, Want::Hidden)?;
        let next = |cache: &mut Cache| -> Result<Vec<f32>> {
            numbers(&feed(model, &[3], cache, Want::LastLogits)?)
        };
        let expected = next(&mut fresh)?;
        let found = next(&mut cache)?;
        let off = found.iter().zip(&expected).map(|(x, y)| (x - y).abs());
        ensure!(
            off.fold(0.0, f32::max) < 2e-4,
            "logits differ after keeping {keep}"
        );
        ensure!(
            cache.cut(0, start.len() + keep)?.is_empty(),
            "ids to replay"
        );
    }
    Ok(())
}

#[test]
fn going_back_in_a_trial_restores_the_states() -> Result<()> {
    for case in cases()? {
        let model = case.model()?;
        compare(&model, &[5, 6, 7, 8, 9], &[&[1, 2, 3, 4], &[11], &[12, 13]])?;
        compare(&model, &[], &[&[1], &[2, 3]])?;
        compare(&model, &[9], &[&[1, 2]])?;
    }
    Ok(())
}

/// The state is a window of what was multiplied in the same pass: no rounding comes between.
#[test]
fn a_whole_trial_taken_back_leaves_no_trace() -> Result<()> {
    for case in cases()? {
        let model = case.model()?;
        let mut cache = model.new_cache(CacheSpec::rows(1));
        feed(&model, &[4, 5, 6], &mut cache, Want::Hidden)?;
        let before = states(&cache)?;
        cache.begin_trial(0)?;
        feed(&model, &[7, 8, 9, 10], &mut cache, Want::Hidden)?;
        ensure!(cache.cut(0, 3)?.is_empty(), "{}: ids to replay", case.name);
        ensure!(states(&cache)? == before, "{}: a state changed", case.name);
    }
    Ok(())
}

#[test]
fn halves_are_kept_as_they_are() -> Result<()> {
    for case in cases()? {
        let options = LoadOptions::default().with_dtype(DType::BF16);
        let model = case.model_with(&options)?;
        let mut cache = model.new_cache(CacheSpec::rows(1));
        feed(&model, &[4, 5, 6], &mut cache, Want::Hidden)?;
        let before = states(&cache)?;
        cache.begin_trial(0)?;
        feed(&model, &[7, 8], &mut cache, Want::Hidden)?;
        ensure!(cache.cut(0, 3)?.is_empty(), "{}: ids to replay", case.name);
        ensure!(states(&cache)? == before, "{}: a state changed", case.name);
    }
    Ok(())
}

#[test]
fn going_back_before_a_trial_replays() -> Result<()> {
    for case in cases()? {
        let model = case.model()?;
        if model.cache_layout().replay_len() == 0 {
            continue;
        }
        let mut cache = model.new_cache(CacheSpec::rows(1));
        feed(&model, &[4, 5, 6], &mut cache, Want::Hidden)?;
        cache.begin_trial(0)?;
        feed(&model, &[7], &mut cache, Want::Hidden)?;
        let mut ended = cache.fork()?;
        ensure!(!ended.cut(0, 3)?.is_empty(), "a fork has no trial");
        model.rewind(&mut cache, 0, 2)?;
        let mut fresh = model.new_cache(CacheSpec::rows(1));
        feed(&model, &[4, 5], &mut fresh, Want::Hidden)?;
        let expected = numbers(&feed(&model, &[8], &mut fresh, Want::LastLogits)?)?;
        let found = numbers(&feed(&model, &[8], &mut cache, Want::LastLogits)?)?;
        let off = found.iter().zip(&expected).map(|(x, y)| (x - y).abs());
        ensure!(off.fold(0.0, f32::max) < 2e-4, "{}", case.name);
    }
    Ok(())
}

#[test]
fn an_ended_trial_keeps_nothing() -> Result<()> {
    for case in cases()? {
        let model = case.model()?;
        if model.cache_layout().replay_len() == 0 {
            continue;
        }
        let mut cache = model.new_cache(CacheSpec::rows(1));
        feed(&model, &[4, 5, 6], &mut cache, Want::Hidden)?;
        cache.begin_trial(0)?;
        cache.end_trial(0);
        feed(&model, &[7], &mut cache, Want::Hidden)?;
        ensure!(!cache.cut(0, 3)?.is_empty(), "{}: kept", case.name);
    }
    Ok(())
}

#[test]
fn a_trial_needs_a_row() {
    assert!(Cache::stateless(1).begin_trial(0).is_err());
    for case in cases().unwrap().iter().take(1) {
        let model = case.model().unwrap();
        assert!(model.new_cache(CacheSpec::rows(2)).begin_trial(2).is_err());
    }
}
