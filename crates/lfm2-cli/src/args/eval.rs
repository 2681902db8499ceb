use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{
    ChoiceArgs, Gsm8kArgs, IfevalArgs, ModelArgs, RecallArgs, RetrievalArgs, VlArgs, WerArgs,
    number,
};

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
    /// Multiple choice by likelihood
    Choice(ChoiceArgs),
    /// Word problems whose answer is a number
    Gsm8k(Gsm8kArgs),
    /// Rules on the form of an answer
    Ifeval(IfevalArgs),
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
    /// Keep the loss of every pass in this file, and go on behind those that are there
    #[arg(long, value_name = "FILE")]
    pub(crate) keep: Option<PathBuf>,
    /// Write JSON: one line for the result
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
}
