//! Which model, and where it runs.

use clap::{Args, ValueEnum};
use lfm2::hub::gguf::Quantization;
use lfm2::{DType, ModelSource};

/// The variable with the model where `--model` is not given.
pub(crate) const MODEL_VARIABLE: &str = "LFM2_MODEL";

/// The variable with the retrieval model where `--model` is not given.
pub(crate) const RETRIEVAL_MODEL_VARIABLE: &str = "LFM2_RETRIEVAL_MODEL";

/// The variable with the folder for packed weights, or `off`.
pub(crate) const PACKED_CACHE_VARIABLE: &str = "LFM2_PACKED_CACHE";

/// Which model.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Model")]
pub(crate) struct ModelArgs {
    /// A folder, a GGUF file or organisation/name[@revision] [default: the built-in model]
    #[arg(short, long, value_name = "SOURCE")]
    pub(crate) model: Option<ModelSource>,
    /// Open no connection; use what is in the local cache
    #[arg(long)]
    pub(crate) offline: bool,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
}

/// Where a model runs.
#[derive(Debug, Clone, Copy, Args)]
#[command(next_help_heading = "Model")]
pub(crate) struct DeviceArgs {
    /// Where the model runs
    #[arg(long, value_enum, default_value_t)]
    pub(crate) device: DeviceKind,
    /// Number type of activations [default: f32 on a CPU, else bf16]
    #[arg(long, value_enum)]
    pub(crate) dtype: Option<Activations>,
    /// Quantise dense weights while loading, such as q4_0: as fast and small as a quantised file
    #[arg(long, value_name = "TYPE")]
    pub(crate) quantize: Option<Quantization>,
    /// Round activations nowhere noticeably; prompts take longer
    #[arg(long)]
    pub(crate) exact: bool,
    /// Sort quantised weights for the processor at every start, instead of keeping them sorted
    #[arg(long)]
    pub(crate) no_packed_cache: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum DeviceKind {
    #[default]
    Cpu,
    /// An NVIDIA card; needs a build with the feature `cuda`
    Cuda,
    /// An Apple GPU; needs a build with the feature `metal`
    Metal,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Activations {
    F32,
    F16,
    Bf16,
}

impl Activations {
    /// The type of tensors with such numbers.
    pub(crate) fn dtype(self) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::F16 => DType::F16,
            Self::Bf16 => DType::BF16,
        }
    }
}
