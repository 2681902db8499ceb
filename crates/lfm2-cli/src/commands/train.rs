//! `lfm2 train`.

use std::io::{self, IsTerminal, Write};
use std::num::NonZeroUsize;
use std::path::Path;

use anyhow::Result;
use indicatif::ProgressBar;
use lfm2_train::{Resume, StepReport, TrainEvent, TrainOptions, TrainProgress, Trainer};

use crate::args::{ResumeMode, TrainArgs};
use crate::exit::Doing;
use crate::ui::interrupt::Interrupt;
use crate::ui::{format, progress};

/// Steps between two lines where no bar is shown.
const LINE_EVERY: u64 = 50;

pub(crate) fn run(args: &TrainArgs, threads: Option<NonZeroUsize>) -> Result<()> {
    let options = TrainOptions::read(&args.config)?;
    let base = args.config.parent().unwrap_or(Path::new("."));
    let resume = match args.resume {
        ResumeMode::Continue => Resume::Continue,
        ResumeMode::Force => Resume::Force,
        ResumeMode::Never => Resume::Never,
    };
    let interrupt = Interrupt::install()?;
    let threads = threads.map_or(0, usize::from);
    eprintln!("preparing data");
    let mut trainer = Trainer::open(options, base, &args.out, resume, threads)
        .doing("opening the run in", args.out.display())?;
    let display = Display {
        bar: progress::bar(0, "steps"),
        is_terminal: io::stderr().is_terminal(),
    };
    trainer.train(&display, &interrupt.watch())?;
    display.bar.finish_and_clear();
    let checkpoint = args.out.join("checkpoint");
    trainer.export(&checkpoint)?;
    writeln!(io::stdout(), "{}", checkpoint.display())?;
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
                    self.line(&format!(
                        "step {step}: {source}: loss {:.4}, perplexity {:.3}",
                        report.loss, report.perplexity
                    ));
                }
            }
            _ => {}
        }
    }
}
