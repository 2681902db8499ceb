use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{ModelArgs, RetrievalArgs, VlArgs, WerArgs, number};

const RECALL: &str = "\
Every row is a JSON object with `prompt` and `answer`. The prompt is asked as the only turn of a
conversation, the model answers greedily, and the row counts when the answer occurs in what it
says.

Examples:
  lfm2 eval recall --data data/stories/recall.jsonl.gz
  lfm2 eval recall --data rows.jsonl --model model.gguf --json | tail -n 1";

const PERPLEXITY: &str = "\
Texts are the blocks between empty lines of a file. What is printed is exp of the mean loss per token,
and the loss per byte, by which models with different vocabularies can be compared.

Examples:
  lfm2 eval perplexity --data data/stories/stories-valid.txt.gz
  lfm2 eval perplexity --data text.txt --model model.gguf
  lfm2 eval perplexity --data text.txt --model folder --quantize q8_0 --json";

/// Measure how good a model is
#[derive(Debug, Args)]
pub(crate) struct EvalArgs {
    #[command(subcommand)]
    pub(crate) command: EvalCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum EvalCommand {
    /// Questions on a text in the prompt
    Recall(RecallArgs),
    /// How well a text is predicted
    Perplexity(PerplexityArgs),
    /// How well a model finds the texts that answer a question
    Retrieval(RetrievalArgs),
    /// How well a model sees coloured shapes
    Vl(VlArgs),
    /// How well a model writes down what is said
    Wer(WerArgs),
}

/// How well a text is predicted
#[derive(Debug, Args)]
#[command(after_help = PERPLEXITY)]
pub(crate) struct PerplexityArgs {
    /// The text: UTF-8, plain or gzip
    #[arg(long, value_name = "FILE")]
    pub(crate) data: PathBuf,
    /// Tokens a text is read in at once; longer texts are cut
    #[arg(
        long,
        value_name = "N",
        default_value = "2048",
        value_parser = number::at_least_one,
        allow_negative_numbers = true
    )]
    pub(crate) context: NonZeroUsize,
    /// Write JSON: one line for the result
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
}

/// Questions on a text in the prompt
#[derive(Debug, Args)]
#[command(after_help = RECALL)]
pub(crate) struct RecallArgs {
    /// The rows: JSON lines, plain or gzip
    #[arg(long, value_name = "FILE")]
    pub(crate) data: PathBuf,
    /// Use only this many rows, from the start
    #[arg(
        long,
        value_name = "N",
        value_parser = number::at_least_one,
        allow_negative_numbers = true
    )]
    pub(crate) limit: Option<NonZeroUsize>,
    /// Tokens an answer may have
    #[arg(
        short = 'n',
        long,
        value_name = "N",
        default_value = "32",
        value_parser = number::at_least_one,
        allow_negative_numbers = true
    )]
    pub(crate) max_new_tokens: NonZeroUsize,
    /// Rows answered together
    #[arg(
        long,
        value_name = "N",
        default_value = "16",
        value_parser = number::at_least_one,
        allow_negative_numbers = true
    )]
    pub(crate) batch: NonZeroUsize,
    /// Write JSON: one line for the result
    #[arg(long)]
    pub(crate) json: bool,
    /// Show the rows that were answered wrongly on stderr
    #[arg(short, long)]
    pub(crate) verbose: bool,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
}
