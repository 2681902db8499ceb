//! Working memory that outlives a call.
//!
//! Large temporaries that are mapped and unmapped by every call cost more than the arithmetic on
//! them (each fresh page is a fault), so every thread keeps the buffers it has used. What is kept
//! is bounded by the largest single use: a block of 256 activation rows for matrix products.

use std::cell::RefCell;

use crate::packed::Pages;

thread_local! {
    /// A stack, because one use may be inside another.
    static FREE: RefCell<Vec<Pages>> = const { RefCell::new(Vec::new()) };
}

/// Calls `f` with `len` values of unspecified content, aligned to a cache line.
///
/// The memory stays with the thread for the next use, since fresh pages cost more than most arithmetic
/// on them.
pub fn with_scratch<R>(len: usize, f: impl FnOnce(&mut [f32]) -> R) -> R {
    let size = len * size_of::<f32>();
    let kept = FREE.with_borrow_mut(Vec::pop);
    let mut pages = match kept {
        Some(pages) if pages.len() >= size => pages,
        // In powers of two, so that uses that grow step by step do not begin anew each time.
        _ => Pages::zeroed(size.next_power_of_two()),
    };
    // SAFETY: pages are aligned to a cache line at least, initialised, and hold `size` bytes; every bit
    // pattern is an `f32`, and the borrow of `pages` lasts as long as the slice.
    let values = unsafe { std::slice::from_raw_parts_mut(pages.as_mut_ptr().cast::<f32>(), len) };
    let result = f(values);
    FREE.with_borrow_mut(|free| free.push(pages));
    result
}
