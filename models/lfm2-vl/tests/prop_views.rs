//! Whatever the picture, the settings and the budget: as many features as places, and no more than asked.

mod support;

use anyhow::{Context, Result};
use lfm2_vl::{Budget, ImageProcessor, ImageSettings, ImageTokens, ImageViews, Picture, Size};
use proptest::prelude::*;
use serde_json::{Value, json};
use support::sets;

fn settings() -> impl Strategy<Value = Value> {
    (
        (1usize..40, 0usize..60),
        (1usize..=10, 0usize..9),
        (1usize..5, 1usize..=3, 1usize..=20),
        0.1f64..4.0,
        any::<(bool, bool, bool, bool)>(),
    )
        .prop_map(
            |(tokens, tiles, (side, factor, patch), tolerance, switches)| {
                json!({
                    "encoder_patch_size": patch, "downsample_factor": factor,
                    "tile_size": side * factor * patch,
                    "min_image_tokens": tokens.0, "max_image_tokens": tokens.0 + tokens.1,
                    "min_tiles": tiles.0, "max_tiles": (tiles.0 + tiles.1).min(10),
                    "max_pixels_tolerance": tolerance, "do_image_splitting": switches.0,
                    "use_thumbnail": switches.1, "use_image_special_tokens": switches.2,
                    "resample": if switches.3 { 2 } else { 3 },
                })
            },
        )
}

/// The patches that views have, and the places that a prompt has for them.
fn features_and_places(processor: &ImageProcessor, views: &ImageViews) -> Result<(usize, usize)> {
    let set = sets().into_iter().next().context("no golden data")?;
    let tokens = ImageTokens::new(&set.tokenizer()?, processor.settings())?;
    let prompt = tokens.expand(&[tokens.image()], &[views.plan()])?;
    let places = prompt.iter().filter(|&&id| id == tokens.image()).count();
    assert_eq!(prompt.len(), views.plan().prompt_tokens());
    let factor = processor.settings().downsample_factor;
    let values = processor.settings().patch_size.pow(2) * 3;
    let mut features = 0;
    for view in views.views() {
        let grid = view.grid();
        assert!(grid.rows % factor == 0 && grid.cols % factor == 0);
        assert_eq!(view.patches().len(), grid.patches() * values);
        assert_eq!(processor.normalized(view).len(), view.patches().len());
        features += grid.patches() / factor.pow(2);
    }
    Ok((features, places))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn pictures_have_as_many_features_as_places(
        settings in settings(), (width, height) in (1usize..300, 1usize..300), budget in 3usize..400,
    ) {
        let processor = ImageProcessor::new(ImageSettings::default().overridden(&settings).unwrap()).unwrap();
        let picture = Picture::from_fn(width, height, |x, y| [x as u8, y as u8, 1]).unwrap();
        let own = processor.process(&picture).unwrap();
        let within = processor.plan_within(&[picture.size()], &Budget::Tokens(budget)).unwrap().remove(0);
        prop_assert!(within.prompt_tokens() <= budget);
        let within = processor.process_as(&picture, within).unwrap();
        for views in [own, within] {
            let (features, places) = features_and_places(&processor, &views).unwrap();
            prop_assert_eq!(features, places);
        }
    }

    #[test]
    fn any_size_has_a_plan(settings in settings(), (width, height) in (1usize..5000, 1usize..5000)) {
        let processor = ImageProcessor::new(ImageSettings::default().overridden(&settings).unwrap()).unwrap();
        let size = Size::new(width, height);
        let own = processor.plan(size).prompt_tokens();
        let mut before = 0;
        for budget in [3, 10, 40, 200, 1000, 100_000] {
            let plans = processor.plan_within(&[size], &Budget::Tokens(budget)).unwrap();
            let tokens = plans[0].prompt_tokens();
            prop_assert!(tokens <= budget.min(own) && tokens >= before);
            before = tokens;
        }
        prop_assert_eq!(before, own);
    }
}
