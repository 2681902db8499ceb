//! What the rows of a drawn picture show, in words.

use lfm2_hub::{Bos, SpecialTokens, Tokenizer};
use lfm2_vl::{ImageProcessor, ImageViews};

use crate::mixed::MixedBatch;
use crate::shapes::{Colour, Extent, Kind, Scene, Shape};
use crate::{Error, Result};

/// What a row shows that is in the middle of nothing.
const NOTHING: &str = "background";
/// What a row of nothing counts beside one of a shape: there are many.
const NOTHING_WEIGHT: f32 = 0.15;

/// The words that tell shapes apart, as token ids.
#[derive(Debug, Clone)]
pub(super) struct SeenWords {
    /// The kinds in their order, and nothing.
    kinds: Vec<u32>,
    colours: Vec<u32>,
    extents: Vec<u32>,
}

impl SeenWords {
    /// The words of `tokenizer`, as they stand inside a sentence.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] when one of them is more than a token.
    pub(super) fn new(tokenizer: &Tokenizer) -> Result<Self> {
        let id = |word: &str| {
            let ids = tokenizer.encode(&format!(" {word}"), SpecialTokens::Literal, Bos::Omit)?;
            match ids.as_slice() {
                [id] => Ok(*id),
                several => {
                    let detail = format!(
                        "expected a tokenizer with a token for \" {word}\", found {} tokens",
                        several.len()
                    );
                    Err(Error::option("hints", detail))
                }
            }
        };
        let kinds = Kind::ALL.map(Kind::name).into_iter().chain([NOTHING]);
        Ok(Self {
            kinds: kinds.map(id).collect::<Result<_>>()?,
            colours: Colour::SHAPES
                .iter()
                .map(|c| id(c.name()))
                .collect::<Result<_>>()?,
            extents: Extent::ALL
                .iter()
                .map(|e| id(e.name()))
                .collect::<Result<_>>()?,
        })
    }

    /// Gives every row of a picture its words. Rows are those of `image` tokens among `ids`, which stand in the
    /// batch from token `start` on. The row in whose square the centre of a shape lies shows that shape, all
    /// others nothing. Pictures that are cut into tiles get none.
    pub(super) fn hint<P>(
        &self,
        (scene, views): (&Scene, &ImageViews),
        processor: &ImageProcessor,
        places: &[u32],
        batch: &mut MixedBatch<P>,
    ) {
        let side = processor.settings().token_side();
        let (None, Some(whole)) = (views.plan().grid(), views.plan().whole()) else {
            return;
        };
        let (columns, rows) = (whole.width / side, whole.height / side);
        let shown = shown(scene, columns, rows);
        for (&place, shape) in places.iter().zip(shown) {
            let number = |found: Option<usize>| found.and_then(|n| u32::try_from(n).ok());
            let Some(shape) = shape else {
                if let Some(nothing) = number(Some(Kind::ALL.len())) {
                    batch.hint(&self.kinds, (place, nothing), NOTHING_WEIGHT);
                }
                continue;
            };
            let kind = number(Kind::ALL.iter().position(|k| *k == shape.kind));
            let colour = number(Colour::SHAPES.iter().position(|c| *c == shape.colour));
            let extent = number(Extent::ALL.iter().position(|e| *e == shape.extent));
            let all = [
                (&self.kinds, kind),
                (&self.colours, colour),
                (&self.extents, extent),
            ];
            for (words, word) in all {
                if let Some(word) = word {
                    batch.hint(words, (place, word), 1.0);
                }
            }
        }
    }
}

/// By square of `columns` x `rows`, row by row, the shape with its centre there.
fn shown(scene: &Scene, columns: usize, rows: usize) -> Vec<Option<&Shape>> {
    let (width, height) = scene.size();
    let mut shown = vec![None; columns * rows];
    for shape in &scene.shapes {
        let (x, y) = shape.centre();
        let at = |place: f64, side: usize, count: usize| {
            ((place / side as f64 * count as f64) as usize).min(count.saturating_sub(1))
        };
        let square = at(y, height, rows) * columns + at(x, width, columns);
        if let Some(place) = shown.get_mut(square) {
            *place = Some(shape);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;
    use crate::shapes::SceneOptions;

    #[test]
    fn every_shape_is_shown_where_its_centre_is() {
        let (columns, rows) = (40, 30);
        for seed in 0..50 {
            let scene = Scene::random(&SceneOptions::default(), &mut Rng::new(seed));
            let shown = shown(&scene, columns, rows);
            let found: Vec<_> = shown
                .iter()
                .enumerate()
                .filter_map(|(i, s)| Some((i, (*s)?)))
                .collect();
            assert_eq!(found.len(), scene.shapes.len());
            for (square, shape) in found {
                let (width, height) = scene.size();
                let (x, y) = ((square % columns) as f64, (square / columns) as f64);
                let [left, top, right, bottom] = shape.bounds();
                let (x, y) = (
                    x / columns as f64 * width as f64,
                    y / rows as f64 * height as f64,
                );
                assert!(left < x + 6.0 && x < right && top < y + 8.0 && y < bottom);
            }
        }
    }
}
