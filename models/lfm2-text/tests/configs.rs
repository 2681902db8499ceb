//! The configs of released checkpoints give the published widths and parameter counts.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use lfm2_text::TextConfig;
use serde_json::Value;

fn read(path: &Path) -> Result<Value> {
    let bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
    Ok(serde_json::from_slice(&bytes)?)
}

#[test]
fn released_configs_have_the_published_widths_and_parameters() -> Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/configs");
    let expected = read(&folder.join("expected.json"))?;
    let models = expected
        .as_object()
        .context("expected.json is not an object")?;
    ensure!(models.len() >= 10);
    for (name, facts) in models {
        let config = TextConfig::from_json(&read(&folder.join(format!("{name}.json")))?)
            .with_context(|| name.clone())?;
        let found = |key: &str| match key {
            "ffn_dim" => Some(config.ffn_width as u64),
            "head_dim" => Some(config.head_dim as u64),
            "expert_dim" => config.moe.map(|m| m.width as u64),
            "parameters" => Some(config.parameters()),
            "active_parameters" => Some(config.active_parameters()),
            _ => None,
        };
        for (key, value) in facts.as_object().context("facts are not an object")? {
            ensure!(
                found(key) == value.as_u64(),
                "{name}: {key} is {:?}, expected {value}",
                found(key)
            );
        }
    }
    Ok(())
}

#[test]
fn every_committed_config_is_understood() -> Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/configs");
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.ends_with("expected.json") {
            continue;
        }
        let config =
            TextConfig::from_json(&read(&path)?).with_context(|| path.display().to_string())?;
        ensure!(
            !config.layers.is_empty() && config.parameters() > 200_000_000,
            "{}",
            path.display()
        );
    }
    Ok(())
}

#[test]
fn the_newest_architecture_has_its_published_size() -> Result<()> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/configs/LFM3-1.7B.json");
    let config = TextConfig::from_json(&read(&path)?)?;
    assert_eq!(config.parameters(), 1_728_801_536);
    assert_eq!(config.to_string(), "ccAcscAcscAcscAcscAcscAc");
    Ok(())
}
