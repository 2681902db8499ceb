//! From samples to the log-mel features the encoder reads.
//!
//! Pre-emphasis, a centred Hann window, a power spectrum, Slaney's mel filters, a logarithm, and per
//! bin zero mean and unit variance over the clip. The last step needs the whole clip, so a
//! [`MelStream`] takes samples as they come and gives features at the end.

use std::sync::Arc;

use lfm2_hub::{Error, Result};
use lfm2_nn::{Device, Tensor};
use realfft::num_complex::Complex;
use realfft::{RealFftPlanner, RealToComplex};

use crate::{Clip, Resampler};

/// Weight of the sample before in the pre-emphasis.
const PRE_EMPHASIS: f32 = 0.97;
/// What is added to energies before the logarithm.
const LOG_GUARD: f32 = 1.0 / (1 << 24) as f32;
/// What is added to the standard deviation before dividing by it.
const STD_GUARD: f64 = 1e-5;
/// With fewer frames the encoder's subsampling has nothing to work on: shorter clips get silence.
const MIN_FRAMES: usize = 9;

/// The sizes of the front end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct MelConfig {
    /// Samples per second.
    pub sample_rate: u32,
    /// Mel bins.
    pub features: usize,
    /// Length of the Fourier transform.
    pub n_fft: usize,
    /// Samples under the window, in the middle of the transform.
    pub window: usize,
    /// Samples from one frame to the next.
    pub hop: usize,
}

impl Default for MelConfig {
    fn default() -> Self {
        Self {
            sample_rate: 16_000,
            features: 128,
            n_fft: 512,
            window: 400,
            hop: 160,
        }
    }
}

/// Log-mel features of one clip.
///
/// There is one frame per hop that begins inside the clip and one more, all zeros, at the end.
#[derive(Debug, Clone, PartialEq)]
pub struct Mel {
    values: Vec<f32>,
    features: usize,
}

impl Mel {
    /// Features that were computed elsewhere: `values` of frames of `features` bins, row by row.
    ///
    /// # Errors
    /// When they are not whole frames, there are none, or one is not a finite number.
    pub fn new(values: Vec<f32>, features: usize) -> Result<Self> {
        let whole = features > 0 && !values.is_empty() && values.len().is_multiple_of(features);
        if whole && values.iter().all(|value| value.is_finite()) {
            return Ok(Self { values, features });
        }
        let detail = format!(
            "{} values are no frames of {features} features",
            values.len()
        );
        Err(Error::InvalidInput(detail))
    }

    /// All frames, the last of zeros included.
    pub fn frames(&self) -> usize {
        self.values.len() / self.features
    }

    /// Mel bins.
    pub fn features(&self) -> usize {
        self.features
    }

    /// The values, `(frames, features)` row by row.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// The features without the frame of zeros at the end, as training wants them.
    pub fn without_last(mut self) -> Self {
        let kept = self.values.len().saturating_sub(self.features);
        self.values.truncate(kept.max(self.features));
        self
    }

    /// The values as a tensor, `(frames, features)`.
    ///
    /// # Errors
    /// When the device is out of memory.
    pub fn tensor(&self, device: &Device) -> candle_core::Result<Tensor> {
        Tensor::from_slice(&self.values, (self.frames(), self.features), device)
    }
}

/// Turns clips into features. Cheap to clone.
#[derive(Clone)]
pub struct MelFrontEnd {
    config: MelConfig,
    tables: Arc<Tables>,
}

struct Tables {
    fft: Arc<dyn RealToComplex<f32>>,
    window: Vec<f32>,
    filters: Vec<Filter>,
}

/// One triangle: its weights from bin `start` on.
struct Filter {
    start: usize,
    weights: Vec<f32>,
}

impl std::fmt::Debug for MelFrontEnd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MelFrontEnd")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl MelFrontEnd {
    /// A front end of these sizes.
    ///
    /// # Errors
    /// When a size is zero, the transform odd, or the window longer than it.
    pub fn new(config: MelConfig) -> Result<Self> {
        let MelConfig {
            sample_rate,
            features,
            n_fft,
            window,
            hop,
        } = config;
        let sizes = [sample_rate as usize, features, n_fft, window, hop];
        if sizes.contains(&0) || !n_fft.is_multiple_of(2) || window > n_fft || window < 2 {
            let detail = format!("features that cannot be computed: {config:?}");
            return Err(Error::config("preprocessor", detail));
        }
        Ok(Self {
            config,
            tables: Arc::new(Tables {
                fft: RealFftPlanner::new().plan_fft_forward(n_fft),
                window: hann(window, window - 1),
                filters: filters(features, n_fft, f64::from(sample_rate)),
            }),
        })
    }

    /// The sizes.
    pub fn config(&self) -> &MelConfig {
        &self.config
    }

    /// The window, [`MelConfig::window`] values.
    pub fn window(&self) -> &[f32] {
        &self.tables.window
    }

    /// The mel filters as `(features, n_fft / 2 + 1)` values.
    pub fn filters(&self) -> Vec<f32> {
        let bins = self.config.n_fft / 2 + 1;
        let mut dense = vec![0.0; self.tables.filters.len() * bins];
        for (row, filter) in dense.chunks_exact_mut(bins).zip(&self.tables.filters) {
            row[filter.start..][..filter.weights.len()].copy_from_slice(&filter.weights);
        }
        dense
    }

    /// The features of a clip at any rate.
    ///
    /// # Errors
    /// As [`Resampler::new`].
    pub fn features(&self, clip: &Clip) -> Result<Mel> {
        let mut stream = self.stream(clip.rate())?;
        stream.push(clip.samples());
        Ok(stream.finish())
    }

    /// A stream that takes the samples of a clip at `rate` in pieces.
    ///
    /// # Errors
    /// As [`Resampler::new`].
    pub fn stream(&self, rate: u32) -> Result<MelStream> {
        let n_fft = self.config.n_fft;
        Ok(MelStream {
            resampler: Resampler::new(rate, self.config.sample_rate)?,
            resampled: Vec::new(),
            before: 0.0,
            samples: 0,
            pending: vec![0.0; n_fft / 2],
            log_mel: Vec::new(),
            input: self.tables.fft.make_input_vec(),
            spectrum: self.tables.fft.make_output_vec(),
            scratch: self.tables.fft.make_scratch_vec(),
            front: self.clone(),
        })
    }
}

/// Features in the making: samples go in in pieces of any size.
pub struct MelStream {
    front: MelFrontEnd,
    resampler: Resampler,
    resampled: Vec<f32>,
    /// The newest sample, for the pre-emphasis of the next.
    before: f32,
    samples: usize,
    /// Emphasised samples from the start of the next frame on.
    pending: Vec<f32>,
    log_mel: Vec<f32>,
    input: Vec<f32>,
    spectrum: Vec<Complex<f32>>,
    scratch: Vec<Complex<f32>>,
}

impl std::fmt::Debug for MelStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MelStream")
            .field("samples", &self.samples)
            .finish_non_exhaustive()
    }
}

impl MelStream {
    /// Takes more samples.
    pub fn push(&mut self, samples: &[f32]) {
        let mut resampled = std::mem::take(&mut self.resampled);
        self.resampler.push(samples, &mut resampled);
        self.emphasise(&resampled);
        resampled.clear();
        self.resampled = resampled;
    }

    /// Ends the clip.
    pub fn finish(mut self) -> Mel {
        let mut rest = Vec::new();
        self.resampler.finish(&mut rest);
        self.emphasise(&rest);
        let MelConfig {
            features,
            n_fft,
            hop,
            ..
        } = self.front.config;
        if self.samples / hop + 1 < MIN_FRAMES {
            let silence = vec![0.0; MIN_FRAMES * hop - self.samples];
            self.emphasise(&silence);
        }
        self.pending.resize(self.pending.len() + n_fft / 2, 0.0);
        self.frames();
        let valid = self.samples / hop;
        self.log_mel.truncate((valid + 1) * features);
        normalise(&mut self.log_mel, features, valid);
        Mel {
            values: self.log_mel,
            features,
        }
    }

    fn emphasise(&mut self, samples: &[f32]) {
        self.samples += samples.len();
        self.pending.reserve(samples.len());
        for &sample in samples {
            self.pending.push(sample - PRE_EMPHASIS * self.before);
            self.before = sample;
        }
        self.frames();
    }

    /// Appends the logarithms of the mel energies of every whole frame.
    fn frames(&mut self) {
        let MelConfig {
            n_fft, window, hop, ..
        } = self.front.config;
        let tables = Arc::clone(&self.front.tables);
        let edge = (n_fft - window) / 2;
        let mut start = 0;
        while let Some(frame) = self.pending.get(start..start + n_fft) {
            self.input.fill(0.0);
            let middle = self.input.iter_mut().zip(frame).skip(edge);
            for ((out, sample), weight) in middle.zip(&tables.window) {
                *out = sample * weight;
            }
            // The buffers are the plan's own, so their sizes cannot be wrong.
            let transformed = tables.fft.process_with_scratch(
                &mut self.input,
                &mut self.spectrum,
                &mut self.scratch,
            );
            debug_assert!(transformed.is_ok());
            for filter in &tables.filters {
                let bins = self.spectrum.iter().skip(filter.start);
                let energy: f32 = bins
                    .zip(&filter.weights)
                    .map(|(c, w)| c.norm_sqr() * w)
                    .sum();
                self.log_mel.push((energy + LOG_GUARD).ln());
            }
            start += hop;
        }
        self.pending.drain(..start.min(self.pending.len()));
    }
}

/// Gives every bin zero mean and unit variance over the first `valid` frames, and zeros the others.
///
/// The sums are double: what remains of a constant bin is then zero, not rounding noise divided by
/// next to nothing, so that silence has quiet features.
fn normalise(values: &mut [f32], features: usize, valid: usize) {
    let (clip, rest) = values.split_at_mut((valid * features).min(values.len()));
    rest.fill(0.0);
    let frames = valid.max(1) as f64;
    let mut mean = vec![0f64; features];
    for frame in clip.chunks_exact(features) {
        mean.iter_mut()
            .zip(frame)
            .for_each(|(m, v)| *m += f64::from(*v));
    }
    mean.iter_mut().for_each(|m| *m /= frames);
    let mut squares = vec![0f64; features];
    for frame in clip.chunks_exact(features) {
        for ((square, v), m) in squares.iter_mut().zip(frame).zip(&mean) {
            *square += (f64::from(*v) - m).powi(2);
        }
    }
    let deviation = |square: &f64| {
        if valid > 1 {
            (square / (frames - 1.0)).sqrt()
        } else {
            0.0
        }
    };
    let divisor: Vec<f64> = squares.iter().map(|s| deviation(s) + STD_GUARD).collect();
    for frame in clip.chunks_exact_mut(features) {
        for ((v, m), d) in frame.iter_mut().zip(&mean).zip(&divisor) {
            *v = ((f64::from(*v) - m) / d) as f32;
        }
    }
}

/// `len` values of a Hann window with this period.
pub(crate) fn hann(len: usize, period: usize) -> Vec<f32> {
    let angle = |n: usize| 2.0 * std::f64::consts::PI * n as f64 / period as f64;
    (0..len)
        .map(|n| (0.5 - 0.5 * angle(n).cos()) as f32)
        .collect()
}

/// Slaney's triangles from 0 to half the sample rate, each of the same area.
fn filters(features: usize, n_fft: usize, sample_rate: f64) -> Vec<Filter> {
    let top = hertz_to_mel(sample_rate / 2.0);
    let edges: Vec<f64> = (0..features + 2)
        .map(|i| mel_to_hertz(top * i as f64 / (features + 1) as f64))
        .collect();
    let triangle = |edges: &[f64]| {
        let [low, mid, high] = [edges[0], edges[1], edges[2]];
        let weight = |bin: usize| {
            let hertz = bin as f64 * sample_rate / n_fft as f64;
            let rising = (hertz - low) / (mid - low);
            let falling = (high - hertz) / (high - mid);
            rising.min(falling).max(0.0) * 2.0 / (high - low)
        };
        let weights: Vec<f64> = (0..=n_fft / 2).map(weight).collect();
        let start = weights.iter().position(|w| *w > 0.0).unwrap_or(0);
        let end = weights
            .iter()
            .rposition(|w| *w > 0.0)
            .map_or(start, |i| i + 1);
        Filter {
            start,
            weights: weights[start..end].iter().map(|w| *w as f32).collect(),
        }
    };
    edges.windows(3).map(triangle).collect()
}

/// Where Slaney's scale turns from linear to logarithmic, and its steps on both sides.
const MEL_BREAK_HERTZ: f64 = 1000.0;
const HERTZ_PER_MEL: f64 = 200.0 / 3.0;

fn log_step() -> f64 {
    6.4f64.ln() / 27.0
}

fn hertz_to_mel(hertz: f64) -> f64 {
    if hertz < MEL_BREAK_HERTZ {
        hertz / HERTZ_PER_MEL
    } else {
        MEL_BREAK_HERTZ / HERTZ_PER_MEL + (hertz / MEL_BREAK_HERTZ).ln() / log_step()
    }
}

fn mel_to_hertz(mel: f64) -> f64 {
    let break_mel = MEL_BREAK_HERTZ / HERTZ_PER_MEL;
    if mel < break_mel {
        mel * HERTZ_PER_MEL
    } else {
        MEL_BREAK_HERTZ * ((mel - break_mel) * log_step()).exp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn front() -> MelFrontEnd {
        MelFrontEnd::new(MelConfig::default()).unwrap()
    }

    #[test]
    fn frames_are_one_per_hop_and_one_of_zeros() {
        let clip = Clip::new(vec![0.1; 16_000], 16_000).unwrap();
        let mel = front().features(&clip).unwrap();
        assert_eq!(mel.frames(), 101);
        assert!(mel.values()[100 * 128..].iter().all(|v| *v == 0.0));
        assert_eq!(mel.without_last().frames(), 100);
    }

    #[test]
    fn short_clips_get_silence_until_there_are_enough_frames() {
        for (samples, frames) in [(1, 10), (1279, 10), (1280, 9), (1440, 10)] {
            let clip = Clip::new(vec![0.5; samples], 16_000).unwrap();
            assert_eq!(
                front().features(&clip).unwrap().frames(),
                frames,
                "{samples}"
            );
        }
    }

    #[test]
    fn the_mel_scale_and_its_inverse_agree() {
        for hertz in [0.0, 440.0, 999.0, 1000.0, 4321.0, 8000.0] {
            assert!((mel_to_hertz(hertz_to_mel(hertz)) - hertz).abs() < 1e-9);
        }
    }

    #[test]
    fn sizes_that_make_no_sense_are_refused() {
        for (window, n_fft) in [(600, 512), (0, 512), (400, 511)] {
            let config = MelConfig {
                window,
                n_fft,
                ..MelConfig::default()
            };
            assert!(MelFrontEnd::new(config).is_err(), "{window} {n_fft}");
        }
    }
}
