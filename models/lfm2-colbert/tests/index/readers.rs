//! Several look while one writes.

use std::sync::atomic::{AtomicBool, Ordering};

use lfm2_colbert::index::{
    Check, Engine, Index, IndexError, LocalIndex, Maintenance, OpenOptions, WriteOptions,
};

use crate::support::{
    DIM, Random, assert_hits, contents, create, expected, fill, name, open, top, view,
};

#[test]
fn a_reader_keeps_its_state_until_it_asks_for_a_new_one() {
    let folder = tempfile::tempdir().unwrap();
    let mut index = create(folder.path(), Engine::Exact);
    fill(&mut *index, 0..30);
    let mut reader = open(folder.path());
    let mut writer = index.writer(&WriteOptions::default()).unwrap();
    (0..20).for_each(|id| assert!(writer.delete(&name(id)).unwrap()));
    writer.commit().unwrap();
    drop(writer);
    index.maintain(Maintenance::Now).unwrap();
    let query = Random(2).vectors(3, DIM);
    let hits = reader.search(view(&query), &top(30)).unwrap();
    assert_hits(&hits, &query, &expected(0..30), 30);
    assert!(reader.refresh().unwrap());
    assert_eq!(contents(&*reader), expected(20..30));
    assert!(!reader.refresh().unwrap());
}

#[test]
fn one_writes_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let mut index = create(folder.path(), Engine::Exact);
    let mut other = open(folder.path());
    let writer = index.writer(&WriteOptions::default()).unwrap();
    let refused = other
        .writer(&WriteOptions::default())
        .map(|_| ())
        .unwrap_err();
    assert!(matches!(refused, IndexError::Busy { .. }), "{refused}");
    assert_eq!(refused.kind(), lfm2_hub::ErrorKind::Busy);
    assert!(matches!(
        other.maintain(Maintenance::Now),
        Err(IndexError::Busy { .. })
    ));
    drop(writer);
    // Whoever writes next builds on what the other one did.
    fill(&mut *index, 0..3);
    fill(&mut *other, 3..5);
    index.refresh().unwrap();
    assert_eq!(contents(&*index), expected(0..5));
}

#[test]
fn readers_never_see_half_of_a_change() {
    let folder = tempfile::tempdir().unwrap();
    let mut index = create(folder.path(), Engine::Exact);
    fill(&mut *index, 0..4);
    let done = AtomicBool::new(false);
    let look = || {
        let mut seen = 0;
        while !done.load(Ordering::Acquire) {
            let options = OpenOptions::default().with_check(Check::Whole);
            let reader = LocalIndex::open(folder.path(), &options).unwrap();
            let generation = reader.info().generation as usize;
            // Every other commit swaps four documents for the next four.
            let first = generation / 2 * 4;
            assert_eq!(
                contents(&reader),
                expected(first..first + 4),
                "{generation}"
            );
            seen += 1;
        }
        seen
    };
    std::thread::scope(|scope| {
        let readers = [scope.spawn(look), scope.spawn(look)];
        for round in 1..30 {
            let mut writer = index.writer(&WriteOptions::default()).unwrap();
            for id in (round - 1) * 4..round * 4 {
                writer.delete(&name(id)).unwrap();
                let (document, vectors) = crate::support::document(id + 4);
                writer.put(&document, view(&vectors)).unwrap();
            }
            writer.commit().unwrap();
            // One more generation with the same documents.
            writer.delete(&name(round * 4)).unwrap();
            let (document, vectors) = crate::support::document(round * 4);
            writer.put(&document, view(&vectors)).unwrap();
            writer.commit().unwrap();
        }
        done.store(true, Ordering::Release);
        let seen: usize = readers.into_iter().map(|r| r.join().unwrap()).sum();
        assert!(seen > 0);
    });
}
