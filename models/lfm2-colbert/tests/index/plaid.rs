//! The compressed form: it finds what is there, and keeps up with changes.

use std::collections::BTreeMap;
use std::path::Path;

use lfm2_colbert::index::{
    self, Bits, Check, Document, Engine, Filter, Index, Maintenance, OpenOptions, PlaidOptions,
    Scores, SearchOptions, WriteOptions,
};

use crate::support::{
    DIM, Random, assert_hits, contents, create, expected, fill, naive, name, open, top, view,
};

/// An index of documents `0..count` in compressed form.
fn built(folder: &Path, bits: Bits, count: usize) -> Box<dyn Index> {
    let mut index = create(folder, Engine::Plaid(bits));
    fill(&mut *index, 0..count);
    assert!(index.maintain(Maintenance::WhenDue).unwrap());
    let with_vectors = expected(0..count)
        .values()
        .filter(|v| !v.is_empty())
        .count();
    assert_eq!(index.info().in_plaid, with_vectors);
    index
}

/// The share of the best ten documents that are found, over some queries.
fn agreement(
    index: &dyn Index,
    documents: &BTreeMap<String, Vec<f32>>,
    options: &SearchOptions,
) -> f32 {
    let mut found = 0;
    for seed in 1000..1020 {
        let query = Random(seed).vectors(8, DIM);
        let best = naive(&query, documents, 10);
        let hits = index.search(view(&query), options).unwrap();
        assert_eq!(hits.len(), 10);
        assert!(hits.is_sorted_by(|a, b| a.score >= b.score));
        found += best
            .iter()
            .filter(|(id, _)| hits.iter().any(|h| h.document.id == *id))
            .count();
    }
    found as f32 / 200.0
}

fn compressed() -> SearchOptions {
    let mut plaid = PlaidOptions::default();
    plaid.scores = Scores::Compressed;
    top(10).with_plaid(plaid)
}

#[test]
fn the_best_documents_are_found() {
    for (bits, least) in [(Bits::Two, 0.6), (Bits::Four, 0.8)] {
        let folder = tempfile::tempdir().unwrap();
        let index = built(folder.path(), bits, 600);
        let documents = expected(0..600);
        let stored = agreement(&*index, &documents, &top(10));
        assert!(stored > 0.97, "{bits:?}: {stored}");
        let compressed = agreement(&*index, &documents, &compressed());
        assert!(compressed > least, "{bits:?}: {compressed}");
        let reopened = open(folder.path());
        assert_eq!(agreement(&*reopened, &documents, &top(10)), stored);
        assert_eq!(contents(&*reopened), documents);
    }
}

#[test]
fn scores_are_those_of_the_exact_engine() {
    let folder = tempfile::tempdir().unwrap();
    let index = built(folder.path(), Bits::Two, 300);
    let all: BTreeMap<_, _> = expected(0..300);
    let query = Random(77).vectors(8, DIM);
    let exact: BTreeMap<_, _> = naive(&query, &all, 300).into_iter().collect();
    for hit in index.search(view(&query), &top(20)).unwrap() {
        assert!((hit.score - exact[&hit.document.id]).abs() < 1e-4);
    }
    // More than there are candidates for: all documents, as the exact engine has them.
    let hits = index.search(view(&query), &top(1000)).unwrap();
    assert_hits(&hits, &query, &all, 1000);
}

#[test]
fn documents_that_come_and_go_are_seen_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut index = built(folder.path(), Bits::Four, 300);
    let plaid_bytes = index.info().plaid_bytes;
    let mut writer = index.writer(&WriteOptions::default()).unwrap();
    (0..20).for_each(|id| assert!(writer.delete(&name(id)).unwrap()));
    writer.commit().unwrap();
    drop(writer);
    fill(&mut *index, 300..320);
    let documents = expected(20..320);
    for index in [&*index, &*open(folder.path())] {
        assert!(agreement(index, &documents, &top(10)) > 0.97);
        assert!(agreement(index, &documents, &compressed()) > 0.8);
        assert_eq!(index.info().plaid_bytes, plaid_bytes);
    }
    assert!(
        !index.maintain(Maintenance::WhenDue).unwrap(),
        "too little has changed"
    );
    fill(&mut *index, 320..380);
    assert!(index.maintain(Maintenance::WhenDue).unwrap());
    let documents = expected(20..380);
    let info = index.info();
    // The deleted ones are too few to write the others anew.
    assert_eq!((info.deleted, info.documents), (20, 360));
    let with_vectors = expected(0..380).values().filter(|v| !v.is_empty()).count();
    assert_eq!(info.in_plaid, with_vectors);
    assert!(agreement(&*index, &documents, &top(10)) > 0.97);
    let folders = std::fs::read_dir(folder.path()).unwrap();
    let folders = folders
        .filter(|f| f.as_ref().unwrap().path().is_dir())
        .count();
    assert_eq!(folders, 1, "the old one is gone");
}

#[test]
fn filters_narrow_the_search_not_the_result() {
    let folder = tempfile::tempdir().unwrap();
    let index = built(folder.path(), Bits::Four, 600);
    let documents = expected((0..600).filter(|id| id % 3 == 2));
    let filter: Filter = "kind = 2".parse().unwrap();
    assert!(agreement(&*index, &documents, &top(10).with_filter(filter.clone())) > 0.97);
    assert!(agreement(&*index, &documents, &compressed().with_filter(filter)) > 0.8);
    let few: Filter = "id in [\"document 5\", \"document 8\"]".parse().unwrap();
    let query = Random(4).vectors(2, DIM);
    let hits = index
        .search(view(&query), &top(10).with_filter(few))
        .unwrap();
    assert_hits(&hits, &query, &expected([5, 8]), 10);
}

#[test]
fn small_indexes_and_the_exact_engine_have_no_compressed_form() {
    for (engine, count) in [
        (Engine::Plaid(Bits::Four), 100),
        (Engine::Exact, 400),
        (Engine::Auto, 400),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let mut index = create(folder.path(), engine);
        fill(&mut *index, 0..count);
        assert!(!index.maintain(Maintenance::WhenDue).unwrap(), "{engine:?}");
        assert!(!index.maintain(Maintenance::Now).unwrap(), "{engine:?}");
        let query = Random(8).vectors(4, DIM);
        let hits = index.search(view(&query), &top(10)).unwrap();
        assert_hits(&hits, &query, &expected(0..count), 10);
    }
}

#[test]
fn an_engine_can_be_changed_without_the_documents() {
    let folder = tempfile::tempdir().unwrap();
    let mut index = create(folder.path(), Engine::Exact);
    fill(&mut *index, 0..300);
    assert!(!index.maintain(Maintenance::Now).unwrap());
    let mut bytes = Vec::new();
    for bits in [Bits::Two, Bits::Four] {
        index.set_engine(Engine::Plaid(bits)).unwrap();
        assert!(index.maintain(Maintenance::WhenDue).unwrap());
        assert!(!index.maintain(Maintenance::WhenDue).unwrap());
        bytes.push(index.info().plaid_bytes);
    }
    assert!(bytes[0] < bytes[1]);
    index.set_engine(Engine::Exact).unwrap();
    assert_eq!((index.info().plaid_bytes, index.info().in_plaid), (0, 0));
    let query = Random(8).vectors(4, DIM);
    let hits = open(folder.path()).search(view(&query), &top(10)).unwrap();
    assert_hits(&hits, &query, &expected(0..300), 10);
}

#[test]
fn many_documents_are_compressed_by_themselves() {
    let folder = tempfile::tempdir().unwrap();
    let mut index = create(folder.path(), Engine::Auto);
    let mut writer = index.writer(&WriteOptions::default()).unwrap();
    for id in 0..10_000 {
        let vectors = Random(id).vectors(1, DIM);
        writer
            .put(&Document::new(format!("{id}")), view(&vectors))
            .unwrap();
    }
    writer.commit().unwrap();
    drop(writer);
    assert!(index.maintain(Maintenance::WhenDue).unwrap());
    assert_eq!(index.info().in_plaid, 10_000);
    let query = Random(123).vectors(1, DIM);
    let hits = index.search(view(&query), &top(3)).unwrap();
    assert_eq!(hits[0].document.id, "123");
}

#[test]
fn dimensions_that_fill_no_bytes_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let create = |dim, bits| {
        let options = index::CreateOptions::new("m", dim).with_engine(Engine::Plaid(bits));
        index::create(&folder.path().join(format!("{dim}{bits:?}")), &options)
    };
    assert!(create(6, Bits::Two).is_err() && create(7, Bits::Four).is_err());
    assert!(create(4, Bits::Two).is_ok() && create(6, Bits::Four).is_ok());
}

#[test]
fn a_copy_of_an_index_is_an_index() {
    let folder = tempfile::tempdir().unwrap();
    drop(built(folder.path(), Bits::Four, 300));
    let copy = tempfile::tempdir().unwrap();
    copy_folder(folder.path(), copy.path());
    for _ in 0..2 {
        let index = open(copy.path());
        assert!(agreement(&*index, &expected(0..300), &top(10)) > 0.97);
    }
}

fn copy_folder(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            std::fs::create_dir(&target).unwrap();
            copy_folder(&path, &target);
        } else {
            // Read and written, so that it is as old as it looks.
            std::fs::write(&target, std::fs::read(&path).unwrap()).unwrap();
        }
    }
}

#[test]
fn cb_02_damage_of_the_compressed_form_is_named() {
    let folder = tempfile::tempdir().unwrap();
    drop(built(folder.path(), Bits::Two, 260));
    let inner = folder.path().join("plaid-000002");
    let open = |check| index::open(folder.path(), &OpenOptions::default().with_check(check));
    let mut count = 0;
    for entry in std::fs::read_dir(&inner).unwrap() {
        let file = entry.unwrap().path();
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        if name.ends_with(".manifest.json") || name.ends_with(".lock") {
            continue;
        }
        count += 1;
        let bytes = std::fs::read(&file).unwrap();
        let mut changed = bytes.clone();
        changed[bytes.len() / 2] ^= 4;
        std::fs::write(&file, changed).unwrap();
        let error = open(Check::Whole).unwrap_err().to_string();
        assert!(
            error.contains(&name) && error.contains("checksum"),
            "{error}"
        );
        std::fs::write(&file, &bytes[..bytes.len() - 1]).unwrap();
        let error = open(Check::Lengths).unwrap_err().to_string();
        assert!(error.contains(&name), "{error}");
        std::fs::write(&file, &bytes).unwrap();
    }
    assert!(count > 8, "{count}");
    open(Check::Whole).unwrap();
    std::fs::remove_dir_all(&inner).unwrap();
    assert!(open(Check::Lengths).is_err());
}
