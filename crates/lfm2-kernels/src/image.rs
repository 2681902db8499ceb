//! Convolutions of 3 x 3 and stride 2 over images, as at the front of speech encoders.

use crate::element::load_head;
use crate::simd::{Kernel, Simd};
use crate::threads::for_each_chunk;
use crate::{Isa, ShapeError};

/// Values of a 3 x 3 kernel.
const TAPS: usize = 9;

/// An image `(rows, bins, channels)`, or a part of one. There is a column of zeros before its first bin and, where
/// the convolution needs it, behind the last.
#[derive(Debug, Clone, Copy)]
pub struct Image<'a> {
    values: &'a [f32],
    rows: usize,
    bins: usize,
    channels: usize,
    before: usize,
    after: usize,
}

impl<'a> Image<'a> {
    /// An image of these sizes with rows of zeros before and after it.
    ///
    /// # Errors
    /// When `values` is not as long as the sizes say, or there is no row of three.
    pub fn new(
        values: &'a [f32],
        [rows, bins, channels]: [usize; 3],
        [before, after]: [usize; 2],
    ) -> Result<Self, ShapeError> {
        let expected = ShapeError::product("image", &[rows, bins, channels])?;
        ShapeError::check("values of an image", expected, values.len())?;
        if before + rows + after == 0 {
            return Err(ShapeError::Zero {
                what: "rows of an image",
            });
        }
        Ok(Self {
            values,
            rows,
            bins,
            channels,
            before,
            after,
        })
    }

    /// Rows and bins of the result.
    pub fn halved(&self) -> [usize; 2] {
        let rows = (self.before + self.rows + self.after - 1) / 2;
        [rows, self.bins.div_ceil(2)]
    }

    /// Where each value of the kernel meets the image for an output; `None` in its border.
    #[inline(always)]
    fn places(&self, row: usize, bin: usize) -> [Option<usize>; TAPS] {
        std::array::from_fn(|tap| {
            // Those before the first row or bin wrap around, beyond the last.
            let y = (2 * row + tap / 3).wrapping_sub(self.before);
            let x = (2 * bin + tap % 3).wrapping_sub(1);
            (y < self.rows && x < self.bins).then(|| (y * self.bins + x) * self.channels)
        })
    }
}

/// What follows a convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behind {
    /// Nothing.
    Nothing,
    /// Negative results become 0.
    Relu,
}

/// Every channel of `image` with its own kernel, or its only channel with a kernel for every output: `kernel
/// (9, width)` row by row, `bias (width)`, to `out (rows, bins, width)` of [`Image::halved`].
///
/// # Errors
/// When sizes disagree: the image has one channel or `width`.
pub fn conv_3x3_by_two(
    isa: Isa,
    image: Image<'_>,
    (kernel, bias): (&[f32], &[f32]),
    behind: Behind,
    out: &mut [f32],
) -> Result<(), ShapeError> {
    let width = bias.len();
    ShapeError::check("values of a 3 x 3 kernel", TAPS * width, kernel.len())?;
    if image.channels != 1 {
        ShapeError::check("channels of an image", width, image.channels)?;
    }
    let [rows, bins] = image.halved();
    ShapeError::check("values of a halved image", rows * bins * width, out.len())?;
    if out.is_empty() {
        return Ok(());
    }
    let work = TAPS * out.len();
    for_each_chunk(out, bins * width, work, |row, out| {
        isa.run(Row {
            image,
            row,
            kernel,
            bias,
            behind,
            out,
        });
    });
    Ok(())
}

/// A row of the result.
struct Row<'a> {
    image: Image<'a>,
    row: usize,
    kernel: &'a [f32],
    bias: &'a [f32],
    behind: Behind,
    out: &'a mut [f32],
}

impl Kernel for Row<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let width = self.bias.len();
        let one = self.image.channels == 1;
        for (bin, out) in self.out.chunks_exact_mut(width).enumerate() {
            let places = self.image.places(self.row, bin);
            for (start, out) in (0..).step_by(S::LANES).zip(out.chunks_mut(S::LANES)) {
                let head = start..start + out.len();
                let mut sum = load_head(s, &self.bias[head.clone()]);
                for (place, weights) in places.iter().zip(self.kernel.chunks_exact(width)) {
                    let Some(place) = *place else { continue };
                    let value = match one {
                        true => s.splat(self.image.values[place]),
                        false => load_head(s, &self.image.values[place + start..][..out.len()]),
                    };
                    sum = s.mul_add(load_head(s, &weights[head.clone()]), value, sum);
                }
                if self.behind == Behind::Relu {
                    // In this order a NaN stays.
                    sum = s.max(s.zero(), sum);
                }
                s.store_head(out, sum);
            }
        }
    }
}
