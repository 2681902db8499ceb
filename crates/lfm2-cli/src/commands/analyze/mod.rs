//! `lfm2 analyze`.

mod dims;
mod pairs;
mod prune;

use anyhow::Result;

use crate::args::{AnalyzeArgs, AnalyzeCommand};

pub(crate) fn run(args: &AnalyzeArgs) -> Result<()> {
    match &args.command {
        AnalyzeCommand::Dims(args) => dims::run(args),
        AnalyzeCommand::Prune(args) => prune::run(args),
    }
}
