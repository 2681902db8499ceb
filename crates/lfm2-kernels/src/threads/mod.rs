//! Splitting work over threads.
//!
//! Work is cut into tasks by fixed sizes, never by the number of threads, so results do not depend
//! on it. Small problems stay on the calling thread.
//!
//! The threads are this crate's own: one pool per process, started by the first large problem. The
//! calling thread is one of them and works too. Between two problems the others stay awake for some
//! 50 microseconds, so that handing work over costs less than one, and then sleep. One problem at a
//! time runs on the pool; a kernel called while it is busy, from another thread or inside a task,
//! runs on the thread that called it.
//!
//! There are as many threads as processors this process may use, or as the environment variable
//! `LFM2_NUM_THREADS` says, or [`set_threads`]. Where the system has no threads, there is one.

mod bell;
mod pool;
mod shared;

use std::cell::Cell;
use std::num::NonZeroUsize;
use std::sync::LazyLock;
use std::thread;

use pool::Pool;
pub(crate) use shared::SharedMut;

/// Below this many multiply-adds the hand-off to other threads costs more than it saves.
const SERIAL_WORK: usize = 1 << 17;

static POOL: LazyLock<Pool> =
    LazyLock::new(|| Pool::new(from_env().unwrap_or_else(|_| processors())));

thread_local! {
    static ALONE: Cell<bool> = const { Cell::new(false) };
}

/// `LFM2_NUM_THREADS` is not a number of threads.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("LFM2_NUM_THREADS: expected a number from 1, found \"{found}\"")]
pub struct ThreadsError {
    /// What it is.
    pub found: String,
}

/// The number of threads to start with: what the environment variable `LFM2_NUM_THREADS` says, or
/// else one per processor this process may use (affinity and control groups count).
///
/// # Errors
/// When the variable holds something else than a positive number. The kernels then run as if it were
/// not set, so programs should ask.
pub fn from_env() -> Result<NonZeroUsize, ThreadsError> {
    match std::env::var_os("LFM2_NUM_THREADS") {
        None => Ok(processors()),
        Some(text) => parse(&text.to_string_lossy()),
    }
}

fn parse(text: &str) -> Result<NonZeroUsize, ThreadsError> {
    text.parse().map_err(|_| ThreadsError {
        found: text.to_owned(),
    })
}

fn processors() -> NonZeroUsize {
    thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}

/// How many threads large problems run on, the calling one included.
pub fn count() -> usize {
    POOL.threads()
}

/// Changes how many threads large problems run on, from the next problem on, for the whole process;
/// at most 512.
///
/// More than there are processors to run them makes everything slower. One starts no thread at all.
pub fn set_threads(threads: NonZeroUsize) {
    POOL.set_threads(threads);
}

/// Runs `f`, and all kernels in it, on the calling thread alone.
///
/// For programs that have something else to do with every processor, a sequence or a micro-batch
/// each.
pub fn alone<R>(f: impl FnOnce() -> R) -> R {
    /// Puts the setting back, after a panic too.
    struct Before(bool);

    impl Drop for Before {
        fn drop(&mut self) {
            ALONE.set(self.0);
        }
    }

    let _before = Before(ALONE.replace(true));
    f()
}

/// Calls `f` for every number below `tasks`, in any order; on several threads when `work`, the
/// multiply-adds of all tasks together, is worth it.
///
/// # Panics
/// When a task does. Other tasks may then be left out, but none still runs.
pub fn for_each_task(tasks: usize, work: usize, f: impl Fn(usize) + Sync) {
    if tasks > 1 && work >= SERIAL_WORK && !ALONE.get() {
        POOL.for_each(tasks, &f);
    } else {
        (0..tasks).for_each(f);
    }
}

/// Calls `f` with the number and the content of every run of `chunk` values (the last may be
/// shorter); on several threads when `work` is worth it.
pub(crate) fn for_each_chunk<T: Send>(
    data: &mut [T],
    chunk: usize,
    work: usize,
    f: impl Fn(usize, &mut [T]) + Sync,
) {
    let len = data.len();
    let shared = SharedMut::new(data);
    for_each_task(len.div_ceil(chunk), work, |task| {
        let start = task * chunk;
        // SAFETY: tasks take disjoint ranges.
        f(task, unsafe { shared.slice(start, chunk.min(len - start)) });
    });
}

#[cfg(test)]
mod tests;
