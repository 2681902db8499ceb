use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;
use lfm2::ModelSource;
use lfm2::hub::Revision;

const EXAMPLES: &str = "\
Only the files a model needs are fetched, into the cache that other Hub programs share, and every
one is checked. An interrupted download goes on where it stopped. The place is written to stdout.
For a private repository set HF_TOKEN.

Examples:
  lfm2 download LiquidAI/LFM2-350M
  lfm2 download LiquidAI/LFM2-350M-GGUF:Q4_0             one GGUF file
  lfm2 download LiquidAI/LFM2-350M --revision main --force";

/// Fetch a model from the Hub
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct DownloadArgs {
    /// organisation/name, or organisation/name:file.gguf
    #[arg(value_name = "ID")]
    pub(crate) source: Wanted,
    /// A branch, tag or commit [default: main]
    #[arg(long)]
    pub(crate) revision: Option<Revision>,
    /// The cache folder [default: that of the Hub programs]
    #[arg(long, value_name = "DIR")]
    pub(crate) cache_dir: Option<PathBuf>,
    /// Fetch files again that are in the cache
    #[arg(long)]
    pub(crate) force: bool,
}

/// What to fetch.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub(crate) source: ModelSource,
    /// Whether it was written with a revision, which looks like the default one otherwise.
    pub(crate) has_revision: bool,
}

impl FromStr for Wanted {
    type Err = lfm2::hub::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self {
            source: text.parse()?,
            has_revision: text.contains('@'),
        })
    }
}
