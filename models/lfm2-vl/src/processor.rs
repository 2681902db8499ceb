//! [`ImageProcessor`]: from pictures to what the vision tower reads.

use lfm2_hub::Result;
use serde_json::Value;

use crate::budget::Budget;
use crate::picture::{CHANNELS, Picture};
use crate::plan::{ImagePlan, Size};
use crate::settings::ImageSettings;
use crate::view::View;

/// Values that 8 bits can have.
const LEVELS: usize = 256;

/// Turns pictures into views. Immutable; settings are checked once, when it is made.
#[derive(Debug, Clone)]
pub struct ImageProcessor {
    settings: ImageSettings,
    /// What each level of each channel becomes.
    levels: Box<[[f32; LEVELS]; CHANNELS]>,
}

/// A picture as its views.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageViews {
    plan: ImagePlan,
    views: Vec<View>,
}

impl ImageViews {
    /// Which views there are, and what they take.
    pub fn plan(&self) -> &ImagePlan {
        &self.plan
    }

    /// The views, in the order of the plan.
    pub fn views(&self) -> &[View] {
        &self.views
    }
}

impl ImageProcessor {
    /// A processor with these settings.
    ///
    /// # Errors
    /// As [`ImageSettings::check`].
    pub fn new(settings: ImageSettings) -> Result<Self> {
        settings.check()?;
        let level = |channel: usize, level: usize| {
            let mut value = level as f64;
            if settings.do_rescale {
                value *= settings.rescale_factor;
            }
            if settings.do_normalize {
                value = (value - settings.image_mean[channel]) / settings.image_std[channel];
            }
            value as f32
        };
        let levels = std::array::from_fn(|channel| std::array::from_fn(|l| level(channel, l)));
        Ok(Self {
            settings,
            levels: Box::new(levels),
        })
    }

    /// What each of the 256 levels of each channel is to the tower.
    pub(crate) fn levels(&self) -> &[[f32; 256]; CHANNELS] {
        &self.levels
    }

    /// The settings.
    pub fn settings(&self) -> &ImageSettings {
        &self.settings
    }

    /// The same processor with the keys of `json`, spelled as in the files of checkpoints, in place of
    /// its own.
    ///
    /// # Errors
    /// As [`ImageSettings::overridden`].
    pub fn overridden(&self, json: &Value) -> Result<Self> {
        Self::new(self.settings.overridden(json)?)
    }

    /// Which views a picture of `size` pixels becomes.
    pub fn plan(&self, size: Size) -> ImagePlan {
        ImagePlan::new(&self.settings, size)
    }

    /// Which views pictures become so that they take no more than `budget` together.
    ///
    /// # Errors
    /// [`Error::Limit`](lfm2_hub::Error::Limit) when not even the smallest views fit.
    pub fn plan_within(&self, sizes: &[Size], budget: &Budget) -> Result<Vec<ImagePlan>> {
        budget.plan(&self.settings, sizes)
    }

    /// The views of a picture.
    ///
    /// # Errors
    /// Only where memory ends.
    pub fn process(&self, picture: &Picture) -> Result<ImageViews> {
        self.process_as(picture, self.plan(picture.size()))
    }

    /// The views of a picture that `plan` asks for; the plan has to come from this processor.
    ///
    /// # Errors
    /// As [`process`](Self::process).
    pub fn process_as(&self, picture: &Picture, plan: ImagePlan) -> Result<ImageViews> {
        let views = View::all(picture, &plan, &self.settings)?;
        Ok(ImageViews { plan, views })
    }

    /// The values of a view's patches as the tower takes them, `(patches, patch * patch * 3)`.
    pub fn normalized(&self, view: &View) -> Vec<f32> {
        let pixels = view.patches().chunks_exact(CHANNELS);
        let values = pixels.flat_map(|pixel| {
            let levels = self.levels.iter().zip(pixel);
            levels.map(|(levels, &value)| levels[usize::from(value)])
        });
        values.collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn levels_are_rescaled_and_normalised() {
        let processor = |json| {
            let settings = ImageSettings::default().overridden(&json).unwrap();
            ImageProcessor::new(settings).unwrap()
        };
        let black_to_white = processor(json!({}));
        assert_eq!(black_to_white.levels[0][0], -1.0);
        assert_eq!(black_to_white.levels[2][255], 1.0);
        let rescaled = processor(json!({"do_normalize": false}));
        assert_eq!(rescaled.levels[1][51], 0.2);
        let raw = processor(json!({"do_normalize": false, "do_rescale": false}));
        assert_eq!(raw.levels[1][51], 51.0);
        let own = processor(json!({"image_mean": [0.2, 0.4, 0.6], "image_std": [0.1, 0.2, 0.4]}));
        assert!((own.levels[0][51] - 0.0).abs() < 1e-6);
        assert!((own.levels[1][51] + 1.0).abs() < 1e-6);
        assert!((own.levels[2][51] + 1.0).abs() < 1e-6);
    }

    #[test]
    fn features_are_as_many_as_the_plan_says() {
        let small = json!({"tile_size": 64, "min_image_tokens": 4, "max_image_tokens": 16});
        let settings = ImageSettings::default().overridden(&small).unwrap();
        let processor = ImageProcessor::new(settings).unwrap();
        let picture = Picture::from_fn(250, 190, |x, y| [x as u8, y as u8, 0]).unwrap();
        let found = processor.process(&picture).unwrap();
        let patches = found.views().iter().map(|view| view.grid().patches());
        let tokens: usize = patches.map(|n| n / 4).sum();
        assert_eq!(tokens, found.plan().image_tokens());
        let kinds = found.plan().views().into_iter().map(|view| view.kind);
        assert!(kinds.eq(found.views().iter().map(View::kind)));
        let values = processor.normalized(&found.views()[0]);
        assert_eq!(values.len(), found.views()[0].patches().len());
    }
}
