//! A trained model as a folder in the layout of published speech models.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use lfm2_hub::{Overwrite, write_safetensors};
use lfm2_text::TensorSpec;

use super::options::SpeechOptions;
use super::run::Facts;
use super::start;
use crate::file::write_text;
use crate::run::Metric;
use crate::variables::Parameters;
use crate::{Error, Result};

/// Writes the folder, replacing files of the same names.
pub(super) fn export(
    folder: &Path,
    options: &SpeechOptions,
    facts: &Facts,
    parameters: &Parameters,
    metrics: &[Metric],
) -> Result<()> {
    std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
    let config = format!("{:#}\n", facts.config_json);
    write_text(&folder.join("config.json"), &config)?;
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
fn card(options: &SpeechOptions, facts: &Facts, metrics: &[Metric]) -> String {
    let mut text = String::new();
    if let Some(licence) = &options.card.licence {
        let _ = write!(
            text,
            "---\nlicense: {licence}\nlibrary_name: lfm2\npipeline_tag: automatic-speech-recognition\n---\n\n"
        );
    }
    let _ = write!(text, "# {}\n\n", options.name);
    if !options.card.about.is_empty() {
        let _ = write!(text, "{}\n\n", options.card.about);
    }
    let (config, encoder) = (&facts.config, &facts.config.encoder);
    let specs = start::specs(config);
    let _ = write!(
        text,
        "## Model\n\n| | |\n|---|---|\n| parameters | {} |\n| encoder | {} layers of width {}, {} mel bins |\n\
         | text | {} (`c` convolution, `A` attention), width {}, vocabulary {} |\n| weights | {} |\n\n",
        specs.iter().map(TensorSpec::elements).sum::<usize>(),
        encoder.layers,
        encoder.width,
        encoder.features,
        config.text,
        config.text.hidden_size,
        config.text.vocab_size,
        options.export_dtype.config_name(),
    );
    let (name, sha256) = &facts.manifest;
    let _ = write!(text, "## Data\n\n`{name}`, sha256 `{sha256}`.\n\n");
    run_facts(&mut text, options, metrics);
    text
}

/// Steps, clips, time and the last validation.
fn run_facts(text: &mut String, options: &SpeechOptions, metrics: &[Metric]) {
    let (mut steps, mut seconds) = (0usize, 0.0);
    for metric in metrics {
        if let Metric::Step(report) = metric {
            (steps, seconds) = (steps + 1, seconds + report.seconds);
        }
    }
    let clips = steps * options.micro_batches * options.micro_batch_clips;
    let minutes = seconds / 60.0;
    let _ = write!(
        text,
        "## Run\n\n{steps} steps, {clips} clips, {minutes:.0} minutes.\n\n\
         | kept-out clips of | loss per token | right transcripts, given the right beginning |\n|---|---|---|\n"
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
        "\n{} clips that were not trained on.\n\nSettings: `run.json`, repeated with `lfm2 train --config run.json --out FOLDER`.\n",
        options.validation_clips
    );
}
