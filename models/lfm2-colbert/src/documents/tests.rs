use super::*;
use std::fs;

use serde_json::json;

/// A folder with these files.
fn folder(files: &[(&str, &[u8])]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    folder
}

/// The documents and the skipped files below a folder, with ids and paths relative to it.
fn read(folder: &Path, options: &ReadOptions) -> (Vec<TextDocument>, Vec<(String, String)>) {
    let (mut documents, mut skipped) = (Vec::new(), Vec::new());
    let start = format!("{}/", folder.display());
    let relative = |path: &str| path.strip_prefix(&start).unwrap_or(path).to_owned();
    for found in Listing::new(&[folder], options).unwrap().documents() {
        match found.unwrap() {
            Found::Document(document) => {
                let id = relative(&document.id);
                documents.push(TextDocument { id, ..*document });
            }
            Found::Skipped(skip) => skipped.push((relative(&id_of(&skip.path)), skip.reason)),
        }
    }
    (documents, skipped)
}

fn error_of(path: &Path) -> String {
    let listing = Listing::new(&[path], &ReadOptions::default());
    let mut found = match listing {
        Ok(listing) => listing.documents(),
        Err(error) => return error.to_string(),
    };
    found.find_map(Result::err).unwrap().to_string()
}

#[test]
fn a_folder_is_read_in_order_and_each_file_in_its_way() {
    let folder = folder(&[
        ("b/note.txt", b"\xEF\xBB\xBFplain"),
        ("a.md", b"# Title\nbody"),
        ("b/untitled.markdown", b"no heading"),
        ("c.jsonl", b"{\"id\": \"x\", \"title\": \"T\", \"text\": \"one\", \"year\": 1958}\n\n{\"text\": \"two\"}"),
        (".hidden/a.txt", b"no"),
        ("b/.hidden.txt", b"no"),
    ]);
    let (documents, skipped) = read(folder.path(), &ReadOptions::default());
    let ids: Vec<&str> = documents.iter().map(|d| d.id.as_str()).collect();
    assert_eq!(
        ids,
        [
            "a.md",
            "b/note.txt",
            "b/untitled.markdown",
            "x",
            "c.jsonl:3"
        ]
    );
    let titles: Vec<&str> = documents.iter().map(|d| d.title.as_str()).collect();
    assert_eq!(titles, ["Title", "note", "untitled", "T", ""]);
    assert_eq!(documents[1].text, "plain");
    assert_eq!(documents[3].fields.get("year"), Some(&json!(1958)));
    assert_eq!(documents[0].format, TextFormat::Markdown);
    assert!(skipped.is_empty(), "{skipped:?}");
}

#[test]
fn tk_04_binary_and_broken_files_of_a_folder_are_skipped_with_a_note() {
    let folder = folder(&[
        ("a.bin", b"ab\0c"),
        ("b.txt", b"ab\xFFc"),
        ("c.txt", b"fine"),
        ("large.txt", &[b'x'; 100]),
    ]);
    let options = ReadOptions {
        max_file_bytes: 99,
        ..ReadOptions::default()
    };
    let (documents, skipped) = read(folder.path(), &options);
    assert_eq!(documents.len(), 1);
    let expected = [
        ("a.bin", "binary"),
        ("b.txt", "not utf-8 at byte 2"),
        ("large.txt", "more than 99 bytes"),
    ];
    let expected = expected.map(|(path, reason)| (path.to_owned(), reason.to_owned()));
    assert_eq!(skipped, expected);
}

#[test]
fn what_was_named_and_cannot_be_read_is_an_error() {
    let folder = folder(&[
        ("a.bin", b"ab\0c"),
        ("b.jsonl", b"{\"text\": \"a\"}\n{\"text\": 7}"),
    ]);
    assert!(error_of(&folder.path().join("a.bin")).ends_with("a.bin: binary"));
    let error = error_of(&folder.path().join("b.jsonl"));
    assert!(
        error.ends_with("b.jsonl:2: \"text\": expected text, found a number"),
        "{error}"
    );
    assert!(error_of(&folder.path().join("nothing")).contains("nothing: "));
    // A broken line is an error in a folder too: it was meant to be a document.
    let error = error_of(folder.path());
    assert!(error.contains("b.jsonl:2"), "{error}");
}

#[test]
fn bytes_are_counted_for_progress() {
    let folder = folder(&[("a.txt", b"abc"), ("b.jsonl", b"{\"text\": \"d\"}")]);
    let listing = Listing::new(&[folder.path()], &ReadOptions::default()).unwrap();
    assert_eq!((listing.len(), listing.bytes()), (2, 16));
    let mut documents = listing.documents();
    documents.next().unwrap().unwrap();
    assert_eq!(documents.bytes_read(), 3);
    assert_eq!(documents.by_ref().count(), 1);
    assert_eq!(documents.bytes_read(), 16);
}

#[test]
fn limits_of_files_and_depth_are_kept_and_folders_left_out() {
    let folder = folder(&[("a.txt", b"a"), ("b/c/d.txt", b"d"), ("index/x", b"x")]);
    let options = ReadOptions {
        max_files: 2,
        ..ReadOptions::default()
    };
    let error = Listing::new(&[folder.path()], &options)
        .unwrap_err()
        .to_string();
    assert!(error.contains("over the limit of 2"), "{error}");
    let without = options.without(folder.path().join("index"));
    assert_eq!(Listing::new(&[folder.path()], &without).unwrap().len(), 2);
    let shallow = ReadOptions {
        max_depth: 1,
        ..ReadOptions::default()
    };
    let error = Listing::new(&[folder.path()], &shallow)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("nesting of") && error.contains("limit of 1"),
        "{error}"
    );
    // Named twice, read once.
    let twice = [folder.path().to_path_buf(), folder.path().join("a.txt")];
    assert_eq!(
        Listing::new(&twice, &ReadOptions::default()).unwrap().len(),
        3
    );
}

#[cfg(unix)]
#[test]
fn links_in_a_folder_are_not_followed_and_named_ones_are() {
    use std::os::unix::fs::symlink;

    let folder = folder(&[("a/x.txt", b"x")]);
    let at = |name: &str| folder.path().join(name);
    symlink(folder.path(), at("a/loop")).unwrap();
    symlink(at("gone"), at("a/dangling")).unwrap();
    symlink(at("a"), at("link")).unwrap();
    let (documents, skipped) = read(&at("a"), &ReadOptions::default());
    assert_eq!(documents.len(), 1);
    let reasons: Vec<_> = skipped.iter().map(|(_, reason)| reason.as_str()).collect();
    assert_eq!(reasons, ["a symbolic link"; 2]);
    assert_eq!(read(&at("link"), &ReadOptions::default()).0.len(), 1);
}

#[cfg(target_os = "linux")]
#[test]
fn fs_01_names_may_be_anything() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    let folder = folder(&[("with space\nand line.txt", b"a")]);
    fs::write(folder.path().join(OsStr::from_bytes(b"odd\xFF.txt")), "b").unwrap();
    let (documents, _) = read(folder.path(), &ReadOptions::default());
    assert_eq!(documents[0].id, "odd\u{FFFD}.txt");
    assert_eq!(documents[1].id, "with space\nand line.txt");
}
