//! A finished run as a checkpoint folder that any reader of published checkpoints opens.

use std::fmt::Write;
use std::path::Path;

use lfm2_text::{LayerKind, TensorSpec};
use serde_json::{Value, json};

use crate::Result;
use crate::data::SourceReport;
use crate::file::{write_text, write_weights};
use crate::lora::write_adapter;
use crate::options::{Base, TrainOptions};
use crate::prepare::Prepared;
use crate::progress::ValidationReport;
use crate::run::Metric;
use crate::variables::Parameters;

/// Writes the checkpoint to `folder`, replacing files of the same names.
pub(crate) fn export(
    folder: &Path,
    options: &TrainOptions,
    prepared: &Prepared,
    parameters: &Parameters,
    reports: &[SourceReport],
    metrics: &[Metric],
) -> Result<()> {
    std::fs::create_dir_all(folder).map_err(|e| crate::Error::io(folder, e))?;
    let mut config = prepared.config_json.clone();
    if let Value::Object(keys) = &mut config {
        keys.insert("dtype".into(), json!(options.export_dtype.config_name()));
    }
    write_text(&folder.join("config.json"), &format!("{config:#}\n"))?;
    for (name, text) in &prepared.text_files {
        write_text(&folder.join(name), text)?;
    }
    let dtype = options.export_dtype.dtype();
    let tensors = match (&prepared.frozen, &options.lora) {
        (Some(frozen), Some(lora)) => {
            let base = match &options.base {
                Base::Checkpoint(path) => path.display().to_string(),
                Base::Fresh { .. } => String::new(),
            };
            write_adapter(&folder.join("adapter"), parameters, lora, &base)?;
            frozen.with(parameters).export(dtype)?
        }
        _ => parameters.export(dtype)?,
    };
    write_weights(&folder.join("model.safetensors"), &tensors)?;
    write_text(
        &folder.join("README.md"),
        &card(options, prepared, reports, metrics, parameters.elements()),
    )
}

/// The model card. Formatting into a string cannot fail, so the results are not looked at.
fn card(
    options: &TrainOptions,
    prepared: &Prepared,
    reports: &[SourceReport],
    metrics: &[Metric],
    trained: usize,
) -> String {
    let mut text = String::new();
    if let Some(licence) = &options.card.licence {
        let _ = write!(
            text,
            "---\nlicense: {licence}\nlibrary_name: lfm2\npipeline_tag: text-generation\n---\n\n"
        );
    }
    let _ = write!(text, "# {}\n\n", options.name);
    if !options.card.about.is_empty() {
        let _ = write!(text, "{}\n\n", options.card.about);
    }
    model_facts(&mut text, options, prepared);
    text.push_str("## Data\n\n| file | documents | tokens | predicted | kept out | sha256 |\n|---|---|---|---|---|---|\n");
    for (source, report) in options.data.iter().zip(reports) {
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | `{}` |",
            source.path.display(),
            report.documents,
            report.tokens,
            report.scored,
            source.holdout,
            report.sha256,
        );
    }
    let _ = write!(text, "\n## Run\n\n");
    if options.lora.is_some() {
        let _ = write!(
            text,
            "{trained} numbers of adapters were trained (`adapter`), and added to the weights.\n\n"
        );
    }
    run_facts(&mut text, metrics);
    text
}

/// The shape of the model.
fn model_facts(text: &mut String, options: &TrainOptions, prepared: &Prepared) {
    let c = &prepared.config;
    let kind = |kind: &LayerKind| match kind.is_attention() {
        true => "attention",
        false => "conv",
    };
    let layers: Vec<&str> = c.layers.iter().map(kind).collect();
    let _ = write!(
        text,
        "## Model\n\n| | |\n|---|---|\n| parameters | {} |\n| vocabulary | {} |\n| width | {} |\n| layers | {} |\n\
         | heads | {} of {} numbers, {} for keys and values |\n| feed-forward width | {} |\n| weights | {} |\n\n",
        c.tensors().iter().map(TensorSpec::elements).sum::<usize>(),
        c.vocab_size,
        c.hidden_size,
        layers.join(", "),
        c.heads,
        c.head_dim,
        c.kv_heads,
        c.ffn_width,
        options.export_dtype.config_name(),
    );
}

/// Steps, tokens, time and the last validation.
fn run_facts(text: &mut String, metrics: &[Metric]) {
    let steps = metrics.iter().filter_map(|m| match m {
        Metric::Step(report) => Some(report),
        Metric::Validation(_) => None,
    });
    let (mut count, mut tokens, mut seconds) = (0u64, 0usize, 0.0);
    for step in steps {
        (count, tokens, seconds) = (count + 1, tokens + step.tokens, seconds + step.seconds);
    }
    let _ = write!(
        text,
        "{count} steps, {tokens} tokens, {:.0} minutes.\n\n",
        seconds / 60.0
    );
    let _ = write!(
        text,
        "| kept-out part of | loss | perplexity |\n|---|---|---|\n"
    );
    for report in last_validation(metrics) {
        let perplexity = report.perplexity.map(|p| format!("{p:.3}"));
        let _ = writeln!(
            text,
            "| {} | {:.4} | {} |",
            report.source,
            report.loss,
            perplexity.as_deref().unwrap_or("-")
        );
    }
    text.push_str("\nSettings: `run.json` of the run, repeated with `lfm2 train --config run.json --out FOLDER`.\n");
}

/// What a card tells of a run that learns from pieces other than texts.
pub(crate) struct RunTable {
    /// What they are called.
    pub(crate) pieces: &'static str,
    /// How many a step learns from, and how many were kept out.
    pub(crate) per_step: usize,
    pub(crate) kept_out: usize,
    /// What the rows are, and what is right of them.
    pub(crate) columns: [&'static str; 2],
}

/// Steps, pieces, time and the last validation.
pub(crate) fn run_table(text: &mut String, table: &RunTable, metrics: &[Metric]) {
    let (mut steps, mut seconds) = (0usize, 0.0);
    for metric in metrics {
        if let Metric::Step(report) = metric {
            (steps, seconds) = (steps + 1, seconds + report.seconds);
        }
    }
    let RunTable {
        pieces,
        per_step,
        kept_out,
        columns: [rows, right],
    } = table;
    let (learnt, minutes) = (steps * per_step, seconds / 60.0);
    let _ = write!(
        text,
        "## Run\n\n{steps} steps, {learnt} {pieces}, {minutes:.0} minutes.\n\n\
         | {rows} | loss per token | {right} |\n|---|---|---|\n"
    );
    for report in last_validation(metrics) {
        let right = report.figures.get("right").copied().unwrap_or(f64::NAN);
        let (source, loss) = (&report.source, report.loss);
        let _ = writeln!(text, "| {source} | {loss:.4} | {right:.3} |");
    }
    let _ = write!(
        text,
        "\n{kept_out} {pieces} that were not trained on.\n\nSettings: `run.json`, repeated with `lfm2 train --config run.json --out FOLDER`.\n"
    );
}

fn last_validation(metrics: &[Metric]) -> Vec<&ValidationReport> {
    let reports = || {
        metrics.iter().filter_map(|m| {
            if let Metric::Validation(report) = m {
                Some(report)
            } else {
                None
            }
        })
    };
    let last = reports().map(|report| report.step).max();
    reports()
        .filter(|report| Some(report.step) == last)
        .collect()
}
