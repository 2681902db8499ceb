use std::path::PathBuf;

use clap::Args;

use super::{ModelArgs, SpeechSampling, speech};

const EXAMPLES: &str = "\
The answer is written while it is made, and both sides can be read. The time to the first sound counts
from the whole question being there to samples that could be played; the real-time factor is the time
the answer took over how long it sounds, so below 1 it could be played at once without a gap.

The built-in model repeats the English digits that it hears.

Examples:
  lfm2 converse number.wav -o answer.wav
  lfm2 converse question.wav -o answer.wav --model LiquidAI/LFM2.5-Audio-1.5B
  lfm2 converse question.wav -o answer.wav --quantize q4_0 --json";

/// Answer a spoken question in speech
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, mut_arg("model", speech::model_help))]
pub(crate) struct ConverseArgs {
    /// The question, a sound file
    #[arg(value_name = "IN")]
    pub(crate) input: PathBuf,
    /// The WAV file to write, or - for stdout
    #[arg(short, long, value_name = "OUT")]
    pub(crate) output: PathBuf,
    /// Draw waveform and features of the answer to this file: svg or png
    #[arg(long, value_name = "PICTURE")]
    pub(crate) plot: Option<PathBuf>,
    /// Write JSON about both sides to stdout
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) sampling: SpeechSampling,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
}
