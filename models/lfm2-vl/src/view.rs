//! [`View`]: a rectangle of pixels cut into patches, as the vision tower reads it.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use lfm2_hub::Result;
use sha2::{Digest, Sha256};

use crate::picture::{CHANNELS, Picture};
use crate::plan::{ImagePlan, Size, ViewKind};
use crate::resize::resize;
use crate::settings::ImageSettings;

/// How many patches a view has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PatchGrid {
    /// Patches one below the other.
    pub rows: usize,
    /// Patches side by side.
    pub cols: usize,
}

impl PatchGrid {
    /// The number of patches.
    pub fn patches(self) -> usize {
        self.rows * self.cols
    }
}

/// What stands for the pixels of a view: two views with the same key look the same to a model.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ViewKey([u8; 32]);

impl ViewKey {
    fn of(grid: PatchGrid, patches: &[u8]) -> Self {
        let mut hash = Sha256::new();
        for side in [grid.rows, grid.cols] {
            hash.update((side as u64).to_le_bytes());
        }
        hash.update(patches);
        Self(hash.finalize().into())
    }

    /// The hash.
    pub(crate) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    #[cfg(test)]
    pub(crate) fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl fmt::Debug for ViewKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ViewKey(")?;
        self.0
            .iter()
            .take(4)
            .try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str("..)")
    }
}

/// A view in 8-bit patches. Cloning is cheap.
#[derive(Clone, PartialEq, Eq)]
pub struct View {
    kind: ViewKind,
    grid: PatchGrid,
    patches: Arc<[u8]>,
    key: ViewKey,
}

impl View {
    /// The views of `picture` that `plan` asks for, in its order.
    ///
    /// # Errors
    /// When `plan` was not made with `settings`.
    pub(crate) fn all(
        picture: &Picture,
        plan: &ImagePlan,
        settings: &ImageSettings,
    ) -> Result<Vec<Self>> {
        let (patch, filter) = (settings.patch_size, settings.resample);
        let whole = |size: Size| resize(picture, size.width, size.height, filter);
        let tiled = match plan.grid {
            Some(grid) => Some(whole(Size {
                width: grid.cols * plan.tile_size,
                height: grid.rows * plan.tile_size,
            })?),
            None => None,
        };
        let view = |kind, size: Size| {
            let (source, at) = match (kind, &tiled) {
                (ViewKind::Tile { row, col }, Some(tiled)) => {
                    let at = (col * plan.tile_size, row * plan.tile_size);
                    (Cow::Borrowed(tiled), at)
                }
                _ => (Cow::Owned(whole(size)?), (0, 0)),
            };
            let grid = PatchGrid {
                rows: size.height / patch,
                cols: size.width / patch,
            };
            let patches = cut(&source, at, size, patch);
            Ok(Self {
                kind,
                grid,
                key: ViewKey::of(grid, &patches),
                patches: patches.into(),
            })
        };
        plan.views().iter().map(|v| view(v.kind, v.size)).collect()
    }

    /// What it shows.
    pub fn kind(&self) -> ViewKind {
        self.kind
    }

    /// How many patches it has.
    pub fn grid(&self) -> PatchGrid {
        self.grid
    }

    /// The values of the patches, `(rows, cols, y, x, channel)`.
    pub fn patches(&self) -> &[u8] {
        &self.patches
    }

    /// The view as a picture, for people to look at.
    ///
    /// # Errors
    /// None for a view that came from a processor.
    pub fn picture(&self) -> Result<Picture> {
        let values = self.patches.len() / self.grid.patches().max(1);
        let patch = (values / CHANNELS).isqrt().max(1);
        let (width, height) = (self.grid.cols * patch, self.grid.rows * patch);
        let mut pixels = vec![0; width * height * CHANNELS];
        let lines = self.patches.chunks_exact(patch * CHANNELS).enumerate();
        for (index, line) in lines {
            let (place, y) = (index / patch, index % patch);
            let (row, col) = (place / self.grid.cols, place % self.grid.cols);
            let start = ((row * patch + y) * width + col * patch) * CHANNELS;
            if let Some(target) = pixels.get_mut(start..start + line.len()) {
                target.copy_from_slice(line);
            }
        }
        Picture::new(width, height, pixels)
    }

    /// What stands for its pixels.
    pub fn key(&self) -> ViewKey {
        self.key
    }
}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("View")
            .field("kind", &self.kind)
            .field("grid", &self.grid)
            .finish_non_exhaustive()
    }
}

/// The patches of the rectangle of `size` at column and row `at`, row by row, each as `(y, x, channel)`.
fn cut(picture: &Picture, (left, top): (usize, usize), size: Size, patch: usize) -> Vec<u8> {
    let len = patch * CHANNELS;
    let mut out = Vec::with_capacity(size.width * size.height * CHANNELS);
    for row in 0..size.height / patch {
        for col in 0..size.width / patch {
            for y in 0..patch {
                let line = picture.row(top + row * patch + y);
                let start = (left + col * patch) * CHANNELS;
                out.extend_from_slice(line.get(start..start + len).unwrap_or_default());
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbered(width: usize, height: usize) -> Picture {
        Picture::from_fn(width, height, |x, y| [x as u8, y as u8, 7]).unwrap()
    }

    #[test]
    fn patches_go_row_by_row_with_the_channel_fastest() {
        let patches = cut(&numbered(8, 6), (2, 2), Size::new(4, 4), 2);
        let of = |x: u8, y: u8| [x, y, 7];
        let first = [of(2, 2), of(3, 2), of(2, 3), of(3, 3)].concat();
        let second = [of(4, 2), of(5, 2), of(4, 3), of(5, 3)].concat();
        let third = [of(2, 4), of(3, 4), of(2, 5), of(3, 5)].concat();
        assert_eq!(patches[..12], first);
        assert_eq!(patches[12..24], second);
        assert_eq!(patches[24..36], third);
        assert_eq!(patches.len(), 4 * 4 * 3);
    }

    #[test]
    fn a_view_is_a_picture_again() {
        let small =
            serde_json::json!({"tile_size": 64, "min_image_tokens": 1, "max_image_tokens": 8});
        let settings = ImageSettings::default().overridden(&small).unwrap();
        let whole = numbered(96, 64);
        let plan = ImagePlan::new(&settings, whole.size());
        let views = View::all(&whole, &plan, &settings).unwrap();
        assert_eq!(views[0].picture().unwrap(), whole);
        let large = numbered(128, 192);
        let plan = ImagePlan::new(&settings, large.size());
        let views = View::all(&large, &plan, &settings).unwrap();
        assert_eq!(views.len(), 7);
        let tile = views[3].picture().unwrap();
        assert_eq!(
            (views[3].kind(), tile.row(0)),
            (
                ViewKind::Tile { row: 1, col: 1 },
                &large.row(64)[64 * CHANNELS..],
            )
        );
    }

    #[test]
    fn keys_tell_pixels_and_shapes_apart() {
        let settings = ImageSettings::default();
        let view = |picture: &Picture| {
            let plan = ImagePlan::new(&settings, Size::new(picture.width(), picture.height()));
            View::all(picture, &plan, &settings).unwrap().remove(0)
        };
        let picture = numbered(256, 256);
        assert_eq!(view(&picture).key(), view(&picture.clone()).key());
        let mut pixels = picture.pixels().to_vec();
        pixels[1000] ^= 1;
        let other = Picture::new(256, 256, pixels).unwrap();
        assert_ne!(view(&picture).key(), view(&other).key());
        let black =
            |width, height| Picture::new(width, height, vec![0; width * height * 3]).unwrap();
        assert_ne!(view(&black(512, 256)).key(), view(&black(256, 512)).key());
    }
}
