//! What pictures may cost, and how they are read.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, ValueEnum};
use lfm2::ModelSource;
use lfm2::vl::{Alpha, DecodeOptions, FrameOptions, ViewFolder, VlOptions};
use serde_json::{Map, Value};

use super::number;

/// The variable with the model that reads pictures where `--model` is not given.
pub(crate) const PICTURE_MODEL_VARIABLE: &str = "LFM2_VL_MODEL";

/// How pictures are read. What is not given is as the model's files say.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Pictures")]
pub(crate) struct PictureArgs {
    /// The GGUF file with the vision tower [default: the only mmproj*.gguf beside the model]
    #[arg(long, value_name = "SOURCE")]
    pub(crate) mmproj: Option<ModelSource>,
    /// What the pictures of a question may take together: tokens (600) or time (800ms, 2.5s)
    #[arg(long, value_name = "TOKENS|TIME", allow_negative_numbers = true)]
    pub(crate) budget: Option<BudgetArg>,
    /// Tokens of a view of a whole picture at most; not a limit on the sum, see --budget
    #[arg(
        long,
        value_name = "N",
        value_parser = number::at_least_one,
        allow_negative_numbers = true
    )]
    pub(crate) max_image_tokens: Option<NonZeroUsize>,
    /// Tokens of a view of a whole picture at least; smaller pictures are enlarged
    #[arg(
        long,
        value_name = "N",
        value_parser = number::at_least_one,
        allow_negative_numbers = true
    )]
    pub(crate) min_image_tokens: Option<NonZeroUsize>,
    /// Cut no picture into tiles: cheaper, and small text is lost
    #[arg(long)]
    pub(crate) no_split: bool,
    /// Frames that are shown of an animation or a folder at most, evenly spread
    #[arg(
        long,
        value_name = "N",
        default_value = "8",
        value_parser = number::at_least_one,
        allow_negative_numbers = true
    )]
    pub(crate) frames: NonZeroUsize,
    /// What becomes of transparency
    #[arg(long, value_enum, default_value_t)]
    pub(crate) alpha: AlphaArg,
    /// Keep what the model made of views in this folder, for the next time [default: in memory only]
    #[arg(long, value_name = "FOLDER")]
    pub(crate) view_cache: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum AlphaArg {
    /// The colour below it shows, as in training
    #[default]
    Drop,
    White,
    Black,
}

/// Tokens or time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum BudgetArg {
    Tokens(usize),
    Time(Duration),
}

impl FromStr for BudgetArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "expected tokens such as 600, or a time such as 800ms or 2.5s".to_owned();
        let time = |number: &str, unit: f64| {
            let number: f64 = number.trim().parse().map_err(|_| wrong())?;
            Duration::try_from_secs_f64(number * unit)
                .map(Self::Time)
                .map_err(|_| wrong())
        };
        match (text.strip_suffix("ms"), text.strip_suffix('s')) {
            (Some(number), _) => time(number, 1e-3),
            (None, Some(number)) => time(number, 1.0),
            (None, None) => number::whole(text).map(Self::Tokens).map_err(|_| wrong()),
        }
    }
}

impl PictureArgs {
    /// The image settings that were given, as in the files of processors.
    pub(crate) fn settings(&self) -> Value {
        let mut settings = Map::new();
        let mut set = |key: &str, value: Value| settings.insert(key.to_owned(), value);
        if let Some(tokens) = self.max_image_tokens {
            set("max_image_tokens", tokens.get().into());
        }
        if let Some(tokens) = self.min_image_tokens {
            set("min_image_tokens", tokens.get().into());
        }
        if self.no_split {
            set("do_image_splitting", false.into());
        }
        Value::Object(settings)
    }

    /// How files are read.
    pub(crate) fn frame_options(&self) -> FrameOptions {
        let alpha = match self.alpha {
            AlphaArg::Drop => Alpha::Drop,
            AlphaArg::White => Alpha::WHITE,
            AlphaArg::Black => Alpha::BLACK,
        };
        FrameOptions::default()
            .with_most(self.frames.get())
            .with_decode(DecodeOptions::default().with_alpha(alpha))
    }

    /// How a model is loaded.
    pub(crate) fn load(&self, options: VlOptions) -> VlOptions {
        match &self.view_cache {
            Some(folder) => options.with_view_folder(ViewFolder::new(folder)),
            None => options,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budgets_are_tokens_or_times() {
        let parse = |text: &str| text.parse::<BudgetArg>();
        assert_eq!(parse("600"), Ok(BudgetArg::Tokens(600)));
        assert_eq!(
            parse("800ms"),
            Ok(BudgetArg::Time(Duration::from_millis(800)))
        );
        assert_eq!(
            parse("2.5s"),
            Ok(BudgetArg::Time(Duration::from_millis(2500)))
        );
        assert_eq!(parse("1 s"), Ok(BudgetArg::Time(Duration::from_secs(1))));
        for text in [
            "",
            "-1",
            "1.5",
            "ms",
            "-2s",
            "infs",
            "1e300s",
            "NaNs",
            "2 minutes",
        ] {
            assert!(parse(text).unwrap_err().contains("such as 600"), "{text}");
        }
    }
}
