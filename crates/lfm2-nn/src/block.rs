//! One decoder layer: a mixer and a feed-forward layer around the residual stream.

use candle_core::{Module, Result, Tensor};

use crate::{Attention, MoeFeedForward, Pass, RmsNorm, ShortConv, SwiGlu, ops};

/// What mixes tokens.
#[derive(Debug, Clone)]
pub enum Mixer {
    /// Grouped-query attention.
    Attention(Box<Attention>),
    /// Gated short convolution.
    ShortConv(Box<ShortConv>),
}

/// What mixes features.
#[derive(Debug, Clone)]
pub enum FeedForward {
    /// One SwiGLU.
    Dense(SwiGlu),
    /// A mixture of them.
    Moe(MoeFeedForward),
}

/// `h = x + mixer(norm(x)); y = h + ffn(norm(h))`, optionally with a norm behind each (LFM3).
#[derive(Debug, Clone)]
pub struct HybridBlock {
    /// Norm before the mixer.
    pub operator_norm: RmsNorm,
    /// The mixer.
    pub mixer: Mixer,
    /// Norm behind the mixer.
    pub post_operator_norm: Option<RmsNorm>,
    /// Norm before the feed-forward layer.
    pub ffn_norm: RmsNorm,
    /// The feed-forward layer.
    pub feed_forward: FeedForward,
    /// Norm behind the feed-forward layer.
    pub post_ffn_norm: Option<RmsNorm>,
}

impl HybridBlock {
    /// `(tokens, hidden)` to `(tokens, hidden)` as decoder layer `layer` of `pass`.
    ///
    /// # Errors
    /// When shapes disagree or the device fails.
    pub fn forward(&self, x: &Tensor, layer: usize, pass: &mut Pass<'_>) -> Result<Tensor> {
        let h = self.mix(x, layer, pass)?;
        let y = self.feed(&h, layer, pass)?;
        pass.observe(|o| o.layer(layer, &y))?;
        Ok(y)
    }

    /// `x + mixer(norm(x))`
    fn mix(&self, x: &Tensor, layer: usize, pass: &mut Pass<'_>) -> Result<Tensor> {
        if self.post_operator_norm.is_none() {
            let norm = &self.operator_norm;
            let whole = match &self.mixer {
                Mixer::Attention(attention) => attention.residual(x, norm, pass),
                Mixer::ShortConv(conv) => conv.residual(x, norm, pass),
            };
            if let Some(h) = whole {
                return h;
            }
        }
        let normed = self.operator_norm.forward(x)?;
        let mixed = match &self.mixer {
            Mixer::Attention(attention) => attention.forward(&normed, layer, pass)?,
            Mixer::ShortConv(conv) => conv.forward(&normed, layer, pass)?,
        };
        ops::add(x, &maybe(self.post_operator_norm.as_ref(), mixed)?)
    }

    /// `h + ffn(norm(h))`
    fn feed(&self, h: &Tensor, layer: usize, pass: &mut Pass<'_>) -> Result<Tensor> {
        if let (FeedForward::Dense(ffn), None) = (&self.feed_forward, &self.post_ffn_norm)
            && let Some(y) = ffn.residual(h, &self.ffn_norm)
        {
            return y;
        }
        let normed = self.ffn_norm.forward(h)?;
        let fed = match &self.feed_forward {
            FeedForward::Dense(ffn) => ffn.forward(&normed)?,
            FeedForward::Moe(moe) => {
                let routing = moe.route(&normed)?;
                pass.observe(|o| o.routed(layer, &routing))?;
                moe.forward_routed(&normed, &routing)?
            }
        };
        ops::add(h, &maybe(self.post_ffn_norm.as_ref(), fed)?)
    }
}

fn maybe(norm: Option<&RmsNorm>, x: Tensor) -> Result<Tensor> {
    match norm {
        Some(norm) => norm.forward(&x),
        None => Ok(x),
    }
}
