//! `lfm2 speak`.

use std::io;
use std::path::Path;

use anyhow::Result;
use lfm2::speech::GenerationOptions;
use serde::Serialize;

use super::spoken::{self, Times};
use crate::args::SpeakArgs;
use crate::exit::{Stopped, invalid};
use crate::ui::interrupt::Interrupt;
use crate::ui::{input, json_line, open, progress};

/// The object that `--json` writes.
#[derive(Debug, Serialize)]
struct Report<'a> {
    output: &'a Path,
    #[serde(flatten)]
    times: Times,
    complete: bool,
    seed: u64,
}

pub(crate) fn run(args: &SpeakArgs) -> Result<()> {
    if args.json && args.output == Path::new("-") {
        return Err(invalid(
            "stdout is for the sound, --json needs a file for it",
        ));
    }
    let text = match args.text.as_str() {
        "-" => input::read_text(io::stdin().lock(), "stdin")?,
        text => text.to_owned(),
    };
    if text.trim().is_empty() {
        return Err(invalid("there is no text to read aloud"));
    }
    let interrupt = Interrupt::install()?;
    let (model, _) = open::speech_model(&args.model)?;
    let options = args.sampling.options(GenerationOptions::speech());
    let watch = interrupt.watch();
    let bar = progress::seconds();
    let begin = || model.speak(text.trim(), &args.voice, &options);
    let answer = spoken::collect(begin, &bar, &watch, |_| Ok(()))?;
    spoken::write(&answer, &args.output, args.plot.as_deref(), &model)?;
    if args.json {
        json_line(&Report {
            output: &args.output,
            times: answer.times,
            complete: answer.complete,
            seed: args.sampling.seed,
        })?;
    } else {
        eprintln!("{}", answer.times);
    }
    match answer.cancelled {
        true => Err(Stopped.into()),
        false => Ok(()),
    }
}
