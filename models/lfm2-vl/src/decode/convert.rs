//! From what decoders give to three channels of 8 bits.

use image::DynamicImage;
use lfm2_hub::{Error, Result};

use super::Alpha;
use crate::picture::Picture;

/// The pixels of `image`, without their alpha.
///
/// # Errors
/// [`Error::Unsupported`] for pictures in floats.
pub(super) fn to_picture(image: &DynamicImage, alpha: Alpha) -> Result<Picture> {
    let pixels = match image {
        DynamicImage::ImageRgb8(rgb) => rgb.as_raw().clone(),
        DynamicImage::ImageRgba8(rgba) => colour(rgba.as_raw().chunks_exact(4), alpha),
        DynamicImage::ImageLuma8(grey) => grey.as_raw().iter().flat_map(|&v| [v; 3]).collect(),
        DynamicImage::ImageLumaA8(grey) => {
            let pixels = grey.as_raw().chunks_exact(2);
            opaque(pixels.map(|p| ([p[0]; 3], p[1])), alpha)
        }
        DynamicImage::ImageRgb16(rgb) => rgb.as_raw().iter().map(|&v| high(v)).collect(),
        DynamicImage::ImageRgba16(rgba) => {
            let bytes: Vec<u8> = rgba.as_raw().iter().map(|&v| high(v)).collect();
            colour(bytes.chunks_exact(4), alpha)
        }
        DynamicImage::ImageLuma16(grey) => {
            grey.as_raw().iter().flat_map(|&v| [high(v); 3]).collect()
        }
        DynamicImage::ImageLumaA16(grey) => {
            let pixels = grey.as_raw().chunks_exact(2);
            opaque(pixels.map(|p| ([high(p[0]); 3], high(p[1]))), alpha)
        }
        other => {
            return Err(Error::Unsupported {
                what: format!("a picture of {:?}", other.color()),
                hint: "grey and colours of 8 or 16 bits are".to_owned(),
            });
        }
    };
    Picture::new(image.width() as usize, image.height() as usize, pixels)
}

fn high(value: u16) -> u8 {
    value.to_be_bytes()[0]
}

fn colour<'a>(pixels: impl Iterator<Item = &'a [u8]>, alpha: Alpha) -> Vec<u8> {
    opaque(pixels.map(|p| ([p[0], p[1], p[2]], p[3])), alpha)
}

fn opaque(pixels: impl Iterator<Item = ([u8; 3], u8)>, alpha: Alpha) -> Vec<u8> {
    match alpha {
        Alpha::Drop => pixels.flat_map(|(colour, _)| colour).collect(),
        Alpha::Over(ground) => pixels
            .flat_map(|(colour, alpha)| {
                std::array::from_fn::<u8, 3, _>(|c| blend(colour[c], ground[c], alpha))
            })
            .collect(),
    }
}

/// `colour` over `ground`, rounded to the nearest.
fn blend(colour: u8, ground: u8, alpha: u8) -> u8 {
    let alpha = u32::from(alpha);
    let sum = u32::from(colour) * alpha + u32::from(ground) * (255 - alpha);
    ((sum + 127) / 255) as u8
}

#[cfg(test)]
mod tests {
    use image::{GrayAlphaImage, ImageBuffer, Luma, Rgb, Rgba, RgbaImage};

    use super::*;

    fn pixels(image: impl Into<DynamicImage>, alpha: Alpha) -> Vec<u8> {
        to_picture(&image.into(), alpha).unwrap().pixels().to_vec()
    }

    #[test]
    fn alpha_is_dropped_or_blended() {
        let image = RgbaImage::from_raw(2, 1, vec![10, 20, 30, 0, 100, 200, 40, 51]).unwrap();
        assert_eq!(
            pixels(image.clone(), Alpha::Drop),
            [10, 20, 30, 100, 200, 40]
        );
        // A fifth of the colour and four fifths of white.
        assert_eq!(
            pixels(image.clone(), Alpha::WHITE),
            [255, 255, 255, 224, 244, 212]
        );
        assert_eq!(pixels(image, Alpha::BLACK), [0, 0, 0, 20, 40, 8]);
        let grey = GrayAlphaImage::from_raw(1, 1, vec![9, 0]).unwrap();
        assert_eq!(pixels(grey, Alpha::Drop), [9, 9, 9]);
    }

    #[test]
    fn of_16_bits_the_higher_8_are_kept() {
        let grey = ImageBuffer::from_pixel(1, 1, Luma([0xab_ff_u16]));
        assert_eq!(pixels(grey, Alpha::Drop), [0xab; 3]);
        let rgb = ImageBuffer::from_pixel(1, 1, Rgb([0x01_80_u16, 0xff_00, 0x00_ff]));
        assert_eq!(pixels(rgb, Alpha::Drop), [1, 255, 0]);
        let rgba = ImageBuffer::from_pixel(1, 1, Rgba([0x80_00_u16, 0, 0, 0xff_ff]));
        assert_eq!(pixels(rgba, Alpha::WHITE), [128, 0, 0]);
    }

    #[test]
    fn floats_are_refused() {
        let image = DynamicImage::new_rgb32f(1, 1);
        let error = to_picture(&image, Alpha::Drop).unwrap_err();
        assert!(matches!(error, Error::Unsupported { .. }), "{error}");
    }
}
