//! [`AugmentOptions`]: the same clip never sounds the same twice.

use lfm2_audio::Clip;
use serde::{Deserialize, Serialize};

use crate::rng::Rng;
use crate::{Error, Result};

/// How clips are changed before a model hears them. Every change is drawn anew for every clip of every step.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct AugmentOptions {
    /// Played faster or slower, and so higher or lower, by at most this share.
    pub speed: f64,
    /// At most so many seconds of silence before and after.
    pub silence: f64,
    /// Share of clips with white noise.
    pub noise: f64,
    /// The least and the most decibels of the sound over that noise.
    pub snr: [f64; 2],
    /// Highs are raised or lowered by a filter of one tap of at most this size.
    pub tilt: f64,
    /// Quieter by at most so many decibels.
    pub gain: f64,
}

impl Default for AugmentOptions {
    fn default() -> Self {
        Self {
            speed: 0.0,
            silence: 0.0,
            noise: 0.0,
            snr: [10.0, 40.0],
            tilt: 0.0,
            gain: 0.0,
        }
    }
}

/// A changed clip.
pub(super) struct Augmented {
    pub(super) clip: Clip,
    /// Seconds before it begins.
    before: f64,
    /// How much faster it is.
    speed: f64,
}

impl Augmented {
    /// When something is heard that was at `seconds`.
    pub(super) fn time(&self, seconds: f64) -> f64 {
        self.before + seconds / self.speed
    }
}

impl AugmentOptions {
    /// Checks the numbers.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] naming the key.
    pub fn validate(&self) -> Result<()> {
        let [least, most] = self.snr;
        let within = [
            ("augment.speed", self.speed, 0.5),
            ("augment.silence", self.silence, 10.0),
            ("augment.noise", self.noise, 1.0),
            ("augment.tilt", self.tilt, 0.95),
            ("augment.gain", self.gain, 60.0),
        ];
        for (key, value, most) in within {
            if !(0.0..=most).contains(&value) {
                let detail = format!("expected a number from 0 to {most}, found {value}");
                return Err(Error::option(key, detail));
            }
        }
        if !(least.is_finite() && most.is_finite() && least <= most) {
            let detail =
                format!("expected two numbers, the smaller first, found {least} and {most}");
            return Err(Error::option("augment.snr", detail));
        }
        Ok(())
    }

    /// A changed copy of `clip`, fixed by `rng`.
    pub(super) fn apply(&self, clip: &Clip, rng: &mut Rng) -> Result<Augmented> {
        let between = |rng: &mut Rng, low: f64, high: f64| low + (high - low) * rng.uniform();
        let rate = f64::from(clip.rate());
        let speed = 1.0 + between(rng, -self.speed, self.speed);
        let mut heard = faster(clip.samples(), speed);
        tilt(&mut heard, between(rng, -self.tilt, self.tilt) as f32);
        let [before, after] = [0; 2].map(|_| between(rng, 0.0, self.silence));
        let count = |seconds: f64| (seconds * rate) as usize;
        let mut samples = vec![0.0; count(before)];
        samples.append(&mut heard);
        samples.resize(samples.len() + count(after), 0.0);
        if rng.uniform() < self.noise {
            let level = loudness(&samples) * from_decibels(-between(rng, self.snr[0], self.snr[1]));
            for sample in &mut samples {
                *sample += (level * rng.normal()) as f32;
            }
        }
        let gain = from_decibels(-between(rng, 0.0, self.gain)) as f32;
        samples.iter_mut().for_each(|sample| *sample *= gain);
        Ok(Augmented {
            clip: Clip::new(samples, clip.rate())?,
            before: count(before) as f64 / rate,
            speed,
        })
    }
}

fn from_decibels(decibels: f64) -> f64 {
    10f64.powf(decibels / 20.0)
}

/// The root of the mean square.
fn loudness(samples: &[f32]) -> f64 {
    let sum: f64 = samples.iter().map(|&x| f64::from(x).powi(2)).sum();
    (sum / samples.len().max(1) as f64).sqrt()
}

/// The samples read `speed` times as fast, on straight lines between them.
fn faster(samples: &[f32], speed: f64) -> Vec<f32> {
    let count = ((samples.len() as f64 / speed) as usize).max(1);
    let at = |i: usize| samples.get(i).copied().unwrap_or(0.0);
    let read = |i: usize| {
        let place = i as f64 * speed;
        let (whole, part) = (place as usize, place.fract() as f32);
        at(whole) * (1.0 - part) + at(whole + 1) * part
    };
    (0..count).map(read).collect()
}

/// Adds `tap` times the sample before to every sample: highs fall with a positive one, and rise with a negative.
fn tilt(samples: &mut [f32], tap: f32) {
    let mut before = 0.0;
    for sample in samples {
        let own = *sample;
        *sample += tap * before;
        before = own;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clip() -> Clip {
        let wave = |i: i32| 0.5 * (i as f32 * 0.05).sin();
        Clip::new((0..8000).map(wave).collect(), 8000).unwrap()
    }

    fn strong() -> AugmentOptions {
        AugmentOptions {
            speed: 0.2,
            silence: 0.5,
            noise: 1.0,
            snr: [20.0, 20.0],
            tilt: 0.5,
            gain: 20.0,
        }
    }

    #[test]
    fn without_options_nothing_changes() {
        let changed = AugmentOptions::default()
            .apply(&clip(), &mut Rng::new(1))
            .unwrap();
        assert_eq!(changed.clip, clip());
        assert_eq!(changed.time(0.7), 0.7);
    }

    #[test]
    fn equal_streams_change_alike_and_others_do_not() {
        let change = |seed| strong().apply(&clip(), &mut Rng::new(seed)).unwrap().clip;
        assert_eq!(change(3), change(3));
        assert_ne!(change(3), change(4));
    }

    #[test]
    fn what_is_heard_is_where_the_time_says() {
        let mut samples = vec![0.0; 8000];
        samples[4000] = 1.0;
        let click = Clip::new(samples, 8000).unwrap();
        let quiet = AugmentOptions {
            noise: 0.0,
            ..strong()
        };
        for seed in 0..8 {
            let changed = quiet.apply(&click, &mut Rng::new(seed)).unwrap();
            let loudest = changed.clip.samples().iter().enumerate();
            let loudest = loudest.max_by(|a, b| a.1.abs().total_cmp(&b.1.abs()));
            let seconds = loudest.unwrap().0 as f64 / 8000.0;
            assert!((seconds - changed.time(0.5)).abs() < 5e-4, "{seconds}");
        }
    }

    #[test]
    fn noise_is_as_loud_as_asked_for() {
        let noisy = AugmentOptions {
            noise: 1.0,
            snr: [6.0, 6.0],
            ..AugmentOptions::default()
        };
        let changed = noisy.apply(&clip(), &mut Rng::new(5)).unwrap();
        let pairs = changed.clip.samples().iter().zip(clip().samples().to_vec());
        let noise: Vec<f32> = pairs.map(|(a, b)| a - b).collect();
        let ratio = loudness(clip().samples()) / loudness(&noise);
        assert!((20.0 * ratio.log10() - 6.0).abs() < 0.3, "{ratio}");
    }

    #[test]
    fn numbers_out_of_range_are_named() {
        let wrong = AugmentOptions {
            tilt: 1.5,
            ..strong()
        };
        let error = wrong.validate().unwrap_err().to_string();
        assert!(error.contains("augment.tilt") && error.contains("1.5"));
        let wrong = AugmentOptions {
            snr: [9.0, 3.0],
            ..strong()
        };
        assert!(wrong.validate().is_err());
        assert!(strong().validate().is_ok());
    }
}
