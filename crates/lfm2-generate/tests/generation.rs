//! The generation loop around a decoder without weights.

mod common;

use std::sync::{Arc, Mutex};

use common::{BOS, END_OF_TEXT, IM_END, IM_START, MockDecoder, bytes, generator};
use lfm2_generate::{
    Cancel, EndTokens, FinishReason, GenerationOptions, PrefillProgress, SpecialText, StopCause,
};
use lfm2_nn::{CacheSpec, Decoder};

fn greedy() -> GenerationOptions {
    GenerationOptions::greedy()
}

/// The ids of `generate(prompt)`.
fn with_bos(prompt: &str) -> Vec<u32> {
    [vec![BOS], bytes(prompt)].concat()
}

#[test]
fn text_ends_at_the_end_token() {
    let (generator, _) = generator(MockDecoder::writes(with_bos("Hi"), bytes(" there")));
    let output = generator
        .generate("Hi", &greedy())
        .unwrap()
        .complete()
        .unwrap();
    assert_eq!(output.text, " there");
    assert_eq!(
        output.finish.reason,
        FinishReason::Stop(StopCause::Id(IM_END))
    );
    assert_eq!(
        (output.finish.prompt_tokens, output.finish.generated_tokens),
        (3, 7)
    );
    assert_eq!(output.tokens.len(), 7);
}

#[test]
fn stop_strings_cut_the_text_across_tokens() {
    let (generator, _) = generator(MockDecoder::writes(with_bos("Hi"), bytes(" one.\n\ntwo")));
    let options = greedy().with_stop("\n\n");
    let output = generator
        .generate("Hi", &options)
        .unwrap()
        .complete()
        .unwrap();
    assert_eq!(output.text, " one.");
    assert_eq!(
        output.finish.reason,
        FinishReason::Stop(StopCause::Text("\n\n".into()))
    );
}

#[test]
fn a_stop_string_that_was_only_begun_is_part_of_the_text() {
    let (generator, _) = generator(MockDecoder::writes(with_bos("Hi"), bytes("EN")));
    for tokens in [2, 10] {
        let options = greedy().with_stop("END").with_max_new_tokens(tokens);
        assert_eq!(
            generator
                .generate("Hi", &options)
                .unwrap()
                .complete()
                .unwrap()
                .text,
            "EN"
        );
    }
}

#[test]
fn a_character_that_was_cut_off_becomes_a_replacement() {
    let (generator, _) = generator(MockDecoder::writes(with_bos("Hi"), bytes("a€")));
    let output = generator
        .generate("Hi", &greedy().with_max_new_tokens(3))
        .unwrap()
        .complete()
        .unwrap();
    assert_eq!(output.text, "a\u{fffd}");
    assert_eq!(output.finish.reason, FinishReason::Length);
}

#[test]
fn end_tokens_can_be_ignored_and_added() {
    let (generator, _) = generator(MockDecoder::writes(with_bos("Hi"), bytes("abc")));
    let ignoring = greedy()
        .with_end_tokens(EndTokens::Ignore)
        .with_max_new_tokens(6);
    let output = generator
        .generate("Hi", &ignoring)
        .unwrap()
        .complete()
        .unwrap();
    assert_eq!((output.text.as_str(), output.tokens.len()), ("abc", 6));
    let adding = greedy().with_stop_id(bytes("b")[0]);
    assert_eq!(
        generator
            .generate("Hi", &adding)
            .unwrap()
            .complete()
            .unwrap()
            .text,
        "a"
    );
}

#[test]
fn chunks_of_any_size_give_the_same_text() {
    let (generator, decoder) = generator(MockDecoder::chaotic());
    let whole = generator
        .generate("Once upon a time", &greedy())
        .unwrap()
        .complete()
        .unwrap();
    assert!(whole.text.len() > 3, "{:?}", whole.text);
    decoder.take_fed();
    for chunk in [0, 1, 3, 7, 17, 100] {
        let reports = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&reports);
        let generation = generator
            .generate("Once upon a time", &greedy())
            .unwrap()
            .with_prefill_chunk(chunk);
        let output = generation
            .on_prefill(move |p| seen.lock().unwrap().push(p))
            .complete()
            .unwrap();
        assert_eq!(output.text, whole.text);
        let reports = reports.lock().unwrap();
        assert_eq!(reports.len(), 17usize.div_ceil(chunk.max(1)));
        assert_eq!(
            reports.last(),
            Some(&PrefillProgress {
                done: 17,
                total: 17
            })
        );
    }
}

#[test]
fn a_cancelled_generation_ends_and_says_so() {
    let (generator, decoder) = generator(MockDecoder::chaotic());
    let cancel = Cancel::new();
    let options = greedy().with_end_tokens(EndTokens::Ignore);
    let mut generation = generator
        .generate("Once", &options)
        .unwrap()
        .with_cancel(&cancel);
    assert!(generation.next().is_some());
    cancel.cancel();
    assert!(generation.next().is_none());
    assert_eq!(generation.finish().unwrap().reason, FinishReason::Cancelled);
    assert_eq!(decoder.take_fed(), 5);
}

#[test]
fn a_long_prompt_can_be_cancelled_between_chunks() {
    let (generator, decoder) = generator(MockDecoder::chaotic());
    let cancel = Cancel::new();
    let switch = cancel.clone();
    let generation = generator.generate("Once upon a time", &greedy()).unwrap();
    let generation = generation
        .with_cancel(&cancel)
        .with_prefill_chunk(4)
        .on_prefill(move |_| switch.cancel());
    let output = generation.complete().unwrap();
    assert_eq!(
        (output.text.as_str(), output.finish.reason),
        ("", FinishReason::Cancelled)
    );
    assert_eq!(decoder.take_fed(), 4);
}

#[test]
fn held_text_is_released_on_cancel() {
    let (generator, _) = generator(MockDecoder::writes(with_bos("Hi"), bytes("ENDLESS")));
    let cancel = Cancel::new();
    let options = greedy().with_stop("ENDED");
    let mut generation = generator
        .generate("Hi", &options)
        .unwrap()
        .with_cancel(&cancel);
    assert_eq!(generation.next().unwrap().unwrap().text, "");
    cancel.cancel();
    let piece = generation.next().unwrap().unwrap();
    assert_eq!((piece.text.as_str(), piece.token), ("E", None));
}

#[test]
fn a_cache_row_is_reused_up_to_the_first_difference() {
    let (generator, decoder) = generator(MockDecoder::chaotic());
    let mut cache = decoder.new_cache(CacheSpec::rows(2));
    let options = greedy()
        .with_max_new_tokens(2)
        .with_end_tokens(EndTokens::Ignore);
    let mut run = |row, text: &str| {
        let ids = bytes(text);
        let output = generator
            .generate_in(&mut cache, row, ids.clone(), &options)
            .unwrap()
            .complete()
            .unwrap();
        let fresh = generator
            .generate_ids(ids, &options)
            .unwrap()
            .complete()
            .unwrap();
        assert_eq!(output.text, fresh.text, "{text}");
        output.finish.reused_tokens
    };
    assert_eq!(run(0, "abcdef"), 0);
    assert_eq!(run(1, "abcdef"), 0);
    assert_eq!(run(0, "abcxyz"), 3);
    assert_eq!(run(0, "abcxyz"), 5);
    assert_eq!(run(0, "abc"), 2);
    assert_eq!(run(0, "zzz"), 0);
    assert_eq!(run(1, "abcdefgh"), 6);
}

#[test]
fn a_failed_pass_leaves_an_empty_row() {
    let (generator, decoder) = generator(MockDecoder::new(|ids| match ids.len() {
        4.. => vec![f32::NAN; common::VOCAB],
        _ => common::one_hot(common::BYTES),
    }));
    let mut cache = decoder.new_cache(CacheSpec::rows(1));
    let mut generation = generator
        .generate_in(&mut cache, 0, bytes("abc"), &greedy())
        .unwrap();
    assert!(generation.next().unwrap().is_ok());
    assert!(generation.next().unwrap().is_err());
    assert!(generation.next().is_none());
    assert!(generation.finish().is_none());
    drop(generation);
    assert!(cache.is_empty());
}

#[test]
fn special_tokens_are_hidden_unless_asked_for() {
    let answer = [vec![IM_START], bytes("x")].concat();
    let (generator, _) = generator(MockDecoder::writes(with_bos("Hi"), answer));
    let hidden = generator
        .generate("Hi", &greedy())
        .unwrap()
        .complete()
        .unwrap();
    assert_eq!(hidden.text, "x");
    let shown = generator
        .generate("Hi", &greedy())
        .unwrap()
        .with_special_text(SpecialText::Shown);
    assert_eq!(shown.complete().unwrap().text, "<|im_start|>x");
}

#[test]
fn special_tokens_in_a_prompt_are_tokens() {
    let (generator, _) = generator(MockDecoder::new(|ids| {
        assert_eq!(ids, [BOS, IM_START, common::BYTES + 120]);
        common::one_hot(END_OF_TEXT)
    }));
    assert_eq!(
        generator
            .generate("<|im_start|>x", &greedy())
            .unwrap()
            .complete()
            .unwrap()
            .text,
        ""
    );
}
