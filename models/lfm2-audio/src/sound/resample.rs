//! Changing the sample rate with a windowed sinc.
//!
//! The constants are those of the filter the models were trained behind: a low pass of six zero
//! crossings with a Hann window that rolls off at 99 % of the lower Nyquist frequency. Other filters
//! give other features, so this one is written out.

use lfm2_hub::{Error, Result};

/// Zero crossings of the sinc on each side.
const CROSSINGS: f64 = 6.0;
/// Where the low pass ends, as a share of the lower Nyquist frequency.
const ROLL_OFF: f64 = 0.99;
/// Filter coefficients there may be: rates without a common divisor need one filter per phase.
const MAX_COEFFICIENTS: u64 = 16 << 20;

/// Turns samples at one rate into samples at another, in pieces of any size.
///
/// The result does not depend on how the input is cut. `n` samples become `ceil(n * to / from)`.
#[derive(Debug, Clone)]
pub struct Resampler {
    /// Input samples per group.
    step: usize,
    /// One filter per output sample of a group.
    filters: Vec<Filter>,
    /// Samples that the filters of a group reach over.
    window: usize,
    /// Zeros before the first sample.
    width: usize,
    /// Input not yet passed by the filters, with the zeros in front.
    pending: Vec<f32>,
    read: u64,
    written: u64,
}

/// The part of a filter that is not zero, and where in the window it begins.
#[derive(Debug, Clone)]
struct Filter {
    start: usize,
    taps: Vec<f32>,
}

impl Resampler {
    /// From `from` samples per second to `to`.
    ///
    /// # Errors
    /// When a rate is 0, or the two have so little in common that the filters would not fit in memory.
    pub fn new(from: u32, to: u32) -> Result<Self> {
        if from == 0 || to == 0 {
            let detail = format!("resampling from {from} to {to} samples per second");
            return Err(Error::InvalidInput(detail));
        }
        let common = gcd(from, to);
        let (step, phases) = (from / common, to / common);
        if step == phases {
            return Ok(Self::identity());
        }
        let base = f64::from(step.min(phases)) * ROLL_OFF;
        let reach = CROSSINGS * f64::from(step) / base;
        let coefficients = (2.0 * reach).ceil() as u64 * u64::from(phases);
        if coefficients > MAX_COEFFICIENTS {
            return Err(Error::Limit {
                what: format!("filter coefficients for resampling from {from} to {to}"),
                limit: MAX_COEFFICIENTS,
                found: coefficients,
            });
        }
        let width = reach.ceil() as usize;
        let filter = |phase: u32| {
            let centre = f64::from(step) * f64::from(phase) / f64::from(phases) + width as f64;
            let start = (centre - reach).ceil().max(0.0) as usize;
            let end = (centre + reach).floor() as usize;
            let coefficient = |tap: usize| {
                let input = (tap as f64 - width as f64) / f64::from(step);
                coefficient(input - f64::from(phase) / f64::from(phases), base, step)
            };
            Filter {
                start,
                taps: (start..=end).map(coefficient).collect(),
            }
        };
        Ok(Self {
            step: step as usize,
            filters: (0..phases).map(filter).collect(),
            window: 2 * width + step as usize,
            width,
            pending: vec![0.0; width],
            read: 0,
            written: 0,
        })
    }

    /// Equal rates: samples pass untouched.
    fn identity() -> Self {
        let through = Filter {
            start: 0,
            taps: vec![1.0],
        };
        Self {
            step: 1,
            filters: vec![through],
            window: 1,
            width: 0,
            pending: Vec::new(),
            read: 0,
            written: 0,
        }
    }

    /// Reads `samples` and appends to `out` what is finished.
    pub fn push(&mut self, samples: &[f32], out: &mut Vec<f32>) {
        self.read += samples.len() as u64;
        self.pending.extend_from_slice(samples);
        self.filter(out, u64::MAX);
    }

    /// Ends the input, appends the rest to `out`, and starts anew.
    pub fn finish(&mut self, out: &mut Vec<f32>) {
        let total = (self.read * self.filters.len() as u64).div_ceil(self.step as u64);
        let silence = self.width + self.step;
        self.pending.resize(self.pending.len() + silence, 0.0);
        self.filter(out, total);
        self.pending.clear();
        self.pending.resize(self.width, 0.0);
        (self.read, self.written) = (0, 0);
    }

    /// Appends one group of samples for every whole window, up to `total` samples in all.
    fn filter(&mut self, out: &mut Vec<f32>, total: u64) {
        let mut start = 0;
        while let Some(window) = self.pending.get(start..start + self.window) {
            for Filter { start, taps } in &self.filters {
                if self.written == total {
                    break;
                }
                out.push(dot(taps, &window[*start..][..taps.len()]));
                self.written += 1;
            }
            start += self.step;
        }
        self.pending.drain(..start.min(self.pending.len()));
    }
}

/// The filter at `time`, in units of the input's group.
fn coefficient(time: f64, base: f64, step: u32) -> f32 {
    let t = (time * base).clamp(-CROSSINGS, CROSSINGS);
    let window = (std::f64::consts::PI * t / (2.0 * CROSSINGS)).cos().powi(2);
    let angle = std::f64::consts::PI * t;
    let sinc = if angle == 0.0 {
        1.0
    } else {
        angle.sin() / angle
    };
    (sinc * window * base / f64::from(step)) as f32
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0f32; 8];
    let (a, b) = (a.chunks_exact(8), b.chunks_exact(8));
    let rest = a.remainder().iter().zip(b.remainder());
    let rest: f32 = rest.map(|(a, b)| a * b).sum();
    for (a, b) in a.zip(b) {
        for ((lane, a), b) in lanes.iter_mut().zip(a).zip(b) {
            *lane += a * b;
        }
    }
    lanes.iter().sum::<f32>() + rest
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resample(samples: &[f32], from: u32, to: u32) -> Vec<f32> {
        let mut resampler = Resampler::new(from, to).unwrap();
        let mut out = Vec::new();
        resampler.push(samples, &mut out);
        resampler.finish(&mut out);
        out
    }

    #[test]
    fn equal_rates_leave_samples_alone() {
        let samples = [0.1, -0.2, 0.3];
        assert_eq!(resample(&samples, 16_000, 16_000), samples);
    }

    #[test]
    fn lengths_are_rounded_up() {
        for (from, to, n, expected) in [
            (8_000, 16_000, 7, 14),
            (44_100, 16_000, 44_100, 16_000),
            (48_000, 16_000, 10, 4),
            (22_050, 16_000, 1, 1),
        ] {
            assert_eq!(
                resample(&vec![0.0; n], from, to).len(),
                expected,
                "{from} {to}"
            );
        }
    }

    #[test]
    fn a_slow_sine_keeps_its_shape() {
        let sine = |rate: f64, n: usize| -> Vec<f32> {
            let w = 2.0 * std::f64::consts::PI * 440.0 / rate;
            (0..n).map(|t| (w * t as f64).sin() as f32).collect()
        };
        let found = resample(&sine(24_000.0, 2_400), 24_000, 16_000);
        let expected = sine(16_000.0, 1_600);
        for t in 100..1_500 {
            assert!((found[t] - expected[t]).abs() < 2e-3, "{t}");
        }
    }

    #[test]
    fn au_04_rates_with_nothing_in_common_are_bounded() {
        assert_eq!(resample(&[0.0; 7_919], 7_919, 16_000).len(), 16_000);
        assert!(Resampler::new(383_981, 16_000).is_ok());
        let error = Resampler::new(4_294_967_291, 4_294_967_279).unwrap_err();
        assert_eq!(error.kind(), lfm2_hub::ErrorKind::Limit);
        assert!(Resampler::new(0, 16_000).is_err());
    }
}
