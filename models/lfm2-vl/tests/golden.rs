//! Every golden case against the reference: sizes, pixels, positions, prompts, refusals, models.

mod golden_models;
mod support;

use anyhow::{Context, Result, ensure};
use candle_core::{Device, Tensor};
use lfm2_hub::{Bos, Error, SpecialTokens};
use lfm2_vl::{
    Filter, ImageProcessor, ImageSettings, ImageTokens, ImageViews, PatchGrid, Picture,
    PositionTable, Size, TileGrid, best_grid, is_too_large, resize, single_view,
};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use support::{Set, Values, ensure_close, for_every_set, list, size, sizes, text};

#[test]
fn sizes_are_the_references() -> Result<()> {
    for_every_set(|set, failures| {
        let json = set.json("sizes.json")?;
        let columns: Vec<&str> = list(&json["columns"])?
            .iter()
            .map(text)
            .collect::<Result<_>>()?;
        for row in list(&json["rows"])? {
            let row: Map<String, Value> = columns
                .iter()
                .map(|name| (*name).to_owned())
                .zip(list(row)?.iter().cloned())
                .collect();
            failures.note(&format!("{row:?}"), check_sizes(&row.into()));
        }
        Ok(())
    })
}

fn check_sizes(row: &Value) -> Result<()> {
    let settings = ImageSettings::default().overridden(row)?;
    let number = |key: &str| size(&row[key]);
    let source = Size::new(number("width")?, number("height")?);
    let (least, most) = (settings.min_image_tokens, settings.max_image_tokens);
    let single = single_view(&settings, source, least, most);
    ensure!(
        single == Size::new(number("single_width")?, number("single_height")?),
        "{single}"
    );
    ensure!(
        is_too_large(&settings, source) == (number("too_large")? == 1),
        "too large"
    );
    let tiles = settings.min_tiles..=settings.max_tiles;
    let grid = best_grid(source, tiles, settings.tile_size);
    let expected = TileGrid {
        cols: number("grid_cols")?,
        rows: number("grid_rows")?,
    };
    ensure!(grid == expected, "{grid:?}");
    Ok(())
}

#[test]
fn resized_pixels_are_the_references() -> Result<()> {
    for_every_set(|set, failures| {
        let values = set.values("ops.safetensors")?;
        for case in list(&set.json("ops.json")?["resize"])? {
            let name = text(&case["name"])?;
            for (label, filter) in [("bilinear", Filter::Bilinear), ("bicubic", Filter::Bicubic)] {
                let outcome = check_resize(&values, case, (name, label), filter);
                failures.note(&format!("{name} {label}"), outcome);
            }
        }
        Ok(())
    })
}

fn check_resize(
    values: &Values,
    case: &Value,
    (name, label): (&str, &str),
    filter: Filter,
) -> Result<()> {
    let (from, to) = (sizes(&case["in_hw"])?, sizes(&case["out_hw"])?);
    let source = values.bytes(&format!("{name}.src"))?;
    let picture = Picture::from_fn(from[1], from[0], |x, y| {
        std::array::from_fn(|c| source[(c * from[0] + y) * from[1] + x])
    })?;
    let found = resize(&picture, to[1], to[0], filter)?;
    let expected = values.bytes(&format!("{name}.{label}"))?;
    let pixels = found.pixels();
    let planes = (0..3).flat_map(|c| pixels.iter().skip(c).step_by(3));
    let different = planes.zip(&expected).filter(|(f, e)| f != e).count();
    ensure!(
        pixels.len() == expected.len() && different == 0,
        "{different} values differ"
    );
    Ok(())
}

#[test]
fn position_tables_are_the_references() -> Result<()> {
    for_every_set(|set, failures| {
        let values = set.values("ops.safetensors")?;
        for case in list(&set.json("ops.json")?["pos"])? {
            let (side, to) = (size(&case["grid"])?, sizes(&case["to"])?);
            let name = format!("pos{side}.to_{}x{}", to[0], to[1]);
            failures.note(&name, check_positions(&values, &name, side, &to));
        }
        Ok(())
    })
}

fn check_positions(values: &Values, name: &str, side: usize, to: &[usize]) -> Result<()> {
    let table = format!("pos{side}.table");
    let dim = *values.shape(&table)?.last().context("no shape")?;
    let table = Tensor::from_vec(values.floats(&table)?, (side * side, dim), &Device::Cpu)?;
    let grid = PatchGrid {
        rows: to[0],
        cols: to[1],
    };
    let found = PositionTable::new(table)?.for_grid(grid)?;
    let found = found.flatten_all()?.to_vec1::<f32>()?;
    ensure_close(name, &found, &values.floats(name)?, (1e-5, 0.0))
}

#[test]
fn views_and_prompts_are_the_references() -> Result<()> {
    for_every_set(|set, failures| {
        let values = set.values("preprocess.safetensors")?;
        for case in list(&set.json("preprocess.json")?)? {
            let name = text(&case["name"])?;
            failures.note(name, check_views(set, &values, name, case));
        }
        Ok(())
    })
}

fn check_views(set: &Set, values: &Values, name: &str, case: &Value) -> Result<()> {
    let mut settings = case["settings"].clone();
    settings["use_image_special_tokens"] = case["use_image_special_tokens"].clone();
    let processor = ImageProcessor::new(ImageSettings::default().overridden(&settings)?)?;
    let settings = processor.settings();
    ensure!(
        settings.max_num_patches() == size(&case["max_num_patches"])?,
        "patches per view"
    );

    let mut pictures = Vec::new();
    for (at, picture) in set.pictures(&case["images"])?.iter().enumerate() {
        let (sides, single) = (
            sizes(&case["rgb_sizes_wh"][at])?,
            sizes(&case["single_view_sizes_hw"][at])?,
        );
        ensure!(
            picture.size() == Size::new(sides[0], sides[1]),
            "{picture:?}"
        );
        let (least, most) = (settings.min_image_tokens, settings.max_image_tokens);
        let found = single_view(settings, picture.size(), least, most);
        ensure!(
            found == Size::new(single[1], single[0]),
            "single view {found}"
        );
        let views = processor.process(picture)?;
        let grid = views.plan().grid().unwrap_or(TileGrid { cols: 1, rows: 1 });
        let expected = (size(&case["cols"][at])?, size(&case["rows"][at])?);
        ensure!((grid.cols, grid.rows) == expected, "{grid:?}");
        pictures.push(views);
    }
    check_pixels(values, name, &case["views"], (&processor, &pictures))?;

    let tokenizer = set.tokenizer()?;
    let tokens = ImageTokens::new(&tokenizer, settings)?;
    let prompt = tokenizer.encode(text(&case["text"])?, SpecialTokens::Parse, Bos::Omit)?;
    let plans: Vec<_> = pictures.iter().map(ImageViews::plan).collect();
    let ids = tokens.expand(&prompt, &plans)?;
    ensure!(
        ids == values.rows(&format!("{name}.input_ids"))?.concat(),
        "ids differ"
    );
    ensure!(ids.len() == size(&case["num_input_ids"])?);
    let places = ids.iter().filter(|&&id| id == tokens.image()).count();
    ensure!(places == size(&case["num_image_tokens"])?);
    let own = prompt.len() - plans.len();
    let counted: usize = plans.iter().map(|plan| plan.prompt_tokens()).sum();
    ensure!(own + counted == ids.len(), "the plan counts {counted}");
    Ok(())
}

fn check_pixels(
    values: &Values,
    name: &str,
    facts: &Value,
    (processor, pictures): (&ImageProcessor, &[ImageViews]),
) -> Result<()> {
    let views: Vec<_> = pictures.iter().flat_map(ImageViews::views).collect();
    let facts = list(facts)?;
    ensure!(views.len() == facts.len(), "{} views", views.len());
    for (at, (view, facts)) in views.iter().zip(facts).enumerate() {
        let grid = sizes(&facts["grid"])?;
        ensure!(
            [view.grid().rows, view.grid().cols] == grid[..],
            "view {at}: {:?}",
            view.grid()
        );
        let sum = |channel: usize| -> usize {
            let values = view.patches().iter().skip(channel).step_by(3);
            values.map(|&v| usize::from(v)).sum()
        };
        let sums: Vec<usize> = (0..3).map(sum).collect();
        let expected = sizes(&facts["channel_sums_u8"])?;
        ensure!(
            sums == expected,
            "view {at}: sums {sums:?}, expected {expected:?}"
        );
        let hash = Sha256::digest(view.patches());
        let hash: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        ensure!(
            hash == text(&facts["sha256_u8_patches"])?,
            "view {at}: another hash"
        );
        let normalized = processor.normalized(view);
        let step = size(&facts["sample_step"])?;
        let sample: Vec<f32> = normalized.into_iter().step_by(step).collect();
        let expected = values.floats(&format!("{name}.view{at}.sample"))?;
        ensure_close(&format!("view {at}"), &sample, &expected, (2e-6, 0.0))?;
        let whole = format!("{name}.view{at}.u8");
        if values.has(&whole)? {
            ensure!(
                values.bytes(&whole)? == view.patches(),
                "view {at}: other bytes"
            );
        }
    }
    Ok(())
}

#[test]
fn what_the_reference_refuses_is_refused() -> Result<()> {
    for_every_set(|set, failures| {
        let tokenizer = set.tokenizer()?;
        let processor = ImageProcessor::new(ImageSettings::default())?;
        let tokens = ImageTokens::new(&tokenizer, processor.settings())?;
        for case in list(&set.json("errors.json")?)? {
            let why = text(&case["why"])?;
            let prompt = tokenizer.encode(text(&case["text"])?, SpecialTokens::Parse, Bos::Omit)?;
            let pictures = set.pictures(&case["images"])?;
            let plans: Vec<_> = pictures.iter().map(|p| processor.plan(p.size())).collect();
            let found = tokens.expand(&prompt, &plans.iter().collect::<Vec<_>>());
            let refused = matches!(found, Err(Error::InvalidInput(_)));
            failures.note(
                why,
                refused.then_some(()).with_context(|| format!("{found:?}")),
            );
        }
        Ok(())
    })
}
