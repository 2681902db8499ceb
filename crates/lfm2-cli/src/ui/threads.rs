//! How many threads compute.
//!
//! Candle and rayon read the number from the environment, once, and keep pools of their own; a
//! program cannot change its own environment safely. So the command starts itself again with the number
//! in the environment, in the same process where the system can do that.

use std::env;
use std::num::NonZeroUsize;
use std::process::Command;

use anyhow::{Context, Result};

/// What the threads work on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    /// All on the same operation.
    Together,
    /// Each on a micro-batch of its own. A pool that splits single operations would only make them
    /// wait for each other: training is four times slower with it.
    Apart,
}

/// Makes the rest of the program compute on `threads` threads; `None` leaves that to the machine.
pub(crate) fn limit(threads: Option<NonZeroUsize>, work: Work) -> Result<()> {
    let threads = threads.map(|n| n.to_string());
    let candle = match work {
        Work::Together => threads.clone(),
        Work::Apart => Some("1".to_owned()),
    };
    let wanted = [
        ("LFM2_NUM_THREADS", threads.clone()),
        ("RAYON_NUM_THREADS", threads),
        ("CANDLE_NUM_THREADS", candle),
    ];
    let wanted = wanted
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
        .filter(|(name, value)| env::var(name).as_ref() != Ok(value));
    let wanted: Vec<(&str, String)> = wanted.collect();
    if wanted.is_empty() {
        return Ok(());
    }
    let program =
        env::current_exe().context("finding this program to start it again with its threads")?;
    let mut command = Command::new(program);
    command.args(env::args_os().skip(1)).envs(wanted);
    start_over(command).context("starting this program again with its threads")
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
