//! A trained model as a folder in the layout of published speech models.

use std::fmt::Write;
use std::path::Path;

use lfm2_text::TensorSpec;

use super::options::SpeechOptions;
use super::run::Facts;
use super::start;
use crate::export::{RunTable, run_table};
use crate::file::{write_text, write_weights};
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
    write_weights(&folder.join("model.safetensors"), &tensors)?;
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
    let table = RunTable {
        pieces: "clips",
        per_step: options.micro_batches * options.micro_batch_clips,
        kept_out: options.validation_clips,
        columns: [
            "kept-out clips of",
            "right transcripts, given the right beginning",
        ],
    };
    run_table(&mut text, &table, metrics);
    text
}
