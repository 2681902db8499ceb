use std::path::PathBuf;

use clap::Args;
use lfm2::speech::Voice;

use super::{ModelArgs, SpeechSampling, speech};

const EXAMPLES: &str = "\
LFM2.5-Audio has the voices us-male, us-female, uk-male and uk-female; own is for models with a single
voice. For LFM2-Audio a voice is described: who speaks, how, and how it was recorded.

The built-in model says strings of English digits, in one voice.

Examples:
  lfm2 speak \"three seven\" -o number.wav
  lfm2 speak \"The train leaves at ten past nine.\" -o train.wav --voice uk-female
  lfm2 speak - -o letter.wav < letter.txt
  lfm2 speak \"Good morning!\" -o - | aplay
  lfm2 speak \"Hello.\" -o hello.wav --voice \"A man speaks fast, close to the microphone.\"";

/// Read a text aloud
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, mut_arg("model", speech::model_help))]
pub(crate) struct SpeakArgs {
    /// The text, or - to read it from stdin
    pub(crate) text: String,
    /// The WAV file to write, or - for stdout
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: PathBuf,
    /// Who speaks: us-male, us-female, uk-male, uk-female, own, or a description
    #[arg(long, value_name = "VOICE", default_value = "us-male", value_parser = speech::voice)]
    pub(crate) voice: Voice,
    /// Draw waveform and features to this file: svg or png
    #[arg(long, value_name = "PICTURE")]
    pub(crate) plot: Option<PathBuf>,
    /// Write JSON about the sound to stdout
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) sampling: SpeechSampling,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
}
