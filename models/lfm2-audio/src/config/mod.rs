//! [`AudioConfig`]: the facts of one LFM2-Audio model, checked.
//!
//! Strict about every key that shapes the network, lenient about keys it does not know.

mod section;

#[cfg(test)]
mod tests;

use lfm2_hub::{Error, Limits, Result};
use lfm2_text::{LayerKind, TextConfig};
use serde_json::{Value, json};

use crate::MelConfig;
use section::Section;

/// Codes per codebook, the end of audio not counted.
pub const CODES: u32 = 2048;
/// The code that says that the audio is over.
pub const END_CODE: u32 = CODES;
/// Rows of a code table with the end of audio.
pub(crate) const CODE_ROWS: usize = CODES as usize + 1;
/// Samples per second of everything the model says.
pub const OUTPUT_RATE: u32 = 24_000;
/// Samples of one frame of codes, 80 ms.
pub const FRAME_SAMPLES: usize = 1_920;
/// More codebooks than anything that makes sense.
const MAX_CODEBOOKS: usize = 64;
/// Wider kernels than this are no convolutions of an encoder.
const MAX_KERNEL: usize = 1_023;

/// Facts of the FastConformer encoder.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct EncoderConfig {
    /// Mel bins read.
    pub features: usize,
    /// Layers.
    pub layers: usize,
    /// Width of the residual stream.
    pub width: usize,
    /// Attention heads.
    pub heads: usize,
    /// Channels of the subsampling convolutions.
    pub channels: usize,
    /// Width of the feed-forward layers as a multiple of [`width`](Self::width).
    pub expansion: usize,
    /// Kernel of the convolution modules.
    pub kernel: usize,
    /// Steps before and after that attention sees; `None` is all.
    pub context: [Option<usize>; 2],
    /// Whether features are multiplied by the root of the width.
    pub scaled: bool,
}

/// Facts of the model that turns a hidden state into the codes of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct DepthConfig {
    /// Layers.
    pub layers: usize,
    /// Width of the residual stream.
    pub width: usize,
    /// Whether heads are the embedding tables.
    pub tied: bool,
}

impl DepthConfig {
    /// Query heads.
    pub const HEADS: usize = 32;
    /// Heads of keys and values.
    pub const KV_HEADS: usize = 8;

    /// Numbers per head.
    pub fn head_dim(&self) -> usize {
        self.width / Self::HEADS
    }

    /// Width of the feed-forward layers.
    pub fn ffn_width(&self) -> usize {
        (8 * self.width / 3).div_ceil(256) * 256
    }
}

/// How losses of the codebooks are weighted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CodebookWeight {
    /// Falling from the semantic factor to 1, evenly in the logarithm.
    Log,
    /// The semantic factor for the first codebook, 1 for the others.
    Linear,
}

/// How text and audio take turns in interleaved generation, and what their losses weigh.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct AudioConfig {
    /// The backbone.
    pub text: TextConfig,
    /// The front end.
    pub mel: MelConfig,
    /// The encoder.
    pub encoder: EncoderConfig,
    /// The depth model.
    pub depth: DepthConfig,
    /// Codes per frame.
    pub codebooks: usize,
    /// Text tokens per turn of interleaved generation.
    pub interleaved_text: usize,
    /// Audio frames per turn of interleaved generation.
    pub interleaved_audio: usize,
    /// How losses of the codebooks are weighted.
    pub codebook_weight: CodebookWeight,
    /// Weight of the first codebook.
    pub semantic_factor: f64,
    /// Weight of the losses of text tokens.
    pub text_loss: f64,
    /// Weight of the losses of audio frames.
    pub audio_loss: f64,
}

impl AudioConfig {
    /// Parses and checks a `config.json`.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`] naming the key, [`Error::Unsupported`] for another architecture or a
    /// variant that nobody published, [`Error::Limit`] for sizes beyond `limits`.
    pub fn from_json(json: &Value, limits: &Limits) -> Result<Self> {
        let root = Section::root(json)?;
        check_architecture(root)?;
        let codebooks = root.size("codebooks", MAX_CODEBOOKS)?;
        let mel = mel(root.section("preprocessor")?, limits)?;
        let encoder = encoder(root.section("encoder")?, limits)?;
        if encoder.features != mel.features {
            let detail = format!("{} and {} differ", encoder.features, mel.features);
            return Err(Error::config(
                "encoder.feat_in, preprocessor.features",
                detail,
            ));
        }
        // Whether to_logits of the whole frame is tied: it plays no part in what the model does.
        root.bool("tie_audio_embeddings")?;
        Ok(Self {
            text: TextConfig::from_json_within(&backbone(root)?, limits)?,
            mel,
            encoder,
            depth: depth(root.section("depthformer")?, limits)?,
            codebooks,
            interleaved_text: root.size("interleaved_n_text", usize::MAX)?,
            interleaved_audio: root.size("interleaved_n_audio", usize::MAX)?,
            codebook_weight: codebook_weight(root)?,
            semantic_factor: positive(root, "semantic_codebook_factor", None)?,
            text_loss: positive(root, "text_loss_multiplier", Some(1.0))?,
            audio_loss: positive(root, "audio_loss_multiplier", Some(1.0))?,
        })
    }

    /// Weights of the codebooks' losses, first to last.
    pub fn codebook_weights(&self) -> Vec<f32> {
        let last = self.codebooks.saturating_sub(1).max(1) as f64;
        let weight = |k: usize| match self.codebook_weight {
            CodebookWeight::Log => ((1.0 - k as f64 / last) * self.semantic_factor.ln()).exp(),
            CodebookWeight::Linear if k == 0 => self.semantic_factor,
            CodebookWeight::Linear => 1.0,
        };
        (0..self.codebooks).map(|k| weight(k) as f32).collect()
    }
}

fn check_architecture(root: Section<'_>) -> Result<()> {
    const KNOWN: &str = "Lfm2AudioForConditionalGeneration";
    let names = root.get("architectures").and_then(Value::as_array);
    let name = names.and_then(|n| n.first()).and_then(Value::as_str);
    let other = match name {
        Some(KNOWN) => return Ok(()),
        Some(name) if name.to_ascii_lowercase().starts_with("lfm3audio") => {
            return Err(Error::Unsupported {
                what: format!("architecture \"{name}\""),
                hint: "LFM3-Audio has a causal encoder and another depth decoder; LFM2-Audio and LFM2.5-Audio run"
                    .to_owned(),
            });
        }
        Some(name) => format!("architecture \"{name}\""),
        None => "a config without \"architectures\"".to_owned(),
    };
    Err(Error::Unsupported {
        what: other,
        hint: format!("an audio model says {KNOWN}"),
    })
}

/// The config of the backbone, which need not name its type.
fn backbone(root: Section<'_>) -> Result<Value> {
    root.section("lfm")?;
    let mut config = root.required("lfm")?.clone();
    if let Some(map) = config.as_object_mut() {
        map.entry("model_type").or_insert_with(|| json!("lfm2"));
    }
    Ok(config)
}

fn mel(section: Section<'_>, limits: &Limits) -> Result<MelConfig> {
    let only = [
        ("normalize", json!("per_feature")),
        ("window", json!("hann")),
        ("log", json!(true)),
        ("frame_splicing", json!(1)),
        ("pad_to", json!(0)),
    ];
    for (key, value) in &only {
        section.only(key, value)?;
    }
    let sample_rate = section.size("sample_rate", 384_000)?;
    let samples = |key: &str| -> Result<usize> {
        let seconds = section.float(key)?;
        let samples = (seconds * sample_rate as f64).round();
        if (1.0..=65_536.0).contains(&samples) {
            Ok(samples as usize)
        } else {
            let value = section.required(key)?;
            Err(section.wrong(key, "a length between one sample and a few seconds", value))
        }
    };
    Ok(MelConfig {
        sample_rate: sample_rate as u32,
        features: section.width("features", limits)?,
        n_fft: section.width("n_fft", limits)?,
        window: samples("window_size")?,
        hop: samples("window_stride")?,
    })
}

fn encoder(section: Section<'_>, limits: &Limits) -> Result<EncoderConfig> {
    let only = [
        ("subsampling", json!("dw_striding")),
        ("subsampling_factor", json!(8)),
        ("causal_downsampling", json!(false)),
        ("reduction", Value::Null),
        ("self_attention_model", json!("rel_pos")),
        ("conv_norm_type", json!("batch_norm")),
        ("conv_context_size", Value::Null),
    ];
    for (key, value) in &only {
        section.only(key, value)?;
    }
    let width = section.width("d_model", limits)?;
    let heads = section.size("n_heads", limits.heads)?;
    if !width.is_multiple_of(heads) || !width.is_multiple_of(2) {
        let detail = format!("{width} is not an even multiple of {heads}");
        return Err(Error::config("encoder.d_model, encoder.n_heads", detail));
    }
    let kernel = section.size("conv_kernel_size", MAX_KERNEL)?;
    if kernel.is_multiple_of(2) {
        let detail = format!("expected an odd number, found {kernel}");
        return Err(Error::config("encoder.conv_kernel_size", detail));
    }
    if let Some(out) = section.get("feat_out").and_then(Value::as_i64)
        && out > 0
        && out != width as i64
    {
        section.only("feat_out", &json!(-1))?;
    }
    Ok(EncoderConfig {
        features: section.width("feat_in", limits)?,
        layers: section.size("n_layers", limits.layers)?,
        width,
        heads,
        channels: section.width("subsampling_conv_channels", limits)?,
        expansion: section.size("ff_expansion_factor", 64)?,
        kernel,
        context: context(section)?,
        scaled: section.bool("xscaling")?,
    })
}

/// `[left, right]`, or a list of such pairs of which the first counts; -1 is all.
fn context(section: Section<'_>) -> Result<[Option<usize>; 2]> {
    const KEY: &str = "att_context_size";
    let value = section.required(KEY)?;
    let first = value.as_array().and_then(|list| list.first());
    let pair = match first {
        Some(Value::Array(pair)) => pair,
        _ => value.as_array().map_or(&[][..], |list| list),
    };
    let steps = |value: &Value| match value.as_i64() {
        Some(-1) => Some(None),
        Some(steps) => usize::try_from(steps).ok().map(Some),
        None => None,
    };
    let parsed: Option<Vec<Option<usize>>> = pair.iter().map(steps).collect();
    match parsed.as_deref() {
        Some(&[left, right]) => Ok([left, right]),
        _ => Err(section.wrong(KEY, "two numbers from -1", value)),
    }
}

fn depth(section: Section<'_>, limits: &Limits) -> Result<DepthConfig> {
    let width = section.width("dim", limits)?;
    // Heads rotate pairs of numbers.
    if !width.is_multiple_of(2 * DepthConfig::HEADS) {
        let detail = format!("{width} is not a multiple of {}", 2 * DepthConfig::HEADS);
        return Err(Error::config("depthformer.dim", detail));
    }
    Ok(DepthConfig {
        layers: section.size("layers", limits.layers)?,
        width,
        tied: section.bool("tie")?,
    })
}

fn codebook_weight(root: Section<'_>) -> Result<CodebookWeight> {
    const KEY: &str = "codebook_weight";
    let value = root.required(KEY)?;
    match value.as_str() {
        Some("log") => Ok(CodebookWeight::Log),
        Some("linear") => Ok(CodebookWeight::Linear),
        _ => Err(root.wrong(KEY, "\"log\" or \"linear\"", value)),
    }
}

fn positive(root: Section<'_>, key: &str, default: Option<f64>) -> Result<f64> {
    let found = match default {
        Some(default) => root.float_or(key, default)?,
        None => root.float(key)?,
    };
    if found > 0.0 {
        return Ok(found);
    }
    Err(Error::config(
        key,
        format!("expected a number above 0, found {found}"),
    ))
}

/// Facts of the detokenizer: a text backbone whose attention looks at a window.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct DetokenizerConfig {
    /// The backbone.
    pub text: TextConfig,
    /// Numbers per step of the output: logarithms of magnitudes, and phases.
    pub output: usize,
}

impl DetokenizerConfig {
    /// Parses and checks the `config.json` of `audio_detokenizer`.
    ///
    /// # Errors
    /// As [`AudioConfig::from_json`].
    pub fn from_json(json: &Value, limits: &Limits) -> Result<Self> {
        let root = Section::root(json)?;
        let mut config = json.clone();
        if let Some(map) = config.as_object_mut() {
            map.entry("model_type").or_insert_with(|| json!("lfm2"));
            let kinds = map.get_mut("layer_types").and_then(Value::as_array_mut);
            // Both names mean attention over the window here.
            for kind in kinds.into_iter().flatten() {
                if kind == LayerKind::SlidingAttention.name() {
                    *kind = json!(LayerKind::FullAttention.name());
                }
            }
        }
        let mut text = TextConfig::from_json_within(&config, limits)?;
        text.sliding_window = root.width("sliding_window", limits)?;
        text.sliding_rope = text.rope;
        for kind in &mut text.layers {
            if *kind == LayerKind::FullAttention {
                *kind = LayerKind::SlidingAttention;
            }
        }
        let output = root.width("output_size", limits)?;
        if !output.is_multiple_of(2) || output < 4 {
            let detail = format!("expected an even number from 4, found {output}");
            return Err(Error::config("output_size", detail));
        }
        Ok(Self { text, output })
    }
}
