//! What a pass cannot do without: bytes to read and multiply-adds.

use lfm2::DType;
use lfm2::hub::{StoredType, TensorInfo, TensorSource};
use lfm2::nn::limits::Arithmetic;
use lfm2::text::{LayerKind, TextConfig};

/// Prompts are cut into pieces of so many tokens, as in generating.
pub(super) const CHUNK: usize = 512;

/// Bytes and multiply-adds of a group of matrices.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Part {
    bytes: f64,
    macs: f64,
}

/// What the weights of a model take.
#[derive(Debug, Clone)]
pub(super) struct ModelWork {
    config: TextConfig,
    /// Read by every pass, multiplied with every token.
    common: Part,
    /// Of all experts together.
    experts: Part,
    /// Only for tokens whose logits are wanted.
    head: Part,
    kv: DType,
    /// Of the storage that most bytes are in.
    pub(super) arithmetic: Arithmetic,
}

/// A pass: so many tokens each behind a context.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pass {
    /// Sequences.
    pub(super) rows: usize,
    /// Tokens per sequence.
    pub(super) tokens: usize,
    /// Tokens per sequence before.
    pub(super) context: usize,
    /// Tokens whose logits are wanted.
    pub(super) logits: usize,
}

impl ModelWork {
    /// From the facts of a model and its tensors as they are stored; keys and values are `kv`.
    pub(super) fn new(config: &TextConfig, tensors: &dyn TensorSource, kv: DType) -> Self {
        let names = tensors.names();
        let untied = names.iter().any(|name| name.ends_with("lm_head.weight"));
        let mut work = Self {
            config: config.clone(),
            common: Part::default(),
            experts: Part::default(),
            head: Part::default(),
            kv,
            arithmetic: Arithmetic::default(),
        };
        let mut bytes_of = [0.0; Arithmetic::ALL.len()];
        for name in names {
            let Some(info) = tensors.info(&name) else {
                continue;
            };
            let is_table = name.ends_with("embed_tokens.weight");
            if is_table && untied {
                continue;
            }
            let part = if is_table || name.ends_with("lm_head.weight") {
                &mut work.head
            } else if name.contains(".experts.") {
                &mut work.experts
            } else {
                &mut work.common
            };
            let (bytes, macs) = (bytes(&info), macs(&info));
            part.bytes += bytes;
            part.macs += macs;
            for (sum, arithmetic) in bytes_of.iter_mut().zip(Arithmetic::ALL) {
                if arithmetic == arithmetic_of(info.stored) {
                    *sum += bytes;
                }
            }
        }
        let most = bytes_of
            .into_iter()
            .zip(Arithmetic::ALL)
            .max_by(|a, b| a.0.total_cmp(&b.0));
        work.arithmetic = most.map_or(Arithmetic::F32, |(_, arithmetic)| arithmetic);
        work
    }

    /// Bytes of weights, keys and values that the pass reads.
    pub(super) fn bytes(&self, pass: Pass) -> f64 {
        let all = pass.rows * pass.tokens;
        let pieces = all.div_ceil(CHUNK).max(1);
        let weights = self.common.bytes + self.experts.bytes * self.experts_read(all.min(CHUNK));
        let head = if pass.logits > 0 {
            self.head.bytes
        } else {
            0.0
        };
        let seen = pass.context + pass.tokens;
        weights * pieces as f64 + head + (pass.rows * self.state_bytes(seen)) as f64
    }

    /// Multiply-adds of the pass.
    pub(super) fn macs(&self, pass: Pass) -> f64 {
        let all = (pass.rows * pass.tokens) as f64;
        let chosen = self
            .config
            .moe
            .map_or(0.0, |moe| moe.per_token as f64 / moe.experts as f64);
        let weights = (self.common.macs + self.experts.macs * chosen) * all;
        let heads = self.config.heads * self.config.head_dim;
        // The token in the middle sees the context and half of its own piece.
        let middle = pass.context + pass.tokens.div_ceil(2);
        let keys: usize = self.attended(middle).sum();
        weights + self.head.macs * pass.logits as f64 + (2 * heads * keys) as f64 * all
    }

    /// The share of all experts that at least one of `tokens` tokens chooses, when all are equally
    /// likely.
    fn experts_read(&self, tokens: usize) -> f64 {
        let missed = self
            .config
            .moe
            .map_or(0.0, |moe| 1.0 - moe.per_token as f64 / moe.experts as f64);
        1.0 - missed.powf(tokens as f64)
    }

    /// How many keys every attention layer looks at behind `context` tokens.
    fn attended(&self, context: usize) -> impl Iterator<Item = usize> {
        let window = self.config.sliding_window;
        self.config
            .layers
            .iter()
            .filter_map(move |kind| match kind {
                LayerKind::Conv => None,
                LayerKind::FullAttention => Some(context),
                LayerKind::SlidingAttention => Some(context.min(window)),
            })
    }

    /// Keys, values and convolution states of one sequence of `context` tokens.
    fn state_bytes(&self, context: usize) -> usize {
        let config = &self.config;
        let keys: usize = self.attended(context).sum();
        let convs = config.layers.len() - self.attended(context).count();
        let states = convs * config.hidden_size * (config.conv_width - 1) * size_of::<f32>();
        2 * keys * config.kv_heads * config.head_dim * self.kv.size_in_bytes() + states
    }
}

fn elements(info: &TensorInfo) -> usize {
    info.shape.iter().product()
}

fn bytes(info: &TensorInfo) -> f64 {
    let elements = elements(info);
    let bytes = match info.stored {
        StoredType::Dense(dtype) => elements * dtype.size_in_bytes(),
        StoredType::Quantized(kind) => elements / kind.block_size() * kind.type_size(),
    };
    bytes as f64
}

/// Matrices are multiplied with every token; the vectors of a convolution and of norms do not count.
fn macs(info: &TensorInfo) -> f64 {
    // Stacked experts have a dimension more; so has the kernel of a convolution, with 1 in the middle.
    match info.shape.as_slice() {
        [_, _] => elements(info) as f64,
        [_, rows, _] if *rows > 1 => elements(info) as f64,
        _ => 0.0,
    }
}

fn arithmetic_of(stored: StoredType) -> Arithmetic {
    match stored {
        StoredType::Quantized(_) => Arithmetic::Int8,
        StoredType::Dense(DType::BF16) => Arithmetic::Bf16,
        StoredType::Dense(_) => Arithmetic::F32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lfm2::hub::gguf::Quantization;
    use lfm2::text::shapes;

    fn work(shape: &str, storage: Quantization) -> ModelWork {
        let shape = shapes::find(shape).unwrap();
        let tensors = shape.tensors(storage, 0).unwrap();
        ModelWork::new(&shape.config().unwrap(), &tensors, DType::F16)
    }

    fn decode(context: usize) -> Pass {
        Pass {
            rows: 1,
            tokens: 1,
            context,
            logits: 1,
        }
    }

    /// Millions, rounded.
    fn millions(value: f64) -> f64 {
        (value / 1e6).round()
    }

    #[test]
    fn a_decode_step_reads_all_matrices_once() {
        let work = work("lfm2-350m", Quantization::Q8_0);
        assert_eq!(millions(work.bytes(decode(0))), 377.0);
        assert_eq!(work.arithmetic, Arithmetic::Int8);
        let deep = work.bytes(decode(4096)) - work.bytes(decode(0));
        assert_eq!(millions(deep), 50.0);
    }

    #[test]
    fn dense_weights_are_counted_as_stored() {
        let work = work("lfm2-1.2b", Quantization::BF16);
        assert_eq!(millions(work.bytes(decode(0))), 2341.0);
        assert_eq!(work.arithmetic, Arithmetic::Bf16);
    }

    #[test]
    fn a_prompt_multiplies_every_token_and_needs_one_row_of_the_head() {
        let work = work("lfm2-1.2b", Quantization::Q4_0);
        let prompt = Pass {
            rows: 1,
            tokens: 512,
            context: 0,
            logits: 1,
        };
        let attention = 6.0 * 32.0 * 64.0 * 2.0 * 256.0;
        let head = 65_536.0 * 2048.0;
        let matrices = (work.macs(prompt) - head) / 512.0 - attention;
        assert_eq!(millions(matrices), 1036.0);
    }

    #[test]
    fn only_chosen_experts_are_read() {
        let work = work("lfm2-8b-a1b", Quantization::Q4_0);
        let step = |tokens| {
            work.bytes(Pass {
                tokens,
                ..decode(0)
            })
        };
        // All of 22 layers of 32 experts of three matrices of 2048 x 1792, at 18 bytes per 32.
        let experts = 22.0 * 32.0 * 3.0 * 2048.0 * 1792.0 * 18.0 / 32.0;
        let all = work.common.bytes + work.head.bytes + experts;
        assert!((all - step(500)).abs() / all < 0.01);
        let one = all - experts * 28.0 / 32.0;
        assert!((one - step(1)).abs() / one < 0.01);
        let two = step(2) - step(1);
        assert!((two / experts - 28.0 / 32.0 * 4.0 / 32.0).abs() < 0.01);
    }

    #[test]
    fn sliding_windows_bound_what_is_read() {
        let work = work("lfm3-1.7b", Quantization::Q8_0);
        let growth = |from: usize| work.bytes(decode(from + 1)) - work.bytes(decode(from));
        assert!(growth(100) > growth(10_000));
        assert!(growth(10_000) > 0.0);
    }
}
