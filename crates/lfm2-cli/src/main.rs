//! The `lfm2` command: every command is a thin layer over the library of the same name.
//!
//! `args` turns the command line into plain structs and opens nothing, `commands` has one file per
//! command, `ui` everything that is about terminals. Results go to stdout, everything else to
//! stderr.

mod args;
mod commands;
mod exit;
mod ui;

use std::process::ExitCode;

use clap::Parser;

use args::{Cli, Command};
use ui::threads::Work;

fn main() -> ExitCode {
    // Every command but a few reads prompts; where the system cannot, it is a little slower.
    lfm2::nn::keep_freed_memory();
    exit::report(run(Cli::parse()))
}

fn run(cli: Cli) -> anyhow::Result<()> {
    ui::log::start(cli.global.log);
    let work = match &cli.command {
        Command::Train(_) => Work::Apart,
        _ => Work::Together,
    };
    ui::threads::limit(cli.global.threads, work)?;
    match cli.command {
        Command::Generate(args) => commands::generate::run(&args),
        Command::Batch(args) => commands::batch::run(&args),
        Command::Chat(args) => commands::chat::run(&args),
        Command::Describe(args) => commands::describe::run(&args),
        Command::Index(args) => commands::index::run(&args),
        Command::Search(args) => commands::search::run(&args),
        Command::Embed(args) => commands::embed::run(&args),
        Command::Rerank(args) => commands::rerank::run(&args),
        Command::Transcribe(args) => commands::transcribe::run(&args),
        Command::Speak(args) => commands::speak::run(&args),
        Command::Converse(args) => commands::converse::run(&args),
        Command::Inspect(args) => commands::inspect::run(&args),
        Command::Download(args) => commands::download::run(args),
        Command::Quantize(args) => commands::quantize::run(&args),
        Command::Bench(args) => commands::bench::run(&args),
        Command::Train(args) => commands::train::run(&args, cli.global.threads),
        Command::Merge(args) => commands::merge::run(&args),
        Command::Eval(args) => commands::eval::run(&args),
        Command::Analyze(args) => commands::analyze::run(&args),
    }
}
