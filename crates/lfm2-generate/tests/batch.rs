//! Texts written together around decoders without weights: each is as if it were alone.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

mod common;

use std::sync::Arc;

use candle_core::Tensor;
use common::schedule::{Stories, arrivals, assert_alone, check, play, run, step};
use common::{BOS, BYTES, IM_END, MockDecoder, VOCAB, byte_tokenizer, bytes, generator, one_hot};
use lfm2_generate::{
    Batch, BatchEvent, BatchOptions, Cancel, EndTokens, Error, FinishReason, GenerationOptions,
    Generator, Request, RequestId,
};
use lfm2_hub::ErrorKind;
use lfm2_nn::{Cache, CacheSpec, DType, Decoder, Device, Input, Step, Want};
use proptest::prelude::*;

fn greedy() -> GenerationOptions {
    GenerationOptions::greedy()
}

fn drawn(seed: u64) -> GenerationOptions {
    GenerationOptions::neutral().with_seed(seed)
}

fn rows(max: usize) -> BatchOptions {
    BatchOptions::default().with_max_rows(max)
}

/// Logits that depend on every token of the sequence and leave several letters to choose from.
fn noisy() -> MockDecoder {
    MockDecoder::new(|ids| {
        let mut state = ids.iter().fold(0xcbf2_9ce4_8422_2325u64, |h, id| {
            (h ^ u64::from(*id)).wrapping_mul(0x0100_0000_01b3)
        });
        let mut logits = vec![f32::NEG_INFINITY; VOCAB];
        let letters = b"abcdefghij \xe2\x82\xac".map(|b| BYTES + u32::from(b));
        for id in letters.into_iter().chain([IM_END]) {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            logits[id as usize] = (state >> 40) as f32 / (1u64 << 22) as f32;
        }
        logits
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_schedule_gives_each_text_as_alone(
        schedule in arrivals(),
        max_rows in 1usize..5,
        chunk in 0usize..40,
    ) {
        let (generator, _) = generator(noisy());
        let options = rows(max_rows).with_prefill_chunk(chunk);
        let mut batch = Batch::new(&generator, options).unwrap();
        let stories = play(&mut batch, &schedule);
        check(&generator, &schedule, &stories)?;
    }
}

#[test]
fn one_pass_serves_all_rows() {
    let (generator, decoder) = generator(MockDecoder::chaotic());
    let mut batch = Batch::new(&generator, rows(3)).unwrap();
    let options = greedy().with_end_tokens(EndTokens::Ignore);
    for prompt in ["a", "bc", "def"] {
        batch
            .submit(Request::text(prompt, options.clone()))
            .unwrap();
    }
    assert_eq!(batch.step().len(), 3);
    assert_eq!(*decoder.fed.lock().unwrap(), [2, 3, 4]);
    decoder.take_fed();
    assert_eq!(batch.step().len(), 3);
    assert_eq!(*decoder.fed.lock().unwrap(), [1, 1, 1]);
}

#[test]
fn requests_wait_for_a_row_in_their_order() {
    let (generator, _) = generator(noisy());
    let mut batch = Batch::new(&generator, rows(1)).unwrap();
    let options = greedy()
        .with_max_new_tokens(2)
        .with_end_tokens(EndTokens::Ignore);
    let ids: Vec<RequestId> = ["a", "b", "c"]
        .iter()
        .map(|prompt| {
            batch
                .submit(Request::text(*prompt, options.clone()))
                .unwrap()
        })
        .collect();
    assert!(ids.is_sorted());
    let mut ended = Vec::new();
    let mut running = Vec::new();
    while !batch.is_idle() {
        for (id, event) in batch.step() {
            if let BatchEvent::Finished(_) = event {
                ended.push(id);
            }
        }
        running.push((batch.running(), batch.waiting()));
    }
    assert_eq!(ended, ids);
    assert_eq!(running, [(1, 2), (0, 2), (1, 1), (0, 1), (1, 0), (0, 0)]);
}

#[test]
fn running_texts_get_a_token_while_a_long_prompt_is_read() {
    let (generator, _) = generator(noisy());
    let mut batch = Batch::new(&generator, rows(2).with_prefill_chunk(10)).unwrap();
    let options = greedy().with_end_tokens(EndTokens::Ignore);
    let short = batch.submit(Request::text("a", options.clone())).unwrap();
    assert_eq!(batch.step().len(), 1);
    let long = batch
        .submit(Request::text("b".repeat(99), options))
        .unwrap();
    for _ in 0..9 {
        let drawn: Vec<RequestId> = batch.step().into_iter().map(|(id, _)| id).collect();
        assert_eq!(drawn, [short]);
    }
    let drawn: Vec<RequestId> = batch.step().into_iter().map(|(id, _)| id).collect();
    assert_eq!(drawn, [short, long]);
}

#[test]
fn too_many_requests_are_refused_until_there_is_room() {
    let (generator, _) = generator(noisy());
    let mut batch = Batch::new(&generator, rows(1).with_max_waiting(1)).unwrap();
    let request = || Request::text("a", greedy().with_max_new_tokens(1));
    batch.submit(request()).unwrap();
    batch.submit(request()).unwrap();
    let error = batch.submit(request()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy);
    assert_eq!(
        error.to_string(),
        "2 requests are waiting already: try again later"
    );
    batch.step();
    batch.submit(request()).unwrap();
    assert_eq!(run(&mut batch).len(), 2);
}

#[test]
fn bad_requests_are_refused_alone() {
    let (generator, _) = generator(noisy());
    let mut batch = Batch::new(&generator, rows(2)).unwrap();
    let good = batch.submit(Request::text("abc", greedy())).unwrap();
    batch.step();
    for bad in [
        Request::text("", greedy()),
        Request::ids(Vec::new(), greedy()),
        Request::ids(vec![u32::MAX], greedy()),
        Request::text("a", greedy().with_temperature(-1.0)),
    ] {
        assert_eq!(
            batch.submit(bad).unwrap_err().kind(),
            ErrorKind::InvalidInput
        );
    }
    let short = generator.with_context(2);
    let error = Batch::new(&short, rows(1))
        .unwrap()
        .submit(Request::text("abc", greedy()));
    assert!(matches!(
        error.unwrap_err(),
        Error::PromptTooLong {
            prompt: 4,
            context: 2
        }
    ));
    assert!(run(&mut batch).remove(&good).unwrap().finish.is_some());
}

#[test]
fn options_without_a_meaning_are_named() {
    let (generator, _) = generator(noisy());
    let error = Batch::new(&generator, rows(0)).unwrap_err();
    assert_eq!(error.to_string(), "max_rows: expected at least 1, found 0");
    let error = Batch::new(&generator, rows(1).with_kv_dtype(DType::U8)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "kv_dtype: expected F32, F16 or BF16, found U8"
    );
}

#[test]
fn nothing_to_write_needs_no_pass() {
    let (generator, decoder) = generator(noisy());
    let mut batch = Batch::new(&generator, rows(1)).unwrap();
    let id = batch
        .submit(Request::text("abc", greedy().with_max_new_tokens(0)))
        .unwrap();
    let finish = run(&mut batch).remove(&id).unwrap().finish.unwrap();
    assert_eq!(
        (finish.reason, finish.generated_tokens),
        (FinishReason::Length, 0)
    );
    assert_eq!(decoder.take_fed(), 0);
    assert!(batch.step().is_empty());
}

#[test]
fn cancelling_ends_one_request_and_gives_its_row_to_the_next() {
    let answer = |ids: &[u32]| {
        one_hot(if ids.contains(&(BYTES + 98)) {
            BYTES + 69
        } else {
            BYTES + 120
        })
    };
    let (generator, _) = generator(MockDecoder::new(answer));
    let mut batch = Batch::new(&generator, rows(2)).unwrap();
    let options = greedy().with_max_new_tokens(5);
    let kept = batch.submit(Request::text("a", options.clone())).unwrap();
    let held = batch
        .submit(Request::text("b", options.clone().with_stop("EEEEEEE")))
        .unwrap();
    let waiting = batch.submit(Request::text("c", options.clone())).unwrap();
    let never = batch.submit(Request::text("d", options)).unwrap();
    let mut stories = Stories::new();
    step(&mut batch, &mut stories);
    assert!(batch.cancel(held) && batch.cancel(never));
    while !batch.is_idle() {
        step(&mut batch, &mut stories);
    }
    assert!(!batch.cancel(held), "it is over");
    let reason = |id| {
        stories[&id]
            .finish
            .as_ref()
            .map(|finish| finish.reason.clone())
    };
    assert_eq!(reason(held), Some(FinishReason::Cancelled));
    assert_eq!(stories[&held].text, "E", "text that was held back");
    assert_eq!(reason(never), Some(FinishReason::Cancelled));
    for id in [kept, waiting] {
        assert_eq!(reason(id), Some(FinishReason::Length));
        assert_eq!(stories[&id].text, "xxxxx");
    }
}

#[test]
fn one_switch_can_stop_several_requests() {
    let (generator, _) = generator(noisy());
    let mut batch = Batch::new(&generator, rows(2)).unwrap();
    let switch = Cancel::new();
    let stopped: Vec<RequestId> = ["a", "b", "c"]
        .map(|prompt| {
            batch
                .submit(Request::text(prompt, greedy()).with_cancel(&switch))
                .unwrap()
        })
        .to_vec();
    let other = batch.submit(Request::text("other", drawn(1))).unwrap();
    switch.cancel();
    let stories = run(&mut batch);
    for id in stopped {
        assert_eq!(
            stories[&id].finish.as_ref().unwrap().reason,
            FinishReason::Cancelled
        );
        assert!(stories[&id].tokens.is_empty());
    }
    let ids = [vec![BOS], bytes("other")].concat();
    assert_alone(&generator, &ids, &drawn(1), &stories[&other]);
}

#[test]
fn a_common_beginning_is_read_once() {
    let (generator, decoder) = generator(noisy());
    let mut batch = Batch::new(&generator, rows(4).with_prefill_chunk(50)).unwrap();
    let instruction = "Answer in the style of a pirate, always. ".repeat(5);
    let prompts = ["one", "two", "three", "four", "five"].map(|end| instruction.clone() + end);
    let ids: Vec<RequestId> = prompts
        .iter()
        .map(|prompt| {
            batch
                .submit(Request::text(prompt, greedy().with_max_new_tokens(3)))
                .unwrap()
        })
        .collect();
    let stories = run(&mut batch);
    let reused: usize = stories
        .values()
        .map(|story| story.finish.as_ref().unwrap().reused_tokens)
        .sum();
    let prompt_tokens: usize = prompts.iter().map(|prompt| prompt.len() + 1).sum();
    assert!(reused > 4 * instruction.len() - 50, "{reused}");
    let drawn: usize = stories.values().map(|story| story.tokens.len()).sum();
    assert_eq!(
        decoder.take_fed(),
        prompt_tokens - reused + drawn - prompts.len()
    );
    for (id, prompt) in ids.iter().zip(&prompts) {
        let ids = [vec![BOS], bytes(prompt)].concat();
        assert_alone(
            &generator,
            &ids,
            &greedy().with_max_new_tokens(3),
            &stories[id],
        );
    }
}

#[test]
fn a_conversation_that_comes_back_continues_from_its_row() {
    let (generator, _) = generator(noisy());
    let mut batch = Batch::new(&generator, rows(2)).unwrap();
    let options = greedy()
        .with_max_new_tokens(6)
        .with_end_tokens(EndTokens::Ignore);
    let mut text = [vec![BOS], bytes("What is the capital of Peru?")].concat();
    for turn in 0..3 {
        let id = batch
            .submit(Request::ids(text.clone(), options.clone()))
            .unwrap();
        // Others come and go between the turns.
        batch.submit(Request::text("x", options.clone())).unwrap();
        let story = run(&mut batch).remove(&id).unwrap();
        assert_alone(&generator, &text, &options, &story);
        let reused = story.finish.unwrap().reused_tokens;
        assert!(
            turn == 0 || reused == text.len() - 7,
            "turn {turn}: {reused} of {}",
            text.len()
        );
        text.extend(story.tokens);
        text.extend(bytes(" More?"));
    }
    batch.forget();
    let id = batch.submit(Request::ids(text, options)).unwrap();
    assert_eq!(
        run(&mut batch)[&id].finish.as_ref().unwrap().reused_tokens,
        0
    );
}

#[test]
fn a_text_that_cannot_go_on_fails_alone() {
    let poison = BYTES + u32::from(b'!');
    let (generator, _) = generator(MockDecoder::new(move |ids| match ids.contains(&poison) {
        true => vec![f32::NAN; VOCAB],
        false => one_hot(BYTES + 120),
    }));
    let mut batch = Batch::new(&generator, rows(3)).unwrap();
    let options = greedy().with_max_new_tokens(4);
    let ids = ["a", "b!", "c"].map(|p| batch.submit(Request::text(p, options.clone())).unwrap());
    let stories = run(&mut batch);
    assert!(matches!(stories[&ids[1]].error, Some(Error::Logits { .. })));
    assert_eq!(stories[&ids[0]].text, "xxxx");
    assert_eq!(stories[&ids[2]].text, "xxxx");
}

/// Fails every pass in which a sequence comes to contain `poison`, after recording it.
struct Fragile {
    inner: MockDecoder,
    poison: u32,
}

impl Decoder for Fragile {
    fn vocab_size(&self) -> usize {
        VOCAB
    }

    fn device(&self) -> &Device {
        &Device::Cpu
    }

    fn new_cache(&self, spec: CacheSpec) -> Cache {
        self.inner.new_cache(spec)
    }

    fn forward(
        &self,
        input: Input<'_>,
        step: &Step,
        cache: &mut Cache,
        want: Want,
    ) -> candle_core::Result<Tensor> {
        let output = self.inner.forward(input, step, cache, want)?;
        let is_poisoned = |row| cache.fed_ids(row).contains(&Some(self.poison));
        if step
            .segments()
            .iter()
            .any(|segment| is_poisoned(segment.row))
        {
            candle_core::bail!("out of memory");
        }
        Ok(output)
    }

    fn rewind(&self, cache: &mut Cache, row: usize, len: usize) -> candle_core::Result<()> {
        self.inner.rewind(cache, row, len)
    }
}

#[test]
fn a_failed_pass_ends_only_the_text_that_fails_by_itself() {
    let poison = BYTES + u32::from(b'!');
    let decoder = Fragile {
        inner: noisy(),
        poison,
    };
    let fragile = Generator::new(Arc::new(decoder), byte_tokenizer()).with_stop_ids(vec![IM_END]);
    let (sound, _) = generator(noisy());
    for chunk in [1, 4, 100] {
        let mut batch = Batch::new(&fragile, rows(3).with_prefill_chunk(chunk)).unwrap();
        let good = ["first", "second", "third"].map(|prompt| {
            (
                prompt,
                batch.submit(Request::text(prompt, drawn(5))).unwrap(),
            )
        });
        let bad = batch
            .submit(Request::text("a prompt with a bomb!", drawn(5)))
            .unwrap();
        let late = (
            "fourth",
            batch.submit(Request::text("fourth", drawn(5))).unwrap(),
        );
        let stories = run(&mut batch);
        let error = stories[&bad].error.as_ref().unwrap().to_string();
        assert!(error.starts_with("out of memory"), "{error}");
        assert!(stories[&bad].tokens.is_empty());
        for (prompt, id) in good.into_iter().chain([late]) {
            let ids = [vec![BOS], bytes(prompt)].concat();
            assert_alone(&sound, &ids, &drawn(5), &stories[&id]);
        }
    }
}

#[test]
fn complete_returns_every_outcome_in_order() {
    let poison = BYTES + u32::from(b'!');
    let decoder = Fragile {
        inner: noisy(),
        poison,
    };
    let fragile = Generator::new(Arc::new(decoder), byte_tokenizer());
    let mut batch = Batch::new(&fragile, rows(2)).unwrap();
    let options = drawn(3).with_max_new_tokens(7).with_logprobs(0);
    let ids = ["a", "b!", "c"].map(|p| batch.submit(Request::text(p, options.clone())).unwrap());
    let outcomes = batch.complete();
    assert_eq!(outcomes.iter().map(|(id, _)| *id).collect::<Vec<_>>(), ids);
    assert!(outcomes[1].1.is_err());
    let output = outcomes[2].1.as_ref().unwrap();
    let expected = fragile.generate("c", &options).unwrap().complete().unwrap();
    assert_eq!(
        (&output.text, &output.tokens),
        (&expected.text, &expected.tokens)
    );
}

#[test]
fn a_batch_can_move_to_the_thread_that_runs_it() {
    let (generator, _) = generator(noisy());
    let mut batch = Batch::new(&generator, rows(1)).unwrap();
    batch.submit(Request::text("a", greedy())).unwrap();
    let outcomes = std::thread::spawn(move || batch.complete()).join().unwrap();
    assert_eq!(outcomes.len(), 1);
}
