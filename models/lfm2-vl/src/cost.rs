//! What pictures cost: [`Speed`] predicts the time of a plan, [`Cost`] puts it into words.

use std::fmt;
use std::time::Duration;

use crate::plan::{ImagePlan, PlannedView};
use crate::settings::ImageSettings;

/// How fast a model reads pictures on this machine.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Speed {
    /// Seconds of the vision tower per patch, attention apart.
    pub per_patch: f64,
    /// Seconds of the vision tower's attention per pair of patches of a view.
    pub per_pair: f64,
    /// Seconds of the text model per token of the prompt.
    pub per_token: f64,
}

impl Speed {
    /// Seconds until a picture with this plan is read.
    pub fn seconds(&self, plan: &ImagePlan, settings: &ImageSettings) -> f64 {
        let view = |view: PlannedView| {
            let patches = (view.tokens * settings.downsample_factor.pow(2)) as f64;
            patches * self.per_patch + patches * patches * self.per_pair
        };
        let tower: f64 = plan.views().into_iter().map(view).sum();
        tower + plan.prompt_tokens() as f64 * self.per_token
    }
}

/// What a picture costs, to be shown before anything is computed.
#[derive(Debug, Clone, PartialEq)]
pub struct Cost {
    /// The views.
    pub views: Vec<PlannedView>,
    /// Patches that the vision tower reads.
    pub patches: usize,
    /// Tokens of the prompt, markers included.
    pub tokens: usize,
    /// How long reading it will take, where the speed is known.
    pub time: Option<Duration>,
}

impl Cost {
    /// The cost of a picture with this plan.
    pub fn new(plan: &ImagePlan, settings: &ImageSettings, speed: Option<&Speed>) -> Self {
        let seconds = speed.map(|speed| speed.seconds(plan, settings));
        Self {
            views: plan.views(),
            patches: plan.image_tokens() * settings.downsample_factor.pow(2),
            tokens: plan.prompt_tokens(),
            time: seconds.and_then(|s| Duration::try_from_secs_f64(s).ok()),
        }
    }
}

/// One line per view, then the sums.
impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for view in &self.views {
            writeln!(f, "{}: {}, {} tokens", view.kind, view.size, view.tokens)?;
        }
        write!(
            f,
            "{} views, {} patches, {} tokens with markers",
            self.views.len(),
            self.patches,
            self.tokens
        )?;
        match self.time {
            Some(time) => write!(f, ", about {} ms", time.as_millis()),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Size;

    #[test]
    fn the_price_is_that_of_patches_pairs_and_tokens() {
        let settings = ImageSettings::default();
        let plan = ImagePlan::new(&settings, Size::new(1000, 3000));
        let speed = Speed {
            per_patch: 1.0,
            per_pair: 0.0,
            per_token: 0.0,
        };
        assert_eq!(speed.seconds(&plan, &settings), 1011.0 * 4.0);
        let pairs = Speed {
            per_patch: 0.0,
            per_pair: 1.0,
            per_token: 0.0,
        };
        let expected = 3.0 * 1024f64.powi(2) + 972f64.powi(2);
        assert_eq!(pairs.seconds(&plan, &settings), expected);
        let tokens = Speed {
            per_patch: 0.0,
            per_pair: 0.0,
            per_token: 0.5,
        };
        assert_eq!(tokens.seconds(&plan, &settings), 1017.0 / 2.0);
    }

    #[test]
    fn words_name_every_view_and_the_sums() {
        let settings = ImageSettings::default();
        let plan = ImagePlan::new(&settings, Size::new(800, 1600));
        let speed = Speed {
            per_patch: 1e-3,
            per_pair: 0.0,
            per_token: 0.0,
        };
        let text = Cost::new(&plan, &settings, Some(&speed)).to_string();
        assert!(
            text.starts_with("tile in row 1, column 1: 512 x 512, 256 tokens\n"),
            "{text}"
        );
        assert!(
            text.contains("thumbnail: 352 x 704, 242 tokens\n"),
            "{text}"
        );
        assert!(text.contains(" tokens with markers, about "), "{text}");
        assert!(
            !Cost::new(&plan, &settings, None)
                .to_string()
                .contains("about")
        );
    }
}
