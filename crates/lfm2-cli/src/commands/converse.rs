//! `lfm2 converse`.

use std::io::{self, Write};
use std::path::Path;

use anyhow::Result;
use lfm2::Cancel;
use lfm2::speech::{AudioModel, Clip, Event, GenerationOptions, SoundLimits};
use serde::Serialize;

use super::spoken::{self, Times};
use crate::args::ConverseArgs;
use crate::exit::{Doing, Stopped, invalid};
use crate::ui::interrupt::Interrupt;
use crate::ui::{json_line, open, progress, screen};

/// The object that `--json` writes.
#[derive(Debug, Serialize)]
struct Report<'a> {
    question: &'a str,
    answer: &'a str,
    output: &'a Path,
    question_seconds: f64,
    #[serde(flatten)]
    times: Times,
    complete: bool,
    seed: u64,
}

pub(crate) fn run(args: &ConverseArgs) -> Result<()> {
    let to_stdout = args.output == Path::new("-");
    if args.json && to_stdout {
        return Err(invalid(
            "stdout is for the sound, --json needs a file for it",
        ));
    }
    let interrupt = Interrupt::install()?;
    let clip =
        Clip::open(&args.input, &SoundLimits::default()).doing("reading", args.input.display())?;
    let (model, _) = open::speech_model(&args.model)?;
    let watch = interrupt.watch();
    let question = transcript(&model, &clip, &watch)?;
    // Text is for people, unless stdout is for something else.
    let shows = !args.json;
    let show = |text: &str| match (shows, to_stdout) {
        (false, _) => Ok(()),
        (true, false) => screen::print(text),
        (true, true) => write!(io::stderr(), "{}", screen::visible(text)),
    };
    show(&format!("you: {question}\nmodel: "))?;
    let options = args.sampling.options(GenerationOptions::chat());
    let bar = match shows {
        true => indicatif::ProgressBar::hidden(),
        false => progress::seconds(),
    };
    let begin = || model.converse(&clip, &options);
    let answer = spoken::collect(begin, &bar, &watch, |text| Ok(show(text)?))?;
    show("\n")?;
    spoken::write(&answer, &args.output, args.plot.as_deref(), &model)?;
    if args.json {
        json_line(&Report {
            question: &question,
            answer: &answer.text,
            output: &args.output,
            question_seconds: clip.seconds(),
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

/// What was asked, in words.
fn transcript(model: &AudioModel, clip: &Clip, cancel: &Cancel) -> Result<String> {
    let mut text = String::new();
    for event in model.transcribe(clip, &GenerationOptions::greedy())? {
        if cancel.is_cancelled() {
            return Err(Stopped.into());
        }
        if let Event::Text(piece) = event? {
            text.push_str(&piece);
        }
    }
    Ok(text.trim().to_owned())
}
