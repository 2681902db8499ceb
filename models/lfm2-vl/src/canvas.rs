//! [`Canvas`]: rectangles, captions and other pictures on a picture.
//!
//! What goes over an edge is cut off, so nothing here fails.

use lfm2_hub::Result;

use crate::boxes::{FoundBox, PixelBox};
use crate::font;
use crate::picture::{CHANNELS, Picture};

/// Red, green and blue.
pub type Colour = [u8; CHANNELS];

/// Easily told apart, on light and on dark ground.
const COLOURS: [Colour; 6] = [
    [230, 40, 60],
    [20, 120, 235],
    [10, 150, 70],
    [240, 130, 0],
    [150, 60, 200],
    [0, 160, 170],
];

/// Something to draw on.
#[derive(Debug, Clone)]
pub struct Canvas {
    width: usize,
    height: usize,
    pixels: Vec<u8>,
}

impl From<&Picture> for Canvas {
    fn from(picture: &Picture) -> Self {
        Self {
            width: picture.width(),
            height: picture.height(),
            pixels: picture.pixels().to_vec(),
        }
    }
}

impl Canvas {
    /// A canvas of one colour; sides of 0 count as 1.
    pub fn new(width: usize, height: usize, colour: Colour) -> Self {
        let (width, height) = (width.max(1), height.max(1));
        Self {
            width,
            height,
            pixels: colour.repeat(width * height),
        }
    }

    /// Fills a rectangle.
    pub fn fill(&mut self, area: PixelBox, colour: Colour) {
        let (left, right) = (area.left.min(self.width), area.right.min(self.width));
        for y in area.top..area.bottom.min(self.height) {
            let row = y * self.width;
            let from = (row + left) * CHANNELS;
            let to = (row + right.max(left)) * CHANNELS;
            if let Some(row) = self.pixels.get_mut(from..to) {
                row.chunks_exact_mut(CHANNELS)
                    .for_each(|pixel| pixel.copy_from_slice(&colour));
            }
        }
    }

    /// Draws the outline of a rectangle, `width` pixels to the inside.
    pub fn outline(&mut self, area: PixelBox, width: usize, colour: Colour) {
        let PixelBox {
            left,
            top,
            right,
            bottom,
        } = area;
        let (x, y) = ((left + width).min(right), (top + width).min(bottom));
        let inner_right = right.saturating_sub(width).max(left);
        let inner_bottom = bottom.saturating_sub(width).max(top);
        for side in [
            PixelBox { bottom: y, ..area },
            PixelBox {
                top: inner_bottom,
                ..area
            },
            PixelBox { right: x, ..area },
            PixelBox {
                left: inner_right,
                ..area
            },
        ] {
            self.fill(side, colour);
        }
    }

    /// Writes a line of text, its upper left corner at column `x` and row `y`, every dot `dot` pixels
    /// wide and high.
    pub fn text(&mut self, (x, y): (usize, usize), text: &str, dot: usize, colour: Colour) {
        for (index, letter) in text.chars().enumerate() {
            let left = x + index * (font::WIDTH + 1) * dot;
            for (column, dots) in font::letter(letter).into_iter().enumerate() {
                for row in (0..font::HEIGHT).filter(|row| dots >> row & 1 == 1) {
                    let (left, top) = (left + column * dot, y + row * dot);
                    let area = PixelBox {
                        left,
                        top,
                        right: left + dot,
                        bottom: top + dot,
                    };
                    self.fill(area, colour);
                }
            }
        }
    }

    /// The width and height of a line of `letters` letters.
    pub fn text_size(letters: usize, dot: usize) -> (usize, usize) {
        (letters * (font::WIDTH + 1) * dot, font::HEIGHT * dot)
    }

    /// Puts a picture with its upper left corner at column `x` and row `y`.
    pub fn paste(&mut self, (x, y): (usize, usize), picture: &Picture) {
        let width = picture.width().min(self.width.saturating_sub(x)) * CHANNELS;
        for (row, target) in (0..picture.height()).zip(y..self.height) {
            let from = (target * self.width + x) * CHANNELS;
            let source = picture.row(row).get(..width);
            if let Some((target, source)) = self.pixels.get_mut(from..from + width).zip(source) {
                target.copy_from_slice(source);
            }
        }
    }

    /// Draws boxes with their labels, each label in its own colour.
    pub fn boxes<'a>(&mut self, boxes: impl IntoIterator<Item = &'a FoundBox>) {
        let line = (self.width.min(self.height) / 200).clamp(2, 8);
        let dot = (self.width.min(self.height) / 300).clamp(1, 4);
        let mut labels: Vec<&str> = Vec::new();
        for found in boxes {
            let known = labels.iter().position(|label| *label == found.label);
            let index = known.unwrap_or_else(|| {
                labels.push(&found.label);
                labels.len() - 1
            });
            let colour = COLOURS[index % COLOURS.len()];
            self.outline(found.area, line, colour);
            if !found.label.is_empty() {
                self.tag(found.area, &found.label, dot, colour);
            }
        }
    }

    /// A label above a box, or inside of it where there is no room above.
    fn tag(&mut self, area: PixelBox, label: &str, dot: usize, colour: Colour) {
        let (width, height) = Self::text_size(label.chars().count(), dot);
        let (width, height) = (width + 3 * dot, height + 3 * dot);
        let top = area.top.checked_sub(height).unwrap_or(area.top);
        let left = area.left.min(self.width.saturating_sub(width));
        let ground = PixelBox {
            left,
            top,
            right: left + width,
            bottom: top + height,
        };
        self.fill(ground, colour);
        self.text((left + 2 * dot, top + 2 * dot), label, dot, [255; CHANNELS]);
    }

    /// What was drawn.
    ///
    /// # Errors
    /// None: a canvas is never empty.
    pub fn into_picture(self) -> Result<Picture> {
        Picture::new(self.width, self.height, self.pixels)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHITE: Colour = [255; 3];
    const RED: Colour = [255, 0, 0];

    fn area(left: usize, top: usize, right: usize, bottom: usize) -> PixelBox {
        PixelBox {
            left,
            top,
            right,
            bottom,
        }
    }

    /// Where a canvas is red.
    fn red(canvas: Canvas) -> Vec<(usize, usize)> {
        let picture = canvas.into_picture().unwrap();
        let width = picture.width();
        let pixels = picture.pixels().chunks_exact(CHANNELS).enumerate();
        let red = pixels.filter(|(_, pixel)| **pixel == RED);
        red.map(|(at, _)| (at % width, at / width)).collect()
    }

    #[test]
    fn an_outline_is_inside_of_its_box() {
        let mut canvas = Canvas::new(6, 5, WHITE);
        canvas.outline(area(1, 1, 5, 4), 1, RED);
        let mut expected: Vec<_> = (1..5).flat_map(|x| [(x, 1), (x, 3)]).collect();
        expected.extend([(1, 2), (4, 2)]);
        expected.sort_by_key(|&(x, y)| (y, x));
        assert_eq!(red(canvas), expected);
    }

    #[test]
    fn what_is_over_an_edge_is_cut_off() {
        let mut canvas = Canvas::new(3, 2, WHITE);
        canvas.fill(area(2, 1, 90, 90), RED);
        canvas.fill(area(7, 7, 9, 9), RED);
        canvas.text((100, 0), "outside", 2, RED);
        canvas.paste((2, 1), &Picture::new(4, 4, RED.repeat(16)).unwrap());
        canvas.paste((9, 9), &Picture::new(1, 1, RED.to_vec()).unwrap());
        assert_eq!(red(canvas), [(2, 1)]);
        let mut thick = Canvas::new(2, 2, WHITE);
        thick.outline(area(0, 0, 2, 2), 50, RED);
        assert_eq!(red(thick).len(), 4);
    }

    #[test]
    fn letters_are_written_dot_by_dot() {
        let mut canvas = Canvas::new(12, 8, WHITE);
        canvas.text((0, 0), ".|", 1, RED);
        let dots = red(canvas);
        assert!(dots.contains(&(2, 5)) && dots.contains(&(3, 6)), "{dots:?}");
        assert!(dots.contains(&(8, 0)) && !dots.contains(&(8, 3)));
        assert_eq!(Canvas::text_size(2, 3), (36, 24));
    }

    #[test]
    fn boxes_have_labels_and_colours_of_their_own() {
        let found = |label: &str, area| FoundBox {
            picture: 0,
            label: label.to_owned(),
            area,
        };
        let mut canvas = Canvas::new(200, 200, WHITE);
        canvas.boxes(&[
            found("a", area(20, 40, 60, 90)),
            found("b", area(100, 0, 150, 50)),
            found("a", area(20, 120, 60, 190)),
        ]);
        let picture = canvas.into_picture().unwrap();
        let at = |x: usize, y: usize| &picture.row(y)[x * CHANNELS..][..CHANNELS];
        assert_eq!(at(20, 60), COLOURS[0]);
        assert_eq!(at(20, 150), COLOURS[0]);
        assert_eq!(at(100, 30), COLOURS[1]);
        assert_eq!(at(40, 60), WHITE);
        // The label is above its box where there is room.
        assert_eq!((at(20, 32), at(101, 3)), (&COLOURS[0][..], &COLOURS[1][..]));
    }
}
