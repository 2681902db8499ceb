//! Waiting for another thread: awake for a moment, then asleep.

use std::hint::spin_loop;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long a thread waits awake.
///
/// Longer than the pauses between the kernels of a decode step, because waking a thread takes the
/// system as long as a small kernel; short enough that a program which shares the cores with others
/// leaves them alone when it has nothing to do.
const AWAKE: Duration = Duration::from_micros(50);

/// Looks between two looks at the clock.
const LOOKS: usize = 16;

/// Wakes the one thread that waits for a condition made of atomics.
pub(super) struct Bell {
    /// A thread sleeps, or is about to, and nobody has rung for it yet.
    asleep: AtomicBool,
    door: Mutex<()>,
    ring: Condvar,
}

impl Bell {
    pub(super) const fn new() -> Self {
        Self {
            asleep: AtomicBool::new(false),
            door: Mutex::new(()),
            ring: Condvar::new(),
        }
    }

    /// Returns when `ready` holds. One thread at a time waits at a bell.
    pub(super) fn wait(&self, ready: impl Fn() -> bool) {
        // A thread that was woken for something already over stays awake for what comes next.
        while !watch(&ready) {
            let door = lock(&self.door);
            self.asleep.store(true, Ordering::Relaxed);
            // Either this look sees what a ringer has changed, or the ringer sees `asleep`: both
            // have a fence between their write and their read.
            fence(Ordering::SeqCst);
            if !ready() {
                drop(self.ring.wait(door));
            }
            self.asleep.store(false, Ordering::Relaxed);
        }
    }

    /// Wakes the waiting thread if it sleeps; to be called after what makes it ready *and* a
    /// `SeqCst` fence, which several bells can share.
    pub(super) fn ring(&self) {
        if self.asleep.load(Ordering::Relaxed) && self.asleep.swap(false, Ordering::Relaxed) {
            // With the door in hand the other side is not between its last look and its sleep.
            drop(lock(&self.door));
            self.ring.notify_one();
        }
    }

    /// Whether a thread sleeps, or is about to.
    #[cfg(test)]
    pub(super) fn is_asleep(&self) -> bool {
        self.asleep.load(Ordering::Relaxed)
    }
}

/// Looks until `ready` holds or the time is up, and says which.
fn watch(ready: impl Fn() -> bool) -> bool {
    let mut since = None;
    loop {
        for _ in 0..LOOKS {
            if ready() {
                return true;
            }
            spin_loop();
        }
        // Most waits are over before the clock is needed.
        if since.get_or_insert_with(Instant::now).elapsed() >= AWAKE {
            return false;
        }
    }
}

/// Nothing here can be left half done by a panic.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
