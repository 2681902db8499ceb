use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{ModelArgs, number, speech};

const EXAMPLES: &str = "\
WAV, FLAC, MP3 and Ogg Vorbis are read, of any rate and number of channels. What is longer than
--longest is cut at pauses, and long pauses are left out.

With --live, sound comes from stdin as 16-bit little-endian mono PCM. What was said since the last
pause is transcribed again and again; words are written when two transcriptions agree on them. This is
approximate: the same sound as a file may read differently.

The built-in model writes down strings of English digits, zero to nine, and hears digits in everything
else. It reads parts of 3 seconds at most. For speech of any other kind give a model.

Examples:
  lfm2 transcribe number.wav                               by the built-in model
  lfm2 transcribe talk.mp3 --model LiquidAI/LFM2.5-Audio-1.5B
  lfm2 transcribe film.flac --format srt > film.srt
  lfm2 transcribe *.wav --format json | jq -r .text
  lfm2 transcribe word.wav --plot word.svg                 also draws what the model hears
  arecord -t raw -f S16_LE -r 16000 | lfm2 transcribe --live 16000";

/// Write down what is said
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, mut_arg("model", speech::model_help))]
pub(crate) struct TranscribeArgs {
    /// Sound files
    #[arg(required_unless_present = "live", value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// How to write it
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: TranscriptFormat,
    /// Seconds of sound that are transcribed together at most [default: 30, of srt 8, of the built-in model 3]
    #[arg(long, value_name = "SECONDS", value_parser = number::at_least_one, allow_negative_numbers = true)]
    pub(crate) longest: Option<NonZeroUsize>,
    /// Minutes of sound that a file may have; all of it is held in memory
    #[arg(
        long,
        value_name = "MINUTES",
        default_value = "30",
        value_parser = number::at_least_one,
        allow_negative_numbers = true
    )]
    pub(crate) max_minutes: NonZeroUsize,
    /// Transcribe what arrives at stdin, so many samples a second, approximately
    #[arg(long, value_name = "RATE", conflicts_with_all = ["files", "plot", "longest"])]
    pub(crate) live: Option<u32>,
    /// Draw waveform and features to this file: svg or png
    #[arg(long, value_name = "PICTURE")]
    pub(crate) plot: Option<PathBuf>,
    /// Tokens to write at most for each part
    #[arg(
        short = 'n',
        long,
        value_name = "N",
        default_value = "512",
        value_parser = number::at_least_one,
        allow_negative_numbers = true
    )]
    pub(crate) max_new_tokens: NonZeroUsize,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
}

/// How a transcript is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum TranscriptFormat {
    #[default]
    Text,
    /// A line with the parts and their times for each file
    Json,
    /// Subtitles
    Srt,
}
