//! The most memory that this process has held at once, without what measuring itself takes.

/// The peak so far.
#[derive(Debug, Default)]
pub(super) struct PeakMemory {
    seen: Option<u64>,
    /// Whether a buffer of ours may be part of what the system says.
    spoilt: bool,
}

impl PeakMemory {
    /// Bytes; `None` where the system does not say.
    pub(super) fn bytes(&mut self) -> Option<u64> {
        if !self.spoilt {
            self.seen = self.seen.max(peak());
        }
        self.seen
    }

    /// Runs `f`, whose memory is not counted.
    pub(super) fn without<R>(&mut self, f: impl FnOnce() -> R) -> R {
        self.bytes();
        let result = f();
        self.spoilt = !reset();
        result
    }
}

fn peak() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// Makes the system forget the peak; whether it did.
fn reset() -> bool {
    // "5" is the code for it, see proc_pid_clear_refs(5).
    std::fs::write("/proc/self/clear_refs", "5").is_ok()
}
