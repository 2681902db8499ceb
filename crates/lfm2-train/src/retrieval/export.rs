//! A trained encoder as a folder in the layout of published late-interaction models.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use lfm2_hub::Tokenizer;
use lfm2_text::TextConfig;
use serde_json::{Value, json};

use super::options::RetrievalOptions;
use crate::bpe;
use crate::data::SourceReport;
use crate::file::{write_text, write_weights};
use crate::run::Metric;
use crate::variables::Parameters;
use crate::{Error, Result};

/// The folder of the projection behind the trunk.
pub(super) const DENSE: &str = "1_Dense";

/// What a model's folder says besides its weights.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) config: TextConfig,
    pub(super) config_json: Value,
    pub(super) tokenizer: Tokenizer,
    pub(super) reports: Vec<SourceReport>,
}

/// The text files of a tokenizer that an encoder needs.
const TOKENIZER_FILES: [&str; 3] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
];

/// Writes the folder, replacing files of the same names.
pub(super) fn export(
    folder: &Path,
    options: &RetrievalOptions,
    facts: &Facts,
    parameters: &Parameters,
    metrics: &[Metric],
) -> Result<()> {
    let dense_folder = folder.join(DENSE);
    std::fs::create_dir_all(&dense_folder).map_err(|e| Error::io(&dense_folder, e))?;
    for (name, json) in configs(options, facts) {
        write_text(&folder.join(name), &format!("{json:#}\n"))?;
    }
    for (name, text) in bpe::tokenizer_files(&facts.tokenizer, "")? {
        if TOKENIZER_FILES.contains(&name.as_str()) {
            write_text(&folder.join(name), &text)?;
        }
    }
    let prefix = format!("{DENSE}.");
    let (mut dense, mut trunk) = (BTreeMap::new(), BTreeMap::new());
    for (name, tensor) in parameters.export(options.export_dtype.dtype())? {
        match name.strip_prefix(&prefix) {
            Some(name) => dense.insert(name.to_string(), tensor),
            None => trunk.insert(name, tensor),
        };
    }
    write_weights(&folder.join("model.safetensors"), &trunk)?;
    write_weights(&dense_folder.join("model.safetensors"), &dense)?;
    write_text(
        &folder.join("README.md"),
        &card(options, facts, parameters, metrics),
    )
}

/// The JSON files of the folder but those of the tokenizer.
fn configs(options: &RetrievalOptions, facts: &Facts) -> [(String, Value); 5] {
    let base = &options.base;
    let mut config = facts.config_json.clone();
    if let Value::Object(keys) = &mut config {
        keys.insert("dtype".into(), json!(options.export_dtype.config_name()));
    }
    let modules = json!([
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": DENSE, "type": "pylate.models.Dense.Dense"},
    ]);
    let dense = json!({
        "in_features": facts.config.hidden_size,
        "out_features": base.dimensions,
        "bias": false,
        "activation_function": "torch.nn.modules.linear.Identity",
        "use_residual": false,
    });
    let length = base.settings["document_length"].as_u64().unwrap_or(180);
    let limits = json!({"max_seq_length": length.saturating_sub(1), "do_lower_case": false});
    [
        ("config.json".into(), config),
        ("modules.json".into(), modules),
        (format!("{DENSE}/config.json"), dense),
        ("sentence_bert_config.json".into(), limits),
        (
            "config_sentence_transformers.json".into(),
            base.settings.clone(),
        ),
    ]
}

/// The model card. Formatting into a string cannot fail, so the results are not looked at.
fn card(
    options: &RetrievalOptions,
    facts: &Facts,
    parameters: &Parameters,
    metrics: &[Metric],
) -> String {
    let mut text = String::new();
    if let Some(licence) = &options.card.licence {
        let _ = write!(
            text,
            "---\nlicense: {licence}\nlibrary_name: lfm2\npipeline_tag: sentence-similarity\n---\n\n"
        );
    }
    let _ = write!(text, "# {}\n\n", options.name);
    if !options.card.about.is_empty() {
        let _ = write!(text, "{}\n\n", options.card.about);
    }
    let c = &facts.config;
    let _ = write!(
        text,
        "## Model\n\n| | |\n|---|---|\n| parameters | {} |\n| vocabulary | {} |\n| width | {} |\n\
         | layers | {c} (`c` convolution, `A` attention), bidirectional |\n\
         | vectors | {} numbers per token, compared by MaxSim |\n| weights | {} |\n\n",
        parameters.elements(),
        c.vocab_size,
        c.hidden_size,
        options.base.dimensions,
        options.export_dtype.config_name(),
    );
    text.push_str("## Data\n\n| file | passages | sha256 |\n|---|---|---|\n");
    for (source, report) in options.data.iter().zip(&facts.reports) {
        let (path, count) = (source.path.display(), report.documents);
        let _ = writeln!(text, "| {path} | {count} | `{}` |", report.sha256);
    }
    text.push_str("\n## Run\n\n");
    let (mut steps, mut pairs, mut seconds) = (0u64, 0usize, 0.0);
    for metric in metrics {
        if let Metric::Step(report) = metric {
            (steps, pairs) = (steps + 1, pairs + report.scored);
            seconds += report.seconds;
        }
    }
    let minutes = seconds / 60.0;
    let _ = write!(
        text,
        "{steps} steps, {pairs} pairs, {minutes:.0} minutes.\n\n"
    );
    text.push_str(
        "| kept-out text | right passage first | mean reciprocal rank |\n|---|---|---|\n",
    );
    let validations = metrics.iter().filter_map(|metric| match metric {
        Metric::Validation(report) => Some(report),
        Metric::Step(_) => None,
    });
    let last = validations.clone().map(|report| report.step).max();
    for report in validations.filter(|report| Some(report.step) == last) {
        let figure = |name: &str| report.figures.get(name).copied().unwrap_or(f64::NAN);
        let _ = writeln!(
            text,
            "| {} | {:.3} | {:.3} |",
            report.source,
            figure("accuracy"),
            figure("reciprocal_rank")
        );
    }
    let _ = write!(
        text,
        "\nOf {} passages in a row each.\n\nSettings: `run.json`, repeated with `lfm2 train --config run.json --out FOLDER`.\n",
        options.micro_batch_pairs
    );
    text
}
