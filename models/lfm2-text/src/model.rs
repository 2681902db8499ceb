//! [`TextModel`]: embedding, hybrid blocks, final norm, head.

use std::sync::Arc;

use lfm2_hub::gguf::Quantization;
use lfm2_hub::{Checkpoint, Error, InBlocks, PackedCache, Result, StoredType, TensorSource};
use lfm2_nn::{
    Accuracy, Attention, AttentionConfig, AttentionNames, Bias, Cache, CacheLayout, CacheSpec,
    DType, Decoder, Device, Embedding, FeedForward, HybridBlock, Input, LayerShape, Linear,
    LoadProgress, Mixer, Module, MoeConfig, MoeFeedForward, Observer, Pass, PassKind, RmsNorm,
    Rope, ShortConv, ShortConvConfig, Step, SwiGlu, Tensor, Visibility, Want, Weights, Window,
};

use crate::{Family, LayerKind, TextConfig};

/// Where the backbone's tensors begin in the checkpoints that contain one, and its head.
const PREFIXES: [(&str, &str); 7] = [
    ("model", ""),
    ("", ""),
    ("language_model.model", "language_model"),
    ("model.language_model", ""),
    ("lfm", ""),
    ("lfm2", ""),
    ("language_model", ""),
];

/// Which rotary table each kind of attention uses.
const FULL_ROPE: usize = 0;
const SLIDING_ROPE: usize = 1;

/// How to load a model.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct LoadOptions {
    /// Where the model runs.
    pub device: Device,
    /// Number type of activations; `None` is `F32` on a CPU and `BF16` elsewhere.
    pub dtype: Option<DType>,
    /// How finely activations are kept where they meet weights, on a CPU.
    pub accuracy: Accuracy,
    /// Quantises dense matrices while they are read, see [`InBlocks`]; `None` leaves them as stored.
    pub quantize: Option<Quantization>,
    /// Whether tensors that nobody asks for are an error instead of a log line.
    pub strict: bool,
    /// Where weights are kept as the kernels of a CPU want them, from one start to the next; `None`
    /// to sort them at every start. See [`PackedCache`].
    pub packed_cache: Option<PackedCache>,
    /// Who is told how far loading is.
    pub progress: Option<LoadProgress>,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self {
            device: Device::Cpu,
            dtype: None,
            accuracy: Accuracy::default(),
            quantize: None,
            strict: false,
            packed_cache: None,
            progress: None,
        }
    }
}

impl LoadOptions {
    /// Loads to `device`.
    pub fn with_device(mut self, device: Device) -> Self {
        self.device = device;
        self
    }

    /// Computes in `dtype`.
    pub fn with_dtype(mut self, dtype: DType) -> Self {
        self.dtype = Some(dtype);
        self
    }

    /// Quantises dense matrices to `kind` while they are read.
    pub fn with_quantize(mut self, kind: Quantization) -> Self {
        self.quantize = Some(kind);
        self
    }

    /// Rounds activations no more than `accuracy` says.
    pub fn with_accuracy(mut self, accuracy: Accuracy) -> Self {
        self.accuracy = accuracy;
        self
    }

    /// Refuses checkpoints with tensors nobody asks for.
    pub fn strict(mut self) -> Self {
        self.strict = true;
        self
    }

    /// Keeps packed weights in `cache`. Libraries write no files unless asked, so there is none by
    /// default.
    ///
    /// ```
    /// use lfm2_hub::PackedCache;
    /// use lfm2_text::LoadOptions;
    ///
    /// let mut options = LoadOptions::default();
    /// if let Some(folder) = PackedCache::user_folder() {
    ///     options = options.with_packed_cache(PackedCache::new(folder).with_max_bytes(8 << 30));
    /// }
    /// ```
    pub fn with_packed_cache(mut self, cache: PackedCache) -> Self {
        self.packed_cache = Some(cache);
        self
    }

    /// Tells `progress` how far loading is.
    pub fn with_progress(mut self, progress: LoadProgress) -> Self {
        self.progress = Some(progress);
        self
    }

    /// A view of `tensors` as these options want them: quantised, on the device, in the number type of
    /// activations. Models that hold a text model begin here, load their parts, and end with
    /// [`finish`](Self::finish).
    pub fn weights(&self, tensors: Arc<dyn TensorSource>) -> Weights {
        let tensors = match self.quantize {
            Some(kind) => Arc::new(InBlocks::new(tensors, kind)),
            None => tensors,
        };
        Weights::new(tensors, self.activation(), &self.device)
            .with_accuracy(self.accuracy)
            .with_loading(self.packed_cache.as_ref(), self.progress.clone())
    }

    /// Says that everything is loaded from `weights`.
    ///
    /// # Errors
    /// With [`strict`](Self::strict), when tensors are left over.
    pub fn finish(&self, weights: &Weights) -> Result<()> {
        let unused = weights.unused();
        if !unused.is_empty() {
            if self.strict {
                let what = format!(
                    "a checkpoint with tensors nobody asks for ({})",
                    unused.join(", ")
                );
                return Err(Error::Unsupported {
                    what,
                    hint: "load it without `strict`".into(),
                });
            }
            tracing::debug!(?unused, "tensors nobody asked for");
        }
        weights.finish();
        Ok(())
    }

    fn activation(&self) -> DType {
        self.dtype.unwrap_or(if self.device.is_cpu() {
            DType::F32
        } else {
            DType::BF16
        })
    }
}

/// An LFM2 or LFM3 text model. Immutable, shareable between threads, cheap to clone.
#[derive(Debug, Clone)]
pub struct TextModel {
    config: Arc<TextConfig>,
    /// `None` in a [trunk](Self::load_trunk).
    embed_tokens: Option<Embedding>,
    layers: Arc<[HybridBlock]>,
    embedding_norm: RmsNorm,
    /// `None` in checkpoints of a trunk alone (encoders) with an untied head.
    lm_head: Option<Linear>,
    ropes: Arc<[Rope]>,
    dtype: DType,
    /// Number type of keys and values, unless a caller wants another.
    kv_dtype: DType,
    device: Device,
}

impl TextModel {
    /// Builds the model of an opened checkpoint.
    ///
    /// # Errors
    /// When the config is invalid, a tensor is missing or they contradict each other.
    pub fn from_checkpoint(checkpoint: &Checkpoint, options: &LoadOptions) -> Result<Self> {
        let config = TextConfig::from_json_within(checkpoint.config(), checkpoint.info().limits())?;
        Self::from_tensors(config, checkpoint.tensors(), options)
    }

    /// Builds the model from a config and the tensors of its checkpoint.
    ///
    /// # Errors
    /// When a tensor is missing or contradicts the config (both are named), or, with
    /// [`LoadOptions::strict`], when tensors are left over.
    pub fn from_tensors(
        config: TextConfig,
        tensors: Arc<dyn TensorSource>,
        options: &LoadOptions,
    ) -> Result<Self> {
        let weights = options.weights(tensors);
        let model = Self::load(config, &weights)?;
        options.finish(&weights)?;
        Ok(model)
    }

    /// Builds the model from tensors anywhere under `weights`: as a causal language model, as a bare
    /// trunk, or inside a vision or audio checkpoint.
    ///
    /// # Errors
    /// When a tensor is missing or contradicts the config (both are named), or there is more than one
    /// backbone.
    pub fn load(config: TextConfig, weights: &Weights) -> Result<Self> {
        let (prefix, head) = backbone(weights)?;
        let trunk = weights.pp(prefix);
        let embed_tokens = trunk
            .pp("embed_tokens")
            .embedding(config.vocab_size, config.hidden_size)?;
        let head = weights.pp(head).pp("lm_head");
        let lm_head = if config.tied {
            Some(embed_tokens.as_linear()?)
        } else if prefix.is_empty() && !head.contains("weight") {
            None
        } else {
            Some(head.linear(config.hidden_size, config.vocab_size, Bias::Without)?)
        };
        let trunk = Self::load_trunk(config, &trunk)?;
        Ok(Self {
            embed_tokens: Some(embed_tokens),
            lm_head,
            ..trunk
        })
    }

    /// Builds the layers and the final norm under `trunk` alone, for a model with embeddings of its own:
    /// it reads [`Input::Embeddings`] and gives [`Want::Hidden`].
    ///
    /// # Errors
    /// When a tensor is missing or contradicts the config; both are named.
    pub fn load_trunk(config: TextConfig, trunk: &Weights) -> Result<Self> {
        let config = config.reconcile_ffn(&trunk.pp("layers"))?;
        let layers = (0..config.layers.len())
            .map(|i| load_block(&config, i, &trunk.pp("layers").pp(i)))
            .collect::<Result<Vec<_>>>()?;
        let rope = |spec: crate::RopeSpec| {
            Rope::proportional(config.head_dim, spec.theta, spec.rotary_factor)
        };
        Ok(Self {
            embedding_norm: RmsNorm::load(
                &trunk.pp("embedding_norm"),
                config.hidden_size,
                config.norm_eps,
            )?,
            ropes: [rope(config.rope), rope(config.sliding_rope)].into(),
            embed_tokens: None,
            layers: layers.into(),
            lm_head: None,
            dtype: trunk.dtype(),
            kv_dtype: kv_dtype(trunk),
            device: trunk.device().clone(),
            config: Arc::new(config),
        })
    }

    /// The model's facts.
    pub fn config(&self) -> &TextConfig {
        &self.config
    }

    /// Number type of activations.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Embeds ids `(tokens)` to `(tokens, hidden)`.
    ///
    /// # Errors
    /// When an id is outside the vocabulary, or this is a trunk alone.
    pub fn embed_tokens(&self, ids: &Tensor) -> candle_core::Result<Tensor> {
        match &self.embed_tokens {
            Some(table) => table.forward(ids),
            None => candle_core::bail!("this model has no embeddings (embed_tokens.weight)"),
        }
    }

    /// The weight `(vocab, hidden)` of [`head`](Self::head), when it is plain numbers.
    pub fn head_weight(&self) -> Option<&Tensor> {
        self.lm_head.as_ref().and_then(Linear::dense)
    }

    /// Logits `(tokens, vocab)` of hidden states `(tokens, hidden)` that went through the final norm.
    ///
    /// # Errors
    /// When the checkpoint has no head.
    pub fn head(&self, hidden: &Tensor) -> candle_core::Result<Tensor> {
        match &self.lm_head {
            Some(head) => head.forward(hidden),
            None => candle_core::bail!("this checkpoint has no output head (lm_head.weight)"),
        }
    }

    /// [`Decoder::forward`] with somebody watching.
    ///
    /// # Errors
    /// As [`Decoder::forward`], and whatever the observer returns.
    pub fn forward_observed<'a>(
        &self,
        input: Input<'_>,
        step: &Step,
        cache: &'a mut Cache,
        want: Want,
        observer: Option<&'a mut dyn Observer>,
    ) -> candle_core::Result<Tensor> {
        let (x, ids) = match input {
            Input::Ids(ids) => (
                self.embed_tokens(&ids.flatten_all()?)?,
                Some(ids.flatten_all()?.to_vec1()?),
            ),
            Input::Embeddings(x) => (x.to_dtype(self.dtype)?, None),
        };
        self.run((x, ids.as_deref()), step, cache, want, observer)
    }

    /// [`Decoder::forward`] of embeddings `(tokens, hidden)` that `ids` stand for, which may be outside
    /// the vocabulary. The cache keeps the ids, so that its row can be compared with prompts and cut by
    /// [`rewind_embedded`](Self::rewind_embedded).
    ///
    /// # Errors
    /// As [`Decoder::forward`], and when there are not as many ids as embeddings.
    pub fn forward_embedded(
        &self,
        x: &Tensor,
        ids: &[u32],
        step: &Step,
        cache: &mut Cache,
        want: Want,
    ) -> candle_core::Result<Tensor> {
        if ids.len() != step.tokens() {
            candle_core::bail!("expected {} ids, found {}", step.tokens(), ids.len());
        }
        self.run(
            (x.to_dtype(self.dtype)?, Some(ids)),
            step,
            cache,
            want,
            None,
        )
    }

    fn run<'a>(
        &self,
        (x, ids): (Tensor, Option<&[u32]>),
        step: &Step,
        cache: &'a mut Cache,
        want: Want,
        observer: Option<&'a mut dyn Observer>,
    ) -> candle_core::Result<Tensor> {
        let expected = (step.tokens(), self.config.hidden_size);
        if x.dims2()? != expected {
            candle_core::bail!(
                "expected input for {} tokens of width {}, found {:?}",
                expected.0,
                expected.1,
                x.dims()
            );
        }
        let mut pass = Pass::new(
            step,
            PassKind::Extend,
            cache,
            &self.ropes,
            (self.dtype, &self.device),
        )?
        .observed_by(observer);
        let x = self.trunk(x, &mut pass)?;
        pass.finish(ids);
        let last = |x: &Tensor| x.index_select(&Tensor::new(step.last_tokens(), &self.device)?, 0);
        match want {
            Want::LastLogits => self.head(&self.embedding_norm.forward(&last(&x)?)?),
            Want::AllLogits => self.logits(&x),
            Want::Hidden => self.embedding_norm.forward(&x),
        }
    }

    /// [`Decoder::rewind`] of a row whose ids `embed` turns to embeddings `(tokens, hidden)`.
    ///
    /// # Errors
    /// As [`Decoder::rewind`], and whatever `embed` returns.
    pub fn rewind_embedded(
        &self,
        cache: &mut Cache,
        row: usize,
        len: usize,
        embed: impl FnOnce(&[u32]) -> candle_core::Result<Tensor>,
    ) -> candle_core::Result<()> {
        let replay = cache.cut(row, len)?;
        if replay.is_empty() {
            return Ok(());
        }
        let step = Step::segments_of(vec![lfm2_nn::Segment {
            row,
            len: replay.len(),
        }]);
        let x = embed(&replay)?.to_dtype(self.dtype)?;
        let mut pass = Pass::new(
            &step,
            PassKind::Replay,
            cache,
            &self.ropes,
            (self.dtype, &self.device),
        )?;
        self.trunk(x, &mut pass)?;
        pass.finish(Some(&replay));
        Ok(())
    }

    fn trunk(&self, mut x: Tensor, pass: &mut Pass<'_>) -> candle_core::Result<Tensor> {
        pass.embedded(&x)?;
        for (i, layer) in self.layers.iter().enumerate() {
            x = layer.forward(&x, i, pass)?;
        }
        Ok(x)
    }

    /// Decoder layer `layer` alone, on packed hidden states `(tokens, hidden)` of sequences without a
    /// past: training that computes activations anew goes through the layers one by one.
    ///
    /// # Errors
    /// When there is no such layer or shapes disagree, and whatever the observer returns.
    pub fn layer_alone(
        &self,
        layer: usize,
        x: &Tensor,
        step: &Step,
        observer: Option<&mut dyn Observer>,
    ) -> candle_core::Result<Tensor> {
        let Some(block) = self.layers.get(layer) else {
            candle_core::bail!("layer {layer} of a model of {}", self.layers.len());
        };
        let mut cache = Cache::stateless(step.segments().len());
        let place = (self.dtype, &self.device);
        let mut pass = Pass::new(step, PassKind::Extend, &mut cache, &self.ropes, place)?
            .observed_by(observer.map(|o| -> &mut dyn Observer { o }));
        block.forward(x, layer, &mut pass)
    }

    /// Logits `(tokens, vocab)` of hidden states `(tokens, hidden)` behind the last layer.
    ///
    /// # Errors
    /// As [`head`](Self::head).
    pub fn logits(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        self.head(&self.embedding_norm.forward(x)?)
    }

    /// What the state of one sequence looks like.
    pub fn cache_layout(&self) -> CacheLayout {
        self.config.cache_layout()
    }
}

impl TextConfig {
    /// What the state of one sequence of such a model looks like.
    pub fn cache_layout(&self) -> CacheLayout {
        let shape = |kind: &LayerKind| match kind {
            LayerKind::Conv => LayerShape::Conv {
                channels: self.hidden_size,
                width: self.conv_width - 1,
            },
            LayerKind::FullAttention | LayerKind::SlidingAttention => LayerShape::Kv {
                kv_heads: self.kv_heads,
                head_dim: self.head_dim,
            },
        };
        CacheLayout {
            layers: self.layers.iter().map(shape).collect(),
        }
    }
}

impl Decoder for TextModel {
    fn vocab_size(&self) -> usize {
        self.config.vocab_size
    }

    fn device(&self) -> &Device {
        &self.device
    }

    fn new_cache(&self, mut spec: CacheSpec) -> Cache {
        spec.kv_dtype.get_or_insert(self.kv_dtype);
        Cache::new(self.cache_layout(), spec, self.dtype, &self.device)
    }

    fn forward(
        &self,
        input: Input<'_>,
        step: &Step,
        cache: &mut Cache,
        want: Want,
    ) -> candle_core::Result<Tensor> {
        self.forward_observed(input, step, cache, want, None)
    }

    fn rewind(&self, cache: &mut Cache, row: usize, len: usize) -> candle_core::Result<()> {
        self.rewind_embedded(cache, row, len, |ids| {
            self.embed_tokens(&Tensor::new(ids, &self.device)?)
        })
    }
}

/// Where the backbone is, and its head.
fn backbone(weights: &Weights) -> Result<(&'static str, &'static str)> {
    const TABLE: &str = "embed_tokens.weight";
    let mut found = PREFIXES
        .iter()
        .filter(|(prefix, _)| weights.pp(prefix).contains(TABLE));
    let first = found.next().unwrap_or(&PREFIXES[0]);
    match found.next() {
        None => Ok(*first),
        Some(second) => {
            let name = |(prefix, _): &(&str, &str)| weights.pp(prefix).name(TABLE);
            Err(Error::Unsupported {
                what: format!(
                    "a checkpoint with two backbones ({} and {})",
                    name(first),
                    name(second)
                ),
                hint: "one text model per checkpoint is".into(),
            })
        }
    }
}

/// Keys and values are as fine as the weights that make them: halves on a CPU, unless the weights are
/// `f32` or nothing is to be rounded.
fn kv_dtype(trunk: &Weights) -> DType {
    let stored = trunk.info("embed_tokens.weight").map(|info| info.stored);
    let wide = matches!(stored, Some(StoredType::Dense(DType::F32)) | None);
    let rounded = trunk.accuracy() != Accuracy::Exact && trunk.dtype() == DType::F32;
    if trunk.device().is_cpu() && rounded && !wide {
        DType::F16
    } else {
        trunk.dtype()
    }
}

fn load_block(config: &TextConfig, layer: usize, weights: &Weights) -> Result<HybridBlock> {
    let hidden = config.hidden_size;
    let norm = |name: &str| RmsNorm::load(&weights.pp(name), hidden, config.norm_eps);
    let post = |name: &str| {
        if config.sandwich_norm {
            norm(name).map(Some)
        } else {
            Ok(None)
        }
    };
    let mixer = match config.layers[layer] {
        LayerKind::Conv => Mixer::ShortConv(Box::new(load_conv(config, weights)?)),
        kind => Mixer::Attention(Box::new(load_attention(config, kind, weights)?)),
    };
    let ffn = weights.pp("feed_forward");
    let feed_forward = match config.moe.filter(|_| config.is_moe_layer(layer)) {
        None => {
            let dense = SwiGlu::load(&ffn, hidden, config.ffn_width)?;
            // A router behind it turns small errors into another expert.
            FeedForward::Dense(if config.moe.is_some() {
                dense.fine()
            } else {
                dense
            })
        }
        Some(moe) => FeedForward::Moe(MoeFeedForward::load(
            MoeConfig {
                hidden,
                width: moe.width,
                experts: moe.experts,
                per_token: moe.per_token,
                expert_bias: moe.expert_bias,
                norm_topk_prob: moe.norm_topk_prob,
                routed_scaling_factor: moe.routed_scaling_factor,
            },
            &ffn,
        )?),
    };
    Ok(HybridBlock {
        operator_norm: norm("operator_norm")?,
        mixer,
        post_operator_norm: post("post_operator_norm")?,
        ffn_norm: norm("ffn_norm")?,
        feed_forward,
        post_ffn_norm: post("post_ffn_norm")?,
    })
}

fn load_conv(config: &TextConfig, weights: &Weights) -> Result<ShortConv> {
    let conv = ShortConvConfig {
        hidden: config.hidden_size,
        width: config.conv_width,
        bias: config.conv_bias.into(),
        window: if config.bidirectional {
            Window::Centred
        } else {
            Window::Causal
        },
    };
    ShortConv::load(conv, &weights.pp("conv"))
}

fn load_attention(config: &TextConfig, kind: LayerKind, weights: &Weights) -> Result<Attention> {
    let sliding = kind == LayerKind::SlidingAttention;
    let visibility = match (config.bidirectional, sliding) {
        (true, _) => Visibility::Bidirectional,
        (false, true) => Visibility::Sliding {
            window: config.sliding_window,
        },
        (false, false) => Visibility::Causal,
    };
    let attention = AttentionConfig {
        hidden: config.hidden_size,
        heads: config.heads,
        kv_heads: config.kv_heads,
        head_dim: config.head_dim,
        eps: config.norm_eps,
        visibility,
        rope: if sliding { SLIDING_ROPE } else { FULL_ROPE },
        gate: config.attention_gate,
    };
    let names = match config.family {
        Family::Lfm3 => AttentionNames::LFM3,
        Family::Lfm2 | Family::Lfm2Moe => AttentionNames::LFM2,
    };
    Attention::load(attention, names, &weights.pp("self_attn"))
}
