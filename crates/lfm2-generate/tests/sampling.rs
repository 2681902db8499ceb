//! The sampler against its definition: distributions, frequencies, streams, log-probabilities.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail like tests"
)]

use lfm2_generate::{GenerationOptions, Sampler};
use proptest::prelude::*;

/// The transforms as the reference library writes them, on the whole vocabulary and with sorting.
fn naive(options: &GenerationOptions, logits: &[f32]) -> Vec<f32> {
    let mut x: Vec<f32> = logits.iter().map(|x| x / options.temperature).collect();
    if options.top_k > 0 {
        let mut sorted = x.clone();
        sorted.sort_by(|a, b| b.total_cmp(a));
        let kth = sorted[options.top_k.min(x.len()) - 1];
        x.iter_mut()
            .filter(|x| **x < kth)
            .for_each(|x| *x = f32::NEG_INFINITY);
    }
    if options.top_p < 1.0 {
        let p = softmax(&x);
        let mut order: Vec<usize> = (0..x.len()).collect();
        order.sort_by(|a, b| p[*b].total_cmp(&p[*a]).then(a.cmp(b)));
        let mut before = 0.0;
        for (rank, id) in order.into_iter().enumerate() {
            if rank > 0 && before >= options.top_p {
                x[id] = f32::NEG_INFINITY;
            }
            before += p[id];
        }
    }
    let p = softmax(&x);
    let most = p.iter().copied().fold(0.0, f32::max);
    for (x, p) in x.iter_mut().zip(p) {
        if p < options.min_p * most {
            *x = f32::NEG_INFINITY;
        }
    }
    softmax(&x)
}

fn softmax(x: &[f32]) -> Vec<f32> {
    let largest = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let weights: Vec<f32> = x.iter().map(|x| (x - largest).exp()).collect();
    let sum: f32 = weights.iter().sum();
    weights.into_iter().map(|w| w / sum).collect()
}

/// Probability of every token of the vocabulary.
fn distribution(options: &GenerationOptions, logits: &[f32]) -> Vec<f32> {
    let mut sampler = Sampler::new(options, logits.len()).unwrap();
    let mut all = vec![0.0; logits.len()];
    for candidate in sampler.distribution(&mut logits.to_vec()).unwrap() {
        all[candidate.id as usize] = candidate.probability;
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn fast_selection_equals_the_definition(
        // Distinct logits: how equal ones are cut is our choice and tested on its own.
        logits in prop::collection::vec(-80_000i32..80_000, 2..600).prop_map(|mut v| {
            v.sort_unstable();
            v.dedup();
            v.into_iter().map(|x| x as f32 / 1e4).collect::<Vec<f32>>()
        }).prop_shuffle(),
        temperature in 0.2f32..2.0,
        top_k in 0usize..100,
        top_p in prop_oneof![Just(1.0f32), 0.05f32..0.99],
        min_p in prop_oneof![Just(0.0f32), 0.01f32..0.9],
    ) {
        let options = GenerationOptions::neutral()
            .with_temperature(temperature).with_top_k(top_k).with_top_p(top_p).with_min_p(min_p);
        let fast = distribution(&options, &logits);
        let slow = naive(&options, &logits);
        let mut differing = 0;
        for (a, b) in fast.iter().zip(&slow) {
            differing += usize::from((a - b).abs() > 1e-4);
        }
        // A token whose share is at the edge to the last bit may fall on either side.
        let edge = (fast.iter().filter(|p| **p > 0.0).count() as i64 - slow.iter().filter(|p| **p > 0.0).count() as i64).abs();
        prop_assert!(differing == 0 || edge == 1, "{differing} probabilities differ");
    }

    #[test]
    fn greedy_is_the_first_largest(logits in prop::collection::vec(-5i8..5, 1..300)) {
        let mut logits: Vec<f32> = logits.into_iter().map(f32::from).collect();
        let mut expected = 0;
        for (id, x) in logits.iter().enumerate() {
            if *x > logits[expected] {
                expected = id;
            }
        }
        let mut sampler = Sampler::new(&GenerationOptions::greedy(), logits.len()).unwrap();
        prop_assert_eq!(sampler.sample(&mut logits).unwrap().id as usize, expected);
    }
}

/// Pearson's statistic of `draws` draws against the expected distribution.
fn chi_square(options: &GenerationOptions, logits: &[f32], draws: u32) -> (f64, usize) {
    let expected = distribution(options, logits);
    let mut sampler = Sampler::new(options, logits.len()).unwrap();
    let mut counts = vec![0u32; logits.len()];
    for _ in 0..draws {
        counts[sampler.sample(&mut logits.to_vec()).unwrap().id as usize] += 1;
    }
    let mut statistic = 0.0;
    let mut kept = 0;
    for (count, p) in counts.iter().zip(expected) {
        if p == 0.0 {
            assert_eq!(*count, 0, "a token outside the distribution was drawn");
            continue;
        }
        let mean = f64::from(p) * f64::from(draws);
        statistic += (f64::from(*count) - mean).powi(2) / mean;
        kept += 1;
    }
    (statistic, kept)
}

#[test]
fn draws_follow_the_distribution() {
    let logits: Vec<f32> = (0..20).map(|i| (i as f32 * 0.7).sin() * 2.0).collect();
    let neutral = GenerationOptions::neutral();
    for (seed, options) in [
        (1, neutral.clone()),
        (2, neutral.clone().with_temperature(0.7).with_top_p(0.9)),
        (3, neutral.clone().with_top_k(8)),
        (4, neutral.with_temperature(1.5).with_min_p(0.1)),
    ] {
        let (statistic, kept) = chi_square(&options.with_seed(seed), &logits, 20_000);
        // Four standard deviations above the mean of the statistic.
        let freedom = (kept - 1) as f64;
        assert!(
            statistic < freedom + 4.0 * (2.0 * freedom).sqrt(),
            "seed {seed}: {statistic} with {freedom} degrees"
        );
    }
}

#[test]
fn the_same_seed_draws_the_same_tokens() {
    let logits: Vec<f32> = (0..50).map(|i| (i as f32).cos()).collect();
    let draw = |seed| {
        let options = GenerationOptions::neutral().with_seed(seed);
        let mut sampler = Sampler::new(&options, 50).unwrap();
        (0..30)
            .map(|_| sampler.sample(&mut logits.clone()).unwrap().id)
            .collect::<Vec<_>>()
    };
    assert_eq!(draw(7), draw(7));
    assert_ne!(draw(7), draw(8));
}

#[test]
fn a_made_up_seed_can_be_used_again() {
    let logits: Vec<f32> = (0..50).map(|i| (i as f32).cos()).collect();
    let mut first = Sampler::new(&GenerationOptions::neutral(), 50).unwrap();
    let mut again =
        Sampler::new(&GenerationOptions::neutral().with_seed(first.seed()), 50).unwrap();
    for _ in 0..20 {
        assert_eq!(
            first.sample(&mut logits.clone()).unwrap(),
            again.sample(&mut logits.clone()).unwrap()
        );
    }
}

#[test]
fn log_probabilities_are_those_of_the_raw_logits() {
    let logits = [1.0f32, 3.0, 2.0, 0.0];
    let expected: Vec<f32> = softmax(&logits).iter().map(|p| p.ln()).collect();
    // Options that change the distribution beyond recognition.
    let options = GenerationOptions::greedy()
        .with_logit_bias(0, 50.0)
        .with_logprobs(2);
    let mut sampler = Sampler::new(&options, 4).unwrap();
    let token = sampler.sample(&mut logits.clone()).unwrap();
    assert_eq!(token.id, 0);
    assert!((token.logprob.unwrap() - expected[0]).abs() < 1e-5);
    assert_eq!(token.top.iter().map(|t| t.id).collect::<Vec<_>>(), [1, 2]);
    for top in &token.top {
        assert!((top.logprob - expected[top.id as usize]).abs() < 1e-5);
    }
}

#[test]
fn penalties_see_what_was_drawn() {
    let options = GenerationOptions::greedy().with_presence_penalty(2.0);
    let mut sampler = Sampler::new(&options, 3).unwrap();
    let ids: Vec<u32> = (0..3)
        .map(|_| sampler.sample(&mut [2.0, 1.0, 0.5]).unwrap().id)
        .collect();
    assert_eq!(ids, [0, 1, 2]);
}

#[test]
fn repetition_penalty_sees_the_prompt() {
    let options = GenerationOptions::greedy().with_repetition_penalty(1.5);
    let mut sampler = Sampler::new(&options, 2).unwrap();
    sampler.observe_prompt(&[0, 0, 0]);
    assert_eq!(sampler.sample(&mut [1.2, 1.0]).unwrap().id, 1);
}
