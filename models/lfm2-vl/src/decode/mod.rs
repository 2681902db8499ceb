//! Pictures from files: PNG, JPEG, WebP, GIF and BMP. A [`Picture`] is the first frame of an animation,
//! [`Frames`] are all of it.
//!
//! What comes out is what the reference's loader makes: turned as the file's orientation says, three
//! channels of 8 bits, grey repeated, palettes looked up, of 16 bits the higher 8, and alpha dropped, so
//! that colours under transparency show (see [`Alpha`]). Colour profiles are ignored.
//!
//! Sizes are checked in the header, before anything is decoded, and a file that ends too early is
//! refused, where decoders would show half a picture.

mod convert;
mod encode;
mod frames;
mod whole;

use std::fs::File;
use std::io::{Cursor, Read};
use std::path::Path;

use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader};
use lfm2_hub::{Error, Result};

use crate::picture::Picture;

pub use frames::{Frame, FrameOptions, Frames};

/// The formats in words.
const READABLE: &str = "png, jpeg, webp, gif and bmp";

/// How much a picture file may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ImageLimits {
    /// Bytes of the file.
    pub max_bytes: u64,
    /// Pixels in all.
    pub max_pixels: u64,
    /// Pixels of a side.
    pub max_side: u32,
}

impl Default for ImageLimits {
    fn default() -> Self {
        Self {
            max_bytes: 20 << 20,
            max_pixels: 50_000_000,
            max_side: 16_384,
        }
    }
}

/// What becomes of transparency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Alpha {
    /// It is dropped: the colour below it shows, as in the reference.
    #[default]
    Drop,
    /// It is blended onto this colour.
    Over([u8; 3]),
}

impl Alpha {
    /// Blended onto white.
    pub const WHITE: Self = Self::Over([255; 3]);
    /// Blended onto black.
    pub const BLACK: Self = Self::Over([0; 3]);
}

/// How picture files are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct DecodeOptions {
    /// What they may ask for.
    pub limits: ImageLimits,
    /// What becomes of transparency.
    pub alpha: Alpha,
}

impl DecodeOptions {
    /// Reads files up to these limits.
    pub fn with_limits(mut self, limits: ImageLimits) -> Self {
        self.limits = limits;
        self
    }

    /// Does this with transparency.
    pub fn with_alpha(mut self, alpha: Alpha) -> Self {
        self.alpha = alpha;
        self
    }
}

impl Picture {
    /// Reads the picture file at `path`.
    ///
    /// # Errors
    /// [`Error::Io`], and as [`decode`](Self::decode).
    pub fn open(path: impl AsRef<Path>, options: &DecodeOptions) -> Result<Self> {
        let path = path.as_ref();
        let bytes = read(path, &options.limits)?;
        Self::decode(&bytes, options).map_err(|error| in_file(error, path))
    }

    /// Decodes a picture file.
    ///
    /// # Errors
    /// [`Error::InvalidInput`] for something that is no picture, is damaged or ends too early,
    /// [`Error::Unsupported`] for other formats and colour models, [`Error::Limit`] for one that is too
    /// large, all before it is decoded where the header tells.
    pub fn decode(bytes: &[u8], options: &DecodeOptions) -> Result<Self> {
        let limits = &options.limits;
        check(
            "bytes of a picture file",
            bytes.len() as u64,
            limits.max_bytes,
        )?;
        let format = format(bytes)?;
        let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
        reader.limits(memory(limits));
        let mut decoder = reader.into_decoder().map_err(|error| damaged(&error))?;
        let (width, height) = decoder.dimensions();
        check_sides(width, height, limits)?;
        whole::check(bytes, format)?;
        let orientation = orientation(&mut decoder);
        let mut image = DynamicImage::from_decoder(decoder).map_err(|error| damaged(&error))?;
        image.apply_orientation(orientation);
        convert::to_picture(&image, options.alpha)
    }
}

/// The error with the file that it is about.
fn in_file(error: Error, path: &Path) -> Error {
    let path = path.display();
    match error {
        Error::InvalidInput(detail) => Error::InvalidInput(format!("{path}: {detail}")),
        Error::Unsupported { what, hint } => Error::Unsupported {
            what: format!("{path}: {what}"),
            hint,
        },
        Error::Limit { what, limit, found } => Error::Limit {
            what: format!("{path}: {what}"),
            limit,
            found,
        },
        other => other,
    }
}

/// The bytes of a file, as far as they are allowed and one more.
fn read(path: &Path, limits: &ImageLimits) -> Result<Vec<u8>> {
    let io = |source| Error::io(path, source);
    let file = File::open(path).map_err(io)?;
    let mut bytes = Vec::new();
    // So that too many are noticed whatever the system says of the length.
    let most = limits.max_bytes.saturating_add(1);
    file.take(most).read_to_end(&mut bytes).map_err(io)?;
    Ok(bytes)
}

/// What a decoder may allocate.
fn memory(limits: &ImageLimits) -> image::Limits {
    let mut memory = image::Limits::no_limits();
    // Up to four channels of 16 bits, and as much for the decoder itself.
    memory.max_alloc = Some(limits.max_pixels.saturating_mul(16).max(1 << 20));
    memory
}

fn check_sides(width: u32, height: u32, limits: &ImageLimits) -> Result<()> {
    let longest = width.max(height).into();
    check(
        "pixels of a picture's side",
        longest,
        limits.max_side.into(),
    )?;
    let pixels = u64::from(width) * u64::from(height);
    check("pixels of a picture", pixels, limits.max_pixels)
}

fn check(what: &str, found: u64, limit: u64) -> Result<()> {
    if found <= limit {
        return Ok(());
    }
    Err(Error::Limit {
        what: what.to_owned(),
        limit,
        found,
    })
}

/// The format of a file, by its first bytes.
fn format(bytes: &[u8]) -> Result<ImageFormat> {
    let unsupported = |what: &str| Error::Unsupported {
        what: format!("a picture in {what}"),
        hint: format!("{READABLE} are"),
    };
    let begins = |at: usize, with: &[u8]| bytes.get(at..).is_some_and(|b| b.starts_with(with));
    let is_brand = |brands: &[&[u8]]| begins(4, b"ftyp") && brands.iter().any(|b| begins(8, b));
    let foreign = [
        (begins(0, b"II*\0") || begins(0, b"MM\0*"), "tiff"),
        (is_brand(&[b"avif", b"avis"]), "avif"),
        (
            is_brand(&[b"heic", b"heix", b"hevc", b"mif1", b"msf1"]),
            "heic",
        ),
        (is_svg(bytes), "svg"),
        (begins(0, b"\x76\x2f\x31\x01"), "exr"),
        (begins(0, b"\xff\x0a") || begins(4, b"JXL "), "jpeg xl"),
    ];
    if let Some((_, name)) = foreign.iter().find(|(found, _)| *found) {
        return Err(unsupported(name));
    }
    match image::guess_format(bytes) {
        Ok(
            format @ (ImageFormat::Png
            | ImageFormat::Jpeg
            | ImageFormat::WebP
            | ImageFormat::Gif
            | ImageFormat::Bmp),
        ) => Ok(format),
        Ok(other) => Err(unsupported(
            other.extensions_str().first().unwrap_or(&"another format"),
        )),
        Err(_) => Err(Error::InvalidInput(format!(
            "not an image we read ({READABLE})"
        ))),
    }
}

fn is_svg(bytes: &[u8]) -> bool {
    /// Where the root element begins at the latest.
    const HEAD: usize = 1024;
    let text = bytes.get(..HEAD).unwrap_or(bytes).trim_ascii_start();
    let has_root = || text.windows(4).any(|window| window == b"<svg");
    text.starts_with(b"<svg") || (text.starts_with(b"<?xml") && has_root())
}

/// How the picture is to be turned. Damaged metadata says nothing, as in the reference.
fn orientation(decoder: &mut impl ImageDecoder) -> Orientation {
    let Ok(Some(exif)) = decoder.exif_metadata() else {
        return Orientation::NoTransforms;
    };
    // Some writers put the name of the JPEG segment first.
    let exif = exif.strip_prefix(b"Exif\0\0").unwrap_or(&exif);
    Orientation::from_exif_chunk(exif).unwrap_or(Orientation::NoTransforms)
}

/// The decoder's words are not passed on: they can quote what is in the file.
fn damaged(error: &ImageError) -> Error {
    tracing::debug!(%error, "picture not decoded");
    match error {
        ImageError::Limits(_) => Error::InvalidInput("the picture asks for too much memory".into()),
        ImageError::Unsupported(_) => Error::Unsupported {
            what: "a picture of this kind".to_owned(),
            hint: format!("{READABLE} with grey, colours or a palette are"),
        },
        _ => Error::InvalidInput("the picture is damaged or ends too early".to_owned()),
    }
}
