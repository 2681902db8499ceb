//! A full disk: writing fails somewhere in the middle, or the process is ended there.
//!
//! This test program runs itself again under a limit on the size of files, which either is an error
//! of the write that crosses it, or ends the process at that very byte.
#![cfg(unix)]

use std::path::Path;
use std::process::Command;

use lfm2_colbert::index::{Check, Engine, Index, Maintenance, OpenOptions, WriteOptions};

use crate::support::{contents, create, document, expected, fill, open, view};

/// Says to the second process which index to change, and how.
const FOLDER: &str = "LFM2_TEST_INDEX_FOLDER";
const CHANGE: &str = "LFM2_TEST_INDEX_CHANGE";

/// What the second process does; nothing in the first.
#[test]
fn child() {
    let Some(folder) = std::env::var_os(FOLDER) else {
        return;
    };
    let mut index = open(folder.as_ref());
    let result = if std::env::var_os(CHANGE).is_some_and(|change| change == "add") {
        add(&mut *index)
    } else {
        index.maintain(Maintenance::Now).map(|_| ())
    };
    match result {
        Ok(()) => println!("committed"),
        Err(error) => println!("failed: {error}"),
    }
}

fn add(index: &mut dyn Index) -> Result<(), lfm2_colbert::index::IndexError> {
    let mut writer = index.writer(&WriteOptions::default())?;
    for id in 300..500 {
        let (document, vectors) = document(id);
        writer.put(&document, view(&vectors))?;
    }
    assert!(writer.commit()? > 0);
    Ok(())
}

/// Runs [`child`] with files of at most `blocks` times 512 bytes; what it printed, and whether it
/// lived to the end.
fn run(folder: &Path, change: &str, blocks: usize, on_limit: &str) -> (String, bool) {
    let script = format!(
        "{on_limit} ulimit -c 0; ulimit -f {blocks}; exec \"$0\" --exact disk_full::child --nocapture"
    );
    let output = Command::new("sh")
        .arg("-c")
        .arg(script)
        .arg(std::env::current_exe().unwrap())
        .env(FOLDER, folder)
        .env(CHANGE, change)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    (text, output.status.success())
}

const FAIL: &str = "trap '' XFSZ;";
const DIE: &str = "";

#[test]
fn fs_01_a_write_error_leaves_the_old_state() {
    let folder = tempfile::tempdir().unwrap();
    fill(&mut *create(folder.path(), Engine::Exact), 0..20);
    let files = std::fs::read_dir(folder.path()).unwrap().count();
    let mut failures = 0;
    for blocks in 0.. {
        let (text, lived) = run(folder.path(), "add", blocks, FAIL);
        assert!(lived, "{blocks}: {text}");
        if text.contains("committed") {
            break;
        }
        failures += 1;
        assert!(
            text.contains("failed: ") && text.contains(&*folder.path().to_string_lossy()),
            "{text}"
        );
        assert_eq!(contents(&*open(folder.path())), expected(0..20), "{blocks}");
        assert_eq!(
            std::fs::read_dir(folder.path()).unwrap().count(),
            files,
            "{blocks}"
        );
    }
    assert!(failures > 5, "{failures}");
    assert_eq!(
        contents(&*open(folder.path())),
        expected((0..20).chain(300..500))
    );
}

#[test]
fn a_process_that_ends_at_any_byte_leaves_the_old_state() {
    let folder = tempfile::tempdir().unwrap();
    fill(&mut *create(folder.path(), Engine::Exact), 0..20);
    for blocks in 0.. {
        let (text, lived) = run(folder.path(), "add", blocks, DIE);
        if lived {
            assert!(text.contains("committed"), "{text}");
            break;
        }
        assert_eq!(contents(&*open(folder.path())), expected(0..20), "{blocks}");
    }
    assert_eq!(
        contents(&*open(folder.path())),
        expected((0..20).chain(300..500))
    );
}

#[cfg(feature = "plaid")]
#[test]
fn fs_01_maintenance_that_fails_leaves_the_old_state() {
    use lfm2_colbert::index::{Bits, LocalIndex};

    let folder = tempfile::tempdir().unwrap();
    fill(
        &mut *create(folder.path(), Engine::Plaid(Bits::Four)),
        0..300,
    );
    let documents = expected(0..300);
    let mut failures = 0;
    for blocks in (0..).step_by(3) {
        let die = if blocks % 2 == 0 { DIE } else { FAIL };
        let (text, lived) = run(folder.path(), "maintain", blocks, die);
        let options = OpenOptions::default().with_check(Check::Whole);
        let index = LocalIndex::open(folder.path(), &options).unwrap();
        assert_eq!(contents(&index), documents, "{blocks}");
        if lived && text.contains("committed") {
            assert_eq!(
                index.info().in_plaid,
                documents.values().filter(|v| !v.is_empty()).count()
            );
            break;
        }
        failures += 1;
        assert_eq!(index.info().in_plaid, 0, "{blocks}");
    }
    assert!(failures > 5, "{failures}");
}
