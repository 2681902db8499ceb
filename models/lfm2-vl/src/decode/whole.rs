//! Whether a file has its end: decoders are lenient and show what there is of a broken picture.

use image::ImageFormat;
use lfm2_hub::{Error, Result};

/// Checks that the file goes on to the end of its picture. Formats whose decoders notice by themselves
/// are left to them.
///
/// # Errors
/// [`Error::InvalidInput`] when it does not, [`Error::Unsupported`] for printing colours without the
/// mark that says what they mean.
pub(super) fn check(bytes: &[u8], format: ImageFormat) -> Result<()> {
    let found = match format {
        ImageFormat::Png => png_end(bytes),
        ImageFormat::Jpeg => {
            let jpeg = Jpeg::read(bytes);
            if jpeg.as_ref().is_some_and(|j| j.components == 4 && !j.adobe) {
                return Err(Error::Unsupported {
                    what: "a jpeg with four channels and no adobe mark".to_owned(),
                    hint: "convert it to rgb".to_owned(),
                });
            }
            jpeg.map(|_| ())
        }
        _ => Some(()),
    };
    found.ok_or_else(|| Error::InvalidInput("the picture is damaged or ends too early".to_owned()))
}

fn be16(bytes: &[u8], at: usize) -> Option<usize> {
    let pair = bytes.get(at..at.checked_add(2)?)?;
    Some(usize::from(u16::from_be_bytes(pair.try_into().ok()?)))
}

fn be32(bytes: &[u8], at: usize) -> Option<usize> {
    let four = bytes.get(at..at.checked_add(4)?)?;
    usize::try_from(u32::from_be_bytes(four.try_into().ok()?)).ok()
}

/// Walks the chunks of a PNG file to the last one; `None` when there is none.
fn png_end(bytes: &[u8]) -> Option<()> {
    const SIGNATURE: usize = 8;
    /// Length, name and checksum.
    const FRAME: usize = 12;
    let mut at = SIGNATURE;
    loop {
        let len = be32(bytes, at)?;
        let next = at.checked_add(FRAME)?.checked_add(len)?;
        let name = bytes.get(at + 4..at + 8)?;
        bytes.get(..next)?;
        if name == b"IEND" {
            return Some(());
        }
        at = next;
    }
}

/// What the segments of a JPEG file say.
struct Jpeg {
    components: u8,
    adobe: bool,
}

impl Jpeg {
    /// Walks the segments to the end mark; `None` when there is none.
    fn read(bytes: &[u8]) -> Option<Self> {
        let mut found = Self {
            components: 0,
            adobe: false,
        };
        let mut at = 2;
        loop {
            // Between segments there may be any number of fill bytes.
            while *bytes.get(at)? != 0xff || matches!(bytes.get(at + 1)?, 0x00 | 0xff) {
                at += 1;
            }
            let mark = *bytes.get(at + 1)?;
            at += 2;
            match mark {
                0xd9 => return Some(found),
                // Restart marks and others without a length.
                0xd0..=0xd8 | 0x01 => continue,
                _ => {}
            }
            let len = be16(bytes, at)?;
            let segment = bytes.get(at..at.checked_add(len.max(2))?)?;
            match mark {
                // The frame's header: precision, sides, number of channels.
                0xc0..=0xc3 | 0xc5..=0xc7 | 0xc9..=0xcb | 0xcd..=0xcf => {
                    found.components = *segment.get(7)?;
                }
                0xee => found.adobe |= segment.get(2..7) == Some(b"Adobe"),
                _ => {}
            }
            at += segment.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jpeg_ends_with_its_mark_and_not_with_one_inside_a_segment() {
        // An application segment that holds an end mark, a frame, a scan with a stuffed byte.
        let head = [0xff, 0xd8, 0xff, 0xe1, 0, 4, 0xff, 0xd9];
        let frame = [0xff, 0xc0, 0, 11, 8, 0, 1, 0, 1, 4, 1, 0x11, 0];
        let scan = [
            0xff, 0xda, 0, 4, 1, 0, 0x12, 0xff, 0x00, 0x34, 0xff, 0xd0, 0x56,
        ];
        let open = [&head[..], &frame, &scan].concat();
        assert!(Jpeg::read(&open).is_none());
        let closed = [&open[..], &[0xff, 0xd9]].concat();
        let found = Jpeg::read(&closed).unwrap();
        assert_eq!((found.components, found.adobe), (4, false));
        assert!((0..closed.len()).all(|len| Jpeg::read(&closed[..len]).is_none()));
    }

    #[test]
    fn a_png_ends_with_its_last_chunk() {
        let chunk = |name: &[u8; 4], data: &[u8]| {
            let len = (data.len() as u32).to_be_bytes();
            [&len[..], name, data, &[0; 4]].concat()
        };
        let file = [vec![0; 8], chunk(b"IDAT", b"abc"), chunk(b"IEND", b"")].concat();
        assert!(png_end(&file).is_some());
        assert!((0..file.len()).all(|len| png_end(&file[..len]).is_none()));
        let huge = [&[0; 8][..], &[0xff; 4], b"IDAT"].concat();
        assert!(png_end(&huge).is_none());
    }
}
