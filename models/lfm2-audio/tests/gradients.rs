//! The loss reaches every parameter, and its gradients are the slopes that small steps show.
#![cfg(feature = "audio-files")]

mod support;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use candle_core::Var;
use candle_core::quantized::QTensor;
use lfm2_audio::{
    AudioConfig, AudioModel, CodebookWeight, END_CODE, Frame, Mel, Piece, Sample, Sequence, Voice,
    shapes,
};
use lfm2_hub::{Limits, StoredType, TensorInfo, TensorSource, Tokenizer};
use lfm2_nn::{Accuracy, DType, Device, Tensor};
use lfm2_text::LoadOptions;
use support::random::{Numbers, tensors};

/// A checkpoint as trainable variables.
struct Variables(BTreeMap<String, Var>);

impl TensorSource for Variables {
    fn names(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }

    fn info(&self, name: &str) -> Option<TensorInfo> {
        Some(TensorInfo {
            shape: self.0.get(name)?.dims().to_vec(),
            stored: StoredType::Dense(DType::F32),
        })
    }

    fn dense(&self, name: &str, _: DType, _: &Device) -> lfm2_hub::Result<Tensor> {
        let missing = || lfm2_hub::Error::MissingTensor {
            name: name.to_owned(),
        };
        Ok(self.0.get(name).ok_or_else(missing)?.as_tensor().clone())
    }

    fn quantized(&self, _: &str, _: &Device) -> lfm2_hub::Result<Option<Arc<QTensor>>> {
        Ok(None)
    }
}

fn model() -> Result<(AudioModel, Arc<Variables>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/tiny/checkpoint");
    let json = serde_json::from_slice(&std::fs::read(folder.join("config.json"))?)?;
    let mut config = AudioConfig::from_json(&json, &Limits::default())?;
    // Codebooks of equal weight, so that the slopes of all of them show.
    config.codebook_weight = CodebookWeight::Linear;
    config.semantic_factor = 1.0;
    let tokenizer = Tokenizer::from_file(&folder.join("tokenizer.json"), &Limits::default())?;
    let variables = tensors(&shapes::model(&config), 6)?
        .into_iter()
        .map(|(name, tensor)| Ok((name, Var::from_tensor(&tensor)?)));
    let variables = Arc::new(Variables(variables.collect::<Result<_>>()?));
    let source = Arc::clone(&variables) as Arc<dyn TensorSource>;
    let options = LoadOptions::default().with_accuracy(Accuracy::Exact);
    let model = AudioModel::from_tensors(config, source, tokenizer, &options)?;
    Ok((model, variables))
}

fn sample() -> Result<Sample> {
    let mut numbers = Numbers::new(8);
    let values = (0..30 * 128).map(|_| 2.0 * numbers.next()).collect();
    let frames = vec![
        Frame::new((0..8).map(|k| 100 + k).collect()),
        Frame::new((0..8).map(|k| 2_000 - k).collect()),
        Frame::new(vec![END_CODE; 8]),
    ];
    let pieces = vec![
        Piece::Text(vec![1, 6, 300]),
        Piece::Clip(Mel::new(values, 128)?),
        Piece::Text(vec![301, 302]),
        Piece::Frames(frames),
        Piece::Text(vec![7]),
    ];
    let sequence = Sequence::from(pieces);
    // All that comes behind the clip.
    let first = 3 + 4;
    let supervised = (0..sequence.positions()).map(|i| i >= first).collect();
    Ok(Sample {
        sequence,
        supervised,
    })
}

#[test]
fn every_parameter_gets_a_gradient() -> Result<()> {
    let (model, variables) = model()?;
    let grads = model.losses(&[sample()?])?.total.backward()?;
    for (name, var) in &variables.0 {
        let grad = grads.get(var.as_tensor()).with_context(|| name.clone())?;
        let largest = grad.abs()?.max_all()?.to_scalar::<f32>()?;
        // A softmax does not feel what is added to all of its scores.
        let blind = name.ends_with("self_attn.linear_k.bias");
        ensure!(
            largest.is_finite() && (largest > 0.0 || blind),
            "{name}: {largest}"
        );
    }
    Ok(())
}

#[test]
fn gradients_are_slopes() -> Result<()> {
    const NAMES: [&str; 12] = [
        "conformer.pre_encode.conv.0.weight",
        "conformer.pre_encode.conv.2.weight",
        "conformer.layers.0.self_attn.linear_pos.weight",
        "conformer.layers.0.self_attn.pos_bias_v",
        "conformer.layers.1.conv.depthwise_conv.weight",
        "conformer.layers.1.conv.batch_norm.running_var",
        "conformer.layers.1.norm_out.bias",
        "audio_adapter.model.1.weight",
        "depth_linear.weight",
        "depthformer.layers.1.operator.qkv_proj.weight",
        "depthformer.layers.0.operator.bounded_attention.k_layernorm.weight",
        "depth_embeddings.3.embedding_norm.weight",
    ];
    let (model, variables) = model()?;
    let sample = sample()?;
    let loss = || -> Result<f64> {
        Ok(f64::from(
            model
                .losses(std::slice::from_ref(&sample))?
                .total
                .to_scalar::<f32>()?,
        ))
    };
    let grads = model
        .losses(std::slice::from_ref(&sample))?
        .total
        .backward()?;
    for name in NAMES {
        let var = variables.0.get(name).context(name)?;
        let before = var.as_tensor().copy()?;
        let grad = grads.get(var.as_tensor()).context(name)?;
        // Along the gradient the slope is its length.
        let length = f64::from(grad.sqr()?.sum_all()?.to_scalar::<f32>()?).sqrt();
        let step = 5e-3 / length.max(1.0);
        let direction = (grad / length)?;
        var.set(&(&before + (&direction * step)?)?)?;
        let above = loss()?;
        var.set(&(&before - (&direction * step)?)?)?;
        let below = loss()?;
        var.set(&before)?;
        let slope = (above - below) / (2.0 * step);
        ensure!(
            (slope - length).abs() < 0.05 * length + 2e-4,
            "{name}: {slope}, {length}"
        );
    }
    Ok(())
}

#[test]
fn what_a_batch_norm_sees_is_the_same_for_clips_together_and_alone() -> Result<()> {
    let (model, variables) = model()?;
    let mut numbers = Numbers::new(3);
    let mut clip = |frames: usize| -> Result<Tensor> {
        let values: Vec<f32> = (0..frames * 128).map(|_| numbers.next()).collect();
        Ok(Tensor::from_vec(values, (frames, 128), &Device::Cpu)?)
    };
    let clips = [clip(30)?, clip(17)?];
    let encoder = model.encoder();
    for layer in 0..encoder.layers() {
        let together = encoder.before_norm(&clips, layer)?;
        let alone = clips
            .iter()
            .map(|x| encoder.before_norm(std::slice::from_ref(x), layer));
        let alone = Tensor::cat(&alone.collect::<candle_core::Result<Vec<_>>>()?, 0)?;
        ensure!(together.dims() == [4 + 3, model.config().encoder.width]);
        let difference = (&together - alone)?.abs()?.max_all()?.to_scalar::<f32>()?;
        ensure!(difference < 1e-4, "layer {layer}: {difference}");
        // It is before the norm: the statistics of this layer do not count.
        let name = format!("conformer.layers.{layer}.conv.batch_norm.running_mean");
        let var = variables.0.get(&name).context(name)?;
        let before = var.as_tensor().copy()?;
        var.set(&(&before + 3.0)?)?;
        let same = encoder.before_norm(&clips, layer)?;
        var.set(&before)?;
        let difference = (together - same)?.abs()?.max_all()?.to_scalar::<f32>()?;
        ensure!(difference == 0.0, "layer {layer}: {difference}");
    }
    ensure!(encoder.before_norm(&clips, encoder.layers()).is_err());
    Ok(())
}

#[test]
fn samples_teach_what_the_assistant_says() -> Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/tiny/checkpoint");
    let tokenizer = Tokenizer::from_file(&folder.join("tokenizer.json"), &Limits::default())?;
    let (model, _) = model()?;
    let front = model.front_end();
    let mel = Mel::new(vec![0.5; 30 * 128], 128)?;
    let heard = Sample::transcription(&tokenizer, front, mel, "three seven")?;
    let frames = vec![Frame::new(vec![5; 8]); 3];
    let said = Sample::speech(&tokenizer, front, ("three seven", &Voice::Own), frames)?;
    let text = |sample: &Sample, learnt: bool| -> Result<String> {
        let mut ids = Vec::new();
        let mut at = 0;
        for piece in sample.sequence.pieces() {
            if let Piece::Text(own) = piece {
                let flags = &sample.supervised[at..];
                let chosen = own.iter().zip(flags).filter(|(_, flag)| **flag == learnt);
                ids.extend(chosen.map(|(id, _)| *id));
            }
            at += piece.positions();
        }
        Ok(tokenizer.decode(&ids, lfm2_hub::Specials::Keep)?)
    };
    ensure!(text(&heard, true)? == "three seven<|im_end|>\n");
    ensure!(text(&heard, false)?.contains("Perform ASR."));
    ensure!(text(&said, true)? == "<|audio_start|><|im_end|>\n");
    ensure!(text(&said, false)?.contains("user\nthree seven"));
    // The start of audio, three frames and their end, and the end of the turn.
    ensure!(said.supervised() == 1 + 4 + 2, "{}", said.supervised());
    ensure!(losses(&model, &[said])?[0].is_finite());
    Ok(())
}

/// Total, text and audio.
fn losses(model: &AudioModel, samples: &[Sample]) -> Result<[f64; 3]> {
    let losses = model.losses(samples)?;
    let number = |x: Tensor| -> Result<f64> { Ok(f64::from(x.to_scalar::<f32>()?)) };
    Ok([
        number(losses.total)?,
        number(losses.text)?,
        number(losses.audio)?,
    ])
}

#[test]
fn samples_together_lose_what_they_lose_alone() -> Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/tiny/checkpoint");
    let tokenizer = Tokenizer::from_file(&folder.join("tokenizer.json"), &Limits::default())?;
    let (model, _) = model()?;
    let said = |text: &str, codes: &[u32]| {
        let frames = codes.iter().map(|&code| Frame::new(vec![code; 8]));
        let said = (text, &Voice::Own);
        Sample::speech(&tokenizer, model.front_end(), said, frames.collect())
    };
    let samples = [said("three", &[5, 7, 9])?, said("seven one two", &[1])?];
    let together = losses(&model, &samples)?;
    // Texts of three tokens each, and four and two frames with their ends.
    let alone = [
        losses(&model, &samples[..1])?,
        losses(&model, &samples[1..])?,
    ];
    for (what, shares) in [(1, [3.0, 3.0]), (2, [4.0, 2.0])] {
        let sum: f64 = alone.iter().zip(shares).map(|(l, n)| l[what] * n).sum();
        let mean = sum / shares.iter().sum::<f64>();
        ensure!(
            (together[what] - mean).abs() < 1e-5,
            "{what}: {together:?} {alone:?}"
        );
    }
    ensure!(model.losses(&[]).is_err());
    Ok(())
}
