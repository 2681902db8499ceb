use std::path::PathBuf;

use clap::{Args, ValueEnum};

const EXAMPLES: &str = "\
MODELS are checkpoint folders of one shape; the result is one more of them. Tensors are merged one after
another, so memory does not grow with the model. Weights are one per model and are divided by their sum
for a soup; the default is 1 each. A greedy soup runs a command for every candidate, with {} replaced by
the candidate's folder, and takes the last number it prints for the score; higher is better.

Examples:
  lfm2 merge a b c -o soup
  lfm2 merge a b --method ties --base base --weights 0.5,0.3 --density 0.4 -o merged
  lfm2 merge a b --method slerp --t 0.3 -o between
  lfm2 merge a b c --method greedy-soup --evaluate './score.sh {}' -o soup
  lfm2 merge base --adapter run/checkpoint/adapter -o merged
  lfm2 merge --recipe recipe.yaml -o merged";

/// Make one model out of several
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct MergeArgs {
    /// The checkpoint folders to merge
    #[arg(value_name = "MODELS", required_unless_present = "recipe")]
    pub(crate) models: Vec<PathBuf>,
    /// The folder of the result
    #[arg(short, long, value_name = "DIR")]
    pub(crate) output: PathBuf,
    /// A recipe in YAML, as mergekit reads them, instead of models and settings
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with_all = ["models", "method", "base", "weights", "density", "adapter"]
    )]
    pub(crate) recipe: Option<PathBuf>,
    /// How they are merged
    #[arg(long, value_enum, default_value_t)]
    pub(crate) method: MergeMethod,
    /// What the models were fine-tuned from
    #[arg(long, value_name = "DIR")]
    pub(crate) base: Option<PathBuf>,
    /// One number per model
    #[arg(
        long,
        value_name = "LIST",
        value_delimiter = ',',
        allow_negative_numbers = true
    )]
    pub(crate) weights: Vec<f64>,
    /// The share of changes that is kept
    #[arg(long, value_name = "P", default_value_t = 0.5)]
    pub(crate) density: f64,
    /// How far probabilities of della go from the density
    #[arg(long, value_name = "E", default_value_t = 0.15)]
    pub(crate) epsilon: f64,
    /// The factor of the merged changes
    #[arg(
        long,
        value_name = "F",
        default_value_t = 1.0,
        allow_negative_numbers = true
    )]
    pub(crate) lambda: f64,
    /// The place between two models, for slerp
    #[arg(long, value_name = "T", default_value_t = 0.5)]
    pub(crate) t: f64,
    /// What makes up for dropped changes
    #[arg(long, value_enum, default_value_t)]
    pub(crate) rescale: MergeRescale,
    /// Fixes which changes are dropped
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) seed: u64,
    /// Number type of the result [default: as stored]
    #[arg(long, value_enum)]
    pub(crate) dtype: Option<MergeDtype>,
    /// The command that scores a candidate, for a greedy soup
    #[arg(long, value_name = "COMMAND")]
    pub(crate) evaluate: Option<String>,
    /// Adds the adapters of a PEFT folder to a single model
    #[arg(long, value_name = "DIR", conflicts_with_all = ["base", "weights", "evaluate"])]
    pub(crate) adapter: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum MergeMethod {
    /// The weighted mean
    #[default]
    Soup,
    /// The mean of those that do not make a score fall
    GreedySoup,
    /// The base plus weighted changes
    TaskArithmetic,
    /// The largest changes where models agree on the sign
    Ties,
    /// A random part of the changes
    DareLinear,
    /// A random part of the changes where models agree on the sign
    DareTies,
    /// As dare-ties, large changes kept more often
    Della,
    /// Along the arc between two models
    Slerp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum MergeRescale {
    /// Division by the probability
    #[default]
    Inverse,
    /// The sum of magnitudes
    L1,
    /// Nothing
    None,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum MergeDtype {
    Bf16,
    F32,
}
