//! Everything that is about terminals and processes: nothing here knows a model's insides.

pub(crate) mod format;
pub(crate) mod input;
pub(crate) mod interrupt;
pub(crate) mod lines;
pub(crate) mod log;
pub(crate) mod open;
pub(crate) mod progress;
pub(crate) mod screen;
pub(crate) mod sound_picture;
pub(crate) mod threads;

use std::io::{self, Write};

use anyhow::Result;
use serde::Serialize;

/// Writes a value as one line of JSON to stdout.
pub(crate) fn json_line(value: &impl Serialize) -> Result<()> {
    let mut out = io::stdout().lock();
    serde_json::to_writer(&mut out, value)?;
    writeln!(out)?;
    Ok(out.flush()?)
}

/// Writes a value as readable JSON to stdout.
pub(crate) fn json_pretty(value: &impl Serialize) -> Result<()> {
    let mut out = io::stdout().lock();
    serde_json::to_writer_pretty(&mut out, value)?;
    writeln!(out)?;
    Ok(out.flush()?)
}
