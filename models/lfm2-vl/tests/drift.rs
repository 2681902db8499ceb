//! How far narrower weights move what stands for a picture.

use std::sync::Arc;

use anyhow::{Result, ensure};
use candle_core::Tensor;
use lfm2_hub::gguf::Quantization;
use lfm2_hub::{Limits, SyntheticSource};
use lfm2_nn::{Accuracy, DType, Device};
use lfm2_text::LoadOptions;
use lfm2_vl::{PatchGrid, Projector, VisionTower, VlConfig};
use serde_json::json;

fn config() -> Result<VlConfig> {
    let config = json!({
        "model_type": "lfm2_vl",
        "text_config": {
            "model_type": "lfm2", "vocab_size": 64, "hidden_size": 64, "num_attention_heads": 4,
            "num_key_value_heads": 2, "num_hidden_layers": 1, "intermediate_size": 64,
        },
        "vision_config": {
            "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 4,
            "num_attention_heads": 4, "num_patches": 16,
        },
        "projector_hidden_size": 96,
    });
    Ok(VlConfig::from_json(&config, &Limits::default())?)
}

/// The projected rows of a picture of noise, read by random weights that are stored as `storage`.
fn rows(storage: Quantization, options: &LoadOptions) -> Result<Vec<Vec<f32>>> {
    let config = config()?;
    let shapes = config.tensors().into_iter().map(|t| (t.name, t.shape));
    let stored = storage.stored();
    let source = SyntheticSource::new(shapes, stored, stored, 7)?;
    let weights = options.weights(Arc::new(source));
    let tower = VisionTower::load(&config.vision, &weights.pp("model.vision_tower"))?;
    let projector = weights.pp("model.multi_modal_projector");
    let (from, to) = (config.vision.hidden_size, config.text.hidden_size);
    let projector = Projector::load(&config.projector, from, to, &projector)?;

    let grids = [
        PatchGrid { rows: 6, cols: 4 },
        PatchGrid { rows: 2, cols: 8 },
    ];
    let patches: usize = grids.iter().map(|grid| grid.patches()).sum();
    let noise = (0..patches * 768).map(|i| ((i * 7919) % 511) as f32 / 255.0 - 1.0);
    let noise = Tensor::from_iter(noise, &Device::Cpu)?.reshape((patches, 768))?;
    let hidden = tower.forward(&noise, &grids, None)?;
    Ok(projector
        .forward(&hidden, &grids)?
        .to_dtype(DType::F32)?
        .to_vec2()?)
}

/// The mean cosine between rows.
fn cosine(a: &[Vec<f32>], b: &[Vec<f32>]) -> f32 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    let cosines = a
        .iter()
        .zip(b)
        .map(|(a, b)| dot(a, b) / (dot(a, a) * dot(b, b)).sqrt());
    cosines.sum::<f32>() / a.len() as f32
}

#[test]
fn narrow_weights_keep_the_direction_of_every_row() -> Result<()> {
    let exact = LoadOptions::default().with_accuracy(Accuracy::Exact);
    let exact = rows(Quantization::F32, &exact)?;
    ensure!(exact.len() == 10);
    let bf16 = rows(Quantization::BF16, &LoadOptions::default())?;
    let eight = LoadOptions::default().with_quantize(Quantization::Q8_0);
    let eight = rows(Quantization::F32, &eight)?;
    for (name, found) in [("bf16", &bf16), ("q8_0", &eight)] {
        let cosine = cosine(found, &exact);
        println!("{name}: mean cosine {cosine:.6}");
        ensure!(cosine > 0.999, "{name}: {cosine}");
    }
    // What reads pictures keeps 8 bits where text gets 4.
    let four = LoadOptions::default().with_quantize(Quantization::Q4_0);
    ensure!(rows(Quantization::F32, &four)? == eight);
    Ok(())
}
