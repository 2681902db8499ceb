//! Checkpoints whose files contradict each other.

mod support;

use std::path::Path;

use anyhow::{Context, Result, ensure};
use lfm2_hub::{Error, ErrorKind, ModelSource, OpenOptions};
use lfm2_vl::{VlModel, VlOptions};
use serde_json::{Value, json};
use support::sets;

/// A copy of a golden checkpoint whose file `name` was changed.
fn changed(name: &str, change: impl FnOnce(&mut Value)) -> Result<tempfile::TempDir> {
    let set = sets().into_iter().next().context("no golden data")?;
    let model = set.models()?.into_iter().next().context("no model")?;
    let copy = tempfile::tempdir()?;
    for entry in std::fs::read_dir(set.folder.join("models").join(model))? {
        let entry = entry?;
        std::fs::copy(entry.path(), copy.path().join(entry.file_name()))?;
    }
    let path = copy.path().join(name);
    let mut json: Value = serde_json::from_slice(&std::fs::read(&path)?)?;
    change(&mut json);
    std::fs::write(path, json.to_string())?;
    Ok(copy)
}

fn open(folder: &Path) -> lfm2_hub::Result<VlModel> {
    let source = ModelSource::Dir(folder.to_owned());
    VlModel::open(&source, &OpenOptions::default(), &VlOptions::default())
}

/// Opens the changed checkpoint, which has to be refused as an invalid model in these words.
fn ensure_refused(name: &str, change: impl FnOnce(&mut Value), words: &[&str]) -> Result<()> {
    let copy = changed(name, change)?;
    let error = open(copy.path()).err().context("it was opened")?;
    ensure!(error.kind() == ErrorKind::InvalidModel, "{error}");
    for word in words {
        ensure!(
            error.to_string().contains(word),
            "{error} does not say {word}"
        );
    }
    Ok(())
}

#[test]
fn an_unchanged_copy_opens() -> Result<()> {
    let copy = changed("config.json", |_| ())?;
    open(copy.path())?;
    Ok(())
}

#[test]
fn cf_14_an_image_token_that_the_vocabulary_lacks_is_refused() -> Result<()> {
    for token in [
        "<image>",
        "<|image_start|>",
        "<|img_thumbnail|>",
        "<|img_row_2_col_2|>",
    ] {
        let rename = |json: &mut Value| {
            let text = json.to_string().replace(token, "<|renamed|>");
            *json = serde_json::from_str(&text).unwrap();
        };
        ensure_refused("tokenizer.json", rename, &[token])?;
    }
    Ok(())
}

#[test]
fn cf_14_another_image_token_than_the_tokenizers_is_refused() -> Result<()> {
    let other = |json: &mut Value| {
        json.as_object_mut().unwrap().remove("image_token_index");
        json["image_token_id"] = 9.into();
    };
    ensure_refused("config.json", other, &["image_token_id", "9", "8"])
}

#[test]
fn cf_14_settings_for_other_weights_are_refused() -> Result<()> {
    let patch = |json: &mut Value| json["encoder_patch_size"] = 8.into();
    ensure_refused("processor_config.json", patch, &["patch_size", "16", "8"])?;
    let factor = |json: &mut Value| json["downsample_factor"] = 1.into();
    ensure_refused(
        "processor_config.json",
        factor,
        &["downsample_factor", "2", "1"],
    )?;
    let tile = |json: &mut Value| json["tile_size"] = 0.into();
    ensure_refused("processor_config.json", tile, &["tile_size"])
}

#[test]
fn cf_14_markers_for_more_than_ten_tiles_are_refused() -> Result<()> {
    let tiles = |json: &mut Value| json["max_tiles"] = 12.into();
    ensure_refused("processor_config.json", tiles, &["max_tiles", "12"])
}

#[test]
fn shapes_that_the_weights_do_not_have_are_refused_by_tensor() -> Result<()> {
    for (key, value) in [
        ("hidden_size", json!(40)),
        ("num_patches", json!(49)),
        ("intermediate_size", json!(48)),
    ] {
        let vision = |json: &mut Value| json["vision_config"][key] = value;
        let copy = changed("config.json", vision)?;
        let error = open(copy.path()).err().context("it was opened")?;
        ensure!(matches!(error, Error::TensorShape { .. }), "{key}: {error}");
    }
    let layers = |json: &mut Value| json["vision_config"]["num_hidden_layers"] = 99.into();
    ensure_refused("config.json", layers, &["encoder.layers.", "missing"])?;
    let norm = |json: &mut Value| json["projector_bias"] = true.into();
    ensure_refused("config.json", norm, &["linear_1.bias", "missing"])
}
