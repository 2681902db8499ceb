//! `lfm2 quantize`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Result;
use lfm2::ModelSource;
use lfm2::hub::gguf::{Quantization, QuantizeInput, QuantizeOptions, QuantizeReport, quantize};
use lfm2::hub::{Checkpoint, Overwrite};

use crate::args::QuantizeArgs;
use crate::exit::{Doing, invalid};
use crate::ui::{format, open, progress};

pub(crate) fn run(args: &QuantizeArgs) -> Result<()> {
    // Known before anything is downloaded.
    if !args.force && args.output.symlink_metadata().is_ok() {
        let output = args.output.display();
        return Err(invalid(format!(
            "{output}: file exists, not overwriting it; use --force"
        )));
    }
    let checkpoint = Checkpoint::open(&args.source, &open::files(args.offline))
        .doing("opening", &args.source)?;
    let mut options = QuantizeOptions::new(args.kind, name(args));
    if let Some(kind) = args.embedding_type {
        options.embedding = kind;
    }
    if args.force {
        options.overwrite = Overwrite::Replace;
    }
    let tokenizer = checkpoint.tokenizer()?.to_json()?;
    let template = checkpoint.chat_template()?;
    let tensors = checkpoint.tensors();
    let input = QuantizeInput {
        config: checkpoint.config(),
        generation_config: checkpoint.generation_config(),
        tokenizer: tokenizer.as_bytes(),
        chat_template: template.as_deref(),
        tensors: tensors.as_ref(),
    };
    let bar = progress::bar(0, "tensors");
    let mut kinds = BTreeMap::new();
    let report = quantize(&input, &args.output, &options, |at| {
        *kinds.entry(at.kind).or_insert(0) += 1;
        bar.set_length(at.total as u64);
        bar.set_position(at.done as u64);
        bar.set_message(format!("{} {}", at.kind, at.tensor));
    })
    .doing("writing", args.output.display())?;
    bar.finish_and_clear();
    summarise(args, &report, &kinds)
}

/// The model's name: as given, or as the source is called.
fn name(args: &QuantizeArgs) -> String {
    let path = match (&args.name, &args.source) {
        (Some(name), _) => return name.clone(),
        (None, ModelSource::Hub { id, .. }) => return id.name().to_owned(),
        (None, ModelSource::HubGguf { file, .. }) => PathBuf::from(file),
        (None, ModelSource::Dir(path) | ModelSource::Gguf(path)) => path.clone(),
    };
    // The name of `.` is that of the folder it stands for.
    let path = path.canonicalize().unwrap_or(path);
    path.file_stem().map_or_else(
        || "model".to_owned(),
        |stem| stem.to_string_lossy().into_owned(),
    )
}

fn summarise(
    args: &QuantizeArgs,
    report: &QuantizeReport,
    kinds: &BTreeMap<Quantization, usize>,
) -> Result<()> {
    let mut fallbacks = BTreeMap::new();
    for fallback in &report.fallbacks {
        let reason = (fallback.row, fallback.wanted, fallback.used);
        *fallbacks.entry(reason).or_insert(0) += 1;
    }
    for ((row, wanted, used), count) in fallbacks {
        eprintln!(
            "rows of {row} do not divide into {wanted} blocks: {} stored as {used}",
            tensors(count)
        );
    }
    for name in &report.unused {
        eprintln!("{name}: not part of the model, left out");
    }
    let size = std::fs::metadata(&args.output)
        .map_err(|e| lfm2::hub::Error::io(&args.output, e))?
        .len();
    let kinds: Vec<String> = kinds
        .iter()
        .map(|(kind, count)| format!("{count} {kind}"))
        .collect();
    eprintln!(
        "{}: {} ({}), {}",
        args.output.display(),
        tensors(report.tensors),
        kinds.join(", "),
        format::bytes(size)
    );
    Ok(())
}

fn tensors(count: usize) -> String {
    match count {
        1 => "1 tensor".to_owned(),
        _ => format!("{count} tensors"),
    }
}
