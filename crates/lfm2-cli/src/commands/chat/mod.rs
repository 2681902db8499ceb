//! `lfm2 chat`: reads lines, answers them, obeys commands that begin with a slash.

mod session;
mod slash;
mod talker;

use std::io::{self, IsTerminal, Write};

use anyhow::Result;
use lfm2::generate::{Error as GenerateError, Turns, recommended};

use crate::args::ChatArgs;
use crate::exit::{Stopped, one_line};
use crate::ui::interrupt::Interrupt;
use crate::ui::lines::{History, Line, Lines};
use crate::ui::screen;
use session::Session;
use slash::Slash;
use talker::Talker;

/// Whether the conversation goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Ask,
    End,
}

pub(crate) fn run(args: &ChatArgs) -> Result<()> {
    let interrupt = Interrupt::install()?;
    let model = Talker::open(args)?;
    let mut lines = Lines::open(History::Chat)?;
    if lines.is_terminal() {
        eprintln!("{}: /help lists the commands, Ctrl-D ends.", model.origin());
        if model.gallery().is_some() {
            eprintln!("It reads pictures: /image PATH shows it one.");
        }
        if recommended(model.origin()).is_some_and(|preset| preset.turns == Turns::Single) {
            eprintln!(
                "This model was trained for one question and one answer: use /clear in between."
            );
        }
    }
    let mut session = Session::new(model, args)?;
    loop {
        let next = match lines.next()? {
            Line::Text(text) => turn(&mut session, &interrupt, &text),
            Line::Interrupted => Ok(Next::Ask),
            Line::End => Ok(Next::End),
        };
        match next {
            Ok(Next::Ask) => {}
            Ok(Next::End) => break,
            // A person can go on after a mistake, a script cannot see it.
            Err(error) if lines.is_terminal() && !error.is::<io::Error>() => complain(&error),
            Err(error) => return Err(error),
        }
    }
    lines.close();
    Ok(())
}

fn complain(error: &anyhow::Error) {
    eprintln!("error: {}", screen::visible(&one_line(error)));
    if let Some(GenerateError::PromptTooLong { .. }) = error.downcast_ref() {
        eprintln!("/undo or /clear makes room");
    }
}

fn turn(session: &mut Session, interrupt: &Interrupt, text: &str) -> Result<Next> {
    match Slash::parse(text)? {
        None => {
            let watch = interrupt.watch();
            session.ask(slash::unescape(text), &watch)?;
            // In a terminal, Ctrl-C stops the answer; where nobody types, it stops the program.
            if watch.is_cancelled() && !io::stdin().is_terminal() {
                return Err(Stopped.into());
            }
        }
        Some(Slash::Exit) => return Ok(Next::End),
        Some(Slash::Help) => eprint!("{}", slash::HELP),
        Some(Slash::Clear) => session.clear(),
        Some(Slash::Undo) => session.undo(),
        Some(Slash::System(text)) => session.set_system(&text)?,
        Some(Slash::Save { path, overwrite }) => session.save(&path, overwrite)?,
        Some(Slash::Load(path)) => session.load(&path)?,
        Some(Slash::Stats) => session.stats(),
        Some(Slash::Image(path)) => session.show(path)?,
    }
    io::stdout().flush()?;
    Ok(Next::Ask)
}
