//! Changing an index: any order of changes leads to what they say.

use std::collections::BTreeMap;

use lfm2_colbert::index::{
    self, CreateOptions, Document, Duplicates, Engine, Index, Maintenance, OpenOptions,
    WriteOptions,
};
use proptest::prelude::*;

use crate::support::{
    DIM, Random, assert_hits, contents, create, document, expected, fill, name, open, top, view,
};

/// A step of somebody who changes an index.
#[derive(Debug, Clone)]
enum Step {
    /// Vectors that follow from the second number.
    Put(usize, u64),
    Delete(usize),
    Commit,
    /// Forgets what is not committed.
    Drop,
    Maintain(Maintenance),
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0_usize..12, any::<u64>()).prop_map(|(id, seed)| Step::Put(id, seed)),
        3 => (0_usize..12).prop_map(Step::Delete),
        2 => Just(Step::Commit),
        1 => Just(Step::Drop),
        1 => Just(Step::Maintain(Maintenance::Now)),
        1 => Just(Step::Maintain(Maintenance::WhenDue)),
        1 => Just(Step::Reopen),
    ];
    prop::collection::vec(step, 0..25)
}

/// Steps between two commits, on the index and on a map.
fn run(index: &mut dyn Index, map: &mut BTreeMap<String, Vec<f32>>, steps: &[Step], commit: bool) {
    let options = WriteOptions::default().with_duplicates(Duplicates::Replace);
    let mut writer = index.writer(&options).unwrap();
    let mut changed = map.clone();
    for step in steps {
        match step {
            Step::Put(id, seed) => {
                let vectors = Random(*seed).vectors(*seed as usize % 4, DIM);
                writer
                    .put(&Document::new(name(*id)), view(&vectors))
                    .unwrap();
                changed.insert(name(*id), vectors);
            }
            Step::Delete(id) => {
                let there = changed.remove(&name(*id)).is_some();
                assert_eq!(writer.contains(&name(*id)), there);
                assert_eq!(writer.delete(&name(*id)).unwrap(), there);
            }
            _ => unreachable!("only changes come here"),
        }
    }
    if commit {
        writer.commit().unwrap();
        *map = changed;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    #[test]
    fn any_order_of_changes_gives_what_a_map_would(steps in steps()) {
        let folder = tempfile::tempdir().unwrap();
        let mut index = create(folder.path(), Engine::Exact);
        let mut map = BTreeMap::new();
        let mut open_steps = Vec::new();
        for step in steps {
            match step {
                Step::Put(..) | Step::Delete(_) => {
                    open_steps.push(step);
                    continue;
                }
                Step::Commit => run(&mut *index, &mut map, &open_steps, true),
                Step::Drop => run(&mut *index, &mut map, &open_steps, false),
                Step::Maintain(when) => { index.maintain(when).unwrap(); }
                Step::Reopen => index = open(folder.path()),
            }
            if matches!(step, Step::Commit | Step::Drop) {
                open_steps.clear();
            }
            prop_assert_eq!(&contents(&*index), &map);
        }
        let query = Random(5).vectors(3, DIM);
        assert_hits(&index.search(view(&query), &top(5)).unwrap(), &query, &map, 5);
        let info = index.info();
        prop_assert_eq!(info.documents, map.len());
        prop_assert_eq!(info.vectors, map.values().map(|v| v.len() / DIM).sum::<usize>());
    }
}

#[test]
fn what_is_not_committed_leaves_no_trace() {
    let folder = tempfile::tempdir().unwrap();
    let mut index = create(folder.path(), Engine::Exact);
    fill(&mut *index, 0..5);
    let files = || std::fs::read_dir(folder.path()).unwrap().count();
    let before = files();
    let mut writer = index.writer(&WriteOptions::default()).unwrap();
    writer.put(&Document::new("new"), view(&[])).unwrap();
    writer.delete(&name(0)).unwrap();
    drop(writer);
    assert_eq!((files(), contents(&*index)), (before, expected(0..5)));
    let generation = index.info().generation;
    let mut writer = index.writer(&WriteOptions::default()).unwrap();
    assert_eq!(writer.commit().unwrap(), generation, "nothing changed");
}

#[test]
fn a_writer_can_commit_again_and_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut index = create(folder.path(), Engine::Exact);
    let mut writer = index.writer(&WriteOptions::default()).unwrap();
    for id in 0..4 {
        let (document, vectors) = document(id);
        writer.put(&document, view(&vectors)).unwrap();
        assert_eq!(writer.commit().unwrap(), id as u64 + 1);
        assert_eq!(
            contents(&*open(folder.path())),
            expected(0..=id),
            "a build goes on from here"
        );
        assert!(writer.contains(&name(id)));
    }
    writer.delete(&name(2)).unwrap();
    writer.commit().unwrap();
    drop(writer);
    assert_eq!(contents(&*index), expected([0, 1, 3]));
}

#[test]
fn a_writer_knows_its_documents_after_each_commit() {
    let folder = tempfile::tempdir().unwrap();
    let mut index = create(folder.path(), Engine::Exact);
    let options = WriteOptions::default().with_duplicates(Duplicates::Replace);
    let mut writer = index.writer(&options).unwrap();
    let mut map = BTreeMap::new();
    let mut random = Random(4);
    for step in 0..200 {
        let id = name((random.next() * 1000.0).abs() as usize % 9);
        if random.next() > 0.2 {
            assert_eq!(writer.delete(&id).unwrap(), map.remove(&id).is_some());
        } else {
            let vectors = random.vectors(step % 3, DIM);
            writer.put(&Document::new(&*id), view(&vectors)).unwrap();
            map.insert(id, vectors);
        }
        if step % 4 == 0 {
            writer.commit().unwrap();
        }
        (0..9).for_each(|id| assert_eq!(writer.contains(&name(id)), map.contains_key(&name(id))));
    }
    writer.commit().unwrap();
    drop(writer);
    assert_eq!(contents(&*index), map);
    assert_eq!(contents(&*open(folder.path())), map);
}

#[test]
fn maintenance_gives_room_back() {
    let folder = tempfile::tempdir().unwrap();
    let mut index = create(folder.path(), Engine::Exact);
    for id in 0..20 {
        fill(&mut *index, [id]);
    }
    assert!(
        index.maintain(Maintenance::WhenDue).unwrap(),
        "many small segments"
    );
    assert_eq!(
        (index.info().segments, contents(&*index)),
        (1, expected(0..20))
    );
    assert!(!index.maintain(Maintenance::WhenDue).unwrap());
    assert!(!index.maintain(Maintenance::Now).unwrap());
    let mut writer = index.writer(&WriteOptions::default()).unwrap();
    for id in 0..3 {
        assert!(writer.delete(&name(id)).unwrap() && !writer.delete(&name(id)).unwrap());
    }
    writer.commit().unwrap();
    drop(writer);
    assert!(
        !index.maintain(Maintenance::WhenDue).unwrap(),
        "too little to gain"
    );
    assert_eq!(index.info().deleted, 3);
    assert!(index.maintain(Maintenance::Now).unwrap());
    assert_eq!(
        (index.info().deleted, contents(&*index)),
        (0, expected(3..20))
    );
    let mut writer = index.writer(&WriteOptions::default()).unwrap();
    (3..20).for_each(|id| assert!(writer.delete(&name(id)).unwrap()));
    writer.commit().unwrap();
    drop(writer);
    let info = index.info();
    assert_eq!((info.documents, info.segments, info.vectors), (0, 0, 0));
    // The manifest and the lock.
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
}

#[test]
fn fs_02_an_index_is_not_made_over_anything() {
    let folder = tempfile::tempdir().unwrap();
    create(folder.path(), Engine::Exact);
    let options = CreateOptions::new("model", DIM);
    let error = index::create(folder.path(), &options).unwrap_err();
    assert!(
        error.to_string().ends_with("there is an index already"),
        "{error}"
    );
    let other = tempfile::tempdir().unwrap();
    std::fs::write(other.path().join("notes.txt"), "x").unwrap();
    let error = index::create(other.path(), &options).unwrap_err();
    assert!(
        error.to_string().ends_with("the folder is not empty"),
        "{error}"
    );
    assert!(index::create(&other.path().join("notes.txt"), &options).is_err());
    // What a killed process leaves of a folder that never was an index is no hindrance.
    let third = tempfile::tempdir().unwrap();
    std::fs::write(third.path().join(".lfm2-abc.tmp"), "{").unwrap();
    std::fs::write(third.path().join("writer.lock"), "").unwrap();
    index::create(third.path(), &options).unwrap();
    assert!(index::exists(third.path()) && !index::exists(other.path()));
    assert!(index::create(&third.path().join("x"), &CreateOptions::new("model", 0)).is_err());
}

#[test]
fn another_models_index_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    create(folder.path(), Engine::Exact);
    let error = index::open(folder.path(), &OpenOptions::default().for_model("other")).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("built with model model, expected other"),
        "{error}"
    );
    let missing = index::open(&folder.path().join("no"), &OpenOptions::default()).unwrap_err();
    assert_eq!(missing.kind(), lfm2_hub::ErrorKind::NotFound);
}
