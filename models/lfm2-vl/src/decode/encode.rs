//! Pictures to files.

use std::path::Path;

use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder};
use lfm2_hub::{Error, Overwrite, Result, write_atomic};

use crate::picture::Picture;

impl Picture {
    /// The picture as a PNG file.
    ///
    /// # Errors
    /// [`Error::Limit`] for sides that no such file can have.
    pub fn to_png(&self) -> Result<Vec<u8>> {
        let side = |side: usize| {
            u32::try_from(side).map_err(|_| Error::Limit {
                what: "pixels of a picture's side".to_owned(),
                limit: u64::from(u32::MAX),
                found: side as u64,
            })
        };
        let (width, height) = (side(self.width())?, side(self.height())?);
        let mut bytes = Vec::new();
        PngEncoder::new(&mut bytes)
            .write_image(self.pixels(), width, height, ExtendedColorType::Rgb8)
            .map_err(|error| {
                Error::InvalidInput(format!("the picture cannot be encoded: {error}"))
            })?;
        Ok(bytes)
    }

    /// Writes the picture as a PNG file, whole or not at all.
    ///
    /// # Errors
    /// As [`to_png`](Self::to_png) and [`write_atomic`].
    pub fn save(&self, path: &Path, overwrite: Overwrite) -> Result<()> {
        let bytes = self.to_png()?;
        write_atomic(path, overwrite, |file| {
            std::io::Write::write_all(file, &bytes).map_err(|error| Error::io(path, error))
        })
    }
}
