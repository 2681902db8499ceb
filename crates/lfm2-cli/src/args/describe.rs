use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{ModelArgs, PictureArgs, SamplingArgs};

const EXAMPLES: &str = "\
An IMAGE is a png, jpeg, webp, gif or bmp file; an animated gif or webp, or a folder of pictures, is
shown as a short video: --frames of it, evenly spread, under one budget. What did not change from one
frame to the next is read once.

A large picture is cut into tiles of 512 x 512 pixels with 256 tokens each, and a thumbnail of the
whole. --explain-cost says what that takes, and --budget bounds it: the grid, the thumbnail and the
sizes are then chosen so that all pictures together never take more.

With --boxes the answer is one line of JSON per thing that was found: its label, and the pixels of
the picture, turned as its file says, that it covers. That takes a model that was trained for it, such
as LFM2.5-VL.

Without --model the built-in one looks, which knows coloured shapes and nothing else; lfm2 eval vl --save
draws some.

Examples:
  lfm2 describe shapes/0000.png
  lfm2 describe cat.jpg -m LiquidAI/LFM2-VL-450M
  lfm2 describe screen.png -m ./LFM2-VL-1.6B --prompt \"What does the dialog say?\"
  lfm2 describe before.png after.png -m ./LFM2-VL-1.6B --prompt \"What changed?\"
  lfm2 describe photo.jpg -m LFM2-VL-450M-Q4_0.gguf --mmproj mmproj-LFM2-VL-450M-F16.gguf
  lfm2 describe large.png -m ./LFM2-VL-450M --budget 600 --explain-cost
  lfm2 describe clip.gif -m ./LFM2-VL-450M --frames 6 --budget 2s
  lfm2 describe street.jpg -m ./LFM2.5-VL-1.6B --boxes --prompt \"Find every car.\" --draw cars.png
  lfm2 describe *.jpg -m ./LFM2-VL-450M --json | jq -r .text";

/// Ask about pictures
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct DescribeArgs {
    /// Pictures, animations and folders of pictures in the order in which they are shown, or - for stdin
    #[arg(required = true, value_name = "IMAGE")]
    pub(crate) images: Vec<PathBuf>,
    /// What to ask [default: to describe what is shown]
    #[arg(short, long, value_name = "TEXT")]
    pub(crate) prompt: Option<String>,
    /// Instructions before the question
    #[arg(long, value_name = "TEXT")]
    pub(crate) system: Option<String>,
    /// Say on stderr what the pictures take before they are read; with =only, say just that
    #[arg(
        long,
        value_enum,
        value_name = "WHEN",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "first"
    )]
    pub(crate) explain_cost: Option<Explain>,
    /// Ask for places, and write them as pixels in JSON
    #[arg(long)]
    pub(crate) boxes: bool,
    /// Write the picture with its boxes as a PNG file
    #[arg(long, value_name = "FILE", requires = "boxes")]
    pub(crate) draw: Option<PathBuf>,
    /// Replace the file of --draw
    #[arg(long, requires = "draw")]
    pub(crate) force: bool,
    /// Write one JSON object at the end instead of streaming text
    #[arg(long)]
    pub(crate) json: bool,
    /// Report times on stderr
    #[arg(short, long)]
    pub(crate) verbose: bool,
    #[command(flatten)]
    pub(crate) pictures: PictureArgs,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) sampling: SamplingArgs,
}

/// When the cost is explained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Explain {
    /// Before the pictures are read
    First,
    /// And nothing is read
    Only,
}
