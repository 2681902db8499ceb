//! `lfm2 eval`.

use std::io::{self, Write};
use std::time::Instant;

use anyhow::Result;
use lfm2_train::data::DataFile;
use lfm2_train::{Answerer, PerplexityOptions, RecallOptions, perplexity, read_recall, recall};

use crate::args::{EvalArgs, EvalCommand, PerplexityArgs, RecallArgs};
use crate::ui::interrupt::Interrupt;
use crate::ui::{json_line, open, progress};

pub(crate) fn run(args: &EvalArgs) -> Result<()> {
    match &args.command {
        EvalCommand::Recall(args) => run_recall(args),
        EvalCommand::Perplexity(args) => run_perplexity(args),
        EvalCommand::Retrieval(args) => super::eval_retrieval::run(args),
        EvalCommand::Vl(args) => super::eval_vl::run(args),
        EvalCommand::Wer(args) => super::eval_wer::run(args),
    }
}

fn run_perplexity(args: &PerplexityArgs) -> Result<()> {
    let data = DataFile::read(&args.data)?;
    let interrupt = Interrupt::install()?;
    let model = open::model(&args.model)?;
    let mut options = PerplexityOptions::default();
    options.context = args.context.into();
    options.batch_tokens = options.batch_tokens.max(options.context);
    let bar = progress::bar(0, "tokens");
    let report = perplexity(
        model.network(),
        model.tokenizer(),
        &data,
        options,
        &interrupt.watch(),
        |done, total, loss| {
            bar.set_length(total as u64);
            bar.set_position(done as u64);
            bar.set_message(format!("perplexity {:.3}", loss.exp()));
        },
    )?;
    bar.finish_and_clear();
    if args.json {
        return json_line(&report);
    }
    writeln!(
        io::stdout(),
        "perplexity {:.4}, {:.4} bits per byte ({} tokens in {} texts)",
        report.perplexity,
        report.bits_per_byte,
        report.tokens,
        report.documents
    )?;
    Ok(())
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
