use std::path::PathBuf;

use clap::Args;
use lfm2::ModelSource;
use lfm2::hub::gguf::Quantization;

const EXAMPLES: &str = "\
Types: f32, f16, bf16, q8_0, q4_0, q4_1, q5_0, q5_1, q4_k, q5_k, q6_k. Norms, convolution kernels
and routers stay f32. A tensor whose rows do not divide into blocks of the type gets a larger one;
such tensors are counted.

Examples:
  lfm2 quantize LiquidAI/LFM2-350M LFM2-350M-Q4_0.gguf --type q4_0
  lfm2 quantize ./checkpoint model.gguf --type q6_k --embedding-type q6_k --force";

/// Write a model as a GGUF file
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct QuantizeArgs {
    /// A folder, a GGUF file or organisation/name[@revision]
    pub(crate) source: ModelSource,
    /// The file to write
    pub(crate) output: PathBuf,
    /// How weight matrices are stored
    #[arg(short = 't', long = "type", value_name = "TYPE")]
    pub(crate) kind: Quantization,
    /// How the embedding table is stored [default: as the type, at least q8_0]
    #[arg(long, value_name = "TYPE")]
    pub(crate) embedding_type: Option<Quantization>,
    /// The model's name in the file [default: from the source]
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Replace the file when it exists
    #[arg(long)]
    pub(crate) force: bool,
    /// Open no connection; use what is in the local cache
    #[arg(long)]
    pub(crate) offline: bool,
}
