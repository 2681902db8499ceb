//! `lfm2 merge`.

use std::io::{self, Write};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use lfm2_train::ExportDtype;
use lfm2_train::merge::{
    MergeProgress, MergeRecipe, MergeReport, Method, Rescale, greedy_soup, merge_adapter,
    merge_checkpoints,
};

use crate::args::{MergeArgs, MergeDtype, MergeMethod, MergeRescale};
use crate::exit::{Doing, invalid};
use crate::ui::progress;

pub(crate) fn run(args: &MergeArgs) -> Result<()> {
    if args.output.symlink_metadata().is_ok() {
        let output = args.output.display();
        return Err(invalid(format!(
            "{output}: the folder of the result exists already"
        )));
    }
    let report = match (&args.recipe, &args.adapter) {
        (Some(recipe), _) => merge(&MergeRecipe::read(recipe)?, &args.output)?,
        (None, Some(adapter)) => with_adapter(args, adapter)?,
        (None, None) if args.method == MergeMethod::GreedySoup => greedy(args)?,
        (None, None) => merge(&recipe(args, args.models.len())?, &args.output)?,
    };
    eprintln!(
        "{} tensors; config and tokenizer of {}",
        report.tensors,
        report.files_of.display()
    );
    writeln!(io::stdout(), "{}", args.output.display())?;
    Ok(())
}

fn merge(recipe: &MergeRecipe, output: &Path) -> Result<MergeReport> {
    with_bar(|show| merge_checkpoints(recipe, output, show)).doing("merging into", output.display())
}

fn with_adapter(args: &MergeArgs, adapter: &Path) -> Result<MergeReport> {
    let [model] = args.models.as_slice() else {
        return Err(invalid("--adapter is added to a single model"));
    };
    with_bar(|show| merge_adapter(model, adapter, dtype(args), &args.output, show))
        .doing("adding", adapter.display())
}

/// Runs `work` with a bar over the tensors.
fn with_bar<R>(work: impl FnOnce(&mut dyn FnMut(MergeProgress<'_>)) -> R) -> R {
    let bar = progress::bar(0, "tensors");
    let result = work(&mut |at: MergeProgress<'_>| {
        bar.set_length(at.of as u64);
        bar.set_position(at.done as u64);
        bar.set_message(at.tensor.to_string());
    });
    bar.finish_and_clear();
    result
}

fn dtype(args: &MergeArgs) -> Option<ExportDtype> {
    args.dtype.map(|dtype| match dtype {
        MergeDtype::Bf16 => ExportDtype::Bf16,
        MergeDtype::F32 => ExportDtype::F32,
    })
}

/// The recipe that the arguments stand for, with the first `models` models.
fn recipe(args: &MergeArgs, models: usize) -> Result<MergeRecipe> {
    let mut weights = match args.weights.as_slice() {
        [] => vec![1.0; models],
        weights => weights.to_vec(),
    };
    if weights.len() != models {
        let found = weights.len();
        return Err(invalid(format!(
            "--weights: expected {models} numbers, found {found}"
        )));
    }
    let rescale = match args.rescale {
        MergeRescale::Inverse => Rescale::Inverse,
        MergeRescale::L1 => Rescale::L1,
        MergeRescale::None => Rescale::None,
    };
    let (density, lambda) = (args.density, args.lambda);
    let method = match args.method {
        MergeMethod::Soup | MergeMethod::GreedySoup => {
            let sum: f64 = weights.iter().sum();
            weights.iter_mut().for_each(|weight| *weight /= sum);
            Method::Soup
        }
        MergeMethod::TaskArithmetic => Method::task_arithmetic(lambda),
        MergeMethod::Ties => Method::ties(density, lambda),
        MergeMethod::DareLinear => Method::dare_linear(density, rescale, lambda),
        MergeMethod::DareTies => Method::dare_ties(density, rescale, lambda),
        MergeMethod::Della => Method::della(density, args.epsilon, rescale, lambda),
        MergeMethod::Slerp => Method::Slerp { t: args.t },
    };
    Ok(MergeRecipe {
        method,
        base: args.base.clone().filter(|_| method.needs_base()),
        models: args.models.iter().cloned().zip(weights).collect(),
        seed: args.seed,
        dtype: dtype(args),
    })
}

/// Scores every model, then soups of more and more of them; the last good one is left in the output.
fn greedy(args: &MergeArgs) -> Result<MergeReport> {
    let Some(command) = &args.evaluate else {
        return Err(invalid("a greedy soup needs --evaluate COMMAND"));
    };
    let mut scores = Vec::new();
    for model in &args.models {
        let found = score(command, model)?;
        eprintln!("{}: {found}", model.display());
        scores.push(found);
    }
    let of = |soup: &[usize]| MergeRecipe {
        method: Method::Soup,
        base: None,
        models: soup
            .iter()
            .filter_map(|&i| args.models.get(i).cloned())
            .map(|model| (model, 1.0 / soup.len() as f64))
            .collect(),
        seed: args.seed,
        dtype: dtype(args),
    };
    let mut failed = None;
    let soup = greedy_soup(&scores, |soup| {
        let result = merge(&of(soup), &args.output).and_then(|_| score(command, &args.output));
        let found = result.unwrap_or_else(|error| {
            failed.get_or_insert(error);
            f64::NAN
        });
        eprintln!("{} models: {found}", soup.len());
        Ok(found)
    })?;
    match failed {
        Some(error) => Err(error),
        None => merge(&of(&soup), &args.output),
    }
}

/// The last number that the command prints about a folder.
fn score(command: &str, folder: &Path) -> Result<f64> {
    let folder = folder.display().to_string();
    let command = command.replace("{}", &format!("'{}'", folder.replace('\'', r"'\''")));
    let output = Command::new("sh")
        .args(["-c", &command])
        .output()
        .with_context(|| format!("running {command}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(invalid(format!(
            "{command}: {}: {}",
            output.status,
            said.trim()
        )));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let numbers = text.split(|c: char| c.is_whitespace() || c == ',');
    numbers
        .filter_map(|word| word.parse::<f64>().ok())
        .next_back()
        .ok_or_else(|| invalid(format!("{command}: printed no number")))
}
