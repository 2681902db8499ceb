//! `lfm2 eval`.

use std::io::{self, Write};
use std::time::Instant;

use anyhow::Result;
use lfm2_train::{Answerer, RecallOptions, read_recall, recall};

use crate::args::{EvalArgs, EvalCommand, RecallArgs};
use crate::ui::interrupt::Interrupt;
use crate::ui::{json_line, open, progress};

pub(crate) fn run(args: &EvalArgs) -> Result<()> {
    match &args.command {
        EvalCommand::Recall(args) => run_recall(args),
    }
}

fn run_recall(args: &RecallArgs) -> Result<()> {
    let mut rows = read_recall(&args.data)?;
    rows.truncate(args.limit.map_or(usize::MAX, usize::from));
    let interrupt = Interrupt::install()?;
    let model = open::model(&args.model)?;
    let mut options = RecallOptions::default();
    options.max_new_tokens = args.max_new_tokens.into();
    options.batch = args.batch.into();
    let answerer = Answerer {
        model: model.network(),
        tokenizer: model.tokenizer(),
        template: model.template()?,
        stop_ids: model.generator().stop_ids(),
    };
    let bar = progress::bar(rows.len() as u64, "rows");
    let started = Instant::now();
    let mut right = 0_usize;
    let report = recall(&answerer, &rows, &options, &interrupt.watch(), |outcome| {
        bar.inc(1);
        right += usize::from(outcome.right);
        bar.set_message(format!(
            "{:.1} % right",
            100.0 * right as f64 / bar.position() as f64
        ));
        if args.verbose && !outcome.right {
            bar.suspend(|| {
                eprintln!(
                    "expected {:?}, found {:?}",
                    outcome.row.answer, outcome.output
                );
            });
        }
    })?;
    bar.finish_and_clear();
    if args.json {
        return json_line(&report);
    }
    let seconds = started.elapsed().as_secs_f64();
    writeln!(
        io::stdout(),
        "{} of {} rows right: {:.1} % in {seconds:.1} s",
        right,
        report.rows,
        100.0 * report.accuracy
    )?;
    Ok(())
}
