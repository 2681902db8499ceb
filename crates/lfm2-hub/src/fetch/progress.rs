//! [`Progress`]: news of a download, for whoever wants to show it.

/// Receives the progress of downloads. Calls come from other threads, and block the download.
pub trait Progress: Send + Sync {
    /// Called for each event, in order per file.
    fn report(&self, event: ProgressEvent<'_>);
}

/// What happened to the download of one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProgressEvent<'a> {
    /// A file starts, or starts again after a failure.
    Start {
        /// Its name in the repository.
        file: &'a str,
        /// Its size in bytes, when the server said.
        size: Option<u64>,
        /// Bytes kept from an interrupted download.
        resumed: u64,
    },
    /// More of it has arrived.
    Advance {
        /// Its name in the repository.
        file: &'a str,
        /// How many bytes more.
        bytes: u64,
    },
    /// It is complete and checked.
    Finish {
        /// Its name in the repository.
        file: &'a str,
    },
}
