//! `lfm2 eval`.

use std::io::{self, Write};

use anyhow::Result;
use lfm2_train::data::DataFile;
use lfm2_train::eval::{PerplexityOptions, perplexity};
use serde_json::json;

use super::eval_rows::{self, Measured};
use crate::args::{EvalArgs, EvalCommand, PerplexityArgs};
use crate::ui::interrupt::Interrupt;
use crate::ui::{json_line, progress};

pub(crate) fn run(args: &EvalArgs) -> Result<()> {
    match &args.command {
        EvalCommand::Recall(args) => eval_rows::recall(args),
        EvalCommand::Perplexity(args) => run_perplexity(args),
        EvalCommand::Choice(args) => eval_rows::choice(args),
        EvalCommand::Gsm8k(args) => eval_rows::gsm8k(args),
        EvalCommand::Ifeval(args) => eval_rows::ifeval(args),
        EvalCommand::Retrieval(args) => super::eval_retrieval::run(args),
        EvalCommand::Vl(args) => super::eval_vl::run(args),
        EvalCommand::Wer(args) => super::eval_wer::run(args),
    }
}

fn run_perplexity(args: &PerplexityArgs) -> Result<()> {
    let data = DataFile::read(&args.data)?;
    let interrupt = Interrupt::install()?;
    let measured = Measured::open(&args.model)?;
    let settings = json!({"context": usize::from(args.context)});
    let mut log =
        measured
            .identity
            .log(args.keep.as_deref(), "perplexity", data.sha256(), settings)?;
    let model = &measured.model;
    let mut options = PerplexityOptions::default();
    options.context = args.context.into();
    options.batch_tokens = options.batch_tokens.max(options.context);
    let bar = progress::bar(0, "tokens");
    let report = perplexity(
        model.network(),
        model.tokenizer(),
        &data,
        options,
        (&mut log, &interrupt.watch()),
        |done, total, loss| {
            bar.set_length(total as u64);
            bar.set_position(done as u64);
            bar.set_message(format!("perplexity {:.3}", loss.exp()));
        },
    )
    .map_err(|error| eval_rows::stopped(error, args.keep.as_deref()))?;
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
