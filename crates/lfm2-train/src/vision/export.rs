//! A trained model as a folder in the layout of published vision-language models.

use std::fmt::Write;
use std::path::Path;

use lfm2_text::TensorSpec;
use serde_json::{Value, json};

use super::options::VisionOptions;
use super::run::Facts;
use crate::export::{RunTable, run_table};
use crate::file::{write_text, write_weights};
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
    write_weights(&folder.join("model.safetensors"), &tensors)?;
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
    let table = RunTable {
        pieces: "pictures",
        per_step: options.micro_batches * options.micro_batch_pictures,
        kept_out: options.validation_pictures,
        columns: ["topic", "right answers, given the right beginning"],
    };
    run_table(&mut text, &table, metrics);
    text
}
