//! Sound as samples: where clips come from, at which rate, and how they are written.
//!
//! Everything behind this module is mono `f32` in -1..1. Decoding files needs the feature
//! `audio-files`; resampling and writing do not.

#[cfg(feature = "audio-files")]
mod decode;
mod limits;
mod resample;
mod wav;

#[cfg(feature = "audio-files")]
use std::path::Path;

use lfm2_hub::{Error, Result};

pub use limits::SoundLimits;
pub use resample::Resampler;
pub use wav::{wav_bytes, write_wav};

/// Louder samples than this are no sound but something else read as numbers; their energies would not
/// fit in a number either.
const LOUDEST: f32 = 65_536.0;

/// A piece of mono sound.
///
/// ```
/// use lfm2_audio::{Clip, SoundLimits};
///
/// let stereo = [0.5, -0.5, 1.0, 0.0];
/// let clip = Clip::from_interleaved(&stereo, 2, 8_000, &SoundLimits::default())?;
/// assert_eq!(clip.samples(), [0.0, 0.5]);
/// assert_eq!(clip.resampled(16_000)?.samples().len(), 4);
/// # Ok::<(), lfm2_hub::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Clip {
    samples: Vec<f32>,
    rate: u32,
}

impl Clip {
    /// Mono samples at `rate` per second.
    ///
    /// # Errors
    /// When there are none, one is not a number or absurdly loud, or the rate is 0.
    pub fn new(samples: Vec<f32>, rate: u32) -> Result<Self> {
        if rate == 0 {
            return Err(invalid("a sample rate of 0"));
        }
        if samples.is_empty() {
            return Err(invalid("sound without samples"));
        }
        if let Some(at) = samples.iter().position(|s| s.is_nan() || s.abs() > LOUDEST) {
            let detail = format!("sample {at} is {}, expected about -1 to 1", samples[at]);
            return Err(invalid(detail));
        }
        Ok(Self { samples, rate })
    }

    /// Interleaved samples of any number of channels, which are averaged.
    ///
    /// # Errors
    /// As [`Clip::new`], and when channels, rate or length are outside `limits`.
    pub fn from_interleaved(
        samples: &[f32],
        channels: usize,
        rate: u32,
        limits: &SoundLimits,
    ) -> Result<Self> {
        limits.check_format(rate, channels)?;
        if !samples.len().is_multiple_of(channels) {
            let what = format!("{} samples of {channels} channels", samples.len());
            return Err(invalid(format!("{what} are not whole")));
        }
        limits.check_len(samples.len() / channels, rate)?;
        let mut mono = Vec::with_capacity(samples.len() / channels);
        mix_down(samples, channels, &mut mono);
        Self::new(mono, rate)
    }

    /// Reads and decodes a file: WAV, FLAC, MP3 or Ogg Vorbis.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Limit`] when something is beyond `limits`, [`Error::Unsupported`] for
    /// another format, [`Error::InvalidInput`] for a file that is none of them or damaged.
    #[cfg(feature = "audio-files")]
    pub fn open(path: &Path, limits: &SoundLimits) -> Result<Self> {
        decode::open(path, limits)
    }

    /// Decodes the contents of such a file.
    ///
    /// # Errors
    /// As [`Clip::open`].
    #[cfg(feature = "audio-files")]
    pub fn decode(bytes: Vec<u8>, limits: &SoundLimits) -> Result<Self> {
        decode::decode(bytes, limits)
    }

    /// The samples.
    pub fn samples(&self) -> &[f32] {
        &self.samples
    }

    /// Samples per second.
    pub fn rate(&self) -> u32 {
        self.rate
    }

    /// Length in seconds.
    pub fn seconds(&self) -> f64 {
        self.samples.len() as f64 / f64::from(self.rate)
    }

    /// The same sound at another rate.
    ///
    /// # Errors
    /// As [`Resampler::new`].
    pub fn resampled(&self, rate: u32) -> Result<Self> {
        let mut resampler = Resampler::new(self.rate, rate)?;
        let mut samples = Vec::new();
        resampler.push(&self.samples, &mut samples);
        resampler.finish(&mut samples);
        Ok(Self { samples, rate })
    }

    /// The part from sample `start` on, `len` samples or what there is of them.
    ///
    /// # Errors
    /// When nothing is there.
    pub fn part(&self, start: usize, len: usize) -> Result<Self> {
        let end = start.saturating_add(len).min(self.samples.len());
        let samples = self.samples.get(start..end).unwrap_or_default().to_vec();
        Self::new(samples, self.rate)
    }
}

/// Appends the mean of each group of `channels` samples.
fn mix_down(samples: &[f32], channels: usize, mono: &mut Vec<f32>) {
    match channels {
        0 => {}
        1 => mono.extend_from_slice(samples),
        _ => {
            let groups = samples.chunks_exact(channels);
            mono.extend(groups.map(|group| group.iter().sum::<f32>() / channels as f32));
        }
    }
}

fn invalid(what: impl Into<String>) -> Error {
    Error::InvalidInput(what.into())
}
