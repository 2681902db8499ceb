//! Downloading the contents of one file into the blobs of the cache: resumed where it stopped,
//! checked against size and hash, and only then given its final name.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use futures_util::TryStreamExt;
use hf_hub::repository::download::HFByteStream;
use hf_hub::{HFClient, HFError};
use sha2::{Digest, Sha256};

use super::progress::{Progress, ProgressEvent};
use super::remote::{Remote, network, unanswered};
use crate::{Error, RepoId, Result};

const ATTEMPTS: u32 = 5;
const FIRST_WAIT: Duration = Duration::from_millis(200);
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// A transfer that brings less than this in [`STALL`] is given up and tried again.
const STALL_BYTES: u64 = 16 << 10;
const STALL: Duration = Duration::from_secs(60);
/// The most that is taken from a server which does not say how large a file is.
const UNSIZED_BYTES: u64 = 64 << 20;

/// Why an attempt failed, and whether another one makes sense.
#[derive(Debug)]
pub(super) enum Failure {
    /// Trying again can help, after `wait` if the server asked for it.
    Transient {
        error: Error,
        wait: Option<Duration>,
    },
    /// It cannot.
    Final(Error),
}

impl Failure {
    /// A failure with a status: the busy ones and the server's own faults pass.
    pub(super) fn of_status(error: Error, retry_after: Option<u64>) -> Self {
        match error {
            Error::Network {
                status: Some(408 | 429 | 500..=599),
                ..
            } => Self::Transient {
                error,
                wait: retry_after.map(Duration::from_secs),
            },
            error => Self::Final(error),
        }
    }

    fn transient(error: Error) -> Self {
        Self::Transient { error, wait: None }
    }
}

/// Runs `attempt` until it succeeds, fails for good, or has failed often enough.
pub(super) async fn with_retries<T>(
    mut attempt: impl AsyncFnMut() -> Result<T, Failure>,
) -> Result<T> {
    let mut wait = FIRST_WAIT;
    for count in 1.. {
        match attempt().await {
            Ok(value) => return Ok(value),
            Err(Failure::Final(error)) => return Err(error),
            Err(Failure::Transient { error, .. }) if count == ATTEMPTS => return Err(error),
            Err(Failure::Transient { error, wait: asked }) => {
                let pause = asked.unwrap_or(wait).min(LONGEST_WAIT);
                tracing::debug!(%error, count, ?pause, "trying again");
                tokio::time::sleep(pause).await;
                wait *= 2;
            }
        }
    }
    Err(Error::InvalidInput("no attempt was made".to_owned()))
}

/// One file on its way into the cache.
pub(super) struct Transfer<'a> {
    pub(super) hub: &'a HFClient,
    pub(super) id: &'a RepoId,
    pub(super) file: &'a str,
    pub(super) remote: &'a Remote,
    /// Where it goes when it is complete.
    pub(super) blob: &'a Path,
    pub(super) progress: Option<&'a dyn Progress>,
}

/// What has arrived so far.
struct Partial {
    file: File,
    length: u64,
    hash: Sha256,
}

impl Transfer<'_> {
    /// Downloads the file. The caller holds the lock of the blob.
    pub(super) async fn run(&self) -> Result<()> {
        let part = self.part();
        let mut resume = self.remote.etag.sha256().is_some();
        with_retries(async || {
            let attempt = self.attempt(&part, resume).await;
            // A kept beginning is only good as long as the rest fits to it.
            resume = resume
                && !matches!(
                    attempt,
                    Err(Failure::Transient {
                        error: Error::InvalidFile { .. },
                        ..
                    })
                );
            attempt
        })
        .await?;
        std::fs::rename(&part, self.blob).map_err(|source| Error::io(self.blob, source))?;
        self.report(ProgressEvent::Finish { file: self.file });
        Ok(())
    }

    fn part(&self) -> PathBuf {
        self.blob
            .with_file_name(format!("{}.incomplete", self.remote.etag.as_str()))
    }

    async fn attempt(&self, part: &Path, resume: bool) -> Result<(), Failure> {
        let mut partial = Partial::open(part, resume, self.remote.size).map_err(Failure::Final)?;
        let kept = partial.length;
        self.report(ProgressEvent::Start {
            file: self.file,
            size: self.remote.size,
            resumed: kept,
        });
        if self.remote.size != Some(kept) || kept == 0 {
            let stream = self.connect(kept).await?;
            self.receive(part, &mut partial, stream).await?;
        }
        partial
            .file
            .sync_all()
            .map_err(|source| Failure::Final(Error::io(part, source)))?;
        self.check(part, partial, kept)
    }

    async fn connect(&self, from: u64) -> Result<HFByteStream, Failure> {
        let repository = self.hub.model(self.id.owner(), self.id.name());
        let range = self.remote.size.filter(|_| from > 0).map(|size| from..size);
        let request = repository
            .download_file_stream()
            .filename(self.file)
            .revision(self.remote.commit.as_str());
        let (_, stream) = request
            .maybe_range(range)
            .send()
            .await
            .map_err(|error| self.failure(error))?;
        Ok(stream)
    }

    async fn receive(
        &self,
        part: &Path,
        partial: &mut Partial,
        mut stream: HFByteStream,
    ) -> Result<(), Failure> {
        let most = self.remote.size.unwrap_or(UNSIZED_BYTES);
        let (mut window, mut window_bytes) = (Instant::now(), 0);
        loop {
            let next = tokio::time::timeout(STALL, stream.try_next()).await;
            let Ok(next) = next else {
                return Err(Failure::transient(self.network("no data for a minute")));
            };
            let Some(chunk) = next.map_err(|error| self.failure(error))? else {
                break;
            };
            let bytes = chunk.len() as u64;
            if partial.length + bytes > most {
                return Err(self.overrun(part, most));
            }
            partial
                .push(&chunk)
                .map_err(|source| Failure::Final(Error::io(part, source)))?;
            self.report(ProgressEvent::Advance {
                file: self.file,
                bytes,
            });
            window_bytes += bytes;
            if window.elapsed() > STALL {
                if window_bytes < STALL_BYTES {
                    return Err(Failure::transient(
                        self.network("the connection is too slow"),
                    ));
                }
                (window, window_bytes) = (Instant::now(), 0);
            }
        }
        match self.remote.size {
            Some(size) if partial.length < size => {
                let detail = format!(
                    "the connection closed after {} of {size} bytes",
                    partial.length
                );
                Err(Failure::transient(self.network(&detail)))
            }
            _ => Ok(()),
        }
    }

    /// More data than there is: either a server that ignores ranges, where starting over helps, or
    /// one that lies.
    fn overrun(&self, part: &Path, most: u64) -> Failure {
        let detail = format!("{}: the server sends more than {most} bytes", self.file);
        Failure::transient(Error::invalid_file(part, detail))
    }

    fn check(&self, part: &Path, partial: Partial, kept: u64) -> Result<(), Failure> {
        let Some(expected) = self.remote.etag.sha256() else {
            return Ok(());
        };
        let found = hexadecimal(partial.hash);
        if found.eq_ignore_ascii_case(expected) {
            return Ok(());
        }
        std::fs::remove_file(part).map_err(|source| Failure::Final(Error::io(part, source)))?;
        let detail = format!(
            "{} of {}: expected sha-256 {expected}, found {found}",
            self.file, self.id
        );
        let error = Error::invalid_file(self.blob, detail);
        // What was kept from an earlier run may be at fault; a whole new download is not better
        // the second time.
        Err(if kept > 0 {
            Failure::transient(error)
        } else {
            Failure::Final(error)
        })
    }

    fn report(&self, event: ProgressEvent<'_>) {
        if let Some(progress) = self.progress {
            progress.report(event);
        }
    }

    fn network(&self, detail: &str) -> Error {
        network(
            &format!("{}/{}/{}", self.hub.endpoint(), self.id, self.file),
            None,
            &detail,
        )
    }

    fn failure(&self, error: HFError) -> Failure {
        let address = format!("{}/{}/{}", self.hub.endpoint(), self.id, self.file);
        match error {
            HFError::AuthRequired { .. } | HFError::Forbidden { .. } => {
                Failure::Final(Error::Denied {
                    what: self.id.to_string(),
                    hint: "the token in HF_TOKEN is missing or not enough".to_owned(),
                })
            }
            HFError::RepoNotFound { .. }
            | HFError::RevisionNotFound { .. }
            | HFError::EntryNotFound { .. } => Failure::Final(Error::NotFound {
                what: format!("{} of {}", self.file, self.id),
                hint: "it was there a moment ago; try again".to_owned(),
            }),
            HFError::RateLimited { retry_after, .. } => Failure::Transient {
                error: network(&address, Some(429), &"the server asks to slow down"),
                wait: retry_after,
            },
            HFError::Http { context } => {
                let status = context.status;
                Failure::of_status(
                    network(
                        &address,
                        Some(status.as_u16()),
                        &format!("the server answers {status}"),
                    ),
                    None,
                )
            }
            HFError::Request { source, .. } => Failure::transient(unanswered(&address, source)),
            // Texts of other errors may quote addresses with signatures.
            HFError::Xet { operation, .. } => {
                Failure::transient(network(&address, None, &format!("xet {operation} failed")))
            }
            _ => Failure::Final(network(&address, None, &"the hub client failed")),
        }
    }
}

impl Partial {
    fn open(path: &Path, resume: bool, size: Option<u64>) -> Result<Self> {
        let io = |source| Error::io(path, source);
        let mut options = OpenOptions::new();
        let mut file = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(io)?;
        let mut partial = match (resume, size) {
            (true, Some(size)) => {
                let (length, hash) = hash_of(&mut file).map_err(io)?;
                Self { file, length, hash }.within(size)
            }
            _ => Self {
                file,
                length: 0,
                hash: Sha256::new(),
            },
        };
        partial.file.set_len(partial.length).map_err(io)?;
        partial
            .file
            .seek(SeekFrom::Start(partial.length))
            .map_err(io)?;
        Ok(partial)
    }

    /// Starts over when more is there than belongs to the file.
    fn within(self, size: u64) -> Self {
        if self.length <= size {
            self
        } else {
            Self {
                length: 0,
                hash: Sha256::new(),
                ..self
            }
        }
    }

    fn push(&mut self, chunk: &[u8]) -> std::io::Result<()> {
        self.file.write_all(chunk)?;
        self.hash.update(chunk);
        self.length += chunk.len() as u64;
        Ok(())
    }
}

/// Whether the file at `path` is what the Hub describes, as far as that can be told.
pub(super) fn is_intact(path: &Path, remote: &Remote) -> Result<bool> {
    let io = |source| Error::io(path, source);
    let mut file = File::open(path).map_err(io)?;
    let length = file.metadata().map_err(io)?.len();
    if remote.size.is_some_and(|size| size != length) {
        return Ok(false);
    }
    match remote.etag.sha256() {
        Some(expected) => {
            Ok(hexadecimal(hash_of(&mut file).map_err(io)?.1).eq_ignore_ascii_case(expected))
        }
        None => Ok(true),
    }
}

fn hash_of(file: &mut File) -> std::io::Result<(u64, Sha256)> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    let mut length = 0;
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok((length, hash)),
            count => {
                hash.update(&buffer[..count]);
                length += count as u64;
            }
        }
    }
}

fn hexadecimal(hash: Sha256) -> String {
    hash.finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
