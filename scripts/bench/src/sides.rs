//! The two implementations behind one trait.

use std::fs::File;

use anyhow::Result;
use candle_core::quantized::gguf_file;
use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::{lfm2 as dense, quantized_lfm2 as quantized};
use lfm2::ModelSource;
use lfm2::hub::{Checkpoint, OpenOptions};
use lfm2::nn::{Cache, CacheSpec, Decoder, Input, Step, Want};
use lfm2::text::{LoadOptions, TextModel};

use crate::weights::{Format, Weights};

/// A loaded model with the state of one sequence.
pub trait Side {
    /// Forgets the sequence.
    fn reset(&mut self);

    /// Feeds `ids` after what was fed before; the logits of the last one.
    fn feed(&mut self, ids: &[u32]) -> Result<Tensor>;
}

/// This project.
pub struct Ours {
    model: TextModel,
    cache: Cache,
}

impl Ours {
    /// Opens the weights, with room for `room` tokens.
    pub fn open(weights: &Weights, room: usize) -> Result<Self> {
        let source = ModelSource::from_path(weights.checkpoint());
        let checkpoint = Checkpoint::open(&source, &OpenOptions::default())?;
        let model = TextModel::from_checkpoint(&checkpoint, &LoadOptions::default())?;
        let cache = model.new_cache(CacheSpec::rows(1).with_capacity(room));
        Ok(Self { model, cache })
    }
}

impl Side for Ours {
    fn reset(&mut self) {
        self.cache.clear();
    }

    fn feed(&mut self, ids: &[u32]) -> Result<Tensor> {
        let step = Step::single(ids.len());
        let ids = Tensor::new(ids, &Device::Cpu)?;
        Ok(self
            .model
            .forward(Input::Ids(&ids), &step, &mut self.cache, Want::LastLogits)?)
    }
}

/// candle-transformers: one model for plain numbers, another for blocks.
pub struct Peer {
    model: PeerModel,
    position: usize,
}

enum PeerModel {
    Dense(Box<dense::Model>, Box<dense::Cache>),
    Quantized(Box<quantized::ModelWeights>),
}

impl Peer {
    /// Opens the weights in the number type they are stored in.
    pub fn open(weights: &Weights) -> Result<Self> {
        let model = match weights.format {
            Format::F32 => open_dense(weights, DType::F32)?,
            Format::Bf16 => open_dense(weights, DType::BF16)?,
            Format::Q8_0 | Format::Q4_0 => {
                let mut file = File::open(weights.path())?;
                let content = gguf_file::Content::read(&mut file)?;
                let model = quantized::ModelWeights::from_gguf(content, &mut file, &Device::Cpu)?;
                PeerModel::Quantized(Box::new(model))
            }
        };
        Ok(Self { model, position: 0 })
    }
}

fn open_dense(weights: &Weights, dtype: DType) -> Result<PeerModel> {
    let config: dense::Lfm2Config = serde_json::from_value(weights.config.clone())?;
    let config = config.into_config(false);
    // SAFETY: the file is in a folder of this process alone and is not written again.
    let tensors = unsafe { VarBuilder::from_mmaped_safetensors(&[weights.path()], dtype, &Device::Cpu)? };
    let cache = dense::Cache::new(true, dtype, &config, &Device::Cpu)?;
    Ok(PeerModel::Dense(
        Box::new(dense::Model::new(&config, tensors)?),
        Box::new(cache),
    ))
}

impl Side for Peer {
    /// The quantised model starts over by itself when it is fed several tokens at position 0.
    fn reset(&mut self) {
        if let PeerModel::Dense(_, cache) = &mut self.model {
            cache.clear();
        }
        self.position = 0;
    }

    fn feed(&mut self, ids: &[u32]) -> Result<Tensor> {
        let input = Tensor::new(ids, &Device::Cpu)?.unsqueeze(0)?;
        let logits = match &mut self.model {
            PeerModel::Dense(model, cache) => model.forward(&input, self.position, cache)?,
            PeerModel::Quantized(model) => model.forward(&input, self.position)?,
        };
        self.position += ids.len();
        Ok(logits)
    }
}
