//! What all views of a checkpoint share while it is loaded: packed weights of an earlier start, those
//! to be kept for the next, and who is told how far it is.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use lfm2_hub::{
    Fingerprint, PackedCache, PackedFile, PackedTensor, Result, Stored, TensorInfo, TensorSource,
};
use lfm2_kernels::packed::{BlockType, PackedMatrix, WeightBytes};

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

/// A packed matrix by its name and shape.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PackedName<'a> {
    pub(crate) tensor: &'a str,
    /// Which one of a stack.
    pub(crate) index: Option<usize>,
    pub(crate) kind: BlockType,
    pub(crate) rows: usize,
    pub(crate) cols: usize,
}

impl PackedName<'_> {
    fn key(&self) -> String {
        match self.index {
            None => self.tensor.to_owned(),
            Some(index) => format!("{}[{index}]", self.tensor),
        }
    }
}

/// The state of loading one checkpoint.
#[derive(Default)]
pub(crate) struct Loading {
    progress: Option<LoadProgress>,
    done: AtomicU64,
    total: u64,
    memory: Option<Memory>,
}

/// Packed weights that are kept from start to start.
struct Memory {
    cache: PackedCache,
    source: Fingerprint,
    file: Option<PackedFile>,
    matrices: Mutex<Matrices>,
}

/// What was loaded so far.
#[derive(Default)]
struct Matrices {
    all: BTreeMap<String, PackedMatrix>,
    /// Whether some were not in the file.
    fresh: bool,
}

impl Loading {
    /// Tells `progress` of the tensors of `source`.
    pub(crate) fn set_progress(&mut self, progress: LoadProgress, source: &dyn TensorSource) {
        let bytes = |name: &String| source.info(name).map_or(0, |info| info.bytes());
        self.total = source.names().iter().map(bytes).sum();
        self.progress = Some(progress);
    }

    /// Looks for packed weights of `source` in `cache`, and keeps them there.
    pub(crate) fn set_cache(&mut self, cache: &PackedCache, source: &dyn TensorSource) {
        let source = source.fingerprint().unwrap_or_else(|error| {
            tracing::debug!(%error, "weights without a fingerprint are always packed");
            None
        });
        self.memory = source.map(|source| Memory {
            file: cache.open(&source, PackedMatrix::LAYOUT_VERSION),
            cache: cache.clone(),
            source,
            matrices: Mutex::default(),
        });
    }

    /// The matrix as it was packed at an earlier start.
    pub(crate) fn recall(&self, name: PackedName<'_>) -> Option<PackedMatrix> {
        let memory = self.memory.as_ref()?;
        let matrix = memory.read(name)?;
        memory.keep(&name, &matrix, false);
        Some(matrix)
    }

    /// Keeps a matrix that was packed now.
    pub(crate) fn remember(&self, name: PackedName<'_>, matrix: &PackedMatrix) {
        if let Some(memory) = &self.memory {
            memory.keep(&name, matrix, true);
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

    /// Stores what was packed now, with everything that belongs to it.
    pub(crate) fn finish(&self) {
        if let Some(memory) = &self.memory {
            let stored = memory.store(|done, total| {
                if let Some(LoadProgress(report)) = &self.progress {
                    report(LoadEvent::Storing { done, total });
                }
            });
            match stored {
                Ok(None) => {}
                Ok(Some(stored)) => tracing::debug!(?stored, "packed weights"),
                Err(error) => tracing::info!(%error, "packed weights are not stored"),
            }
        }
        if let Some(LoadProgress(report)) = &self.progress {
            report(LoadEvent::Finished);
        }
    }
}

impl Memory {
    fn read(&self, name: PackedName<'_>) -> Option<PackedMatrix> {
        let file = self.file.as_ref()?;
        let entry = file.entry(&name.key())?;
        let PackedName {
            kind, rows, cols, ..
        } = name;
        let len = PackedMatrix::packed_len(kind, rows, cols).ok()?;
        if (entry.format(), entry.shape(), entry.length())
            != (kind.name(), [rows, cols], len as u64)
        {
            tracing::debug!(name = name.key(), ?entry, "packed weights of another form");
            return None;
        }
        let bytes = WeightBytes::read(len, PackedFile::PIECE, |start, target| {
            file.read_piece(entry, start, target)
        });
        match bytes {
            Ok(bytes) => PackedMatrix::from_packed(kind, rows, cols, bytes).ok(),
            Err(error) => {
                tracing::debug!(%error, "packed weights are made anew");
                None
            }
        }
    }

    fn keep(&self, name: &PackedName<'_>, matrix: &PackedMatrix, fresh: bool) {
        let mut matrices = self.matrices.lock().unwrap_or_else(PoisonError::into_inner);
        matrices.all.insert(name.key(), matrix.clone());
        matrices.fresh |= fresh;
    }

    /// Stores all matrices if some are new; `None` when the file has them all.
    fn store(&self, progress: impl Fn(u64, u64)) -> Result<Option<Stored>> {
        let mut matrices = self.matrices.lock().unwrap_or_else(PoisonError::into_inner);
        let Matrices { all, fresh } = std::mem::take(&mut *matrices);
        if !fresh {
            return Ok(None);
        }
        let tensors: Vec<_> = all
            .iter()
            .map(|(name, matrix)| tensor(name, matrix))
            .collect();
        let total = tensors.iter().map(|tensor| tensor.bytes.len() as u64).sum();
        let done = AtomicU64::new(0);
        let layout = PackedMatrix::LAYOUT_VERSION;
        let written = |bytes| progress(done.fetch_add(bytes, Ordering::Relaxed) + bytes, total);
        let stored = self.cache.store(&self.source, layout, &tensors, &written);
        stored.map(Some)
    }
}

fn tensor<'a>(name: &'a str, matrix: &'a PackedMatrix) -> PackedTensor<'a> {
    PackedTensor {
        name,
        format: matrix.kind().name(),
        shape: [matrix.rows(), matrix.cols()],
        bytes: matrix.bytes(),
    }
}
