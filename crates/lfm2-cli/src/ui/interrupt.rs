//! What Ctrl-C does: the first stops the work at hand in good order, the second ends the program.

use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use lfm2::Cancel;

/// The usual code of a program that was ended with Ctrl-C.
const INTERRUPTED: i32 = 130;

/// The program's reaction to Ctrl-C. Outside a [`Watch`] it ends the program.
#[derive(Debug)]
pub(crate) struct Interrupt {
    current: Current,
}

type Current = Arc<Mutex<Option<Cancel>>>;

impl Interrupt {
    /// Takes over Ctrl-C. Can be called once.
    pub(crate) fn install() -> Result<Self> {
        let current = Current::default();
        let seen = Arc::clone(&current);
        ctrlc::set_handler(move || {
            let work = seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
            match work.filter(|cancel| !cancel.is_cancelled()) {
                Some(cancel) => cancel.cancel(),
                None => std::process::exit(INTERRUPTED),
            }
        })
        .context("taking over Ctrl-C")?;
        Ok(Self { current })
    }

    /// Until the result is dropped, Ctrl-C stops the work that holds its switch.
    pub(crate) fn watch(&self) -> Watch {
        let cancel = Cancel::new();
        set(&self.current, Some(cancel.clone()));
        Watch {
            current: Arc::clone(&self.current),
            cancel,
        }
    }
}

/// A piece of work that Ctrl-C stops.
#[derive(Debug)]
pub(crate) struct Watch {
    current: Current,
    cancel: Cancel,
}

impl Deref for Watch {
    type Target = Cancel;

    fn deref(&self) -> &Cancel {
        &self.cancel
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        set(&self.current, None);
    }
}

fn set(current: &Current, work: Option<Cancel>) {
    *current.lock().unwrap_or_else(PoisonError::into_inner) = work;
}
