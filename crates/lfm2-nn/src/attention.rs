//! Grouped-query attention with normalised queries and keys.

use candle_core::{Module, Result, Tensor, bail};
use lfm2_kernels::profile::{Op, Work, span};

use crate::cache::LayerCache;
use crate::ops::{self, Mask, fast};
use crate::{Bias, Linear, Pass, PassKind, RmsNorm, Span, Weights};

/// Which keys a query sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Visibility {
    /// Itself and everything before.
    Causal,
    /// Itself and the `window - 1` tokens before.
    Sliding {
        /// Keys seen, the query's own included.
        window: usize,
    },
    /// The whole sequence, later tokens included.
    Bidirectional,
}

/// The facts of one attention layer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AttentionConfig {
    /// Width of the residual stream.
    pub hidden: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Numbers per head.
    pub head_dim: usize,
    /// Epsilon of the query and key norms.
    pub eps: f64,
    /// Which keys a query sees.
    pub visibility: Visibility,
    /// Which of the pass's rotary tables this layer uses.
    pub rope: usize,
    /// Whether each head's output is multiplied by a sigmoid of the layer input (LFM3).
    pub gate: bool,
}

/// Tensor names of one attention layer; they differ between generations.
#[derive(Debug, Clone, Copy)]
pub struct AttentionNames {
    /// Norm of the queries.
    pub q_norm: &'static str,
    /// Norm of the keys.
    pub k_norm: &'static str,
    /// Output projection.
    pub out_proj: &'static str,
}

impl AttentionNames {
    /// As in LFM2 checkpoints.
    pub const LFM2: Self = Self {
        q_norm: "q_layernorm",
        k_norm: "k_layernorm",
        out_proj: "out_proj",
    };
    /// As in LFM3 checkpoints.
    pub const LFM3: Self = Self {
        q_norm: "q_norm",
        k_norm: "k_norm",
        out_proj: "o_proj",
    };
}

/// Grouped-query attention: project, normalise per head, rotate, attend, project.
///
/// Query head `h` uses key head `h / (heads / kv_heads)`; the scale is `1 / sqrt(head_dim)`.
#[derive(Debug, Clone)]
pub struct Attention {
    config: AttentionConfig,
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    out_proj: Linear,
    q_norm: RmsNorm,
    k_norm: RmsNorm,
    gate_proj: Option<Linear>,
}

impl Attention {
    /// Loads the layer under `weights` (`….self_attn`).
    ///
    /// # Errors
    /// When a tensor is missing or has another shape.
    pub fn load(
        config: AttentionConfig,
        names: AttentionNames,
        weights: &Weights,
    ) -> lfm2_hub::Result<Self> {
        let AttentionConfig {
            hidden,
            heads,
            kv_heads,
            head_dim,
            eps,
            gate,
            ..
        } = config;
        let linear = |name: &str, input, output| -> lfm2_hub::Result<Linear> {
            weights.pp(name).fine_linear(input, output, Bias::Without)
        };
        Ok(Self {
            config,
            q_proj: linear("q_proj", hidden, heads * head_dim)?,
            k_proj: linear("k_proj", hidden, kv_heads * head_dim)?,
            v_proj: linear("v_proj", hidden, kv_heads * head_dim)?,
            out_proj: linear(names.out_proj, heads * head_dim, hidden)?,
            q_norm: RmsNorm::load(&weights.pp(names.q_norm), head_dim, eps)?,
            k_norm: RmsNorm::load(&weights.pp(names.k_norm), head_dim, eps)?,
            gate_proj: if gate {
                Some(linear("gate_proj", hidden, heads)?)
            } else {
                None
            },
        })
    }

    /// `x + forward(norm(x))` where this is one operation with a gradient; `None` where it is not.
    pub(crate) fn residual(
        &self,
        x: &Tensor,
        norm: &RmsNorm,
        pass: &Pass<'_>,
    ) -> Option<Result<Tensor>> {
        let stateless = pass.cache.is_stateless() && self.check_filler(pass).is_ok();
        if self.gate_proj.is_some() || !stateless {
            return None;
        }
        let weights = ops::AttentionWeights {
            inputs: [
                self.q_proj.dense()?,
                self.k_proj.dense()?,
                self.v_proj.dense()?,
            ],
            q_norm: self.q_norm.parts(),
            k_norm: self.k_norm.parts(),
            output: self.out_proj.dense()?,
        };
        let core = ops::Attention {
            heads: fast::Heads {
                query: self.config.heads,
                kv: self.config.kv_heads,
                dim: self.config.head_dim,
            },
            scale: self.scale() as f32,
            visibility: self.config.visibility,
        };
        let rope = pass.ropes.get(self.config.rope)?;
        ops::attention_layer(x, norm.parts(), weights, core, (rope, pass.spans()))
    }

    /// `(tokens, hidden)` to `(tokens, hidden)`; every segment of `pass` attends to its own past.
    ///
    /// # Errors
    /// When shapes disagree or the device fails.
    pub fn forward(&self, x: &Tensor, layer: usize, pass: &mut Pass<'_>) -> Result<Tensor> {
        let AttentionConfig {
            heads,
            kv_heads,
            head_dim,
            rope,
            ..
        } = self.config;
        if let Some(y) = self.forward_packed(x, layer, pass) {
            return y;
        }
        let tokens = x.dim(0)?;
        let Some(rope) = pass.ropes.get(rope) else {
            bail!("the pass has no rotary table {rope}")
        };
        let projections = [&self.q_proj, &self.k_proj, &self.v_proj];
        let [q, k, v] = Linear::forward_each(projections, x)?;
        let q = q.reshape((tokens, heads, head_dim))?;
        let k = k.reshape((tokens, kv_heads, head_dim))?;
        let v = v.reshape((tokens, kv_heads, head_dim))?;
        let q = rope.apply(&self.q_norm.forward(&q)?)?;
        let k = rope.apply(&self.k_norm.forward(&k)?)?;

        let mixed = self.attend([&q, &k, &v], layer, pass)?;
        let mixed = match &self.gate_proj {
            Some(gate) => mixed.broadcast_mul(&ops::sigmoid(&gate.forward(x)?)?.unsqueeze(2)?)?,
            None => mixed,
        };
        self.out_proj
            .forward(&mixed.reshape((tokens, heads * head_dim))?)
    }

    /// The whole layer in working memory: packed projections, a cache on the CPU or none, no gate.
    /// `None` where it is not that simple.
    fn forward_packed(
        &self,
        x: &Tensor,
        layer: usize,
        pass: &mut Pass<'_>,
    ) -> Option<Result<Tensor>> {
        let inputs = [
            self.q_proj.packed()?,
            self.k_proj.packed()?,
            self.v_proj.packed()?,
        ];
        let output = self.out_proj.packed()?;
        if self.gate_proj.is_some() || !fast::fits(&[x]) {
            return None;
        }
        let stateless = pass.cache.is_stateless();
        if stateless && self.check_filler(pass).is_err() {
            return None;
        }
        let spans = pass.spans().to_vec();
        let rope = pass.ropes.get(self.config.rope)?.clone();
        let AttentionConfig {
            heads,
            kv_heads,
            head_dim,
            ..
        } = self.config;
        Some(ops::packed::mixer(x, inputs, output, |[q, k, v], mixed| {
            {
                let _span = span(Op::RopeCache, &[x.dim(0)?, heads, head_dim], Work::NONE);
                self.q_norm.apply_in_place(q)?;
                self.k_norm.apply_in_place(k)?;
                fast::rope_values(q, &rope, heads, head_dim)?;
                fast::rope_values(k, &rope, kv_heads, head_dim)?;
            }
            if stateless {
                let visibility = self.config.visibility;
                let heads = fast::Heads {
                    query: heads,
                    kv: kv_heads,
                    dim: head_dim,
                };
                return fast::span_attention(
                    [&*q, &*k, &*v],
                    &spans,
                    heads,
                    self.scale(),
                    visibility,
                    mixed,
                );
            }
            let (width, kv_width) = (heads * head_dim, kv_heads * head_dim);
            for span in &spans {
                let own = span.start * width..(span.start + span.len) * width;
                let new = span.start * kv_width..(span.start + span.len) * kv_width;
                let (kind, mask) = (
                    pass.kind(),
                    self.mask(span, span.past, span.past + span.len)?,
                );
                let Some(LayerCache::Kv(slot)) = pass.cache.slot(span.row, layer) else {
                    bail!("layer {layer} is attention, its cache is a convolution's")
                };
                if kind == PassKind::Extend {
                    fast::append_kv_values(&slot.k, &k[new.clone()], span.past)?;
                    fast::append_kv_values(&slot.v, &v[new], span.past)?;
                }
                let kv = [&slot.k, &slot.v];
                let (q, out) = (&q[own.clone()], &mut mixed[own]);
                fast::attention_values(q, kv, heads, self.scale(), mask, out)?;
            }
            Ok(())
        }))
    }

    /// What the queries of a segment see of `keys` keys, `past` of them before the first query.
    fn mask(&self, span: &Span, past: usize, keys: usize) -> Result<Mask> {
        let visibility = self.config.visibility;
        if visibility == Visibility::Bidirectional && span.past > 0 {
            bail!(
                "a bidirectional model reads a sequence at once, row {} has {} tokens",
                span.row,
                span.past
            );
        }
        Ok(Mask {
            visibility,
            past,
            keys,
        })
    }

    /// `(tokens, heads, head_dim)` for all segments.
    fn attend(&self, qkv: [&Tensor; 3], layer: usize, pass: &mut Pass<'_>) -> Result<Tensor> {
        let spans = pass.spans().to_vec();
        if pass.cache.is_stateless() {
            self.check_filler(pass)?;
            let visibility = self.config.visibility;
            if let Some(mixed) = ops::packed_attention(qkv, &spans, self.scale(), visibility) {
                return mixed;
            }
        }
        let mut mixed = Vec::with_capacity(spans.len());
        for span in &spans {
            mixed.push(self.attend_span(span, qkv, layer, pass)?);
        }
        if let [one] = &mixed[..] {
            Ok(one.clone())
        } else {
            Tensor::cat(&mixed, 0)
        }
    }

    /// Refuses filler where a window may hold nothing else.
    fn check_filler(&self, pass: &Pass<'_>) -> Result<()> {
        let filled = pass.spans().iter().any(|span| span.keys < span.len);
        match self.config.visibility {
            Visibility::Sliding { .. } if filled => {
                bail!("filler needs attention over the whole sequence, found a sliding window")
            }
            _ => Ok(()),
        }
    }

    fn scale(&self) -> f64 {
        1.0 / (self.config.head_dim as f64).sqrt()
    }

    /// `(len, heads, head_dim)` for one segment.
    fn attend_span(
        &self,
        span: &Span,
        qkv: [&Tensor; 3],
        layer: usize,
        pass: &mut Pass<'_>,
    ) -> Result<Tensor> {
        let kind = pass.kind();
        let [q, k, v] = qkv;
        let own = |t: &Tensor| t.narrow(0, span.start, span.len);
        let scale = self.scale();
        match pass.cache.slot(span.row, layer) {
            None => {
                let by_head = |t: &Tensor| own(t)?.transpose(0, 1)?.contiguous();
                ops::attention(
                    &own(q)?,
                    &by_head(k)?,
                    &by_head(v)?,
                    scale,
                    self.mask(span, 0, span.keys)?,
                )
            }
            Some(LayerCache::Kv(slot)) => {
                if kind == PassKind::Extend {
                    ops::append_kv(&slot.k, &own(k)?, span.past)?;
                    ops::append_kv(&slot.v, &own(v)?, span.past)?;
                }
                let mask = self.mask(span, span.past, span.past + span.len)?;
                ops::attention(&own(q)?, &slot.k, &slot.v, scale, mask)
            }
            Some(LayerCache::Conv(_)) => {
                bail!("layer {layer} is attention, its cache is a convolution's")
            }
        }
    }
}
