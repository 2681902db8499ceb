//! Searching an exact index.

use lfm2_colbert::index::{
    Document, Duplicates, Engine, Index, IndexError, Location, Put, WriteOptions,
};
use lfm2_kernels::MatRef;

use crate::support::{
    DIM, Random, assert_hits, contents, create, document, expected, fill, name, open, top, view,
};

#[test]
fn the_best_documents_come_first_whatever_k() {
    let folder = tempfile::tempdir().unwrap();
    let mut index = create(folder.path(), Engine::Exact);
    fill(&mut *index, 0..40);
    fill(&mut *index, 40..75);
    let query = Random(99).vectors(5, DIM);
    for k in [1, 7, 75, 76, 10_000] {
        let hits = index.search(view(&query), &top(k)).unwrap();
        assert_hits(&hits, &query, &expected(0..75), k);
    }
    assert!(index.search(view(&query), &top(0)).unwrap().is_empty());
    assert_eq!(contents(&*open(folder.path())), expected(0..75));
}

#[test]
fn equals_are_in_the_order_of_the_index() {
    let folder = tempfile::tempdir().unwrap();
    let mut index = create(folder.path(), Engine::Auto);
    let vectors = Random(1).vectors(2, DIM);
    for ids in [["z", "a"], ["m", "b"]] {
        let mut writer = index.writer(&WriteOptions::default()).unwrap();
        for id in ids {
            writer.put(&Document::new(id), view(&vectors)).unwrap();
        }
        writer.commit().unwrap();
    }
    let found = index.search(view(&vectors), &top(3)).unwrap();
    let ids: Vec<_> = found.iter().map(|hit| hit.document.id.as_str()).collect();
    assert_eq!(ids, ["z", "a", "m"]);
}

#[test]
fn filters_leave_the_order_of_the_rest_alone() {
    let folder = tempfile::tempdir().unwrap();
    let mut index = create(folder.path(), Engine::Exact);
    fill(&mut *index, 0..60);
    let query = Random(3).vectors(4, DIM);
    let options = top(12).with_filter("kind = 1".parse().unwrap());
    for _ in 0..2 {
        let hits = index.search(view(&query), &options).unwrap();
        assert_hits(
            &hits,
            &query,
            &expected((0..60).filter(|id| id % 3 == 1)),
            12,
        );
    }
    let none = top(12).with_filter("kind = 7".parse().unwrap());
    assert!(index.search(view(&query), &none).unwrap().is_empty());
    // A filter that was used before sees later changes.
    fill(&mut *index, 60..70);
    let hits = index.search(view(&query), &options).unwrap();
    assert_hits(
        &hits,
        &query,
        &expected((0..70).filter(|id| id % 3 == 1)),
        12,
    );
}

#[test]
fn cb_01_nothing_on_either_side_is_defined() {
    let folder = tempfile::tempdir().unwrap();
    let mut index = create(folder.path(), Engine::Auto);
    let query = Random(3).vectors(4, DIM);
    assert!(index.search(view(&query), &top(5)).unwrap().is_empty());
    assert!(index.ids().unwrap().is_empty());
    let mut writer = index.writer(&WriteOptions::default()).unwrap();
    writer
        .put(&Document::new("only punctuation"), view(&[]))
        .unwrap();
    writer.commit().unwrap();
    drop(writer);
    let hits = index.search(view(&query), &top(5)).unwrap();
    assert_eq!((hits.len(), hits[0].score), (1, 0.0));
    assert_eq!(index.search(view(&[]), &top(5)).unwrap()[0].score, 0.0);
    assert_eq!(
        index.vectors("only punctuation").unwrap().unwrap().rows(),
        0
    );
}

#[test]
fn everything_of_a_document_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let mut index = create(folder.path(), Engine::Exact);
    let document = Document::new("ä#1\n")
        .with_title("\"title\"")
        .with_text("text\u{0}\u{2028}")
        .with_field("list", serde_json::json!([1, {"a": null}]))
        .with_location(Location {
            path: "a b/ü.md".to_owned(),
            start: 3,
            end: 1 << 40,
        });
    let vectors = Random(1).vectors(2, DIM);
    let mut writer = index.writer(&WriteOptions::default()).unwrap();
    writer.put(&document, view(&vectors)).unwrap();
    writer.commit().unwrap();
    drop(writer);
    assert_eq!(index.document("ä#1\n").unwrap(), Some(document));
    let stored = index.vectors("ä#1\n").unwrap().unwrap();
    assert_eq!(stored.view().unwrap().row(1), &vectors[DIM..]);
    assert_eq!(index.document("other").unwrap(), None);
    assert_eq!(index.vectors("other").unwrap(), None);
}

#[test]
fn an_id_that_is_there_is_refused_replaced_or_kept() {
    let folder = tempfile::tempdir().unwrap();
    let mut index = create(folder.path(), Engine::Exact);
    fill(&mut *index, 0..3);
    let (other, vectors) = (
        Document::new(name(1)).with_title("new"),
        Random(7).vectors(3, DIM),
    );
    let put = |index: &mut dyn Index, duplicates| {
        let options = WriteOptions::default().with_duplicates(duplicates);
        let mut writer = index.writer(&options).unwrap();
        assert!(writer.contains(&name(1)) && !writer.contains("new"));
        let first = writer.put(&other, view(&vectors));
        // The same again within one change.
        let twice = writer
            .put(&document(9).0, view(&[]))
            .and_then(|_| writer.put(&document(9).0, view(&[])));
        writer.commit().unwrap();
        (first, twice)
    };
    let (first, twice) = put(&mut *index, Duplicates::Refuse);
    assert!(matches!(first, Err(IndexError::Duplicate { id }) if id == name(1)));
    assert!(matches!(twice, Err(IndexError::Duplicate { .. })));
    assert_eq!(index.document(&name(1)).unwrap().unwrap().title, None);
    let (first, twice) = put(&mut *index, Duplicates::Keep);
    assert_eq!((first.unwrap(), twice.unwrap()), (Put::Kept, Put::Kept));
    assert_eq!(index.info().documents, 4);
    let (first, twice) = put(&mut *index, Duplicates::Replace);
    assert_eq!(
        (first.unwrap(), twice.unwrap()),
        (Put::Replaced, Put::Replaced)
    );
    assert_eq!(index.info().documents, 4);
    assert_eq!(
        index.document(&name(1)).unwrap().unwrap().title.as_deref(),
        Some("new")
    );
    assert_eq!(
        index.vectors(&name(1)).unwrap().unwrap().as_slice(),
        vectors
    );
}

#[test]
fn vectors_that_make_no_sense_are_refused_and_the_writer_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut index = create(folder.path(), Engine::Exact);
    let mut writer = index.writer(&WriteOptions::default()).unwrap();
    let mut vectors = Random(1).vectors(3, DIM);
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 7e4] {
        vectors[DIM + 2] = bad;
        let error = writer
            .put(&Document::new("bad"), view(&vectors))
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "vectors of document \"bad\": row 1 has a value that is not finite"
        );
    }
    let wide = MatRef::new(&[0.5; 9], 1, 9).unwrap();
    let error = writer.put(&Document::new("wide"), wide).unwrap_err();
    assert_eq!(
        error.to_string(),
        "vectors of document \"wide\": expected 8 dimensions, found 9"
    );
    assert!(writer.put(&Document::new(""), view(&[])).is_err());
    assert!(
        writer
            .put(&Document::new("x".repeat(5000)), view(&[]))
            .is_err()
    );
    writer
        .put(&Document::new("good"), view(&vectors[..DIM]))
        .unwrap();
    writer.commit().unwrap();
    drop(writer);
    assert_eq!(index.ids().unwrap(), ["good"]);
    vectors[0] = f32::NAN;
    let error = index.search(view(&vectors), &top(1)).unwrap_err();
    assert!(error.to_string().starts_with("vectors of the query: row 0"));
    assert!(index.search(wide, &top(1)).is_err());
}
