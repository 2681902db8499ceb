//! Which tensors a checkpoint has, from its config alone: for weights that are made up, to measure a
//! model whose weights are not at hand or to test one of any size.

mod released;

use lfm2_text::TextConfig;

pub use released::{Released, find};

use crate::config::{AudioConfig, CODE_ROWS, CODES, DepthConfig, DetokenizerConfig, EncoderConfig};
use crate::mimi::MimiConfig;

/// Names and shapes of tensors, as in the released files.
pub type Shapes = Vec<(String, Vec<usize>)>;

/// A list in the making, under a prefix.
struct List<'a> {
    prefix: String,
    shapes: &'a mut Shapes,
}

impl List<'_> {
    fn below(&mut self, name: impl std::fmt::Display) -> List<'_> {
        List {
            prefix: format!("{}{name}.", self.prefix),
            shapes: self.shapes,
        }
    }

    fn add(&mut self, name: &str, shape: &[usize]) {
        self.shapes
            .push((format!("{}{name}", self.prefix), shape.to_vec()));
    }

    fn weight(&mut self, name: &str, shape: &[usize]) {
        self.add(&format!("{name}.weight"), shape);
    }

    /// A weight, and a bias with one number per output.
    fn biased(&mut self, name: &str, shape: &[usize]) {
        self.weight(name, shape);
        self.add(&format!("{name}.bias"), &shape[..1]);
    }
}

/// The tensors of `model.safetensors`.
pub fn model(config: &AudioConfig) -> Shapes {
    let mut shapes = Shapes::new();
    let mut list = List {
        prefix: String::new(),
        shapes: &mut shapes,
    };
    backbone(&config.text, &mut list.below("lfm"));
    encoder(&config.encoder, &mut list.below("conformer"));
    let (hidden, width) = (config.text.hidden_size, config.encoder.width);
    let mut adapter = list.below("audio_adapter.model");
    adapter.biased("0", &[width]);
    adapter.biased("1", &[hidden, width]);
    adapter.biased("3", &[hidden, hidden]);
    let rows = config.codebooks * CODE_ROWS;
    list.weight("audio_embedding.embedding", &[rows, hidden]);
    list.biased(
        "depth_linear",
        &[config.codebooks * config.depth.width, hidden],
    );
    depth(&config.depth, config.codebooks, &mut list);
    shapes
}

/// The tensors of `audio_detokenizer/model.safetensors`.
pub fn detokenizer(config: &DetokenizerConfig, codebooks: usize) -> Shapes {
    let mut shapes = Shapes::new();
    let mut list = List {
        prefix: String::new(),
        shapes: &mut shapes,
    };
    let hidden = config.text.hidden_size;
    backbone(&config.text, &mut list.below("lfm"));
    list.weight("emb.emb", &[codebooks * CODES as usize, hidden]);
    list.biased("lin", &[config.output, hidden]);
    shapes
}

/// The tensors of the Mimi file.
pub fn mimi(config: &MimiConfig) -> Shapes {
    let mut shapes = Shapes::new();
    let mut list = List {
        prefix: String::new(),
        shapes: &mut shapes,
    };
    let width = config.dimension;
    for (branch, codebooks) in [("rvq_first", 1), ("rvq_rest", config.codebooks - 1)] {
        let mut list = list.below(format!("quantizer.{branch}"));
        list.weight("input_proj", &[config.code_width, width, 1]);
        list.weight("output_proj", &[width, config.code_width, 1]);
        for i in 0..codebooks {
            let mut codebook = list.below(format!("vq.layers.{i}._codebook"));
            codebook.add("cluster_usage", &[CODES as usize]);
            codebook.add("embedding_sum", &[CODES as usize, config.code_width]);
        }
    }
    list.weight("upsample.convtr.convtr.convtr", &[width, 1, 4]);
    list.weight("downsample.conv.conv.conv", &[width, width, 4]);
    for side in ["encoder_transformer", "decoder_transformer"] {
        mimi_transformer(config, &mut list.below(side));
    }
    seanet_decoder(config, &mut list.below("decoder.model"));
    seanet_encoder(config, &mut list.below("encoder.model"));
    shapes
}

fn backbone(config: &TextConfig, list: &mut List<'_>) {
    for tensor in config.tensors() {
        let name = tensor.name.strip_prefix("model.").unwrap_or(&tensor.name);
        list.add(name, &tensor.shape);
    }
}

fn encoder(config: &EncoderConfig, list: &mut List<'_>) {
    let (width, channels, taps) = (config.width, config.channels, config.kernel);
    let mut first = list.below("pre_encode");
    first.biased("conv.0", &[channels, 1, 3, 3]);
    for depthwise in [2, 5] {
        first.biased(&format!("conv.{depthwise}"), &[channels, 1, 3, 3]);
        first.biased(
            &format!("conv.{}", depthwise + 1),
            &[channels, channels, 1, 1],
        );
    }
    let bins = (0..3).fold(config.features, |bins, _| bins.div_ceil(2));
    first.biased("out", &[width, channels * bins]);
    for i in 0..config.layers {
        let mut layer = list.below(format!("layers.{i}"));
        for norm in [
            "norm_feed_forward1",
            "norm_self_att",
            "norm_conv",
            "norm_feed_forward2",
            "norm_out",
        ] {
            layer.biased(norm, &[width]);
        }
        for ffn in ["feed_forward1", "feed_forward2"] {
            let inner = config.expansion * width;
            layer.biased(&format!("{ffn}.linear1"), &[inner, width]);
            layer.biased(&format!("{ffn}.linear2"), &[width, inner]);
        }
        let mut attention = layer.below("self_attn");
        for name in ["linear_q", "linear_k", "linear_v", "linear_out"] {
            attention.biased(name, &[width, width]);
        }
        attention.weight("linear_pos", &[width, width]);
        for name in ["pos_bias_u", "pos_bias_v"] {
            attention.add(name, &[config.heads, width / config.heads]);
        }
        let mut conv = layer.below("conv");
        conv.biased("pointwise_conv1", &[2 * width, width, 1]);
        conv.biased("depthwise_conv", &[width, 1, taps]);
        conv.biased("pointwise_conv2", &[width, width, 1]);
        conv.biased("batch_norm", &[width]);
        conv.add("batch_norm.running_mean", &[width]);
        conv.add("batch_norm.running_var", &[width]);
    }
}

fn depth(config: &DepthConfig, codebooks: usize, list: &mut List<'_>) {
    let (width, head_dim) = (config.width, config.head_dim());
    for k in 0..codebooks {
        let mut codebook = list.below(format!("depth_embeddings.{k}"));
        codebook.weight("embedding", &[CODE_ROWS, width]);
        codebook.weight("embedding_norm", &[width]);
        if !config.tied {
            codebook.weight("to_logits", &[CODE_ROWS, width]);
        }
    }
    let rows = (DepthConfig::HEADS + 2 * DepthConfig::KV_HEADS) * head_dim;
    for i in 0..config.layers {
        let mut layer = list.below(format!("depthformer.layers.{i}"));
        layer.weight("operator_norm", &[width]);
        layer.weight("ffn_norm", &[width]);
        layer.weight("operator.qkv_proj", &[rows, width]);
        layer.weight("operator.out_proj", &[width, width]);
        layer.weight("operator.bounded_attention.q_layernorm", &[head_dim]);
        layer.weight("operator.bounded_attention.k_layernorm", &[head_dim]);
        layer.weight("feed_forward.w1", &[config.ffn_width(), width]);
        layer.weight("feed_forward.w2", &[width, config.ffn_width()]);
        layer.weight("feed_forward.w3", &[config.ffn_width(), width]);
    }
}

fn mimi_transformer(config: &MimiConfig, list: &mut List<'_>) {
    let width = config.dimension;
    for i in 0..config.layers {
        let mut layer = list.below(format!("transformer.layers.{i}"));
        layer.biased("norm1", &[width]);
        layer.biased("norm2", &[width]);
        layer.add("self_attn.in_proj_weight", &[3 * width, width]);
        layer.weight("self_attn.out_proj", &[width, width]);
        layer.weight("linear1", &[config.ffn, width]);
        layer.weight("linear2", &[width, config.ffn]);
        layer.add("layer_scale_1.scale", &[width]);
        layer.add("layer_scale_2.scale", &[width]);
    }
}

fn residual(config: &MimiConfig, channels: usize, list: &mut List<'_>) {
    let inner = channels / config.compress;
    list.biased(
        "block.1.conv.conv",
        &[inner, channels, config.residual_kernel],
    );
    list.biased("block.3.conv.conv", &[channels, inner, 1]);
}

fn seanet_decoder(config: &MimiConfig, list: &mut List<'_>) {
    let mut channels = config.filters << config.ratios.len();
    list.biased("0.conv.conv", &[channels, config.dimension, config.kernel]);
    for (i, ratio) in config.ratios.iter().enumerate() {
        let at = 2 + 3 * i;
        list.weight(
            &format!("{at}.convtr.convtr"),
            &[channels, channels / 2, 2 * ratio],
        );
        channels /= 2;
        list.add(&format!("{at}.convtr.convtr.bias"), &[channels]);
        residual(config, channels, &mut list.below(at + 1));
    }
    let at = 2 + 3 * config.ratios.len();
    list.biased(
        &format!("{at}.conv.conv"),
        &[1, channels, config.last_kernel],
    );
}

fn seanet_encoder(config: &MimiConfig, list: &mut List<'_>) {
    let mut channels = config.filters;
    list.biased("0.conv.conv", &[channels, 1, config.kernel]);
    for (i, ratio) in config.ratios.iter().rev().enumerate() {
        let at = 1 + 3 * i;
        residual(config, channels, &mut list.below(at));
        let shape = [2 * channels, channels, 2 * ratio];
        list.biased(&format!("{}.conv.conv", at + 2), &shape);
        channels *= 2;
    }
    let at = 2 + 3 * config.ratios.len();
    let shape = [config.dimension, channels, config.last_kernel];
    list.biased(&format!("{at}.conv.conv"), &shape);
}
