//! [`Halt`]: reasons of our own to stop a template, carried through the engine's errors.

use minijinja::{Error, ErrorKind};

/// Why a filter or function stopped the template.
#[derive(Debug, thiserror::Error)]
pub(super) enum Halt {
    /// The template called `raise_exception`.
    #[error("{0}")]
    Raised(String),
    /// A limit was reached.
    #[error("{what}: over the limit of {limit}")]
    Limit { what: &'static str, limit: usize },
}

impl From<Halt> for Error {
    fn from(halt: Halt) -> Self {
        Self::new(ErrorKind::InvalidOperation, halt.to_string()).with_source(halt)
    }
}

impl Halt {
    /// Fails when one text has more than `cap` bytes.
    pub(super) fn check_text(bytes: usize, cap: usize) -> Result<(), Error> {
        if bytes <= cap {
            return Ok(());
        }
        Err(Self::Limit {
            what: "bytes of one text in the chat template",
            limit: cap,
        }
        .into())
    }

    /// The reason inside an engine error, which may be wrapped in the errors of macros.
    pub(super) fn of(error: &Error) -> Option<&Self> {
        let first: &(dyn std::error::Error + 'static) = error;
        std::iter::successors(Some(first), |error| error.source())
            .find_map(|error| error.downcast_ref())
    }
}
