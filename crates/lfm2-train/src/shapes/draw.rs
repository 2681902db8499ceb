//! Drawing a scene.

use lfm2_vl::Picture;

use super::scene::{Scene, Shape};
use crate::Result;

/// Values of a pixel.
const CHANNELS: usize = 3;

impl Scene {
    /// The picture of the scene, with smooth edges.
    ///
    /// # Errors
    /// None for scenes of this module.
    pub fn draw(&self) -> Result<Picture> {
        let mut pixels = self.ground_tint.repeat(self.width * self.height);
        for shape in &self.shapes {
            self.paint(shape, &mut pixels);
        }
        Ok(Picture::new(self.width, self.height, pixels)?)
    }

    /// Paints a shape over what is there.
    fn paint(&self, shape: &Shape, pixels: &mut [u8]) {
        let [left, top, right, bottom] = shape.bounds();
        let span = |first: f64, last: f64, end: usize| {
            let first = (first - 1.0).max(0.0) as usize;
            first..((last + 2.0).max(0.0) as usize).min(end)
        };
        let columns = span(left, right, self.width);
        for y in span(top, bottom, self.height) {
            let start = (y * self.width + columns.start) * CHANNELS;
            let Some(row) = pixels.get_mut(start..start + columns.len() * CHANNELS) else {
                continue;
            };
            for (x, pixel) in columns.clone().zip(row.chunks_exact_mut(CHANNELS)) {
                let distance = shape.outline.distance(x as f64 + 0.5, y as f64 + 0.5);
                // How much of the pixel is inside, as if the border were straight.
                let share = (0.5 - distance).clamp(0.0, 1.0);
                for (value, tint) in pixel.iter_mut().zip(shape.tint) {
                    let (old, new) = (f64::from(*value), f64::from(tint));
                    *value = (old + (new - old) * share).round() as u8;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;
    use crate::shapes::SceneOptions;

    #[test]
    fn centres_have_the_colour_of_their_shape_and_corners_that_of_the_ground() {
        for seed in 0..100 {
            let scene = Scene::random(&SceneOptions::default(), &mut Rng::new(seed));
            let picture = scene.draw().unwrap();
            let at = |x: usize, y: usize| {
                let start = (y * scene.width + x) * CHANNELS;
                &picture.pixels()[start..start + CHANNELS]
            };
            assert_eq!(at(0, 0), scene.ground_tint);
            for shape in &scene.shapes {
                let (x, y) = shape.centre();
                assert_eq!(at(x as usize, y as usize), shape.tint);
            }
        }
    }

    #[test]
    fn edges_are_smooth_and_nothing_outside_of_the_bounds_changes() {
        let scenes =
            (0..50).map(|seed| Scene::random(&SceneOptions::default(), &mut Rng::new(seed)));
        let scene = scenes
            .into_iter()
            .find(|scene| scene.shapes.len() == 1)
            .unwrap();
        let shape = &scene.shapes[0];
        let [left, top, right, bottom] = shape.bounds();
        let (mut between, mut full) = (0, 0);
        let picture = scene.draw().unwrap();
        for (i, pixel) in picture.pixels().chunks_exact(CHANNELS).enumerate() {
            let (x, y) = ((i % scene.width) as f64, (i / scene.width) as f64);
            let outside = x + 2.0 < left || x > right + 2.0 || y + 2.0 < top || y > bottom + 2.0;
            if outside {
                assert_eq!(pixel, scene.ground_tint);
            }
            full += usize::from(pixel == shape.tint);
            between += usize::from(pixel != shape.tint && pixel != scene.ground_tint);
        }
        assert!(
            full > 100 && between > 10 && between < full,
            "{full} {between}"
        );
    }
}
