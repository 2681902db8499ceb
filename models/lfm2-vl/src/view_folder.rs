//! [`ViewFolder`]: views that were read, kept on a disk from one start to the next.
//!
//! One file per view, found by a hash of everything its rows follow from: the files of the weights, how
//! they are loaded, what a level of a pixel is to the tower, and the pixels. A file that is damaged is as
//! good as none, and all of them can be deleted at any time.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use candle_core::{DType, Device, Tensor};
use lfm2_hub::{Error, Overwrite, Result, TensorSource, write_atomic};
use lfm2_text::LoadOptions;
use sha2::{Digest, Sha256};

use crate::picture::CHANNELS;
use crate::view::ViewKey;

const EXTENSION: &str = "lfm2-view";
/// Stands for the form of the files and for how rows are computed: another number, other files.
const FORM: &str = "lfm2-view 1";
const DIGEST: usize = 32;

/// What the levels of each channel are to the tower.
pub(crate) type Levels = [[f32; 256]; CHANNELS];

/// A folder for views that were read.
///
/// A full view of the published models takes one or two megabytes. The least lately used go first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ViewFolder {
    path: PathBuf,
    max_bytes: u64,
}

impl ViewFolder {
    /// How many bytes a folder may hold, unless told otherwise: 1 GiB.
    pub const DEFAULT_MAX_BYTES: u64 = 1 << 30;

    /// The folder at `path`, which need not exist.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            max_bytes: Self::DEFAULT_MAX_BYTES,
        }
    }

    /// How many bytes it may hold.
    pub fn with_max_bytes(mut self, max_bytes: u64) -> Self {
        self.max_bytes = max_bytes;
        self
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// The part of a folder that is of one model.
#[derive(Debug, Clone)]
pub(crate) struct Shelf {
    folder: ViewFolder,
    /// Of the weights and how they are loaded.
    model: String,
    /// The same and the levels.
    whole: [u8; DIGEST],
    dtype: DType,
    device: Device,
}

impl Shelf {
    /// The shelf of the model with these tensors; `None` where nothing tells them from others, as for
    /// weights in memory.
    pub(crate) fn new(
        folder: &ViewFolder,
        tensors: &dyn TensorSource,
        load: &LoadOptions,
    ) -> Result<Option<Self>> {
        let weights = tensors.fingerprint()?.and_then(|print| print.settled_id());
        let Some(weights) = weights else {
            return Ok(None);
        };
        let way = format!("{:?} {:?} {:?}", load.dtype, load.accuracy, load.quantize);
        let device = format!("{:?}", load.device.location());
        Ok(Some(Self {
            folder: folder.clone(),
            model: format!("{FORM}\n{weights}\n{way}\n{device}\n"),
            whole: [0; DIGEST],
            dtype: DType::F32,
            device: load.device.clone(),
        }))
    }

    /// The same shelf for a model that computes in `dtype`, with these levels.
    pub(crate) fn of(self, dtype: DType, levels: &Levels) -> Self {
        Self { dtype, ..self }.with_levels(levels)
    }

    /// The same shelf for a processor with these levels.
    pub(crate) fn with_levels(mut self, levels: &Levels) -> Self {
        let mut hash = Sha256::new();
        hash.update(&self.model);
        for level in levels.iter().flatten() {
            hash.update(level.to_le_bytes());
        }
        self.whole = hash.finalize().into();
        self
    }

    /// The rows of a view, if they are here and undamaged.
    pub(crate) fn get(&self, key: &ViewKey) -> Option<Tensor> {
        let path = self.path_of(key);
        let bytes = fs::read(&path).ok()?;
        let (body, digest) = bytes.split_at_checked(bytes.len().checked_sub(DIGEST)?)?;
        let is_whole = Sha256::digest(body)[..] == *digest;
        let rows = is_whole.then(|| self.rows_of(body)).flatten();
        if rows.is_none() {
            tracing::debug!(path = %path.display(), "a kept view is damaged");
        } else if let Ok(file) = fs::File::options().append(true).open(&path) {
            // So that it is not the next to go; where that fails, it is read again some day.
            let _ = file.set_modified(SystemTime::now());
        }
        rows
    }

    fn rows_of(&self, body: &[u8]) -> Option<Tensor> {
        let (width, values) = body.split_first_chunk::<8>()?;
        let width = usize::try_from(u64::from_le_bytes(*width)).ok()?;
        let values: Vec<f32> = values
            .as_chunks()
            .0
            .iter()
            .map(|bytes| f32::from_le_bytes(*bytes))
            .collect();
        let count = values.len().checked_div(width)?;
        let rows = Tensor::from_vec(values, (count, width), &Device::Cpu).ok()?;
        rows.to_dtype(self.dtype)
            .and_then(|rows| rows.to_device(&self.device))
            .ok()
    }

    /// Keeps the rows of a view. What cannot be kept is read again some day, so failing is no error.
    pub(crate) fn put(&self, key: &ViewKey, rows: &Tensor) {
        if let Err(error) = self.store(key, rows) {
            let folder = self.folder.path.display();
            tracing::warn!(%folder, %error, "a view was not kept");
        }
    }

    fn store(&self, key: &ViewKey, rows: &Tensor) -> Result<()> {
        let body = body(rows)?;
        let folder = &self.folder.path;
        fs::create_dir_all(folder).map_err(|error| Error::io(folder, error))?;
        let bytes = (body.len() + DIGEST) as u64;
        if bytes > self.folder.max_bytes {
            return Ok(());
        }
        self.make_room(bytes)?;
        let path = self.path_of(key);
        write_atomic(&path, Overwrite::Replace, |file| {
            file.write_all(&body)
                .and_then(|()| file.write_all(&Sha256::digest(&body)))
                .map_err(|error| Error::io(&path, error))
        })
    }

    /// Deletes the views that were not used for the longest time, until there is room for `bytes`.
    fn make_room(&self, bytes: u64) -> Result<()> {
        let folder = &self.folder.path;
        let mut files = Vec::new();
        for entry in fs::read_dir(folder).map_err(|error| Error::io(folder, error))? {
            let path = entry.map_err(|error| Error::io(folder, error))?.path();
            let ours = path.extension().is_some_and(|name| name == EXTENSION);
            // Another program may have deleted it meanwhile.
            if let Some(found) = path.metadata().ok().filter(|found| ours && found.is_file()) {
                let used = found.modified().unwrap_or(SystemTime::UNIX_EPOCH);
                files.push((used, found.len(), path));
            }
        }
        files.sort();
        let mut total: u64 = files.iter().map(|(_, len, _)| len).sum();
        for (_, len, path) in files {
            if total + bytes <= self.folder.max_bytes {
                break;
            }
            fs::remove_file(&path).map_err(|error| Error::io(&path, error))?;
            total -= len;
        }
        Ok(())
    }

    fn path_of(&self, key: &ViewKey) -> PathBuf {
        let hash = Sha256::new_with_prefix(self.whole)
            .chain_update(key.bytes())
            .finalize();
        let name: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        self.folder.path.join(name).with_extension(EXTENSION)
    }
}

/// The width of the rows and their values in `f32`, which holds every number type exactly.
fn body(rows: &Tensor) -> Result<Vec<u8>> {
    let width = rows.dim(1)? as u64;
    let values = rows.flatten_all()?.to_dtype(DType::F32)?.to_vec1::<f32>()?;
    let mut bytes = width.to_le_bytes().to_vec();
    bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shelf(folder: &Path, model: &str, max_bytes: u64) -> Shelf {
        let levels = [[0.5; 256]; CHANNELS];
        let shelf = Shelf {
            folder: ViewFolder::new(folder).with_max_bytes(max_bytes),
            model: model.to_owned(),
            whole: [0; DIGEST],
            dtype: DType::F32,
            device: Device::Cpu,
        };
        shelf.with_levels(&levels)
    }

    fn rows(seed: f32) -> Tensor {
        let values: Vec<f32> = (0..12).map(|i| i as f32 * seed).collect();
        Tensor::from_vec(values, (4, 3), &Device::Cpu).unwrap()
    }

    fn key(number: u8) -> ViewKey {
        ViewKey::from_bytes([number; 32])
    }

    fn values(rows: Option<Tensor>) -> Option<Vec<Vec<f32>>> {
        rows.map(|rows| rows.to_vec2().unwrap())
    }

    #[test]
    fn views_are_found_again_by_the_same_model_only() {
        let folder = tempfile::tempdir().unwrap();
        let below = folder.path().join("made/when/needed");
        shelf(&below, "a", 1 << 20).put(&key(1), &rows(0.3));
        let found = |shelf: Shelf, number| values(shelf.get(&key(number)));
        assert_eq!(
            found(shelf(&below, "a", 1 << 20), 1),
            values(Some(rows(0.3)))
        );
        assert_eq!(found(shelf(&below, "a", 1 << 20), 2), None);
        assert_eq!(found(shelf(&below, "b", 1 << 20), 1), None);
        let other = shelf(&below, "a", 1 << 20).with_levels(&[[0.25; 256]; CHANNELS]);
        assert_eq!(found(other, 1), None);
    }

    #[test]
    fn a_damaged_file_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let shelf = shelf(folder.path(), "a", 1 << 20);
        shelf.put(&key(1), &rows(1.0));
        let path = shelf.path_of(&key(1));
        let whole = fs::read(&path).unwrap();
        for damage in [0, 7, 9, whole.len() - 1] {
            let mut bytes = whole.clone();
            bytes[damage] ^= 1;
            fs::write(&path, &bytes).unwrap();
            assert!(shelf.get(&key(1)).is_none(), "byte {damage}");
        }
        for len in [0, 8, DIGEST, whole.len() - 1] {
            fs::write(&path, &whole[..len]).unwrap();
            assert!(shelf.get(&key(1)).is_none(), "{len} bytes");
        }
        fs::write(&path, &whole).unwrap();
        assert!(shelf.get(&key(1)).is_some());
    }

    #[test]
    fn the_least_lately_used_go_first_and_other_files_stay() {
        let folder = tempfile::tempdir().unwrap();
        let one = 8 + 12 * 4 + DIGEST as u64;
        let shelf = shelf(folder.path(), "a", 2 * one);
        fs::write(folder.path().join("notes.txt"), [0; 500]).unwrap();
        for (number, age) in [(1, 30), (2, 60)] {
            shelf.put(&key(number), &rows(1.0));
            let file = fs::File::options()
                .append(true)
                .open(shelf.path_of(&key(number)));
            let used = SystemTime::now() - std::time::Duration::from_secs(age);
            file.unwrap().set_modified(used).unwrap();
        }
        shelf.put(&key(3), &rows(1.0));
        let found = [1, 2, 3].map(|number| shelf.get(&key(number)).is_some());
        assert_eq!(found, [true, false, true]);
        assert!(folder.path().join("notes.txt").exists());
    }
}
