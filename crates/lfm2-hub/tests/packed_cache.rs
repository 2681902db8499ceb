//! Packed weights on disk: what was stored is found again, and nothing else is.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use lfm2_hub::gguf::GgufFile;
use lfm2_hub::{
    Fingerprint, Limits, Mapping, PackedCache, PackedFile, PackedTensor, SafetensorsSource, Stored,
    TensorSource,
};
use serde_json::{Value, json};

const LAYOUT: u32 = 7;

/// A model file of its own, and an empty cache that stores everything at once.
struct Fixture {
    folder: tempfile::TempDir,
    cache: PackedCache,
    large: Vec<u8>,
}

impl Fixture {
    fn new() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let cache = PackedCache::new(folder.path().join("packed"));
        let large = (0..2 * PackedFile::PIECE + 5).map(|i| (i * 31) as u8);
        let fixture = Self {
            cache: cache.with_min_bytes(0).with_tick(Duration::ZERO),
            folder,
            large: large.collect(),
        };
        std::fs::copy(golden(), fixture.model())?;
        Ok(fixture)
    }

    fn model(&self) -> PathBuf {
        self.folder.path().join("a model.gguf")
    }

    fn fingerprint(&self) -> Result<Fingerprint> {
        fingerprint(&self.model())
    }

    fn tensors(&self) -> [PackedTensor<&[u8]>; 3] {
        let tensor = |name: &str, shape: [usize; 2], bytes| PackedTensor {
            name: name.to_owned(),
            format: "q9_9",
            shape: shape.to_vec(),
            bytes,
        };
        [
            tensor("a", [2, 3], b"abcdef".as_slice()),
            tensor("none", [0, 3], &[]),
            tensor("large", [1, 9], &self.large),
        ]
    }

    fn store(&self) -> Result<Stored> {
        self.store_in(&self.cache, &self.fingerprint()?)
    }

    fn store_in(&self, cache: &PackedCache, source: &Fingerprint) -> Result<Stored> {
        let tensors = self.tensors().map(Ok);
        Ok(cache.store(source, LAYOUT, self.bytes(), tensors)?)
    }

    fn bytes(&self) -> u64 {
        self.tensors().iter().map(|t| t.bytes.len() as u64).sum()
    }

    fn open(&self) -> Result<Option<PackedFile>> {
        Ok(self.cache.open(&self.fingerprint()?, LAYOUT))
    }

    /// The one file in the cache.
    fn file(&self) -> Result<PathBuf> {
        let files = files(self.cache.folder())?;
        anyhow::ensure!(files.len() == 1, "expected one file, found {files:?}");
        files.into_iter().next().context("no file")
    }
}

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/text/dense_gqa2/model-q4_0.gguf")
}

fn fingerprint(model: &Path) -> Result<Fingerprint> {
    let file = GgufFile::open(model, &Limits::default(), Mapping::Map)?;
    file.tensors().fingerprint()?.context("no fingerprint")
}

fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    std::fs::read_dir(folder)?
        .map(|entry| Ok(entry?.path()))
        .collect()
}

/// All bytes of a matrix; `None` when there is none or some are not as they were stored.
fn read(file: &PackedFile, name: &str) -> Option<Vec<u8>> {
    let entry = file.entry(name)?;
    let mut bytes = vec![0; entry.length() as usize];
    for (index, piece) in bytes.chunks_mut(PackedFile::PIECE).enumerate() {
        file.read_piece(entry, index * PackedFile::PIECE, piece)
            .ok()?;
    }
    Some(bytes)
}

/// Replaces the head of a file by another with the right checksums.
fn rewrite_head(path: &Path, edit: impl FnOnce(&mut Value)) -> Result<()> {
    let mut bytes = std::fs::read(path)?;
    let at = u64::from_le_bytes(bytes[16..24].try_into()?) as usize;
    let mut head: Value = serde_json::from_slice(&bytes[at..])?;
    edit(&mut head);
    bytes.truncate(at);
    bytes.extend(serde_json::to_vec(&head)?);
    let length = (bytes.len() - at) as u64;
    let checksum = crc32fast::hash(&bytes[at..]);
    bytes[12..16].copy_from_slice(&checksum.to_le_bytes());
    bytes[24..32].copy_from_slice(&length.to_le_bytes());
    let checksum = crc32fast::hash(&bytes[..32]);
    bytes[32..36].copy_from_slice(&checksum.to_le_bytes());
    Ok(std::fs::write(path, bytes)?)
}

#[test]
fn what_was_stored_is_found_again() -> Result<()> {
    let fixture = Fixture::new()?;
    assert!(fixture.open()?.is_none());
    assert_eq!(fixture.store()?, Stored::Written);
    let file = fixture.open()?.context("not found")?;
    for tensor in fixture.tensors() {
        let entry = file.entry(&tensor.name).context("no entry")?;
        assert_eq!((entry.format(), entry.shape()), ("q9_9", &tensor.shape[..]));
        assert_eq!(read(&file, &tensor.name).as_deref(), Some(tensor.bytes));
    }
    assert!(file.entry("b").is_none());
    // Another arrangement of the bytes is another file.
    assert!(fixture.cache.open(&fixture.fingerprint()?, 8).is_none());
    let name = fixture.file()?;
    let name = name.file_name().unwrap_or_default().to_string_lossy();
    assert!(name.starts_with("a_model-") && name.ends_with(".lfm2-packed"));
    Ok(())
}

#[test]
fn an_error_instead_of_a_matrix_stores_nothing() -> Result<()> {
    let fixture = Fixture::new()?;
    fixture.store()?;
    let before = std::fs::read(fixture.file()?)?;
    let failure = || Err(lfm2_hub::Error::InvalidInput("given up".to_owned()));
    let tensors = fixture.tensors().map(Ok).into_iter().take(2);
    let tensors = tensors.chain(std::iter::once_with(failure));
    let source = fixture.fingerprint()?;
    let stored = fixture.cache.store(&source, LAYOUT, 100, tensors);
    assert_eq!(stored.unwrap_err().to_string(), "given up");
    // What was there stays, and nothing else does.
    assert_eq!(std::fs::read(fixture.file()?)?, before);
    Ok(())
}

#[test]
fn only_pieces_can_be_read() -> Result<()> {
    let fixture = Fixture::new()?;
    fixture.store()?;
    let file = fixture.open()?.context("not found")?;
    let entry = file.entry("large").context("no entry")?;
    let mut piece = vec![0; PackedFile::PIECE];
    let starts = [1, PackedFile::PIECE + 1, 2 * PackedFile::PIECE, usize::MAX];
    for start in starts {
        assert!(
            file.read_piece(entry, start, &mut piece).is_err(),
            "{start}"
        );
    }
    assert!(file.read_piece(entry, 0, &mut piece[1..]).is_err());
    assert!(
        file.read_piece(entry, PackedFile::PIECE, &mut piece)
            .is_ok()
    );
    Ok(())
}

#[test]
fn a_file_cut_short_or_lengthened_is_none() -> Result<()> {
    let fixture = Fixture::new()?;
    fixture.store()?;
    let path = fixture.file()?;
    let whole = std::fs::read(&path)?;
    let ends = [0, 1, 8, 35, 36, 4096, whole.len() / 2, whole.len() - 1];
    for end in ends {
        std::fs::write(&path, &whole[..end])?;
        assert!(fixture.open()?.is_none(), "cut to {end} bytes");
    }
    std::fs::write(&path, [&whole[..], b" "].concat())?;
    assert!(fixture.open()?.is_none());
    // It is replaced, not added to.
    assert_eq!(fixture.store()?, Stored::Written);
    assert_eq!(std::fs::read(fixture.file()?)?, whole);
    Ok(())
}

#[test]
fn no_changed_byte_goes_unnoticed() -> Result<()> {
    let fixture = Fixture::new()?;
    fixture.store()?;
    let path = fixture.file()?;
    let whole = std::fs::read(&path)?;
    let head = u64::from_le_bytes(whole[16..24].try_into()?) as usize;
    let places = (0..36)
        .chain(4096..4102)
        .chain((8192..head).step_by(PackedFile::PIECE / 3))
        .chain((head..whole.len()).step_by(41));
    for place in places {
        let mut bytes = whole.clone();
        bytes[place] ^= 0x10;
        std::fs::write(&path, &bytes)?;
        let right = |file: &PackedFile| {
            fixture
                .tensors()
                .iter()
                .all(|t| read(file, &t.name).as_deref() == Some(t.bytes))
        };
        // Some bytes between matrices belong to nothing.
        let padding = 8192 + fixture.large.len() <= place && place < head;
        let opened = fixture.open()?;
        assert_eq!(opened.as_ref().is_some_and(right), padding, "byte {place}");
    }
    Ok(())
}

#[test]
fn heads_that_contradict_the_file_are_refused() -> Result<()> {
    let edits: [fn(&mut Value); 10] = [
        |head| head["origin"]["fingerprint"] = json!("00"),
        |head| head["origin"]["layout"] = json!(8),
        |head| head["matrices"][0]["offset"] = json!(0),
        |head| head["matrices"][0]["offset"] = json!(4097),
        |head| head["matrices"][0]["offset"] = json!(1_u64 << 40),
        |head| head["matrices"][0]["offset"] = json!(u64::MAX - 4095),
        |head| head["matrices"][0]["length"] = json!(u64::MAX),
        |head| head["matrices"][2]["checksums"] = json!([1, 2]),
        |head| head["matrices"][1]["name"] = json!("a"),
        |head| head["surprise"] = json!(1),
    ];
    for (index, edit) in edits.into_iter().enumerate() {
        let fixture = Fixture::new()?;
        fixture.store()?;
        let path = fixture.file()?;
        rewrite_head(&path, |_| ())?;
        assert!(fixture.open()?.is_some());
        rewrite_head(&path, edit)?;
        assert!(fixture.open()?.is_none(), "edit {index}");
    }
    Ok(())
}

#[test]
fn weights_replaced_by_others_of_the_same_size_are_not_found() -> Result<()> {
    let fixture = Fixture::new()?;
    fixture.store()?;
    let mut other = std::fs::read(golden())?;
    let last = other.len() - 1;
    other[last] ^= 1;
    // In place, with the old time of change, and by a new file under the old name.
    let changed = std::fs::metadata(fixture.model())?.modified()?;
    std::fs::write(fixture.model(), &other)?;
    std::fs::File::options()
        .write(true)
        .open(fixture.model())?
        .set_modified(changed)?;
    assert!(fixture.open()?.is_none());
    let beside = fixture.folder.path().join("other");
    std::fs::copy(golden(), &beside)?;
    std::fs::rename(&beside, fixture.model())?;
    assert!(fixture.open()?.is_none());
    Ok(())
}

#[test]
fn weights_that_change_while_they_are_packed_are_not_stored() -> Result<()> {
    let fixture = Fixture::new()?;
    let before = fixture.fingerprint()?;
    let store = |cache: &PackedCache| fixture.store_in(cache, &before);
    let patient = fixture.cache.clone().with_tick(Duration::from_secs(3600));
    assert_eq!(store(&patient)?, Stored::Unsettled);
    std::fs::OpenOptions::new()
        .append(true)
        .open(fixture.model())?
        .set_len(100)?;
    assert_eq!(store(&fixture.cache)?, Stored::Unsettled);
    std::fs::remove_file(fixture.model())?;
    assert_eq!(store(&fixture.cache)?, Stored::Unsettled);
    assert!(files(fixture.cache.folder())?.is_empty());
    Ok(())
}

#[test]
fn small_and_large_models_are_not_stored() -> Result<()> {
    let fixture = Fixture::new()?;
    let (bytes, source) = (fixture.bytes(), fixture.fingerprint()?);
    let store = |cache: PackedCache| fixture.store_in(&cache, &source);
    let cache = || fixture.cache.clone();
    assert_eq!(store(cache().with_min_bytes(bytes + 1))?, Stored::TooSmall);
    assert_eq!(store(cache().with_max_bytes(bytes - 1))?, Stored::TooLarge);
    assert_eq!(store(cache().with_min_bytes(bytes))?, Stored::Written);
    Ok(())
}

#[test]
fn what_was_not_used_for_the_longest_time_makes_room() -> Result<()> {
    let fixture = Fixture::new()?;
    let folder = fixture.cache.folder();
    std::fs::create_dir_all(folder)?;
    let age = |name: &str, hours: u64| -> Result<PathBuf> {
        let path = folder.join(name);
        std::fs::write(&path, vec![0; 300_000])?;
        let used = SystemTime::now() - Duration::from_secs(hours * 3600);
        let file = std::fs::File::options().write(true).open(&path)?;
        file.set_modified(used)?;
        Ok(path)
    };
    let old = age("old.lfm2-packed", 3)?;
    let newer = age("newer.lfm2-packed", 2)?;
    let foreign = age("foreign.txt", 900)?;
    let abandoned = age(".lfm2-x.tmp", 30)?;
    let active = age(".lfm2-y.tmp", 1)?;
    let source = fixture.fingerprint()?;
    let cache = fixture.cache.clone().with_max_bytes(900_000);
    fixture.store_in(&cache, &source)?;
    assert!(!old.exists() && !abandoned.exists());
    assert!(newer.exists() && foreign.exists() && active.exists());
    assert!(cache.open(&source, LAYOUT).is_some());
    Ok(())
}

#[test]
fn being_found_counts_as_use() -> Result<()> {
    let fixture = Fixture::new()?;
    fixture.store()?;
    let path = fixture.file()?;
    let long_ago = SystemTime::now() - Duration::from_secs(10_000);
    std::fs::File::options()
        .write(true)
        .open(&path)?
        .set_modified(long_ago)?;
    assert!(fixture.open()?.is_some());
    assert!(path.metadata()?.modified()? > long_ago + Duration::from_secs(5000));
    Ok(())
}

#[test]
fn a_folder_that_cannot_be_written_to_is_an_error() -> Result<()> {
    let fixture = Fixture::new()?;
    let file = fixture.folder.path().join("file");
    std::fs::write(&file, "x")?;
    let cache = PackedCache::new(file.join("packed"))
        .with_min_bytes(0)
        .with_tick(Duration::ZERO);
    let source = fixture.fingerprint()?;
    assert!(cache.open(&source, LAYOUT).is_none());
    assert!(fixture.store_in(&cache, &source).is_err());
    Ok(())
}

#[test]
fn weights_in_memory_and_of_no_file_have_no_fingerprint() -> Result<()> {
    let bytes = std::fs::read(golden())?;
    let file = GgufFile::from_bytes("m", bytes, &Limits::default())?;
    assert_eq!(file.tensors().fingerprint()?, None);
    let header = br#"{}"#;
    let bytes = [&(header.len() as u64).to_le_bytes()[..], header].concat();
    let source = SafetensorsSource::from_bytes("m", bytes, &Limits::default())?;
    assert_eq!(source.fingerprint()?, None);
    Ok(())
}
