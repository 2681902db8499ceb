use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::Args;

use super::{ModelArgs, number, speech};

const EXAMPLES: &str = "\
A row of the manifest is a JSON object with `audio`, a sound file sought from the manifest's folder, and
`text`, what is said in it. Every clip is transcribed whole, and the fewest words that have to be
replaced, added or left out to get the text are counted; the rate is their number by the words that were
said. Upper case and punctuation do not count. scripts/data/digits.py makes such files.

Examples:
  lfm2 eval wer --data digits/test.jsonl
  lfm2 eval wer --data digits/test.jsonl --model run/checkpoint --verbose
  lfm2 eval wer --data talks.jsonl --model LiquidAI/LFM2.5-Audio-1.5B --json";

/// How well a model writes down what is said
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, mut_arg("model", speech::model_help))]
pub(crate) struct WerArgs {
    /// The manifest: JSON lines, plain or gzip
    #[arg(long, value_name = "FILE")]
    pub(crate) data: PathBuf,
    /// Use only this many clips, from the start
    #[arg(
        long,
        value_name = "N",
        value_parser = number::at_least_one,
        allow_negative_numbers = true
    )]
    pub(crate) limit: Option<NonZeroUsize>,
    /// Write JSON: one line for the result
    #[arg(long)]
    pub(crate) json: bool,
    /// Show the clips that were not transcribed rightly on stderr
    #[arg(short, long)]
    pub(crate) verbose: bool,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
}
