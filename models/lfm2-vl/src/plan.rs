//! [`ImagePlan`]: which views a picture of a given size becomes, before a pixel is touched.
//!
//! Sides go in, whole numbers come out, and everything between is 64-bit floats with halves rounded to
//! the even neighbour, because one pixel more makes another number of tokens.

use std::fmt;

use crate::settings::ImageSettings;

/// The sides of a picture or a view in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Size {
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
}

impl Size {
    /// A size of `width` columns and `height` rows.
    pub fn new(width: usize, height: usize) -> Self {
        Self { width, height }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} x {}", self.width, self.height)
    }
}

/// How many tiles a picture is cut into.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TileGrid {
    /// Tiles side by side.
    pub cols: usize,
    /// Tiles one below the other.
    pub rows: usize,
}

impl TileGrid {
    /// The number of tiles.
    pub fn tiles(self) -> usize {
        self.cols * self.rows
    }
}

/// What a view shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ViewKind {
    /// The whole picture; there is no other view.
    Whole,
    /// One tile, counted from 0.
    Tile {
        /// Tiles above it.
        row: usize,
        /// Tiles to the left.
        col: usize,
    },
    /// The whole picture behind its tiles.
    Thumbnail,
}

impl fmt::Display for ViewKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole => f.write_str("whole picture"),
            Self::Tile { row, col } => write!(f, "tile in row {}, column {}", row + 1, col + 1),
            Self::Thumbnail => f.write_str("thumbnail"),
        }
    }
}

/// One view of a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlannedView {
    /// What it shows.
    pub kind: ViewKind,
    /// Its sides in pixels.
    pub size: Size,
    /// How many tokens it becomes.
    pub tokens: usize,
}

/// Which views a picture becomes, in the order in which the model sees them: tiles row by row, then
/// the thumbnail; or the whole picture alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImagePlan {
    pub(crate) grid: Option<TileGrid>,
    /// The view of the whole picture; none for tiles without a thumbnail.
    pub(crate) whole: Option<Size>,
    pub(crate) tile_size: usize,
    pub(crate) token_side: usize,
    pub(crate) markers: bool,
}

impl ImagePlan {
    /// The plan that `settings` have for a picture of `source` pixels, as published processors make it.
    ///
    /// Pictures longer and thinner than those can handle are shortened until they fit.
    pub fn new(settings: &ImageSettings, source: Size) -> Self {
        let (least, most) = settings.tile_range();
        let grid = if settings.do_image_splitting && is_too_large(settings, source) {
            Some(best_grid(source, least..=most, settings.tile_size)).filter(|g| g.tiles() > 1)
        } else {
            None
        };
        let tokens = settings.min_image_tokens..=settings.max_image_tokens;
        let whole = single_view(settings, source, *tokens.start(), *tokens.end());
        let limit = settings.max_num_patches() / settings.downsample_factor.pow(2);
        let whole = shorten(whole, settings.token_side(), limit);
        Self {
            grid,
            whole: (grid.is_none() || settings.use_thumbnail).then_some(whole),
            tile_size: settings.tile_size,
            token_side: settings.token_side(),
            markers: settings.use_image_special_tokens,
        }
    }

    /// The tiles; `None` for a picture that is not cut.
    pub fn grid(&self) -> Option<TileGrid> {
        self.grid
    }

    /// The view of the whole picture; `None` for tiles without a thumbnail.
    pub fn whole(&self) -> Option<Size> {
        self.whole
    }

    /// The views in order; at least one.
    pub fn views(&self) -> Vec<PlannedView> {
        let view = |kind, size: Size| PlannedView {
            kind,
            size,
            tokens: self.tokens_of(size),
        };
        let mut views = Vec::new();
        if let Some(grid) = self.grid {
            let places = (0..grid.rows).flat_map(|row| (0..grid.cols).map(move |col| (row, col)));
            let tile = Size::new(self.tile_size, self.tile_size);
            views.extend(places.map(|(row, col)| view(ViewKind::Tile { row, col }, tile)));
        }
        let kind = match self.grid {
            Some(_) => ViewKind::Thumbnail,
            None => ViewKind::Whole,
        };
        views.extend(self.whole.map(|size| view(kind, size)));
        views
    }

    /// How many tokens of the prompt are of the picture itself.
    pub fn image_tokens(&self) -> usize {
        self.views().iter().map(|view| view.tokens).sum()
    }

    /// How many tokens of the prompt the picture takes in all, markers included.
    pub fn prompt_tokens(&self) -> usize {
        let markers = match (self.markers, self.grid) {
            (false, _) => 0,
            (true, None) => 2,
            (true, Some(grid)) => 2 + grid.tiles() + usize::from(self.whole.is_some()),
        };
        self.image_tokens() + markers
    }

    fn tokens_of(&self, size: Size) -> usize {
        (size.width / self.token_side) * (size.height / self.token_side)
    }
}

/// The nearest multiple of `unit`, the even one of two.
fn round_to(side: usize, unit: usize) -> usize {
    (side as f64 / unit as f64).round_ties_even() as usize * unit
}

/// The sides of a picture in one view of `least` to `most` tokens. The result may be above `most` for
/// pictures that are very thin.
pub fn single_view(settings: &ImageSettings, source: Size, least: usize, most: usize) -> Size {
    let unit = settings.token_side();
    let (w, h) = (source.width as f64, source.height as f64);
    let pixels = |tokens: usize| tokens as f64 * (unit * unit) as f64;
    let rounded = Size {
        width: round_to(source.width, unit).max(unit),
        height: round_to(source.height, unit).max(unit),
    };
    let area = rounded.width as f64 * rounded.height as f64;
    if area > pixels(most) {
        let shrink = (h * w / pixels(most)).sqrt();
        // Divided in this order, because at exact multiples the other one gives less.
        let fit = |side: f64| ((side / shrink / unit as f64).floor() as usize * unit).max(unit);
        return Size::new(fit(w), fit(h));
    }
    if area < pixels(least) {
        let grow = (pixels(least) / (h * w)).sqrt();
        let fit = |side: f64| (side * grow / unit as f64).ceil() as usize * unit;
        return Size::new(fit(w), fit(h));
    }
    rounded
}

/// Shortens the long side until there are at most `most` tokens, and at least one.
pub(crate) fn shorten(size: Size, unit: usize, most: usize) -> Size {
    let (cols, rows) = (size.width / unit, size.height / unit);
    if cols * rows <= most {
        return size;
    }
    let (short, long) = (cols.min(rows).min(most), (most / cols.min(rows)).max(1));
    match cols > rows {
        true => Size::new(long * unit, short * unit),
        false => Size::new(short * unit, long * unit),
    }
}

/// Whether a picture has too many pixels for one view: by its area alone, whatever its sides.
pub fn is_too_large(settings: &ImageSettings, source: Size) -> bool {
    let unit = settings.token_side();
    let side = |side| round_to(side, unit).max(settings.patch_size) as f64;
    let limit = (settings.max_image_tokens * unit * unit) as f64 * settings.max_pixels_tolerance;
    side(source.height) * side(source.width) > limit
}

/// The grid of `tiles` many tiles whose shape is nearest to the picture's; of two as near, the larger
/// one if the picture has pixels for more than half of it.
pub fn best_grid(
    source: Size,
    tiles: std::ops::RangeInclusive<usize>,
    tile_size: usize,
) -> TileGrid {
    let shape = source.width as f64 / source.height as f64;
    let area = source.width as f64 * source.height as f64;
    let mut best = (TileGrid { cols: 1, rows: 1 }, f64::INFINITY);
    for count in tiles {
        for cols in (1..=count).filter(|&cols| count.is_multiple_of(cols)) {
            let rows = count / cols;
            let distance = (shape - cols as f64 / rows as f64).abs();
            let half = 0.5 * (tile_size * tile_size * count) as f64;
            if distance < best.1 || (distance == best.1 && area > half) {
                best = (TileGrid { cols, rows }, distance);
            }
        }
    }
    best.0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn plan(width: usize, height: usize) -> ImagePlan {
        ImagePlan::new(&ImageSettings::default(), Size::new(width, height))
    }

    fn settings(json: &serde_json::Value) -> ImageSettings {
        ImageSettings::default().overridden(json).unwrap()
    }

    #[test]
    fn published_examples_have_their_views_and_tokens() {
        let cases = [
            // (width, height), tiles, view of the whole, tokens of the picture, tokens of the prompt
            ((384, 256), None, (384, 256), 96, 98),
            ((512, 512), None, (512, 512), 256, 258),
            ((400, 336), None, (384, 320), 120, 122),
            ((1280, 1024), Some((3, 3)), (544, 448), 2542, 2554),
            ((1000, 3000), Some((1, 3)), (288, 864), 1011, 1017),
        ];
        for ((width, height), grid, whole, tokens, prompt) in cases {
            let plan = plan(width, height);
            let grid = grid.map(|(cols, rows)| TileGrid { cols, rows });
            assert_eq!(plan.grid(), grid, "{width} x {height}");
            assert_eq!(plan.whole(), Some(Size::new(whole.0, whole.1)));
            assert_eq!(
                (plan.image_tokens(), plan.prompt_tokens()),
                (tokens, prompt)
            );
        }
        let hd = plan(1920, 1080);
        assert_eq!((hd.grid().unwrap().cols, hd.grid().unwrap().rows), (4, 2));
        assert_eq!(
            plan(1000, 800).grid().unwrap(),
            TileGrid { cols: 3, rows: 2 }
        );
    }

    #[test]
    fn halves_go_to_the_even_neighbour() {
        for (side, expected) in [(48, 64), (80, 64), (336, 320), (400, 384), (720, 704)] {
            assert_eq!(round_to(side, 32), expected);
        }
    }

    #[test]
    fn tiles_come_row_by_row_and_the_thumbnail_last() {
        let views = plan(1000, 800).views();
        let kinds: Vec<ViewKind> = views.iter().map(|view| view.kind).collect();
        let tile = |row, col| ViewKind::Tile { row, col };
        let expected = [
            tile(0, 0),
            tile(0, 1),
            tile(0, 2),
            tile(1, 0),
            tile(1, 1),
            tile(1, 2),
        ];
        assert_eq!(kinds[..6], expected);
        assert_eq!(kinds[6..], [ViewKind::Thumbnail]);
    }

    #[test]
    fn without_a_thumbnail_only_cut_pictures_lose_the_whole() {
        let settings = settings(&json!({"use_thumbnail": false}));
        assert_eq!(
            ImagePlan::new(&settings, Size::new(1000, 800)).whole(),
            None
        );
        assert!(
            ImagePlan::new(&settings, Size::new(100, 80))
                .whole()
                .is_some()
        );
    }

    #[test]
    fn one_tile_is_no_tile() {
        let settings = settings(&json!({"min_tiles": 1}));
        let size = Size::new(752, 690);
        assert_eq!(best_grid(size, 1..=10, 512), TileGrid { cols: 1, rows: 1 });
        let plan = ImagePlan::new(&settings, size);
        assert_eq!((plan.grid(), plan.image_tokens()), (None, 240));
    }

    #[test]
    fn im_04_thin_pictures_are_shortened_to_what_a_view_holds() {
        for (width, height) in [(1, 2000), (2000, 1), (60, 20_000), (16_384, 1), (1, 16_384)] {
            for json in [
                json!({}),
                json!({"do_image_splitting": false, "max_image_tokens": 70}),
            ] {
                let settings = settings(&json);
                let plan = ImagePlan::new(&settings, Size::new(width, height));
                for view in plan.views() {
                    assert!(view.tokens >= 1 && view.tokens * 4 <= settings.max_num_patches());
                }
            }
        }
        assert_eq!(plan(1, 1).whole(), Some(Size::new(256, 256)));
        assert_eq!(plan(1, 2000).whole(), Some(Size::new(32, 8192)));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn every_view_is_whole_tokens_and_fits(
            (width, height) in (1usize..5000, 1usize..5000),
            (least, more) in (1usize..200, 0usize..200),
            (fewest, tiles) in (1usize..=10, 0usize..9),
            (side, tolerance) in (1usize..20, 0.1f64..8.0),
            (splitting, thumbnail, markers) in any::<(bool, bool, bool)>(),
        ) {
            let settings = settings(&json!({
                "min_image_tokens": least, "max_image_tokens": least + more,
                "min_tiles": fewest, "max_tiles": (fewest + tiles).min(10), "tile_size": 32 * side,
                "max_pixels_tolerance": tolerance, "do_image_splitting": splitting,
                "use_thumbnail": thumbnail, "use_image_special_tokens": markers,
            }));
            let plan = ImagePlan::new(&settings, Size::new(width, height));
            let views = plan.views();
            prop_assert!(!views.is_empty());
            for view in &views {
                prop_assert!(view.size.width % 32 == 0 && view.size.height % 32 == 0);
                prop_assert!(view.tokens >= 1 && view.tokens * 4 <= settings.max_num_patches());
            }
            let tiles = plan.grid().map_or(0, TileGrid::tiles);
            prop_assert!(tiles == 0 || (settings.min_tiles.max(2)..=settings.max_tiles).contains(&tiles));
            prop_assert_eq!(views.len(), tiles + usize::from(plan.whole().is_some()));
            prop_assert!(plan.prompt_tokens() >= plan.image_tokens());
        }
    }
}
