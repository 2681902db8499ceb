//! The system's allocator: [`keep_freed_memory`].

/// Tells the C library to keep what is freed for the next allocation, in the whole process and from
/// now on; `false` where it cannot be told (only glibc can).
///
/// By default large blocks go back to the system and come back as fresh pages, each of which costs a
/// fault. A prompt's activations are such blocks, once per layer: keeping them makes reading a prompt
/// of a small model up to a tenth faster. The price is that a process does not shrink after a long
/// prompt. For programs to call once at their start; libraries should leave the choice to them.
pub fn keep_freed_memory() -> bool {
    #[cfg(all(target_os = "linux", target_env = "gnu", not(miri)))]
    {
        // The most that either setting takes.
        const MOST: libc::c_int = 1 << 30;
        // SAFETY: the calls set numbers of the allocator under its own lock.
        unsafe {
            libc::mallopt(libc::M_MMAP_THRESHOLD, MOST) == 1
                && libc::mallopt(libc::M_TRIM_THRESHOLD, MOST) == 1
        }
    }
    #[cfg(not(all(target_os = "linux", target_env = "gnu", not(miri))))]
    {
        false
    }
}
