//! Guessing ahead changes nothing but the number of passes: decoders without weights.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

mod common;

use std::sync::Arc;

use common::{BYTES, IM_END, MockDecoder, VOCAB, byte_tokenizer, bytes, generator, one_hot};
use lfm2_generate::{
    Cancel, Chat, ChatTemplate, DraftChoice, EndTokens, Error, FinishReason, GenerationOptions,
    Generator, Output, Pace, Speculation,
};
use lfm2_hub::{ErrorKind, Tokenizer};
use lfm2_nn::{Cache, CacheSpec, Decoder, Device, Input, Step, Tensor, Want};
use proptest::prelude::*;

fn lookup(max_draft: usize) -> Speculation {
    let lookup = Speculation::lookup().with_pace(Pace::Constant);
    lookup.with_max_draft(max_draft)
}

fn drafted(max_draft: usize) -> Speculation {
    let draft = Speculation::draft_model().with_pace(Pace::Constant);
    draft.with_max_draft(max_draft)
}

fn sampled(max_draft: usize) -> Speculation {
    Speculation::DraftModel {
        max_draft,
        pace: Pace::Constant,
        choice: DraftChoice::Sampled,
    }
}

/// Chooses among few letters by the last two tokens, so that texts repeat now and then.
fn babble(seed: u64) -> impl Fn(&[u32]) -> Vec<f32> + Send + Sync + 'static {
    move |ids| {
        let end = &ids[ids.len().saturating_sub(2)..];
        let hash = end.iter().fold(seed ^ 0xcbf2_9ce4_8422_2325, |h, id| {
            (h ^ u64::from(*id)).wrapping_mul(0x0100_0000_01b3)
        });
        let mut logits = vec![f32::NEG_INFINITY; VOCAB];
        for (i, letter) in b"abcd\n".iter().enumerate() {
            let bits = (hash >> (8 * i + 8)) & 0xff;
            logits[BYTES as usize + usize::from(*letter)] = bits as f32 / 60.0;
        }
        logits[IM_END as usize] = 1.0;
        logits
    }
}

/// A decoder with another one to guess for it.
fn with_draft(model: MockDecoder, draft: MockDecoder) -> (Generator, Arc<MockDecoder>) {
    let (generator, _) = generator(model);
    let draft = Arc::new(draft);
    let generator = generator.with_draft(draft.clone(), Some(&byte_tokenizer()));
    (generator.unwrap(), draft)
}

fn complete(generator: &Generator, prompt: &[u32], options: &GenerationOptions) -> Output {
    let generation = generator.generate_ids(prompt.to_vec(), options);
    generation.unwrap().complete().unwrap()
}

#[test]
fn an_answer_that_quotes_takes_fewer_passes() {
    let prompt = bytes("Say it again: the quick brown fox jumps over the lazy dog. ");
    let answer = bytes("the quick brown fox jumps over the lazy dog");
    let (generator, decoder) = generator(MockDecoder::writes(prompt.clone(), answer));
    let plain = complete(&generator, &prompt, &GenerationOptions::greedy());
    let passes = decoder.fed.lock().unwrap().len();
    assert_eq!((plain.finish.drafted_tokens, passes), (0, 44));
    decoder.take_fed();

    let options = GenerationOptions::greedy().with_speculation(lookup(8));
    let quick = complete(&generator, &prompt, &options);
    let passes = decoder.fed.lock().unwrap().len();
    assert_eq!((quick.text, quick.tokens), (plain.text, plain.tokens));
    assert_eq!(quick.finish.reason, plain.finish.reason);
    assert!(passes < 14, "{passes} passes");
    assert!(quick.finish.accepted_tokens > 30);
    assert!(quick.finish.accepted_tokens <= quick.finish.drafted_tokens);
}

#[test]
fn a_perfect_draft_is_taken_whole() {
    let (generator, draft) = with_draft(MockDecoder::chaotic(), MockDecoder::chaotic());
    let greedy = GenerationOptions::greedy().with_end_tokens(EndTokens::Ignore);
    let options = greedy.with_max_new_tokens(41).with_speculation(drafted(4));
    let output = complete(&generator, &bytes("Once upon a time"), &options);
    // One token from the prompt, then eight passes of four guesses and one token more.
    assert_eq!(output.finish.drafted_tokens, 32);
    assert_eq!(output.finish.accepted_tokens, 32);
    // Every token is read once by the draft model; of the last pass, only the guesses but one.
    assert_eq!(draft.take_fed(), 16 + 36 + 3);
}

#[test]
fn guesses_never_go_past_the_last_token() {
    let (generator, _) = with_draft(MockDecoder::chaotic(), MockDecoder::chaotic());
    for tokens in 1..12 {
        let greedy = GenerationOptions::greedy().with_end_tokens(EndTokens::Ignore);
        let options = greedy
            .with_max_new_tokens(tokens)
            .with_speculation(drafted(4));
        let finish = complete(&generator, &bytes("Once"), &options).finish;
        assert_eq!(finish.generated_tokens, tokens);
        // The draft model is always right, so a guess without use would be one past the end.
        assert_eq!(finish.accepted_tokens, finish.drafted_tokens);
    }
    // The context counts like the number of tokens asked for.
    let generator = generator.with_context(7);
    let greedy = GenerationOptions::greedy().with_end_tokens(EndTokens::Ignore);
    let output = complete(
        &generator,
        &bytes("Once"),
        &greedy.with_speculation(drafted(8)),
    );
    assert_eq!(output.finish.generated_tokens, 3);
    assert_eq!(output.finish.reason, FinishReason::Length);
}

/// Settings of every kind that decide on a token or on the end of the text.
fn any_options() -> impl Strategy<Value = GenerationOptions> {
    let sampling = (
        prop_oneof![Just(0.0f32), 0.3f32..1.5],
        prop_oneof![Just(0usize), 2usize..4],
        prop_oneof![Just(1.0f32), 0.5f32..0.95],
        prop_oneof![Just(0.0f32), 0.05f32..0.3],
    );
    let penalties = (
        prop_oneof![Just(1.0f32), 1.02f32..1.4],
        prop_oneof![Just(0.0f32), -0.5f32..0.5],
        prop_oneof![Just(0.0f32), -0.1f32..0.1],
    );
    let rules = (
        any::<u64>(),
        1usize..60,
        prop::option::of("[abcd]{1,4}"),
        prop::option::of(0usize..3),
        any::<bool>(),
    );
    (sampling, penalties, rules).prop_map(|(sampling, penalties, rules)| {
        let (temperature, top_k, top_p, min_p) = sampling;
        let (repetition, presence, frequency) = penalties;
        let (seed, tokens, stop, logprobs, ignore_end) = rules;
        let mut options = GenerationOptions::neutral()
            .with_temperature(temperature)
            .with_top_k(top_k)
            .with_top_p(top_p)
            .with_min_p(min_p)
            .with_repetition_penalty(repetition)
            .with_presence_penalty(presence)
            .with_frequency_penalty(frequency)
            .with_seed(seed)
            .with_max_new_tokens(tokens);
        options.stop.extend(stop);
        options.logprobs = logprobs;
        if ignore_end {
            options.end_tokens = EndTokens::Ignore;
        }
        options
    })
}

/// Pieces, and the end, of a generation that is dropped after `stop_after` of them; and what is then
/// in the cache.
fn observed(
    generator: &Generator,
    options: &GenerationOptions,
    stop_after: usize,
) -> (
    Vec<lfm2_generate::Piece>,
    Option<FinishReason>,
    Vec<Option<u32>>,
) {
    let mut cache = generator.decoder().new_cache(CacheSpec::rows(2));
    let mut generation = generator
        .generate_in(&mut cache, 1, bytes("abcabd abc"), options)
        .unwrap();
    let pieces = generation.by_ref().take(stop_after);
    let pieces: Vec<_> = pieces.map(Result::unwrap).collect();
    let reason = generation.finish().map(|finish| finish.reason.clone());
    drop(generation);
    (pieces, reason, cache.fed_ids(1))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn guesses_change_nothing(
        options in any_options(),
        model in any::<u64>(),
        another: bool,
        max_draft in 1usize..10,
        stop_after in prop_oneof![Just(usize::MAX), 0usize..30],
    ) {
        let draft = if another { model ^ 1 } else { model };
        let (generator, _) = with_draft(MockDecoder::new(babble(model)), MockDecoder::new(babble(draft)));
        let plain = observed(&generator, &options, stop_after);
        let adaptive = Speculation::lookup().with_max_draft(max_draft);
        for speculation in [lookup(max_draft), drafted(max_draft), adaptive] {
            let options = options.clone().with_speculation(speculation);
            prop_assert_eq!(&observed(&generator, &options, stop_after), &plain, "{:?}", speculation);
        }
    }
}

#[test]
fn a_cancelled_text_ends_between_guesses() {
    let prompt = bytes("abcdefgh abcdefgh ");
    let (generator, _) = generator(MockDecoder::writes(prompt.clone(), bytes("abcdefgh")));
    let options = GenerationOptions::greedy().with_speculation(lookup(8));
    let mut cache = generator.decoder().new_cache(CacheSpec::rows(1));
    let cancel = Cancel::new();
    let generation = generator.generate_in(&mut cache, 0, prompt, &options);
    let mut generation = generation.unwrap().with_cancel(&cancel);
    let text: String = generation
        .by_ref()
        .take(3)
        .map(|p| p.unwrap().text)
        .collect();
    assert_eq!(text, "abc");
    cancel.cancel();
    assert!(generation.next().is_none());
    assert_eq!(generation.finish().unwrap().reason, FinishReason::Cancelled);
    assert_eq!(generation.finish().unwrap().generated_tokens, 3);
    drop(generation);
    // As without guesses: everything but the token drawn last.
    assert_eq!(cache.len(0), 18 + 2);
}

/// A decoder that is special in one way.
struct Special {
    decoder: MockDecoder,
    vocab: usize,
    on_pass: Box<dyn Fn() + Send + Sync>,
}

impl Decoder for Special {
    fn vocab_size(&self) -> usize {
        self.vocab
    }

    fn device(&self) -> &Device {
        self.decoder.device()
    }

    fn new_cache(&self, spec: CacheSpec) -> Cache {
        self.decoder.new_cache(spec)
    }

    fn forward(
        &self,
        input: Input<'_>,
        step: &Step,
        cache: &mut Cache,
        want: Want,
    ) -> candle_core::Result<Tensor> {
        (self.on_pass)();
        self.decoder.forward(input, step, cache, want)
    }

    fn rewind(&self, cache: &mut Cache, row: usize, len: usize) -> candle_core::Result<()> {
        self.decoder.rewind(cache, row, len)
    }
}

#[test]
fn a_cancel_is_seen_while_the_draft_model_reads() {
    let cancel = Cancel::new();
    let switch = cancel.clone();
    let draft = Arc::new(Special {
        decoder: MockDecoder::chaotic(),
        vocab: VOCAB,
        on_pass: Box::new(move || switch.cancel()),
    });
    let (generator, _) = generator(MockDecoder::new(|_| one_hot(BYTES)));
    let generator = generator.with_draft(draft.clone(), None).unwrap();
    let options = GenerationOptions::greedy().with_speculation(drafted(4));
    let generation = generator.generate_ids(vec![BYTES; 3_000], &options);
    let mut generation = generation.unwrap().with_cancel(&cancel);
    assert!(generation.next().is_some());
    assert!(generation.next().is_none());
    assert_eq!(generation.finish().unwrap().reason, FinishReason::Cancelled);
    assert!(draft.decoder.take_fed() < 1_000);
}

#[test]
fn a_model_that_fails_in_the_midst_of_guesses_leaves_an_empty_row() {
    let prompt = bytes("abcabcabc");
    let (generator, _) = generator(MockDecoder::new(|ids| match ids.len() {
        12.. => vec![f32::NAN; VOCAB],
        _ => one_hot(ids[ids.len() - 3]),
    }));
    let mut cache = generator.decoder().new_cache(CacheSpec::rows(1));
    let options = GenerationOptions::greedy().with_speculation(lookup(8));
    let mut generation = generator
        .generate_in(&mut cache, 0, prompt, &options)
        .unwrap();
    for _ in 0..3 {
        assert!(generation.next().unwrap().is_ok());
    }
    assert!(matches!(generation.next(), Some(Err(Error::Logits { .. }))));
    assert!(generation.next().is_none());
    drop(generation);
    assert!(cache.is_empty());
}

#[test]
fn a_draft_model_that_fails_is_an_error() {
    let draft = MockDecoder::new(|_| vec![f32::NAN; VOCAB]);
    let (generator, _) = with_draft(MockDecoder::chaotic(), draft);
    let options = GenerationOptions::greedy().with_speculation(drafted(4));
    let error = generator.generate("Once", &options).unwrap().complete();
    assert!(matches!(error, Err(Error::Logits { .. })));
}

#[test]
fn a_conversation_keeps_what_the_draft_model_read() {
    const CHATML: &str = "{{ bos_token }}{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content + \
        '<|im_end|>\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";
    let (generator, draft) = with_draft(MockDecoder::chaotic(), MockDecoder::chaotic());
    let options = GenerationOptions::greedy().with_speculation(drafted(4));
    let template = ChatTemplate::new(CHATML).unwrap();
    let mut chat = Chat::new(generator, template).with_options(options);
    let mut before = 0;
    for question in ["Hello", "What is new?", "And then?"] {
        let finish = chat.send(question).unwrap().complete().unwrap().finish;
        assert!(finish.accepted_tokens > 0, "{question}");
        let total = finish.prompt_tokens + finish.generated_tokens;
        let read = draft.take_fed();
        // What guesses beyond the end of an answer cost, and no more.
        assert!(
            read <= total - before + 2 * 4,
            "{question}: {read} of {total}"
        );
        before = total;
    }
    chat.clear();
    assert_eq!(chat.cached_tokens(), 0);
}

/// A text of `LEN` tokens, as a number.
const LEN: usize = 4;
const LETTERS: [u32; 3] = [20, 21, 22];
const CELLS: usize = LETTERS.len().pow(LEN as u32);

/// Logits that depend on the last token, for three letters.
fn letters(seed: u64) -> impl Fn(&[u32]) -> Vec<f32> + Send + Sync + 'static {
    move |ids| {
        let last = u64::from(*ids.last().unwrap());
        let mut logits = vec![f32::NEG_INFINITY; VOCAB];
        for id in LETTERS {
            let hash = (seed + 31 * last + 7 * u64::from(id)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            logits[id as usize] = (hash >> 40) as f32 / (1 << 24) as f32 * 2.5;
        }
        logits
    }
}

/// The chance of every text, from the definition of the options.
fn chances(
    options: &GenerationOptions,
    model: &dyn Fn(&[u32]) -> Vec<f32>,
    start: u32,
) -> Vec<f64> {
    let mut chances = vec![0.0; CELLS];
    for (cell, chance) in chances.iter_mut().enumerate() {
        let mut text = vec![start];
        *chance = 1.0;
        for at in 0..LEN {
            let choice = cell / LETTERS.len().pow(at as u32) % LETTERS.len();
            let logits = model(&text);
            let penalised = LETTERS.map(|id| {
                let count = text[1..].iter().filter(|seen| **seen == id).count() as f32;
                let presence = options.presence_penalty * count.min(1.0);
                let logit = logits[id as usize] - presence - options.frequency_penalty * count;
                f64::from(logit / options.temperature)
            });
            let weights = penalised.map(f64::exp);
            let largest = weights.iter().copied().fold(0.0, f64::max);
            let kept = weights.map(|w| {
                if w >= f64::from(options.min_p) * largest {
                    w
                } else {
                    0.0
                }
            });
            *chance *= kept[choice] / kept.iter().sum::<f64>();
            text.push(LETTERS[choice]);
        }
    }
    chances
}

/// Pearson's statistic over the cells with enough texts, and what chance exceeds once in a thousand
/// times (Wilson and Hilferty).
fn chi_square(counts: &[usize], chances: &[f64]) -> (f64, f64) {
    let texts = counts.iter().sum::<usize>() as f64;
    let (mut statistic, mut cells, mut rest) = (0.0, 0.0, (0.0, 0.0));
    for (count, chance) in counts.iter().zip(chances) {
        let (found, expected) = (*count as f64, texts * chance);
        assert!(expected > 0.0 || found == 0.0, "an impossible text");
        if expected < 5.0 {
            rest = (rest.0 + found, rest.1 + expected);
            continue;
        }
        statistic += (found - expected).powi(2) / expected;
        cells += 1.0;
    }
    if rest.1 >= 5.0 {
        statistic += (rest.0 - rest.1).powi(2) / rest.1;
        cells += 1.0;
    }
    let freedom: f64 = cells - 1.0;
    let part = 2.0 / (9.0 * freedom);
    (
        statistic,
        freedom * (1.0 - part + 3.09 * part.sqrt()).powi(3),
    )
}

/// How often every text was written, and how many guesses were made and right.
fn count(
    generator: &Generator,
    options: &GenerationOptions,
    start: u32,
) -> (Vec<usize>, usize, usize) {
    let (mut counts, mut drafted, mut accepted) = (vec![0; CELLS], 0, 0);
    for seed in 0..6_000 {
        let options = options.clone().with_seed(seed).with_max_new_tokens(LEN);
        let output = complete(generator, &[start], &options);
        let choice = |id| LETTERS.iter().position(|letter| *letter == id).unwrap();
        let digits = output.tokens.iter().rev().map(|token| choice(token.id));
        counts[digits.fold(0, |cell, digit| cell * LETTERS.len() + digit)] += 1;
        drafted += output.finish.drafted_tokens;
        accepted += output.finish.accepted_tokens;
    }
    (counts, drafted, accepted)
}

#[test]
fn drawn_guesses_keep_the_distribution() {
    let (generator, _) = with_draft(MockDecoder::new(letters(1)), MockDecoder::new(letters(2)));
    let neutral = GenerationOptions::neutral();
    let penalised = neutral
        .clone()
        .with_temperature(0.8)
        .with_presence_penalty(0.6)
        .with_frequency_penalty(0.4);
    let cut = neutral.clone().with_temperature(1.3).with_min_p(0.4);
    for (options, max_draft) in [(neutral, 1), (penalised, 3), (cut, 2)] {
        let expected = chances(&options, &letters(1), 20);
        let options = options.with_speculation(sampled(max_draft));
        let (counts, drafted, accepted) = count(&generator, &options, 20);
        let (found, limit) = chi_square(&counts, &expected);
        assert!(found < limit, "{options:?}: {found} over {limit}");
        let share = accepted as f64 / drafted as f64;
        assert!(
            (0.1..0.95).contains(&share),
            "{share} of the guesses were right"
        );
        // The test can tell: the draft model's own texts are others.
        let draft = chances(&options, &letters(2), 20);
        let possible: Vec<f64> = draft.iter().map(|chance| chance.max(1e-3)).collect();
        let (found, limit) = chi_square(&counts, &possible);
        assert!(found > 2.0 * limit, "{found} not far over {limit}");
    }
}

/// As often as two distributions allow: the sum of what they have in common.
#[test]
fn drawn_guesses_are_right_as_often_as_can_be() {
    let (generator, _) = with_draft(MockDecoder::new(letters(1)), MockDecoder::new(letters(2)));
    let options = GenerationOptions::neutral().with_max_new_tokens(2);
    let softmax = |logits: Vec<f32>| {
        let weights = LETTERS.map(|id| f64::from(logits[id as usize]).exp());
        weights.map(|w| w / weights.iter().sum::<f64>())
    };
    let overlap = |last: u32| {
        let (p, q) = (softmax(letters(1)(&[last])), softmax(letters(2)(&[last])));
        p.iter().zip(q).map(|(p, q)| p.min(q)).sum::<f64>()
    };
    let first = softmax(letters(1)(&[20]));
    let expected: f64 = (0..3).map(|i| first[i] * overlap(LETTERS[i])).sum();
    let (mut drafted, mut accepted) = (0, 0);
    for seed in 0..4_000 {
        // Room for three tokens, of which the second is guessed.
        let options = options.clone().with_seed(seed).with_max_new_tokens(3);
        let options = options.with_speculation(sampled(1));
        let mut generation = generator.generate_ids(vec![20], &options).unwrap();
        generation
            .by_ref()
            .take(2)
            .for_each(|piece| drop(piece.unwrap()));
        let finish = generation.complete().unwrap().finish;
        drafted += finish.drafted_tokens.min(1);
        accepted += finish.accepted_tokens;
    }
    let share = accepted as f64 / drafted as f64;
    assert!(
        (share - expected).abs() < 0.03,
        "{share}, expected {expected}"
    );
}

#[test]
fn a_draft_model_needs_the_same_vocabulary() {
    let (generator, _) = generator(MockDecoder::chaotic());
    let draft = Arc::new(Special {
        decoder: MockDecoder::chaotic(),
        vocab: VOCAB - 1,
        on_pass: Box::new(|| ()),
    });
    let error = generator.clone().with_draft(draft, None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains("272"), "{error}");

    let json = byte_tokenizer().to_json().unwrap();
    let other = json.replace("<|fim_pre|>", "<|fim_new|>");
    let other = Tokenizer::from_bytes(other, &Default::default()).unwrap();
    let draft = Arc::new(MockDecoder::chaotic());
    let error = generator.with_draft(draft, Some(&other)).unwrap_err();
    assert!(error.to_string().contains("token 3"), "{error}");
}

#[test]
fn settings_without_a_meaning_are_refused() {
    let (generator, _) = generator(MockDecoder::chaotic());
    for speculation in [lookup(0), lookup(33), drafted(0), drafted(4)] {
        let options = GenerationOptions::greedy().with_speculation(speculation);
        let error = generator.generate("Once", &options).unwrap_err();
        assert!(
            matches!(
                &error,
                Error::InvalidOption {
                    option: "speculation",
                    ..
                }
            ),
            "{speculation:?}: {error}"
        );
    }
    assert_eq!(Speculation::Off.with_max_draft(0), Speculation::Off);
}

#[test]
fn options_can_be_written_and_read() {
    let json = |speculation: Speculation| serde_json::to_value(speculation).unwrap();
    assert_eq!(json(Speculation::Off), serde_json::json!({"kind": "off"}));
    for speculation in [Speculation::Off, lookup(3), drafted(5), sampled(2)] {
        let read: Speculation = serde_json::from_value(json(speculation)).unwrap();
        assert_eq!(read, speculation);
    }
    let short = r#"{"speculation": {"kind": "prompt_lookup"}, "temperature": 0}"#;
    let options: GenerationOptions = serde_json::from_str(short).unwrap();
    assert_eq!(options.speculation, Speculation::lookup());
    let old: GenerationOptions = serde_json::from_str("{}").unwrap();
    assert_eq!(old.speculation, Speculation::Off);
}
