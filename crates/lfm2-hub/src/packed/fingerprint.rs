//! [`Fingerprint`]: which weights a packed file was made of, told without reading them all.
//!
//! Two things have to agree. The file system's record of each file: device, inode, length and the
//! times of the last change of contents and of the record itself; the latter cannot be set back by
//! any program, so no edit and no replacement leaves it as it was. And a sample of the contents: the
//! beginning, with the header, and pieces spread evenly up to the end.
//!
//! What the record cannot show are two changes within one tick of the file system's clock. So packed
//! weights are stored only when the file has been left alone for longer than that.

use std::fs::Metadata;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha256};

use crate::Result;
use crate::mapped::FileBytes;

/// Bytes at the beginning of a file that are part of the sample.
const BEGINNING: u64 = 1 << 20;
/// Pieces of the rest, and the bytes of each.
const PIECES: u64 = 64;
const PIECE: u64 = 4096;

/// A tick of the clock of a file system that keeps whole seconds; FAT counts in twos.
const COARSE_TICK: Duration = Duration::from_secs(2);

/// Stands for the contents of some files: equal fingerprints, equal contents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fingerprint {
    digest: [u8; 32],
    files: Vec<(PathBuf, FileStamp)>,
}

impl Fingerprint {
    /// Of opened files, in this order; `None` when one of them is not a file, or the system keeps no
    /// record that could be trusted.
    pub(crate) fn of<'a>(files: impl IntoIterator<Item = &'a FileBytes>) -> Result<Option<Self>> {
        let mut hash = Sha256::new();
        let mut stamps = Vec::new();
        for file in files {
            let Some(stamp) = file.stamp() else {
                return Ok(None);
            };
            stamp.feed(&mut hash);
            for (start, length) in samples(stamp.length) {
                hash.update(&file.slice(start, length)?);
            }
            stamps.push((file.path().to_path_buf(), stamp));
        }
        let digest = hash.finalize().into();
        let files = stamps;
        Ok((!files.is_empty()).then_some(Self { digest, files }))
    }

    /// Stands for what is made of these contents in a certain way, such as by quantising them.
    pub fn derived(&self, way: &str) -> Self {
        let hash = Sha256::new().chain_update(self.digest).chain_update(way);
        Self {
            digest: hash.finalize().into(),
            files: self.files.clone(),
        }
    }

    /// 64 hexadecimal digits that name the contents in a file of another program's own; `None` while
    /// a file was changed so short a time ago that a later change might not show.
    pub fn settled_id(&self) -> Option<String> {
        let settled = self.is_settled(COARSE_TICK);
        settled.then(|| {
            self.digest
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect()
        })
    }

    /// Stands for several contents in this order; `None` for none at all.
    pub(crate) fn joined(parts: Vec<Self>) -> Option<Self> {
        let mut hash = Sha256::new();
        let mut files = Vec::new();
        for part in parts {
            hash.update(part.digest);
            files.extend(part.files);
        }
        let digest = hash.finalize().into();
        (!files.is_empty()).then_some(Self { digest, files })
    }

    pub(super) fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    /// A name for people: that of the first file.
    pub(super) fn name(&self) -> &Path {
        self.files.first().map_or(Path::new(""), |(path, _)| path)
    }

    /// Whether every file is still the one that was opened, and has been left alone for `tick`.
    pub(super) fn is_settled(&self, tick: Duration) -> bool {
        let now = SystemTime::now();
        self.files.iter().all(|(path, stamp)| {
            let found = path.metadata().ok();
            found.as_ref().and_then(FileStamp::of) == Some(*stamp) && stamp.is_older(tick, now)
        })
    }
}

/// Where the sample of a file of `length` bytes is taken: a small file is one whole.
fn samples(length: u64) -> Vec<(u64, u64)> {
    if length <= BEGINNING + PIECES * PIECE {
        return vec![(0, length)];
    }
    let last = length - PIECE;
    let step = (last - BEGINNING) / (PIECES - 1);
    let pieces = (0..PIECES).map(|i| (last - (PIECES - 1 - i) * step, PIECE));
    std::iter::once((0, BEGINNING)).chain(pieces).collect()
}

/// The file system's record of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileStamp {
    length: u64,
    /// Device and inode, where there are such things.
    place: [u64; 2],
    /// Times of the last changes, in the system's units.
    changes: [i128; 2],
    /// Those units per second.
    units: i128,
    /// When Unix time began, in those units.
    epoch: i128,
}

impl FileStamp {
    /// What the system says of a file, if it says enough.
    #[cfg(unix)]
    pub(crate) fn of(metadata: &Metadata) -> Option<Self> {
        use std::os::unix::fs::MetadataExt;
        const NANOS: i128 = 1_000_000_000;
        let time = |seconds: i64, nanos: i64| i128::from(seconds) * NANOS + i128::from(nanos);
        metadata.is_file().then(|| Self {
            length: metadata.len(),
            place: [metadata.dev(), metadata.ino()],
            changes: [
                time(metadata.mtime(), metadata.mtime_nsec()),
                time(metadata.ctime(), metadata.ctime_nsec()),
            ],
            units: NANOS,
            epoch: 0,
        })
    }

    /// What the system says of a file, if it says enough.
    #[cfg(windows)]
    pub(crate) fn of(metadata: &Metadata) -> Option<Self> {
        use std::os::windows::fs::MetadataExt;
        metadata.is_file().then(|| Self {
            length: metadata.file_size(),
            place: [0; 2],
            changes: [
                i128::from(metadata.last_write_time()),
                i128::from(metadata.creation_time()),
            ],
            units: 10_000_000,
            epoch: 116_444_736_000_000_000,
        })
    }

    /// No system whose record could be trusted.
    #[cfg(not(any(unix, windows)))]
    pub(crate) fn of(_metadata: &Metadata) -> Option<Self> {
        None
    }

    fn feed(&self, hash: &mut Sha256) {
        hash.update(self.length.to_le_bytes());
        self.place
            .iter()
            .for_each(|part| hash.update(part.to_le_bytes()));
        self.changes
            .iter()
            .for_each(|time| hash.update(time.to_le_bytes()));
    }

    /// Whether the last change was longer ago than a tick of the clock that recorded it.
    fn is_older(&self, tick: Duration, now: SystemTime) -> bool {
        let whole_seconds = self.changes.iter().all(|time| time % self.units == 0);
        let tick = if whole_seconds && !tick.is_zero() {
            tick.max(COARSE_TICK)
        } else {
            tick
        };
        let last = self
            .changes
            .iter()
            .max()
            .map_or(0, |last| last - self.epoch);
        let nanos = last.saturating_mul(1_000_000_000 / self.units);
        let since_epoch = now.duration_since(SystemTime::UNIX_EPOCH);
        since_epoch.is_ok_and(|now| {
            i128::try_from(now.as_nanos()).is_ok_and(|now| {
                i128::try_from(tick.as_nanos()).is_ok_and(|tick| now - nanos >= tick)
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(path: &Path) -> FileBytes {
        FileBytes::open(path, crate::Mapping::Read).unwrap()
    }

    fn fingerprint(path: &Path) -> Fingerprint {
        Fingerprint::of(&[bytes(path)]).unwrap().unwrap()
    }

    #[test]
    fn samples_cover_small_files_and_reach_the_end_of_large_ones() {
        assert_eq!(samples(0), [(0, 0)]);
        assert_eq!(samples(1_000_000), [(0, 1_000_000)]);
        for length in [BEGINNING + PIECES * PIECE + 1, 10 << 20, 700_000_001] {
            let found = samples(length);
            assert_eq!(found.len() as u64, PIECES + 1);
            assert!(found.windows(2).all(|w| w[0].0 < w[1].0), "{length}");
            assert!(found[1].0 >= BEGINNING, "{length}");
            assert_eq!(found.last(), Some(&(length - PIECE, PIECE)));
        }
    }

    #[test]
    fn another_file_with_the_same_bytes_is_another_file() {
        let folder = tempfile::tempdir().unwrap();
        let (a, b) = (folder.path().join("a"), folder.path().join("b"));
        std::fs::write(&a, [1; 100]).unwrap();
        std::fs::write(&b, [1; 100]).unwrap();
        assert_eq!(fingerprint(&a), fingerprint(&a));
        assert_ne!(fingerprint(&a).digest(), fingerprint(&b).digest());
    }

    #[test]
    fn every_way_of_making_something_has_its_own() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let plain = fingerprint(file.path());
        assert_eq!(plain.derived("q4_0"), plain.derived("q4_0"));
        assert_ne!(
            plain.derived("q4_0").digest(),
            plain.derived("q8_0").digest()
        );
        assert_ne!(plain.derived("").digest(), plain.digest());
        assert!(plain.derived("q4_0").is_settled(Duration::ZERO));
    }

    #[test]
    fn bytes_in_memory_have_none() {
        let memory = FileBytes::from_memory("m", vec![1; 10].into());
        assert_eq!(Fingerprint::of(&[memory]).unwrap(), None);
        assert_eq!(Fingerprint::of(&[]).unwrap(), None);
    }

    #[test]
    fn a_file_that_is_replaced_or_just_written_is_not_settled() {
        let folder = tempfile::tempdir().unwrap();
        let (a, b) = (folder.path().join("a"), folder.path().join("b"));
        std::fs::write(&a, [1; 100]).unwrap();
        let before = fingerprint(&a);
        assert!(before.is_settled(Duration::ZERO));
        assert!(!before.is_settled(Duration::from_secs(3600)));
        std::fs::write(&b, [2; 100]).unwrap();
        std::fs::rename(&b, &a).unwrap();
        assert!(!before.is_settled(Duration::ZERO));
        std::fs::remove_file(&a).unwrap();
        assert!(!before.is_settled(Duration::ZERO));
    }

    #[test]
    fn clocks_of_whole_seconds_need_a_longer_rest() {
        let second = 1_000_000_000;
        let stamp = |nanos: i128| FileStamp {
            length: 1,
            place: [0; 2],
            changes: [nanos; 2],
            units: second,
            epoch: 0,
        };
        let at = |millis| SystemTime::UNIX_EPOCH + Duration::from_millis(millis);
        let tick = Duration::from_millis(50);
        assert!(stamp(10 * second + 1).is_older(tick, at(10_100)));
        assert!(!stamp(10 * second + 1).is_older(tick, at(10_020)));
        assert!(!stamp(10 * second).is_older(tick, at(11_900)));
        assert!(stamp(10 * second).is_older(tick, at(12_100)));
        // A clock that runs ahead is waited for.
        assert!(!stamp(20 * second + 1).is_older(tick, at(10_000)));
    }
}
