//! `lfm2 bench`: speed and memory of a model.

mod measure;
mod show;

use std::io::{self, Write};
use std::time::Instant;

use anyhow::{Context, Result};
use lfm2::hub::Checkpoint;
use lfm2::text::{TextModel, shapes};
use serde::Serialize;

use crate::args::BenchArgs;
use crate::exit::invalid;
use crate::ui::{json_line, open, progress};
use measure::{Figures, Plan, Run};

pub(crate) fn run(args: &BenchArgs) -> Result<()> {
    let started = Instant::now();
    let (model, name) = load(args)?;
    let load_seconds = started.elapsed().as_secs_f64();
    let repeat = usize::from(args.repeat);
    let plan = Plan {
        prompt_tokens: args.prompt_tokens.into(),
        gen_tokens: args.gen_tokens.into(),
        seed: args.seed,
    };
    let bar = progress::bar((args.depth.len() * repeat) as u64, "runs");
    let mut depths = Vec::new();
    for &depth in &args.depth {
        let base = plan.fill(&model, depth)?;
        let mut runs: Vec<Run> = Vec::with_capacity(repeat);
        for _ in 0..repeat {
            runs.push(plan.run(&model, &base)?);
            bar.inc(1);
        }
        depths.push(
            Figures::of(depth, plan.prompt_tokens, &runs)
                .ok_or_else(|| invalid("nothing was measured"))?,
        );
    }
    bar.finish_and_clear();
    let report = Report {
        model: name,
        parameters: model.config().parameters(),
        threads: lfm2::nn::threads::count(),
        prompt_tokens: plan.prompt_tokens,
        gen_tokens: plan.gen_tokens,
        repeat,
        load_seconds,
        peak_memory_bytes: peak_memory(),
        depths,
    };
    if args.json {
        return json_line(&report);
    }
    Ok(io::stdout().write_all(show::text(&report).as_bytes())?)
}

/// What `--json` writes.
#[derive(Debug, Serialize)]
struct Report {
    model: String,
    parameters: u64,
    threads: usize,
    prompt_tokens: usize,
    gen_tokens: usize,
    repeat: usize,
    load_seconds: f64,
    /// `None` where the system does not say.
    peak_memory_bytes: Option<u64>,
    depths: Vec<Figures>,
}

fn load(args: &BenchArgs) -> Result<(TextModel, String)> {
    let options = open::load(args.device)?;
    if let Some(shape) = &args.synthetic {
        let shape = shapes::find(shape)?;
        let model = shape.synthetic(args.quantization, args.seed, &options)?;
        return Ok((
            model,
            format!(
                "{} with random weights in {}",
                shape.name(),
                args.quantization
            ),
        ));
    }
    let checkpoint = match &args.model {
        None => lfm2::embedded_checkpoint()?,
        Some(source) => Checkpoint::open(source, &open::files(false))
            .with_context(|| format!("opening {source}"))?,
    };
    let model = TextModel::from_checkpoint(&checkpoint, &options)?;
    Ok((model, checkpoint.origin().to_owned()))
}

/// The most memory that this process has held at once.
fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}
