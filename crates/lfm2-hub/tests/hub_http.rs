//! The real client against a small server in the shape of the Hub.
#![allow(clippy::unwrap_used, clippy::panic)] // also in the helpers of tests
#![cfg(feature = "download")]

mod hub_server;
mod support;

use std::path::Path;
use std::sync::{Arc, Mutex};

use hub_server::{COMMIT, Repository, Request, Response, Server};
use lfm2_hub::{
    Checkpoint, CheckpointInfo, Error, ErrorKind, ModelSource, Network, OpenOptions, Progress,
    ProgressEvent, Refresh, Token,
};
use support::valid;

const WEIGHTS: &str = "model.safetensors";

fn repository() -> Repository {
    Repository::default()
        .file("config.json", r#"{"model_type": "lfm2"}"#)
        .file("generation_config.json", r#"{"eos_token_id": 7}"#)
        .file("tokenizer.json", support::tokenizer_json())
        .file("chat_template.jinja", "{{ messages }}")
        .file(WEIGHTS, valid(&["a", "b"]))
        .file("pytorch_model.bin", "not wanted")
        .file("README.md", "not wanted")
}

/// A server whose answers `change` may replace.
fn server(change: impl Fn(&Request, Response) -> Response + Send + Sync + 'static) -> Server {
    let repository = repository();
    Server::start(move |request| change(request, repository.answer(request)))
}

fn options(server: &Server, cache: &Path) -> OpenOptions {
    // A token of our own keeps that of the person who runs the tests out of them.
    OpenOptions::default()
        .endpoint(server.endpoint())
        .cache_dir(cache)
        .token(Token::new("hf_test"))
}

fn open(source: &str, options: &OpenOptions) -> Result<Checkpoint, Error> {
    Checkpoint::open(&source.parse::<ModelSource>()?, options)
}

/// The complete blobs of the cache.
fn blobs(cache: &Path) -> usize {
    let folder = cache.join("models--org--name/blobs");
    let complete =
        |entry: std::io::Result<std::fs::DirEntry>| entry.unwrap().path().extension().is_none();
    std::fs::read_dir(folder).map_or(0, |entries| entries.map(complete).filter(|is| *is).count())
}

#[derive(Default)]
struct Recorder(Mutex<Vec<String>>);

impl Progress for Recorder {
    fn report(&self, event: ProgressEvent<'_>) {
        let line = match event {
            ProgressEvent::Start {
                file,
                size,
                resumed,
            } => format!("start {file} {size:?} {resumed}"),
            ProgressEvent::Advance { file, bytes } => format!("advance {file} {bytes}"),
            ProgressEvent::Finish { file } => format!("finish {file}"),
            other => format!("{other:?}"),
        };
        self.0.lock().unwrap().push(line);
    }
}

#[test]
fn opens_a_repository_and_fetches_only_what_it_needs() {
    let cache = tempfile::tempdir().unwrap();
    let server = server(|_, answer| answer);
    let recorder = Arc::new(Recorder::default());
    let options =
        options(&server, cache.path()).progress(Arc::clone(&recorder) as Arc<dyn Progress>);
    let checkpoint = open("org/name", &options).unwrap();
    assert_eq!(checkpoint.config()["model_type"], "lfm2");
    assert_eq!(checkpoint.generation_config().unwrap()["eos_token_id"], 7);
    assert_eq!(checkpoint.tensors().names().len(), 2);
    assert_eq!(checkpoint.tokenizer().unwrap().vocab_size(), 11);
    assert_eq!(
        checkpoint.chat_template().unwrap().as_deref(),
        Some("{{ messages }}")
    );
    assert_eq!(checkpoint.origin(), format!("org/name@{COMMIT}"));
    assert_eq!(
        (
            server.gets("pytorch_model.bin"),
            server.gets("README.md"),
            server.gets(WEIGHTS)
        ),
        (0, 0, 1)
    );

    let events = recorder.0.lock().unwrap().clone();
    let size = valid(&["a", "b"]).len();
    assert!(
        events.contains(&format!("start {WEIGHTS} Some({size}) 0")),
        "{events:?}"
    );
    assert!(events.contains(&format!("finish {WEIGHTS}")), "{events:?}");
}

#[test]
fn cache_has_the_layout_that_hub_clients_share() {
    let cache = tempfile::tempdir().unwrap();
    let server = server(|_, answer| answer);
    open("org/name", &options(&server, cache.path())).unwrap();
    let repository = cache.path().join("models--org--name");
    assert_eq!(
        std::fs::read_to_string(repository.join("refs/main")).unwrap(),
        COMMIT
    );
    let snapshot = repository.join("snapshots").join(COMMIT);
    assert_eq!(
        std::fs::read(snapshot.join(WEIGHTS)).unwrap(),
        valid(&["a", "b"])
    );
    assert!(
        repository
            .join(".no_exist")
            .join(COMMIT)
            .join("tokenizer_config.json")
            .is_file()
    );
    assert_eq!(blobs(cache.path()), 5);
    #[cfg(unix)]
    assert!(
        std::fs::read_link(snapshot.join(WEIGHTS))
            .unwrap()
            .starts_with("../../blobs")
    );
}

#[test]
fn a_second_open_only_asks_for_the_commit() {
    let cache = tempfile::tempdir().unwrap();
    let server = server(|_, answer| answer);
    let options = options(&server, cache.path());
    open("org/name", &options).unwrap();
    let before = server.log().len();
    open("org/name", &options).unwrap();
    assert_eq!(server.log().len(), before + 1);
    // A commit never changes, so there is nothing to ask.
    open(&format!("org/name@{COMMIT}"), &options).unwrap();
    assert_eq!(server.log().len(), before + 1);
}

#[test]
fn info_does_not_fetch_weights() {
    let cache = tempfile::tempdir().unwrap();
    let server = server(|_, answer| answer);
    let info = CheckpointInfo::open(
        &"org/name".parse().unwrap(),
        &options(&server, cache.path()),
    )
    .unwrap();
    assert_eq!(info.config()["model_type"], "lfm2");
    assert_eq!(server.gets(WEIGHTS), 0);
}

#[test]
fn refresh_downloads_again() {
    let cache = tempfile::tempdir().unwrap();
    let server = server(|_, answer| answer);
    let options = options(&server, cache.path());
    open("org/name", &options).unwrap();
    open("org/name", &options.refresh(Refresh::All)).unwrap();
    assert_eq!(server.gets(WEIGHTS), 2);
}

#[test]
fn shards_of_the_index_are_fetched() {
    let cache = tempfile::tempdir().unwrap();
    let index = r#"{"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}"#;
    let repository = repository()
        .file("model.safetensors.index.json", index)
        .file("one.safetensors", valid(&["a"]))
        .file("two.safetensors", valid(&["b"]));
    let server = Server::start(move |request| repository.answer(request));
    let checkpoint = open("org/name", &options(&server, cache.path())).unwrap();
    assert_eq!(checkpoint.tensors().names().len(), 2);
    assert_eq!(server.gets(WEIGHTS), 0);
}

#[test]
fn modules_of_an_encoder_are_fetched_into_their_folders() {
    let cache = tempfile::tempdir().unwrap();
    let modules = r#"[{"path": ""}, {"path": "1_Pooling"}, {"path": "2_Dense"}, {"path": "../x"}]"#;
    let repository = repository()
        .file("modules.json", modules)
        .file("config_sentence_transformers.json", "{}")
        .file("1_Pooling/config.json", "{}")
        .file("2_Dense/config.json", r#"{"bias": false}"#)
        .file("2_Dense/model.safetensors", valid(&["linear"]));
    let server = Server::start(move |request| repository.answer(request));
    let options = options(&server, cache.path());
    open("org/name", &options).unwrap();
    let before = server.log().len();
    // All is there now, so that a machine without a network can open it.
    let checkpoint = open("org/name", &options.network(Network::Offline)).unwrap();
    let dense = checkpoint.info().json("2_Dense/config.json").unwrap();
    assert_eq!(dense.unwrap()["bias"], false);
    assert_eq!(
        checkpoint.tensors_in("2_Dense").unwrap().names(),
        ["linear"]
    );
    assert_eq!(server.log().len(), before);
    #[cfg(unix)]
    {
        let snapshot = cache
            .path()
            .join("models--org--name/snapshots")
            .join(COMMIT);
        let link = std::fs::read_link(snapshot.join("2_Dense/model.safetensors")).unwrap();
        assert!(link.starts_with("../../../blobs"), "{}", link.display());
    }
}

#[test]
fn one_gguf_file_is_fetched_alone() {
    let cache = tempfile::tempdir().unwrap();
    let contents = std::fs::read("tests/golden/text/dense_gqa2/model-q4_0.gguf").unwrap();
    // Repositories of GGUF files have no config.
    let repository = Repository::default().file("name-Q4_0.gguf", contents);
    let server = Server::start(move |request| repository.answer(request));
    let checkpoint = open("org/name:Q4_0", &options(&server, cache.path())).unwrap();
    assert_eq!(checkpoint.config()["model_type"], "lfm2");
    assert_eq!(blobs(cache.path()), 1);
    let error = open("org/name:Q8_0", &options(&server, cache.path())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("name-Q8_0.gguf"), "{error}");
}

#[test]
fn fs_06_shard_names_from_the_server_are_checked() {
    for name in ["../../../evil", "/etc/passwd", "a/b"] {
        let cache = tempfile::tempdir().unwrap();
        let index = format!(r#"{{"weight_map": {{"a": "{name}"}}}}"#);
        let repository = repository().file("model.safetensors.index.json", index);
        let server = Server::start(move |request| repository.answer(request));
        let error = open("org/name", &options(&server, cache.path())).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidModel, "{error}");
        assert!(
            !server
                .log()
                .iter()
                .any(|request| request.path.contains("evil") || request.path.contains("passwd"))
        );
    }
}

#[test]
fn fs_06_etags_and_commits_that_are_paths_are_refused() {
    for (header, value) in [
        ("etag", "\"../../../evil\""),
        ("x-linked-etag", "/tmp/lfm2-evil"),
        ("x-repo-commit", "../../evil"),
        ("x-repo-commit", "main"),
    ] {
        let root = tempfile::tempdir().unwrap();
        let cache = root.path().join("deep/cache");
        let server = server(move |_, answer| {
            if answer.status == 200 {
                answer.with(header, value)
            } else {
                answer
            }
        });
        let error = open("org/name", &options(&server, &cache)).unwrap_err();
        assert!(matches!(error, Error::Network { .. }), "{error}");
        assert!(!root.path().join("deep/evil").exists() && !root.path().join("evil").exists());
        assert_eq!(blobs(&cache), 0);
    }
}

#[test]
fn fs_07_a_token_is_asked_for_and_used() {
    let cache = tempfile::tempdir().unwrap();
    let server =
        server(
            |request, answer| match request.headers.get("authorization").map(String::as_str) {
                Some("Bearer hf_good") => answer,
                _ => Response::status(401).with("x-error-code", "GatedRepo"),
            },
        );
    let error = open("org/name", &options(&server, cache.path())).unwrap_err();
    assert!(matches!(error, Error::Denied { .. }), "{error}");
    assert!(
        error.to_string().contains("HF_TOKEN") && !error.to_string().contains("hf_test"),
        "{error}"
    );
    open(
        "org/name",
        &options(&server, cache.path()).token(Token::new("hf_good")),
    )
    .unwrap();
}

#[test]
fn fs_07_the_token_stays_with_the_hub() {
    let cache = tempfile::tempdir().unwrap();
    let storage = server(|_, answer| answer);
    let address = storage.endpoint();
    let hub = server(move |request, answer| {
        let location = format!("{address}{}", request.path);
        if answer.status == 404 {
            answer
        } else {
            Response {
                status: 302,
                body: Vec::new(),
                ..answer
            }
            .with("location", location)
        }
    });
    open("org/name", &options(&hub, cache.path())).unwrap();
    assert!(
        storage.gets(WEIGHTS) == 1
            && hub
                .log()
                .iter()
                .all(|request| request.headers.contains_key("authorization"))
    );
    assert!(
        storage
            .log()
            .iter()
            .all(|request| !request.headers.contains_key("authorization"))
    );
}

#[test]
fn fs_07_missing_repository_revision_and_file() {
    let cache = tempfile::tempdir().unwrap();
    let server = server(|request, answer| {
        if request.path.ends_with(WEIGHTS) {
            Response::status(404).with("x-error-code", "EntryNotFound")
        } else {
            answer
        }
    });
    let options = options(&server, cache.path());
    for (source, part) in [
        ("org/other", "repository org/other"),
        ("org/name@v9", "revision v9"),
        ("org/name", "model.safetensors of"),
    ] {
        let error = open(source, &options).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
        assert!(error.to_string().contains(part), "{error}");
    }
}

#[test]
fn fs_07_a_truncated_body_is_resumed() {
    let cache = tempfile::tempdir().unwrap();
    let server = server(
        |request, answer| match request.is_get(WEIGHTS) && request.earlier == 0 {
            true => Response {
                cut: Some(50),
                ..answer
            },
            false => answer,
        },
    );
    let checkpoint = open("org/name", &options(&server, cache.path())).unwrap();
    assert_eq!(checkpoint.tensors().names().len(), 2);
    let starts: Vec<usize> = server
        .log()
        .iter()
        .filter(|r| r.is_get(WEIGHTS))
        .map(Request::start)
        .collect();
    assert_eq!(starts, [0, 50]);
}

#[test]
fn fs_07_a_server_that_ignores_ranges_is_asked_for_everything() {
    let cache = tempfile::tempdir().unwrap();
    let server = server(|request, answer| {
        let cut = (request.earlier == 0).then_some(50);
        if request.is_get(WEIGHTS) {
            Response {
                status: 200,
                body: valid(&["a", "b"]),
                cut,
                ..answer
            }
        } else {
            answer
        }
    });
    open("org/name", &options(&server, cache.path())).unwrap();
    assert_eq!(server.gets(WEIGHTS), 3);
}

#[test]
fn fs_04_an_interrupted_download_is_continued_by_the_next_run() {
    let cache = tempfile::tempdir().unwrap();
    let server = server(|_, answer| answer);
    let options = options(&server, cache.path());
    CheckpointInfo::open(&"org/name".parse().unwrap(), &options).unwrap();
    let head = server
        .log()
        .iter()
        .find(|request| request.path.ends_with("config.json"))
        .cloned()
        .unwrap();
    let answer = repository().answer(&Request {
        path: head.path.replace("config.json", WEIGHTS),
        ..head
    });
    let etag = answer
        .headers
        .iter()
        .find(|(name, _)| name == "etag")
        .unwrap()
        .1
        .trim_matches('"')
        .to_owned();
    let part = cache
        .path()
        .join("models--org--name/blobs")
        .join(format!("{etag}.incomplete"));
    std::fs::write(&part, &valid(&["a", "b"])[..64]).unwrap();
    open("org/name", &options).unwrap();
    let starts: Vec<usize> = server
        .log()
        .iter()
        .filter(|r| r.is_get(WEIGHTS))
        .map(Request::start)
        .collect();
    assert_eq!(starts, [64]);
    assert!(!part.exists());
}

#[test]
fn fs_04_a_beginning_that_does_not_fit_is_thrown_away() {
    let cache = tempfile::tempdir().unwrap();
    let server = server(|request, mut answer| {
        // The first attempt ends early with wrong bytes, so the resumed file has a wrong hash.
        if request.is_get(WEIGHTS) && request.earlier == 0 {
            answer.body[10] ^= 1;
            answer.cut = Some(50);
        }
        answer
    });
    open("org/name", &options(&server, cache.path())).unwrap();
    assert_eq!(server.gets(WEIGHTS), 3);
}

#[test]
fn fs_07_a_wrong_hash_is_refused_and_not_kept() {
    let cache = tempfile::tempdir().unwrap();
    let server = server(|request, mut answer| {
        if request.is_get(WEIGHTS) {
            answer.body[100] ^= 1;
        }
        answer
    });
    let error = open("org/name", &options(&server, cache.path())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidModel);
    assert!(
        error.to_string().contains("sha-256") && error.to_string().contains(WEIGHTS),
        "{error}"
    );
    assert!(
        !cache
            .path()
            .join("models--org--name/snapshots")
            .join(COMMIT)
            .join(WEIGHTS)
            .exists()
    );
    assert_eq!(server.gets(WEIGHTS), 1);
}

#[test]
fn fs_07_busy_servers_are_asked_again() {
    for status in [429, 500, 503] {
        let cache = tempfile::tempdir().unwrap();
        let server = server(move |request, answer| match request.earlier {
            0 => Response::status(status).with("retry-after", "0"),
            _ => answer,
        });
        open("org/name", &options(&server, cache.path())).unwrap();
    }
}

#[test]
fn fs_07_servers_that_stay_busy_give_a_typed_error() {
    for (status, kind) in [
        (429, ErrorKind::Busy),
        (503, ErrorKind::Busy),
        (500, ErrorKind::Io),
        (400, ErrorKind::Io),
    ] {
        let cache = tempfile::tempdir().unwrap();
        let server = server(move |_, _| Response::status(status).with("retry-after", "0"));
        let error = open("org/name", &options(&server, cache.path())).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(&status.to_string()), "{error}");
    }
}

#[test]
fn fs_07_a_page_that_is_no_hub_is_named() {
    let cache = tempfile::tempdir().unwrap();
    let server = server(|_, _| {
        Response::status(200)
            .with("content-type", "text/html")
            .body("<html>login</html>")
    });
    let error = open("org/name", &options(&server, cache.path())).unwrap_err();
    assert!(error.to_string().contains("is this a hub"), "{error}");
}

#[test]
fn fs_05_offline_uses_the_cache_and_opens_no_connection() {
    let cache = tempfile::tempdir().unwrap();
    let server = server(|_, answer| answer);
    let options = options(&server, cache.path());
    open("org/name", &options).unwrap();
    let before = server.log().len();
    let offline = options.network(Network::Offline);
    assert_eq!(
        open("org/name", &offline).unwrap().tensors().names().len(),
        2
    );
    let missing = open("org/other", &offline).unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    let missing = missing.to_string();
    let folder = cache.path().display().to_string();
    for part in ["org/other not found", &folder, "--offline"] {
        assert!(missing.contains(part), "{missing}");
    }
    assert_eq!(server.log().len(), before);
}

#[test]
fn fs_05_a_server_that_is_gone_leaves_the_cache() {
    let cache = tempfile::tempdir().unwrap();
    let options = {
        let server = server(|_, answer| answer);
        let options = options(&server, cache.path());
        open("org/name", &options).unwrap();
        options
    };
    // The server has stopped; a known branch still opens.
    assert!(open("org/name", &options).is_ok());
    // Of another one it is said why it cannot be fetched, and what to look at.
    let error = open("org/other", &options).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    let message = error.to_string();
    for part in [
        "org/other/resolve/main/config.json: ",
        "connect",
        "no connection to 127.0.0.1?",
        "HF_ENDPOINT",
    ] {
        assert!(message.contains(part), "{part}: {message}");
    }
    assert!(!message.contains("hf_test"), "{message}");
}

#[test]
fn fs_04_a_lost_or_damaged_blob_is_downloaded_again() {
    let cache = tempfile::tempdir().unwrap();
    let server = server(|_, answer| answer);
    let options = options(&server, cache.path());
    open("org/name", &options).unwrap();
    let link = cache
        .path()
        .join("models--org--name/snapshots")
        .join(COMMIT)
        .join(WEIGHTS);
    let blob = link.canonicalize().unwrap();
    std::fs::remove_file(&blob).unwrap();
    let error = open("org/name", &options.clone().network(Network::Offline)).unwrap_err();
    assert!(
        error.to_string().contains("damaged") && error.to_string().contains("lfm2 download"),
        "{error}"
    );
    open("org/name", &options).unwrap();
    assert_eq!(server.gets(WEIGHTS), 2);

    std::fs::remove_file(&link).unwrap();
    std::fs::write(&blob, vec![0; valid(&["a", "b"]).len()]).unwrap();
    open("org/name", &options).unwrap();
    assert_eq!(server.gets(WEIGHTS), 3);
}

#[cfg(unix)]
#[test]
fn fs_04_a_read_only_cache_is_enough_when_it_is_full() {
    use std::os::unix::fs::PermissionsExt;
    let cache = tempfile::tempdir().unwrap();
    let server = server(|_, answer| answer);
    let options = options(&server, cache.path());
    open("org/name", &options).unwrap();
    let set = |mode| {
        for folder in ["", "refs", "blobs", ".no_exist"] {
            let path = cache.path().join("models--org--name").join(folder);
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        }
    };
    set(0o555);
    let result = open("org/name", &options);
    set(0o755);
    assert!(result.is_ok(), "{result:?}");
}

#[test]
fn fs_03_two_downloads_at_once_end_with_one_good_file() {
    let cache = tempfile::tempdir().unwrap();
    let server = server(|_, answer| answer);
    let options = options(&server, cache.path());
    std::thread::scope(|scope| {
        let run =
            || open("org/name", &options).map(|checkpoint| checkpoint.tensors().names().len());
        let both = [scope.spawn(run), scope.spawn(run)];
        for thread in both {
            assert_eq!(thread.join().unwrap().unwrap(), 2);
        }
    });
    assert_eq!(blobs(cache.path()), 5);
}

#[test]
fn fs_08_the_token_is_nowhere_in_errors() {
    let cache = tempfile::tempdir().unwrap();
    let server = server(|request, _| {
        let token = request
            .headers
            .get("authorization")
            .cloned()
            .unwrap_or_default();
        Response::status(500)
            .with("retry-after", "0")
            .with("x-error-message", token)
    });
    let error = open("org/name", &options(&server, cache.path())).unwrap_err();
    assert!(
        !format!("{error} {error:?}").contains("hf_test"),
        "{error:?}"
    );
}
