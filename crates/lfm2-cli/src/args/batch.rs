use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::Args;

use super::{ModelArgs, SamplingArgs, number};

const EXAMPLES: &str = "\
Every line of FILE is a JSON object with `prompt`, a text to continue, or `messages`, a conversation
to answer; an `id` comes back with the result, and anything else is ignored. Results are written in
the order of the lines, one JSON object each, with `text` or `error`. Seeds are counted up from line
to line.

Examples:
  lfm2 batch prompts.jsonl > results.jsonl
  lfm2 batch questions.jsonl --chat -m LiquidAI/LFM2-350M --rows 16
  jq -c '{prompt: .title}' books.jsonl | lfm2 batch - -n 100 | jq -r .text";

/// Continue many texts, several at a time
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct BatchArgs {
    /// The prompts: JSON lines, or - to read them from stdin
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Texts written together; each takes memory for its part of the cache
    #[arg(
        long,
        value_name = "N",
        default_value = "8",
        value_parser = number::at_least_one,
        allow_negative_numbers = true
    )]
    pub(crate) rows: NonZeroUsize,
    /// Prompt tokens read between two tokens of the texts that are being written
    #[arg(
        long,
        value_name = "N",
        default_value = "256",
        value_parser = number::at_least_one,
        allow_negative_numbers = true
    )]
    pub(crate) prefill_chunk: NonZeroUsize,
    /// Ask prompts as questions, through the model's chat template
    #[arg(long)]
    pub(crate) chat: bool,
    /// Take special tokens in the messages of users as plain text
    #[arg(long)]
    pub(crate) literal_user_text: bool,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) sampling: SamplingArgs,
}
