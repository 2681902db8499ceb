//! [`contact_sheet`]: the views of a picture on one page, as a person can look at them.

use lfm2_hub::Result;

use crate::boxes::PixelBox;
use crate::canvas::{Canvas, Colour};
use crate::picture::Picture;
use crate::plan::{PlannedView, Size, ViewKind};
use crate::processor::ImageViews;
use crate::resize::{Filter, resize};

const GROUND: Colour = [245, 245, 242];
const INK: Colour = [30, 30, 40];
const FRAME: Colour = [20, 120, 235];

/// Dots of the letters, and the room between things, in pixels.
const DOT: usize = 2;
const GAP: usize = 16;
/// The most that a view takes on the page.
const CELL: usize = 288;
/// Lines of a caption.
const LINES: usize = 2;

/// A page with every view in the order in which the model sees them: tiles where they are in the
/// picture, then the view of the whole, each with its number, its size and its tokens.
///
/// # Errors
/// Only where memory ends.
pub fn contact_sheet(views: &ImageViews) -> Result<Picture> {
    let plan = views.plan();
    let planned = plan.views();
    let title = format!(
        "{} views, {} tokens, {} with markers",
        planned.len(),
        plan.image_tokens(),
        plan.prompt_tokens()
    );
    let cells: Vec<Cell> = planned
        .iter()
        .map(|view| Cell::new(view, plan.grid().map_or(0, |grid| grid.rows)))
        .collect();
    let line = Canvas::text_size(1, DOT).1 + 2 * DOT;
    let caption = LINES * line;
    let cols = cells.iter().map(|cell| cell.col + 1).max().unwrap_or(1);
    let width_of = |col: usize| {
        let own = cells.iter().filter(|cell| cell.col == col);
        own.map(|cell| cell.size.width.max(cell.caption_width()))
            .max()
            .unwrap_or(0)
    };
    let height_of = |row: usize| {
        let own = cells.iter().filter(|cell| cell.row == row);
        own.map(|cell| cell.size.height + caption)
            .max()
            .unwrap_or(0)
    };
    let rows = cells.iter().map(|cell| cell.row + 1).max().unwrap_or(1);
    let start = |of: &dyn Fn(usize) -> usize, until: usize| -> usize {
        GAP + (0..until).map(|index| of(index) + GAP).sum::<usize>()
    };
    let head = line + GAP;
    let title_width = Canvas::text_size(title.len(), DOT).0 + 2 * GAP;
    let width = start(&width_of, cols).max(title_width);
    let mut page = Canvas::new(width, head + start(&height_of, rows), GROUND);
    page.text((GAP, GAP), &title, DOT, INK);
    for (index, (cell, view)) in cells.iter().zip(views.views()).enumerate() {
        let at = (
            start(&width_of, cell.col),
            head + start(&height_of, cell.row),
        );
        let Size { width, height } = cell.size;
        page.paste(
            at,
            &resize(&view.picture()?, width, height, Filter::Bilinear)?,
        );
        let area = PixelBox {
            left: at.0,
            top: at.1,
            right: at.0 + width,
            bottom: at.1 + height,
        };
        page.outline(area, 1, FRAME);
        let below = at.1 + height + 2 * DOT;
        let number = format!("{}: {}", index + 1, cell.name);
        page.text((at.0, below), &number, DOT, INK);
        page.text((at.0, below + line), &cell.facts, DOT, INK);
    }
    page.into_picture()
}

/// Where a view is on the page, and what is written below it.
struct Cell {
    col: usize,
    row: usize,
    size: Size,
    name: String,
    facts: String,
}

impl Cell {
    /// The cell of a view; those of the whole picture are below `rows` rows of tiles.
    fn new(view: &PlannedView, rows: usize) -> Self {
        let (col, row, name) = match view.kind {
            ViewKind::Tile { row, col } => {
                (col, row, format!("row {}, column {}", row + 1, col + 1))
            }
            ViewKind::Thumbnail => (0, rows, "thumbnail".to_owned()),
            ViewKind::Whole => (0, rows, "whole picture".to_owned()),
        };
        Self {
            col,
            row,
            size: shrunk(view.size),
            name,
            facts: format!(
                "{}x{}, {} tokens",
                view.size.width, view.size.height, view.tokens
            ),
        }
    }

    fn caption_width(&self) -> usize {
        let letters = self.facts.len().max(self.name.len() + 4);
        Canvas::text_size(letters, DOT).0
    }
}

/// The size within a cell, in the same shape.
fn shrunk(size: Size) -> Size {
    let longest = size.width.max(size.height).max(1);
    let side = |side: usize| match longest > CELL {
        true => (side * CELL / longest).max(1),
        false => side,
    };
    Size::new(side(size.width), side(size.height))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::processor::ImageProcessor;
    use crate::settings::ImageSettings;

    fn sheet(width: usize, height: usize) -> Picture {
        let processor = ImageProcessor::new(ImageSettings::default()).unwrap();
        let picture = Picture::new(width, height, [200, 0, 0].repeat(width * height)).unwrap();
        contact_sheet(&processor.process(&picture).unwrap()).unwrap()
    }

    fn red(sheet: &Picture) -> usize {
        let pixels = sheet.pixels().chunks_exact(3);
        pixels.filter(|pixel| **pixel == [200, 0, 0]).count()
    }

    #[test]
    fn every_view_is_on_the_page() {
        // Without the lines around them.
        let inside = |width: usize, height: usize| (width - 2) * (height - 2);
        // Enlarged to 224 x 320 for its 64 tokens, and shrunk to fit the page.
        assert_eq!(red(&sheet(200, 300)), inside(201, 288));
        let tiled = sheet(1280, 1024);
        assert_eq!(red(&tiled), 9 * inside(288, 288) + inside(288, 237));
        assert!(tiled.height() > 3 * CELL && tiled.width() > 3 * CELL);
        // Long and thin: one column.
        assert!(sheet(300, 3000).width() < 600);
    }
}
