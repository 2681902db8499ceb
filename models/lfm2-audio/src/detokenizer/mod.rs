//! The LFM2.5 detokenizer: from codes to sound by a small LFM2 stack and an inverse Fourier transform.
//!
//! Every frame of codes becomes six steps of 320 samples. The stack is causal with a window, and the
//! overlap of the transform is a few frames, so decoding frame by frame gives the same samples as
//! decoding all at once, from a state of fixed size.

mod istft;

use candle_core::{DType, Result, bail};
use lfm2_hub::TensorSource;
use lfm2_nn::{
    Bias, Cache, CacheSpec, Decoder, Embedding, Input, Linear, Module, Step, Tensor, Want,
};
use lfm2_text::{LoadOptions, TextModel};
use std::sync::Arc;

use crate::config::{CODES, DetokenizerConfig, FRAME_SAMPLES};
use crate::layout::AsMatrices;
use crate::types::{self, Holds};
use istft::Istft;

/// Steps of the stack per frame of codes.
const STEPS_PER_FRAME: usize = 6;
/// Frames that go through the stack at a time: bounds the memory of long pieces.
const PIECE: usize = 64;

/// The LFM2.5 detokenizer. Immutable; the state of a running piece is a [`DetokenizerStream`].
#[derive(Debug, Clone)]
pub struct Detokenizer {
    codebooks: usize,
    window: usize,
    n_fft: usize,
    embedding: Embedding,
    stack: TextModel,
    out: Linear,
}

impl Detokenizer {
    /// Builds the detokenizer from the config and the tensors of its folder.
    ///
    /// # Errors
    /// When a tensor is missing or contradicts the config.
    pub fn from_tensors(
        config: DetokenizerConfig,
        codebooks: usize,
        tensors: Arc<dyn TensorSource>,
        options: &LoadOptions,
    ) -> lfm2_hub::Result<Self> {
        let tensors = Arc::new(AsMatrices::new(tensors));
        let weights = types::weights(options, tensors, Holds::Detokenizer);
        let hidden = config.text.hidden_size;
        let n_fft = config.output - 2;
        Istft::check(n_fft, FRAME_SAMPLES / STEPS_PER_FRAME)?;
        let loaded = Self {
            codebooks,
            window: config.text.sliding_window,
            n_fft,
            embedding: weights
                .pp("emb")
                .pp("emb")
                .embedding(codebooks * CODES as usize, hidden)?,
            out: weights
                .pp("lin")
                .linear(hidden, config.output, Bias::With)?,
            stack: TextModel::load_trunk(config.text, &weights.pp("lfm"))?,
        };
        weights.finish();
        Ok(loaded)
    }

    /// Codes per frame.
    pub fn codebooks(&self) -> usize {
        self.codebooks
    }

    /// The sound of `frames` of codes, 1,920 samples each.
    ///
    /// # Errors
    /// As [`DetokenizerStream::push`].
    pub fn decode(&self, frames: &[Vec<u32>]) -> Result<Vec<f32>> {
        let mut stream = self.stream();
        let mut samples = stream.push(self, frames)?;
        samples.extend(stream.finish());
        Ok(samples)
    }

    /// The state of a piece of sound that has not begun.
    pub fn stream(&self) -> DetokenizerStream {
        DetokenizerStream {
            cache: self.stack.new_cache(CacheSpec::rows(1)),
            istft: Istft::new(self.n_fft, FRAME_SAMPLES / STEPS_PER_FRAME),
        }
    }

    /// Means of the embeddings of each frame's codes, `(frames, hidden)`.
    ///
    /// # Errors
    /// When a frame has another number of codes, or a code is no sound.
    pub fn embed(&self, frames: &[Vec<u32>]) -> Result<Tensor> {
        let mut ids = Vec::with_capacity(frames.len() * self.codebooks);
        for codes in frames {
            check_codes(codes, self.codebooks)?;
            ids.extend(codes.iter().zip(0..).map(|(code, k)| code + CODES * k));
        }
        let ids = Tensor::from_vec(ids, frames.len() * self.codebooks, self.stack.device())?;
        let rows = self.embedding.forward(&ids)?;
        let width = rows.dim(1)?;
        rows.reshape((frames.len(), self.codebooks, width))?.mean(1)
    }

    /// Hidden states of the steps of embedded frames `(frames, hidden)`, `(6 frames, hidden)`.
    ///
    /// # Errors
    /// When shapes disagree or the device fails.
    pub fn hidden(&self, embedded: &Tensor, cache: &mut Cache) -> Result<Tensor> {
        let (frames, width) = embedded.dims2()?;
        let steps = frames * STEPS_PER_FRAME;
        let x = embedded
            .unsqueeze(1)?
            .broadcast_as((frames, STEPS_PER_FRAME, width))?
            .reshape((steps, width))?;
        let input = Input::Embeddings(&x);
        self.stack
            .forward(input, &Step::single(steps), cache, Want::Hidden)
    }

    /// Logarithms of magnitudes and phases of hidden states, `(steps, output)`.
    ///
    /// # Errors
    /// When shapes disagree or the device fails.
    pub fn spectrum(&self, hidden: &Tensor) -> Result<Tensor> {
        self.out.forward(hidden)
    }

    /// An empty state of the stack.
    pub fn new_cache(&self) -> Cache {
        self.stack.new_cache(CacheSpec::rows(1))
    }
}

/// A piece of sound on its way out of a [`Detokenizer`].
#[derive(Debug)]
pub struct DetokenizerStream {
    cache: Cache,
    istft: Istft,
}

impl DetokenizerStream {
    /// Decodes the next frames and returns the samples that are finished: all but the last 480.
    ///
    /// # Errors
    /// When a frame has another number of codes than there are codebooks, a code is no sound, or the
    /// device fails.
    pub fn push(&mut self, detokenizer: &Detokenizer, frames: &[Vec<u32>]) -> Result<Vec<f32>> {
        let mut samples = Vec::with_capacity(frames.len() * FRAME_SAMPLES);
        for frames in frames.chunks(PIECE) {
            let embedded = detokenizer.embed(frames)?;
            let hidden = detokenizer.hidden(&embedded, &mut self.cache)?;
            // No query looks further back than the window, its own step included.
            self.cache.forget(0, detokenizer.window.saturating_sub(1))?;
            let spectrum = detokenizer.spectrum(&hidden)?.to_dtype(DType::F32)?;
            for step in spectrum.to_vec2::<f32>()? {
                self.istft.push(&step, &mut samples);
            }
        }
        Ok(samples)
    }

    /// Ends the piece and returns its last samples.
    pub fn finish(self) -> Vec<f32> {
        self.istft.finish()
    }

    /// Bytes this state holds.
    pub fn bytes(&self) -> usize {
        self.cache.bytes() + self.istft.bytes()
    }
}

/// Refuses a frame of another size, and codes that stand for no sound.
pub(crate) fn check_codes(codes: &[u32], codebooks: usize) -> Result<()> {
    if codes.len() != codebooks {
        bail!("a frame of {} codes, expected {codebooks}", codes.len());
    }
    match codes.iter().find(|code| **code >= CODES) {
        Some(code) => bail!("code {code} stands for no sound, expected codes below {CODES}"),
        None => Ok(()),
    }
}
