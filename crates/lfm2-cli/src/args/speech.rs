//! What the commands on sound share.

use std::num::NonZeroUsize;

use clap::{Arg, Args};
use lfm2::speech::{GenerationOptions, Sampling, Voice};

use super::number;

/// The variable with the speech model where `--model` is not given.
pub(crate) const SPEECH_MODEL_VARIABLE: &str = "LFM2_SPEECH_MODEL";

/// What `--model` is for commands on sound.
pub(super) fn model_help(arg: Arg) -> Arg {
    arg.help(
        "A folder, a GGUF file with its three others beside it, or organisation/name[@revision]; LFM2_SPEECH_MODEL if not given, else the built-in model, which knows English digits",
    )
}

/// How a model that speaks chooses. What is not given is as published.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Sampling (default: as published for the task)")]
pub(crate) struct SpeechSampling {
    /// Tokens and frames of 80 ms to make at most, together
    #[arg(
        short = 'n',
        long,
        value_name = "N",
        value_parser = number::at_least_one,
        allow_negative_numbers = true
    )]
    pub(crate) max_new_tokens: Option<NonZeroUsize>,
    /// Randomness of the sound; 0 always takes the likeliest codes
    #[arg(short, long, value_name = "T")]
    pub(crate) temperature: Option<f32>,
    /// Draw codes from the K likeliest
    #[arg(long, value_name = "K", value_parser = number::at_least_one, allow_negative_numbers = true)]
    pub(crate) top_k: Option<NonZeroUsize>,
    /// Start of the random numbers: the same seed gives the same sound
    #[arg(long, value_name = "N", default_value = "0")]
    pub(crate) seed: u64,
}

impl SpeechSampling {
    /// These settings over the published ones.
    pub(crate) fn options(&self, published: GenerationOptions) -> GenerationOptions {
        let Sampling {
            temperature, top_k, ..
        } = published.audio;
        let mut options = published.with_seed(self.seed);
        options.audio = Sampling {
            temperature: self.temperature.or(temperature),
            top_k: self.top_k.map(NonZeroUsize::get).or(top_k),
        };
        if let Some(count) = self.max_new_tokens {
            options.max_new_tokens = count.get();
        }
        options
    }
}

/// A voice by its name, or described by several words.
pub(super) fn voice(text: &str) -> Result<Voice, String> {
    if let Some((_, voice)) = Voice::NAMED.iter().find(|(name, _)| *name == text) {
        return Ok(voice.clone());
    }
    match text.trim() {
        "own" => Ok(Voice::Own),
        described if described.contains(' ') => Ok(Voice::Described(described.to_owned())),
        _ => {
            let names = Voice::NAMED.map(|(name, _)| name).join(", ");
            Err(format!(
                "expected {names}, own, or a description of several words"
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn voices_have_names_or_are_described() {
        assert_eq!(voice("uk-female"), Ok(Voice::UkFemale));
        assert_eq!(voice("own"), Ok(Voice::Own));
        let described = "A woman speaks slowly, close to the microphone.";
        assert_eq!(voice(described), Ok(Voice::Described(described.to_owned())));
        for wrong in ["", "us_male", "x"] {
            assert!(voice(wrong).unwrap_err().contains("us-male"), "{wrong:?}");
        }
    }

    #[test]
    fn what_is_not_given_is_as_published() {
        let mut sampling = SpeechSampling {
            max_new_tokens: None,
            temperature: None,
            top_k: NonZeroUsize::new(5),
            seed: 3,
        };
        let options = sampling.options(GenerationOptions::speech());
        assert_eq!(options.audio, Sampling::new(0.8, 5));
        assert_eq!((options.seed, options.max_new_tokens), (3, 512));
        sampling.max_new_tokens = NonZeroUsize::new(9);
        assert_eq!(
            sampling.options(GenerationOptions::chat()).max_new_tokens,
            9
        );
    }
}
