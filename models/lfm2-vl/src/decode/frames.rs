//! [`Frames`]: the pictures of an animation or a folder, as many as are wanted, evenly spread.

use std::cmp::Ordering;
use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::time::Duration;

use image::codecs::gif::GifDecoder;
use image::codecs::webp::WebPDecoder;
use image::metadata::Orientation;
use image::{AnimationDecoder, DynamicImage, ImageDecoder, ImageFormat};
use lfm2_hub::{Error, Result};

use super::{
    DecodeOptions, check, check_sides, convert, damaged, in_file, memory, orientation, read,
};
use crate::picture::Picture;

/// How the files of pictures end.
const EXTENSIONS: [&str; 6] = ["png", "jpg", "jpeg", "webp", "gif", "bmp"];

/// So many times as many frames as are wanted are kept while their number is not known.
const SPARE: usize = 4;

/// Which frames are wanted, and how much their source may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct FrameOptions {
    /// How each picture is read.
    pub decode: DecodeOptions,
    /// Frames that are wanted; of more, as many are taken, evenly spread from the first on.
    pub most: usize,
    /// Frames that a source may have.
    pub max_found: usize,
    /// Pixels of the frames in memory. Of an animation, whose length shows at its end, this takes twice as
    /// many as are wanted; where there is no room for that, down to half as many are taken.
    pub max_pixels: u64,
    /// Pixels of all frames that have to be decoded to find them.
    pub max_decoded: u64,
}

impl Default for FrameOptions {
    fn default() -> Self {
        Self {
            decode: DecodeOptions::default(),
            most: 8,
            max_found: 10_000,
            max_pixels: 100_000_000,
            max_decoded: 4_000_000_000,
        }
    }
}

impl FrameOptions {
    /// Takes up to `most` frames; 0 counts as 1.
    pub fn with_most(mut self, most: usize) -> Self {
        self.most = most.max(1);
        self
    }

    /// Reads each picture like this.
    pub fn with_decode(mut self, decode: DecodeOptions) -> Self {
        self.decode = decode;
        self
    }
}

/// One picture of several that follow each other.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Frame {
    /// What it shows.
    pub picture: Picture,
    /// Which of all it is, from 0.
    pub index: usize,
    /// When it is shown, where that is known.
    pub at: Option<Duration>,
    /// The file, in a folder of such.
    pub path: Option<PathBuf>,
}

/// Pictures that follow each other.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Frames {
    /// Those that were taken, at least one, in order.
    pub taken: Vec<Frame>,
    /// How many there are.
    pub found: usize,
}

impl Frames {
    /// Reads the frames at `path`: the pictures in a folder by their names, where 2 comes before 10; the
    /// frames of a GIF or WebP animation; or any other picture, which is one frame.
    ///
    /// # Errors
    /// As [`Picture::decode`]; [`Error::NotFound`] for a folder without pictures, [`Error::Limit`] for
    /// more or larger frames than `options` allow.
    pub fn open(path: impl AsRef<Path>, options: &FrameOptions) -> Result<Self> {
        let path = path.as_ref();
        match path.is_dir() {
            true => Self::of_folder(path, options),
            false => Self::decode(&read(path, &options.decode.limits)?, options)
                .map_err(|error| in_file(error, path)),
        }
    }

    /// The frames in a file.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn decode(bytes: &[u8], options: &FrameOptions) -> Result<Self> {
        let limits = &options.decode.limits;
        check(
            "bytes of a picture file",
            bytes.len() as u64,
            limits.max_bytes,
        )?;
        match super::format(bytes)? {
            ImageFormat::Gif => {
                let decoder = GifDecoder::new(Cursor::new(bytes)).map_err(|e| damaged(&e))?;
                Self::of_animation(decoder, options)
            }
            ImageFormat::WebP => {
                let decoder = WebPDecoder::new(Cursor::new(bytes)).map_err(|e| damaged(&e))?;
                match decoder.has_animation() {
                    true => Self::of_animation(decoder, options),
                    false => Self::of_picture(bytes, options),
                }
            }
            _ => Self::of_picture(bytes, options),
        }
    }

    fn of_picture(bytes: &[u8], options: &FrameOptions) -> Result<Self> {
        let picture = Picture::decode(bytes, &options.decode)?;
        let taken = vec![Frame {
            picture,
            index: 0,
            at: None,
            path: None,
        }];
        Ok(Self { taken, found: 1 })
    }

    fn of_animation<'a>(
        mut decoder: impl ImageDecoder + AnimationDecoder<'a>,
        options: &FrameOptions,
    ) -> Result<Self> {
        let limits = &options.decode.limits;
        decoder
            .set_limits(memory(limits))
            .map_err(|error| damaged(&error))?;
        let (width, height) = decoder.dimensions();
        check_sides(width, height, limits)?;
        let pixels = u64::from(width) * u64::from(height);
        let turned = orientation(&mut decoder);
        let mut thinned = Thinned::new(options, pixels);
        let mut at = Duration::ZERO;
        for (index, frame) in decoder.into_frames().enumerate() {
            let found = index as u64 + 1;
            check("frames of an animation", found, options.max_found as u64)?;
            let decoded = found.saturating_mul(pixels);
            check("pixels of an animation", decoded, options.max_decoded)?;
            let frame = frame.map_err(|error| damaged(&error))?;
            let delay = Duration::from(frame.delay());
            if thinned.wants(index) {
                let picture = picture(frame.into_buffer(), turned, options)?;
                thinned.push(Frame {
                    picture,
                    index,
                    at: Some(at),
                    path: None,
                })?;
            }
            at += delay;
            thinned.found = index + 1;
        }
        thinned.finish()
    }

    fn of_folder(folder: &Path, options: &FrameOptions) -> Result<Self> {
        let files = pictures_in(folder, options.max_found)?;
        if files.is_empty() {
            return Err(Error::NotFound {
                what: format!("a picture in {}", folder.display()),
                hint: format!("pictures end in {}", EXTENSIONS.join(", ")),
            });
        }
        let mut pixels = 0;
        let mut taken = Vec::new();
        for index in spread(files.len(), options.most) {
            let Some(path) = files.get(index) else {
                continue;
            };
            let picture = Picture::open(path, &options.decode)?;
            pixels += (picture.width() * picture.height()) as u64;
            check("pixels of all frames", pixels, options.max_pixels)?;
            taken.push(Frame {
                picture,
                index,
                at: None,
                path: Some(path.clone()),
            });
        }
        let found = files.len();
        Ok(Self { taken, found })
    }
}

fn picture(
    buffer: image::RgbaImage,
    turned: Orientation,
    options: &FrameOptions,
) -> Result<Picture> {
    let mut image = DynamicImage::ImageRgba8(buffer);
    image.apply_orientation(turned);
    convert::to_picture(&image, options.decode.alpha)
}

/// Frames of a source whose length shows at its end: whenever there are too many, every other one goes.
struct Thinned {
    kept: Vec<Frame>,
    /// Every so many frames one is kept.
    stride: usize,
    room: usize,
    most: usize,
    found: usize,
    /// Of each frame, and of all together.
    pixels: u64,
    max_pixels: u64,
}

impl Thinned {
    /// For frames of so many pixels each.
    fn new(options: &FrameOptions, pixels: u64) -> Self {
        let most = options.most.max(1);
        let fits = usize::try_from(options.max_pixels / pixels.max(1)).unwrap_or(usize::MAX);
        Self {
            kept: Vec::new(),
            stride: 1,
            room: fits.min(most.saturating_mul(SPARE)).max(most),
            most,
            found: 0,
            pixels,
            max_pixels: options.max_pixels,
        }
    }

    fn wants(&self, index: usize) -> bool {
        index.is_multiple_of(self.stride)
    }

    fn push(&mut self, frame: Frame) -> Result<()> {
        if self.kept.len() == self.room {
            self.stride *= 2;
            let stride = self.stride;
            self.kept.retain(|kept| kept.index.is_multiple_of(stride));
            if !self.wants(frame.index) {
                return Ok(());
            }
        }
        self.kept.push(frame);
        let pixels = self.pixels.saturating_mul(self.kept.len() as u64);
        check("pixels of all frames", pixels, self.max_pixels)
    }

    fn finish(self) -> Result<Frames> {
        if self.kept.is_empty() {
            return Err(Error::InvalidInput("the animation has no frame".to_owned()));
        }
        let chosen = spread(self.kept.len(), self.most);
        let kept = self.kept.into_iter().enumerate();
        let taken = kept.filter(|(at, _)| chosen.contains(at));
        Ok(Frames {
            taken: taken.map(|(_, frame)| frame).collect(),
            found: self.found,
        })
    }
}

/// At most `most` of `count` places, evenly spread, the first and the last among them; of more than
/// one.
fn spread(count: usize, most: usize) -> Vec<usize> {
    let taken = count.min(most.max(1));
    let steps = taken.saturating_sub(1).max(1);
    (0..taken)
        .map(|step| (step * count.saturating_sub(1) + steps / 2) / steps)
        .collect()
}

/// The files in a folder that are pictures by their names, in the order of the names.
fn pictures_in(folder: &Path, most: usize) -> Result<Vec<PathBuf>> {
    let io = |source| Error::io(folder, source);
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(io)? {
        let path = entry.map_err(io)?.path();
        let is_picture = path.extension().is_some_and(|found| {
            let found = found.to_string_lossy().to_lowercase();
            EXTENSIONS.contains(&found.as_str())
        });
        if is_picture && path.is_file() {
            files.push(path);
            check("pictures of a folder", files.len() as u64, most as u64)?;
        }
    }
    files.sort_by(|a, b| natural(&a.to_string_lossy(), &b.to_string_lossy()));
    Ok(files)
}

/// The order of names in which numbers count as such.
fn natural(a: &str, b: &str) -> Ordering {
    let (mut left, mut right) = (a, b);
    loop {
        let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
        match (digits(left), digits(right)) {
            (0, _) | (_, 0) => {
                let (x, y) = (left.chars().next(), right.chars().next());
                match (x, y) {
                    (Some(x), Some(y)) if x == y => {
                        (left, right) = (&left[x.len_utf8()..], &right[y.len_utf8()..]);
                    }
                    (None, None) => return a.cmp(b),
                    _ => return x.cmp(&y),
                }
            }
            (m, n) => {
                let number = |text: &str, len| text[..len].trim_start_matches('0').to_owned();
                let (x, y) = (number(left, m), number(right, n));
                let order = x.len().cmp(&y.len()).then_with(|| x.cmp(&y));
                if order != Ordering::Equal {
                    return order;
                }
                (left, right) = (&left[m..], &right[n..]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn places_are_evenly_spread_from_the_first_to_the_last() {
        assert_eq!(spread(10, 4), [0, 3, 6, 9]);
        assert_eq!(spread(10, 1), [0]);
        assert_eq!(spread(3, 8), [0, 1, 2]);
        assert_eq!(spread(2, 2), [0, 1]);
        assert_eq!(spread(1, 5), [0]);
    }

    #[test]
    fn numbers_in_names_count_as_numbers() {
        let mut names = [
            "b1",
            "a10",
            "a2",
            "a02",
            "a",
            "a2b",
            "é3",
            "a9999999999999999999999",
        ];
        names.sort_by(|a, b| natural(a, b));
        assert_eq!(
            names,
            [
                "a",
                "a02",
                "a2",
                "a2b",
                "a10",
                "a9999999999999999999999",
                "b1",
                "é3"
            ]
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn of_any_number_of_frames_enough_are_taken(found in 1usize..400, most in 1usize..20) {
            let options = FrameOptions::default().with_most(most);
            let mut thinned = Thinned::new(&options, 1);
            for index in 0..found {
                if thinned.wants(index) {
                    let picture = Picture::new(1, 1, vec![0; 3]).unwrap();
                    thinned.push(Frame { picture, index, at: None, path: None }).unwrap();
                }
                thinned.found = index + 1;
            }
            let frames = thinned.finish().unwrap();
            prop_assert_eq!(frames.taken.len(), most.min(found));
            let indices: Vec<usize> = frames.taken.iter().map(|frame| frame.index).collect();
            prop_assert!(indices.is_sorted_by(|a, b| a < b) && indices[0] == 0);
            // No gap is much larger than the others.
            let gaps = indices.windows(2).map(|pair| pair[1] - pair[0]);
            prop_assert!(gaps.max().unwrap_or(0) <= 2 * found.div_ceil(most));
        }
    }
}
