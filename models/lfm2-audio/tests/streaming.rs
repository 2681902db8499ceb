//! Sound that comes in pieces is the sound that comes at once, from a state that does not grow.
#![cfg(feature = "audio-files")]
#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on should say where"
)]

mod support;

use std::sync::OnceLock;

use anyhow::{Result, ensure};
use lfm2_audio::{
    Clip, Detokenizer, DetokenizerConfig, FRAME_SAMPLES, MelConfig, MelFrontEnd, Mimi, MimiConfig,
    MimiEncoder, Resampler, shapes,
};
use lfm2_hub::Limits;
use lfm2_nn::Accuracy;
use lfm2_text::LoadOptions;
use proptest::prelude::*;
use serde_json::json;
use support::random::{Numbers, source, tensors};
use support::{ensure_wave, for_every_set};

const CODEBOOKS: usize = 8;

/// A codec whose context is full after five frames.
fn mimi_config() -> MimiConfig {
    let mut config = MimiConfig::default();
    config.dimension = 16;
    config.filters = 2;
    config.heads = 2;
    config.layers = 2;
    config.ffn = 24;
    config.context = 10;
    config.code_width = 4;
    config
}

fn mimi() -> &'static (Mimi, MimiEncoder) {
    static MIMI: OnceLock<(Mimi, MimiEncoder)> = OnceLock::new();
    MIMI.get_or_init(|| {
        let config = mimi_config();
        let tensors = tensors(&shapes::mimi(&config), 3).unwrap();
        let source = || source(&tensors).unwrap();
        (
            Mimi::from_tensors(&config, source()).unwrap(),
            MimiEncoder::from_tensors(&config, source()).unwrap(),
        )
    })
}

/// A detokenizer whose window is full after two frames.
fn detokenizer() -> &'static Detokenizer {
    static DETOKENIZER: OnceLock<Detokenizer> = OnceLock::new();
    DETOKENIZER.get_or_init(|| {
        let json = json!({"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2,
            "num_key_value_heads": 1, "layer_types": ["conv", "sliding_attention", "full_attention"],
            "sliding_window": 11, "output_size": 1282, "vocab_size": 4, "block_ff_dim": 48,
            "block_multiple_of": 8});
        let config = DetokenizerConfig::from_json(&json, &Limits::default()).unwrap();
        let tensors = tensors(&shapes::detokenizer(&config, CODEBOOKS), 5).unwrap();
        let options = LoadOptions::default().with_accuracy(Accuracy::Exact);
        Detokenizer::from_tensors(config, CODEBOOKS, source(&tensors).unwrap(), &options).unwrap()
    })
}

fn check(result: Result<()>) -> Result<(), TestCaseError> {
    result.map_err(|e| TestCaseError::fail(format!("{e:#}")))
}

fn detokenizer_in_pieces(detokenizer: &Detokenizer, sizes: &[usize], seed: u64) -> Result<()> {
    let frames = Numbers::new(seed).frames(sizes.iter().sum(), detokenizer.codebooks());
    let mut whole = detokenizer.stream();
    let mut expected = whole.push(detokenizer, &frames)?;
    expected.extend(whole.finish());
    ensure!(expected.len() == frames.len() * FRAME_SAMPLES);
    let mut stream = detokenizer.stream();
    let (mut found, mut rest) = (Vec::new(), &frames[..]);
    for size in sizes {
        let (piece, behind) = rest.split_at(*size);
        found.extend(stream.push(detokenizer, piece)?);
        rest = behind;
    }
    found.extend(stream.finish());
    ensure_wave("detokenizer", &found, &expected, 1e-5)
}

fn mimi_in_pieces(mimi: &Mimi, sizes: &[usize], seed: u64) -> Result<()> {
    let frames = Numbers::new(seed).frames(sizes.iter().sum(), mimi.codebooks());
    let expected = mimi.stream().push(mimi, &frames)?;
    ensure!(expected.len() == frames.len() * FRAME_SAMPLES);
    let mut stream = mimi.stream();
    let (mut found, mut rest) = (Vec::new(), &frames[..]);
    for size in sizes {
        let (piece, behind) = rest.split_at(*size);
        found.extend(stream.push(mimi, piece)?);
        rest = behind;
    }
    ensure_wave("mimi", &found, &expected, 1e-5)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn the_detokenizer_streams_exactly(
        seed: u64,
        sizes in prop::collection::vec(0usize..5, 1..8),
    ) {
        check(detokenizer_in_pieces(detokenizer(), &sizes, seed))?;
    }

    #[test]
    fn mimi_streams_exactly_past_its_context(
        seed: u64,
        sizes in prop::collection::vec(0usize..5, 1..8),
    ) {
        check(mimi_in_pieces(&mimi().0, &sizes, seed))?;
    }

    #[test]
    fn mimis_encoder_streams_exactly(seed: u64, sizes in prop::collection::vec(1usize..4, 1..5)) {
        let encoder = &mimi().1;
        let mut numbers = Numbers::new(seed);
        let frames: usize = sizes.iter().sum();
        let samples: Vec<f32> = (0..frames * FRAME_SAMPLES).map(|_| numbers.next()).collect();
        let expected = encoder.stream().push(encoder, &samples).unwrap();
        let mut stream = encoder.stream();
        let mut rest = &samples[..];
        let mut found: Vec<f32> = Vec::new();
        for size in sizes {
            let (piece, behind) = rest.split_at(size * FRAME_SAMPLES);
            let latents = stream.push(encoder, piece).unwrap();
            found.extend(latents.flatten_all().unwrap().to_vec1::<f32>().unwrap());
            rest = behind;
        }
        let expected = expected.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        check(ensure_wave("latents", &found, &expected, 1e-5))?;
    }

    /// Pieces of 1, 7 and 100,000 samples among others.
    #[test]
    fn au_07_features_do_not_depend_on_pieces(
        seed: u64,
        rate in prop::sample::select(vec![8_000u32, 16_000, 22_050, 44_100]),
        sizes in prop::collection::vec(prop::sample::select(vec![1usize, 7, 159, 160, 513, 5_000]), 1..20),
    ) {
        let mut numbers = Numbers::new(seed);
        let count: usize = sizes.iter().sum();
        let samples: Vec<f32> = (0..count).map(|_| numbers.next()).collect();
        let front = MelFrontEnd::new(MelConfig::default()).unwrap();
        let clip = Clip::new(samples.clone(), rate).unwrap();
        let mut stream = front.stream(rate).unwrap();
        let mut rest = &samples[..];
        for size in sizes {
            let (piece, behind) = rest.split_at(size);
            stream.push(piece);
            rest = behind;
        }
        prop_assert_eq!(stream.finish(), front.features(&clip).unwrap());
    }

    #[test]
    fn resampling_does_not_depend_on_pieces(seed: u64, cut in 0usize..3_000, from in 7_000u32..9_000) {
        let mut numbers = Numbers::new(seed);
        let samples: Vec<f32> = (0..3_000).map(|_| numbers.next()).collect();
        let (mut whole, mut pieces) = (Vec::new(), Vec::new());
        let mut resampler = Resampler::new(from, 16_000).unwrap();
        resampler.push(&samples, &mut whole);
        resampler.finish(&mut whole);
        for piece in [&samples[..cut], &samples[cut..]] {
            resampler.push(piece, &mut pieces);
        }
        resampler.finish(&mut pieces);
        prop_assert_eq!(whole, pieces);
    }
}

#[test]
fn states_do_not_grow_with_the_piece() -> Result<()> {
    let mut numbers = Numbers::new(1);
    let (mimi, detokenizer) = (&mimi().0, detokenizer());
    let (mut a, mut b) = (mimi.stream(), detokenizer.stream());
    let mut sizes = Vec::new();
    for _ in 0..60 {
        let frames = numbers.frames(1, CODEBOOKS);
        a.push(mimi, &frames)?;
        b.push(detokenizer, &frames)?;
        sizes.push((a.bytes(), b.bytes()));
    }
    ensure!(sizes[20] == sizes[59], "{:?} {:?}", sizes[20], sizes[59]);
    Ok(())
}

#[test]
fn golden_codecs_stream_fifteen_seconds_exactly() -> Result<()> {
    // 12.5 frames per second.
    const FRAMES: usize = 188;
    let sizes: Vec<usize> = (0..).map(|i| 1 + i % 7).take(FRAMES / 4).collect();
    for_every_set(|set| {
        if let Some(mimi) = set.mimi_decoder()? {
            mimi_in_pieces(&mimi, &sizes, 11)?;
        }
        if let Some(lfm2_audio::Vocoder::Detokenizer(d)) = set.model()?.and_then(|m| m.vocoder()) {
            detokenizer_in_pieces(d, &sizes, 12)?;
        }
        Ok(())
    })
}
