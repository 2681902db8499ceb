//! Pictures as pixels: the SVG of a picture, drawn with a font of its own, so that it is the same on every
//! machine.

use std::sync::{Arc, OnceLock};

use resvg::tiny_skia::{Color, Pixmap, Transform};
use resvg::usvg::{Options, Tree, fontdb::Database};

use crate::error::{Error, Result};

/// Latin letters, digits and signs of DejaVu Sans.
static FONT: &[u8] = include_bytes!("../../assets/DejaVuSans-latin.ttf");
const FAMILY: &str = "DejaVu Sans";
/// Pixels per unit of a picture.
const SCALE: f32 = 2.0;

/// A picture of this crate as PNG on white.
///
/// # Errors
/// When it is no picture that can be drawn, which is a fault of this library.
pub(super) fn of_svg(svg: &str) -> Result<Vec<u8>> {
    let wrong = |detail: String| Error::Picture { detail };
    let options = Options {
        font_family: FAMILY.to_owned(),
        fontdb: fonts(),
        ..Options::default()
    };
    let tree = Tree::from_str(svg, &options).map_err(|error| wrong(error.to_string()))?;
    let size = tree.size().to_int_size().scale_by(SCALE);
    let pixels = size.and_then(|size| Pixmap::new(size.width(), size.height()));
    let mut pixels = pixels.ok_or_else(|| wrong(format!("a picture of size {:?}", tree.size())))?;
    pixels.fill(Color::WHITE);
    resvg::render(
        &tree,
        Transform::from_scale(SCALE, SCALE),
        &mut pixels.as_mut(),
    );
    pixels
        .encode_png()
        .map_err(|error| wrong(error.to_string()))
}

/// The only font there is, for every name.
fn fonts() -> Arc<Database> {
    static FONTS: OnceLock<Arc<Database>> = OnceLock::new();
    let fonts = FONTS.get_or_init(|| {
        let mut fonts = Database::new();
        fonts.load_font_data(FONT.to_vec());
        fonts.set_sans_serif_family(FAMILY);
        Arc::new(fonts)
    });
    Arc::clone(fonts)
}

#[cfg(test)]
mod tests {
    use super::super::svg;
    use super::*;

    fn drawn(svg: &str) -> Pixmap {
        Pixmap::decode_png(&of_svg(svg).unwrap()).unwrap()
    }

    /// Pixels that are not white.
    fn ink(pixels: &Pixmap) -> usize {
        let white = |pixel: &resvg::tiny_skia::PremultipliedColorU8| {
            (pixel.red(), pixel.green(), pixel.blue()) == (255, 255, 255)
        };
        pixels.pixels().iter().filter(|pixel| !white(pixel)).count()
    }

    #[test]
    fn shapes_and_letters_are_there() {
        let scale = svg::Scale {
            name: "EDI",
            most: 1.0,
        };
        let named = drawn(&svg::heat_map("t", &scale, &[("Negation", &[0.9; 8])]));
        let unnamed = drawn(&svg::heat_map("t", &scale, &[("", &[0.9; 8])]));
        assert_eq!((named.width(), named.height()), (1920, 220));
        assert!(ink(&named) > ink(&unnamed) + 200, "letters leave ink");
        assert!(ink(&unnamed) > 20_000, "cells leave ink");
    }

    #[test]
    fn what_is_no_picture_is_an_error() {
        assert!(of_svg("<svg").is_err());
    }
}
