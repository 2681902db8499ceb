//! The inverse short-time Fourier transform, step by step.

use std::sync::Arc;

use lfm2_hub::{Error, Result};
use realfft::num_complex::Complex;
use realfft::{ComplexToReal, RealFftPlanner};

use crate::mel::hann;

/// Overlap-add of inverse transforms under a periodic Hann window.
///
/// Half of what every transform overlaps with its neighbours is dropped at both ends, so that `n` steps
/// give `n * hop` samples.
pub(super) struct Istft {
    hop: usize,
    plan: Arc<dyn ComplexToReal<f32>>,
    window: Vec<f32>,
    /// What the transforms so far add to the next samples, and the squares of their windows.
    sum: Vec<f32>,
    squares: Vec<f32>,
    /// Samples still to be dropped.
    drop: usize,
    spectrum: Vec<Complex<f32>>,
    wave: Vec<f32>,
    scratch: Vec<Complex<f32>>,
}

impl std::fmt::Debug for Istft {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Istft")
            .field("n_fft", &self.window.len())
            .field("hop", &self.hop)
            .finish_non_exhaustive()
    }
}

impl Istft {
    /// Whether steps of `hop` samples can be made of transforms of `n_fft`.
    pub(super) fn check(n_fft: usize, hop: usize) -> Result<()> {
        let overlap = n_fft.saturating_sub(hop);
        // Every sample that is kept needs a window that is not zero there.
        if n_fft.is_multiple_of(2) && overlap.is_multiple_of(2) && overlap >= hop {
            return Ok(());
        }
        let detail = format!("transforms of {n_fft} samples do not overlap every {hop}");
        Err(Error::config("output_size", detail))
    }

    pub(super) fn new(n_fft: usize, hop: usize) -> Self {
        let plan = RealFftPlanner::new().plan_fft_inverse(n_fft);
        Self {
            hop,
            window: hann(n_fft, n_fft),
            sum: vec![0.0; n_fft],
            squares: vec![0.0; n_fft],
            drop: (n_fft - hop) / 2,
            spectrum: plan.make_input_vec(),
            wave: plan.make_output_vec(),
            scratch: plan.make_scratch_vec(),
            plan,
        }
    }

    /// Adds one step, `n_fft / 2 + 1` logarithms of magnitudes and as many phases, and appends the
    /// samples that nothing more is added to.
    pub(super) fn push(&mut self, step: &[f32], out: &mut Vec<f32>) {
        let (magnitudes, phases) = step.split_at(step.len() / 2);
        for ((bin, log), phase) in self.spectrum.iter_mut().zip(magnitudes).zip(phases) {
            let (magnitude, (sin, cos)) = (log.exp(), phase.sin_cos());
            *bin = Complex::new(magnitude * cos, magnitude * sin);
        }
        // A real signal has none, and the transform would ignore them.
        for end in [0, self.spectrum.len() - 1] {
            self.spectrum[end].im = 0.0;
        }
        // The buffers are the plan's own, so their sizes cannot be wrong.
        let transformed =
            self.plan
                .process_with_scratch(&mut self.spectrum, &mut self.wave, &mut self.scratch);
        debug_assert!(transformed.is_ok());
        let scale = 1.0 / self.window.len() as f32;
        let sums = self.sum.iter_mut().zip(&mut self.squares);
        for ((sum, square), (sample, weight)) in sums.zip(self.wave.iter().zip(&self.window)) {
            *sum += sample * scale * weight;
            *square += weight * weight;
        }
        self.emit(self.hop, out);
        for values in [&mut self.sum, &mut self.squares] {
            values.copy_within(self.hop.., 0);
            let kept = values.len() - self.hop;
            values[kept..].fill(0.0);
        }
    }

    /// What the last transform left, without the half that is dropped; nothing if there was none.
    pub(super) fn finish(mut self) -> Vec<f32> {
        let mut out = Vec::new();
        let begun = self.squares.iter().any(|square| *square > 0.0);
        let half = (self.window.len() - self.hop) / 2;
        if begun {
            // Both halves, of which a piece too short to have dropped the first one drops it now.
            self.emit(half, &mut out);
        }
        out
    }

    /// Appends the first `len` samples, less those to be dropped.
    fn emit(&mut self, len: usize, out: &mut Vec<f32>) {
        let dropped = self.drop.min(len);
        self.drop -= dropped;
        let finished = self.sum.iter().zip(&self.squares).take(len).skip(dropped);
        out.extend(finished.map(|(sum, square)| sum / square));
    }

    pub(super) fn bytes(&self) -> usize {
        (self.sum.len() + self.squares.len() + self.wave.len()) * size_of::<f32>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_constant_spectrum_gives_what_each_transform_does() {
        // A magnitude in bin 0 alone: every transform is constant, so overlap-add over squares is too.
        let (n_fft, hop) = (16, 4);
        let bins = n_fft / 2 + 1;
        let mut step = vec![-80f32; bins];
        step[0] = (n_fft as f32).ln();
        step.extend(vec![0.0; bins]);
        let mut istft = Istft::new(n_fft, hop);
        let mut out = Vec::new();
        for _ in 0..10 {
            istft.push(&step, &mut out);
        }
        assert_eq!(out.len(), 10 * hop - 6);
        out.extend(istft.finish());
        assert_eq!(out.len(), 10 * hop);
        // Sum of windows over sum of squares is 2 / 1.5 where four windows overlap.
        assert!(
            out[8..32].iter().all(|v| (v - 4.0 / 3.0).abs() < 1e-5),
            "{out:?}"
        );
    }

    #[test]
    fn nothing_in_gives_nothing_out() {
        assert!(Istft::new(16, 4).finish().is_empty());
    }

    #[test]
    fn sizes_that_leave_holes_are_refused() {
        assert!(Istft::check(1280, 320).is_ok());
        assert!(Istft::check(320, 320).is_err());
        assert!(Istft::check(1281, 320).is_err());
    }
}
