use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

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
#[command(
    after_help = EXAMPLES,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true
)]
pub(crate) struct TrainArgs {
    #[command(flatten)]
    pub(crate) run: Option<TrainRun>,
    #[command(subcommand)]
    pub(crate) command: Option<TrainCommand>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TrainCommand {
    /// Keep what a larger model says of the data of a run
    Teach(TeachArgs),
    /// Tell how hard every document of a run is for some models
    Score(ScoreArgs),
}

const SCORE: &str = "\
The result is a JSON list with a number from 0 (easy) to 1 for every document of a data source, by the
models' mean loss. A source with \"curriculum\": {\"scores\": FILE} is then trained on from easy to hard.

Examples:
  lfm2 train score --config run.json --source 1 --out scores.json a/checkpoint b/checkpoint";

/// Tell how hard every document of a run is for some models
#[derive(Debug, Args)]
#[command(after_help = SCORE)]
pub(crate) struct ScoreArgs {
    /// The configuration of the run
    #[arg(long, value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// Which of its data sources, from 0
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) source: usize,
    /// The file for the numbers
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,
    /// The checkpoints that are asked
    #[arg(required = true, value_name = "MODELS")]
    pub(crate) models: Vec<PathBuf>,
}

const TEACH: &str = "\
The data and the tokenizer are those of the configuration; the teacher has to have the same tokenizer.
A run with \"objective\": {\"kind\": \"distill\", \"teacher\": DIR} then learns from the folder.

Examples:
  lfm2 train teach --config student.json --teacher large/checkpoint --out taught";

/// Keep what a larger model says of the data of a run
#[derive(Debug, Args)]
#[command(after_help = TEACH)]
pub(crate) struct TeachArgs {
    /// The configuration of the student's run
    #[arg(long, value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// The teacher's checkpoint: a folder or a GGUF file
    #[arg(long, value_name = "PATH")]
    pub(crate) teacher: PathBuf,
    /// The folder for what it says
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// How many of the likeliest tokens are kept
    #[arg(long, value_name = "N", default_value_t = 32)]
    pub(crate) k: usize,
}

/// What a run needs.
#[derive(Debug, Args)]
pub(crate) struct TrainRun {
    /// The configuration of the run
    #[arg(long, value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// The folder of the run
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// What to do when the folder holds a run already
    #[arg(long, value_enum, default_value_t)]
    pub(crate) resume: ResumeMode,
    /// Print what the time of all threads goes into, by operation
    #[arg(long)]
    pub(crate) profile: bool,
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
