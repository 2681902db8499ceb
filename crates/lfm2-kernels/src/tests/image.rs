//! Convolutions over images.

use proptest::prelude::*;

use super::{Random, assert_near, config, isas, most};
use crate::{Behind, Image, Isa, conv_3x3_by_two};

/// Value by value, with the zeros of the border written out.
fn naive(
    image: &[f32],
    [rows, bins, channels]: [usize; 3],
    [before, after]: [usize; 2],
    (kernel, bias): (&[f32], &[f32]),
) -> Vec<f64> {
    let width = bias.len();
    let at = |y: isize, x: isize, channel: usize| {
        let inside = (0..rows as isize).contains(&y) && (0..bins as isize).contains(&x);
        match inside {
            true => f64::from(image[(y as usize * bins + x as usize) * channels + channel]),
            false => 0.0,
        }
    };
    let mut out = Vec::new();
    for row in 0..(before + rows + after - 1) / 2 {
        for bin in 0..bins.div_ceil(2) {
            for (channel, bias) in bias.iter().enumerate() {
                let taps = (0..9_usize).map(|tap| {
                    let y = (2 * row + tap / 3) as isize - before as isize;
                    let x = (2 * bin + tap % 3) as isize - 1;
                    let own = if channels == 1 { 0 } else { channel };
                    at(y, x, own) * f64::from(kernel[tap * width + channel])
                });
                out.push(f64::from(*bias) + taps.sum::<f64>());
            }
        }
    }
    out
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn convolutions_match_the_naive_one(
        rows in 1..=most(9, 3), bins in 1..=most(7, 3), width in 1..=most(40, 18), one: bool,
        before in 0..2_usize, after in 0..2_usize, seed: u64,
    ) {
        let channels = if one { 1 } else { width };
        let mut random = Random(seed);
        let image = random.values(rows * bins * channels, 0);
        let (kernel, bias) = (random.values(9 * width, 0), random.values(width, 0));
        let (shape, border) = ([rows, bins, channels], [before, after]);
        let expected = naive(&image, shape, border, (&kernel, &bias));
        let image = Image::new(&image, shape, border).unwrap();
        prop_assert_eq!(image.halved().iter().product::<usize>() * width, expected.len());
        for isa in isas() {
            for behind in [Behind::Nothing, Behind::Relu] {
                let mut out = vec![f32::NAN; expected.len()];
                conv_3x3_by_two(isa, image, (&kernel, &bias), behind, &mut out).unwrap();
                let expected: Vec<f64> = expected
                    .iter()
                    .map(|v| if behind == Behind::Relu { v.max(0.0) } else { *v })
                    .collect();
                assert_near(&out, &expected, 1e-5, &format!("{isa} {rows}x{bins}x{channels}"));
            }
        }
    }
}

#[test]
fn a_value_that_is_no_number_stays_one() {
    let image = Image::new(&[f32::NAN], [1, 1, 1], [1, 1]).unwrap();
    let mut out = [0.0];
    let kernel = ([1.0; 9], [0.0]);
    conv_3x3_by_two(
        Isa::best(),
        image,
        (&kernel.0, &kernel.1),
        Behind::Relu,
        &mut out,
    )
    .unwrap();
    assert!(out[0].is_nan());
}

#[test]
fn wrong_sizes_are_errors() {
    let isa = Isa::best();
    assert!(Image::new(&[0.0; 5], [2, 3, 1], [1, 0]).is_err());
    assert!(Image::new(&[], [0, 3, 1], [0, 0]).is_err());
    assert!(Image::new(&[], [usize::MAX, 2, 1], [0, 0]).is_err());
    let image = Image::new(&[0.0; 12], [2, 3, 2], [1, 0]).unwrap();
    let attempt = |kernel: usize, bias: usize, out: usize| {
        let (kernel, bias) = (vec![0.0; kernel], vec![0.0; bias]);
        let out = &mut vec![0.0; out];
        conv_3x3_by_two(isa, image, (&kernel, &bias), Behind::Nothing, out)
    };
    assert!(attempt(18, 2, 4).is_ok());
    assert!(attempt(17, 2, 4).is_err() && attempt(27, 3, 6).is_err() && attempt(18, 2, 5).is_err());
}
