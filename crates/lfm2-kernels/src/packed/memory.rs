//! Where packed weights lie: [`WeightBytes`].

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::fmt;
use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError};

use crate::threads::for_each_chunk;

/// Read-only bytes that several can share. Cloning is cheap.
#[derive(Clone)]
pub struct WeightBytes {
    pages: Arc<Pages>,
    start: usize,
    len: usize,
}

impl WeightBytes {
    /// `len` bytes of these from `start` on; `None` when there are fewer.
    pub fn part(&self, start: usize, len: usize) -> Option<Self> {
        self.get(start..start.checked_add(len)?)?;
        Some(Self {
            pages: Arc::clone(&self.pages),
            start: self.start + start,
            len,
        })
    }

    /// `len` bytes of own memory, which `read` fills on all threads: it is called for every run of
    /// `piece` bytes (the last may be shorter) with the place where the run begins.
    ///
    /// # Errors
    /// The first error of `read`; it is not called for pieces that come later then.
    pub fn read<E: Send>(
        len: usize,
        piece: usize,
        read: impl Fn(usize, &mut [u8]) -> Result<(), E> + Sync,
    ) -> Result<Self, E> {
        let mut pages = Pages::zeroed(len);
        let failure = Mutex::new(None);
        let first = || failure.lock().unwrap_or_else(PoisonError::into_inner);
        for_each_chunk(&mut pages, piece.max(1), len, |index, target| {
            if first().is_some() {
                return;
            }
            if let Err(error) = read(index * piece, target) {
                first().get_or_insert(error);
            }
        });
        match failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(error) => Err(error),
            None => Ok(pages.into()),
        }
    }
}

impl From<Pages> for WeightBytes {
    fn from(pages: Pages) -> Self {
        Self {
            start: 0,
            len: pages.len(),
            pages: Arc::new(pages),
        }
    }
}

impl Deref for WeightBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.pages[self.start..self.start + self.len]
    }
}

impl AsRef<[u8]> for WeightBytes {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for WeightBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WeightBytes({} bytes)", self.len)
    }
}

/// Zeroed memory, in large pages where it fills some and the system has them.
pub(crate) struct Pages {
    start: NonNull<u8>,
    len: usize,
    origin: Origin,
}

/// Who gave the memory, and so gets it back.
enum Origin {
    Allocator(Layout),
    #[cfg(all(target_os = "linux", not(miri)))]
    System,
}

// SAFETY: the memory belongs to this value alone and is only reached through its borrows.
unsafe impl Send for Pages {}
// SAFETY: as above; shared borrows only read.
unsafe impl Sync for Pages {}

impl Pages {
    pub(crate) fn zeroed(len: usize) -> Self {
        #[cfg(all(target_os = "linux", not(miri)))]
        if let Some(start) = system::large_pages(len) {
            let origin = Origin::System;
            return Self { start, len, origin };
        }
        // A slice cannot be longer than what a layout takes, and `len` comes from one.
        let Ok(layout) = Layout::from_size_align(len.max(1), 64) else {
            handle_alloc_error(Layout::new::<u8>())
        };
        // SAFETY: the size is not zero.
        let start = unsafe { alloc_zeroed(layout) };
        let Some(start) = NonNull::new(start) else {
            handle_alloc_error(layout)
        };
        let origin = Origin::Allocator(layout);
        Self { start, len, origin }
    }
}

impl Deref for Pages {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: at least as large as this, zeroed, and borrowed for as long as `self` is.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl std::ops::DerefMut for Pages {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and the borrow is unique.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        match self.origin {
            // SAFETY: allocated with this layout by `zeroed`.
            Origin::Allocator(layout) => unsafe { dealloc(self.start.as_ptr(), layout) },
            // SAFETY: this range came from `large_pages`.
            #[cfg(all(target_os = "linux", not(miri)))]
            Origin::System => unsafe { system::give_back(self.start, self.len) },
        }
    }
}

/// Memory of the system, without the allocator: that one zeroes aligned memory itself, on one thread,
/// and in doing so has it backed by small pages before anybody can ask for large ones.
#[cfg(all(target_os = "linux", not(miri)))]
mod system {
    use std::ptr::NonNull;

    /// Where large pages begin on most machines. Weights are read from end to end for every token,
    /// and with large pages that takes a five-hundredth of the address translations.
    const LARGE_PAGE: usize = 2 << 20;

    /// Ranges of mapped memory end at pages; of this size or smaller ones on all machines.
    const PAGE: usize = 1 << 16;

    /// At least `len` zeroed bytes from the border of a large page on, not backed by anything yet;
    /// `None` for less than a large page, and when the system refuses.
    pub(super) fn large_pages(len: usize) -> Option<NonNull<u8>> {
        if len < LARGE_PAGE {
            return None;
        }
        // Not up to a large page: the last one would be backed whole for a few bytes.
        let wanted = len.checked_next_multiple_of(PAGE)?;
        let mapped = wanted.checked_add(LARGE_PAGE)?;
        // SAFETY: a new range that nobody else has; the kernel chooses where.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                mapped,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return None;
        }
        let start = start.cast::<u8>();
        let before = start.align_offset(LARGE_PAGE).min(LARGE_PAGE);
        let aligned = start.wrapping_add(before);
        // SAFETY: both ends are parts of the range just mapped and are not used; the advice changes
        // no content, and a kernel without large pages answers with an error that changes nothing.
        unsafe {
            unmap(start, before);
            unmap(aligned.wrapping_add(wanted), LARGE_PAGE - before);
            libc::madvise(aligned.cast(), wanted, libc::MADV_HUGEPAGE);
        }
        NonNull::new(aligned)
    }

    /// Gives back what `large_pages` gave for `len`.
    ///
    /// # Safety
    /// The range is not used afterwards.
    pub(super) unsafe fn give_back(start: NonNull<u8>, len: usize) {
        // SAFETY: the caller's promise; the length is that of the mapped range.
        unsafe { unmap(start.as_ptr(), len.next_multiple_of(PAGE)) };
    }

    /// # Safety
    /// The range is mapped by this module, and not used afterwards.
    unsafe fn unmap(start: *mut u8, len: usize) {
        if len > 0 {
            // SAFETY: the caller's promise. It can fail only for want of kernel memory when a range is
            // cut in two; the memory then stays reserved, unused.
            unsafe { libc::munmap(start.cast(), len) };
        }
    }
}
