//! A slice that several threads write.

use std::marker::PhantomData;

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
