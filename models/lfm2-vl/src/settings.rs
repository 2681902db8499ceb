//! [`ImageSettings`]: how pictures become views, merged from the files of a checkpoint.
//!
//! Published checkpoints keep these settings in three layouts, none of which holds all of them: copies
//! in `config.json`, `preprocessor_config.json`, and `processor_config.json`, flat or nested. They are
//! read in this order, and later ones win. What this library does anyway or never does is ignored:
//! `do_resize`, `do_pad`, `size`, `max_num_patches`, the order of axes and anything about devices.

use lfm2_hub::{CheckpointInfo, Error, Result};
use lfm2_text::{ConfigKeys, wrong_config};
use serde_json::Value;

use crate::picture::CHANNELS;
use crate::resize::Filter;

/// The markers of rows and columns that the vocabularies have.
const MAX_GRID: usize = 10;

/// Larger patches, tiles and budgets than these cannot be meant.
const MAX_PATCH: usize = 64;
const MAX_FACTOR: usize = 8;
const MAX_TILE: usize = 4096;
const MAX_TOKENS: usize = 1 << 14;

/// How pictures become views. The defaults are those of the published processors.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ImageSettings {
    /// Patches per side that the projector makes one token of.
    pub downsample_factor: usize,
    /// Pixels per side of a patch.
    pub patch_size: usize,
    /// Whether large pictures are cut into tiles.
    pub do_image_splitting: bool,
    /// The fewest tiles that a picture is cut into.
    pub min_tiles: usize,
    /// The most tiles that a picture is cut into.
    pub max_tiles: usize,
    /// Pixels per side of a tile.
    pub tile_size: usize,
    /// Whether the whole picture, small, follows its tiles.
    pub use_thumbnail: bool,
    /// The fewest tokens of a picture in one view, and of a thumbnail.
    pub min_image_tokens: usize,
    /// The most tokens of a picture in one view, and of a thumbnail. Tiles have a fixed number,
    /// whatever this is; to bound what a picture takes in all, see [`Budget`](crate::Budget).
    pub max_image_tokens: usize,
    /// How many times the pixels of `max_image_tokens` a picture may have before it is cut.
    pub max_pixels_tolerance: f64,
    /// How pictures are resized.
    pub resample: Filter,
    /// Whether pixels are multiplied by `rescale_factor`.
    pub do_rescale: bool,
    /// What pixels are multiplied by.
    pub rescale_factor: f64,
    /// Whether `image_mean` is subtracted from pixels, and `image_std` divides them.
    pub do_normalize: bool,
    /// Per channel, what is subtracted.
    pub image_mean: [f64; CHANNELS],
    /// Per channel, what divides.
    pub image_std: [f64; CHANNELS],
    /// Whether markers stand around and inside the tokens of a picture.
    pub use_image_special_tokens: bool,
}

impl Default for ImageSettings {
    fn default() -> Self {
        Self {
            downsample_factor: 2,
            patch_size: 16,
            do_image_splitting: true,
            min_tiles: 2,
            max_tiles: 10,
            tile_size: 512,
            use_thumbnail: true,
            min_image_tokens: 64,
            max_image_tokens: 256,
            max_pixels_tolerance: 2.0,
            resample: Filter::Bilinear,
            do_rescale: true,
            rescale_factor: 1.0 / 255.0,
            do_normalize: true,
            image_mean: [0.5; CHANNELS],
            image_std: [0.5; CHANNELS],
            use_image_special_tokens: true,
        }
    }
}

impl ImageSettings {
    /// The settings of a checkpoint, from whichever of its files have some.
    ///
    /// # Errors
    /// As [`from_files`](Self::from_files), and whatever reading a file gives.
    pub fn of(info: &CheckpointInfo) -> Result<Self> {
        Self::from_files(
            info.config(),
            info.json("preprocessor_config.json")?.as_ref(),
            info.json("processor_config.json")?.as_ref(),
        )
    }

    /// The settings of a checkpoint: `config.json`, `preprocessor_config.json` and
    /// `processor_config.json`, as far as there are any.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`] naming the key, also for settings that contradict each other.
    pub fn from_files(
        config: &Value,
        preprocessor: Option<&Value>,
        processor: Option<&Value>,
    ) -> Result<Self> {
        let mut settings = Self::default();
        settings.apply(config, "config.json")?;
        if let Some(json) = preprocessor {
            settings.apply(json, "preprocessor_config.json")?;
        }
        if let Some(json) = processor {
            settings.apply(json, "processor_config.json")?;
            if let Some(nested) = json.get("image_processor").filter(|v| !v.is_null()) {
                settings.apply(nested, "image_processor")?;
            }
        }
        settings.check()?;
        Ok(settings)
    }

    /// These settings with the keys of `json`, spelled as in the files, in place of their own.
    ///
    /// # Errors
    /// As [`from_files`](Self::from_files).
    pub fn overridden(&self, json: &Value) -> Result<Self> {
        let mut settings = self.clone();
        settings.apply(json, "overrides of image settings")?;
        settings.check()?;
        Ok(settings)
    }

    /// The pixels per side of what becomes one token.
    pub fn token_side(&self) -> usize {
        self.patch_size * self.downsample_factor
    }

    /// The tokens of a tile.
    pub fn tile_tokens(&self) -> usize {
        (self.tile_size / self.token_side()).pow(2)
    }

    /// The most patches a view can have.
    pub fn max_num_patches(&self) -> usize {
        let single = self.max_image_tokens * self.downsample_factor.pow(2);
        match self.do_image_splitting {
            true => single.max((self.tile_size / self.patch_size).pow(2)),
            false => single,
        }
    }

    /// The fewest and the most tiles, as the grid search takes them.
    pub(crate) fn tile_range(&self) -> (usize, usize) {
        match self.do_image_splitting {
            true => (self.min_tiles, self.max_tiles),
            false => (1, 1),
        }
    }

    /// Checks that the settings go together.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`] naming the keys.
    pub fn check(&self) -> Result<()> {
        within("encoder_patch_size", self.patch_size, 1, MAX_PATCH)?;
        within("downsample_factor", self.downsample_factor, 1, MAX_FACTOR)?;
        within("tile_size", self.tile_size, 1, MAX_TILE)?;
        within("max_image_tokens", self.max_image_tokens, 1, MAX_TOKENS)?;
        within("min_image_tokens", self.min_image_tokens, 1, MAX_TOKENS)?;
        if !self.tile_size.is_multiple_of(self.token_side()) {
            return Err(Error::config(
                "tile_size, encoder_patch_size, downsample_factor",
                format!(
                    "{} is not a multiple of {} * {}",
                    self.tile_size, self.patch_size, self.downsample_factor
                ),
            ));
        }
        for (low, high, found) in [
            (
                "min_image_tokens",
                "max_image_tokens",
                (self.min_image_tokens, self.max_image_tokens),
            ),
            ("min_tiles", "max_tiles", (self.min_tiles, self.max_tiles)),
        ] {
            if found.0 > found.1 {
                let detail = format!("{} is more than {}", found.0, found.1);
                return Err(Error::config(format!("{low}, {high}"), detail));
            }
        }
        within("min_tiles", self.min_tiles, 1, MAX_GRID)?;
        within("max_tiles", self.max_tiles, 1, MAX_GRID)?;
        for (key, number) in [
            ("max_pixels_tolerance", self.max_pixels_tolerance),
            ("rescale_factor", self.rescale_factor),
        ] {
            positive(key, number)?;
        }
        for number in self.image_std {
            positive("image_std", number)?;
        }
        match self.image_mean.iter().find(|mean| !mean.is_finite()) {
            Some(mean) => Err(Error::config(
                "image_mean",
                format!("expected finite numbers, found {mean}"),
            )),
            None => Ok(()),
        }
    }

    fn apply(&mut self, json: &Value, file: &str) -> Result<()> {
        let keys = ConfigKeys::new(file, json)?;
        let sizes = [
            ("downsample_factor", &mut self.downsample_factor),
            ("encoder_patch_size", &mut self.patch_size),
            ("min_tiles", &mut self.min_tiles),
            ("max_tiles", &mut self.max_tiles),
            ("tile_size", &mut self.tile_size),
            ("min_image_tokens", &mut self.min_image_tokens),
            ("max_image_tokens", &mut self.max_image_tokens),
        ];
        for (key, field) in sizes {
            replace(field, keys.size(key)?);
        }
        let switches = [
            ("do_image_splitting", &mut self.do_image_splitting),
            ("use_thumbnail", &mut self.use_thumbnail),
            ("do_rescale", &mut self.do_rescale),
            ("do_normalize", &mut self.do_normalize),
            (
                "use_image_special_tokens",
                &mut self.use_image_special_tokens,
            ),
        ];
        for (key, field) in switches {
            replace(field, keys.bool(key)?);
        }
        let numbers = [
            ("max_pixels_tolerance", &mut self.max_pixels_tolerance),
            ("rescale_factor", &mut self.rescale_factor),
        ];
        for (key, field) in numbers {
            replace(field, keys.float(key)?);
        }
        replace(&mut self.image_mean, channels(keys, "image_mean")?);
        replace(&mut self.image_std, channels(keys, "image_std")?);
        replace(&mut self.resample, filter(keys)?);
        Ok(())
    }
}

fn replace<T>(field: &mut T, found: Option<T>) {
    if let Some(found) = found {
        *field = found;
    }
}

/// One number per channel, or one for all.
fn channels(keys: ConfigKeys<'_>, key: &str) -> Result<Option<[f64; CHANNELS]>> {
    let Some(value) = keys.get(key) else {
        return Ok(None);
    };
    let numbers: Option<Vec<f64>> = match value {
        Value::Array(list) => list.iter().map(Value::as_f64).collect(),
        one => one.as_f64().map(|number| vec![number; CHANNELS]),
    };
    match numbers.and_then(|numbers| numbers.try_into().ok()) {
        Some(numbers) => Ok(Some(numbers)),
        None => Err(wrong_config(key, "three numbers", value)),
    }
}

fn filter(keys: ConfigKeys<'_>) -> Result<Option<Filter>> {
    let Some(code) = keys.size("resample")? else {
        return Ok(None);
    };
    match Filter::from_code(code as u64) {
        Some(filter) => Ok(Some(filter)),
        None => Err(Error::config(
            "resample",
            format!("expected 2 (bilinear) or 3 (bicubic), found {code}"),
        )),
    }
}

fn within(key: &str, found: usize, least: usize, most: usize) -> Result<()> {
    if (least..=most).contains(&found) {
        return Ok(());
    }
    Err(Error::config(
        key,
        format!("expected a number from {least} to {most}, found {found}"),
    ))
}

fn positive(key: &str, found: f64) -> Result<()> {
    if found.is_finite() && found > 0.0 {
        return Ok(());
    }
    Err(Error::config(
        key,
        format!("expected a number above 0, found {found}"),
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn later_files_win_and_null_says_nothing() {
        let config = json!({"tile_size": 256, "max_tiles": 4, "min_image_tokens": 8});
        let preprocessor = json!({"max_tiles": 5, "resample": 3, "do_resize": false});
        let processor = json!({
            "max_tiles": 6, "min_tiles": 3, "use_image_special_tokens": false,
            "image_processor": {"min_tiles": 4, "max_tiles": null, "image_mean": 0.25},
        });
        let found = ImageSettings::from_files(&config, Some(&preprocessor), Some(&processor));
        let expected = ImageSettings {
            tile_size: 256,
            min_image_tokens: 8,
            resample: Filter::Bicubic,
            max_tiles: 6,
            min_tiles: 4,
            use_image_special_tokens: false,
            image_mean: [0.25; 3],
            ..ImageSettings::default()
        };
        assert_eq!(found.unwrap(), expected);
    }

    #[test]
    fn cf_14_settings_that_cannot_be_are_refused_by_key() {
        for (key, value) in [
            ("tile_size", json!(0)),
            ("tile_size", json!(500)),
            ("encoder_patch_size", json!(0)),
            ("downsample_factor", json!(0)),
            ("max_tiles", json!(11)),
            ("max_tiles", json!(1)),
            ("min_tiles", json!(0)),
            ("max_image_tokens", json!(0)),
            ("min_image_tokens", json!(257)),
            ("resample", json!(1)),
            ("image_std", json!([0.5, 0.0, 0.5])),
            ("image_mean", json!([0.5, 0.5])),
            ("max_pixels_tolerance", json!("2")),
            ("rescale_factor", json!(0)),
            ("use_thumbnail", json!(1)),
        ] {
            let file = json!({ key: value });
            let error = ImageSettings::default().overridden(&file).unwrap_err();
            assert!(
                matches!(error, Error::InvalidConfig { .. }),
                "{key}: {error}"
            );
            assert!(error.to_string().contains(key), "{key}: {error}");
        }
    }

    #[test]
    fn a_view_has_as_many_patches_as_its_largest_kind() {
        let settings = |file| ImageSettings::default().overridden(&file).unwrap();
        assert_eq!(settings(json!({})).max_num_patches(), 1024);
        let small = json!({"max_image_tokens": 64});
        assert_eq!(settings(small).max_num_patches(), 1024);
        let alone = json!({"max_image_tokens": 64, "do_image_splitting": false});
        assert_eq!(settings(alone).max_num_patches(), 256);
    }
}
