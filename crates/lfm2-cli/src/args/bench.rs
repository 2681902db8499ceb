use std::num::NonZeroUsize;

use clap::{Args, ValueEnum};
use lfm2::ModelSource;
use lfm2::hub::gguf::Quantization;
use lfm2::vl::Size;
use serde::Serialize;

use super::{Activations, DeviceArgs, number};

const EXAMPLES: &str = "\
Random tokens are fed, whatever the model answers, so figures depend on shapes and storage alone:
random weights of a published shape are as slow as real ones. Every test starts at --depth and
does not see the others: pp512 reads a prompt of 512 tokens, tg64@4096 decodes 64 tokens behind
4096, tg64x8 does so for eight sequences at once, vf4 runs passes of four tokens with all their
logits. Figures are medians over the repetitions; passes that warm up are not counted.

Beside every decode figure stands how fast memory could be read right then: the faster of reading
a large buffer once and of reading as much as the pass needs over and over. The share is that of
the bytes a pass cannot do without (weights, of the experts only those chosen, keys, values).

Shapes: lfm2-350m, lfm2-700m, lfm2-1.2b, lfm2-2.6b, lfm2-8b-a1b, lfm2-24b-a2b, lfm2.5-230m,
lfm2.5-350m, lfm2.5-1.2b, lfm2.5-2.6b, lfm2.5-8b-a1b, lfm3-1.7b. They are stored as f32, f16,
bf16, q8_0, q4_0, q4_k or q6_k. With --image also lfm2-vl-450m, lfm2-vl-1.6b, lfm2.5-vl-450m,
lfm2.5-vl-1.6b and lfm2.5-vl-3b. The speech model lfm2.5-audio-1.5b has figures of its own: every
part of an answer beside the length of what is heard or said, with 8 bits where 4 would change what
is said.

Examples:
  lfm2 bench                                               the built-in model
  lfm2 bench --model model.gguf --threads 4
  lfm2 bench --synthetic lfm2-1.2b --quantization q4_0 --depth 0,4096
  lfm2 bench --synthetic lfm2-350m --batch 1,8 --verify 2,4 --prompt-tokens 0
  lfm2 bench --synthetic lfm2-8b-a1b --quantization q4_0 --profile
  lfm2 bench --synthetic lfm2-vl-450m --quantization bf16 --image 1280x1024
  lfm2 bench --synthetic lfm2.5-audio-1.5b --task converse
  lfm2 bench --limits --json                               what this machine can do at most";

/// Measure speed and memory
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct BenchArgs {
    /// A folder, a GGUF file or organisation/name[@revision] [default: the built-in model]
    #[arg(short, long, value_name = "SOURCE", conflicts_with_all = ["synthetic", "limits"])]
    pub(crate) model: Option<ModelSource>,
    /// Random weights of a published shape, such as lfm2-1.2b
    #[arg(long, value_name = "SHAPE", conflicts_with = "limits")]
    pub(crate) synthetic: Option<String>,
    /// How random weights are stored
    #[arg(
        long,
        value_name = "TYPE",
        default_value = "q4_0",
        requires = "synthetic"
    )]
    pub(crate) quantization: Quantization,
    /// What a speech model does
    #[arg(long, value_enum, default_value_t, requires = "synthetic")]
    pub(crate) task: SpeechTask,
    #[command(flatten)]
    pub(crate) tests: TestArgs,
    /// Repetitions
    #[arg(
        long,
        value_name = "N",
        default_value = "3",
        value_parser = number::at_least_one,
        allow_negative_numbers = true
    )]
    pub(crate) repeat: NonZeroUsize,
    /// Measure with a picture of this size, such as 1280x1024, a model that reads pictures: a full view
    /// alone, a picture to the first token, and a second question about it
    #[arg(long, value_name = "WxH", value_parser = size, conflicts_with = "limits")]
    pub(crate) image: Option<Size>,
    /// Start of the random numbers
    #[arg(long, value_name = "N", default_value = "0")]
    pub(crate) seed: u64,
    /// The size of the buffer that is read to see how fast memory is; 0 reads none
    #[arg(long, value_name = "MIB", default_value = "1024")]
    pub(crate) reading: usize,
    /// Measure what the machine can do at most, and no model
    #[arg(long)]
    pub(crate) limits: bool,
    /// Also show what the time of every test goes into
    #[arg(long, conflicts_with = "limits")]
    pub(crate) profile: bool,
    /// Write JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
}

/// What a speech model does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum SpeechTask {
    /// Answers a question of 4 seconds in 24 tokens and 48 frames of sound
    #[default]
    Converse,
    /// Writes it down in 24 tokens
    Transcribe,
}

impl SpeechTask {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Converse => "converse",
            Self::Transcribe => "transcribe",
        }
    }
}

/// What is measured.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Tests")]
pub(crate) struct TestArgs {
    /// Tokens of the prompt; 0 for no such test
    #[arg(
        long,
        value_name = "N",
        default_value = "512",
        visible_alias = "pp",
        alias = "prompt"
    )]
    pub(crate) prompt_tokens: usize,
    /// Tokens to generate; 0 for no such test
    #[arg(
        long,
        value_name = "N",
        default_value = "64",
        visible_alias = "tg",
        alias = "gen"
    )]
    pub(crate) gen_tokens: usize,
    /// Tokens in the context before; several with commas
    #[arg(long, value_name = "N,...", default_value = "0", value_delimiter = ',')]
    pub(crate) depth: Vec<usize>,
    /// Sequences decoded together; several with commas
    #[arg(
        long,
        value_name = "N,...",
        default_value = "1",
        value_delimiter = ',',
        value_parser = number::at_least_one,
        allow_negative_numbers = true
    )]
    pub(crate) batch: Vec<NonZeroUsize>,
    /// Tokens of a pass that checks a draft; several with commas
    #[arg(
        long,
        value_name = "N,...",
        value_delimiter = ',',
        value_parser = number::at_least_one,
        allow_negative_numbers = true
    )]
    pub(crate) verify: Vec<NonZeroUsize>,
    /// Number type of keys and values [default: as activations; f16 on a CPU, unless weights are f32]
    #[arg(long, value_enum, value_name = "TYPE")]
    pub(crate) kv_type: Option<Activations>,
}

/// A size such as `1280x1024`.
fn size(text: &str) -> Result<Size, String> {
    const MOST: usize = 16_384;
    let side = |text: &str| text.parse().ok().filter(|side| (1..=MOST).contains(side));
    let sides = text.split_once('x');
    let size = sides.and_then(|(width, height)| Some(Size::new(side(width)?, side(height)?)));
    size.ok_or_else(|| "expected a size such as 1280x1024".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_two_sides() {
        assert_eq!(size("1280x1024"), Ok(Size::new(1280, 1024)));
        for text in ["", "x", "5", "0x5", "5x0", "5x99999", "-1x4"] {
            assert!(size(text).is_err(), "{text}");
        }
    }
}
