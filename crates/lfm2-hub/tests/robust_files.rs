//! Paths, names and output files.
#![allow(clippy::unwrap_used, clippy::panic)] // also in the helpers of tests

mod support;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use lfm2_hub::{
    Checkpoint, CheckpointInfo, Error, ErrorKind, Fetch, HubCache, Limits, MemoryFiles,
    ModelSource, OpenOptions, Overwrite, RepoId, Revision, Snapshot, Tokenizer, write_atomic,
    write_safetensors,
};
use support::{valid, write_checkpoint};

fn open(path: &Path) -> Result<Checkpoint, Error> {
    Checkpoint::open(&ModelSource::from_path(path), &OpenOptions::default())
}

#[test]
fn fs_01_missing_path_is_named() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["nothing", "nothing.gguf", "with space", "line\nbreak"] {
        let error = open(&folder.path().join(name)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
        assert!(error.to_string().contains(name), "{error}");
    }
}

#[test]
fn fs_01_folder_in_place_of_a_file_and_the_reverse() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("config.json")).unwrap();
    let error = open(folder.path()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io, "{error}");
    assert!(error.to_string().contains("config.json"), "{error}");
    let file = folder.path().join("file");
    std::fs::write(&file, "text").unwrap();
    assert_eq!(open(&file).unwrap_err().kind(), ErrorKind::Unsupported);
    let error = Tokenizer::from_file(folder.path(), &Limits::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
}

#[test]
fn fs_01_unusual_names_work() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["with space", "line\nbreak", "日本語", "quote\"s"] {
        let path = folder.path().join(name);
        std::fs::create_dir(&path).unwrap();
        write_checkpoint(&path);
        assert_eq!(open(&path).unwrap().tensors().names(), ["a"], "{name:?}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn fs_01_names_that_are_not_utf_8_work() {
    use std::os::unix::ffi::OsStrExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(std::ffi::OsStr::from_bytes(b"caf\xE9"));
    std::fs::create_dir(&path).unwrap();
    write_checkpoint(&path);
    assert_eq!(open(&path).unwrap().tensors().names(), ["a"]);
}

#[test]
fn fs_02_existing_output_is_kept_unless_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.safetensors");
    let tensor = Tensor::ones(3, DType::F32, &Device::Cpu).unwrap();
    let write = |overwrite| write_safetensors(&path, [("t", &tensor)], &BTreeMap::new(), overwrite);
    write(Overwrite::Refuse).unwrap();
    let first = std::fs::read(&path).unwrap();
    let error = write(Overwrite::Refuse).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains("out.safetensors"), "{error}");
    std::fs::write(&path, "old").unwrap();
    write(Overwrite::Replace).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), first);
}

#[test]
fn fs_02_a_failed_write_leaves_the_old_file_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out");
    std::fs::write(&path, "old").unwrap();
    let result = write_atomic(&path, Overwrite::Replace, |file| {
        file.write_all(b"half").unwrap();
        Err(Error::InvalidInput("stopped".to_owned()))
    });
    assert!(result.is_err());
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "old");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    let missing = write_atomic(
        &folder.path().join("no/such/out"),
        Overwrite::Refuse,
        |_| Ok(()),
    );
    let missing = missing.unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    let message = missing.to_string();
    assert!(
        message.contains("no/such not found") && !message.contains("at path"),
        "{message}"
    );
}

#[test]
fn writing_refuses_names_twice_and_types_without_a_name() {
    let folder = tempfile::tempdir().unwrap();
    let write = |tensors: &[(&str, &Tensor)]| {
        let path = folder.path().join("out");
        write_safetensors(
            &path,
            tensors.iter().copied(),
            &BTreeMap::new(),
            Overwrite::Refuse,
        )
        .unwrap_err()
        .kind()
    };
    let tensor = Tensor::ones(3, DType::F32, &Device::Cpu).unwrap();
    assert_eq!(
        write(&[("t", &tensor), ("t", &tensor)]),
        ErrorKind::InvalidInput
    );
    assert_eq!(write(&[("__metadata__", &tensor)]), ErrorKind::InvalidInput);
    let double = tensor.to_dtype(DType::F64).unwrap();
    assert_eq!(write(&[("t", &double)]), ErrorKind::Unsupported);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn fs_06_repository_ids_that_are_no_ids() {
    let long = format!("org/{}", "x".repeat(97));
    let bad = [
        "",
        "name",
        "a/b/c",
        "org/",
        "org/na me",
        "org/name?x=1",
        "https://huggingface.co/org/name",
        "org/..",
        "-org/name",
        "org/name.",
        "org/a--b",
        "org/a..b",
        "org/na\u{e9}me",
        "org/name@",
        "org/name@a b",
        "org/name@../x",
        "org/name@a//b",
        "org/name@.x",
        "org/name@x.lock",
        &long,
    ];
    for text in bad {
        let error = text.parse::<ModelSource>().expect_err(text);
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{text:?}: {error}");
    }
    assert!("../x".parse::<RepoId>().is_err());
    for text in [
        "LiquidAI/LFM2-350M",
        "a/b",
        "o_r.g/LFM2.5-1.2B@refs/pr/1",
        "a/b@v1.0",
        "a/b@0123abc",
    ] {
        let source: ModelSource = text.parse().unwrap();
        let ModelSource::Hub { id, .. } = &source else {
            panic!("{text} is no hub source")
        };
        assert!(text.starts_with(&id.to_string()), "{id}");
        assert_eq!(source.to_string(), text);
    }
}

#[test]
fn text_that_looks_like_a_path_is_one() {
    for text in ["./org/name", "../x", "/abs", ".", "C:\\models\\x"] {
        assert!(
            matches!(text.parse().unwrap(), ModelSource::Dir(_)),
            "{text}"
        );
    }
    for text in ["model.gguf", "./a/b.GGUF", "org/name.gguf"] {
        assert!(
            matches!(text.parse().unwrap(), ModelSource::Gguf(_)),
            "{text}"
        );
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("weights.bin");
    std::fs::write(&file, "GGUF....").unwrap();
    assert_eq!(
        ModelSource::from_path(&*file),
        ModelSource::Gguf(file.clone())
    );
}

#[test]
fn a_full_cache_is_read_without_network() {
    let cache = tempfile::tempdir().unwrap();
    let repository = cache.path().join("models--org--name");
    let commit = "a1".repeat(20);
    let snapshot = repository.join("snapshots").join(&commit);
    std::fs::create_dir_all(repository.join("refs/pr")).unwrap();
    std::fs::create_dir_all(&snapshot).unwrap();
    std::fs::write(repository.join("refs/pr/1"), format!("{commit}\n")).unwrap();
    write_checkpoint(&snapshot);
    let hub = HubCache::new(cache.path());
    let (id, revision): (RepoId, Revision) = ("org/name".parse().unwrap(), "pr/1".parse().unwrap());
    let found = hub.snapshot(&id, &revision, "config.json").unwrap();
    assert_eq!(
        (found.commit.as_str(), found.folder.as_path()),
        (commit.as_str(), snapshot.as_path())
    );
    assert!(hub.file(&found, "config.json").unwrap().is_some());
    assert!(hub.file(&found, "other.json").unwrap().is_none());
    assert_eq!(
        hub.file(&found, "../refs/pr/1").unwrap_err().kind(),
        ErrorKind::InvalidInput
    );
    assert_eq!(
        hub.snapshot(&id, &Revision::default(), "config.json")
            .unwrap_err()
            .kind(),
        ErrorKind::NotFound
    );
    std::fs::write(repository.join("refs/main"), "../../etc").unwrap();
    assert_eq!(
        hub.snapshot(&id, &Revision::default(), "config.json")
            .unwrap_err()
            .kind(),
        ErrorKind::InvalidModel
    );
}

/// A fetch that has one folder for everything.
struct Fixed(std::path::PathBuf, RepoId);

impl Fetch for Fixed {
    fn snapshot(&self, _: &RepoId, revision: &Revision, _: &str) -> lfm2_hub::Result<Snapshot> {
        Ok(Snapshot::new(self.1.clone(), revision.as_str(), &self.0))
    }

    fn file(
        &self,
        snapshot: &Snapshot,
        name: &str,
    ) -> lfm2_hub::Result<Option<std::path::PathBuf>> {
        let path = snapshot.folder.join(name);
        Ok(path.is_file().then_some(path))
    }
}

#[test]
fn fs_05_missing_files_are_all_listed() {
    let folder = tempfile::tempdir().unwrap();
    let id: RepoId = "org/name".parse().unwrap();
    let options = OpenOptions::default().fetch(std::sync::Arc::new(Fixed(
        folder.path().to_path_buf(),
        id.clone(),
    )));
    let error = Checkpoint::open(&ModelSource::hub(id.clone()), &options).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(
        error
            .to_string()
            .contains("config.json, model.safetensors of org/name not found"),
        "{error}"
    );
    write_checkpoint(folder.path());
    assert!(Checkpoint::open(&ModelSource::hub(id), &options).is_ok());
}

#[test]
fn a_checkpoint_can_be_in_memory() {
    let files = MemoryFiles {
        config: br#"{"model_type": "lfm2"}"#.into(),
        weights: valid(&["a"]).into(),
        generation_config: Some(br#"{"eos_token_id": 7}"#.into()),
        tokenizer: Some(support::tokenizer_json().into_bytes().into()),
        chat_template: Some("{{ messages }}".into()),
        more: [
            ("1_Dense/config.json".into(), br#"{"bias": true}"#.into()),
            (
                "1_Dense/model.safetensors".into(),
                valid(&["linear"]).into(),
            ),
            (
                "tokenizer_config.json".into(),
                br#"{"eos_token": "<e>"}"#.into(),
            ),
        ]
        .into(),
    };
    let checkpoint =
        Checkpoint::from_memory("embedded", files.clone(), &Limits::default()).unwrap();
    assert_eq!(checkpoint.tensors().names(), ["a"]);
    assert_eq!(checkpoint.config()["model_type"], "lfm2");
    assert_eq!(checkpoint.generation_config().unwrap()["eos_token_id"], 7);
    assert_eq!(checkpoint.tokenizer().unwrap().vocab_size(), 11);
    assert_eq!(
        checkpoint.chat_template().unwrap().as_deref(),
        Some("{{ messages }}")
    );
    let dense = checkpoint.info().json("1_Dense/config.json").unwrap();
    assert_eq!(dense.unwrap()["bias"], true);
    assert_eq!(checkpoint.info().json("modules.json").unwrap(), None);
    assert_eq!(
        checkpoint.tensors_in("1_Dense").unwrap().names(),
        ["linear"]
    );
    let error = checkpoint.tensors_in("2_Dense").err().unwrap();
    assert!(
        error.to_string().contains("2_Dense/model.safetensors"),
        "{error}"
    );
    assert_eq!(checkpoint.tokenizer_config().unwrap()["eos_token"], "<e>");
    let broken = MemoryFiles {
        weights: b"short".as_slice().into(),
        ..files
    };
    let error = Checkpoint::from_memory("embedded", broken, &Limits::default()).unwrap_err();
    assert!(error.to_string().contains("embedded"), "{error}");
}

#[test]
fn a_gguf_file_of_a_repository_is_named_or_described() {
    for (text, expected) in [
        ("org/Model-GGUF:Q4_0", "org/Model-GGUF:Model-Q4_0.gguf"),
        ("org/Model:x.gguf@v1", "org/Model:x.gguf@v1"),
    ] {
        let source: ModelSource = text.parse().unwrap();
        assert!(matches!(source, ModelSource::HubGguf { .. }), "{text}");
        assert_eq!(source.to_string(), expected);
        assert_eq!(expected.parse::<ModelSource>().unwrap(), source);
    }
    for text in [
        "org/name:",
        "org/name:a/b.gguf",
        "org/name:../x.gguf",
        "org/name:a:b",
        "org:name/x",
        "org/name:x@",
    ] {
        assert_eq!(
            text.parse::<ModelSource>().expect_err(text).kind(),
            ErrorKind::InvalidInput,
            "{text}"
        );
    }
}

#[test]
fn parts_in_folders_of_a_checkpoint_are_found_and_no_others() {
    let outer = tempfile::tempdir().unwrap();
    let folder = outer.path().join("model");
    std::fs::create_dir_all(folder.join("1_Dense")).unwrap();
    write_checkpoint(&folder);
    std::fs::write(folder.join("1_Dense/config.json"), r#"{"bias": false}"#).unwrap();
    std::fs::write(folder.join("1_Dense/model.safetensors"), valid(&["w"])).unwrap();
    std::fs::write(outer.path().join("secret.json"), "{}").unwrap();
    let checkpoint = open(&folder).unwrap();
    let info = checkpoint.info();
    assert_eq!(
        info.json("1_Dense/config.json").unwrap().unwrap()["bias"],
        false
    );
    assert_eq!(info.json("2_Dense/config.json").unwrap(), None);
    assert_eq!(checkpoint.tensors_in("1_Dense").unwrap().names(), ["w"]);
    assert!(checkpoint.tensors_in("2_Dense").is_err());
    for name in [
        "../secret.json",
        "1_Dense/../../secret.json",
        "a/b/c",
        "/etc/passwd",
        "",
    ] {
        let error = info.json(name).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidModel, "{name}: {error}");
    }
}

#[cfg(unix)]
#[test]
fn si_03_a_folder_that_is_a_link_out_of_the_checkpoint_is_refused() {
    let outer = tempfile::tempdir().unwrap();
    let (folder, other) = (outer.path().join("model"), outer.path().join("other"));
    for path in [&folder, &other] {
        std::fs::create_dir(path).unwrap();
        write_checkpoint(path);
    }
    std::os::unix::fs::symlink(&other, folder.join("1_Dense")).unwrap();
    let error = open(&folder).unwrap().tensors_in("1_Dense").err().unwrap();
    assert!(error.to_string().contains("link out of"), "{error}");
}

#[test]
fn weights_alone_are_no_model() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    std::fs::write(&path, valid(&["a"])).unwrap();
    let error = open(&path).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("give its folder"), "{error}");
}

#[test]
fn a_config_file_alone_can_be_looked_at() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("LFM2-350M.json");
    std::fs::write(&path, r#"{"hidden_size": 1024}"#).unwrap();
    let source: ModelSource = path.to_str().unwrap().parse().unwrap();
    let info = CheckpointInfo::open(&source, &OpenOptions::default()).unwrap();
    assert_eq!(info.config()["hidden_size"], 1024);
    assert_eq!(info.tokenizer().unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(info.chat_template().unwrap(), None);
    assert_eq!(open(&path).unwrap_err().kind(), ErrorKind::InvalidInput);
}
