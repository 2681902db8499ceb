//! Files of pairs, good and bad.

use std::path::PathBuf;

use anyhow::Result;
use lfm2_analysis::{DropReason, Error, ErrorKind, Pair, PairSet};
use proptest::prelude::*;
use tempfile::TempDir;

/// A file of the given name and bytes, which lives as long as the folder.
fn file(name: &str, content: impl AsRef<[u8]>) -> Result<(TempDir, PathBuf)> {
    let folder = TempDir::new()?;
    let path = folder.path().join(name);
    std::fs::write(&path, content)?;
    Ok((folder, path))
}

fn pair(first: &str, second: &str) -> Pair {
    Pair {
        first: first.to_owned(),
        second: second.to_owned(),
    }
}

fn message(name: &str, content: impl AsRef<[u8]>) -> Result<String> {
    let (_folder, path) = file(name, content)?;
    Ok(PairSet::read(&path).expect_err("a bad file").to_string())
}

#[test]
fn published_files_are_read_and_named() -> Result<()> {
    let text = "Sentence1,Sentence2\nThe cat sat., The cat did not sit.\n\"One, two.\",\"Not \"\"one\"\".\"\nShe\n";
    let (_folder, path) = file("negation_ldsps.csv", text)?;
    let set = PairSet::read(&path)?;
    assert_eq!(set.name(), "negation");
    assert_eq!(
        set.pairs(),
        [
            pair("The cat sat.", "The cat did not sit."),
            pair("One, two.", "Not \"one\".")
        ]
    );
    let reading = set.reading().expect("a file was read");
    assert_eq!((reading.rows, reading.trimmed), (3, 1));
    assert_eq!(reading.dropped_for(DropReason::OneSided), 1);
    assert_eq!(reading.dropped[0].line, 4);
    Ok(())
}

#[test]
fn one_sided_rows_are_dropped_and_counted() -> Result<()> {
    let text =
        "\u{feff}first,second\r\na,b\r\nc,\r\n,d\r\n\"  \",e\r\nf\r\na comma, unquoted,g\r\n";
    let (_folder, path) = file("x.CSV", text)?;
    let set = PairSet::read(&path)?;
    assert_eq!(set.pairs(), [pair("a", "b")]);
    let reading = set.reading().expect("a file was read");
    assert_eq!(reading.dropped_for(DropReason::OneSided), 4);
    assert_eq!(reading.dropped_for(DropReason::TooManyCells), 1);
    assert_eq!(reading.dropped[4].line, 7);
    Ok(())
}

#[test]
fn columns_may_stand_anywhere() -> Result<()> {
    let (_folder, path) = file("x.csv", "id,Sentence 2,sentence_1,note\n1,b,a,\n2,d,c\n")?;
    assert_eq!(
        PairSet::read(&path)?.pairs(),
        [pair("a", "b"), pair("c", "d")]
    );
    Ok(())
}

#[test]
fn json_lines_are_read() -> Result<()> {
    let text = "{\"first\": \" a \", \"second\": \"b\", \"id\": 3}\n\n{\"sentence1\": \"c\", \"sentence2\": null}\n{\"Sentence1\": \"d\", \"Sentence2\": \"e\"}\n{}";
    let (_folder, path) = file("tense.jsonl", text)?;
    let set = PairSet::read(&path)?;
    assert_eq!(
        (set.name(), set.pairs()),
        ("tense", &[pair("a", "b"), pair("d", "e")][..])
    );
    let reading = set.reading().expect("a file was read");
    assert_eq!(
        (reading.rows, reading.trimmed, reading.dropped.len()),
        (4, 1, 2)
    );
    assert_eq!(reading.dropped[0].line, 3);
    Ok(())
}

#[test]
fn unreadable_files_are_named_with_line_and_reason() -> Result<()> {
    for (name, content, expected) in [
        (
            "x.csv",
            &b"a,b\n1,2\n"[..],
            "line 1: expected a header with \"Sentence1\" and \"Sentence2\", found \"a,b\"",
        ),
        (
            "x.csv",
            b"first,second\na,\"b\nc,d\n",
            "line 2: the quote opened here is never closed",
        ),
        (
            "x.csv",
            b"first,second\na,b\nc,\xff\n",
            "line 3: the text is not utf-8",
        ),
        ("x.csv", b"", "no usable pair: the file is empty"),
        (
            "x.csv",
            b"first,second\n,\na\n",
            "no usable pair: 2 rows, 2 of them with a side missing, 0 with too many cells",
        ),
        (
            "x.txt",
            b"first,second\na,b\n",
            "line 1: expected a file that ends in .csv or .jsonl",
        ),
        ("x.jsonl", b"{\"first\": \"a\"\n", "line 1: EOF"),
        (
            "x.jsonl",
            b"{\"first\":\"a\",\"second\":\"b\"}\n[1]\n",
            "line 2: expected an object, found an array",
        ),
        (
            "x.jsonl",
            b"{\"first\": 3, \"second\": \"b\"}\n",
            "line 1: \"first\": expected a string, found a number",
        ),
        ("x.jsonl", b"\n\n", "no usable pair: 0 rows"),
    ] {
        let message = message(name, content)?;
        assert!(
            message.contains(expected) && message.contains(name),
            "{message}"
        );
    }
    Ok(())
}

#[test]
fn missing_files_and_folders_are_told_apart() -> Result<()> {
    let folder = TempDir::new()?;
    let missing = PairSet::read(&folder.path().join("none.csv")).expect_err("no file");
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    std::fs::create_dir(folder.path().join("folder.csv"))?;
    let is_folder = PairSet::read(&folder.path().join("folder.csv")).expect_err("a folder");
    assert!(matches!(is_folder, Error::Io { .. }), "{is_folder}");
    Ok(())
}

#[test]
fn a_file_beyond_the_limit_is_refused_unread() -> Result<()> {
    let (_folder, path) = file("x.csv", "")?;
    std::fs::OpenOptions::new()
        .write(true)
        .open(&path)?
        .set_len((1 << 28) + 1)?;
    let error = PairSet::read(&path).expect_err("a large file");
    assert_eq!(error.kind(), ErrorKind::Limit);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    #[test]
    fn any_sentences_survive_csv(sentences in prop::collection::vec(("[^\\p{Z}\\p{C}]\\PC{0,20}[^\\p{Z}\\p{C}]", "[^\\p{Z}\\p{C}][\\PC\n]{0,9}[^\\p{Z}\\p{C}]"), 1..8)) {
        let pairs: Vec<Pair> = sentences.iter().map(|(first, second)| pair(first, second)).collect();
        let (_folder, path) = file("x.csv", PairSet::new("x", pairs.clone()).to_csv()).expect("a file");
        let read = PairSet::read(&path).expect("what was written");
        prop_assert_eq!(read.pairs(), &pairs[..]);
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..80), json in any::<bool>()) {
        let mut content = b"first,second\n".to_vec();
        content.extend(&bytes);
        let name = if json { "x.jsonl" } else { "x.csv" };
        let (_folder, path) = file(name, content).expect("a file");
        if let Ok(set) = PairSet::read(&path) {
            prop_assert!(!set.is_empty());
        }
    }
}
