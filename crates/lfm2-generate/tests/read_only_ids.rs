//! Models that read more than text have ids behind the vocabulary: they are fed and never drawn.

mod common;

use std::sync::Arc;

use common::{BOS, IM_END, MockDecoder, VOCAB, byte_tokenizer, bytes, one_hot};
use lfm2_generate::{GenerationOptions, Generator, Pace, Speculation};
use lfm2_nn::{Cache, CacheSpec, Decoder, Device, Input, Step, Tensor, Want};

/// The first id behind the vocabulary.
const PICTURE: u32 = VOCAB as u32;

/// Reads ten ids more than it writes.
struct Reads(MockDecoder);

impl Decoder for Reads {
    fn vocab_size(&self) -> usize {
        VOCAB
    }

    fn accepts(&self, id: u32) -> bool {
        id < PICTURE + 10
    }

    fn device(&self) -> &Device {
        self.0.device()
    }

    fn new_cache(&self, spec: CacheSpec) -> Cache {
        self.0.new_cache(spec)
    }

    fn forward(
        &self,
        input: Input<'_>,
        step: &Step,
        cache: &mut Cache,
        want: Want,
    ) -> candle_core::Result<Tensor> {
        self.0.forward(input, step, cache, want)
    }

    fn rewind(&self, cache: &mut Cache, row: usize, len: usize) -> candle_core::Result<()> {
        self.0.rewind(cache, row, len)
    }
}

fn generator(decoder: MockDecoder) -> Generator {
    Generator::new(Arc::new(Reads(decoder)), byte_tokenizer()).with_stop_ids(vec![IM_END])
}

fn prompt(text: &str) -> Vec<u32> {
    [vec![BOS, PICTURE, PICTURE + 9], bytes(text)].concat()
}

#[test]
fn prompts_may_have_ids_that_the_model_accepts() {
    let prompt = prompt("what?");
    let generator = generator(MockDecoder::writes(prompt.clone(), bytes("a cat")));
    let options = GenerationOptions::greedy().with_repetition_penalty(1.5);
    let output = generator.generate_ids(prompt.clone(), &options);
    assert_eq!(output.unwrap().complete().unwrap().text, "a cat");

    let beyond = [prompt, vec![PICTURE + 10]].concat();
    let error = generator.generate_ids(beyond, &options).unwrap_err();
    assert!(
        error.to_string().contains("outside the vocabulary"),
        "{error}"
    );
}

#[test]
fn guesses_never_quote_them() {
    // The last two tokens were followed by a picture before.
    let prompt = [bytes("ab"), vec![PICTURE, PICTURE + 1], bytes("ab")].concat();
    let len = prompt.len();
    let decoder = MockDecoder::new(move |ids| {
        let written = &ids[len..];
        assert!(written.iter().all(|id| *id < PICTURE), "{written:?}");
        let answer = bytes("c ab c ab c");
        one_hot(answer.get(written.len()).copied().unwrap_or(IM_END))
    });
    let speculation = Speculation::lookup()
        .with_pace(Pace::Constant)
        .with_max_draft(4);
    let options = GenerationOptions::greedy().with_speculation(speculation);
    let generator = generator(decoder);
    let output = generator.generate_ids(prompt, &options).unwrap();
    assert_eq!(output.complete().unwrap().text, "c ab c ab c");
}
