//! A trained model as a folder in the layout of published vision-language models.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use lfm2_hub::{Overwrite, write_safetensors};
use lfm2_text::TensorSpec;
use serde_json::{Value, json};

use super::options::VisionOptions;
use super::run::Facts;
use crate::file::write_text;
use crate::run::Metric;
use crate::variables::Parameters;
use crate::{Error, Result};

/// Writes the folder, replacing files of the same names.
pub(super) fn export(
    folder: &Path,
    options: &VisionOptions,
    facts: &Facts,
    parameters: &Parameters,
    metrics: &[Metric],
) -> Result<()> {
    std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
    let mut config = facts.config_json.clone();
    if let Value::Object(keys) = &mut config {
        keys.insert("dtype".into(), json!(options.export_dtype.config_name()));
    }
    write_text(&folder.join("config.json"), &format!("{config:#}\n"))?;
    for (name, text) in &facts.files {
        write_text(&folder.join(name), text)?;
    }
    let tensors = parameters.export(options.export_dtype.dtype())?;
    let named = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor));
    let metadata = BTreeMap::from([("format".to_string(), "pt".to_string())]);
    write_safetensors(
        &folder.join("model.safetensors"),
        named,
        &metadata,
        Overwrite::Replace,
    )?;
    write_text(&folder.join("README.md"), &card(options, facts, metrics))
}

/// The model card. Formatting into a string cannot fail, so the results are not looked at.
fn card(options: &VisionOptions, facts: &Facts, metrics: &[Metric]) -> String {
    let mut text = String::new();
    if let Some(licence) = &options.card.licence {
        let _ = write!(
            text,
            "---\nlicense: {licence}\nlibrary_name: lfm2\npipeline_tag: image-text-to-text\n---\n\n"
        );
    }
    let _ = write!(text, "# {}\n\n", options.name);
    if !options.card.about.is_empty() {
        let _ = write!(text, "{}\n\n", options.card.about);
    }
    let (config, settings) = (&facts.config, &facts.settings);
    let (vision, projector) = (&config.vision, &config.projector);
    let specs = config.tensors();
    let _ = write!(
        text,
        "## Model\n\n| | |\n|---|---|\n| parameters | {} |\n| tower | {} layers of width {}, patches of {} x {} pixels |\n\
         | projector | squares of {} x {} patches, {} numbers inside |\n\
         | text | {} (`c` convolution, `A` attention), width {}, vocabulary {} |\n\
         | picture | {} to {} tokens of {} x {} pixels |\n| weights | {} |\n\n",
        specs.iter().map(TensorSpec::elements).sum::<usize>(),
        vision.layers,
        vision.hidden_size,
        vision.patch_size,
        vision.patch_size,
        projector.factor,
        projector.factor,
        projector.hidden_size,
        config.text,
        config.text.hidden_size,
        config.text.vocab_size,
        settings.min_image_tokens,
        settings.max_image_tokens,
        settings.token_side(),
        settings.token_side(),
        options.export_dtype.config_name(),
    );
    run_facts(&mut text, options, metrics);
    text
}

/// Steps, pictures, time and the last validation.
fn run_facts(text: &mut String, options: &VisionOptions, metrics: &[Metric]) {
    let (mut steps, mut seconds) = (0usize, 0.0);
    for metric in metrics {
        if let Metric::Step(report) = metric {
            (steps, seconds) = (steps + 1, seconds + report.seconds);
        }
    }
    let pictures = steps * options.micro_batches * options.micro_batch_pictures;
    let minutes = seconds / 60.0;
    let _ = write!(
        text,
        "## Run\n\n{steps} steps, {pictures} pictures, {minutes:.0} minutes.\n\n\
         | topic | loss per token | right answers, given the right beginning |\n|---|---|---|\n"
    );
    let validations = metrics.iter().filter_map(|metric| match metric {
        Metric::Validation(report) => Some(report),
        Metric::Step(_) => None,
    });
    let last = validations.clone().map(|report| report.step).max();
    for report in validations.filter(|report| Some(report.step) == last) {
        let right = report.figures.get("right").copied().unwrap_or(f64::NAN);
        let (source, loss) = (&report.source, report.loss);
        let _ = writeln!(text, "| {source} | {loss:.4} | {right:.3} |");
    }
    let _ = write!(
        text,
        "\n{} pictures that were not trained on.\n\nSettings: `run.json`, repeated with `lfm2 train --config run.json --out FOLDER`.\n",
        options.validation_pictures
    );
}
