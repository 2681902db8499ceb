use clap::Args;
use lfm2::ModelSource;

const EXAMPLES: &str = "\
Works on a whole checkpoint, on a folder with only config.json and on such a file alone. Of a
model on the Hub only the small files are fetched.

Examples:
  lfm2 inspect                                 the built-in model
  lfm2 inspect LiquidAI/LFM2-1.2B
  lfm2 inspect config.json --json | jq .parameters
  lfm2 inspect model.gguf --check-values       also look for broken numbers in the weights";

/// Show what a model is made of
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct InspectArgs {
    /// A folder, a GGUF file, organisation/name[@revision] or a config.json [default: the built-in model]
    pub(crate) source: Option<ModelSource>,
    /// Write JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Read every weight and fail when one is NaN or infinite
    #[arg(long)]
    pub(crate) check_values: bool,
    /// Open no connection; use what is in the local cache
    #[arg(long)]
    pub(crate) offline: bool,
}
