//! Subsampling by eight: three convolutions of stride 2 over time and mel bins, two of them separable.
//!
//! Images are `(time, bins, channels)`, so that the products over channels are plain matrices. Long
//! clips go through in pieces with the rows they share computed twice: the whole image of a
//! half-hour clip would take gigabytes.

use std::ops::Range;

use candle_core::Result;
use lfm2_kernels::{Behind, Image, conv_3x3_by_two};
use lfm2_nn::{Bias, Linear, Module, Tensor, Weights};

use super::pointwise::plain;
use crate::EncoderConfig;

/// Output steps computed at a time.
const PIECE: usize = 64;
/// Values of a 3 x 3 kernel.
const TAPS: usize = 9;

/// The first part of the encoder.
#[derive(Debug, Clone)]
pub(super) struct Subsampling {
    first: Conv,
    separable: [Separable; 2],
    out: Linear,
}

/// A depthwise convolution followed by a product over channels.
#[derive(Debug, Clone)]
struct Separable {
    depthwise: Conv,
    pointwise: Linear,
}

/// A 3 x 3 convolution of stride 2 whose outputs see one channel each.
#[derive(Debug, Clone)]
struct Conv {
    /// `(channels, TAPS)`.
    kernel: Tensor,
    bias: Tensor,
}

impl Subsampling {
    pub(super) fn load(config: &EncoderConfig, weights: &Weights) -> lfm2_hub::Result<Self> {
        let channels = config.channels;
        let conv = |i: usize| weights.pp("conv").pp(i);
        let separable = |depthwise: usize| -> lfm2_hub::Result<Separable> {
            Ok(Separable {
                depthwise: Conv::load(&conv(depthwise), channels)?,
                pointwise: conv(depthwise + 1).linear(channels, channels, Bias::With)?,
            })
        };
        let bins = (0..3).fold(config.features, |bins, _| bins.div_ceil(2));
        Ok(Self {
            first: Conv::load(&conv(0), channels)?,
            separable: [separable(2)?, separable(5)?],
            out: weights
                .pp("out")
                .linear(channels * bins, config.width, Bias::With)?,
        })
    }

    /// `(frames, features)` to `(steps, width)`.
    pub(super) fn forward(&self, mel: &Tensor) -> Result<Tensor> {
        let frames = mel.dim(0)?;
        let steps = super::Encoder::steps(frames);
        let mut pieces = Vec::with_capacity(steps.div_ceil(PIECE));
        for start in (0..steps).step_by(PIECE) {
            pieces.push(self.piece(mel, start..(start + PIECE).min(steps))?);
        }
        match &pieces[..] {
            [whole] => Ok(whole.clone()),
            _ => Tensor::cat(&pieces, 0),
        }
    }

    /// The output steps `steps`.
    fn piece(&self, mel: &Tensor, steps: Range<usize>) -> Result<Tensor> {
        let frames = mel.dim(0)?;
        let lens = [frames, frames.div_ceil(2), frames.div_ceil(4)];
        let third = Rows::behind(&steps, lens[2]);
        let second = Rows::behind(&third.range, lens[1]);
        let first = Rows::behind(&second.range, lens[0]);

        let x = mel.narrow(0, first.range.start, first.range.len())?;
        let mut x = self.first.forward(&x.unsqueeze(2)?, &first, Behind::Relu)?;
        for (separable, rows) in self.separable.iter().zip([second, third]) {
            x = separable.forward(&x, &rows)?;
        }
        // A step is flattened channel by channel.
        let x = x.transpose(1, 2)?.contiguous()?.flatten_from(1)?;
        self.out.forward(&x)
    }
}

impl Separable {
    fn forward(&self, x: &Tensor, rows: &Rows) -> Result<Tensor> {
        let x = self.depthwise.forward(x, rows, Behind::Nothing)?;
        let (rows, bins, channels) = x.dims3()?;
        self.pointwise
            .forward(&x.reshape((rows * bins, channels))?)?
            .relu()?
            .reshape((rows, bins, channels))
    }
}

impl Conv {
    /// The kernel `[channels, 1, 3, 3]` and the bias.
    fn load(weights: &Weights, channels: usize) -> lfm2_hub::Result<Self> {
        let kernel = weights.tensor("weight", &[channels, 1, 3, 3])?;
        Ok(Self {
            kernel: kernel.reshape((channels, TAPS))?,
            bias: weights.tensor("bias", &[channels])?,
        })
    }

    /// An image `(rows, bins, channels)`, or one of a single channel that all outputs see.
    fn forward(&self, x: &Tensor, rows: &Rows, behind: Behind) -> Result<Tensor> {
        if plain(&[x, &self.kernel, &self.bias]) {
            return self.on_values(x, rows, behind);
        }
        let x = self.with_candle(x, rows)?;
        match behind {
            Behind::Nothing => Ok(x),
            Behind::Relu => x.relu(),
        }
    }

    /// Nine shifted products: for every device, with gradients.
    fn with_candle(&self, x: &Tensor, rows: &Rows) -> Result<Tensor> {
        let kernel = self.kernel.t()?.contiguous()?;
        let taps = taps(x, rows)?;
        let mut products = taps.iter().enumerate();
        let product = |(i, tap): (usize, &Tensor)| tap.broadcast_mul(&kernel.get(i)?);
        let first = products.next().map(product).transpose()?;
        let Some(mut sum) = first else {
            candle_core::bail!("a kernel without values")
        };
        for tap in products {
            sum = (sum + product(tap)?)?;
        }
        sum.broadcast_add(&self.bias)
    }

    /// The same with a kernel, which takes a tenth of the time.
    fn on_values(&self, x: &Tensor, rows: &Rows, behind: Behind) -> Result<Tensor> {
        let shape = x.dims3()?.into();
        let x = x.contiguous()?;
        // Not copied: the image behind the first convolution has megabytes.
        let (storage, layout) = x.storage_and_layout();
        let candle_core::Storage::Cpu(storage) = &*storage else {
            candle_core::bail!("an image on a CPU expected")
        };
        let values = storage.as_slice::<f32>()?;
        let values = values.get(layout.start_offset()..).unwrap_or_default();
        let values = values.get(..layout.shape().elem_count());
        let image = Image::new(values.unwrap_or_default(), shape, rows.border);
        let image = image.map_err(candle_core::Error::wrap)?;
        let kernel = self.kernel.t()?.flatten_all()?.to_vec1::<f32>()?;
        let bias = self.bias.to_vec1::<f32>()?;
        let [out_rows, out_bins] = image.halved();
        let mut out = vec![0.0; out_rows * out_bins * bias.len()];
        conv_3x3_by_two(crate::isa()?, image, (&kernel, &bias), behind, &mut out)
            .map_err(candle_core::Error::wrap)?;
        Tensor::from_vec(out, (out_rows, out_bins, bias.len()), x.device())
    }
}

/// The rows of an image that some rows of the next one come from.
struct Rows {
    range: Range<usize>,
    /// Rows of zeros before and after them: the borders of the image.
    border: [usize; 2],
}

impl Rows {
    /// What the rows `out` need of an image of `len` rows.
    fn behind(out: &Range<usize>, len: usize) -> Self {
        let (start, end) = (2 * out.start, 2 * out.end);
        Self {
            range: start.saturating_sub(1)..end.min(len),
            border: [usize::from(start == 0), end.saturating_sub(len)],
        }
    }
}

/// What each value of a 3 x 3 kernel of stride 2 meets, `(rows, bins, channels)` each.
fn taps(x: &Tensor, rows: &Rows) -> Result<Vec<Tensor>> {
    let (len, bins, channels) = x.dims3()?;
    let out_bins = bins.div_ceil(2);
    let [before, after] = rows.border;
    // Even numbers of rows and bins, so that a step of two is a dimension.
    let x =
        x.pad_with_zeros(0, before, after + 1)?
            .pad_with_zeros(1, 1, 2 * out_bins + 1 - bins)?;
    let out_rows = (before + len + after - 1) / 2;
    let pairs = x
        .contiguous()?
        .reshape((out_rows + 1, 2, out_bins + 1, 2, channels))?;
    let tap = |i: usize| -> Result<Tensor> {
        let (dy, dx) = (i / 3, i % 3);
        pairs
            .narrow(0, dy / 2, out_rows)?
            .narrow(1, dy % 2, 1)?
            .narrow(2, dx / 2, out_bins)?
            .narrow(3, dx % 2, 1)?
            .squeeze(3)?
            .squeeze(1)?
            .contiguous()
    };
    (0..TAPS).map(tap).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use lfm2_nn::Device;

    #[test]
    fn both_forms_give_the_same() -> Result<()> {
        let random = |shape: &[usize]| Tensor::randn(0f32, 1., shape, &Device::Cpu);
        let conv = Conv {
            kernel: random(&[5, TAPS])?,
            bias: random(&[5])?,
        };
        // Whole images of odd and even sizes, and pieces from within one.
        for (len, bins, out, all) in [(7, 6, 0..4, 7), (6, 5, 0..3, 6), (9, 4, 2..6, 12)] {
            for channels in [1, 5] {
                let rows = Rows::behind(&out, all);
                let x = random(&[rows.range.len(), bins, channels])?;
                assert!(rows.range.len() <= len);
                let plain = conv.with_candle(&x, &rows)?.relu()?;
                let values = conv.on_values(&x, &rows, Behind::Relu)?;
                assert_eq!(plain.dims(), values.dims());
                let difference = (plain - values)?.abs()?.max_all()?.to_scalar::<f32>()?;
                assert!(difference < 1e-5, "{difference}");
            }
        }
        Ok(())
    }

    #[test]
    fn rows_know_the_borders_of_their_image() {
        let rows = Rows::behind(&(0..3), 6);
        assert_eq!((rows.range, rows.border), (0..6, [1, 0]));
        let rows = Rows::behind(&(2..4), 7);
        assert_eq!((rows.range, rows.border), (3..7, [0, 1]));
        let rows = Rows::behind(&(0..1), 1);
        assert_eq!((rows.range, rows.border), (0..1, [1, 1]));
    }
}
