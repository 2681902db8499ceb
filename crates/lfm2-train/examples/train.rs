//! Trains a model: `cargo run --release -p lfm2-train --example train -- RUN.json OUT [THREADS]`.
//!
//! Run again with the same arguments, it continues where it was stopped.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use lfm2_generate::Cancel;
use lfm2_train::{Resume, TrainEvent, TrainOptions, TrainProgress, Trainer};

struct Lines(Instant);

impl TrainProgress for Lines {
    #[allow(clippy::print_stdout, reason = "an example talks to its user")]
    fn event(&self, event: &TrainEvent<'_>) {
        match event {
            TrainEvent::Prepared {
                parameters,
                vocab_size,
                sources,
                step,
                steps,
            } => {
                println!("{parameters} parameters, {vocab_size} tokens, step {step} of {steps}");
                sources.iter().for_each(|source| println!("  {source:?}"));
            }
            TrainEvent::Step(s) if s.step.is_multiple_of(20) || s.step < 5 => {
                let (elapsed, speed) = (self.0.elapsed().as_secs(), s.tokens as f64 / s.seconds);
                println!(
                    "{elapsed} s, step {}: loss {:.4}, norm {:.3}, {speed:.0} tokens/s",
                    s.step, s.loss, s.grad_norm
                );
            }
            TrainEvent::Validation(reports) => {
                reports
                    .iter()
                    .for_each(|r| println!("step {}, {}: loss {:.4}", r.step, r.source, r.loss));
            }
            _ => {}
        }
    }
}

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let config = arguments
        .next()
        .context("expected the run's configuration file")?;
    let out = arguments.next().context("expected the folder of the run")?;
    let threads = arguments
        .next()
        .map_or(Ok(0), |n| n.parse())
        .context("expected a number of threads")?;
    let (config, out) = (Path::new(&config), Path::new(&out));
    let base = config.parent().unwrap_or(Path::new("."));
    let mut trainer = Trainer::open(
        TrainOptions::read(config)?,
        base,
        out,
        Resume::Continue,
        threads,
    )?;
    trainer.train(&Lines(Instant::now()), &Cancel::new())?;
    trainer.export(&out.join("checkpoint"))?;
    Ok(())
}
