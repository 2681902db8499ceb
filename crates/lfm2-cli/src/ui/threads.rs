//! How many threads compute.
//!
//! Candle reads the number from the environment, once, and keeps pools of its own; a program
//! cannot change its own environment safely. So the command starts itself again with the number
//! in the environment, in the same process where the system can do that.

use std::env;
use std::num::NonZeroUsize;
use std::process::Command;

use anyhow::{Context, Result};

const VARIABLES: [&str; 2] = ["RAYON_NUM_THREADS", "CANDLE_NUM_THREADS"];

/// Makes the rest of the program compute on `threads` threads; `None` leaves that to the machine.
pub(crate) fn limit(threads: Option<NonZeroUsize>) -> Result<()> {
    let Some(threads) = threads.map(|n| n.to_string()) else {
        return Ok(());
    };
    let is_set = |name: &str| env::var(name).is_ok_and(|value| value == threads);
    if VARIABLES.into_iter().all(is_set) {
        return Ok(());
    }
    let program =
        env::current_exe().context("finding this program to start it again for --threads")?;
    let mut command = Command::new(program);
    command
        .args(env::args_os().skip(1))
        .envs(VARIABLES.map(|name| (name, &threads)));
    start_over(command).context("starting this program again for --threads")
}

#[cfg(unix)]
fn start_over(mut command: Command) -> Result<()> {
    use std::os::unix::process::CommandExt;
    // Returns only when it fails.
    Err(command.exec().into())
}

#[cfg(not(unix))]
fn start_over(mut command: Command) -> Result<()> {
    let status = command.status()?;
    std::process::exit(status.code().unwrap_or(1))
}
