//! Feed-forward layers: dense SwiGLU and the mixture of experts.

use candle_core::{D, DType, Device, IndexOp, Module, Result, Tensor};

use crate::ops::packed::PackedSwiGlu;
use crate::{Bias, Linear, Matrix, RmsNorm, Weights, ops};

/// `w2(silu(w1 x) * w3 x)`.
#[derive(Debug, Clone)]
pub struct SwiGlu {
    w1: Linear,
    w2: Linear,
    w3: Linear,
}

impl SwiGlu {
    /// Loads `w1` and `w3`, `[width, hidden]`, and `w2`, `[hidden, width]`.
    ///
    /// # Errors
    /// When a tensor is missing or has another shape.
    pub fn load(weights: &Weights, hidden: usize, width: usize) -> lfm2_hub::Result<Self> {
        Ok(Self {
            w1: weights.pp("w1").linear(hidden, width, Bias::Without)?,
            // Its input is a product of two, so its errors are, too.
            w2: weights.pp("w2").fine_linear(width, hidden, Bias::Without)?,
            w3: weights.pp("w3").linear(hidden, width, Bias::Without)?,
        })
    }

    /// As [`Linear::fine`].
    pub fn fine(self) -> Self {
        Self {
            w1: self.w1.fine(),
            w2: self.w2.fine(),
            w3: self.w3.fine(),
        }
    }

    /// `x + forward(norm(x))` where this is one operation with a gradient; `None` where it is not.
    pub(crate) fn residual(&self, x: &Tensor, norm: &RmsNorm) -> Option<Result<Tensor>> {
        let weights = [self.w1.dense()?, self.w2.dense()?, self.w3.dense()?];
        ops::feed_forward_layer(x, norm.parts(), weights)
    }

    /// `w1`, `w2` and `w3`, when all are packed.
    fn packed(&self) -> Option<PackedSwiGlu<'_>> {
        Some(PackedSwiGlu {
            w1: self.w1.packed()?,
            w2: self.w2.packed()?,
            w3: self.w3.packed()?,
        })
    }
}

impl Module for SwiGlu {
    /// `(tokens, hidden)` to `(tokens, hidden)`.
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        if let Some(y) = self.packed().and_then(|w| ops::packed::swiglu(x, w)) {
            return y;
        }
        self.w2
            .forward(&ops::silu_mul(&self.w1.forward(x)?, &self.w3.forward(x)?)?)
    }
}

/// The facts of one mixture-of-experts layer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MoeConfig {
    /// Width of the residual stream.
    pub hidden: usize,
    /// Width inside each expert.
    pub width: usize,
    /// Number of experts.
    pub experts: usize,
    /// Experts each token goes to.
    pub per_token: usize,
    /// Whether a learnt bias takes part in choosing (never in weighting).
    pub expert_bias: bool,
    /// Whether the weights of the chosen experts are divided by their sum.
    pub norm_topk_prob: bool,
    /// Factor on the weights.
    pub routed_scaling_factor: f64,
}

/// What a router decided for a set of tokens.
#[derive(Debug, Clone)]
pub struct Routing {
    /// Router logits, `(tokens, experts)`.
    pub logits: Tensor,
    /// Chosen experts of every token, best first.
    pub experts: Vec<Vec<u32>>,
    /// Their weights, `(tokens, per_token)`.
    pub weights: Tensor,
}

/// A mixture of SwiGLU experts behind a sigmoid router.
#[derive(Debug, Clone)]
pub struct MoeFeedForward {
    config: MoeConfig,
    router: Linear,
    /// One number per expert, on the host: it only takes part in choosing.
    bias: Option<Vec<f32>>,
    experts: Vec<SwiGlu>,
}

impl MoeFeedForward {
    /// Loads router and experts; experts may be stored one by one, packed as `gate_up_proj` and
    /// `down_proj`, or stacked per projection.
    ///
    /// # Errors
    /// When a tensor is missing or has another shape.
    pub fn load(config: MoeConfig, weights: &Weights) -> lfm2_hub::Result<Self> {
        let bias = if config.expert_bias {
            let bias = weights.tensor_as("expert_bias", &[config.experts], DType::F32)?;
            Some(bias.to_device(&Device::Cpu)?.to_vec1()?)
        } else {
            None
        };
        let router = weights
            .pp("gate")
            .linear(config.hidden, config.experts, Bias::Without)?
            .exact();
        Ok(Self {
            config,
            router,
            bias,
            experts: load_experts(&config, &weights.pp("experts"))?,
        })
    }

    /// Chooses experts: the `per_token` largest of `sigmoid(logits) + bias`, weighted by the
    /// sigmoid alone. Ties go to the lower expert. Scores are `f32` whatever the activations are: in
    /// `bf16` a saturated sigmoid makes ties that mean nothing.
    ///
    /// # Errors
    /// When shapes disagree or the device fails.
    pub fn route(&self, x: &Tensor) -> Result<Routing> {
        let logits = self.router.forward(x)?;
        let scores = ops::sigmoid(&logits.to_dtype(DType::F32)?)?;
        let host: Vec<Vec<f32>> = scores
            .detach()
            .to_dtype(DType::F32)?
            .to_device(&Device::Cpu)?
            .to_vec2()?;
        let experts: Vec<Vec<u32>> = host.iter().map(|s| self.choose(s)).collect();
        let flat: Vec<u32> = experts.iter().flatten().copied().collect();
        let chosen = Tensor::from_vec(flat, (experts.len(), self.config.per_token), x.device())?;
        let mut weights = scores.gather(&chosen, 1)?;
        if self.config.norm_topk_prob {
            weights = weights.broadcast_div(&(weights.sum_keepdim(D::Minus1)? + 1e-6)?)?;
        }
        if self.config.routed_scaling_factor != 1.0 {
            weights = (weights * self.config.routed_scaling_factor)?;
        }
        Ok(Routing {
            logits,
            experts,
            weights: weights.to_dtype(x.dtype())?,
        })
    }

    fn choose(&self, scores: &[f32]) -> Vec<u32> {
        let ranked = |e: usize| scores[e] + self.bias.as_ref().map_or(0.0, |b| b[e]);
        let mut order: Vec<u32> = (0..scores.len() as u32).collect();
        order.sort_by(|&a, &b| {
            ranked(b as usize)
                .total_cmp(&ranked(a as usize))
                .then(a.cmp(&b))
        });
        order.truncate(self.config.per_token);
        order
    }

    /// `(tokens, hidden)` to `(tokens, hidden)` by a decision already made. Tokens are grouped, so
    /// that every used expert sees one matrix.
    ///
    /// # Errors
    /// When shapes disagree or the device fails.
    pub fn forward_routed(&self, x: &Tensor, routing: &Routing) -> Result<Tensor> {
        let mut grouped: Vec<(Vec<u32>, Vec<u32>)> = vec![Default::default(); self.experts.len()];
        for (token, experts) in routing.experts.iter().enumerate() {
            for (slot, &expert) in experts.iter().enumerate() {
                let Some((tokens, slots)) = grouped.get_mut(expert as usize) else {
                    continue;
                };
                tokens.push(token as u32);
                slots.push((token * self.config.per_token + slot) as u32);
            }
        }
        let packed: Option<Vec<_>> = self.experts.iter().map(SwiGlu::packed).collect();
        if let Some(y) = packed.and_then(|experts| {
            let tokens: Vec<&[u32]> = grouped.iter().map(|(tokens, _)| &tokens[..]).collect();
            let slots: Vec<&[u32]> = grouped.iter().map(|(_, slots)| &slots[..]).collect();
            ops::packed::experts(x, &experts, &tokens, &slots, &routing.weights)
        }) {
            return y;
        }
        let weights = routing.weights.flatten_all()?.unsqueeze(1)?;
        let mut out = x.zeros_like()?;
        for (expert, (tokens, slots)) in self.experts.iter().zip(grouped) {
            if tokens.is_empty() {
                continue;
            }
            let tokens = Tensor::new(tokens, x.device())?;
            let weights = weights.index_select(&Tensor::new(slots, x.device())?, 0)?;
            let y = expert
                .forward(&x.index_select(&tokens, 0)?)?
                .broadcast_mul(&weights)?;
            out = out.index_add(&tokens, &y, 0)?;
        }
        Ok(out)
    }

    /// Number of experts.
    pub fn experts(&self) -> usize {
        self.experts.len()
    }
}

fn load_experts(config: &MoeConfig, weights: &Weights) -> lfm2_hub::Result<Vec<SwiGlu>> {
    let MoeConfig {
        hidden,
        width,
        experts,
        ..
    } = *config;
    let swiglu = |w1: Matrix, w2: Matrix, w3: Matrix| -> lfm2_hub::Result<SwiGlu> {
        Ok(SwiGlu {
            w1: Linear::new(w1, None)?,
            w2: Linear::new(w2, None)?,
            w3: Linear::new(w3, None)?,
        })
    };
    if weights.contains("gate_up_proj") {
        let gate_up = weights.matrix("gate_up_proj", &[experts, 2 * width, hidden])?;
        let down = weights.matrix("down_proj", &[experts, hidden, width])?;
        let one = |e| {
            let both = gate_up.index(e)?;
            swiglu(
                both.rows(0, width)?,
                down.index(e)?,
                both.rows(width, width)?,
            )
        };
        return (0..experts).map(one).collect();
    }
    if weights.contains("w1.weight") {
        let stack = |name: &str, rows, cols| weights.matrix(name, &[experts, rows, cols]);
        let w1 = stack("w1.weight", width, hidden)?;
        let w2 = stack("w2.weight", hidden, width)?;
        let w3 = stack("w3.weight", width, hidden)?;
        return (0..experts)
            .map(|e| swiglu(w1.index(e)?, w2.index(e)?, w3.index(e)?))
            .collect();
    }
    (0..experts)
        .map(|e| SwiGlu::load(&weights.pp(e), hidden, width))
        .collect()
}

/// How often each expert was chosen.
pub fn expert_load(routing: &Routing, experts: usize) -> Vec<usize> {
    let mut load = vec![0; experts];
    for &expert in routing.experts.iter().flatten() {
        if let Some(count) = load.get_mut(expert as usize) {
            *count += 1;
        }
    }
    load
}

impl Routing {
    /// The weights of one token, best expert first.
    ///
    /// # Errors
    /// When there is no such token.
    pub fn token_weights(&self, token: usize) -> Result<Vec<f32>> {
        self.weights.i(token)?.to_dtype(DType::F32)?.to_vec1()
    }
}
