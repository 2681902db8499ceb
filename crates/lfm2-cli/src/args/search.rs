use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::Args;
use lfm2::retrieval::Filter;

use super::{ModelArgs, number};

const EXAMPLES: &str = "\
Without a question, questions are read from the terminal or from a pipe, one per line.

A filter is `lang = de`, `year in [2024, 2025]` or `path ^= docs/` (begins with), several joined by
`and`. Its names are fields of the JSON line that a document came from, and path, title, heading, id.

With --explain every hit shows which word of the question met which word of the text, and how
close they are (1.00 is the same); words of the text that were met are in colour on a terminal.

Examples:
  lfm2 search docs.index \"how do I make a model smaller?\"
  lfm2 search docs.index                                    one question after another
  lfm2 search docs.index \"exit codes\" --filter \"path ^= docs/\" --explain
  lfm2 search docs.index \"exit codes\" -k 3 --json | jq -r .document";

/// Find texts that answer a question
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct SearchArgs {
    /// The index
    pub(crate) index: PathBuf,
    /// The question [default: read them one by one]
    pub(crate) question: Option<String>,
    /// Words of a question that was not put in quotes, only to say so.
    #[arg(hide = true)]
    pub(crate) rest: Vec<String>,
    /// Hits to show
    #[arg(
        short = 'k',
        long = "top",
        value_name = "N",
        default_value = "5",
        value_parser = number::at_least_one,
        allow_negative_numbers = true
    )]
    pub(crate) top: NonZeroUsize,
    /// Only texts that this is true of, such as "path ^= docs/"
    #[arg(long, value_name = "CONDITIONS")]
    pub(crate) filter: Option<Filter>,
    /// Show which words met
    #[arg(long)]
    pub(crate) explain: bool,
    /// Write JSON: one line per hit
    #[arg(long)]
    pub(crate) json: bool,
    /// Report times on stderr
    #[arg(short, long)]
    pub(crate) verbose: bool,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
}
