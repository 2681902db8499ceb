//! Bad options, prompts and logits, by the ids of the list of bad inputs.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail like tests"
)]

mod common;

use std::time::{Duration, Instant};

use common::{BOS, BYTES, MockDecoder, VOCAB, byte_tokenizer, bytes, generator, one_hot};
use lfm2_generate::{
    Error, FinishReason, GenerationOptions, Sampler, SpecialText, TextStream, stop_ids,
};
use lfm2_hub::ErrorKind;
use serde_json::json;

fn refused(options: &GenerationOptions, option: &str) {
    match options.validate(VOCAB) {
        Err(error @ Error::InvalidOption { .. }) => {
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(error.to_string().starts_with(option), "{error}");
        }
        other => panic!("{option}: {other:?}"),
    }
}

fn neutral() -> GenerationOptions {
    GenerationOptions::neutral()
}

#[test]
fn gp_01_temperature_out_of_range() {
    for bad in [-1.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        refused(&neutral().with_temperature(bad), "temperature");
    }
}

#[test]
fn gp_01_extreme_temperatures_draw_without_nan() {
    for temperature in [1e-40, 1e-38, 1e9, f32::MAX] {
        for options in [
            neutral(),
            neutral().with_top_p(0.9),
            neutral().with_min_p(0.1),
            neutral().with_top_k(2),
        ] {
            let mut sampler = Sampler::new(&options.with_temperature(temperature), 4).unwrap();
            let candidates = sampler
                .distribution(&mut [3.0e38, -3.0e38, 1.0, 2.9e38])
                .unwrap();
            assert!(
                candidates
                    .iter()
                    .all(|c| (0.0..=1.0).contains(&c.probability)),
                "{candidates:?}"
            );
            let sum: f32 = candidates.iter().map(|c| c.probability).sum();
            assert!((sum - 1.0).abs() < 1e-5, "{temperature}: {sum}");
        }
    }
}

#[test]
fn gp_02_filters_out_of_range() {
    refused(&neutral().with_top_p(1.1), "top_p");
    refused(&neutral().with_top_p(f32::NAN), "top_p");
    refused(&neutral().with_min_p(-0.1), "min_p");
    refused(&neutral().with_min_p(1.5), "min_p");
    for bad in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        refused(
            &neutral().with_repetition_penalty(bad),
            "repetition_penalty",
        );
    }
    refused(&neutral().with_presence_penalty(2.5), "presence_penalty");
    refused(
        &neutral().with_frequency_penalty(f32::NAN),
        "frequency_penalty",
    );
}

#[test]
fn gp_02_edges_mean_what_is_documented() {
    let ids = |options: GenerationOptions| {
        let mut sampler = Sampler::new(&options, 4).unwrap();
        let kept = sampler.distribution(&mut [0.0, 2.0, 1.0, 2.0]).unwrap();
        kept.iter().map(|c| c.id).collect::<Vec<_>>()
    };
    assert_eq!(ids(neutral().with_top_k(0)), [0, 1, 2, 3]);
    assert_eq!(ids(neutral().with_top_k(usize::MAX)), [0, 1, 2, 3]);
    assert_eq!(ids(neutral().with_top_p(0.0)), [1]);
    assert_eq!(ids(neutral().with_min_p(1.0)), [1, 3]);
    assert_eq!(ids(neutral().with_min_p(0.0)), [0, 1, 2, 3]);
}

#[test]
fn gp_03_zero_tokens_is_an_empty_answer_without_work() {
    let (generator, decoder) = generator(MockDecoder::chaotic());
    let output = generator
        .generate("Hi", &neutral().with_max_new_tokens(0))
        .unwrap()
        .complete()
        .unwrap();
    assert_eq!(
        (output.text.as_str(), output.finish.reason),
        ("", FinishReason::Length)
    );
    assert_eq!(decoder.take_fed(), 0);
}

#[test]
fn gp_03_huge_numbers_of_tokens_are_clamped_to_the_context() {
    let (generator, _) = generator(MockDecoder::new(|_| one_hot(BYTES)));
    let generator = generator.with_context(10);
    let output = generator
        .generate("abcd", &neutral().with_max_new_tokens(usize::MAX))
        .unwrap()
        .complete()
        .unwrap();
    assert_eq!(
        (output.tokens.len(), output.finish.reason),
        (5, FinishReason::Length)
    );
    let full = generator
        .generate("abcdefghi", &neutral())
        .unwrap()
        .complete()
        .unwrap();
    assert_eq!(
        (full.tokens.len(), full.finish.reason),
        (0, FinishReason::Length)
    );
}

#[test]
fn gp_03_negative_numbers_do_not_parse() {
    for bad in [
        json!({"max_new_tokens": -1}),
        json!({"top_k": -1}),
        json!({"logit_bias": {"-1": 1.0}}),
    ] {
        assert!(
            serde_json::from_value::<GenerationOptions>(bad.clone()).is_err(),
            "{bad}"
        );
    }
    let good: GenerationOptions =
        serde_json::from_value(json!({"max_new_tokens": 5, "end_tokens": "ignore"})).unwrap();
    assert_eq!(good.max_new_tokens, 5);
    assert_eq!(good.temperature, GenerationOptions::default().temperature);
}

#[test]
fn gp_04_unbounded_lists_are_refused() {
    refused(&neutral().with_logprobs(1_000_000_000), "logprobs");
    let stops = (0..17).fold(neutral(), |o, i| o.with_stop(i.to_string()));
    refused(&stops, "stop");
    refused(&neutral().with_stop("x".repeat(257)), "stop");
    let mut options = neutral();
    options.logit_bias = (0..5000).map(|id| (id, 0.0)).collect();
    refused(&options, "logit_bias");
    options = neutral();
    options.stop_ids = vec![0; 500_000];
    refused(&options, "stop_ids");
    refused(&neutral().with_logit_bias(1_000_000_000, 1.0), "logit_bias");
    refused(&neutral().with_logit_bias(0, f32::NAN), "logit_bias");
}

#[test]
fn gp_05_the_same_seed_writes_the_same_text() {
    let (generator, _) = generator(MockDecoder::new(|ids| {
        (0..VOCAB)
            .map(|id| ((id * ids.len()) as f32 * 0.37).sin() * 3.0)
            .collect()
    }));
    let run = |seed| {
        let options = GenerationOptions::default()
            .with_seed(seed)
            .with_max_new_tokens(40);
        generator
            .generate("Hi", &options)
            .unwrap()
            .complete()
            .unwrap()
            .tokens
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}

#[test]
fn gp_06_equal_logits_are_a_fair_draw() {
    for options in [
        neutral(),
        neutral().with_top_k(1),
        neutral().with_min_p(1.0),
        GenerationOptions::default(),
    ] {
        let mut sampler = Sampler::new(&options, 8).unwrap();
        let kept = sampler.distribution(&mut [0.5; 8]).unwrap();
        assert_eq!(kept.len(), 8);
        assert!(kept.iter().all(|c| (c.probability - 0.125).abs() < 1e-6));
    }
}

#[test]
fn gp_06_nothing_left_is_an_error() {
    for options in [
        neutral(),
        GenerationOptions::greedy(),
        neutral().with_top_k(2).with_logprobs(2),
    ] {
        let error = Sampler::new(&options, 3)
            .unwrap()
            .sample(&mut [f32::NEG_INFINITY; 3])
            .unwrap_err();
        assert!(matches!(error, Error::NothingLeft), "{error}");
    }
    let banned = (0..2).fold(neutral(), |o, id| o.with_logit_bias(id, f32::NEG_INFINITY));
    assert!(
        Sampler::new(&banned, 2)
            .unwrap()
            .sample(&mut [1.0, 2.0])
            .is_err()
    );
}

#[test]
fn gp_06_nan_ends_the_generation_with_an_error() {
    for bad in [f32::NAN, f32::INFINITY] {
        for options in [
            neutral(),
            GenerationOptions::greedy(),
            neutral().with_top_p(0.5).with_logprobs(3),
        ] {
            let error = Sampler::new(&options, 3)
                .unwrap()
                .sample(&mut [0.0, bad, 1.0])
                .unwrap_err();
            assert!(matches!(error, Error::Logits { token: 1, .. }), "{error}");
            assert_eq!(error.kind(), ErrorKind::Internal);
        }
    }
}

#[test]
fn gp_07_ids_outside_the_vocabulary() {
    let (generator, _) = generator(MockDecoder::chaotic());
    let error = generator
        .generate_ids(vec![BOS, VOCAB as u32], &neutral())
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains("prompt token 1"), "{error}");
    refused(&neutral().with_stop_id(VOCAB as u32), "stop_ids");
}

#[test]
fn tk_02_empty_prompts_are_refused_and_blank_ones_are_not() {
    let (generator, _) = generator(MockDecoder::new(|_| one_hot(common::IM_END)));
    assert_eq!(
        generator.generate("", &neutral()).unwrap_err().kind(),
        ErrorKind::InvalidInput
    );
    assert_eq!(
        generator
            .generate_ids(Vec::new(), &neutral())
            .unwrap_err()
            .kind(),
        ErrorKind::InvalidInput
    );
    for prompt in ["  \n", "<|im_start|>", "<|startoftext|>"] {
        assert!(
            generator
                .generate(prompt, &neutral())
                .unwrap()
                .complete()
                .is_ok(),
            "{prompt:?}"
        );
    }
}

#[test]
fn tk_05_a_prompt_longer_than_the_context_is_refused_with_counts() {
    let (generator, decoder) = generator(MockDecoder::chaotic());
    let error = generator
        .with_context(8)
        .generate("too long for it", &neutral())
        .unwrap_err();
    assert!(
        matches!(
            error,
            Error::PromptTooLong {
                prompt: 16,
                context: 8
            }
        ),
        "{error}"
    );
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert_eq!(decoder.take_fed(), 0);
}

#[test]
fn tk_07_ids_without_a_token_are_refused_by_the_stream() {
    let mut stream = TextStream::new(byte_tokenizer(), SpecialText::Hidden);
    assert_eq!(
        stream.push(VOCAB as u32).unwrap_err().kind(),
        ErrorKind::InvalidInput
    );
}

#[test]
fn tk_08_characters_split_over_tokens_come_whole() {
    let text = "日本語 🙂 äöü";
    let (generator, _) = generator(MockDecoder::writes(
        [vec![BOS], bytes("Hi")].concat(),
        bytes(text),
    ));
    let pieces: Vec<String> = generator
        .generate("Hi", &GenerationOptions::greedy())
        .unwrap()
        .map(|p| p.unwrap().text)
        .collect();
    assert!(pieces.iter().all(|p| !p.contains('\u{fffd}')));
    assert_eq!(pieces.concat(), text);
}

#[test]
fn tk_09_empty_stop_strings_are_refused() {
    let (generator, _) = generator(MockDecoder::chaotic());
    refused(&neutral().with_stop(""), "stop");
    assert!(generator.generate("Hi", &neutral().with_stop("")).is_err());
}

#[test]
fn tk_09_nothing_behind_a_stop_string_leaks() {
    let prompt = [vec![BOS], bytes("Hi")].concat();
    let (generator, _) = generator(MockDecoder::writes(prompt, bytes("one </s> two")));
    // The first is a beginning of the second, and complete earlier.
    let options = GenerationOptions::greedy()
        .with_stop("</")
        .with_stop("</s>");
    let pieces: Vec<String> = generator
        .generate("Hi", &options)
        .unwrap()
        .map(|p| p.unwrap().text)
        .collect();
    assert_eq!(pieces.concat(), "one ");
}

#[test]
fn cf_12_end_tokens_of_a_checkpoint() {
    let tokenizer = byte_tokenizer();
    let ids = |generation: Option<&_>, config: &_| stop_ids(generation, config, &tokenizer, VOCAB);
    let (seven, none) = (json!({"eos_token_id": 7}), json!({}));
    assert_eq!(ids(Some(&seven), &none).unwrap(), [2, 7]);
    assert_eq!(ids(None, &seven).unwrap(), [2, 7]);
    let (empty, several) = (json!({"eos_token_id": []}), json!({"eos_token_id": [5, 6]}));
    assert_eq!(ids(Some(&empty), &several).unwrap(), [2, 5, 6]);
    assert_eq!(ids(Some(&none), &none).unwrap(), [2]);
    let outside = json!({"eos_token_id": [7, 100_000]});
    let error = ids(Some(&outside), &none).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidModel);
    assert!(
        error.to_string().contains("generation_config.json"),
        "{error}"
    );
}

#[test]
fn sampling_a_large_vocabulary_does_not_sort_it() {
    let logits: Vec<f32> = (0..128_000u32)
        .map(|i| ((i.wrapping_mul(2_654_435_761)) as f32).sin() * 5.0)
        .collect();
    let start = Instant::now();
    for options in [
        GenerationOptions::greedy(),
        GenerationOptions::default(),
        neutral().with_top_k(50),
    ] {
        let mut sampler = Sampler::new(&options, logits.len()).unwrap();
        sampler.sample(&mut logits.clone()).unwrap();
    }
    assert!(start.elapsed() < Duration::from_secs(2));
}
