//! Models that give only some dimensions.
#![allow(clippy::unwrap_used)] // also in the helpers of tests

mod support;

use std::path::{Path, PathBuf};

use lfm2_colbert::{ColbertModel, write_pruned};
use lfm2_hub::{Checkpoint, ErrorKind, Limits, OpenOptions};
use lfm2_text::LoadOptions;
use support::{Recipe, Sight, difference};

const KEPT: [usize; 3] = [4, 0, 2];

fn tiny() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/two-dense-tiny")
}

fn open(folder: &Path) -> Checkpoint {
    Checkpoint::open(&folder.into(), &OpenOptions::default()).unwrap()
}

fn model(checkpoint: &Checkpoint) -> ColbertModel {
    ColbertModel::from_checkpoint(checkpoint, &LoadOptions::default()).unwrap()
}

#[track_caller]
fn assert_pruned(whole: &ColbertModel, folder: &Path) {
    let pruned = model(&open(folder));
    assert_eq!(pruned.dim(), KEPT.len());
    assert_ne!(pruned.id(), whole.id());
    for text in ["some words of a text", "others"] {
        let expected = whole
            .encode_query(text)
            .unwrap()
            .keep_dimensions(&KEPT)
            .unwrap();
        let found = pruned.encode_query(text).unwrap();
        let off = difference(found.as_slice(), expected.as_slice());
        assert!(off < 1e-5, "{text}: {off}");
    }
}

#[test]
fn a_pruned_folder_is_a_model_of_the_kept_dimensions() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("new/pruned");
    let checkpoint = open(&tiny());
    write_pruned(&checkpoint, &KEPT, &out).unwrap();
    assert_pruned(&model(&checkpoint), &out);
    let record: serde_json::Value =
        serde_json::from_slice(&std::fs::read(out.join("pruned.json")).unwrap()).unwrap();
    assert_eq!(record["kept"], serde_json::json!(KEPT));
    // Once more over it, and once more from what is pruned already.
    write_pruned(&checkpoint, &KEPT, &out).unwrap();
    assert_pruned(&model(&checkpoint), &out);
    write_pruned(&open(&out), &[1], &folder.path().join("one")).unwrap();
    assert_eq!(model(&open(&folder.path().join("one"))).dim(), 1);
}

#[test]
fn a_model_in_memory_is_written_whole() {
    let folder = tempfile::tempdir().unwrap();
    let files = Recipe::new(Sight::Both, 3).files();
    let checkpoint = Checkpoint::from_memory("memory", files, &Limits::default()).unwrap();
    write_pruned(&checkpoint, &KEPT, folder.path()).unwrap();
    assert_pruned(&model(&checkpoint), folder.path());
}

#[test]
fn what_cannot_be_pruned_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let error = write_pruned(&open(&tiny()), &[9999], folder.path()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains("9999"), "{error}");
    assert_eq!(
        std::fs::read_dir(folder.path()).unwrap().count(),
        0,
        "nothing is begun"
    );
    let stories = Path::new(env!("CARGO_MANIFEST_DIR")).join("../lfm2-tiny-stories");
    let error = write_pruned(&open(&stories), &KEPT, folder.path()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}
