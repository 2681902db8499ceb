//! `lfm2 search`: one question, or one after another.

mod show;

use std::io::{self, IsTerminal};
use std::time::Instant;

use anyhow::Result;
use lfm2::retrieval::{Library, LibraryCard, SearchOptions};

use crate::args::SearchArgs;
use crate::exit::{invalid, one_line};
use crate::ui::lines::{History, Line, Lines};
use crate::ui::{open, screen};
use show::{Paint, Shown};

pub(crate) fn run(args: &SearchArgs) -> Result<()> {
    if !args.rest.is_empty() {
        return Err(invalid(
            "expected one question, found several words; put the question in quotes",
        ));
    }
    let card = LibraryCard::read(&args.index)?;
    let (model, _) = open::retrieval_model(&args.model, card.model.as_deref())?;
    let mut library = open::library(&args.index, &card, model)?;
    match &args.question {
        Some(question) => answer(&library, question, args),
        None => converse(&mut library, args),
    }
}

/// Answers questions until there are no more.
fn converse(library: &mut Library, args: &SearchArgs) -> Result<()> {
    let mut lines = Lines::open(History::Search)?;
    if lines.is_terminal() {
        eprintln!(
            "{} chunks: ask a question, Ctrl-D ends.",
            library.info().documents
        );
    }
    loop {
        let question = match lines.next()? {
            Line::Text(text) => text,
            Line::Interrupted => continue,
            Line::End => break,
        };
        // Somebody may have added something in the meantime.
        library.refresh()?;
        match answer(library, &question, args) {
            Ok(()) => {}
            // A person can go on after a mistake, a script cannot see it.
            Err(error) if lines.is_terminal() && !error.is::<io::Error>() => {
                eprintln!("error: {}", screen::visible(&one_line(&error)));
            }
            Err(error) => return Err(error),
        }
    }
    lines.close();
    Ok(())
}

fn answer(library: &Library, question: &str, args: &SearchArgs) -> Result<()> {
    let mut options = SearchOptions::top(args.top.into());
    options.filter.clone_from(&args.filter);
    let started = Instant::now();
    let query = library.encode(question)?;
    let encoded = started.elapsed();
    let answers = library.search_vectors(&query, &options)?;
    let searched = started.elapsed() - encoded;
    let paint = match io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none() {
        true => Paint::Colour,
        false => Paint::Plain,
    };
    for (answer, rank) in answers.iter().zip(1..) {
        let meetings = match args.explain {
            true => Some(library.explain(&query, answer)?),
            false => None,
        };
        let shown = Shown {
            question,
            rank,
            answer,
            meetings: meetings.as_deref(),
        };
        match args.json {
            true => shown.json()?,
            false => shown.print(paint)?,
        }
    }
    if answers.is_empty() && !args.json {
        eprintln!("nothing found");
    }
    if args.verbose {
        let milliseconds = |time: std::time::Duration| 1000.0 * time.as_secs_f64();
        eprintln!(
            "question read in {:.1} ms, {} chunks searched in {:.1} ms",
            milliseconds(encoded),
            library.info().documents,
            milliseconds(searched)
        );
    }
    Ok(())
}
