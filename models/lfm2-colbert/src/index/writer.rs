//! Changing an index: one writer at a time, one commit at a time.

use std::collections::{BTreeMap, HashMap};
use std::fs::{File, TryLockError};
use std::path::Path;

use half::f16;
use lfm2_kernels::MatRef;

use super::manifest::{Manifest, PLAID_PREFIX, SEGMENT_PREFIX, SegmentEntry, TEMPORARY_ENDING};
use super::segment::SegmentWriter;
use super::snapshot::Place;
use super::{Document, Duplicates, IndexError, IndexWriter, LocalIndex, Put, Result, WriteOptions};

pub(super) const LOCK_FILE: &str = "writer.lock";

/// A segment with more bytes of vectors is closed and another one begun.
pub(super) const SEGMENT_BYTES: u64 = 512 << 20;

/// The longest id, in bytes.
const MAX_ID_BYTES: usize = 4096;

/// The right to write, held until dropped or until the process ends in whatever way.
#[derive(Debug)]
pub(super) struct WriteLock {
    _file: File,
}

impl WriteLock {
    pub(super) fn acquire(folder: &Path) -> Result<Self> {
        let path = folder.join(LOCK_FILE);
        let mut options = File::options();
        let file = options.create(true).truncate(false).write(true).open(&path);
        let file = file.map_err(IndexError::io(&path))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(IndexError::Busy { path }),
            Err(TryLockError::Error(source)) => Err(IndexError::io(&path)(source)),
        }
    }
}

impl LocalIndex {
    /// Takes the lock, sees what others have written, and removes what dead writers left behind.
    pub(super) fn lock(&mut self) -> Result<WriteLock> {
        let lock = WriteLock::acquire(&self.folder)?;
        super::Index::refresh(self)?;
        remove_leftovers(&self.folder, &self.snapshot.manifest);
        Ok(lock)
    }

    /// Makes `manifest` the state of the index. All files it names are on the disk.
    ///
    /// An error means that nothing has changed.
    pub(super) fn publish(&mut self, manifest: &Manifest) -> Result<()> {
        sync_folder(&self.folder);
        manifest.write(&self.folder)
    }

    /// What follows [`publish`](Self::publish): to see the new state, and remove what was replaced.
    pub(super) fn settle(&mut self) -> Result<()> {
        self.reload()?;
        remove_leftovers(&self.folder, &self.snapshot.manifest);
        Ok(())
    }
}

/// Makes renames durable, where the file system can.
fn sync_folder(folder: &Path) {
    if let Err(error) = File::open(folder).and_then(|handle| handle.sync_all()) {
        tracing::debug!(folder = %folder.display(), %error, "could not sync the folder");
    }
}

/// Removes files and folders of ours that `manifest` does not name. Only the writer does this; readers
/// that have them open keep what they need, and those about to open them begin again.
///
/// What cannot be removed now, because some systems do not remove files in use, is removed next time.
pub(super) fn remove_leftovers(folder: &Path, manifest: &Manifest) {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        let ours = name.starts_with(SEGMENT_PREFIX) || name.starts_with(PLAID_PREFIX);
        if !is_temporary(name) && (!ours || manifest.names(name)) {
            continue;
        }
        let path = entry.path();
        let removed = if path.is_dir() {
            remove_folder(&path)
        } else {
            std::fs::remove_file(&path)
        };
        if let Err(error) = removed {
            tracing::debug!(path = %path.display(), %error, "could not remove a file of an older state");
        }
    }
}

/// Whether a file is a manifest that was not finished.
pub(super) fn is_temporary(name: &str) -> bool {
    name.starts_with(".lfm2-") && name.ends_with(TEMPORARY_ENDING)
}

/// Gives a folder another name first, so that nobody opens half of it.
fn remove_folder(path: &Path) -> std::io::Result<()> {
    if path.extension().is_some_and(|ending| ending == "tmp") {
        return std::fs::remove_dir_all(path);
    }
    let renamed = path.with_extension("tmp");
    std::fs::rename(path, &renamed)?;
    std::fs::remove_dir_all(renamed)
}

/// The writer of a [`LocalIndex`].
#[derive(Debug)]
pub(super) struct LocalWriter<'a> {
    index: &'a mut LocalIndex,
    _lock: WriteLock,
    options: WriteOptions,
    /// Segments written since the last commit.
    staged: Vec<SegmentEntry>,
    current: Option<SegmentWriter>,
    /// Where the documents of these segments are: `segment` counts the staged ones.
    added: HashMap<String, Place>,
    /// Documents of committed segments that go, with their ids.
    removed: BTreeMap<Place, String>,
    failed: bool,
}

/// Where a document is, from a writer's point of view.
enum Found {
    Committed(Place),
    Added(Place),
}

impl<'a> LocalWriter<'a> {
    pub(super) fn begin(index: &'a mut LocalIndex, options: WriteOptions) -> Result<Self> {
        let lock = index.lock()?;
        index.snapshot.ids()?;
        Ok(Self {
            index,
            _lock: lock,
            options,
            staged: Vec::new(),
            current: None,
            added: HashMap::new(),
            removed: BTreeMap::new(),
            failed: false,
        })
    }

    fn find(&self, id: &str) -> Option<Found> {
        if let Some(&place) = self.added.get(id) {
            return Some(Found::Added(place));
        }
        let place = *self.index.snapshot.ids().ok()?.get(id)?;
        (!self.removed.contains_key(&place)).then_some(Found::Committed(place))
    }

    fn check(&self, document: &Document, vectors: MatRef<'_, f32>) -> Result<()> {
        let id = &document.id;
        if id.is_empty() || id.len() > MAX_ID_BYTES {
            return Err(IndexError::InvalidInput(format!(
                "an id has 1 to {MAX_ID_BYTES} bytes, found {}",
                id.len()
            )));
        }
        let what = || format!("document \"{id}\"");
        let expected = self.index.snapshot.manifest.dim;
        if vectors.cols() != expected {
            return Err(IndexError::Dimensions {
                what: what(),
                expected,
                found: vectors.cols(),
            });
        }
        // Values beyond the range of half precision become infinite.
        let finite = |value: &f32| f16::from_f32(*value).is_finite();
        match (0..vectors.rows()).find(|&row| !vectors.row(row).iter().all(finite)) {
            Some(row) => Err(IndexError::NotFinite { what: what(), row }),
            None => Ok(()),
        }
    }

    fn remove(&mut self, id: &str, found: &Found) {
        match *found {
            Found::Committed(place) => {
                self.removed.insert(place, id.to_owned());
            }
            Found::Added(place) => match (&mut self.current, self.staged.get_mut(place.segment)) {
                (_, Some(entry)) => {
                    if let Err(at) = entry.deleted.binary_search(&place.document) {
                        entry.deleted.insert(at, place.document);
                    }
                }
                (Some(current), None) => current.delete(place.document),
                (None, None) => {}
            },
        }
    }

    /// Runs a step after whose failure there is nothing left to commit.
    fn guard<T>(&mut self, step: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if self.failed {
            return Err(IndexError::Failed);
        }
        let result = step(self);
        if result.is_err() {
            self.failed = true;
            self.discard();
        }
        result
    }

    /// Forgets the change, files and all.
    fn discard(&mut self) {
        let written = self.current.is_some() || !self.staged.is_empty();
        self.current = None;
        self.staged.clear();
        self.added.clear();
        self.removed.clear();
        if written {
            remove_leftovers(&self.index.folder, &self.index.snapshot.manifest);
        }
    }

    fn append(&mut self, document: &Document, vectors: MatRef<'_, f32>) -> Result<Place> {
        let segment = self.staged.len();
        if self.current.is_none() {
            let manifest = &self.index.snapshot.manifest;
            let name = segment_name(manifest, segment);
            let writer = SegmentWriter::create(&self.index.folder, name, manifest.dim)?;
            self.current = Some(writer);
        }
        let Some(current) = &mut self.current else {
            return Err(IndexError::Failed);
        };
        let document = current.push(document, vectors)?;
        if current.vector_bytes() >= SEGMENT_BYTES {
            self.close()?;
        }
        Ok(Place { segment, document })
    }

    fn close(&mut self) -> Result<()> {
        if let Some(current) = self.current.take() {
            self.staged.push(current.finish()?);
        }
        Ok(())
    }

    /// Where all ids are in the state of `next`, unless segments have moved: reading them from the files
    /// after each commit would make long builds slow.
    fn take_ids(&mut self, next: &Manifest) -> Option<HashMap<String, Place>> {
        let before = self.index.snapshot.segments.len();
        if next.segments.len() != before + self.staged.len() {
            return None;
        }
        let mut ids = self.index.snapshot.take_ids()?;
        for id in self.removed.values() {
            ids.remove(id);
        }
        ids.extend(self.added.drain().map(|(id, place)| {
            let segment = before + place.segment;
            (id, Place { segment, ..place })
        }));
        Some(ids)
    }

    /// The state with this change, when it changes anything.
    fn next_manifest(&mut self) -> Result<Option<Manifest>> {
        self.close()?;
        if self.staged.is_empty() && self.removed.is_empty() {
            return Ok(None);
        }
        let mut manifest = self.index.snapshot.manifest.clone();
        manifest.generation += 1;
        for place in self.removed.keys() {
            let deleted = &mut manifest.segments[place.segment].deleted;
            if let Err(at) = deleted.binary_search(&place.document) {
                deleted.insert(at, place.document);
            }
        }
        manifest.segments.extend(self.staged.iter().cloned());
        drop_empty(&mut manifest);
        Ok(Some(manifest))
    }
}

impl IndexWriter for LocalWriter<'_> {
    fn put(&mut self, document: &Document, vectors: MatRef<'_, f32>) -> Result<Put> {
        if self.failed {
            return Err(IndexError::Failed);
        }
        self.check(document, vectors)?;
        let found = self.find(&document.id);
        match (&found, self.options.duplicates) {
            (Some(_), Duplicates::Refuse) => {
                let id = document.id.clone();
                return Err(IndexError::Duplicate { id });
            }
            (Some(_), Duplicates::Keep) => return Ok(Put::Kept),
            (Some(_), Duplicates::Replace) | (None, _) => {}
        }
        let place = self.guard(|writer| writer.append(document, vectors))?;
        self.added.insert(document.id.clone(), place);
        match found {
            Some(found) => {
                self.remove(&document.id, &found);
                Ok(Put::Replaced)
            }
            None => Ok(Put::Added),
        }
    }

    fn delete(&mut self, id: &str) -> Result<bool> {
        if self.failed {
            return Err(IndexError::Failed);
        }
        let Some(found) = self.find(id) else {
            return Ok(false);
        };
        self.remove(id, &found);
        self.added.remove(id);
        Ok(true)
    }

    fn contains(&self, id: &str) -> bool {
        self.find(id).is_some()
    }

    fn commit(&mut self) -> Result<u64> {
        let published = self.guard(|writer| {
            let manifest = writer.next_manifest()?;
            if let Some(manifest) = &manifest {
                writer.index.publish(manifest)?;
            }
            Ok(manifest)
        })?;
        if let Some(manifest) = published {
            let ids = self.take_ids(&manifest);
            self.staged.clear();
            self.added.clear();
            self.removed.clear();
            self.guard(|writer| {
                writer.index.settle()?;
                writer.index.snapshot.set_ids(ids);
                writer.index.snapshot.ids().map(|_| ())
            })?;
        }
        Ok(self.index.snapshot.manifest.generation)
    }
}

impl Drop for LocalWriter<'_> {
    fn drop(&mut self) {
        self.discard();
    }
}

/// Names of files are never used twice: the generation is new with each commit.
pub(super) fn segment_name(manifest: &Manifest, number: usize) -> String {
    format!("{SEGMENT_PREFIX}{:06}-{number:03}", manifest.generation + 1)
}

/// Takes out segments of which nothing is left, unless the plaid form counts on them.
fn drop_empty(manifest: &mut Manifest) {
    let plaid = manifest.plaid.as_ref();
    manifest.segments.retain(|entry| {
        let counted = plaid.is_some_and(|plaid| plaid.segments.contains(&entry.name));
        counted || entry.deleted.len() < entry.documents
    });
}
