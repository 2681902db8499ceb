//! From an error to one line on stderr and an exit code.
//!
//! Codes follow from the error's kind alone; the table is part of `lfm2 --help`.

use std::fmt::Display;
use std::io;
use std::process::ExitCode;

use anyhow::Error;
use lfm2::ErrorKind;

use crate::ui::screen;

/// The work was stopped with Ctrl-C after what it had to say was said.
#[derive(Debug, thiserror::Error)]
#[error("stopped")]
pub(crate) struct Stopped;

/// A wrong prompt, file or combination of flags that the library has not seen.
pub(crate) fn invalid(message: impl Into<String>) -> Error {
    lfm2::hub::Error::InvalidInput(message.into()).into()
}

/// Says what was being done to what when something failed.
pub(crate) trait Doing<T> {
    /// The result with `verb name` in front of its error, unless the error names it already.
    fn doing(self, verb: &str, name: impl Display) -> anyhow::Result<T>;
}

impl<T, E: Into<Error>> Doing<T> for Result<T, E> {
    fn doing(self, verb: &str, name: impl Display) -> anyhow::Result<T> {
        self.map_err(|error| {
            let (error, name) = (error.into(), name.to_string());
            match names(&one_line(&error), &name) {
                true => error,
                false => error.context(format!("{verb} {name}")),
            }
        })
    }
}

/// Whether `name` is in the text, and not only as a part of a longer word.
fn names(text: &str, name: &str) -> bool {
    text.match_indices(name).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = text[at + name.len()..].chars().next();
        ![before, after]
            .into_iter()
            .flatten()
            .any(char::is_alphanumeric)
    })
}

/// Prints an error, if there is one, and returns the exit code.
pub(crate) fn report(result: anyhow::Result<()>) -> ExitCode {
    let Err(error) = result else {
        return ExitCode::SUCCESS;
    };
    if is_broken_pipe(&error) {
        // Whoever read our output has enough of it.
        return ExitCode::SUCCESS;
    }
    let kind = kind(&error);
    if !error.is::<Stopped>() {
        eprintln!("error: {}", screen::visible(&one_line(&error)));
    }
    ExitCode::from(code(kind))
}

fn code(kind: ErrorKind) -> u8 {
    match kind {
        ErrorKind::InvalidInput => 2,
        ErrorKind::NotFound => 3,
        ErrorKind::InvalidModel => 4,
        ErrorKind::Unsupported => 5,
        ErrorKind::Limit => 6,
        ErrorKind::Busy => 7,
        ErrorKind::Io => 8,
        ErrorKind::Cancelled => 130,
        _ => 1,
    }
}

/// The kind of the outermost cause that has one.
fn kind(error: &Error) -> ErrorKind {
    let of = |cause: &(dyn std::error::Error + 'static)| {
        if let Some(error) = cause.downcast_ref::<lfm2::Error>() {
            Some(error.kind())
        } else if let Some(error) = cause.downcast_ref::<lfm2::hub::Error>() {
            Some(error.kind())
        } else if let Some(error) = cause.downcast_ref::<lfm2::generate::Error>() {
            Some(error.kind())
        } else if let Some(error) = cause.downcast_ref::<lfm2::retrieval::Error>() {
            Some(error.kind())
        } else if let Some(error) = cause.downcast_ref::<lfm2::retrieval::IndexError>() {
            Some(error.kind())
        } else if let Some(error) = cause.downcast_ref::<lfm2::sentence::Error>() {
            Some(error.kind())
        } else if let Some(error) = cause.downcast_ref::<lfm2_train::Error>() {
            Some(error.kind())
        } else if let Some(error) = cause.downcast_ref::<lfm2_analysis::Error>() {
            Some(of_analysis(error.kind()))
        } else if cause.is::<Stopped>() {
            Some(ErrorKind::Cancelled)
        } else {
            cause.is::<io::Error>().then_some(ErrorKind::Io)
        }
    };
    error.chain().find_map(of).unwrap_or(ErrorKind::Internal)
}

/// The crate of studies knows no model, and so has kinds of its own.
fn of_analysis(kind: lfm2_analysis::ErrorKind) -> ErrorKind {
    match kind {
        lfm2_analysis::ErrorKind::NotFound => ErrorKind::NotFound,
        lfm2_analysis::ErrorKind::InvalidInput => ErrorKind::InvalidInput,
        lfm2_analysis::ErrorKind::Limit => ErrorKind::Limit,
        lfm2_analysis::ErrorKind::Cancelled => ErrorKind::Cancelled,
        lfm2_analysis::ErrorKind::Io => ErrorKind::Io,
        _ => ErrorKind::Internal,
    }
}

fn is_broken_pipe(error: &Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<io::Error>()
            .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    })
}

/// The message and those of its causes that it does not contain already.
pub(crate) fn one_line(error: &Error) -> String {
    let mut line = String::new();
    for cause in error.chain() {
        let text = cause
            .to_string()
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ");
        if line.is_empty() {
            line = text;
        } else if !line.contains(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    fn failed(error: impl Into<Error>) -> anyhow::Result<()> {
        Err(error.into())
    }

    #[test]
    fn codes_follow_from_the_kind_of_the_outermost_known_cause() {
        let missing = lfm2::hub::Error::MissingTensor { name: "x".into() };
        let wrapped = failed(lfm2::Error::from(missing))
            .context("opening")
            .unwrap_err();
        assert_eq!(code(kind(&wrapped)), 4);
        assert_eq!(code(kind(&invalid("no"))), 2);
        assert_eq!(code(kind(&Stopped.into())), 130);
        assert_eq!(
            code(kind(&lfm2_train::Error::Cancelled { step: 3 }.into())),
            130
        );
        assert_eq!(code(kind(&lfm2_analysis::Error::Cancelled.into())), 130);
        assert_eq!(
            code(kind(&io::Error::from(io::ErrorKind::StorageFull).into())),
            8
        );
        assert_eq!(code(kind(&anyhow::anyhow!("a surprise"))), 1);
    }

    #[test]
    fn causes_are_joined_and_not_repeated() {
        let io = io::Error::from(io::ErrorKind::NotFound);
        let error = failed(lfm2::hub::Error::io("a/b", io))
            .context("reading\nall")
            .unwrap_err();
        assert_eq!(one_line(&error), "reading all: a/b: entity not found");
    }

    #[test]
    fn a_name_is_said_once() {
        let io = || lfm2::hub::Error::io("a/b", io::ErrorKind::NotFound.into());
        let said = |result: Result<(), lfm2::hub::Error>, name| {
            one_line(&result.doing("opening", name).unwrap_err())
        };
        assert_eq!(said(Err(io()), "a/b"), "a/b: entity not found");
        assert_eq!(said(Err(io()), "a"), "a/b: entity not found");
        let elsewhere = "opening b/c: a/b: entity not found";
        assert_eq!(said(Err(io()), "b/c"), elsewhere);
        // A letter in another word is no name.
        assert_eq!(said(Err(io()), "e"), "opening e: a/b: entity not found");
    }

    #[test]
    fn a_closed_stdout_is_no_error() {
        let error = failed(io::Error::from(io::ErrorKind::BrokenPipe))
            .context("writing")
            .unwrap_err();
        assert!(is_broken_pipe(&error));
        assert!(!is_broken_pipe(&invalid("no")));
    }
}
