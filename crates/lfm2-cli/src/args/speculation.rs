//! How tokens are guessed ahead.

use clap::{Args, ValueEnum};
use lfm2::generate::Speculation;
use lfm2::{GenerationOptions, ModelSource};

use super::number;

/// How tokens are guessed ahead, which changes the speed and not the text.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Speed")]
pub(crate) struct SpeculationArgs {
    /// Guess tokens ahead and check the guesses together, where that is faster
    #[arg(long, value_enum, default_value_t, conflicts_with = "draft_model")]
    pub(crate) speculate: Guesses,
    /// Guess with a smaller model of the same vocabulary: a SOURCE like --model
    #[arg(long, value_name = "SOURCE")]
    pub(crate) draft_model: Option<ModelSource>,
    /// Tokens to guess at most [default: 8]
    #[arg(long, value_name = "N", value_parser = number::whole, allow_negative_numbers = true)]
    pub(crate) draft_tokens: Option<usize>,
}

/// Where guesses come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Guesses {
    #[default]
    Off,
    /// From the text so far: what followed the last time
    Lookup,
}

impl SpeculationArgs {
    /// These settings in `options`.
    pub(crate) fn apply(&self, options: GenerationOptions) -> GenerationOptions {
        let speculation = match (&self.draft_model, self.speculate) {
            (Some(_), _) => Speculation::draft_model(),
            (None, Guesses::Lookup) => Speculation::lookup(),
            (None, Guesses::Off) => Speculation::Off,
        };
        options.with_speculation(match self.draft_tokens {
            Some(tokens) => speculation.with_max_draft(tokens),
            None => speculation,
        })
    }
}
