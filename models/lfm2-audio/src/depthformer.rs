//! The depth model: from one hidden state of the backbone to the codes of one frame.
//!
//! A small transformer over the codebooks of a frame instead of over time. Position `k` reads its part
//! of the projected hidden state plus the embedding of the code chosen at `k - 1`, and gives the
//! logits of code `k`. Nothing is kept from one frame to the next.

use candle_core::{D, DType, Result, bail};
use lfm2_kernels::{AttentionSpec, KvRef, KvShape, Visibility, append_kv, attention};
use lfm2_nn::{Bias, Embedding, Linear, Module, RmsNorm, SwiGlu, Tensor, Weights};

use crate::config::{CODE_ROWS, DepthConfig};
use crate::rotary::PairRotary;

const EPS: f64 = 1e-5;
const THETA: f64 = 1e6;

/// The depth model with the tables and heads of its codebooks. Immutable.
#[derive(Debug, Clone)]
pub struct Depthformer {
    width: usize,
    codebooks: Vec<Codebook>,
    /// Hidden state to the inputs of all positions.
    input: Linear,
    layers: Vec<Layer>,
}

/// What one codebook has of its own.
#[derive(Debug, Clone)]
struct Codebook {
    embedding: Embedding,
    norm: RmsNorm,
    to_logits: Linear,
}

#[derive(Debug, Clone)]
struct Layer {
    norm: RmsNorm,
    attention: DepthAttention,
    ffn_norm: RmsNorm,
    ffn: SwiGlu,
}

#[derive(Debug, Clone)]
struct DepthAttention {
    head_dim: usize,
    qkv: Linear,
    out: Linear,
    q_norm: RmsNorm,
    k_norm: RmsNorm,
    rotary: PairRotary,
}

/// Keys and values of one frame in one layer.
struct Frame {
    keys: Vec<f32>,
    values: Vec<f32>,
    shape: KvShape,
}

impl Depthformer {
    /// Loads `depthformer`, `depth_linear` and `depth_embeddings` under `weights`.
    ///
    /// # Errors
    /// When a tensor is missing or has another shape than the config says.
    pub fn load(
        config: &DepthConfig,
        codebooks: usize,
        hidden: usize,
        weights: &Weights,
    ) -> lfm2_hub::Result<Self> {
        let width = config.width;
        let codebook = |k: usize| -> lfm2_hub::Result<Codebook> {
            let weights = weights.pp("depth_embeddings").pp(k);
            let embedding = weights.pp("embedding").embedding(CODE_ROWS, width)?;
            // Checkpoints may store the tied pair twice or once; the table serves for both.
            let to_logits = if config.tied {
                embedding.as_linear()?
            } else {
                weights
                    .pp("to_logits")
                    .linear(width, CODE_ROWS, Bias::Without)?
            };
            Ok(Codebook {
                norm: RmsNorm::load(&weights.pp("embedding_norm"), width, EPS)?,
                to_logits,
                embedding,
            })
        };
        let layers = weights.pp("depthformer").pp("layers");
        Ok(Self {
            width,
            codebooks: (0..codebooks)
                .map(codebook)
                .collect::<lfm2_hub::Result<_>>()?,
            input: weights
                .pp("depth_linear")
                .linear(hidden, codebooks * width, Bias::With)?,
            layers: (0..config.layers)
                .map(|i| Layer::load(config, &layers.pp(i)))
                .collect::<lfm2_hub::Result<_>>()?,
        })
    }

    /// The codes of the frame behind `hidden (1, hidden)`: `choose` gets each codebook's logits and
    /// says which code it is.
    ///
    /// # Errors
    /// When shapes disagree, the device fails, or `choose` does.
    pub fn frame(
        &self,
        hidden: &Tensor,
        mut choose: impl FnMut(usize, &[f32]) -> Result<u32>,
    ) -> Result<Vec<u32>> {
        let inputs = self.inputs(hidden)?.squeeze(0)?;
        let mut frames: Vec<Frame> = self
            .layers
            .iter()
            .map(|layer| layer.attention.frame(self.codebooks.len()))
            .collect();
        let mut codes = Vec::with_capacity(self.codebooks.len());
        let mut previous: Option<Tensor> = None;
        for (k, codebook) in self.codebooks.iter().enumerate() {
            let own = inputs.narrow(0, k, 1)?;
            let mut x = match &previous {
                Some(previous) => (own + previous)?,
                None => own,
            };
            for (layer, frame) in self.layers.iter().zip(&mut frames) {
                x = layer.step(&x, k, frame)?;
            }
            let logits = codebook.logits(&x)?.to_dtype(DType::F32)?;
            let code = choose(k, &logits.flatten_all()?.to_vec1::<f32>()?)?;
            let id = Tensor::new(&[code], x.device())?;
            previous = Some(codebook.embedding.forward(&id)?);
            codes.push(code);
        }
        Ok(codes)
    }

    /// Logits `(frames, codebooks, codes + 1)` behind `hidden (frames, hidden)` where the codes before
    /// are `codes (frames, codebooks)`; carries gradients.
    ///
    /// # Errors
    /// When shapes disagree or the device fails.
    pub fn forced(&self, hidden: &Tensor, codes: &Tensor) -> Result<Tensor> {
        let (frames, count) = codes.dims2()?;
        if count != self.codebooks.len() {
            bail!("{count} codes per frame, expected {}", self.codebooks.len());
        }
        let inputs = self.inputs(hidden)?;
        let mut before = vec![Tensor::zeros_like(&inputs.narrow(1, 0, 1)?.squeeze(1)?)?];
        for (k, codebook) in self.codebooks.iter().enumerate().take(count - 1) {
            let ids = codes.narrow(1, k, 1)?.squeeze(1)?.contiguous()?;
            before.push(codebook.embedding.forward(&ids)?);
        }
        let mut x = (inputs + Tensor::stack(&before, 1)?)?;
        for layer in &self.layers {
            x = layer.forward(&x)?;
        }
        let logits = self.codebooks.iter().enumerate().map(|(k, codebook)| {
            codebook.logits(&x.narrow(1, k, 1)?.reshape((frames, self.width))?)
        });
        Tensor::stack(&logits.collect::<Result<Vec<_>>>()?, 1)
    }

    /// `(frames, hidden)` to `(frames, codebooks, width)`.
    fn inputs(&self, hidden: &Tensor) -> Result<Tensor> {
        let shape = (hidden.dim(0)?, self.codebooks.len(), self.width);
        self.input.forward(hidden)?.reshape(shape)
    }
}

impl Codebook {
    fn logits(&self, x: &Tensor) -> Result<Tensor> {
        self.to_logits.forward(&self.norm.forward(x)?)
    }
}

impl Layer {
    fn load(config: &DepthConfig, weights: &Weights) -> lfm2_hub::Result<Self> {
        let norm = |name: &str| RmsNorm::load(&weights.pp(name), config.width, EPS);
        let ffn = weights.pp("feed_forward");
        Ok(Self {
            norm: norm("operator_norm")?,
            attention: DepthAttention::load(config, &weights.pp("operator"))?,
            ffn_norm: norm("ffn_norm")?,
            ffn: SwiGlu::load(&ffn, config.width, config.ffn_width())?,
        })
    }

    /// Position `k` of one frame, `(1, width)`.
    fn step(&self, x: &Tensor, k: usize, frame: &mut Frame) -> Result<Tensor> {
        let x = (x + self.attention.step(&self.norm.forward(x)?, k, frame)?)?;
        &x + self.ffn.forward(&self.ffn_norm.forward(&x)?)?
    }

    /// All positions of all frames, `(frames, positions, width)`.
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (frames, positions, width) = x.dims3()?;
        let x = (x + self.attention.forward(&self.norm.forward(x)?)?)?;
        let normed = self.ffn_norm.forward(&x)?;
        let fed = self
            .ffn
            .forward(&normed.reshape((frames * positions, width))?)?;
        x + fed.reshape((frames, positions, width))?
    }
}

impl DepthAttention {
    const HEADS: usize = DepthConfig::HEADS;
    const KV_HEADS: usize = DepthConfig::KV_HEADS;

    fn load(config: &DepthConfig, weights: &Weights) -> lfm2_hub::Result<Self> {
        let (width, head_dim) = (config.width, config.head_dim());
        let rows = (Self::HEADS + 2 * Self::KV_HEADS) * head_dim;
        let linear = |name: &str, input, output| -> lfm2_hub::Result<Linear> {
            weights.pp(name).fine_linear(input, output, Bias::Without)
        };
        let norms = weights.pp("bounded_attention");
        let norm = |name: &str| RmsNorm::load(&norms.pp(name), head_dim, EPS);
        Ok(Self {
            head_dim,
            qkv: linear("qkv_proj", width, rows)?,
            out: linear("out_proj", width, width)?,
            q_norm: norm("q_layernorm")?,
            k_norm: norm("k_layernorm")?,
            rotary: PairRotary::new(head_dim, THETA),
        })
    }

    fn frame(&self, positions: usize) -> Frame {
        let shape = KvShape {
            kv_heads: Self::KV_HEADS,
            capacity: positions,
            head_dim: self.head_dim,
        };
        let len = Self::KV_HEADS * positions * self.head_dim;
        Frame {
            keys: vec![0.0; len],
            values: vec![0.0; len],
            shape,
        }
    }

    fn scale(&self) -> f64 {
        1.0 / (self.head_dim as f64).sqrt()
    }

    /// Queries, keys and values, `(rows, heads, head_dim)` each, the first two normalised.
    fn project(&self, x: &Tensor) -> Result<[Tensor; 3]> {
        let qkv = self.qkv.forward(x)?;
        let mut start = 0;
        let mut part = |heads: usize| -> Result<Tensor> {
            let width = heads * self.head_dim;
            let part = qkv.narrow(1, start, width)?.contiguous()?;
            start += width;
            part.reshape((qkv.dim(0)?, heads, self.head_dim))
        };
        let (q, k, v) = (
            part(Self::HEADS)?,
            part(Self::KV_HEADS)?,
            part(Self::KV_HEADS)?,
        );
        Ok([self.q_norm.forward(&q)?, self.k_norm.forward(&k)?, v])
    }

    fn step(&self, x: &Tensor, position: usize, frame: &mut Frame) -> Result<Tensor> {
        let isa = crate::isa()?;
        let [q, k, v] = self.project(x)?;
        let values = |t: &Tensor| t.flatten_all()?.to_dtype(DType::F32)?.to_vec1::<f32>();
        let (mut q, mut k, v) = (values(&q)?, values(&k)?, values(&v)?);
        self.rotary.rotate(&mut q, position);
        self.rotary.rotate(&mut k, position);
        let Frame {
            keys,
            values,
            shape,
        } = frame;
        let wrap = candle_core::Error::wrap;
        append_kv(&k, *shape, position, keys).map_err(wrap)?;
        append_kv(&v, *shape, position, values).map_err(wrap)?;
        let kv = KvRef::new(keys, values, *shape, position + 1).map_err(wrap)?;
        let spec = AttentionSpec {
            heads: Self::HEADS,
            scale: self.scale() as f32,
            past: position,
            visibility: Visibility::Causal,
        };
        let mut mixed = vec![0.0; q.len()];
        attention(isa, &q, kv, &spec, &mut mixed).map_err(wrap)?;
        let mixed = Tensor::from_vec(mixed, (1, q.len()), x.device())?.to_dtype(x.dtype())?;
        self.out.forward(&mixed)
    }

    /// `(frames, positions, width)` to the same, causal over the positions.
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (frames, positions, width) = x.dims3()?;
        let [q, k, v] = self.project(&x.reshape((frames * positions, width))?)?;
        let by_frame = |t: &Tensor, heads| t.reshape((frames, positions, heads, self.head_dim));
        let q = self.rotary.rotate_all(&by_frame(&q, Self::HEADS)?)?;
        let k = self.rotary.rotate_all(&by_frame(&k, Self::KV_HEADS)?)?;
        let v = by_frame(&v, Self::KV_HEADS)?;
        // Query head h uses key head h / group.
        let group = Self::HEADS / Self::KV_HEADS;
        let spread = |t: &Tensor| -> Result<Tensor> {
            let shape = (frames, positions, Self::KV_HEADS, group, self.head_dim);
            t.unsqueeze(3)?
                .broadcast_as(shape)?
                .reshape((frames, positions, Self::HEADS, self.head_dim))?
                .transpose(1, 2)?
                .contiguous()
        };
        let (k, v) = (spread(&k)?, spread(&v)?);
        let q = q.transpose(1, 2)?.contiguous()?;
        let scores = (q.matmul(&k.transpose(2, 3)?)? * self.scale())?;
        let mask = (0..positions).flat_map(|query| {
            (0..positions).map(move |key| if key <= query { 0.0 } else { f32::NEG_INFINITY })
        });
        let mask = Tensor::from_iter(mask, x.device())?
            .reshape((positions, positions))?
            .to_dtype(x.dtype())?;
        let weights = candle_nn::ops::softmax(&scores.broadcast_add(&mask)?, D::Minus1)?;
        let mixed = weights.matmul(&v)?.transpose(1, 2)?.contiguous()?;
        self.out
            .forward(&mixed.reshape((frames * positions, width))?)?
            .reshape((frames, positions, width))
    }
}
