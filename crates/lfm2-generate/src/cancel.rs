//! Stopping work from elsewhere: [`Cancel`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A switch that stops one generation. All clones are the same switch.
#[derive(Debug, Clone, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// A switch that is not set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks the work to stop; it does within one forward pass. Can be called from a signal handler.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// The switch itself, for work that takes one.
    pub fn switch(&self) -> &AtomicBool {
        &self.0
    }

    /// Whether someone asked.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
