//! Animations and folders: which frames are taken, and what is refused.
#![cfg(feature = "images")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::path::Path;
use std::time::Duration;

use image::codecs::gif::GifEncoder;
use image::codecs::webp::WebPEncoder;
use image::{Delay, ExtendedColorType, Frame as Encoded, RgbaImage};
use lfm2_hub::{ErrorKind, Overwrite, Result};
use lfm2_vl::{
    DecodeOptions, FrameOptions, Frames, ImageProcessor, ImageSettings, Picture, contact_sheet,
};

const SIDE: u32 = 24;

/// A square that moves to the right with every frame.
fn canvas(index: u32) -> RgbaImage {
    RgbaImage::from_fn(SIDE, SIDE, |x, _| match x == index % SIDE {
        true => image::Rgba([255, 0, 0, 255]),
        false => image::Rgba([255; 4]),
    })
}

fn gif(frames: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = GifEncoder::new(&mut bytes);
    for index in 0..frames {
        let delay = Delay::from_numer_denom_ms(100, 1);
        let frame = Encoded::from_parts(canvas(index), 0, 0, delay);
        encoder.encode_frame(frame).unwrap();
    }
    drop(encoder);
    bytes
}

fn chunk(name: &[u8; 4], data: &[u8]) -> Vec<u8> {
    let mut bytes = [&name[..], &(data.len() as u32).to_le_bytes(), data].concat();
    bytes.resize(bytes.len().next_multiple_of(2), 0);
    bytes
}

fn three(number: u32) -> [u8; 3] {
    let [a, b, c, _] = number.to_le_bytes();
    [a, b, c]
}

/// An animated WebP, which the encoder does not write: its still pictures in the container's frames.
fn webp(frames: u32) -> Vec<u8> {
    /// The container's flag for animations.
    const ANIMATED: u8 = 2;
    let size = [three(SIDE - 1), three(SIDE - 1)].concat();
    let mut body = chunk(b"VP8X", &[&[ANIMATED, 0, 0, 0], &size[..]].concat());
    body.extend(chunk(b"ANIM", &[255, 255, 255, 255, 0, 0]));
    for index in 0..frames {
        let mut still = Vec::new();
        WebPEncoder::new_lossless(&mut still)
            .encode(&canvas(index), SIDE, SIDE, ExtendedColorType::Rgba8)
            .unwrap();
        let place = [three(0), three(0)].concat();
        // Behind the still file's own header of twelve bytes.
        let frame = [&place[..], &size, &three(100), &[0], &still[12..]].concat();
        body.extend(chunk(b"ANMF", &frame));
    }
    chunk(b"RIFF", &[&b"WEBP"[..], &body].concat())
}

fn decode(bytes: &[u8], most: usize) -> Result<Frames> {
    Frames::decode(bytes, &FrameOptions::default().with_most(most))
}

/// Which column is red.
fn column(picture: &Picture) -> usize {
    let first = picture.pixels()[..SIDE as usize * 3].chunks_exact(3);
    let dark: Vec<usize> = first
        .enumerate()
        .filter(|(_, p)| p[1] < 128)
        .map(|(x, _)| x)
        .collect();
    assert_eq!(dark.len(), 1);
    dark[0]
}

#[test]
fn frames_are_evenly_spread_and_know_their_time() {
    for bytes in [gif(10), webp(10)] {
        let frames = decode(&bytes, 4).unwrap();
        assert_eq!(frames.found, 10);
        let found: Vec<(usize, usize)> = frames
            .taken
            .iter()
            .map(|frame| (frame.index, column(&frame.picture)))
            .collect();
        assert_eq!(found, [(0, 0), (3, 3), (6, 6), (9, 9)]);
        assert_eq!(frames.taken[1].at, Some(Duration::from_millis(300)));
        let one = decode(&bytes, 1).unwrap();
        let first = Picture::decode(&bytes, &DecodeOptions::default()).unwrap();
        assert_eq!((one.taken.len(), &one.taken[0].picture), (1, &first));
    }
}

#[test]
fn a_still_picture_is_one_frame() {
    for bytes in [gif(1), webp(1)] {
        assert_eq!(decode(&bytes, 8).unwrap().found, 1);
    }
    let png = Picture::new(2, 1, vec![1, 2, 3, 4, 5, 6])
        .unwrap()
        .to_png()
        .unwrap();
    let frames = decode(&png, 8).unwrap();
    assert_eq!(
        (frames.found, frames.taken[0].picture.pixels()),
        (1, &[1, 2, 3, 4, 5, 6][..])
    );
}

#[test]
fn a_folder_is_read_in_the_order_of_its_names() {
    let folder = tempfile::tempdir().unwrap();
    for index in [2u8, 10, 1] {
        let picture = Picture::new(1, 1, vec![index; 3]).unwrap();
        let path = folder.path().join(format!("{index}.png"));
        picture.save(&path, Overwrite::Refuse).unwrap();
        assert!(picture.save(&path, Overwrite::Refuse).is_err());
    }
    std::fs::write(folder.path().join("notes.txt"), "no picture").unwrap();
    let open =
        |most| Frames::open(folder.path(), &FrameOptions::default().with_most(most)).unwrap();
    let shown = |frames: Frames| -> Vec<u8> {
        frames
            .taken
            .iter()
            .map(|frame| frame.picture.pixels()[0])
            .collect()
    };
    assert_eq!(shown(open(8)), [1, 2, 10]);
    assert_eq!(shown(open(2)), [1, 10]);
    std::fs::write(folder.path().join("5.png"), "no picture either").unwrap();
    let error = Frames::open(folder.path(), &FrameOptions::default()).unwrap_err();
    assert!(error.to_string().contains("5.png"), "{error}");
    let none = Frames::open(Path::new("nowhere"), &FrameOptions::default()).unwrap_err();
    assert_eq!(none.kind(), ErrorKind::NotFound);
}

#[test]
fn im_02_animations_have_limits() {
    let bytes = gif(12);
    let refused = |change: fn(&mut FrameOptions)| {
        let mut options = FrameOptions::default().with_most(8);
        change(&mut options);
        let error = Frames::decode(&bytes, &options).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Limit, "{error}");
    };
    refused(|options| options.max_found = 11);
    refused(|options| options.max_decoded = 11 * 24 * 24);
    refused(|options| options.max_pixels = 7 * 24 * 24);
    refused(|options| options.decode.limits.max_side = 23);
    refused(|options| options.decode.limits.max_pixels = 24 * 24 - 1);
    refused(|options| options.decode.limits.max_bytes = 10);
    let mut tight = FrameOptions::default().with_most(8);
    (tight.max_found, tight.max_decoded, tight.max_pixels) = (12, 12 * 24 * 24, 8 * 24 * 24);
    let taken = |options: &FrameOptions| Frames::decode(&bytes, options).unwrap().taken.len();
    assert_eq!(taken(&tight), 6);
    tight.max_pixels *= 2;
    assert_eq!(taken(&tight), 8);
}

#[test]
fn im_03_an_animation_that_ends_too_early_is_refused() {
    for bytes in [gif(6), webp(6)] {
        for part in 1..20 {
            let cut = bytes.len() * part / 20;
            match decode(&bytes[..cut], 8) {
                // A GIF has no mark that says how many frames there should be.
                Ok(frames) => assert!(frames.taken.iter().all(|f| f.picture.width() == 24)),
                Err(error) => assert_ne!(error.kind(), ErrorKind::Internal),
            }
        }
        let mut damaged = bytes.clone();
        for at in (13..bytes.len()).step_by(11) {
            damaged[at] ^= 0x55;
            // A picture or an error, and no panic.
            let _ = decode(&damaged, 3);
        }
    }
    assert_eq!(decode(b"", 1).unwrap_err().kind(), ErrorKind::InvalidInput);
}

#[test]
fn what_did_not_change_is_the_same_view() {
    let frames = decode(&gif(3), 8).unwrap();
    let again = decode(&gif(3), 8).unwrap();
    let processor = ImageProcessor::new(ImageSettings::default()).unwrap();
    let key = |frames: &Frames, index: usize| {
        let views = processor.process(&frames.taken[index].picture).unwrap();
        contact_sheet(&views).unwrap();
        views.views()[0].key()
    };
    assert_eq!(key(&frames, 1), key(&again, 1));
    assert_ne!(key(&frames, 1), key(&frames, 2));
}
