//! [`SoundLimits`]: how much a sound file may ask for.

use lfm2_hub::{Error, Result};

/// Upper bounds that are checked while a file is read and decoded, so that none of its claims are
/// taken on trust. Going over one is [`Error::Limit`](lfm2_hub::Error::Limit).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SoundLimits {
    /// Bytes of a file.
    pub max_bytes: u64,
    /// Seconds of sound after decoding.
    pub max_seconds: u64,
    /// Lowest sample rate.
    pub min_rate: u32,
    /// Highest sample rate.
    pub max_rate: u32,
    /// Channels.
    pub max_channels: usize,
}

impl Default for SoundLimits {
    fn default() -> Self {
        Self {
            max_bytes: 50 << 20,
            max_seconds: 30 * 60,
            min_rate: 1_000,
            max_rate: 384_000,
            max_channels: 8,
        }
    }
}

impl SoundLimits {
    /// With another longest duration.
    pub fn with_max_seconds(mut self, seconds: u64) -> Self {
        self.max_seconds = seconds;
        self
    }

    /// With another largest file.
    pub fn with_max_bytes(mut self, bytes: u64) -> Self {
        self.max_bytes = bytes;
        self
    }

    pub(super) fn check_format(&self, rate: u32, channels: usize) -> Result<()> {
        if channels == 0 {
            return Err(Error::InvalidInput("sound without channels".to_owned()));
        }
        if rate < self.min_rate {
            let detail = format!(
                "a sample rate of {rate}, expected at least {}",
                self.min_rate
            );
            return Err(Error::InvalidInput(detail));
        }
        check("sample rate", u64::from(self.max_rate), u64::from(rate))?;
        check("channels", self.max_channels as u64, channels as u64)
    }

    /// Checks a number of samples per channel.
    pub(super) fn check_len(&self, samples: usize, rate: u32) -> Result<()> {
        let seconds = (samples as u64).div_ceil(u64::from(rate).max(1));
        check("seconds of sound", self.max_seconds, seconds)
    }

    #[cfg(feature = "audio-files")]
    pub(super) fn check_bytes(&self, bytes: u64) -> Result<()> {
        check("sound file bytes", self.max_bytes, bytes)
    }
}

fn check(what: &str, limit: u64, found: u64) -> Result<()> {
    if found <= limit {
        return Ok(());
    }
    let what = what.to_owned();
    Err(Error::Limit { what, limit, found })
}
