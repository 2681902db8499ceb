//! A library of texts: what is added is found, changed, deleted, and survives interruptions.
#![allow(clippy::unwrap_used)] // also in the helpers of tests

mod support;

use std::ops::ControlFlow;
use std::path::Path;

use lfm2_colbert::index::{Engine, SearchOptions};
use lfm2_colbert::{
    Added, Found, Library, LibraryCard, LibraryOptions, RetrievalModel, TextDocument,
};
use support::{Recipe, Sight};

fn model(seed: u64) -> RetrievalModel {
    let recipe = Recipe {
        seed,
        ..Recipe::new(Sight::Both, 3)
    };
    RetrievalModel::LateInteraction(recipe.model())
}

fn create(folder: &Path) -> Library {
    Library::create(folder, model(1), &LibraryOptions::default()).unwrap()
}

/// Texts that take several chunks each, all different.
fn texts(count: usize) -> Vec<TextDocument> {
    let text = |n: usize| {
        let words = |m: usize| format!("sentence {m} of text {n} says {}. ", n * 7 + m);
        (0..4).map(words).collect::<String>()
    };
    (0..count)
        .map(|n| TextDocument::new(format!("doc{n}"), format!("T{n}"), text(n)))
        .collect()
}

fn add(library: &mut Library, documents: Vec<TextDocument>) -> Added {
    let documents = documents
        .into_iter()
        .map(|document| Ok(Found::from(document)));
    library
        .add(documents, |_| ControlFlow::Continue(()))
        .unwrap()
}

/// Ids with texts of everything, and ids with scores of what a question finds.
type Contents = (Vec<(String, String)>, Vec<(String, f32)>);

fn contents(library: &Library) -> Contents {
    let mut ids = library.index().ids().unwrap();
    ids.sort();
    let text = |id: &String| library.index().document(id).unwrap().unwrap().text.unwrap();
    let texts = ids.iter().map(|id| (id.clone(), text(id))).collect();
    let mut found: Vec<_> = library
        .search("text 2", &SearchOptions::top(1000))
        .unwrap()
        .into_iter()
        .map(|answer| (answer.id, answer.score))
        .collect();
    found.sort_by(|a, b| a.0.cmp(&b.0));
    (texts, found)
}

#[test]
fn what_is_added_is_found_with_everything_that_was_said_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut library = create(folder.path());
    let mut lines = vec![
        TextDocument::new("7", "A title", "apples are red"),
        TextDocument::markdown("m/a.md", "# Manual\nintro\n## Pears\npears are green"),
    ];
    lines[0].fields.insert("year".into(), 1958.into());
    let added = add(&mut library, lines);
    assert_eq!((added.new, added.chunks, added.empty), (2, 3, 0));
    let answers = library.search("pears?", &SearchOptions::top(9)).unwrap();
    assert_eq!(answers.len(), 3);
    assert!(
        answers
            .windows(2)
            .all(|pair| pair[0].score >= pair[1].score)
    );
    let answer = |id: &str| answers.iter().find(|answer| answer.id == id).unwrap();
    let pears = answer("m/a.md#1");
    assert_eq!((pears.document.as_str(), pears.line), ("m/a.md", Some(4)));
    assert_eq!(pears.passage(), "Manual\nPears\npears are green");
    let apples = answer("7#0");
    assert_eq!(
        (apples.title.as_str(), apples.text.as_str()),
        ("A title", "apples are red")
    );
    assert_eq!(
        serde_json::to_string(&apples.fields).unwrap(),
        "{\"year\":1958}"
    );
    let filter = SearchOptions::top(9).with_filter("year = 1958".parse().unwrap());
    assert_eq!(library.search("pears?", &filter).unwrap().len(), 1);
    let filter =
        SearchOptions::top(9).with_filter("heading = Pears and path ^= m/".parse().unwrap());
    assert_eq!(library.search("apples", &filter).unwrap()[0].id, "m/a.md#1");
}

#[test]
fn adding_again_encodes_only_what_has_changed() {
    let folder = tempfile::tempdir().unwrap();
    let mut library = create(folder.path());
    let first = add(&mut library, texts(5));
    assert_eq!(first.new, 5);
    assert!(first.chunks > 10, "{first:?}");
    let again = add(&mut library, texts(5));
    assert_eq!((again.unchanged, again.new, again.chunks), (5, 0, 0));

    let mut changed = texts(6);
    changed[1].text = "short now".into();
    changed[2].title = "other".into();
    changed[3].text = "  ".into();
    let added = add(&mut library, changed.clone());
    assert_eq!(
        (added.new, added.changed, added.empty, added.unchanged),
        (1, 2, 1, 2)
    );
    let fresh = tempfile::tempdir().unwrap();
    let mut whole = create(fresh.path());
    add(&mut whole, changed);
    assert_eq!(contents(&library), contents(&whole));
}

#[test]
fn work_that_is_stopped_goes_on_where_it_was() {
    let fresh = tempfile::tempdir().unwrap();
    let mut whole = create(fresh.path());
    let all = add(&mut whole, texts(40));
    for stop_after in [0, 1, 64, 128] {
        let folder = tempfile::tempdir().unwrap();
        let mut library = create(folder.path());
        let documents = texts(40).into_iter().map(|document| Ok(document.into()));
        let stopped = library
            .add(documents, |added| match added.chunks >= stop_after {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            })
            .unwrap();
        assert!(
            stopped.stopped && stopped.chunks < all.chunks,
            "{stopped:?}"
        );
        drop(library);
        let mut library = Library::open(folder.path(), model(1)).unwrap();
        let rest = add(&mut library, texts(40));
        assert!(rest.chunks + stopped.chunks >= all.chunks, "{rest:?}");
        assert!(stop_after == 0 || rest.chunks < all.chunks, "{rest:?}");
        assert_eq!(contents(&library), contents(&whole));
    }
}

#[test]
fn an_error_keeps_what_was_complete() {
    let folder = tempfile::tempdir().unwrap();
    let mut library = create(folder.path());
    let broken = std::iter::once_with(|| {
        let missing = lfm2_colbert::Collection::open(Path::new("nowhere"));
        Err(missing.unwrap_err())
    });
    let documents = texts(30).into_iter().map(|document| Ok(document.into()));
    let outcome = library.add(documents.chain(broken), |_| ControlFlow::Continue(()));
    assert!(outcome.is_err());
    let kept = library.info().documents;
    assert!(kept > 0);
    let rest = add(&mut library, texts(30));
    assert!(rest.unchanged > 0 && rest.new > 0, "{rest:?}");
}

#[test]
fn an_id_that_comes_twice_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let mut library = create(folder.path());
    let twice = [texts(1), texts(1)].concat();
    let documents = twice.into_iter().map(|document| Ok(document.into()));
    let error = library
        .add(documents, |_| ControlFlow::Continue(()))
        .unwrap_err();
    assert_eq!(error.to_string(), "document \"doc0\" comes twice");
}

#[test]
fn cb_01_documents_without_vectors_are_defined() {
    let folder = tempfile::tempdir().unwrap();
    let mut library = create(folder.path());
    let documents = vec![
        TextDocument::new("empty", "Title", ""),
        TextDocument::new("blank", "", " \n "),
        TextDocument::new("marks", "", "?!... ,,, --- ;"),
        TextDocument::new("word", "", "word"),
    ];
    let added = add(&mut library, documents);
    assert_eq!((added.new, added.empty), (2, 2));
    // Beginning and prefix are kept, so even marks alone have vectors.
    let answers = library.search("word", &SearchOptions::top(100)).unwrap();
    assert_eq!(answers.len(), 2);
    for question in ["", "  \n"] {
        let error = library
            .search(question, &SearchOptions::top(3))
            .unwrap_err();
        assert_eq!(error.to_string(), "the question is empty");
    }
    assert_eq!(
        library.search("?!", &SearchOptions::top(3)).unwrap().len(),
        2
    );
    let long = "word ".repeat(200);
    assert!(library.encode(&long).unwrap().is_cut());
}

#[test]
fn no_documents_and_more_hits_than_documents_are_no_error() {
    let folder = tempfile::tempdir().unwrap();
    let mut library = create(folder.path());
    assert!(
        library
            .search("anything", &SearchOptions::top(5))
            .unwrap()
            .is_empty()
    );
    assert_eq!(add(&mut library, Vec::new()), Added::default());
    add(&mut library, vec![TextDocument::new("a", "", "one")]);
    let found = library
        .search("anything", &SearchOptions::top(1_000_000))
        .unwrap();
    assert_eq!(found.len(), 1);
}

#[test]
fn documents_are_deleted_whole() {
    let folder = tempfile::tempdir().unwrap();
    let mut library = create(folder.path());
    add(&mut library, texts(3));
    let before = library.info().documents;
    let counts = library.delete(&["doc1", "nothing", "doc1#0"]).unwrap();
    assert!(counts[0] > 1);
    assert_eq!(counts[1..], [0, 0]);
    assert_eq!(library.info().documents, before - counts[0]);
    let found = library.search("text 1", &SearchOptions::top(1000)).unwrap();
    assert!(found.iter().all(|answer| answer.document != "doc1"));
}

#[test]
fn the_parts_of_an_explanation_add_up_to_the_score() {
    let folder = tempfile::tempdir().unwrap();
    let mut library = create(folder.path());
    add(
        &mut library,
        vec![TextDocument::new("a", "Fruit", "ab apples, and pears.")],
    );
    let query = library.encode("ab?").unwrap();
    let answer = library
        .search_vectors(&query, &SearchOptions::top(1))
        .unwrap()
        .remove(0);
    let meetings = library.explain(&query, &answer).unwrap();
    let sum: f32 = meetings.iter().map(|meeting| meeting.similarity).sum();
    assert!((sum - answer.score).abs() < 1e-4, "{sum} {}", answer.score);
    assert_eq!(meetings.len(), 12);
    let words: Vec<_> = meetings
        .iter()
        .filter(|m| !m.filler)
        .map(|m| m.query.as_str())
        .collect();
    assert_eq!(words, ["<s>", "[Q] ", "ab", "?"]);
    for meeting in &meetings {
        let bytes = meeting
            .bytes
            .clone()
            .map(|bytes| answer.passage()[bytes].to_owned());
        assert!(bytes.is_none_or(|text| text == meeting.text), "{meeting:?}");
    }
}

#[test]
fn cb_02_another_models_index_and_what_is_no_library_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut library = create(folder.path());
    add(&mut library, texts(1));
    drop(library);
    let error = Library::open(folder.path(), model(2))
        .unwrap_err()
        .to_string();
    assert!(error.contains("built with model"), "{error}");
    let again = Library::create(folder.path(), model(1), &LibraryOptions::default());
    assert!(again.unwrap_err().to_string().contains("index already"));

    let nowhere = folder.path().join("nowhere");
    let error = LibraryCard::read(&nowhere).unwrap_err().to_string();
    assert!(error.contains("not found"), "{error}");
    let card = folder.path().join("library.json");
    for (text, expected) in [
        ("{", "library.json: EOF"),
        (
            "{\"version\": 2, \"model\": null, \"chunk_tokens\": 1, \"overlap\": 0}",
            "version 2",
        ),
        (
            "{\"version\": 1, \"model\": null, \"chunk_tokens\": 1, \"overlap\": 0}",
            "chunk tokens",
        ),
    ] {
        std::fs::write(&card, text).unwrap();
        let error = Library::open(folder.path(), model(1))
            .unwrap_err()
            .to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn a_creation_that_was_killed_before_its_card_is_finished() {
    let folder = tempfile::tempdir().unwrap();
    drop(create(folder.path()));
    std::fs::remove_file(folder.path().join("library.json")).unwrap();
    let mut library = create(folder.path());
    add(&mut library, texts(1));
    drop(library);
    std::fs::remove_file(folder.path().join("library.json")).unwrap();
    let refused = Library::create(folder.path(), model(1), &LibraryOptions::default());
    assert!(refused.unwrap_err().to_string().contains("index already"));
}

#[test]
fn chunks_fit_the_model() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = LibraryOptions::default().with_engine(Engine::Exact);
    options.chunk_tokens = Some(39);
    let error = Library::create(folder.path(), model(1), &options)
        .unwrap_err()
        .to_string();
    assert!(error.contains("expected at most 38"), "{error}");
    options.chunk_tokens = Some(38);
    let mut library = Library::create(folder.path(), model(1), &options).unwrap();
    assert_eq!(LibraryCard::read(folder.path()).unwrap().chunk_tokens, 38);
    add(&mut library, texts(3));
    let ids = library.index().ids().unwrap();
    let passages: Vec<String> = library
        .search("all", &SearchOptions::top(ids.len()))
        .unwrap()
        .iter()
        .map(lfm2_colbert::Answer::passage)
        .collect();
    let vectors = library.model().encode_documents(&passages).unwrap();
    assert!(vectors.iter().all(|vectors| !vectors.is_cut()));
}
