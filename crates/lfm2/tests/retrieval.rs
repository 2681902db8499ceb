//! The built-in retrieval model from the front door: files in, answers out.
#![cfg(feature = "embedded")]
#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

use lfm2::retrieval::{self, Library, LibraryOptions, SearchOptions};

#[test]
fn files_are_searched_in_thirty_seconds() {
    let folder = tempfile::tempdir().unwrap();
    let docs = folder.path().join("docs");
    std::fs::create_dir(&docs).unwrap();
    for (name, text) in [
        (
            "bread.md",
            "# Bread\nMix flour, water and salt, and bake the dough in a hot oven.",
        ),
        (
            "garden.md",
            "# Garden\nWater the roses in the evening and cut them in spring.",
        ),
        (
            "boat.txt",
            "The boat has two sails and a small engine for the harbour.",
        ),
        (
            "letters.txt",
            "Put a stamp on the letter before it goes into the letter box.",
        ),
    ] {
        std::fs::write(docs.join(name), text).unwrap();
    }
    let model = retrieval::embedded().unwrap();
    let index = folder.path().join("x");
    let mut library = Library::create(&index, model, &LibraryOptions::default()).unwrap();
    let added = library.add_files(&[&docs]).unwrap();
    assert_eq!((added.new, added.chunks), (4, 4));
    for (question, expected) in [
        ("how do I bake dough in the oven?", "bread.md"),
        ("when should I water roses?", "garden.md"),
        ("how many sails does the boat have?", "boat.txt"),
        ("where does the stamp go on a letter?", "letters.txt"),
    ] {
        let answers = library.search(question, &SearchOptions::top(1)).unwrap();
        assert!(
            answers[0].document.ends_with(expected),
            "{question}: {answers:?}"
        );
    }
}

#[test]
fn the_built_in_model_is_the_one_in_the_folder() {
    let folder = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../models/lfm2-tiny-colbert"
    );
    let opened = retrieval::open(std::path::Path::new(folder)).unwrap();
    assert_eq!(retrieval::embedded().unwrap().id(), opened.id());
}
