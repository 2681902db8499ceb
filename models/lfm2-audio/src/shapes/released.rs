//! The released sizes, with random weights: for measuring without the files.

use std::sync::Arc;

use lfm2_hub::gguf::Quantization;
use lfm2_hub::{Limits, Result, StoredType, SyntheticSource, TensorSource, Tokenizer};
use lfm2_nn::DType;
use lfm2_text::LoadOptions;
use serde_json::{Value, json};

use super::Shapes;
use crate::layout::matrix_shape;
use crate::{AudioConfig, AudioModel, Detokenizer, DetokenizerConfig, PartTypes, Vocoder};

/// Names of the shape; all releases share it.
const NAMES: [&str; 2] = ["LFM2.5-Audio-1.5B", "LFM2.5-Audio-1.5B-JP"];

/// The shape of the released models that speak through the detokenizer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Released {
    name: &'static str,
}

/// The shape called `name`, in any case; `None` for other names.
pub fn find(name: &str) -> Option<Released> {
    let found = NAMES.iter().find(|known| known.eq_ignore_ascii_case(name));
    found.map(|name| Released { name })
}

impl Released {
    /// The model's name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The `config.json` of the model, as far as its shape is concerned.
    pub fn config_json(&self) -> Value {
        json!({
            "architectures": ["Lfm2AudioForConditionalGeneration"],
            "codebooks": 8,
            "tie_audio_embeddings": false,
            "semantic_codebook_factor": 100,
            "codebook_weight": "log",
            "interleaved_n_text": 6,
            "interleaved_n_audio": 12,
            "preprocessor": {
                "sample_rate": 16_000, "normalize": "per_feature", "window_size": 0.025,
                "window_stride": 0.01, "window": "hann", "features": 128, "n_fft": 512, "log": true,
                "frame_splicing": 1, "pad_to": 0,
            },
            "encoder": {
                "feat_in": 128, "feat_out": -1, "n_layers": 17, "d_model": 512, "n_heads": 8,
                "subsampling": "dw_striding", "subsampling_factor": 8,
                "subsampling_conv_channels": 256, "causal_downsampling": false, "ff_expansion_factor": 4,
                "self_attention_model": "rel_pos", "att_context_size": [-1, -1], "xscaling": false,
                "conv_kernel_size": 9, "conv_norm_type": "batch_norm",
            },
            "lfm": lfm2_text::shapes::find("LFM2-1.2B").map(|shape| shape.config_json()).ok(),
            "depthformer": {"layers": 6, "dim": 1024, "tie": true},
        })
    }

    /// The `config.json` of the detokenizer.
    pub fn detokenizer_json(&self) -> Value {
        let layers = "ccscscsc".chars().map(|c| match c {
            's' => "sliding_attention",
            _ => "conv",
        });
        json!({
            "model_type": "lfm2",
            "hidden_size": 512,
            "num_hidden_layers": 8,
            "layer_types": layers.collect::<Vec<_>>(),
            "num_attention_heads": 16,
            "num_key_value_heads": 8,
            "intermediate_size": 2304,
            "block_auto_adjust_ff_dim": false,
            "sliding_window": 30,
            "conv_L_cache": 3,
            "norm_eps": 1e-5,
            "rope_theta": 1e6,
            "vocab_size": 65_536,
            "output_size": 1282,
        })
    }

    /// The model's checked config.
    ///
    /// # Errors
    /// None; a test holds that.
    pub fn config(&self) -> Result<AudioConfig> {
        AudioConfig::from_json(&self.config_json(), &Limits::default())
    }

    /// The detokenizer's checked config.
    ///
    /// # Errors
    /// None; a test holds that.
    pub fn detokenizer_config(&self) -> Result<DetokenizerConfig> {
        DetokenizerConfig::from_json(&self.detokenizer_json(), &Limits::default())
    }

    /// Numbers in the model, without those of the detokenizer and of tied heads that are stored twice.
    ///
    /// # Errors
    /// As [`config`](Self::config).
    pub fn parameters(&self) -> Result<u64> {
        let shapes = super::model(&self.config()?);
        let numbers = shapes
            .iter()
            .map(|(_, shape)| shape.iter().product::<usize>() as u64);
        Ok(numbers.sum())
    }

    /// Random weights for the model, stored in `types`.
    ///
    /// # Errors
    /// [`Unsupported`](lfm2_hub::Error::Unsupported) for types that random weights do not come in.
    pub fn tensors(&self, types: PartTypes, seed: u64) -> Result<SyntheticSource> {
        let shapes = super::model(&self.config()?);
        random(shapes, |name| types.of_model(name), seed)
    }

    /// Random weights for the detokenizer, stored in `types`.
    ///
    /// # Errors
    /// As [`tensors`](Self::tensors).
    pub fn detokenizer_tensors(&self, types: PartTypes, seed: u64) -> Result<SyntheticSource> {
        let config = self.detokenizer_config()?;
        let mut shapes = super::detokenizer(&config, self.config()?.codebooks);
        // Nobody looks at its tokens.
        shapes.retain(|(name, _)| name != "lfm.embed_tokens.weight");
        random(shapes, |name| types.of_detokenizer(name), seed)
    }

    /// The model with random weights. They do not know any `tokenizer`, so any will do.
    ///
    /// # Errors
    /// As [`tensors`](Self::tensors).
    pub fn synthetic(
        &self,
        types: PartTypes,
        seed: u64,
        tokenizer: Tokenizer,
        options: &LoadOptions,
    ) -> Result<AudioModel> {
        let config = self.config()?;
        let sound: Arc<dyn TensorSource> = Arc::new(self.detokenizer_tensors(types, seed)?);
        let facts = self.detokenizer_config()?;
        let detokenizer = Detokenizer::from_tensors(facts, config.codebooks, sound, options)?;
        let tensors = Arc::new(self.tensors(types, seed)?);
        let model = AudioModel::from_tensors(config, tensors, tokenizer, options)?;
        Ok(model.with_vocoder(Some(Vocoder::Detokenizer(Box::new(detokenizer)))))
    }
}

/// Random tensors with types by name; what no rule names is `F32`.
fn random(
    shapes: Shapes,
    rule: impl Fn(&str) -> Option<Quantization>,
    seed: u64,
) -> Result<SyntheticSource> {
    let typed = shapes.into_iter().map(|(name, shape)| {
        let plain = StoredType::Dense(DType::F32);
        let stored = rule(&name).map_or(plain, Quantization::stored);
        // As matrices, which is how they are loaded and quantised.
        (name, matrix_shape(shape), stored)
    });
    SyntheticSource::typed(typed, seed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use lfm2_hub::Error;

    #[test]
    fn the_shape_is_the_published_one() -> Result<()> {
        let shape = find("lfm2.5-audio-1.5b").ok_or_else(|| Error::InvalidInput("name".into()))?;
        assert_eq!(shape.name(), "LFM2.5-Audio-1.5B");
        assert!(find("lfm2-350m").is_none());
        // Of 1,470,308,513: less heads stored twice (8 x 2049 x 1024 of the depth model, 16392 x 2048 of
        // the codes with their norm of 2048), offsets, loss weights, and counters of 17 batch norms.
        let twice = 8 * 2049 * 1024 + 16_392 * 2048 + 2048;
        assert_eq!(shape.parameters()?, 1_470_308_513 - twice - 8 - 8 - 17);
        assert_eq!(shape.detokenizer_config()?.text.layers.len(), 8);
        Ok(())
    }
}
