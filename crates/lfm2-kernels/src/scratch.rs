//! Working memory that outlives a call.
//!
//! Large temporaries that are mapped and unmapped by every call cost more than the arithmetic on
//! them (each fresh page is a fault), so every thread keeps the buffers it has used. What is kept
//! is bounded by what a thread has in use at the same time.

use std::cell::RefCell;
use std::fmt;
use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};

use crate::packed::Pages;

thread_local! {
    /// What nobody on this thread uses.
    static FREE: RefCell<Vec<Pages>> = const { RefCell::new(Vec::new()) };
}

/// Values of unspecified content, aligned to a cache line, whose memory stays with the thread that
/// drops them, for the next one to use.
pub struct Scratch {
    pages: ManuallyDrop<Pages>,
    len: usize,
}

impl Scratch {
    /// `len` values.
    pub fn new(len: usize) -> Self {
        let size = len * size_of::<f32>();
        let kept = FREE.with_borrow_mut(|free| {
            let fits = free.iter().enumerate().filter(|(_, p)| p.len() >= size);
            let best = fits.min_by_key(|(_, pages)| pages.len()).map(|(at, _)| at);
            best.map(|at| free.swap_remove(at))
        });
        // In powers of two, so that uses that grow step by step do not begin anew each time.
        let pages = kept.unwrap_or_else(|| Pages::zeroed(size.next_power_of_two()));
        Self {
            pages: ManuallyDrop::new(pages),
            len,
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // SAFETY: the value is not touched again.
        let pages = unsafe { ManuallyDrop::take(&mut self.pages) };
        // A thread that ends may have no list any more.
        let _ = FREE.try_with(|free| free.borrow_mut().push(pages));
    }
}

impl Deref for Scratch {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        let start = self.pages.as_ptr();
        // SAFETY: pages are aligned to a cache line at least, initialised, and hold `len` values; every
        // bit pattern is an `f32`, and the borrow lasts as long as the slice.
        unsafe { std::slice::from_raw_parts(start.cast::<f32>(), self.len) }
    }
}

impl DerefMut for Scratch {
    fn deref_mut(&mut self) -> &mut [f32] {
        let start = self.pages.as_mut_ptr();
        // SAFETY: as above, and the borrow is unique.
        unsafe { std::slice::from_raw_parts_mut(start.cast::<f32>(), self.len) }
    }
}

impl fmt::Debug for Scratch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Scratch({} values)", self.len)
    }
}

/// Calls `f` with `len` values of unspecified content, aligned to a cache line.
///
/// The memory stays with the thread for the next use, since fresh pages cost more than most arithmetic
/// on them.
pub fn with_scratch<R>(len: usize, f: impl FnOnce(&mut [f32]) -> R) -> R {
    f(&mut Scratch::new(len))
}
