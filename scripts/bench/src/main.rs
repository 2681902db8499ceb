//! What `compare.py` needs besides the `lfm2` command: files with random weights, Candle's own
//! models as a contender, and a check that both sides compute the same.

mod candle;
mod check;
mod colbert;
mod weights;

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, Parser, Subcommand, ValueEnum};
use lfm2::hub::gguf::Quantization;

/// Contenders and files for comparisons of speed.
#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write random weights of a published shape.
    Weights(WeightsArgs),
    /// Time candle-transformers on a file, and print one JSON object.
    Candle(CandleArgs),
    /// Print the cosine of the logits of this project and of candle-transformers.
    Check(CheckArgs),
    /// Time a ColBERT on texts, and print one JSON object.
    Colbert(ColbertArgs),
}

#[derive(Debug, Args)]
struct WeightsArgs {
    /// A shape such as lfm2-1.2b.
    #[arg(long)]
    shape: String,
    /// How matrices are stored.
    #[arg(long = "type")]
    storage: Quantization,
    /// How the embedding table is stored [default: q6_k in files of 4 bits, else as the matrices].
    #[arg(long)]
    embedding: Option<Quantization>,
    /// A file that ends in `.gguf`, or a folder for safetensors.
    out: PathBuf,
}

#[derive(Debug, Args)]
struct CandleArgs {
    /// A GGUF file, or a folder with a config and safetensors.
    #[arg(long)]
    model: PathBuf,
    #[arg(long, value_enum)]
    kind: Kind,
    /// Tokens of the prompt, or to decode.
    #[arg(long)]
    tokens: usize,
    /// Tokens in the context before.
    #[arg(long, default_value_t = 0)]
    depth: usize,
}

/// What is timed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// Reading a prompt.
    Pp,
    /// Decoding token by token.
    Tg,
    /// From nothing to the first token of a prompt.
    First,
}

#[derive(Debug, Args)]
struct ColbertArgs {
    /// A folder in PyLate's layout.
    #[arg(long)]
    model: PathBuf,
    /// Quantise weights while loading [default: as they are stored].
    #[arg(long = "type")]
    storage: Option<Quantization>,
    /// A query and behind it documents, one per line.
    #[arg(long)]
    texts: PathBuf,
    /// How often the query is timed.
    #[arg(long, default_value_t = 11)]
    queries: usize,
    /// Where the vectors are kept, as safetensors.
    #[arg(long)]
    vectors: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct CheckArgs {
    /// A GGUF file, or a folder with a config and safetensors.
    #[arg(long)]
    model: PathBuf,
    /// Fail below this.
    #[arg(long, default_value_t = 0.99)]
    at_least: f64,
}

fn main() -> Result<()> {
    match Cli::parse().command {
        Command::Weights(args) => weights::write(&args),
        Command::Candle(args) => candle::time(&args),
        Command::Check(args) => check::run(&args),
        Command::Colbert(args) => colbert::run(&args),
    }
}

/// Some token that is not special, the same for everyone.
fn token(position: usize) -> u32 {
    ((position * 7919 + 300) % 60_000) as u32
}
