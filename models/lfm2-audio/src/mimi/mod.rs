//! The Mimi codec: 24 kHz sound to 12.5 frames of codes per second, and back.
//!
//! LFM2-Audio speaks in its codes; the encoder makes them of recordings, for training. Every part is
//! causal and keeps the little it needs of the past, so sound may come and go in pieces of any size:
//! the result is that of one piece, from a state of fixed size. It runs on the CPU.

mod config;
mod conv;
mod quantizer;
mod seanet;
mod transformer;

use std::path::Path;
use std::sync::Arc;

use candle_core::Result;
use lfm2_hub::{Limits, Mapping, SafetensorsSource, TensorSource};
use lfm2_nn::{Accuracy, DType, Device, Tensor, Weights};

use crate::config::FRAME_SAMPLES;
use crate::detokenizer::check_codes;
use crate::layout::AsMatrices;
pub use config::MimiConfig;
use conv::{Before, CausalConv, ConvState, Upsampling, UpsamplingState, check_whole};
use quantizer::Quantizer;
use seanet::{DecoderState, EncoderState, SeanetDecoder, SeanetEncoder};
use transformer::{Transformer, TransformerState};

/// Frames that go through a decoder or encoder at a time: bounds the memory of long pieces.
const PIECE: usize = 16;

/// The part of Mimi that makes sound of codes. Immutable; the state of a running piece is a
/// [`MimiStream`].
#[derive(Debug, Clone)]
pub struct Mimi {
    codebooks: usize,
    quantizer: Quantizer,
    upsample: Upsampling,
    transformer: Transformer,
    decoder: SeanetDecoder,
}

/// A piece of sound on its way out of [`Mimi`].
#[derive(Debug, Clone)]
pub struct MimiStream {
    upsample: UpsamplingState,
    transformer: TransformerState,
    decoder: DecoderState,
}

impl Mimi {
    /// Opens the decoder of a Mimi file.
    ///
    /// # Errors
    /// As [`Mimi::from_tensors`], and when the file cannot be read.
    pub fn open(path: &Path, config: &MimiConfig, limits: &Limits) -> lfm2_hub::Result<Self> {
        Self::from_tensors(config, file(path, limits)?)
    }

    /// Builds the decoder from the tensors of a Mimi file, in the naming of its first release.
    ///
    /// # Errors
    /// When a tensor is missing or has another shape than `config` says.
    pub fn from_tensors(
        config: &MimiConfig,
        tensors: Arc<dyn TensorSource>,
    ) -> lfm2_hub::Result<Self> {
        config.check()?;
        let weights = weights(tensors);
        let upsample = weights.pp("upsample.convtr.convtr.convtr");
        Ok(Self {
            codebooks: config.codebooks,
            quantizer: Quantizer::load(config, &weights.pp("quantizer"))?,
            upsample: Upsampling::load_depthwise(
                &upsample,
                config.dimension,
                MimiConfig::UPSAMPLING,
            )?,
            transformer: Transformer::load(config, &weights.pp("decoder_transformer"))?,
            decoder: SeanetDecoder::load(config, &weights.pp("decoder"))?,
        })
    }

    /// Codes per frame.
    pub fn codebooks(&self) -> usize {
        self.codebooks
    }

    /// The sound of `frames` of codes, 1,920 samples each.
    ///
    /// # Errors
    /// As [`MimiStream::push`].
    pub fn decode(&self, frames: &[Vec<u32>]) -> Result<Vec<f32>> {
        let mut stream = self.stream();
        let mut samples = Vec::with_capacity(frames.len() * FRAME_SAMPLES);
        for piece in frames.chunks(PIECE) {
            samples.extend(stream.push(self, piece)?);
        }
        Ok(samples)
    }

    /// What codes stand for, `(frames, dimension)`.
    ///
    /// # Errors
    /// As [`MimiStream::push`].
    pub fn latents(&self, frames: &[Vec<u32>]) -> Result<Tensor> {
        for codes in frames {
            check_codes(codes, self.codebooks)?;
        }
        self.quantizer.decode(frames)
    }

    /// The state of a piece of sound that has not begun.
    pub fn stream(&self) -> MimiStream {
        MimiStream {
            upsample: UpsamplingState::default(),
            transformer: self.transformer.state(),
            decoder: self.decoder.state(),
        }
    }
}

impl MimiStream {
    /// The sound of the next frames.
    ///
    /// # Errors
    /// When a frame has another number of codes than there are codebooks, or a code is no sound.
    pub fn push(&mut self, mimi: &Mimi, frames: &[Vec<u32>]) -> Result<Vec<f32>> {
        if frames.is_empty() {
            return Ok(Vec::new());
        }
        let latents = mimi.latents(frames)?;
        let x = mimi.upsample.forward(&latents, &mut self.upsample)?;
        let x = mimi.transformer.forward(&x, &mut self.transformer)?;
        let x = mimi.decoder.forward(&x, &mut self.decoder)?;
        x.flatten_all()?.to_vec1()
    }

    /// Bytes this state holds.
    pub fn bytes(&self) -> usize {
        self.upsample.bytes() + self.transformer.bytes() + self.decoder.bytes()
    }
}

/// The part of Mimi that makes codes of sound. Immutable.
#[derive(Debug, Clone)]
pub struct MimiEncoder {
    encoder: SeanetEncoder,
    transformer: Transformer,
    downsample: CausalConv,
    quantizer: Quantizer,
}

/// A piece of sound on its way into a [`MimiEncoder`].
#[derive(Debug, Clone)]
pub struct MimiEncoderStream {
    encoder: EncoderState,
    transformer: TransformerState,
    downsample: ConvState,
}

impl MimiEncoder {
    /// Opens the encoder of a Mimi file.
    ///
    /// # Errors
    /// As [`Mimi::from_tensors`], and when the file cannot be read.
    pub fn open(path: &Path, config: &MimiConfig, limits: &Limits) -> lfm2_hub::Result<Self> {
        Self::from_tensors(config, file(path, limits)?)
    }

    /// Builds the encoder from the tensors of a Mimi file.
    ///
    /// # Errors
    /// As [`Mimi::from_tensors`].
    pub fn from_tensors(
        config: &MimiConfig,
        tensors: Arc<dyn TensorSource>,
    ) -> lfm2_hub::Result<Self> {
        config.check()?;
        let weights = weights(tensors);
        let (width, stride) = (config.dimension, MimiConfig::UPSAMPLING);
        let downsample = weights.pp("downsample.conv.conv.conv");
        Ok(Self {
            encoder: SeanetEncoder::load(config, &weights.pp("encoder"))?,
            transformer: Transformer::load(config, &weights.pp("encoder_transformer"))?,
            downsample: CausalConv::load(&downsample, [width, width], 2 * stride, stride)?
                .after(Before::First),
            quantizer: Quantizer::load(config, &weights.pp("quantizer"))?,
        })
    }

    /// The codes of sound at 24 kHz, frame by frame; silence fills the last frame.
    ///
    /// # Errors
    /// When the device fails.
    pub fn encode(&self, samples: &[f32]) -> Result<Vec<Vec<u32>>> {
        self.quantizer.encode(&self.latents(samples)?)
    }

    /// What is quantised, `(frames, dimension)`.
    ///
    /// # Errors
    /// When the device fails.
    pub fn latents(&self, samples: &[f32]) -> Result<Tensor> {
        let mut stream = self.stream();
        let mut latents = Vec::new();
        for piece in samples.chunks(PIECE * FRAME_SAMPLES) {
            let mut piece = piece.to_vec();
            piece.resize(piece.len().next_multiple_of(FRAME_SAMPLES), 0.0);
            latents.push(stream.push(self, &piece)?);
        }
        if latents.is_empty() {
            candle_core::bail!("sound without samples")
        }
        Tensor::cat(&latents, 0)
    }

    /// The state of a piece of sound that has not begun.
    pub fn stream(&self) -> MimiEncoderStream {
        MimiEncoderStream {
            encoder: self.encoder.state(),
            transformer: self.transformer.state(),
            downsample: ConvState::default(),
        }
    }
}

impl MimiEncoderStream {
    /// The latents of the next frames, `(frames, dimension)`, of whole frames of 1,920 samples.
    ///
    /// # Errors
    /// When the samples are not whole frames.
    pub fn push(&mut self, mimi: &MimiEncoder, samples: &[f32]) -> Result<Tensor> {
        check_whole(samples.len(), FRAME_SAMPLES)?;
        let x = Tensor::from_slice(samples, (samples.len(), 1), &Device::Cpu)?;
        let x = mimi.encoder.forward(&x, &mut self.encoder)?;
        let x = mimi.transformer.forward(&x, &mut self.transformer)?;
        mimi.downsample.forward(&x, &mut self.downsample)
    }

    /// The codes of the next frames, of whole frames of 1,920 samples.
    ///
    /// # Errors
    /// When the samples are not whole frames.
    pub fn codes(&mut self, mimi: &MimiEncoder, samples: &[f32]) -> Result<Vec<Vec<u32>>> {
        let latents = self.push(mimi, samples)?;
        mimi.quantizer.encode(&latents)
    }
}

/// Products with full accuracy: errors of a codec are heard.
fn weights(tensors: Arc<dyn TensorSource>) -> Weights {
    Weights::new(Arc::new(AsMatrices::new(tensors)), DType::F32, &Device::Cpu)
        .with_accuracy(Accuracy::Exact)
}

fn file(path: &Path, limits: &Limits) -> lfm2_hub::Result<Arc<dyn TensorSource>> {
    let source = SafetensorsSource::open(path, Mapping::default(), limits)?;
    Ok(Arc::new(source))
}
