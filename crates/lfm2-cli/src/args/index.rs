use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use lfm2::retrieval::Bits;

use super::{ModelArgs, number};

const INDEX: &str = "\
An index is a folder. It is read by `lfm2 search` and can be searched while it is being written; a
crash at any moment leaves the old or the new state.

Examples:
  lfm2 index build notes.index ~/notes
  lfm2 index add notes.index ~/notes            again: only what is new or has changed
  lfm2 index delete notes.index notes/old.md
  lfm2 index info notes.index
  lfm2 search notes.index \"where did we park?\"";

const BUILD: &str = "\
Folders are read with all that is below them: Markdown with its headings, JSON lines with `id`,
`title` and `text`, and any other file that is UTF-8 text. Hidden files and symbolic links are
left out; so are binary files, with a note. Long texts are cut into chunks that know their title
and headings. Ctrl-C keeps what is done: the same command again goes on from there.

Examples:
  lfm2 index build docs.index docs README.md
  lfm2 index build library.index books.jsonl --backend plaid --bits 4
  lfm2 index build docs.index docs --model LiquidAI/LFM2.5-ColBERT-350M --quantize q8_0";

const ADD: &str = "\
A document is known by its path or `id`. One that is in the index already is replaced when its text
has changed and left alone when not, so adding a folder again brings the index up to date. What was
deleted from the folder stays in the index until it is deleted there too.

Examples:
  lfm2 index add docs.index docs
  lfm2 index add library.index more-books.jsonl";

const DELETE: &str = "\
Examples:
  lfm2 index delete docs.index docs/old.md docs/older.md
  lfm2 search docs.index \"old things\" --json | jq -r .document | xargs lfm2 index delete docs.index";

const INFO: &str = "\
Examples:
  lfm2 index info docs.index
  lfm2 index info docs.index --json | jq .bytes_per_chunk";

/// Make texts searchable
#[derive(Debug, Args)]
#[command(after_help = INDEX)]
pub(crate) struct IndexArgs {
    #[command(subcommand)]
    pub(crate) command: IndexCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum IndexCommand {
    /// Make an index of files and folders
    Build(BuildArgs),
    /// Add files and folders, or bring them up to date
    Add(AddArgs),
    /// Remove documents
    Delete(DeleteArgs),
    /// Show what is in an index
    Info(IndexInfoArgs),
}

/// Make an index of files and folders
#[derive(Debug, Args)]
#[command(after_help = BUILD)]
pub(crate) struct BuildArgs {
    /// The folder to write
    pub(crate) index: PathBuf,
    /// Files and folders to read
    #[arg(required = true, value_name = "PATH")]
    pub(crate) paths: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) backend: BackendArgs,
    /// Tokens of a chunk, with its title and headings [default: 256, or what the model reads]
    #[arg(
        long,
        value_name = "N",
        value_parser = number::at_least_one,
        allow_negative_numbers = true
    )]
    pub(crate) chunk_tokens: Option<NonZeroUsize>,
    /// Tokens that neighbouring chunks share, about [default: 32, or an eighth of a chunk]
    #[arg(
        long,
        value_name = "N",
        value_parser = number::whole,
        allow_negative_numbers = true
    )]
    pub(crate) overlap: Option<usize>,
    /// Replace the index when it exists
    #[arg(long)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) report: ReportArgs,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
}

/// How vectors are searched.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct BackendArgs {
    /// How vectors are searched [default: exact for small indexes, else plaid]
    #[arg(long, value_enum)]
    pub(crate) backend: Option<Backend>,
    /// Bits per number of a plaid index, 2 or 4 [default: 4]
    #[arg(long, value_name = "N", value_parser = bits, requires = "backend")]
    pub(crate) bits: Option<Bits>,
}

/// Bits per number that there is a format for.
pub(super) fn bits(text: &str) -> Result<Bits, String> {
    match text {
        "2" => Ok(Bits::Two),
        "4" => Ok(Bits::Four),
        _ => Err("expected 2 or 4".to_owned()),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Backend {
    /// Every document is scored: the truth
    Exact,
    /// Compressed vectors in clusters: smaller, and faster for many documents
    Plaid,
}

/// Add files and folders, or bring them up to date
#[derive(Debug, Args)]
#[command(after_help = ADD)]
pub(crate) struct AddArgs {
    /// The index
    pub(crate) index: PathBuf,
    /// Files and folders to read
    #[arg(required = true, value_name = "PATH")]
    pub(crate) paths: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) report: ReportArgs,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
}

/// What is told about the work.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct ReportArgs {
    /// Write JSON: one line for the result
    #[arg(long)]
    pub(crate) json: bool,
    /// Name every file that is skipped on stderr
    #[arg(short, long)]
    pub(crate) verbose: bool,
}

/// Remove documents
#[derive(Debug, Args)]
#[command(after_help = DELETE)]
pub(crate) struct DeleteArgs {
    /// The index
    pub(crate) index: PathBuf,
    /// Paths or ids of documents, as a search shows them
    #[arg(required = true, value_name = "DOCUMENT")]
    pub(crate) documents: Vec<String>,
}

/// Show what is in an index
#[derive(Debug, Args)]
#[command(after_help = INFO)]
pub(crate) struct IndexInfoArgs {
    /// The index
    pub(crate) index: PathBuf,
    /// Write JSON
    #[arg(long)]
    pub(crate) json: bool,
}
