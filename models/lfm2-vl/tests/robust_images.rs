//! Files that are no pictures, or not whole, or too large, or of another kind than most.
#![cfg(feature = "images")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod support;

use std::io::Cursor;

use image::codecs::gif::GifEncoder;
use image::codecs::png::PngEncoder;
use image::{
    DynamicImage, ExtendedColorType, Frame, ImageEncoder, ImageFormat, RgbImage, RgbaImage,
};
use lfm2_hub::{Error, ErrorKind, Result};
use lfm2_vl::{DecodeOptions, ImageLimits, ImageProcessor, ImageSettings, Picture};
use proptest::prelude::*;

fn decode(bytes: &[u8]) -> Result<Picture> {
    Picture::decode(bytes, &DecodeOptions::default())
}

fn kind(bytes: &[u8]) -> ErrorKind {
    decode(bytes)
        .map(|picture| panic!("{picture:?}"))
        .unwrap_err()
        .kind()
}

/// A picture in which every pixel differs.
fn colours(width: u32, height: u32) -> DynamicImage {
    let colour = |x, y| image::Rgb([(x * 7) as u8, (y * 11) as u8, (x * y) as u8]);
    RgbImage::from_fn(width, height, colour).into()
}

fn encoded(image: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

/// A chunk of a PNG file.
fn chunk(name: &[u8; 4], data: &[u8]) -> Vec<u8> {
    let mut crc = !0_u32;
    for byte in name.iter().chain(data) {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg());
        }
    }
    let len = (data.len() as u32).to_be_bytes();
    [&len[..], name, data, &(!crc).to_be_bytes()].concat()
}

/// Every format that is read.
const FORMATS: [ImageFormat; 5] = [
    ImageFormat::Png,
    ImageFormat::Jpeg,
    ImageFormat::WebP,
    ImageFormat::Gif,
    ImageFormat::Bmp,
];

const PNG: &[u8] = b"\x89PNG\r\n\x1a\n";

/// A PNG file that says it has these sides.
fn png_header(width: u32, height: u32) -> Vec<u8> {
    let sides = [width.to_be_bytes(), height.to_be_bytes()].concat();
    let header = chunk(b"IHDR", &[&sides[..], &[8, 2, 0, 0, 0]].concat());
    [
        PNG,
        &header,
        &chunk(b"IDAT", &[0x78, 0x9c]),
        &chunk(b"IEND", &[]),
    ]
    .concat()
}

#[test]
fn im_01_what_is_no_picture_is_refused_without_its_content() {
    let random: Vec<u8> = (0..4096_u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    let cases: [&[u8]; 5] = [
        b"",
        b"\x89",
        &random,
        b"this is a secret text called picture.png",
        b"<!DOCTYPE html><html><body>secret: not found</body></html>",
    ];
    for bytes in cases {
        let error = decode(bytes).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        assert!(
            error
                .to_string()
                .starts_with("not an image we read (png, jpeg, webp"),
            "{error}"
        );
        assert!(!error.to_string().contains("secret"));
    }
}

#[test]
fn im_02_sizes_are_refused_by_the_header_alone() {
    // Sides, no palette, and the begin of a frame.
    let frame = [0x2c, 0, 0, 0, 0, 1, 0, 1, 0, 0, 2];
    let gif = [b"GIF89a", &[0xff; 4][..], &[0, 0, 0], &frame].concat();
    let cases = [
        png_header(65_535, 65_535),
        png_header(16_385, 1),
        png_header(16_000, 16_000),
        gif,
    ];
    for (case, bytes) in cases.iter().enumerate() {
        let error = decode(bytes).unwrap_err();
        assert!(matches!(error, Error::Limit { .. }), "{case}: {error}");
    }
    let mut small = ImageLimits::default();
    (small.max_side, small.max_pixels, small.max_bytes) = (20, 300, 10_000);
    let small = DecodeOptions::default().with_limits(small);
    for format in FORMATS {
        let fits = Picture::decode(&encoded(&colours(17, 17), format), &small);
        assert_eq!(fits.unwrap().width(), 17, "{format:?}");
        for (width, height) in [(21, 2), (2, 21), (19, 19)] {
            let error = Picture::decode(&encoded(&colours(width, height), format), &small);
            assert!(
                matches!(error, Err(Error::Limit { .. })),
                "{format:?} {error:?}"
            );
        }
    }
    let bytes = vec![0; 10_001];
    assert!(matches!(
        Picture::decode(&bytes, &small),
        Err(Error::Limit { found: 10_001, .. })
    ));
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &bytes).unwrap();
    assert!(matches!(
        Picture::open(file.path(), &small),
        Err(Error::Limit { .. })
    ));
}

#[test]
fn im_02_of_an_animation_the_first_frame_is_read() {
    let mut bytes = Vec::new();
    let mut encoder = GifEncoder::new(&mut bytes);
    for grey in (0..500).map(|i| (i % 256) as u8) {
        let frame = RgbaImage::from_pixel(2, 3, image::Rgba([grey, 0, 255 - grey, 255]));
        encoder.encode_frame(Frame::new(frame)).unwrap();
    }
    drop(encoder);
    let picture = decode(&bytes).unwrap();
    assert_eq!((picture.width(), picture.height()), (2, 3));
    assert!(
        picture
            .pixels()
            .chunks_exact(3)
            .all(|pixel| pixel == [0, 0, 255])
    );
}

#[test]
fn im_03_no_picture_that_ends_too_early_is_shown() {
    for format in FORMATS {
        let whole = encoded(&colours(23, 19), format);
        let expected = decode(&whole).unwrap();
        for len in 0..whole.len() {
            match decode(&whole[..len]) {
                Err(error) => assert_eq!(
                    error.kind(),
                    ErrorKind::InvalidInput,
                    "{format:?} {len}: {error}"
                ),
                // Behind the pixels there may be something that is not needed.
                Ok(picture) => assert_eq!(picture, expected, "{format:?} {len}"),
            }
        }
    }
}

#[test]
fn im_03_checksums_are_checked() {
    let whole = encoded(&colours(23, 19), ImageFormat::Png);
    let data = whole.windows(4).position(|name| name == b"IDAT").unwrap();
    let mut broken = whole.clone();
    broken[data + 20] ^= 1;
    assert_eq!(kind(&broken), ErrorKind::InvalidInput);
    let without_end = &whole[..whole.len() - 12];
    assert_eq!(kind(without_end), ErrorKind::InvalidInput);
}

#[test]
fn im_04_the_thinnest_pictures_become_views() {
    let processor = ImageProcessor::new(ImageSettings::default()).unwrap();
    for (width, height) in [(1, 1), (1, 10_000), (16_384, 1), (9, 7)] {
        let picture = Picture::from_fn(width, height, |x, _| [x as u8, 9, 9]).unwrap();
        let views = processor.process(&picture).unwrap();
        let patches: Vec<usize> = views
            .views()
            .iter()
            .map(|view| view.grid().patches())
            .collect();
        assert!(
            patches.iter().all(|n| (4..=1024).contains(n)),
            "{patches:?}"
        );
        let tokens: usize = patches.iter().map(|n| n / 4).sum();
        assert_eq!(tokens, views.plan().image_tokens());
    }
}

#[test]
fn im_05_every_orientation_is_applied() {
    // A picture of 3 x 2 as it is stored, and what its first row shows after each turn.
    let stored = [10, 20, 30, 40, 50, 60];
    let image = image::GrayImage::from_raw(3, 2, stored.to_vec()).unwrap();
    let expected: [(usize, [u8; 6]); 8] = [
        (3, [10, 20, 30, 40, 50, 60]),
        (3, [30, 20, 10, 60, 50, 40]),
        (3, [60, 50, 40, 30, 20, 10]),
        (3, [40, 50, 60, 10, 20, 30]),
        (2, [10, 40, 20, 50, 30, 60]),
        (2, [40, 10, 50, 20, 60, 30]),
        (2, [60, 30, 50, 20, 40, 10]),
        (2, [30, 60, 20, 50, 10, 40]),
    ];
    for (orientation, (width, pixels)) in (1_u8..).zip(expected) {
        for prefix in [&b""[..], b"Exif\0\0"] {
            let entry = [0x12, 1, 3, 0, 1, 0, 0, 0, orientation, 0, 0, 0];
            let exif = [prefix, b"II*\0\x08\0\0\0\x01\0", &entry, &[0; 4]].concat();
            let mut bytes = Vec::new();
            let mut encoder = PngEncoder::new(&mut bytes);
            encoder.set_exif_metadata(exif).unwrap();
            encoder
                .write_image(image.as_raw(), 3, 2, ExtendedColorType::L8)
                .unwrap();
            let picture = decode(&bytes).unwrap();
            let grey: Vec<u8> = picture.pixels().iter().step_by(3).copied().collect();
            assert_eq!(
                (picture.width(), &grey[..]),
                (width, &pixels[..]),
                "{orientation}"
            );
        }
    }
}

#[test]
fn im_05_kinds_of_pixels_are_told_apart() {
    let rgba = RgbaImage::from_pixel(4, 4, image::Rgba([200, 100, 50, 0]));
    let deep = image::ImageBuffer::from_pixel(4, 4, image::Rgb([0x12_ff_u16, 0x34_00, 0xff_ff]));
    let grey = image::ImageBuffer::from_pixel(4, 4, image::Luma([0x80_ff_u16]));
    let two = image::GrayAlphaImage::from_pixel(4, 4, image::LumaA([77, 3]));
    let cases: [(DynamicImage, [u8; 3]); 4] = [
        (rgba.into(), [200, 100, 50]),
        (deep.into(), [0x12, 0x34, 0xff]),
        (grey.into(), [0x80; 3]),
        (two.into(), [77; 3]),
    ];
    for (image, expected) in cases {
        let picture = decode(&encoded(&image, ImageFormat::Png)).unwrap();
        assert!(
            picture
                .pixels()
                .chunks_exact(3)
                .all(|pixel| pixel == expected),
            "{expected:?}"
        );
    }
    // Grey as JPEG has one channel.
    let grey = image::GrayImage::from_pixel(16, 16, image::Luma([128]));
    let picture = decode(&encoded(&grey.into(), ImageFormat::Jpeg)).unwrap();
    assert!(picture.pixels().iter().all(|&value| value == 128));
}

#[test]
fn im_09_other_formats_are_named_with_those_we_read() {
    let ftyp = |brand: &str| [b"\0\0\0\x20ftyp", brand.as_bytes(), &[0; 20]].concat();
    let cases: [(&str, Vec<u8>); 7] = [
        (
            "svg",
            b"  <svg xmlns='http://www.w3.org/2000/svg'/>".to_vec(),
        ),
        ("svg", b"<?xml version='1.0'?><svg/>".to_vec()),
        ("tiff", b"II*\0\x08\0\0\0".to_vec()),
        ("tiff", b"MM\0*\0\0\0\x08".to_vec()),
        ("avif", ftyp("avif")),
        ("heic", ftyp("heic")),
        ("jpeg xl", b"\xff\x0a\0\0".to_vec()),
    ];
    for (name, bytes) in cases {
        let error = decode(&bytes).unwrap_err();
        assert!(matches!(error, Error::Unsupported { .. }), "{error}");
        assert!(error.to_string().contains(name), "{error}");
        assert!(
            error.to_string().contains("png, jpeg, webp, gif and bmp"),
            "{error}"
        );
    }
    assert_eq!(
        kind(b"<?xml version='1.0'?><Error/>"),
        ErrorKind::InvalidInput
    );
}

/// One change of a file: bytes at a place become others, are doubled, or go.
#[derive(Debug, Clone)]
enum Damage {
    Flip(usize, u8),
    Repeat(usize, usize),
    Cut(usize, usize),
}

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        (any::<usize>(), 1u8..).prop_map(|(at, bits)| Damage::Flip(at, bits)),
        (any::<usize>(), 1usize..40).prop_map(|(at, len)| Damage::Repeat(at, len)),
        (any::<usize>(), 1usize..40).prop_map(|(at, len)| Damage::Cut(at, len)),
    ]
}

fn damaged(mut bytes: Vec<u8>, damages: &[Damage]) -> Vec<u8> {
    for damage in damages {
        let (Damage::Flip(at, _) | Damage::Repeat(at, _) | Damage::Cut(at, _)) = damage;
        let at = at % bytes.len().max(1);
        match damage {
            Damage::Flip(_, bits) => bytes.iter_mut().skip(at).take(1).for_each(|b| *b ^= bits),
            Damage::Repeat(_, len) => {
                let part: Vec<u8> = bytes.iter().skip(at).take(*len).copied().collect();
                bytes.splice(at..at, part);
            }
            Damage::Cut(_, len) => drop(bytes.drain(at..(at + len).min(bytes.len()))),
        }
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn im_03_damaged_files_are_pictures_or_errors(
        format in prop::sample::select(&FORMATS[..]), damages in prop::collection::vec(damage(), 1..6), grey in any::<bool>(),
    ) {
        let image = match grey {
            true => DynamicImage::from(colours(21, 17).to_luma8()),
            false => colours(21, 17),
        };
        // Not every encoder takes grey.
        let mut whole = Cursor::new(Vec::new());
        if image.write_to(&mut whole, format).is_err() {
            whole = Cursor::new(encoded(&colours(21, 17), format));
        }
        let mut limits = ImageLimits::default();
        limits.max_pixels = 1 << 20;
        let options = DecodeOptions::default().with_limits(limits);
        if let Ok(picture) = Picture::decode(&damaged(whole.into_inner(), &damages), &options) {
            prop_assert_eq!(picture.pixels().len(), picture.width() * picture.height() * 3);
        }
    }
}
