use std::num::NonZeroUsize;

use clap::Args;
use lfm2::ModelSource;
use lfm2::hub::gguf::Quantization;

use super::DeviceArgs;

const EXAMPLES: &str = "\
Prompts are random tokens and the most likely token is taken, so figures depend on shapes and
storage alone: random weights of a published shape are as slow as real ones. Every figure is the
median over the repetitions; the first repetition is preceded by a short one that is not counted.

Shapes: lfm2-350m, lfm2-700m, lfm2-1.2b, lfm2-2.6b, lfm2-8b-a1b, lfm2-24b-a2b, lfm2.5-230m,
lfm2.5-350m, lfm2.5-1.2b, lfm2.5-2.6b, lfm2.5-8b-a1b, lfm3-1.7b. They are stored as f32, f16,
bf16, q8_0, q4_0, q4_k or q6_k.

Examples:
  lfm2 bench                                               the built-in model
  lfm2 bench --model model.gguf --threads 4
  lfm2 bench --synthetic lfm2-1.2b --quantization q4_0 --depth 0,4096
  lfm2 bench --synthetic lfm2-8b-a1b --quantization q4_0 --json";

/// Measure speed and memory
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct BenchArgs {
    /// A folder, a GGUF file or organisation/name[@revision] [default: the built-in model]
    #[arg(short, long, value_name = "SOURCE", conflicts_with = "synthetic")]
    pub(crate) model: Option<ModelSource>,
    /// Random weights of a published shape, such as lfm2-1.2b
    #[arg(long, value_name = "SHAPE")]
    pub(crate) synthetic: Option<String>,
    /// How random weights are stored
    #[arg(
        long,
        value_name = "TYPE",
        default_value = "q4_0",
        requires = "synthetic"
    )]
    pub(crate) quantization: Quantization,
    /// Tokens of the prompt
    #[arg(long, value_name = "N", default_value = "512")]
    pub(crate) prompt_tokens: NonZeroUsize,
    /// Tokens to generate
    #[arg(long, value_name = "N", default_value = "64")]
    pub(crate) gen_tokens: NonZeroUsize,
    /// Tokens in the context before the prompt; several with commas
    #[arg(long, value_name = "N,...", default_value = "0", value_delimiter = ',')]
    pub(crate) depth: Vec<usize>,
    /// Repetitions
    #[arg(long, value_name = "N", default_value = "3")]
    pub(crate) repeat: NonZeroUsize,
    /// Start of the random numbers
    #[arg(long, value_name = "N", default_value = "0")]
    pub(crate) seed: u64,
    /// Write JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
}
