use std::path::PathBuf;

use clap::Args;
use lfm2::ModelSource;

const EXAMPLES: &str = "\
Works on a whole checkpoint, on a folder with only config.json and on such a file alone. Of a
model on the Hub only the small files are fetched.

With --image: the views that a model sees of a picture, with their sizes and tokens, in the order in
which it sees them, and as a picture with --out.

Examples:
  lfm2 inspect                                 the built-in model
  lfm2 inspect LiquidAI/LFM2-1.2B
  lfm2 inspect config.json --json | jq .parameters
  lfm2 inspect model.gguf --check-values       also look for broken numbers in the weights
  lfm2 inspect ./LFM2-VL-450M --image cat.jpg --out views.png";

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
    /// Show the views of this picture instead, with the image settings of the source
    #[arg(long, value_name = "PATH", conflicts_with = "check_values")]
    pub(crate) image: Option<PathBuf>,
    /// Write the views as a PNG file
    #[arg(long, value_name = "FILE", requires = "image")]
    pub(crate) out: Option<PathBuf>,
    /// Replace the file of --out
    #[arg(long, requires = "out")]
    pub(crate) force: bool,
    /// Open no connection; use what is in the local cache
    #[arg(long)]
    pub(crate) offline: bool,
}
