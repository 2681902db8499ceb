//! Splitting work over threads.
//!
//! Work is cut into tasks by fixed sizes, never by the number of threads, so results do not depend
//! on the pool. Small problems stay on the calling thread.

use std::marker::PhantomData;

/// Below this many multiply-adds the hand-off to other threads costs more than it saves.
const SERIAL_WORK: usize = 1 << 17;

/// Runs `f` on the kernels' thread pool and returns its result.
///
/// Kernels called inside start their parallel parts without a hand-off from an outside thread, so
/// wrap a whole forward pass. Without the feature `rayon` this just calls `f`.
pub fn in_pool<R: Send>(f: impl FnOnce() -> R + Send) -> R {
    #[cfg(feature = "rayon")]
    {
        rayon::scope(|_| f())
    }
    #[cfg(not(feature = "rayon"))]
    {
        f()
    }
}

/// How many threads large kernels run on.
pub fn count() -> usize {
    #[cfg(feature = "rayon")]
    {
        rayon::current_num_threads()
    }
    #[cfg(not(feature = "rayon"))]
    {
        1
    }
}

/// Calls `f` for every task number; on several threads when `work`, the multiply-adds of all tasks
/// together, is worth it.
pub(crate) fn for_each_task(tasks: usize, work: usize, f: impl Fn(usize) + Sync) {
    if tasks > 1 && work >= SERIAL_WORK && count() > 1 {
        spread(tasks, &f);
    } else {
        (0..tasks).for_each(f);
    }
}

#[cfg(feature = "rayon")]
fn spread(tasks: usize, f: &(impl Fn(usize) + Sync)) {
    use rayon::prelude::*;
    (0..tasks).into_par_iter().for_each(f);
}

#[cfg(not(feature = "rayon"))]
fn spread(tasks: usize, f: &(impl Fn(usize) + Sync)) {
    (0..tasks).for_each(f);
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

/// A slice of which several threads write disjoint parts.
pub(crate) struct SharedMut<'a, T> {
    start: *mut T,
    len: usize,
    borrow: PhantomData<&'a mut [T]>,
}

// SAFETY: the only access is `slice`, whose caller promises disjoint ranges, so at most one thread
// at a time reaches each value; `T: Send` lets that be any thread.
unsafe impl<T: Send> Sync for SharedMut<'_, T> {}

impl<'a, T> SharedMut<'a, T> {
    pub(crate) fn new(data: &'a mut [T]) -> Self {
        Self {
            start: data.as_mut_ptr(),
            len: data.len(),
            borrow: PhantomData,
        }
    }

    /// `len` values from `start`.
    ///
    /// # Safety
    /// While the result lives, no other call may give out any of the same values.
    ///
    /// # Panics
    /// When the range is not inside the slice.
    #[inline(always)]
    #[allow(clippy::mut_from_ref, reason = "disjointness is the caller's promise")]
    pub(crate) unsafe fn slice(&self, start: usize, len: usize) -> &mut [T] {
        assert!(
            start <= self.len && len <= self.len - start,
            "range outside the shared slice"
        );
        // SAFETY: inside the borrowed slice by the check above, and not aliased by the contract.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(start), len) }
    }
}
