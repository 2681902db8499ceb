use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::Args;
use lfm2::retrieval::Bits;

use super::index::{Backend, bits};
use super::{ModelArgs, number};

const EXAMPLES: &str = "\
DIR has corpus.jsonl and queries.jsonl with `_id`, `title` and `text`, and qrels.tsv or
qrels/test.tsv with query, document and score: the layout of the BEIR benchmark. Documents are
not cut into chunks; what a model does not read of a long one is lost to it.

Beside the model stands BM25, which compares words. An index other than the exact one is also
compared with it: agreement is the share of the first 10 hits that both have. Latency is that of
one query after another, with its encoding.

Examples:
  lfm2 eval retrieval --data scifact
  lfm2 eval retrieval --data scifact --index plaid --bits 2
  lfm2 eval retrieval --data scifact --model LiquidAI/LFM2-ColBERT-350M --quantize q8_0 --json";

/// How well a model finds the texts that answer a question
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct RetrievalArgs {
    /// The collection: a folder in the layout of BEIR
    #[arg(long, value_name = "DIR")]
    pub(crate) data: PathBuf,
    /// How vectors are searched
    #[arg(long, value_enum, default_value = "exact")]
    pub(crate) index: Backend,
    /// Bits per number of a plaid index, 2 or 4 [default: 4]
    #[arg(long, value_name = "N", value_parser = bits)]
    pub(crate) bits: Option<Bits>,
    /// Keep the index in this folder, or use the one that is there [default: a temporary folder]
    #[arg(long, value_name = "FOLDER")]
    pub(crate) keep: Option<PathBuf>,
    /// Use only this many queries, from the start
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
    #[command(flatten)]
    pub(crate) model: ModelArgs,
}
