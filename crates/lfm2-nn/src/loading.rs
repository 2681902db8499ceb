//! What all views of a checkpoint share while it is loaded: packed weights of an earlier start, those
//! to be kept for the next, and who is told how far it is.

use std::collections::HashSet;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use lfm2_hub::{
    Error, Fingerprint, PackedCache, PackedFile, PackedTensor, Result, Stored, StoredType,
    TensorInfo, TensorSource,
};
use lfm2_kernels::packed::{BlockType, PackedMatrix, PackedStack, WeightBytes};

/// How long the progress of storing stays as it is.
const POLL: Duration = Duration::from_millis(50);

/// How far loading is. Numbers are bytes, as the checkpoint stores them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum LoadEvent {
    /// Weights are read and sorted for the kernels.
    Weights {
        /// So many are there.
        done: u64,
        /// Of so many in the checkpoint, some of which the model may not want.
        total: u64,
    },
    /// Packed weights are stored for the next start.
    Storing {
        /// So many are written.
        done: u64,
        /// Of so many.
        total: u64,
    },
    /// The model is there.
    Finished,
}

/// Who is told how far loading is. Calls come from the thread that loads, which waits for them.
#[derive(Clone)]
pub struct LoadProgress(Arc<dyn Fn(LoadEvent) + Send + Sync>);

impl LoadProgress {
    /// Calls `report` with every event.
    pub fn new(report: impl Fn(LoadEvent) + Send + Sync + 'static) -> Self {
        Self(Arc::new(report))
    }
}

impl fmt::Debug for LoadProgress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LoadProgress")
    }
}

/// A tensor that is packed, or a stack of them in one: its name and the shape of the stack.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PackedName<'a> {
    pub(crate) name: &'a str,
    pub(crate) kind: BlockType,
    pub(crate) shape: [usize; 3],
}

/// The state of loading one checkpoint.
#[derive(Default)]
pub(crate) struct Loading {
    progress: Option<LoadProgress>,
    done: AtomicU64,
    total: u64,
    memory: Option<Memory>,
}

impl Loading {
    /// Tells `progress` of the tensors of `source`.
    pub(crate) fn set_progress(&mut self, progress: LoadProgress, source: &dyn TensorSource) {
        self.total = stored_bytes(source, |_| true);
        self.progress = Some(progress);
    }

    /// Looks for packed weights of `source` in `cache`, and keeps them there.
    pub(crate) fn set_cache(&mut self, cache: &PackedCache, source: &dyn TensorSource) {
        let fingerprint = source.fingerprint().unwrap_or_else(|error| {
            tracing::debug!(%error, "weights without a fingerprint are always packed");
            None
        });
        let in_blocks = |info: &TensorInfo| matches!(info.stored, StoredType::Quantized(_));
        self.memory = fingerprint.map(|source_print| Memory {
            file: cache.open(&source_print, PackedMatrix::LAYOUT_VERSION),
            cache: cache.clone(),
            source: source_print,
            bytes: stored_bytes(source, in_blocks),
            kept: Mutex::default(),
        });
    }

    /// The matrices as they were packed at an earlier start.
    pub(crate) fn recall(&self, name: PackedName<'_>) -> Option<PackedStack> {
        let memory = self.memory.as_ref()?;
        let stack = memory.read(name)?;
        memory.keep(name, &stack, Age::Old);
        Some(stack)
    }

    /// Keeps matrices that were packed now.
    pub(crate) fn remember(&self, name: PackedName<'_>, stack: &PackedStack) {
        if let Some(memory) = &self.memory {
            memory.keep(name, stack, Age::New);
        }
    }

    /// Notes that a tensor has been read.
    pub(crate) fn loaded(&self, info: &TensorInfo) {
        if let Some(LoadProgress(report)) = &self.progress {
            let bytes = info.bytes();
            let done = self.done.fetch_add(bytes, Ordering::Relaxed) + bytes;
            let total = self.total;
            report(LoadEvent::Weights { done, total });
        }
    }

    /// Waits until what was packed now is stored, with everything that belongs to it.
    pub(crate) fn finish(&self) {
        if let Some(writer) = self.memory.as_ref().and_then(Memory::take_writer) {
            let stored = writer.finish(|done, total| {
                if let Some(LoadProgress(report)) = &self.progress {
                    report(LoadEvent::Storing { done, total });
                }
            });
            match stored {
                Ok(stored) => tracing::debug!(?stored, "packed weights"),
                Err(error) => tracing::info!(%error, "packed weights are not stored"),
            }
        }
        if let Some(LoadProgress(report)) = &self.progress {
            report(LoadEvent::Finished);
        }
    }
}

/// How many bytes the tensors of `source` that are `wanted` take in it.
fn stored_bytes(source: &dyn TensorSource, wanted: impl Fn(&TensorInfo) -> bool) -> u64 {
    let infos = source
        .names()
        .into_iter()
        .filter_map(|name| source.info(&name));
    infos.filter(wanted).map(|info| info.bytes()).sum()
}

/// Whether a matrix comes from an earlier start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Age {
    Old,
    New,
}

/// Packed weights that are kept from start to start.
struct Memory {
    cache: PackedCache,
    source: Fingerprint,
    /// What they take in the source, which is about what they take here.
    bytes: u64,
    file: Option<PackedFile>,
    kept: Mutex<Kept>,
}

/// What was loaded so far.
#[derive(Default)]
struct Kept {
    names: HashSet<String>,
    /// In case that one is missing in the file, which is then written anew.
    old: Vec<PackedTensor<WeightBytes>>,
    writer: Option<Writer>,
}

impl Memory {
    fn read(&self, name: PackedName<'_>) -> Option<PackedStack> {
        let file = self.file.as_ref()?;
        let PackedName { name, kind, shape } = name;
        let entry = file.entry(name)?;
        let len = PackedStack::packed_len(kind, shape).ok()?;
        let expected = (kind.name(), &shape[..], len as u64);
        if (entry.format(), entry.shape(), entry.length()) != expected {
            tracing::debug!(name, ?expected, "packed weights of another form");
            return None;
        }
        let bytes = WeightBytes::read(len, PackedFile::PIECE, |start, target| {
            file.read_piece(entry, start, target)
        });
        match bytes {
            Ok(bytes) => PackedStack::from_packed(kind, shape, bytes).ok(),
            Err(error) => {
                tracing::debug!(%error, "packed weights are made anew");
                None
            }
        }
    }

    fn keep(&self, name: PackedName<'_>, stack: &PackedStack, age: Age) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = &mut *kept;
        if !kept.names.insert(name.name.to_owned()) {
            return;
        }
        let tensor = PackedTensor {
            name: name.name.to_owned(),
            format: name.kind.name(),
            shape: name.shape.to_vec(),
            bytes: stack.bytes().clone(),
        };
        if age == Age::New && kept.writer.is_none() {
            kept.writer = Writer::start(self.cache.clone(), self.source.clone(), self.bytes);
            if let Some(writer) = &mut kept.writer {
                kept.old.drain(..).for_each(|tensor| writer.send(tensor));
            }
        }
        match &mut kept.writer {
            Some(writer) => writer.send(tensor),
            None => kept.old.push(tensor),
        }
    }

    fn take_writer(&self) -> Option<Writer> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *kept).writer
    }
}

/// Stores matrices on a thread of its own while others are packed. One that is dropped before it is
/// finished stores nothing.
struct Writer {
    /// The end of the matrices is `None`; without it, loading has failed.
    sender: Option<Sender<Option<PackedTensor<WeightBytes>>>>,
    thread: Option<JoinHandle<Result<Stored>>>,
    /// Nothing ever comes; it hangs up when the thread ends.
    end: Receiver<()>,
    sent: u64,
    taken: Arc<AtomicU64>,
}

impl Writer {
    fn start(cache: PackedCache, source: Fingerprint, bytes: u64) -> Option<Self> {
        let (sender, receiver) = mpsc::channel::<Option<PackedTensor<WeightBytes>>>();
        let taken = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&taken);
        let (alive, end) = mpsc::channel();
        let mut next = move || match receiver.recv() {
            Ok(Some(tensor)) => {
                counter.fetch_add(tensor.bytes.len() as u64, Ordering::Relaxed);
                Some(Ok(tensor))
            }
            Ok(None) => None,
            Err(_) => Some(Err(Error::InvalidInput("loading was given up".to_owned()))),
        };
        let store = move || {
            let _alive: Sender<()> = alive;
            let tensors = std::iter::from_fn(&mut next);
            cache.store(&source, PackedMatrix::LAYOUT_VERSION, bytes, tensors)
        };
        let thread = thread::Builder::new().name("lfm2-store".to_owned());
        let thread = thread.spawn(store).inspect_err(|error| {
            tracing::debug!(%error, "packed weights are not stored");
        });
        Some(Self {
            sender: Some(sender),
            thread: Some(thread.ok()?),
            end,
            sent: 0,
            taken,
        })
    }

    fn send(&mut self, tensor: PackedTensor<WeightBytes>) {
        self.sent += tensor.bytes.len() as u64;
        if let Some(sender) = &self.sender {
            // A writer that has stopped says why when it is finished.
            let _ = sender.send(Some(tensor));
        }
    }

    /// Waits until everything is stored, and tells `progress` how much is.
    fn finish(mut self, progress: impl Fn(u64, u64)) -> Result<Stored> {
        if let Some(sender) = self.sender.take() {
            let _ = sender.send(None);
        }
        while self.end.recv_timeout(POLL) == Err(RecvTimeoutError::Timeout) {
            progress(self.taken.load(Ordering::Relaxed), self.sent);
        }
        let stored = self.join();
        progress(self.sent, self.sent);
        stored
    }

    fn join(&mut self) -> Result<Stored> {
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(stored)) => stored,
            _ => Err(Error::InvalidInput("the writer has failed".to_owned())),
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        drop(self.sender.take());
        if self.thread.is_some()
            && let Err(error) = self.join()
        {
            tracing::debug!(%error, "packed weights are not stored");
        }
    }
}
