//! How often narrower weights choose other codes, and how far they move the sound.

use std::sync::Arc;

use anyhow::{Result, ensure};
use candle_core::{D, Device, Tensor};
use lfm2_audio::shapes::{self, Released};
use lfm2_audio::{CODES, Depthformer, Detokenizer, Encoder, PartTypes};
use lfm2_hub::InBlocks;
use lfm2_hub::gguf::Quantization;
use lfm2_nn::Accuracy;
use lfm2_text::LoadOptions;

const SEED: u64 = 11;

fn released() -> Result<Released> {
    shapes::find("lfm2.5-audio-1.5b").ok_or_else(|| anyhow::anyhow!("the shape is gone"))
}

/// bf16 weights, as released, and computed with as exactly as possible.
fn exact() -> LoadOptions {
    LoadOptions::default().with_accuracy(Accuracy::Exact)
}

/// The depth model at full size, with its weights in `kind`, or as released.
fn depth(kind: Option<Quantization>) -> Result<Depthformer> {
    let (shape, stored) = (released()?, PartTypes::of(Quantization::BF16));
    let config = shape.config()?;
    let source = Arc::new(shape.tensors(stored, SEED)?);
    let weights = match kind {
        None => exact().weights(source),
        Some(kind) => {
            let types = stored.with_depth(kind);
            let blocks = InBlocks::by_rule(source, kind.name(), move |n| types.of_model(n));
            LoadOptions::default().weights(Arc::new(blocks))
        }
    };
    let hidden = config.text.hidden_size;
    Ok(Depthformer::load(
        &config.depth,
        config.codebooks,
        hidden,
        &weights,
    )?)
}

/// The detokenizer at full size, in the same way.
fn detokenizer(kind: Option<Quantization>) -> Result<Detokenizer> {
    let (shape, stored) = (released()?, PartTypes::of(Quantization::BF16));
    let source = Arc::new(shape.detokenizer_tensors(stored, SEED)?);
    let (facts, codebooks) = (shape.detokenizer_config()?, shape.config()?.codebooks);
    let loaded = match kind {
        None => Detokenizer::from_tensors(facts, codebooks, source, &exact()),
        Some(kind) => {
            let types = stored.with_detokenizer(kind);
            let blocks = InBlocks::by_rule(source, kind.name(), move |n| types.of_detokenizer(n));
            Detokenizer::from_tensors(facts, codebooks, Arc::new(blocks), &LoadOptions::default())
        }
    };
    Ok(loaded?)
}

/// Hidden states of unit variance, as norms leave them.
fn hidden(frames: usize) -> Result<Tensor> {
    let value = |i: usize| ((i * 7919 + 13) % 4093) as f32 / 4093.0 * 3.46 - 1.73;
    let values = (0..frames * 2048).map(value);
    Ok(Tensor::from_iter(values, &Device::Cpu)?.reshape((frames, 2048))?)
}

fn codes(frames: usize) -> Vec<Vec<u32>> {
    let code =
        |t: usize, k: usize| (((t * 31 + k * 977) as u32).wrapping_mul(2_654_435_761) >> 7) % CODES;
    (0..frames)
        .map(|t| (0..8).map(|k| code(t, k)).collect())
        .collect()
}

/// The share of codes that `other` chooses as `one` does behind the same codes.
fn agreement(one: &Depthformer, other: &Depthformer, frames: usize) -> Result<f64> {
    let hidden = hidden(frames)?;
    let before = Tensor::new(codes(frames), &Device::Cpu)?;
    let best = |model: &Depthformer| -> Result<Vec<u32>> {
        let logits = model.forced(&hidden, &before)?;
        Ok(logits.argmax(D::Minus1)?.flatten_all()?.to_vec1()?)
    };
    let (a, b) = (best(one)?, best(other)?);
    let same = a.iter().zip(&b).filter(|(a, b)| a == b).count();
    Ok(same as f64 / a.len() as f64)
}

/// Decibels of the sound of `one` over the difference to that of `other`.
fn decibels(one: &Detokenizer, other: &Detokenizer, frames: usize) -> Result<f64> {
    let codes = codes(frames);
    let (a, b) = (one.decode(&codes)?, other.decode(&codes)?);
    let energy = |values: &mut dyn Iterator<Item = f32>| -> f64 {
        values.map(|v| f64::from(v) * f64::from(v)).sum()
    };
    let noise = energy(&mut a.iter().zip(&b).map(|(a, b)| a - b));
    Ok(10.0 * (energy(&mut a.iter().copied()) / noise).log10())
}

/// What four layers of the encoder at full width hear in a second of noise, with their weights in `kind`, or
/// as released.
fn heard(kind: Option<Quantization>) -> Result<Vec<Vec<f32>>> {
    let (shape, stored) = (released()?, PartTypes::of(Quantization::BF16));
    let mut config = shape.config()?.encoder;
    config.layers = 4;
    let source = Arc::new(shape.tensors(stored, SEED)?);
    let weights = match kind {
        None => exact().weights(source),
        Some(kind) => {
            let types = PartTypes::of(kind);
            let blocks = InBlocks::by_rule(source, kind.name(), move |n| types.of_model(n));
            LoadOptions::default().weights(Arc::new(blocks))
        }
    };
    let encoder = Encoder::load(&config, &weights.pp("conformer").coarse())?;
    let noise = (0..100 * config.features).map(|i| ((i * 7919) % 511) as f32 / 255.0 - 1.0);
    let mel = Tensor::from_iter(noise, &Device::Cpu)?.reshape((100, config.features))?;
    Ok(encoder.forward(&[mel])?.remove(0).to_vec2()?)
}

#[test]
fn eight_bits_keep_the_direction_of_what_is_heard() -> Result<()> {
    let (exact, eight) = (heard(None)?, heard(Some(Quantization::Q8_0))?);
    ensure!(exact.len() == 13);
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    for (a, b) in exact.iter().zip(&eight) {
        let cosine = dot(a, b) / (dot(a, a) * dot(b, b)).sqrt();
        println!("cosine {cosine:.6}");
        ensure!(cosine > 0.999, "{cosine}");
    }
    Ok(())
}

#[test]
#[ignore = "full-size weights: some minutes without optimisation; prints the table of docs/speech.md"]
fn eight_bits_choose_the_same_codes_and_four_do_not() -> Result<()> {
    use Quantization::{BF16, Q4_0, Q4K, Q5_0, Q6K, Q8_0};
    let (frames, reference) = (64, depth(None)?);
    let sound = detokenizer(None)?;
    let mut found = Vec::new();
    // First as released, computed with pairs of bf16 instead of exactly.
    for kind in [BF16, Q8_0, Q6K, Q5_0, Q4K, Q4_0] {
        let same = agreement(&reference, &depth(Some(kind))?, frames)?;
        let clean = decibels(&sound, &detokenizer(Some(kind))?, frames)?;
        println!("{kind:5} {:5.1} % of codes, {clean:5.1} dB", same * 100.0);
        found.push((kind, same, clean));
    }
    let [_, (_, eight, _), .., (_, four, _)] = found[..] else {
        anyhow::bail!("no types")
    };
    ensure!(eight > 0.94 && four < 0.8, "{found:?}");
    Ok(())
}
