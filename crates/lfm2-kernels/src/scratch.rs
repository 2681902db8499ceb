//! Working memory that outlives a call.
//!
//! Large temporaries that are mapped and unmapped by every call cost more than the arithmetic on
//! them (each fresh page is a fault), so every thread keeps the buffers it has used. What is kept
//! is bounded by the largest single use: a block of 256 activation rows for matrix products.

use std::cell::RefCell;

/// A cache line, so that vector loads from scratch memory never straddle two.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; 16]);

thread_local! {
    /// A stack, because a thread that waits for others inside one use may be lent to another.
    static FREE: RefCell<Vec<Vec<Line>>> = const { RefCell::new(Vec::new()) };
}

/// Calls `f` with `len` values of unspecified content, aligned to a cache line.
///
/// The memory stays with the thread for the next use, since fresh pages cost more than most arithmetic
/// on them.
pub fn with_scratch<R>(len: usize, f: impl FnOnce(&mut [f32]) -> R) -> R {
    let mut lines = FREE.with_borrow_mut(Vec::pop).unwrap_or_default();
    let needed = len.div_ceil(16);
    if lines.len() < needed {
        lines.resize(needed, Line([0.0; 16]));
    }
    // SAFETY: a `Line` is 16 `f32` without padding, all initialised, and `len` is at most
    // `16 * lines.len()`; the borrow of `lines` lasts as long as the slice.
    let values = unsafe { std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast::<f32>(), len) };
    let result = f(values);
    FREE.with_borrow_mut(|free| free.push(lines));
    result
}
