use std::path::PathBuf;

use clap::{Args, ValueEnum};

const EXAMPLES: &str = "\
The configuration names the model, the data and the schedule; paths in it start at its folder. The
output folder gets the settings, a log (metrics.jsonl), the loss curve (loss.svg), the state, and
at the end the model in `checkpoint`. Ctrl-C saves the state; the same command goes on from there
with the same result as if it had not been stopped.

Examples:
  lfm2 train --config models/lfm2-tiny-stories/run-1.json --out run
  lfm2 chat --model run/checkpoint";

/// Train a model
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct TrainArgs {
    /// The configuration of the run
    #[arg(long, value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// The folder of the run
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// What to do when the folder holds a run already
    #[arg(long, value_enum, default_value_t)]
    pub(crate) resume: ResumeMode,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum ResumeMode {
    /// Go on with it; refuse when settings or data differ
    #[default]
    Continue,
    /// Go on with other settings or data
    Force,
    /// Refuse
    Never,
}
