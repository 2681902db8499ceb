use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::Args;

use super::{ModelArgs, number};

const EXAMPLES: &str = "\
FILE has one text per line, or JSON lines with `text` and perhaps `id` and `title`. What is read
from another search engine is sorted anew, best first; equal ones keep their order.

Examples:
  lfm2 rerank \"what is lift?\" passages.txt -k 3
  grep -i lift *.txt | lfm2 rerank \"what is lift?\" -
  lfm2 rerank \"what is lift?\" candidates.jsonl --json | jq -r .id";

/// Sort texts by how well they answer a question
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct RerankArgs {
    /// The question
    pub(crate) question: String,
    /// The texts: lines or JSON lines, or - to read them from stdin
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Texts to show [default: all]
    #[arg(
        short = 'k',
        long = "top",
        value_name = "N",
        value_parser = number::at_least_one,
        allow_negative_numbers = true
    )]
    pub(crate) top: Option<NonZeroUsize>,
    /// Write JSON: one line per text
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
}
