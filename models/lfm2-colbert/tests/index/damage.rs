//! CB-02: files that are not what they were.

use std::path::{Path, PathBuf};

use lfm2_colbert::index::{self, Check, Engine, IndexError, OpenOptions, WriteOptions};

use crate::support::{contents, create, expected, fill, name};

/// A folder with an index of two segments and a deleted document, and its data files.
fn sound() -> (tempfile::TempDir, Vec<PathBuf>) {
    let folder = tempfile::tempdir().unwrap();
    let mut index = create(folder.path(), Engine::Exact);
    fill(&mut *index, 0..6);
    fill(&mut *index, 6..9);
    let mut writer = index.writer(&WriteOptions::default()).unwrap();
    writer.delete(&name(2)).unwrap();
    writer.commit().unwrap();
    drop(writer);
    let files = std::fs::read_dir(folder.path()).unwrap();
    let files = files.map(|file| file.unwrap().path());
    let files = files
        .filter(|file| !file.ends_with("writer.lock"))
        .collect();
    (folder, files)
}

fn open(folder: &Path, check: Check) -> Result<(), IndexError> {
    index::open(folder, &OpenOptions::default().with_check(check)).map(|_| ())
}

#[track_caller]
fn assert_refused(folder: &Path, file: &Path, check: Check) {
    let error = open(folder, check).unwrap_err();
    let name = file.file_name().unwrap().to_string_lossy().into_owned();
    assert!(
        error.to_string().contains(&name),
        "{error} does not name {name}"
    );
}

#[test]
fn cb_02_a_truncated_file_is_named() {
    let (folder, files) = sound();
    assert_eq!(files.len(), 5);
    for file in &files {
        let bytes = std::fs::read(file).unwrap();
        for length in [0, 1, bytes.len() / 2, bytes.len() - 2] {
            std::fs::write(file, &bytes[..length]).unwrap();
            assert_refused(folder.path(), file, Check::Lengths);
        }
        std::fs::write(file, [&bytes[..], b"x"].concat()).unwrap();
        assert_refused(folder.path(), file, Check::Lengths);
        std::fs::write(file, &bytes).unwrap();
    }
    open(folder.path(), Check::Whole).unwrap();
}

#[test]
fn cb_02_a_missing_file_is_named() {
    let (folder, files) = sound();
    for file in files {
        let bytes = std::fs::read(&file).unwrap();
        std::fs::remove_file(&file).unwrap();
        if file.ends_with("index.json") {
            assert!(open(folder.path(), Check::Whole).is_err());
        } else {
            assert_refused(folder.path(), &file, Check::Whole);
        }
        std::fs::write(&file, &bytes).unwrap();
    }
}

#[test]
fn cb_02_a_changed_byte_is_noticed() {
    let (folder, files) = sound();
    for file in &files {
        let bytes = std::fs::read(file).unwrap();
        let step = (bytes.len() / 40).max(1);
        for at in (0..bytes.len()).step_by(step) {
            let mut changed = bytes.clone();
            changed[at] ^= 0x10;
            std::fs::write(file, &changed).unwrap();
            assert_refused(folder.path(), file, Check::Whole);
        }
        std::fs::write(file, &bytes).unwrap();
    }
}

/// Without checksums damage can go unnoticed, but it must not end the program.
#[test]
fn cb_02_damage_that_was_not_looked_for_gives_errors_at_worst() {
    let (folder, files) = sound();
    for file in &files {
        let bytes = std::fs::read(file).unwrap();
        for at in (0..bytes.len()).step_by(3) {
            let mut changed = bytes.clone();
            changed[at] ^= 1 << (at % 8);
            std::fs::write(file, &changed).unwrap();
            let options = OpenOptions::default().with_check(Check::Lengths);
            if let Ok(index) = index::open(folder.path(), &options) {
                let _ = index.ids();
                let _ = index.search(
                    crate::support::view(&[0.5; 16]),
                    &crate::support::top(9).with_filter("kind = 1".parse().unwrap()),
                );
            }
        }
        std::fs::write(file, &bytes).unwrap();
    }
}

#[test]
fn cb_02_another_version_is_refused() {
    let (folder, _) = sound();
    let path = folder.path().join("index.json");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(
        &path,
        text.replace("\"version\": 1", "\"version\": 2, \"new\": 3"),
    )
    .unwrap();
    let error = open(folder.path(), Check::Whole).unwrap_err();
    assert!(
        matches!(
            error,
            IndexError::Version {
                expected: 1,
                found: 2,
                ..
            }
        ),
        "{error}"
    );
    std::fs::write(&path, text.replace("lfm2-index", "else")).unwrap();
    assert_refused(folder.path(), &path, Check::Whole);
    std::fs::write(&path, "[".repeat(10_000)).unwrap();
    assert_refused(folder.path(), &path, Check::Whole);
}

#[test]
fn st_05_a_segment_of_other_dimensions_is_refused() {
    let (folder, files) = sound();
    let path = folder.path().join("index.json");
    let text = std::fs::read_to_string(&path).unwrap();
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    let manifest = value["manifest"]
        .to_string()
        .replace("\"dim\":8", "\"dim\":4");
    let manifest: serde_json::Value = serde_json::from_str(&manifest).unwrap();
    let crc32 = crc32fast::hash(manifest.to_string().as_bytes());
    let other = serde_json::json!(
        {"format": "lfm2-index", "version": 1, "crc32": crc32, "manifest": manifest}
    );
    std::fs::write(&path, other.to_string()).unwrap();
    let error = open(folder.path(), Check::Whole).unwrap_err().to_string();
    assert!(
        files.iter().any(|f| error.contains(&*f.to_string_lossy())),
        "{error}"
    );
    assert!(
        error.contains("expected F16 [") && error.contains(", 4], found F16 ["),
        "{error}"
    );
}

#[test]
fn files_of_dead_writers_are_removed_by_the_next_one() {
    let (folder, files) = sound();
    for name in [
        "segment-000009-000.safetensors.tmp",
        "segment-000009-000.jsonl",
        ".lfm2-x.tmp",
    ] {
        std::fs::write(folder.path().join(name), "half").unwrap();
    }
    std::fs::create_dir(folder.path().join("plaid-000009")).unwrap();
    std::fs::write(folder.path().join("plaid-000009/0.codes.npy"), "half").unwrap();
    std::fs::write(folder.path().join("notes.txt"), "not ours").unwrap();
    let mut index = crate::support::open(folder.path());
    drop(index.writer(&WriteOptions::default()).unwrap());
    let left = std::fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(left, files.len() + 2, "the lock and the notes stay");
    assert_eq!(contents(&*index), expected((0..9).filter(|&id| id != 2)));
}
