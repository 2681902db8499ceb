//! `lfm2 train`.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write};
use std::num::NonZeroUsize;
use std::path::Path;

use anyhow::Result;
use indicatif::ProgressBar;
use lfm2::hub::{Overwrite, write_atomic};
use lfm2::nn::profile::{self, Row};
use lfm2_train::{
    AnyRun, Resume, StepReport, TeachOptions, TrainEvent, TrainOptions, TrainProgress,
};

use crate::args::{ResumeMode, ScoreArgs, TeachArgs, TrainArgs, TrainCommand, TrainRun};
use crate::exit::{Doing, invalid};
use crate::ui::interrupt::Interrupt;
use crate::ui::{format, progress};

/// Steps between two lines where no bar is shown.
const LINE_EVERY: u64 = 50;

pub(crate) fn run(args: &TrainArgs, threads: Option<NonZeroUsize>) -> Result<()> {
    let threads = threads.map_or(0, usize::from);
    match (&args.command, &args.run) {
        (Some(TrainCommand::Teach(args)), _) => teach(args, threads),
        (Some(TrainCommand::Score(args)), _) => score(args, threads),
        (None, Some(args)) => train(args, threads),
        (None, None) => Err(invalid("give --config and --out")),
    }
}

fn train(args: &TrainRun, threads: usize) -> Result<()> {
    let resume = match args.resume {
        ResumeMode::Continue => Resume::Continue,
        ResumeMode::Force => Resume::Force,
        ResumeMode::Never => Resume::Never,
    };
    let interrupt = Interrupt::install()?;
    eprintln!("preparing data");
    let mut run = AnyRun::open(&args.config, &args.out, resume, threads)
        .doing("opening the run in", args.out.display())?;
    let display = Display {
        bar: progress::bar(0, "steps"),
        is_terminal: io::stderr().is_terminal(),
    };
    if args.profile {
        profile::start();
    }
    run.train(&display, &interrupt.watch())?;
    display.bar.finish_and_clear();
    if args.profile {
        io::stdout().write_all(shares(&profile::take()).as_bytes())?;
    }
    let checkpoint = args.out.join("checkpoint");
    run.export(&checkpoint)?;
    writeln!(io::stdout(), "{}", checkpoint.display())?;
    Ok(())
}

/// A table of operations with their times, the longest first.
fn shares(rows: &[Row]) -> String {
    let mut times: BTreeMap<String, f64> = BTreeMap::new();
    for row in rows {
        *times.entry(row.op.to_string()).or_default() += row.time.as_secs_f64();
    }
    let whole: f64 = times.values().sum();
    let mut times: Vec<_> = times.into_iter().collect();
    times.sort_by(|a, b| b.1.total_cmp(&a.1));
    let lines = times.into_iter().map(|(op, seconds)| {
        let share = 100.0 * seconds / whole.max(f64::MIN_POSITIVE);
        format!("| {op} | {seconds:.2} | {share:.1} % |\n")
    });
    let head = "| operation | seconds | share |\n|---|---|---|\n".to_owned();
    lines.fold(head, |table, line| table + &line)
}

fn teach(args: &TeachArgs, threads: usize) -> Result<()> {
    let options = TrainOptions::read(&args.config)?;
    let base = args.config.parent().unwrap_or(Path::new("."));
    let name = args.teacher.file_name().unwrap_or(args.teacher.as_os_str());
    let settings = TeachOptions::new(name.to_string_lossy()).with_k(args.k);
    let interrupt = Interrupt::install()?;
    let bar = progress::bar(0, "tokens");
    lfm2_train::teach(
        &options,
        base,
        (&args.teacher, &args.out),
        &settings,
        (threads, &interrupt.watch()),
        &mut |done, of| {
            bar.set_length(of);
            bar.set_position(done);
        },
    )
    .doing("asking the teacher", args.teacher.display())?;
    bar.finish_and_clear();
    writeln!(io::stdout(), "{}", args.out.display())?;
    Ok(())
}

fn score(args: &ScoreArgs, threads: usize) -> Result<()> {
    let options = TrainOptions::read(&args.config)?;
    let base = args.config.parent().unwrap_or(Path::new("."));
    let interrupt = Interrupt::install()?;
    let bar = progress::bar(0, "documents");
    let scores = lfm2_train::score(
        &options,
        base,
        args.source,
        &args.models,
        (threads, &interrupt.watch()),
        &mut |done, of| {
            bar.set_length(of);
            bar.set_position(done);
        },
    )
    .doing("scoring the data of", args.config.display())?;
    bar.finish_and_clear();
    let text = serde_json::to_string(&scores)? + "\n";
    write_atomic(&args.out, Overwrite::Replace, |file| {
        file.write_all(text.as_bytes())
            .map_err(|e| lfm2::hub::Error::io(&args.out, e))
    })?;
    writeln!(io::stdout(), "{}", args.out.display())?;
    Ok(())
}

/// Shows a run on stderr: a bar in a terminal, else a line now and then.
struct Display {
    bar: ProgressBar,
    is_terminal: bool,
}

impl Display {
    fn line(&self, text: &str) {
        self.bar.suspend(|| eprintln!("{text}"));
    }

    fn step(&self, report: &StepReport) {
        let speed = report.tokens as f64 / report.seconds;
        let text = format!("loss {:.4}, {speed:.0} tokens/s", report.loss);
        self.bar.set_position(report.step);
        self.bar.set_message(text.clone());
        if report.skipped {
            self.line(&format!(
                "step {}: left out, a number is not finite",
                report.step
            ));
        } else if !self.is_terminal && (report.step == 1 || report.step.is_multiple_of(LINE_EVERY))
        {
            self.line(&format!("step {}: {text}", report.step));
        }
    }
}

impl TrainProgress for Display {
    fn event(&self, event: &TrainEvent<'_>) {
        match event {
            TrainEvent::Prepared {
                parameters,
                vocab_size,
                sources,
                step,
                steps,
            } => {
                let documents: usize = sources.iter().map(|source| source.documents).sum();
                let parameters = format::count(*parameters as u64);
                self.line(&format!(
                    "{parameters} parameters, {vocab_size} tokens, {documents} documents"
                ));
                if *step > 0 {
                    self.line(&format!("going on after step {step}"));
                }
                self.bar.set_length(*steps);
                self.bar.set_position(*step);
                self.bar.reset_eta();
            }
            TrainEvent::Step(report) => self.step(report),
            TrainEvent::Validation(reports) => {
                for report in *reports {
                    let (step, source) = (report.step, &report.source);
                    let mut text = format!("step {step}: {source}: loss {:.4}", report.loss);
                    if let Some(perplexity) = report.perplexity {
                        text += &format!(", perplexity {perplexity:.3}");
                    }
                    for (name, value) in &report.figures {
                        text += &format!(", {name} {value:.4}");
                    }
                    self.line(&text);
                }
            }
            _ => {}
        }
    }
}
