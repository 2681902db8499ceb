//! [`Budget`]: what all pictures of a request may take together, and never more.
//!
//! `max_image_tokens` bounds one view only: tiles have a fixed number of tokens, and lowering it makes
//! more pictures be cut, which costs more. A budget bounds the sum. Every picture has a list of plans
//! from one token up to what its settings give, which does not depend on the budget; what is chosen from
//! it can only shrink when the budget does.

use std::time::Duration;

use lfm2_hub::{Error, Result};

use crate::cost::Speed;
use crate::plan::{ImagePlan, Size, TileGrid, best_grid, shorten, single_view};
use crate::settings::ImageSettings;

/// How much narrower or wider than the picture a grid may be, if it is not the settings' own.
const MAX_STRETCH: f64 = 1.5;

/// What all pictures of a request may take together.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Budget {
    /// Tokens of the prompt, markers included.
    Tokens(usize),
    /// Time until they are read, as [`Speed`] predicts it.
    Time(Duration, Speed),
}

/// A plan with what it costs, in the unit of the budget.
#[derive(Debug, Clone)]
struct Priced {
    plan: ImagePlan,
    tokens: usize,
    cost: f64,
}

impl Budget {
    /// A plan for each picture, in order. Small pictures keep theirs and large ones share what is left.
    ///
    /// # Errors
    /// [`Error::Limit`] when the smallest plans cost more.
    pub(crate) fn plan(&self, settings: &ImageSettings, sizes: &[Size]) -> Result<Vec<ImagePlan>> {
        let ladders: Vec<Vec<Priced>> = sizes
            .iter()
            .map(|&size| self.ladder(settings, size))
            .collect();
        let mut levels: Vec<f64> = ladders.iter().flatten().map(|step| step.cost).collect();
        levels.sort_by(f64::total_cmp);
        let total = |level: f64| -> f64 { ladders.iter().map(|l| choose(l, level).cost).sum() };
        // Costs of all together rise with the level, so the levels within the budget come first.
        let within = levels.partition_point(|&level| total(level) <= self.limit());
        let Some(&level) = within.checked_sub(1).and_then(|last| levels.get(last)) else {
            return match sizes {
                [] => Ok(Vec::new()),
                _ => Err(self.too_small(total(f64::NEG_INFINITY))),
            };
        };
        Ok(ladders
            .iter()
            .map(|ladder| choose(ladder, level).plan.clone())
            .collect())
    }

    fn limit(&self) -> f64 {
        match self {
            Self::Tokens(tokens) => *tokens as f64,
            Self::Time(time, _) => time.as_secs_f64(),
        }
    }

    fn cost(&self, plan: &ImagePlan, settings: &ImageSettings) -> f64 {
        match self {
            Self::Tokens(_) => plan.prompt_tokens() as f64,
            Self::Time(_, speed) => speed.seconds(plan, settings),
        }
    }

    fn too_small(&self, least: f64) -> Error {
        let (what, unit) = match self {
            Self::Tokens(_) => ("least tokens of the pictures", 1.0),
            Self::Time(..) => ("least milliseconds of the pictures", 1000.0),
        };
        Error::Limit {
            what: what.to_owned(),
            limit: (self.limit() * unit) as u64,
            found: (least * unit).ceil() as u64,
        }
    }

    /// The plans of one picture, each with more tokens than those that cost less; never empty.
    fn ladder(&self, settings: &ImageSettings, source: Size) -> Vec<Priced> {
        let own = ImagePlan::new(settings, source);
        let most = own.prompt_tokens();
        let price = |plan: ImagePlan| Priced {
            tokens: plan.prompt_tokens(),
            cost: self.cost(&plan, settings),
            plan,
        };
        let mut steps: Vec<Priced> = std::iter::once(own.clone())
            .chain(smaller_plans(settings, source, &own))
            .map(price)
            .filter(|step| step.tokens <= most)
            .collect();
        // Stable, so that of equals the settings' own plan comes first.
        steps.sort_by(|a, b| a.cost.total_cmp(&b.cost).then(b.tokens.cmp(&a.tokens)));
        let mut best = 0;
        steps.retain(|step| {
            let more = step.tokens > best;
            best = best.max(step.tokens);
            more
        });
        steps
    }
}

/// The dearest step that costs no more than `level`, or else the cheapest.
fn choose(ladder: &[Priced], level: f64) -> &Priced {
    let within = ladder.partition_point(|step| step.cost <= level);
    &ladder[within.saturating_sub(1)]
}

/// Plans like `own` with fewer tiles, smaller thumbnails or none, and one smaller view.
fn smaller_plans(settings: &ImageSettings, source: Size, own: &ImagePlan) -> Vec<ImagePlan> {
    let wholes = whole_sizes(settings, source);
    let with = |grid: Option<TileGrid>, whole: Option<Size>| ImagePlan {
        grid,
        whole,
        ..own.clone()
    };
    let mut plans = Vec::new();
    for grid in fewer_tiles(settings, source, own.grid) {
        if settings.use_thumbnail {
            plans.extend(wholes.iter().map(|&whole| with(Some(grid), Some(whole))));
        }
        plans.push(with(Some(grid), None));
    }
    plans.extend(wholes.iter().map(|&whole| with(None, Some(whole))));
    plans
}

/// The sizes of a view of the whole picture, from the largest to a single token.
fn whole_sizes(settings: &ImageSettings, source: Size) -> Vec<Size> {
    let unit = settings.token_side();
    let size = |most: usize| {
        let least = settings.min_image_tokens.min(most);
        shorten(single_view(settings, source, least, most), unit, most)
    };
    let mut sizes: Vec<Size> = (1..=settings.max_image_tokens).rev().map(size).collect();
    sizes.dedup();
    sizes
}

/// The grids that a picture may be cut into, from the one it has; none if it is not cut.
fn fewer_tiles(settings: &ImageSettings, source: Size, own: Option<TileGrid>) -> Vec<TileGrid> {
    let stretch = |grid: TileGrid| {
        let picture = source.width as f64 / source.height as f64;
        let ratio = picture * grid.rows as f64 / grid.cols as f64;
        ratio.max(ratio.recip())
    };
    let Some(own) = own else {
        return Vec::new();
    };
    let (least, most) = settings.tile_range();
    let allowed = stretch(own).max(MAX_STRETCH);
    let mut grids = vec![own];
    for most in (least..=most).rev() {
        let grid = best_grid(source, least..=most, settings.tile_size);
        if grid.tiles() > 1 && stretch(grid) <= allowed && !grids.contains(&grid) {
            grids.push(grid);
        }
    }
    grids
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn total(plans: &[ImagePlan]) -> usize {
        plans.iter().map(ImagePlan::prompt_tokens).sum()
    }

    const SPEED: Speed = Speed {
        per_patch: 2e-3,
        per_pair: 1e-7,
        per_token: 3e-3,
    };

    #[test]
    fn enough_leaves_the_settings_plans_alone() {
        let settings = ImageSettings::default();
        for size in [
            Size::new(1280, 1024),
            Size::new(30, 30),
            Size::new(1000, 3000),
        ] {
            let own = ImagePlan::new(&settings, size);
            let budget = Budget::Tokens(own.prompt_tokens());
            assert_eq!(
                budget.plan(&settings, &[size]).unwrap(),
                std::slice::from_ref(&own)
            );
            let time = Duration::from_secs_f64(SPEED.seconds(&own, &settings) + 1e-9);
            let found = Budget::Time(time, SPEED).plan(&settings, &[size]).unwrap();
            assert_eq!(found, [own]);
        }
    }

    #[test]
    fn less_gives_fewer_tiles_and_then_one_view() {
        let settings = ImageSettings::default();
        let plan = |tokens| {
            let size = Size::new(1280, 1024);
            let plans = Budget::Tokens(tokens).plan(&settings, &[size]).unwrap();
            (plans[0].grid().map_or(0, TileGrid::tiles), total(&plans))
        };
        assert_eq!(plan(2554), (9, 2554));
        assert_eq!(plan(2553).0, 9, "with a smaller thumbnail");
        let (tiles, tokens) = plan(1200);
        assert!(tiles == 4 && tokens > 1000, "{tiles} {tokens}");
        assert_eq!(plan(258).0, 0);
        assert_eq!(plan(3), (0, 3));
    }

    #[test]
    fn the_trap_of_a_small_view_budget_is_none() {
        let settings = ImageSettings::default().overridden(&json!({"max_image_tokens": 64}));
        let settings = settings.unwrap();
        let size = Size::new(465, 450);
        assert_eq!(ImagePlan::new(&settings, size).image_tokens(), 1080);
        let plans = Budget::Tokens(80).plan(&settings, &[size]).unwrap();
        assert!(total(&plans) <= 80 && plans[0].grid().is_none());
    }

    #[test]
    fn small_pictures_leave_their_share_to_large_ones() {
        let settings = ImageSettings::default();
        let sizes = [Size::new(256, 256), Size::new(2000, 2000)];
        let plans = Budget::Tokens(1400).plan(&settings, &sizes).unwrap();
        assert_eq!(plans[0], ImagePlan::new(&settings, sizes[0]));
        assert!(total(&plans) <= 1400 && plans[1].prompt_tokens() > 1000);
    }

    #[test]
    fn im_10_a_budget_below_the_least_is_refused_with_both_numbers() {
        let settings = ImageSettings::default();
        let sizes = [Size::new(100, 100); 3];
        let error = Budget::Tokens(8).plan(&settings, &sizes).unwrap_err();
        assert!(
            matches!(
                error,
                Error::Limit {
                    limit: 8,
                    found: 9,
                    ..
                }
            ),
            "{error}"
        );
        assert!(Budget::Tokens(0).plan(&settings, &[]).unwrap().is_empty());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_budget_is_never_exceeded_and_less_never_gives_more(
            sizes in prop::collection::vec((1usize..5000, 1usize..5000), 1..4),
            (least, more, fewest, tiles) in (1usize..200, 0usize..200, 1usize..=10, 0usize..9),
            (side, tolerance) in (1usize..20, 0.1f64..8.0),
            (splitting, thumbnail, markers, in_time) in any::<(bool, bool, bool, bool)>(),
            mut budgets in prop::collection::vec(0usize..6000, 2..6),
        ) {
            let settings = ImageSettings::default().overridden(&json!({
                "min_image_tokens": least, "max_image_tokens": least + more,
                "min_tiles": fewest, "max_tiles": (fewest + tiles).min(10), "tile_size": 32 * side,
                "max_pixels_tolerance": tolerance, "do_image_splitting": splitting,
                "use_thumbnail": thumbnail, "use_image_special_tokens": markers,
            })).unwrap();
            let sizes: Vec<Size> = sizes.into_iter().map(|(w, h)| Size::new(w, h)).collect();
            budgets.sort_unstable();
            let mut before = 0;
            for tokens in budgets {
                let budget = match in_time {
                    true => Budget::Time(Duration::from_millis(tokens as u64 * 10), SPEED),
                    false => Budget::Tokens(tokens),
                };
                let Ok(plans) = budget.plan(&settings, &sizes) else {
                    prop_assert!(before == 0, "more of it is not enough");
                    continue;
                };
                prop_assert_eq!(plans.len(), sizes.len());
                let cost: f64 = plans.iter().map(|plan| budget.cost(plan, &settings)).sum();
                prop_assert!(cost <= budget.limit());
                prop_assert!(total(&plans) >= before);
                before = total(&plans);
                for (plan, size) in plans.iter().zip(&sizes) {
                    prop_assert!(plan.prompt_tokens() <= ImagePlan::new(&settings, *size).prompt_tokens());
                    for view in plan.views() {
                        prop_assert!(view.tokens >= 1 && view.tokens * 4 <= settings.max_num_patches());
                    }
                }
            }
        }
    }
}
