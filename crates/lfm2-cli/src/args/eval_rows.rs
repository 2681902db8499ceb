//! Tests that consist of rows.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{ModelArgs, number};

const RECALL: &str = "\
Every row is a JSON object with `prompt` and `answer`. The prompt is asked as the only turn of a
conversation, the model answers greedily, and the row counts when the answer occurs in what it
says.

Examples:
  lfm2 eval recall --data data/stories/recall.jsonl.gz
  lfm2 eval recall --data rows.jsonl --model model.gguf --json | tail -n 1
  lfm2 eval recall --data rows.jsonl --keep answers.jsonl    again to go on after Ctrl-C";

const CHOICE: &str = "\
Every row is a JSON object with `prompt`, `choices`, a list of texts, and `answer`, the place of the right
one from 0. The likelihood of every choice behind the prompt is measured: of the whole choice, which
favours short ones, per token, and per byte. A prompt is read once, however many choices there are.

Examples:
  lfm2 eval choice --data rows.jsonl --model LiquidAI/LFM2-350M
  lfm2 eval choice --data rows.jsonl --frame text --model base-model --json";

const GSM8K: &str = "\
Every row is a JSON object with `question` and `answer`, as in github.com/openai/grade-school-math. The
question is asked as the only turn of a conversation, with the wish to think step by step and to end with
the answer; the model answers greedily, and the row counts when the last number it says is the last
number of `answer`.

Examples:
  lfm2 eval gsm8k --data test.jsonl --model LiquidAI/LFM2-1.2B --quantize q8_0
  lfm2 eval gsm8k --data test.jsonl --limit 100 --keep answers.jsonl --verbose";

const IFEVAL: &str = "\
Every row is a JSON object with `prompt` and `rules` on the form of the answer that a program can check;
docs/training.md lists them. Without --data, 64 prompts of our own are asked. The loose count forgives a first
and a last line, and asterisks. The figures are not those of the set named IFEval, whose prompts differ.

Examples:
  lfm2 eval ifeval --model LiquidAI/LFM2-350M
  lfm2 eval ifeval --data rows.jsonl --keep answers.jsonl --json";

/// How rows are worked through
#[derive(Debug, Args)]
pub(crate) struct RowArgs {
    /// Use only this many rows, from the start
    #[arg(
        long,
        value_name = "N",
        value_parser = number::at_least_one,
        allow_negative_numbers = true
    )]
    pub(crate) limit: Option<NonZeroUsize>,
    /// Rows worked on together
    #[arg(
        long,
        value_name = "N",
        default_value = "16",
        value_parser = number::at_least_one,
        allow_negative_numbers = true
    )]
    pub(crate) batch: NonZeroUsize,
    /// Keep the outcome of every row in this file, and go on behind those that are there
    #[arg(long, value_name = "FILE")]
    pub(crate) keep: Option<PathBuf>,
    /// Write JSON: one line for the result
    #[arg(long)]
    pub(crate) json: bool,
    /// Show the rows that were answered wrongly on stderr
    #[arg(short, long)]
    pub(crate) verbose: bool,
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
    #[command(flatten)]
    pub(crate) rows: RowArgs,
}

/// Multiple choice by likelihood
#[derive(Debug, Args)]
#[command(after_help = CHOICE)]
pub(crate) struct ChoiceArgs {
    /// The rows: JSON lines, plain or gzip
    #[arg(long, value_name = "FILE")]
    pub(crate) data: PathBuf,
    /// How prompt and choice become one text
    #[arg(long, value_enum, default_value_t)]
    pub(crate) frame: ChoiceFrame,
    #[command(flatten)]
    pub(crate) rows: RowArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum ChoiceFrame {
    /// The user says the prompt, the assistant the choice
    #[default]
    Chat,
    /// The choice follows the prompt as it stands, blanks included
    Text,
}

/// Word problems whose answer is a number
#[derive(Debug, Args)]
#[command(after_help = GSM8K)]
pub(crate) struct Gsm8kArgs {
    /// The rows: JSON lines, plain or gzip
    #[arg(long, value_name = "FILE")]
    pub(crate) data: PathBuf,
    /// Tokens an answer may have
    #[arg(
        short = 'n',
        long,
        value_name = "N",
        default_value = "512",
        value_parser = number::at_least_one,
        allow_negative_numbers = true
    )]
    pub(crate) max_new_tokens: NonZeroUsize,
    #[command(flatten)]
    pub(crate) rows: RowArgs,
}

/// Rules on the form of an answer
#[derive(Debug, Args)]
#[command(after_help = IFEVAL)]
pub(crate) struct IfevalArgs {
    /// The rows: JSON lines, plain or gzip [default: prompts of our own]
    #[arg(long, value_name = "FILE")]
    pub(crate) data: Option<PathBuf>,
    /// Tokens an answer may have
    #[arg(
        short = 'n',
        long,
        value_name = "N",
        default_value = "512",
        value_parser = number::at_least_one,
        allow_negative_numbers = true
    )]
    pub(crate) max_new_tokens: NonZeroUsize,
    #[command(flatten)]
    pub(crate) rows: RowArgs,
}
