//! How tokens are drawn.

use clap::Args;
use lfm2::GenerationOptions;
use lfm2::generate::EndTokens;

use super::number;

/// How tokens are drawn. What is not given is as recommended for the model.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Sampling (default: as recommended for the model)")]
pub(crate) struct SamplingArgs {
    /// Tokens to write at most
    #[arg(
        short = 'n',
        long,
        value_name = "N",
        value_parser = number::whole,
        allow_negative_numbers = true
    )]
    pub(crate) max_new_tokens: Option<usize>,
    /// Randomness; 0 always takes the most likely token
    #[arg(short, long, value_name = "T", allow_negative_numbers = true)]
    pub(crate) temperature: Option<f32>,
    /// Draw from the K most likely tokens; 0 is off
    #[arg(long, value_name = "K", value_parser = number::whole, allow_negative_numbers = true)]
    pub(crate) top_k: Option<usize>,
    /// Draw from the most likely tokens that together have probability P; 1 is off
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    pub(crate) top_p: Option<f32>,
    /// Draw from tokens at least P times as likely as the most likely one; 0 is off
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    pub(crate) min_p: Option<f32>,
    /// Make what was said less likely; 1 is off
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    pub(crate) repetition_penalty: Option<f32>,
    /// Taken from the logit of every token written before; 0 is off
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    pub(crate) presence_penalty: Option<f32>,
    /// Taken from the logit of a token once per time it was written; 0 is off
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    pub(crate) frequency_penalty: Option<f32>,
    /// Start of the random numbers: the same seed gives the same text
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub(crate) seed: Option<u64>,
    /// End before this text; can be given several times
    #[arg(long, value_name = "TEXT")]
    pub(crate) stop: Vec<String>,
    /// Go on where the model would end
    #[arg(long)]
    pub(crate) ignore_end: bool,
}

impl SamplingArgs {
    /// These settings over the recommended ones. A seed is always set, so that it can be reported.
    pub(crate) fn options(&self, recommended: &GenerationOptions) -> GenerationOptions {
        let mut options = recommended.clone();
        set(&mut options.max_new_tokens, self.max_new_tokens);
        set(&mut options.temperature, self.temperature);
        set(&mut options.top_k, self.top_k);
        set(&mut options.top_p, self.top_p);
        set(&mut options.min_p, self.min_p);
        set(&mut options.repetition_penalty, self.repetition_penalty);
        set(&mut options.presence_penalty, self.presence_penalty);
        set(&mut options.frequency_penalty, self.frequency_penalty);
        options.seed = Some(self.seed.unwrap_or_else(random_seed));
        options.stop.extend(self.stop.iter().cloned());
        if self.ignore_end {
            options.end_tokens = EndTokens::Ignore;
        }
        options
    }
}

fn set<T>(option: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *option = value;
    }
}

/// A number that differs from run to run, short enough to be typed again.
fn random_seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one("seed") % 1_000_000_000
}
