//! [`Waves`]: Fourier transforms as products of matrices, through which gradients go.

use std::f64::consts::TAU;

use candle_core::{Device, Result, Tensor};

/// Samples per step of a detokenizer.
const HOP: usize = 320;
/// Transform lengths at which sounds are compared, a quarter of the length apart.
const COMPARED: [usize; 3] = [256, 512, 1024];
/// What is added to powers before the logarithm: about that of what nobody hears.
const QUIET: f64 = 1e-3;

/// The transforms of a detokenizer and of the comparison of sounds.
#[derive(Debug, Clone)]
pub struct Waves {
    n_fft: usize,
    /// Real and imaginary parts to samples under the window, `(bins, n_fft)` each.
    inverse: [Tensor; 2],
    /// The transform that is the other way round.
    own: Transform,
    compared: Vec<Transform>,
    window: Vec<f32>,
}

/// Samples under a window to real and imaginary parts, `(n_fft, bins)` each.
#[derive(Debug, Clone)]
struct Transform {
    hop: usize,
    real: Tensor,
    imaginary: Tensor,
}

fn hann(n: usize) -> Vec<f64> {
    let value = |i: usize| 0.5 - 0.5 * (TAU * i as f64 / n as f64).cos();
    (0..n).map(value).collect()
}

/// A matrix of `f` of row and column.
fn matrix(rows: usize, columns: usize, f: impl Fn(usize, usize) -> f64) -> Result<Tensor> {
    let all = (0..rows).flat_map(|r| (0..columns).map(move |c| (r, c)));
    let values: Vec<f32> = all.map(|(r, c)| f(r, c) as f32).collect();
    Tensor::from_vec(values, (rows, columns), &Device::Cpu)
}

/// The angle of bin `k` at sample `i`, with the whole turns taken off before rounding.
fn angle(k: usize, i: usize, n: usize) -> f64 {
    TAU * ((k * i) % n) as f64 / n as f64
}

impl Transform {
    fn new(n: usize, hop: usize) -> Result<Self> {
        let window = hann(n);
        let bins = n / 2 + 1;
        Ok(Self {
            hop,
            real: matrix(n, bins, |i, k| window[i] * angle(k, i, n).cos())?,
            imaginary: matrix(n, bins, |i, k| -window[i] * angle(k, i, n).sin())?,
        })
    }

    /// The powers of the bins of every step of a sound, `(steps, bins)`.
    fn powers(&self, sound: &Tensor) -> Result<Tensor> {
        let (n, _) = self.real.dims2()?;
        let blocks = n / self.hop;
        let steps = (sound.dim(0)? / self.hop + 1).saturating_sub(blocks);
        let rows = sound
            .narrow(0, 0, (steps + blocks - 1) * self.hop)?
            .reshape((steps + blocks - 1, self.hop))?;
        let parts = (0..blocks).map(|b| rows.narrow(0, b, steps));
        let parts = parts.collect::<Result<Vec<_>>>()?;
        let steps = Tensor::cat(&parts, 1)?;
        steps.matmul(&self.real)?.sqr()? + steps.matmul(&self.imaginary)?.sqr()?
    }
}

impl Waves {
    /// The transforms of a detokenizer that gives `output` numbers a step.
    ///
    /// # Errors
    /// When memory is short.
    pub fn new(output: usize) -> Result<Self> {
        let n = output - 2;
        let bins = output / 2;
        let window = hann(n);
        let sides = |k: usize| if k == 0 || k + 1 == bins { 1.0 } else { 2.0 };
        let part = |f: fn(f64) -> f64| {
            matrix(bins, n, |k, i| {
                sides(k) * window[i] * f(angle(k, i, n)) / n as f64
            })
        };
        let compared = COMPARED.into_iter().map(|n| Transform::new(n, n / 4));
        Ok(Self {
            n_fft: n,
            inverse: [part(f64::cos)?, part(|a| -a.sin())?],
            own: Transform::new(n, HOP)?,
            compared: compared.collect::<Result<_>>()?,
            window: window.iter().map(|x| *x as f32).collect(),
        })
    }

    /// The sound of a spectrum `(steps, output)`, `(320 steps)`, as a detokenizer makes it.
    ///
    /// # Errors
    /// When shapes disagree or the device fails.
    pub fn sound(&self, spectrum: &Tensor) -> Result<Tensor> {
        let (steps, output) = spectrum.dims2()?;
        let bins = output / 2;
        let magnitudes = spectrum.narrow(1, 0, bins)?.exp()?;
        let phases = spectrum.narrow(1, bins, bins)?;
        let [cosines, sines] = &self.inverse;
        let real = (&magnitudes * phases.cos()?)?.matmul(cosines)?;
        let samples = (real + (&magnitudes * phases.sin()?)?.matmul(sines)?)?;
        let blocks = self.n_fft / HOP;
        let mut sum: Option<Tensor> = None;
        for block in 0..blocks {
            let part = samples.narrow(1, block * HOP, HOP)?.contiguous()?;
            let part = part.pad_with_zeros(0, block, blocks - 1 - block)?;
            sum = Some(match sum {
                Some(sum) => (sum + part)?,
                None => part,
            });
        }
        let Some(sum) = sum else {
            candle_core::bail!("transforms of {} samples do not overlap", self.n_fft)
        };
        let side = (self.n_fft - HOP) / 2;
        let sum = sum.flatten_all()?.narrow(0, side, steps * HOP)?;
        sum / self.squares(steps)?
    }

    /// What the squares of the windows add up to at every sample.
    fn squares(&self, steps: usize) -> Result<Tensor> {
        let side = (self.n_fft - HOP) / 2;
        let mut sums = vec![0f32; steps * HOP + 2 * side];
        for step in 0..steps {
            let places = sums.iter_mut().skip(step * HOP);
            places.zip(&self.window).for_each(|(sum, w)| *sum += w * w);
        }
        let kept = sums.get(side..side + steps * HOP).unwrap_or_default();
        Tensor::from_slice(kept, kept.len(), &Device::Cpu)
    }

    /// How far a spectrum and its sound are from the sound `target (320 steps)`: the mean difference of logarithms of
    /// magnitudes, of the steps themselves and at several resolutions of the whole, and that of magnitudes in parts
    /// of their mean.
    ///
    /// # Errors
    /// When shapes disagree or the device fails.
    pub fn distance(&self, spectrum: &Tensor, target: &Tensor) -> Result<Tensor> {
        let side = (self.n_fft - HOP) / 2;
        let logs = |powers: &Tensor| ((powers + QUIET)?.log()? * 0.5)?.contiguous();
        let right = logs(&self.own.powers(&target.pad_with_zeros(0, side, side)?)?)?;
        let given = spectrum.narrow(1, 0, right.dim(1)?)?;
        // Nothing below what is heard is asked for.
        let floor = 0.5 * QUIET.ln();
        let mut sum = ((given.maximum(floor)? - right)?.abs()?.mean_all()? * 0.5)?;
        let sound = self.sound(spectrum)?;
        for transform in &self.compared {
            let (found, right) = (transform.powers(&sound)?, transform.powers(target)?);
            let far = (logs(&found)? - logs(&right)?)?.abs()?.mean_all()?;
            let right = (right + 1e-7)?.sqrt()?;
            let mean = right.mean_all()?.to_scalar::<f32>()?;
            let parts = ((found + 1e-7)?.sqrt()? - right)?.abs()?.mean_all()?;
            sum = ((sum + far)? + (parts / f64::from(mean.max(1e-4)))?)?;
        }
        Ok(sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tone(len: usize) -> Tensor {
        let wave = |i: usize| 0.4 * (i as f32 * 0.07).sin() + 0.2 * (i as f32 * 0.31).cos();
        let values: Vec<f32> = (0..len).map(wave).collect();
        Tensor::from_vec(values, len, &Device::Cpu).unwrap()
    }

    /// The spectrum of a sound, as a detokenizer would give it.
    fn spectrum(waves: &Waves, sound: &Tensor) -> Tensor {
        let side = (waves.n_fft - HOP) / 2;
        let padded = sound.pad_with_zeros(0, side, side).unwrap();
        let blocks = waves.n_fft / HOP;
        let steps = sound.dim(0).unwrap() / HOP;
        let rows = padded.reshape((steps + blocks - 1, HOP)).unwrap();
        let parts: Vec<Tensor> = (0..blocks)
            .map(|b| rows.narrow(0, b, steps).unwrap())
            .collect();
        let steps = Tensor::cat(&parts, 1).unwrap();
        let real: Vec<Vec<f32>> = steps.matmul(&waves.own.real).unwrap().to_vec2().unwrap();
        let imaginary: Vec<Vec<f32>> = steps
            .matmul(&waves.own.imaginary)
            .unwrap()
            .to_vec2()
            .unwrap();
        let mut values = Vec::new();
        for (real, imaginary) in real.iter().zip(&imaginary) {
            let pairs = || real.iter().zip(imaginary);
            values.extend(pairs().map(|(r, i)| (r.hypot(*i) + 1e-9).ln()));
            values.extend(pairs().map(|(r, i)| i.atan2(*r)));
        }
        Tensor::from_vec(values, (real.len(), 2 * real[0].len()), &Device::Cpu).unwrap()
    }

    #[test]
    fn a_spectrum_gives_the_sound_it_is_of_and_is_at_no_distance() {
        let waves = Waves::new(1282).unwrap();
        let sound = tone(12 * HOP);
        let spectrum = spectrum(&waves, &sound);
        let found: Vec<f32> = waves.sound(&spectrum).unwrap().to_vec1().unwrap();
        let expected: Vec<f32> = sound.to_vec1().unwrap();
        for (i, (a, b)) in found.iter().zip(&expected).enumerate() {
            assert!((a - b).abs() < 1e-4, "{i}: {a} {b}");
        }
        let distance = |spectrum: &Tensor| {
            let distance = waves.distance(spectrum, &sound).unwrap();
            distance.to_scalar::<f32>().unwrap()
        };
        let none = distance(&spectrum);
        assert!(none < 0.02, "{none}");
        let louder = distance(&(spectrum + 0.1).unwrap());
        assert!(louder > 0.05, "{louder}");
    }
}
