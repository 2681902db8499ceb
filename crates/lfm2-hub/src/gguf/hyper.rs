//! The numbers that describe an LFM2 model, between GGUF metadata and a `config.json`.
//!
//! This knows the keys of the metadata; `config` knows those of the JSON file.

use super::metadata::{Array, Metadata, Value};
use super::names::Dim;
use super::tokens::TOKENS_KEY;
use crate::{Error, Limits, Result};

pub(super) const ARCHITECTURE_KEY: &str = "general.architecture";

/// `expert_gating_func` of a router that takes the sigmoid of its logits.
const SIGMOID: usize = 2;

/// What mixes tokens in a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mixer {
    Conv,
    Attention,
}

/// The feed-forward part of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Feed {
    Dense,
    Moe,
}

/// Which positions a position sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sight {
    Causal,
    Bidirectional,
}

/// Whether the router's scores are scaled to a sum of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Normalise {
    Yes,
    No,
}

/// The mixture of experts of a sparse model.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Moe {
    pub(super) experts: usize,
    pub(super) used: usize,
    pub(super) width: usize,
    pub(super) dense_layers: usize,
    pub(super) bias: bool,
    pub(super) normalise: Normalise,
    pub(super) scale: f64,
}

/// Everything but the weights.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Hyper {
    pub(super) layers: Vec<Mixer>,
    pub(super) context: usize,
    pub(super) vocab: usize,
    pub(super) hidden: usize,
    /// Width of the dense feed-forward layers, as it really is.
    pub(super) ffn: usize,
    pub(super) heads: usize,
    pub(super) kv_heads: usize,
    pub(super) head_dim: usize,
    pub(super) kernel: usize,
    pub(super) theta: f64,
    pub(super) epsilon: f64,
    pub(super) sight: Sight,
    pub(super) tied: bool,
    pub(super) conv_bias: bool,
    pub(super) moe: Option<Moe>,
}

impl Hyper {
    pub(super) fn feed(&self, layer: usize) -> Feed {
        match &self.moe {
            Some(moe) if layer >= moe.dense_layers => Feed::Moe,
            _ => Feed::Dense,
        }
    }

    pub(super) fn expert_bias(&self) -> bool {
        self.moe.as_ref().is_some_and(|moe| moe.bias)
    }

    /// The size of a dimension; within [`Limits`], so no product overflows.
    pub(super) fn dimension(&self, dim: Dim) -> usize {
        let moe = self.moe.as_ref();
        match dim {
            Dim::Vocab => self.vocab,
            Dim::Hidden => self.hidden,
            Dim::ThriceHidden => 3 * self.hidden,
            Dim::Heads => self.heads * self.head_dim,
            Dim::KvHeads => self.kv_heads * self.head_dim,
            Dim::Head => self.head_dim,
            Dim::Kernel => self.kernel,
            Dim::Ffn => self.ffn,
            Dim::Experts => moe.map_or(0, |moe| moe.experts),
            Dim::ExpertFfn => moe.map_or(0, |moe| moe.width),
        }
    }

    /// Holds every number to its limit and to at least one; what the numbers mean together is the
    /// model's own business.
    pub(super) fn check(self, limits: &Limits) -> Result<Self> {
        let moe = self.moe.as_ref();
        let rows = [
            ("vocabulary size", self.vocab, limits.vocabulary),
            ("number of layers", self.layers.len(), limits.layers),
            ("number of heads", self.heads, limits.heads),
            ("number of key-value heads", self.kv_heads, limits.heads),
            ("hidden size", self.hidden, limits.hidden_size),
            ("head size", self.head_dim, limits.hidden_size),
            ("feed-forward width", self.ffn, limits.hidden_size),
            ("convolution kernel", self.kernel, limits.hidden_size),
            (
                "number of experts",
                moe.map_or(1, |moe| moe.experts),
                limits.experts,
            ),
            (
                "number of experts per token",
                moe.map_or(1, |moe| moe.used),
                limits.experts,
            ),
            (
                "expert width",
                moe.map_or(1, |moe| moe.width),
                limits.hidden_size,
            ),
        ];
        for (what, found, limit) in rows {
            if found == 0 {
                return Err(Error::config(what, "expected at least 1, found 0"));
            }
            if found > limit {
                let (limit, found) = (limit as u64, found as u64);
                return Err(Error::Limit {
                    what: what.to_owned(),
                    limit,
                    found,
                });
            }
        }
        Ok(self)
    }

    /// Reads the metadata of a file; `has` tells which tensors the file holds, as some facts are
    /// not in the metadata.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for another architecture or variant, [`Error::InvalidFile`] for
    /// missing or contradicting keys, [`Error::Limit`].
    pub(super) fn from_metadata(
        metadata: &Metadata,
        has: &dyn Fn(&str) -> bool,
        limits: &Limits,
    ) -> Result<Self> {
        let keys = Keys {
            metadata,
            architecture: Architecture::of(metadata)?,
        };
        keys.refuse_variants()?;
        let heads = keys.usize("attention.head_count")?;
        let hidden = keys.usize("embedding_length")?;
        if heads == 0 || !hidden.is_multiple_of(heads) {
            let names = [
                keys.name("embedding_length"),
                keys.name("attention.head_count"),
            ];
            return Err(metadata.invalid(format!(
                "{} {hidden} is no multiple of {} {heads}",
                names[0], names[1]
            )));
        }
        let (layers, kv_heads) = keys.layers(limits)?;
        let vocab = match keys.usize_opt("vocab_size")? {
            Some(vocab) => vocab,
            None => metadata.strings(TOKENS_KEY)?.len(),
        };
        let any = |suffix: &str| (0..layers.len()).any(|n| has(&format!("blk.{n}.{suffix}")));
        Self {
            context: keys.usize("context_length")?,
            vocab,
            hidden,
            ffn: keys.usize("feed_forward_length")?,
            heads,
            kv_heads: kv_heads.unwrap_or(heads),
            head_dim: keys
                .usize_opt("attention.key_length")?
                .unwrap_or(hidden / heads),
            kernel: keys.usize("shortconv.l_cache")?,
            theta: keys.float("rope.freq_base")?,
            epsilon: keys.float("attention.layer_norm_rms_epsilon")?,
            sight: keys.sight()?,
            tied: !has(super::names::OUTPUT),
            conv_bias: any("shortconv.in_proj.bias"),
            moe: keys.moe(any("exp_probs_b.bias"))?,
            layers,
        }
        .check(limits)
    }

    /// Adds the keys that describe this model, in the customary order.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`] when a number does not fit its field.
    pub(super) fn write_metadata(&self, metadata: &mut Metadata) -> Result<()> {
        let architecture = match self.moe {
            Some(_) => Architecture::Moe,
            None => Architecture::Dense,
        };
        let mut put = |key: &str, value: Value| {
            metadata.insert(format!("{}.{key}", architecture.name()), value)
        };
        put("block_count", number("layers", self.layers.len())?)?;
        put("context_length", number("context", self.context)?)?;
        put("embedding_length", number("hidden size", self.hidden)?)?;
        put(
            "feed_forward_length",
            number("feed-forward width", self.ffn)?,
        )?;
        put("attention.head_count", number("heads", self.heads)?)?;
        put(
            "attention.head_count_kv",
            Value::Array(Array::I32(self.kv_heads_by_layer()?)),
        )?;
        put("rope.freq_base", Value::F32(self.theta as f32))?;
        put(
            "attention.layer_norm_rms_epsilon",
            Value::F32(self.epsilon as f32),
        )?;
        if self.head_dim != self.hidden / self.heads {
            put("attention.key_length", number("head size", self.head_dim)?)?;
            put(
                "attention.value_length",
                number("head size", self.head_dim)?,
            )?;
        }
        put("vocab_size", number("vocabulary", self.vocab)?)?;
        put("shortconv.l_cache", number("kernel", self.kernel)?)?;
        if self.sight == Sight::Bidirectional {
            put("attention.causal", Value::Bool(false))?;
        }
        let Some(moe) = &self.moe else { return Ok(()) };
        put("expert_count", number("experts", moe.experts)?)?;
        put("expert_used_count", number("experts per token", moe.used)?)?;
        put(
            "expert_feed_forward_length",
            number("expert width", moe.width)?,
        )?;
        put(
            "leading_dense_block_count",
            number("dense layers", moe.dense_layers)?,
        )?;
        put("expert_gating_func", number("gating", SIGMOID)?)?;
        // Readers take absent keys as "normalised, scaled by one", so only what differs is said.
        if moe.normalise == Normalise::No {
            put("expert_weights_norm", Value::Bool(false))?;
        }
        if moe.scale != 1.0 {
            put("expert_weights_scale", Value::F32(moe.scale as f32))?;
        }
        Ok(())
    }

    fn kv_heads_by_layer(&self) -> Result<Vec<i32>> {
        let kv_heads = i32::try_from(self.kv_heads)
            .map_err(|_| too_large("key-value heads", self.kv_heads))?;
        let of = |mixer: &Mixer| {
            if *mixer == Mixer::Attention {
                kv_heads
            } else {
                0
            }
        };
        Ok(self.layers.iter().map(of).collect())
    }
}

fn number(what: &str, value: usize) -> Result<Value> {
    u32::try_from(value)
        .map(Value::U32)
        .map_err(|_| too_large(what, value))
}

fn too_large(what: &str, value: usize) -> Error {
    Error::config(what, format!("{value} does not fit into 32 bits"))
}

/// The architectures this crate reads and writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Architecture {
    Dense,
    Moe,
}

impl Architecture {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Dense => "lfm2",
            Self::Moe => "lfm2moe",
        }
    }

    pub(super) fn of(metadata: &Metadata) -> Result<Self> {
        let name = metadata.str(ARCHITECTURE_KEY)?;
        [Self::Dense, Self::Moe]
            .into_iter()
            .find(|known| known.name() == name)
            .ok_or_else(|| Error::Unsupported {
                what: format!("architecture \"{name}\" of {}", metadata.path().display()),
                hint: "supported architectures are lfm2 and lfm2moe".to_owned(),
            })
    }
}

/// The metadata keys of one architecture.
struct Keys<'a> {
    metadata: &'a Metadata,
    architecture: Architecture,
}

impl Keys<'_> {
    fn name(&self, key: &str) -> String {
        format!("{}.{key}", self.architecture.name())
    }

    fn usize(&self, key: &str) -> Result<usize> {
        self.metadata.usize(&self.name(key))
    }

    fn usize_opt(&self, key: &str) -> Result<Option<usize>> {
        self.metadata.usize_opt(&self.name(key))
    }

    fn float(&self, key: &str) -> Result<f64> {
        self.metadata.float(&self.name(key))
    }

    /// The layers, and the number of key-value heads that all attention layers share.
    fn layers(&self, limits: &Limits) -> Result<(Vec<Mixer>, Option<usize>)> {
        let count = self.usize("block_count")?;
        if count > limits.layers {
            let (limit, found) = (limits.layers as u64, count as u64);
            return Err(Error::Limit {
                what: self.name("block_count"),
                limit,
                found,
            });
        }
        let key = self.name("attention.head_count_kv");
        let missing = || {
            self.metadata
                .invalid(format!("metadata key \"{key}\" is missing"))
        };
        let heads = self.metadata.integers_opt(&key)?.ok_or_else(missing)?;
        if heads.len() != count {
            let found = heads.len();
            return Err(self.metadata.invalid(format!(
                "metadata key \"{key}\": expected {count} values, found {found}"
            )));
        }
        let mut shared = None;
        let mut layers = Vec::with_capacity(heads.len());
        for found in heads {
            let found = usize::try_from(found).map_err(|_| {
                self.metadata
                    .invalid(format!("metadata key \"{key}\": {found} is negative"))
            })?;
            if found == 0 {
                layers.push(Mixer::Conv);
                continue;
            }
            layers.push(Mixer::Attention);
            if *shared.get_or_insert(found) != found {
                return Err(self.unsupported(&key, "different numbers of key-value heads"));
            }
        }
        Ok((layers, shared))
    }

    fn sight(&self) -> Result<Sight> {
        Ok(
            match self.metadata.bool_opt(&self.name("attention.causal"))? {
                Some(false) => Sight::Bidirectional,
                Some(true) | None => Sight::Causal,
            },
        )
    }

    fn moe(&self, bias: bool) -> Result<Option<Moe>> {
        if self.architecture == Architecture::Dense {
            return Ok(None);
        }
        let gating = self.usize("expert_gating_func")?;
        if gating != SIGMOID {
            return Err(self.unsupported(&self.name("expert_gating_func"), &gating.to_string()));
        }
        let normalise = match self.metadata.bool_opt(&self.name("expert_weights_norm"))? {
            Some(false) => Normalise::No,
            Some(true) | None => Normalise::Yes,
        };
        Ok(Some(Moe {
            experts: self.usize("expert_count")?,
            used: self.usize("expert_used_count")?,
            width: self.usize("expert_feed_forward_length")?,
            dense_layers: self.usize("leading_dense_block_count")?,
            bias,
            normalise,
            scale: self
                .metadata
                .float_opt(&self.name("expert_weights_scale"))?
                .unwrap_or(1.0),
        }))
    }

    /// Refuses what would change the results and is not implemented.
    fn refuse_variants(&self) -> Result<()> {
        let scaling = self.name("rope.scaling.type");
        if let Some(kind) = self
            .metadata
            .str_opt(&scaling)?
            .filter(|kind| *kind != "none")
        {
            return Err(self.unsupported(&scaling, kind));
        }
        if let Some(window) = self
            .usize_opt("attention.sliding_window")?
            .filter(|window| *window > 0)
        {
            return Err(
                self.unsupported(&self.name("attention.sliding_window"), &window.to_string())
            );
        }
        let head = match self.usize_opt("attention.key_length")? {
            Some(head) => Some(head),
            None => self
                .usize("embedding_length")?
                .checked_div(self.usize("attention.head_count")?),
        };
        for key in ["attention.value_length", "rope.dimension_count"] {
            let found = self.usize_opt(key)?;
            if found.is_some() && found != head {
                return Err(
                    self.unsupported(&self.name(key), "a size other than that of the heads")
                );
            }
        }
        Ok(())
    }

    fn unsupported(&self, key: &str, found: &str) -> Error {
        Error::Unsupported {
            what: format!(
                "metadata key \"{key}\" of {}: {found}",
                self.metadata.path().display()
            ),
            hint: "the published LFM2 models do not use it".to_owned(),
        }
    }
}
