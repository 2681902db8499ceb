use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::Args;

use super::{ModelArgs, number};

const EXAMPLES: &str = "\
Pictures of coloured shapes are drawn, with questions on them whose answers are known: colours, kinds,
numbers, sizes, places, the background, presence, a description, and a box in JSON. A question is
asked as the only turn of a conversation, and an answer is right when it is the expected one word for
word; a box, when it overlaps the right one by a half. No file is needed, and no seed gives a picture
that the built-in model was trained on.

Examples:
  lfm2 eval vl                                            the built-in model
  lfm2 eval vl --count 5 --save shapes                    and keep the pictures, to look at or describe
  lfm2 eval vl --model run/checkpoint --seed 7 --count 100 --verbose
  lfm2 eval vl --model LiquidAI/LFM2-VL-450M --count 20 --json";

/// How well a model sees coloured shapes
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct VlArgs {
    /// Fixes the pictures and the questions
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) seed: u64,
    /// Pictures; each is asked about in every topic
    #[arg(
        long,
        value_name = "N",
        default_value = "500",
        value_parser = number::at_least_one,
        allow_negative_numbers = true
    )]
    pub(crate) count: NonZeroUsize,
    /// Questions answered together
    #[arg(
        long,
        value_name = "N",
        default_value = "36",
        value_parser = number::at_least_one,
        allow_negative_numbers = true
    )]
    pub(crate) batch: NonZeroUsize,
    /// Write the pictures into this folder as PNG, and what was asked and answered as answers.jsonl
    #[arg(long, value_name = "FOLDER")]
    pub(crate) save: Option<PathBuf>,
    /// Keep every answer in this file, and go on behind those that are there
    #[arg(long, value_name = "FILE")]
    pub(crate) keep: Option<PathBuf>,
    /// Write JSON: one line for the result
    #[arg(long)]
    pub(crate) json: bool,
    /// Show the questions that were answered wrongly on stderr
    #[arg(short, long)]
    pub(crate) verbose: bool,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
}
