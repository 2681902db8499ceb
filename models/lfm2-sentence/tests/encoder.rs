//! Sentences through LFM2 models: the same vectors by another way, alone and among others.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use lfm2_colbert::ColbertModel;
use lfm2_hub::{Bos, Checkpoint, ErrorKind, OpenOptions, SpecialTokens};
use lfm2_nn::{Accuracy, Cache, Decoder, Input, Step, Tensor, Want};
use lfm2_sentence::{EmbeddingCache, EncodeOptions, EncoderKind, Frame, SentenceEncoder, Site};
use lfm2_text::{LoadOptions, TextModel};

const TEXTS: [&str; 4] = [
    "The cat sleeps.",
    "A dog did not find the ball!",
    "Rain, and wind.",
    "x",
];

fn checkpoint(folder: &str) -> Result<Checkpoint> {
    let folder: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .join(folder);
    Ok(Checkpoint::open(&folder.into(), &OpenOptions::default())?)
}

fn text() -> Result<Checkpoint> {
    checkpoint("lfm2-tiny-stories")
}

fn colbert() -> Result<Checkpoint> {
    checkpoint("lfm2-tiny-colbert")
}

/// Activations that are rounded to bf16 differ in the eighth bit where sums differ in the last.
fn exact() -> LoadOptions {
    LoadOptions::default().with_accuracy(Accuracy::Exact)
}

fn encoder(checkpoint: &Checkpoint) -> Result<SentenceEncoder> {
    Ok(SentenceEncoder::from_checkpoint(checkpoint, &exact())?)
}

fn go(_: usize) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn encode(
    encoder: &SentenceEncoder,
    texts: &[&str],
    site: Site,
    options: &EncodeOptions,
) -> Result<Vec<f32>> {
    let mut found = encoder.encode(texts, &[site], options, &mut go)?.vectors;
    Ok(found.pop().context("no vectors")?.values)
}

#[track_caller]
fn assert_close(found: &[f32], expected: &[f32], by: f32) {
    assert_eq!(found.len(), expected.len());
    let off = found
        .iter()
        .zip(expected)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f32::max);
    assert!(off <= by, "off by {off}");
}

/// The mean of the rows of `(rows, dims)` from `first` on.
fn mean(matrix: &Tensor, first: usize) -> Result<Vec<f32>> {
    let rows = matrix.narrow(0, first, matrix.dim(0)? - first)?;
    Ok(rows.mean(0)?.to_vec1()?)
}

#[test]
fn the_end_of_a_text_model_is_the_mean_of_its_hidden_states() -> Result<()> {
    let checkpoint = text()?;
    let model = TextModel::from_checkpoint(&checkpoint, &exact())?;
    let encoder = encoder(&checkpoint)?;
    assert_eq!(encoder.kind(), EncoderKind::Text);
    let ids = checkpoint
        .tokenizer()?
        .encode(TEXTS[0], SpecialTokens::Literal, Bos::Add)?;
    let input = Tensor::new(ids.as_slice(), model.device())?;
    let mut cache = Cache::stateless(1);
    let states = model.forward(
        Input::Ids(&input),
        &Step::single(ids.len()),
        &mut cache,
        Want::Hidden,
    )?;
    for (frame, first) in [(Frame::In, 0), (Frame::Out, 1)] {
        let options = EncodeOptions::default().with_frame(frame);
        let found = encode(&encoder, &TEXTS[..1], Site::Final, &options)?;
        assert_close(&found, &mean(&states, first)?, 1e-5);
    }
    let embedded = model.embed_tokens(&input)?;
    let found = encode(
        &encoder,
        &TEXTS[..1],
        Site::Layer(0),
        &EncodeOptions::default(),
    )?;
    assert_close(&found, &mean(&embedded, 0)?, 1e-6);
    Ok(())
}

#[test]
fn the_end_of_a_retrieval_model_is_the_mean_of_the_vectors_it_keeps() -> Result<()> {
    let checkpoint = colbert()?;
    let model = ColbertModel::from_checkpoint(&checkpoint, &exact())?;
    let encoder = encoder(&checkpoint)?;
    assert_eq!(encoder.kind(), EncoderKind::LateInteraction);
    assert!(encoder.colbert().is_some());
    let vectors = model.encode_documents(&TEXTS[..3])?;
    let found = encode(
        &encoder,
        &TEXTS[..3],
        Site::Final,
        &EncodeOptions::default(),
    )?;
    for (vectors, found) in vectors.iter().zip(found.chunks_exact(model.dim())) {
        let all = Tensor::from_slice(
            vectors.as_slice(),
            (vectors.rows(), vectors.dim()),
            &lfm2_nn::Device::Cpu,
        )?;
        assert_close(found, &mean(&all, 0)?, 1e-5);
    }
    Ok(())
}

#[test]
fn sentences_have_the_same_vectors_alone_and_among_others() -> Result<()> {
    for checkpoint in [text()?, colbert()?] {
        let encoder = encoder(&checkpoint)?;
        let mut small = EncodeOptions::default();
        small.batch_tokens = 8;
        for site in [Site::Layer(0), Site::Layer(encoder.layers()), Site::Final] {
            let together = encode(&encoder, &TEXTS, site, &EncodeOptions::default())?;
            let in_parts = encode(&encoder, &TEXTS, site, &small)?;
            let alone: Vec<f32> = TEXTS
                .iter()
                .map(|text| encode(&encoder, &[text], site, &EncodeOptions::default()))
                .collect::<Result<Vec<_>>>()?
                .concat();
            assert_close(&together, &alone, 2e-4);
            assert_close(&in_parts, &alone, 2e-4);
        }
    }
    Ok(())
}

#[test]
fn kept_vectors_are_found_again_and_depend_on_the_model() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let options = EncodeOptions::default().with_cache(EmbeddingCache::new(folder.path()));
    let encoder = encoder(&text()?)?;
    let sites = [Site::Final, Site::Layer(1)];
    let first = encoder.encode(&TEXTS, &sites, &options, &mut go)?;
    assert_eq!(first.kept, 0);
    let mut calls = 0;
    let again = encoder.encode(
        &TEXTS,
        &[Site::Layer(1), Site::Layer(0), Site::Final],
        &options,
        &mut |_| {
            calls += 1;
            ControlFlow::Continue(())
        },
    )?;
    assert_eq!((again.kept, calls), (2, 1));
    assert_eq!(again.vectors[0], first.vectors[1]);
    assert_eq!(again.vectors[2], first.vectors[0]);
    assert_eq!(again.vectors[1].site, Site::Layer(0));
    let other = self::encoder(&colbert()?)?;
    assert_ne!(other.id(), encoder.id());
    assert_eq!(
        other
            .encode(&TEXTS, &[Site::Final], &options, &mut go)?
            .kept,
        0
    );
    let mut half = LoadOptions::default();
    half.dtype = Some(lfm2_nn::DType::BF16);
    let half = SentenceEncoder::from_checkpoint(&text()?, &half)?;
    assert_ne!(half.id(), encoder.id(), "other numbers give other vectors");
    Ok(())
}

#[test]
fn what_cannot_be_encoded_is_told() -> Result<()> {
    let encoder = encoder(&text()?)?;
    let layers = encoder.layers();
    let error = encode(
        &encoder,
        &TEXTS,
        Site::Layer(layers + 1),
        &EncodeOptions::default(),
    );
    assert!(
        error
            .unwrap_err()
            .to_string()
            .contains(&format!("{layers} layers"))
    );
    let out = EncodeOptions::default().with_frame(Frame::Out);
    let error = encode(&encoder, &["fine", ""], Site::Final, &out).unwrap_err();
    assert!(error.to_string().contains("\"\""), "{error}");
    let stop = encoder.encode(
        &TEXTS,
        &[Site::Final],
        &out,
        &mut |_| ControlFlow::Break(()),
    );
    assert_eq!(stop.unwrap_err().kind(), ErrorKind::Cancelled);
    let error = encode(&encoder, &[], Site::Final, &out).unwrap_err();
    assert!(error.to_string().contains("no sentence"), "{error}");
    Ok(())
}
