//! Where packed weights lie: [`WeightBytes`].

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::fmt;
use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::Arc;

/// Where large pages begin on most machines. Weights are read from end to end for every token, and
/// with large pages that takes a five-hundredth of the address translations.
const LARGE_PAGE: usize = 2 << 20;

/// Read-only bytes, owned or lent by something that keeps them alive, such as a mapped file.
#[derive(Clone)]
pub struct WeightBytes(Source);

#[derive(Clone)]
enum Source {
    Owned(Arc<Pages>),
    Lent {
        owner: Arc<dyn AsRef<[u8]> + Send + Sync>,
        start: usize,
        len: usize,
    },
}

impl WeightBytes {
    /// `len` bytes from `start` of what `owner` refers to; `None` when it has fewer.
    pub fn lent(
        owner: Arc<dyn AsRef<[u8]> + Send + Sync>,
        start: usize,
        len: usize,
    ) -> Option<Self> {
        (*owner).as_ref().get(start..start.checked_add(len)?)?;
        Some(Self(Source::Lent { owner, start, len }))
    }
}

impl From<Pages> for WeightBytes {
    fn from(pages: Pages) -> Self {
        Self(Source::Owned(Arc::new(pages)))
    }
}

impl Deref for WeightBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Source::Owned(pages) => pages,
            // An owner whose bytes shrink is refused here, not read out of bounds.
            Source::Lent { owner, start, len } => {
                (**owner).as_ref().get(*start..start + len).unwrap_or(&[])
            }
        }
    }
}

impl fmt::Debug for WeightBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.0 {
            Source::Owned(_) => "owned",
            Source::Lent { .. } => "lent",
        };
        write!(f, "WeightBytes({} bytes, {kind})", self.len())
    }
}

/// Zeroed memory that begins at a page and asks for large pages where it fills some.
pub(crate) struct Pages {
    start: NonNull<u8>,
    layout: Layout,
}

// SAFETY: the memory belongs to this value alone and is only reached through its borrows.
unsafe impl Send for Pages {}
// SAFETY: as above; shared borrows only read.
unsafe impl Sync for Pages {}

impl Pages {
    pub(crate) fn zeroed(len: usize) -> Self {
        let align = if len >= LARGE_PAGE { LARGE_PAGE } else { 64 };
        // A slice cannot be longer than what a layout takes, and `len` comes from one.
        let Ok(layout) = Layout::from_size_align(len.max(1), align) else {
            handle_alloc_error(Layout::new::<u8>())
        };
        // SAFETY: the size is not zero.
        let start = unsafe { alloc_zeroed(layout) };
        let Some(start) = NonNull::new(start) else {
            handle_alloc_error(layout)
        };
        ask_for_large_pages(start, layout);
        Self { start, layout }
    }
}

impl Deref for Pages {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: allocated with this size, zeroed, and borrowed for as long as `self` is.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.layout.size()) }
    }
}

impl std::ops::DerefMut for Pages {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and the borrow is unique.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.layout.size()) }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout by `zeroed`.
        unsafe { dealloc(self.start.as_ptr(), self.layout) };
    }
}

#[cfg(all(target_os = "linux", not(miri)))]
fn ask_for_large_pages(start: NonNull<u8>, layout: Layout) {
    if layout.align() < LARGE_PAGE {
        return;
    }
    // SAFETY: the range is one allocation of ours, and the advice does not change its content. A
    // kernel without large pages answers with an error, which changes nothing.
    unsafe { libc::madvise(start.as_ptr().cast(), layout.size(), libc::MADV_HUGEPAGE) };
}

#[cfg(not(all(target_os = "linux", not(miri))))]
fn ask_for_large_pages(_start: NonNull<u8>, _layout: Layout) {}
