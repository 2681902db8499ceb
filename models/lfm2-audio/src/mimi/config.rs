//! [`MimiConfig`]: the sizes of the codec, which its files do not state.

use crate::config::{CODES, FRAME_SAMPLES};
use lfm2_hub::{Error, Result};

/// Sizes of a Mimi codec; the default is the released one.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct MimiConfig {
    /// Width of latents and of both transformers.
    pub dimension: usize,
    /// Channels of the convolutions nearest to the sound.
    pub filters: usize,
    /// Strides of the decoder's stages, first to last.
    pub ratios: Vec<usize>,
    /// Kernel of the convolutions at the latents.
    pub kernel: usize,
    /// Kernel of the residual blocks.
    pub residual_kernel: usize,
    /// Kernel of the last convolution of decoder and encoder.
    pub last_kernel: usize,
    /// By how much residual blocks narrow.
    pub compress: usize,
    /// Attention heads.
    pub heads: usize,
    /// Layers of each transformer.
    pub layers: usize,
    /// Width of their feed-forward layers.
    pub ffn: usize,
    /// Steps attention sees, the query's own included.
    pub context: usize,
    /// Longest period of the rotary embedding.
    pub max_period: f64,
    /// Width of code vectors.
    pub code_width: usize,
    /// Codebooks used.
    pub codebooks: usize,
}

impl Default for MimiConfig {
    fn default() -> Self {
        Self {
            dimension: 512,
            filters: 64,
            ratios: vec![8, 6, 5, 4],
            kernel: 7,
            residual_kernel: 3,
            last_kernel: 3,
            compress: 2,
            heads: 8,
            layers: 8,
            ffn: 2048,
            context: 250,
            max_period: 10_000.0,
            code_width: 256,
            codebooks: 8,
        }
    }
}

impl MimiConfig {
    /// Rows of every code table.
    pub(super) const BINS: usize = CODES as usize;
    /// Latents per step of the codes: the transformers run at twice their rate.
    pub(super) const UPSAMPLING: usize = 2;

    /// Checks that the sizes fit together.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`] naming those that do not.
    pub fn check(&self) -> Result<()> {
        let step = self.ratios.iter().product::<usize>() * Self::UPSAMPLING;
        if step != FRAME_SAMPLES {
            let detail = format!("a code frame is {step} samples, expected {FRAME_SAMPLES}");
            return Err(Error::config("mimi: ratios", detail));
        }
        if self.heads == 0 || !self.dimension.is_multiple_of(2 * self.heads) {
            let detail = format!("{} over {} heads", self.dimension, self.heads);
            return Err(Error::config("mimi: dimension, heads", detail));
        }
        let most = [self.context, self.codebooks, self.compress, self.filters];
        if most.contains(&0) || self.filters < self.compress {
            return Err(Error::config(
                "mimi",
                format!("sizes that cannot be: {self:?}"),
            ));
        }
        Ok(())
    }

    /// Channels at the latents' end.
    pub(super) fn widest(&self) -> usize {
        self.filters << self.ratios.len()
    }
}
