//! Codes and the latents they stand for.
//!
//! The first codebook is the semantic one and quantises the latent itself; the others are acoustic and
//! quantise it once more, each what the ones before left over.

use candle_core::{DType, Result, bail};
use lfm2_nn::{Bias, Linear, Matrix, Module, Tensor, Weights};

use super::MimiConfig;

/// Uses of a code that count as none.
const LEAST_USAGE: f64 = 1e-5;

/// Both branches of the quantiser.
#[derive(Debug, Clone)]
pub(super) struct Quantizer {
    semantic: Branch,
    acoustic: Branch,
}

#[derive(Debug, Clone)]
struct Branch {
    input: Linear,
    output: Linear,
    codebooks: Vec<Codebook>,
}

#[derive(Debug, Clone)]
struct Codebook {
    /// `(codes, width)`.
    table: Tensor,
    /// Inner products with all codes.
    products: Linear,
    /// Half of every code's squared length.
    half_squares: Vec<f32>,
}

impl Quantizer {
    pub(super) fn load(config: &MimiConfig, weights: &Weights) -> lfm2_hub::Result<Self> {
        let acoustic = config.codebooks.saturating_sub(1);
        Ok(Self {
            semantic: Branch::load(config, 1, &weights.pp("rvq_first"))?,
            acoustic: Branch::load(config, acoustic, &weights.pp("rvq_rest"))?,
        })
    }

    /// The latents of frames of codes, `(frames, dimension)`. The codes have been checked.
    pub(super) fn decode(&self, frames: &[Vec<u32>]) -> Result<Tensor> {
        let semantic = self.semantic.decode(frames, 0)?;
        if self.acoustic.codebooks.is_empty() {
            return Ok(semantic);
        }
        semantic + self.acoustic.decode(frames, 1)?
    }

    /// The codes of latents `(frames, dimension)`, frame by frame.
    pub(super) fn encode(&self, latents: &Tensor) -> Result<Vec<Vec<u32>>> {
        let mut frames = vec![Vec::new(); latents.dim(0)?];
        for branch in [&self.semantic, &self.acoustic] {
            branch.encode(latents, &mut frames)?;
        }
        Ok(frames)
    }
}

impl Branch {
    fn load(config: &MimiConfig, codebooks: usize, weights: &Weights) -> lfm2_hub::Result<Self> {
        let (outer, inner) = (config.dimension, config.code_width);
        let layers = weights.pp("vq").pp("layers");
        let codebook = |i: usize| Codebook::load(inner, &layers.pp(i).pp("_codebook"));
        let linear = |name: &str, input, output| -> lfm2_hub::Result<Linear> {
            Ok(weights
                .pp(name)
                .linear(input, output, Bias::Without)?
                .exact())
        };
        Ok(Self {
            input: linear("input_proj", outer, inner)?,
            output: linear("output_proj", inner, outer)?,
            codebooks: (0..codebooks)
                .map(codebook)
                .collect::<lfm2_hub::Result<_>>()?,
        })
    }

    /// The sum of what the codes from `first` on stand for.
    fn decode(&self, frames: &[Vec<u32>], first: usize) -> Result<Tensor> {
        let mut sum: Option<Tensor> = None;
        for (k, codebook) in self.codebooks.iter().enumerate() {
            let codes = frames.iter().map(|codes| codes.get(first + k).copied());
            let Some(codes) = codes.collect::<Option<Vec<u32>>>() else {
                bail!("a frame without code {}", first + k)
            };
            let ids = Tensor::new(codes, codebook.table.device())?;
            let vectors = codebook.table.index_select(&ids, 0)?;
            sum = Some(match sum {
                Some(sum) => (sum + vectors)?,
                None => vectors,
            });
        }
        match sum {
            Some(sum) => self.output.forward(&sum),
            None => bail!("a quantiser without codebooks"),
        }
    }

    /// Appends the nearest codes of every latent.
    fn encode(&self, latents: &Tensor, frames: &mut [Vec<u32>]) -> Result<()> {
        let mut residual = self.input.forward(latents)?;
        for codebook in &self.codebooks {
            let codes = codebook.nearest(&residual)?;
            let ids = Tensor::new(codes.as_slice(), residual.device())?;
            residual = (residual - codebook.table.index_select(&ids, 0)?)?;
            for (frame, code) in frames.iter_mut().zip(codes) {
                frame.push(code);
            }
        }
        Ok(())
    }
}

impl Codebook {
    /// Loads what training left: sums of vectors and how often each was used, in either spelling.
    fn load(width: usize, weights: &Weights) -> lfm2_hub::Result<Self> {
        let bins = MimiConfig::BINS;
        let spelled = |names: &[&'static str]| -> &'static str {
            let found = names.iter().find(|name| weights.contains(name));
            found.or(names.first()).copied().unwrap_or_default()
        };
        let usage = spelled(&["cluster_usage", "cluster_size"]);
        let sum = spelled(&["embedding_sum", "embed_avg", "embed_sum"]);
        let usage = weights.tensor_as(usage, &[bins], DType::F32)?;
        let sum = weights.tensor_as(sum, &[bins, width], DType::F32)?;
        let usage = usage.maximum(LEAST_USAGE)?.unsqueeze(1)?;
        let table = sum.broadcast_div(&usage)?;
        let half_squares = (table.sqr()?.sum(1)? / 2.0)?.to_vec1()?;
        Ok(Self {
            products: Linear::new(Matrix::Dense(table.clone()), None)?.exact(),
            table,
            half_squares,
        })
    }

    /// The nearest code of every row: the one with the largest `x·e - |e|²/2`.
    fn nearest(&self, x: &Tensor) -> Result<Vec<u32>> {
        let products = self.products.forward(x)?.to_vec2::<f32>()?;
        let nearest = |row: Vec<f32>| -> u32 {
            let scores = row.iter().zip(&self.half_squares).map(|(p, s)| p - s);
            let mut best = (0, f32::NEG_INFINITY);
            for (code, score) in (0u32..).zip(scores) {
                if score > best.1 {
                    best = (code, score);
                }
            }
            best.0
        };
        Ok(products.into_iter().map(nearest).collect())
    }
}
