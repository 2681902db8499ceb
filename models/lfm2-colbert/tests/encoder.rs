//! Laws of the encoder, on small random models of both generations.
#![allow(clippy::unwrap_used)] // also in the helpers of tests

mod support;

use lfm2_colbert::{
    ColbertModel, EncodeOptions, Expansion, RetrievalSettings, TokenVectors, cosine,
};
use lfm2_hub::gguf::Quantization;
use lfm2_nn::{Accuracy, FillerStates};
use lfm2_text::LoadOptions;
use proptest::prelude::*;
use support::{ATTENTION, CONV, Recipe, Sight, checkpoint, difference, open};

fn sight() -> impl Strategy<Value = Sight> {
    prop_oneof![Just(Sight::Back), Just(Sight::Both)]
}

/// Words, punctuation, empty texts, texts of one letter and of more tokens than are read.
fn texts() -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec("[ab ,.!x]{0,12}|[a-z ]{30,60}", 1..7)
}

fn same(alone: &TokenVectors, among: &TokenVectors) -> Result<(), TestCaseError> {
    prop_assert_eq!(alone.ids(), among.ids());
    prop_assert_eq!(alone.positions(), among.positions());
    let apart = difference(alone.as_slice(), among.as_slice());
    prop_assert!(apart <= 1e-5, "differs by {apart}");
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_text_has_the_same_vectors_alone_and_in_any_batch(
        sight in sight(), kernel in 2usize..6, texts in texts(), batch in 1usize..120,
        expansion in prop_oneof![Just(Expansion::Off), Just(Expansion::Hidden), Just(Expansion::Attended)],
        states in prop_oneof![Just(FillerStates::Flow), Just(FillerStates::Zero)],
    ) {
        let model = Recipe::new(sight, kernel).model();
        let settings = model.settings().clone().with_expansion(expansion).with_filler_states(states);
        let model = model.with_settings(settings).unwrap();
        let queries = model.encode_queries(&texts).unwrap();
        let documents = model.encode_documents(&texts).unwrap();
        let options = EncodeOptions::default().with_batch_tokens(batch);
        let streamed: Vec<TokenVectors> = model.stream(&texts, options).collect::<Result<_, _>>().unwrap();
        prop_assert_eq!(streamed.len(), texts.len());
        for (i, text) in texts.iter().enumerate() {
            same(&model.encode_query(text).unwrap(), &queries[i])?;
            let alone = model.encode_documents(std::slice::from_ref(text)).unwrap().remove(0);
            same(&alone, &documents[i])?;
            same(&alone, &streamed[i])?;
        }
    }

    #[test]
    fn vectors_have_the_length_one(sight in sight(), text in "[a-z ,]{0,30}") {
        let model = Recipe::new(sight, 3).model();
        for row in model.encode_query(&text).unwrap().iter() {
            let length = row.iter().map(|x| x * x).sum::<f32>().sqrt();
            prop_assert!((length - 1.0).abs() < 1e-5, "{length}");
        }
    }
}

#[test]
fn only_the_second_generation_sees_what_follows() {
    for (sight, sees) in [(Sight::Back, false), (Sight::Both, true)] {
        for layers in [&[CONV, CONV][..], &[ATTENTION, ATTENTION]] {
            let recipe = Recipe {
                layers,
                ..Recipe::new(sight, 3)
            };
            let model = recipe.model();
            let [short, long] = ["xy", "xyz"].map(|text| {
                let documents = model.encode_documents(&[text]).unwrap();
                documents[0].row(3).unwrap().to_vec()
            });
            assert_eq!(
                difference(&short, &long) > 1e-3,
                sees,
                "{sight:?} {layers:?}"
            );
        }
    }
}

#[test]
fn hidden_filler_changes_no_word_of_a_causal_model() {
    let model = Recipe::new(Sight::Back, 4).model();
    let with = |states| {
        let settings = model.settings().clone().with_filler_states(states);
        model.clone().with_settings(settings).unwrap()
    };
    let off = model.settings().clone().with_expansion(Expansion::Off);
    let bare = model
        .clone()
        .with_settings(off)
        .unwrap()
        .encode_query("ab c")
        .unwrap();
    let flow = with(FillerStates::Flow).encode_query("ab c").unwrap();
    let zero = with(FillerStates::Zero).encode_query("ab c").unwrap();
    let words = bare.as_slice().len();
    assert_eq!((flow.rows(), zero.rows()), (12, 12));
    for filled in [&flow, &zero] {
        assert!(difference(bare.as_slice(), &filled.as_slice()[..words]) < 1e-5);
    }
    assert!(difference(flow.as_slice(), zero.as_slice()) > 1e-3);
}

#[test]
fn hidden_filler_is_no_key_and_attended_filler_is_one() {
    // Attention alone: what filler is can only be seen by attending to it.
    let recipe = Recipe {
        layers: &[ATTENTION, ATTENTION],
        ..Recipe::new(Sight::Both, 3)
    };
    let model = recipe.model();
    let query = |expansion| {
        let settings = model.settings().clone().with_expansion(expansion);
        let model = model.clone().with_settings(settings).unwrap();
        model.encode_query("ab c").unwrap()
    };
    let bare = query(Expansion::Off);
    let hidden = query(Expansion::Hidden);
    let attended = query(Expansion::Attended);
    let words = bare.as_slice().len();
    assert!(difference(bare.as_slice(), &hidden.as_slice()[..words]) < 1e-5);
    assert!(difference(bare.as_slice(), &attended.as_slice()[..words]) > 1e-3);
}

#[test]
fn cb_01_no_texts_and_texts_without_vectors() {
    let model = Recipe::new(Sight::Both, 3).model();
    assert!(model.encode_queries::<&str>(&[]).unwrap().is_empty());
    assert!(model.encode_documents::<&str>(&[]).unwrap().is_empty());
    assert_eq!(
        model
            .stream(Vec::<String>::new(), EncodeOptions::default())
            .count(),
        0
    );
    let everything = ["<s>", "[D] ", "!"].map(str::to_owned).to_vec();
    let settings = model.settings().clone().with_skiplist_words(everything);
    let model = model.with_settings(settings).unwrap();
    let vectors = model.encode_documents(&["!!", "", "a!"]).unwrap();
    assert_eq!(
        vectors.iter().map(TokenVectors::rows).collect::<Vec<_>>(),
        [0, 0, 1]
    );
    assert_eq!(vectors[0].dim(), 16);
}

#[test]
fn cb_01_long_texts_are_cut_and_say_so() {
    let model = Recipe::new(Sight::Both, 3).model();
    let vectors = model
        .encode_documents(&["x".repeat(500).as_str(), "x"])
        .unwrap();
    assert_eq!((vectors[0].rows(), vectors[0].is_cut()), (40, true));
    assert_eq!((vectors[1].rows(), vectors[1].is_cut()), (3, false));
    assert!(model.encode_query(&"x".repeat(500)).unwrap().is_cut());
}

#[test]
fn a_text_that_cannot_be_read_fails_alone() {
    let model = Recipe::new(Sight::Both, 3).model();
    let huge = "a".repeat(2 << 20);
    let texts = ["one", "two", huge.as_str(), "three", "four"];
    for batch in [1, 12, 1000] {
        let options = EncodeOptions::default().with_batch_tokens(batch);
        let results: Vec<_> = model.stream(texts, options).collect();
        let good: Vec<bool> = results.iter().map(Result::is_ok).collect();
        assert_eq!(good, [true, true, false, true, true], "batches of {batch}");
        let alone = model.encode_documents(&["three"]).unwrap().remove(0);
        let third = results[3].as_ref().unwrap();
        assert!(difference(alone.as_slice(), third.as_slice()) < 1e-5);
    }
    assert!(model.encode_documents(&texts).is_err());
}

#[test]
fn a_stream_reads_no_further_than_a_batch() {
    let model = Recipe::new(Sight::Back, 3).model();
    let read = std::cell::Cell::new(0);
    let texts = std::iter::repeat_with(|| {
        read.set(read.get() + 1);
        "abc def"
    });
    let options = EncodeOptions::default().with_batch_tokens(50);
    let mut stream = model.stream(texts, options);
    assert!(stream.next().unwrap().is_ok());
    // Eight tokens each: six texts fit, and one more was read to know that.
    assert_eq!(read.get(), 7);
}

fn mean_cosine(a: &[TokenVectors], b: &[TokenVectors]) -> f32 {
    let rows = a.iter().flat_map(TokenVectors::iter);
    let cosines: Vec<f32> = rows
        .zip(b.iter().flat_map(TokenVectors::iter))
        .map(|(a, b)| cosine(a, b))
        .collect();
    cosines.iter().sum::<f32>() / cosines.len() as f32
}

#[test]
fn quantised_trunks_stay_near_and_keep_the_models_id() {
    const TEXTS: [&str; 3] = ["a text of some words", "another, shorter", "x"];
    for sight in [Sight::Back, Sight::Both] {
        let files = Recipe::new(sight, 3).files();
        let exact = open(files.clone()).unwrap();
        let expected = exact.encode_documents(&TEXTS).unwrap();
        for (kind, least) in [(Quantization::Q8_0, 0.998), (Quantization::Q4_0, 0.9)] {
            let options = LoadOptions::default().with_quantize(kind);
            let checkpoint = checkpoint(files.clone());
            let model = ColbertModel::from_checkpoint(&checkpoint, &options).unwrap();
            assert_eq!(model.id(), exact.id());
            let found = model.encode_documents(&TEXTS).unwrap();
            let cosine = mean_cosine(&found, &expected);
            assert!(cosine > least, "{sight:?} {kind}: {cosine}");
            for (text, among) in TEXTS.iter().zip(&found) {
                let alone = model.encode_documents(&[text]).unwrap();
                assert!(mean_cosine(&alone, std::slice::from_ref(among)) > 0.9999);
            }
        }
    }
}

#[test]
fn half_precision_is_near() {
    let files = Recipe::new(Sight::Both, 3).files();
    let exact = open(files.clone())
        .unwrap()
        .encode_documents(&["some words"])
        .unwrap();
    let options = LoadOptions::default()
        .with_dtype(lfm2_nn::DType::BF16)
        .with_accuracy(Accuracy::Exact);
    let model = ColbertModel::from_checkpoint(&checkpoint(files), &options).unwrap();
    let found = model.encode_documents(&["some words"]).unwrap();
    assert!(mean_cosine(&found, &exact) > 0.995);
}

#[test]
fn ids_tell_models_apart_and_copies_not() {
    let id = |recipe: &Recipe| recipe.model().id().clone();
    let recipe = Recipe::new(Sight::Both, 3);
    let other = Recipe { seed: 2, ..recipe };
    assert_eq!(id(&recipe), id(&recipe));
    assert_eq!(id(&recipe).as_str().len(), 64);
    assert_ne!(id(&recipe), id(&other));
    assert_ne!(id(&recipe), id(&Recipe::new(Sight::Back, 3)));
    let changed = RetrievalSettings::default().with_query_length(9);
    let model = recipe.model().with_settings(changed).unwrap();
    assert_eq!(*model.id(), id(&recipe));
}
