//! Safetensors files and indices that must be refused, and how.
#![allow(clippy::unwrap_used, clippy::panic)] // also in the helpers of tests

mod support;

use std::path::Path;

use candle_core::{DType, Device};
use lfm2_hub::{
    Checkpoint, Error, ErrorKind, Limits, Mapping, ModelSource, OpenOptions, SafetensorsSource,
    StoredType, TensorSource,
};
use proptest::prelude::*;
use serde_json::{Value, json};
use support::{f32_entry, safetensors, valid, write_checkpoint};

/// Opens `bytes` in all three ways, which have to agree.
fn open(bytes: &[u8]) -> Result<SafetensorsSource, Error> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    std::fs::write(&path, bytes).unwrap();
    let limits = Limits::default();
    let memory = SafetensorsSource::from_bytes("memory", bytes.to_vec(), &limits);
    for mapping in [Mapping::Map, Mapping::Read] {
        let from_file = SafetensorsSource::open(&path, mapping, &limits);
        let kind = |result: &Result<_, Error>| result.as_ref().err().map(Error::kind);
        assert_eq!(kind(&from_file), kind(&memory), "{mapping:?}");
    }
    memory
}

#[track_caller]
fn rejected(bytes: &[u8], kind: ErrorKind, parts: &[&str]) {
    let error = open(bytes).expect_err("the file is bad");
    assert_eq!(error.kind(), kind, "{error}");
    let text = error.to_string();
    for part in parts {
        assert!(text.contains(part), "{text:?} lacks {part:?}");
    }
}

fn header(entries: &Value) -> String {
    entries.to_string()
}

#[test]
fn st_01_shorter_than_the_length() {
    for count in 0..8 {
        rejected(
            &vec![0; count],
            ErrorKind::InvalidModel,
            &["shorter than the 8-byte header length"],
        );
    }
}

#[test]
fn st_02_header_length_that_cannot_be() {
    let with_length = |length: u64| [length.to_le_bytes().as_slice(), b"{}"].concat();
    rejected(&with_length(1 << 63), ErrorKind::Limit, &["100000000"]);
    rejected(&with_length(u64::MAX), ErrorKind::Limit, &["header bytes"]);
    rejected(
        &with_length(100_000_001),
        ErrorKind::Limit,
        &["header bytes"],
    );
    rejected(
        &with_length(3),
        ErrorKind::InvalidModel,
        &["says 3 bytes", "has 10 in all"],
    );
}

#[test]
fn st_03_header_that_is_no_json_object() {
    rejected(
        &[3, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFE, 0xFD],
        ErrorKind::InvalidModel,
        &["json"],
    );
    for text in ["", "   ", "{", "not json", "{} {}", "{\"a\": NaN}"] {
        rejected(&safetensors(text, 0), ErrorKind::InvalidModel, &["json"]);
    }
    rejected(
        &safetensors("[1]", 0),
        ErrorKind::InvalidModel,
        &["not a json object"],
    );
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    rejected(
        &safetensors(&format!("{{\"a\": {deep}}}"), 0),
        ErrorKind::InvalidModel,
        &["deep"],
    );
}

#[test]
fn st_04_offsets_overlap_or_leave_holes() {
    let two = |begin: u64| header(&json!({"a": f32_entry(&[2], 0), "b": f32_entry(&[2], begin)}));
    assert!(open(&safetensors(&two(8), 16)).is_ok());
    rejected(
        &safetensors(&two(4), 16),
        ErrorKind::InvalidModel,
        &["\"b\"", "overlaps"],
    );
    rejected(
        &safetensors(&two(12), 20),
        ErrorKind::InvalidModel,
        &["\"b\"", "hole"],
    );
    rejected(
        &safetensors(&two(8), 12),
        ErrorKind::InvalidModel,
        &["download it again"],
    );
    let offsets = |offsets: Value| {
        header(&json!({"a": {"dtype": "F32", "shape": [2], "data_offsets": offsets}}))
    };
    for bad in [
        json!([8, 0]),
        json!([-8, 0]),
        json!([0]),
        json!([0, 8, 16]),
        json!("0"),
        json!([0.5, 8]),
        json!(null),
    ] {
        rejected(
            &safetensors(&offsets(bad), 8),
            ErrorKind::InvalidModel,
            &["\"a\"", "data_offsets"],
        );
    }
    rejected(
        &safetensors(&offsets(json!([u64::MAX - 7, u64::MAX])), 8),
        ErrorKind::InvalidModel,
        &["\"a\""],
    );
}

#[test]
fn st_05_shape_and_extent_disagree() {
    let shape = |shape: Value, end: u64| {
        safetensors(
            &header(&json!({"a": {"dtype": "F32", "shape": shape, "data_offsets": [0, end]}})),
            end as usize,
        )
    };
    rejected(
        &shape(json!([3]), 8),
        ErrorKind::InvalidModel,
        &["\"a\"", "needs 12 bytes", "give 8"],
    );
    rejected(
        &shape(json!([1_u64 << 62, 8]), 8),
        ErrorKind::InvalidModel,
        &["overflows"],
    );
    rejected(&shape(json!([-1]), 8), ErrorKind::InvalidModel, &["shape"]);
    rejected(
        &shape(json!([1, 1, 1, 1, 1, 1, 1, 1, 2]), 8),
        ErrorKind::InvalidModel,
        &["dimensions"],
    );
    rejected(
        &shape(json!([0]), 8),
        ErrorKind::InvalidModel,
        &["needs 0 bytes"],
    );
    let empty = open(&shape(json!([0, 5]), 0)).unwrap();
    assert_eq!(empty.info("a").unwrap().shape, [0, 5]);
    assert_eq!(
        empty.dense("a", DType::F32, &Device::Cpu).unwrap().dims(),
        [0, 5]
    );
}

#[test]
fn st_06_types_that_cannot_be_weights() {
    for dtype in ["F8_E4M3", "F8_E5M2", "F4", "F64", "float32", ""] {
        let file = safetensors(
            &header(&json!({"w": {"dtype": dtype, "shape": [0], "data_offsets": [0, 0]}})),
            0,
        );
        rejected(
            &file,
            ErrorKind::Unsupported,
            &[&format!("{dtype:?}"), "\"w\""],
        );
    }
    // An unused counter is harmless, but it is no weight.
    let file = safetensors(
        &header(&json!({"step": {"dtype": "I64", "shape": [1], "data_offsets": [0, 8]}})),
        8,
    );
    let source = open(&file).unwrap();
    assert!(source.names().is_empty() && source.info("step").is_none());
    let error = source.dense("step", DType::F32, &Device::Cpu).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
}

#[test]
fn st_07_a_key_given_twice() {
    let entry = f32_entry(&[2], 0);
    rejected(
        &safetensors(&format!("{{\"a\": {entry}, \"a\": {entry}}}"), 8),
        ErrorKind::InvalidModel,
        &["\"a\"", "twice"],
    );
    let inner = r#"{"a": {"dtype": "F32", "shape": [2], "shape": [1, 2], "data_offsets": [0, 8]}}"#;
    rejected(
        &safetensors(inner, 8),
        ErrorKind::InvalidModel,
        &["\"shape\"", "twice"],
    );
}

#[test]
fn st_08_truncated_file() {
    let file = valid(&["a", "b"]);
    let length = file.len().to_string();
    for kept in [file.len() - 1, file.len() - 30] {
        let found = kept.to_string();
        rejected(
            &file[..kept],
            ErrorKind::InvalidModel,
            &[&length, &found, "download it again"],
        );
    }
    rejected(
        &file[..file.len() / 2],
        ErrorKind::InvalidModel,
        &["download it again"],
    );
}

#[test]
fn st_09_trailing_bytes() {
    let mut file = valid(&["a"]);
    file.push(0);
    rejected(&file, ErrorKind::InvalidModel, &["bytes nobody owns"]);
}

#[test]
fn st_10_file_that_shrinks_is_an_io_error_in_read_mode() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    std::fs::write(&path, valid(&["a"])).unwrap();
    let source = SafetensorsSource::open(&path, Mapping::Read, &Limits::default()).unwrap();
    std::fs::OpenOptions::new()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(20)
        .unwrap();
    let error = source.dense("a", DType::F32, &Device::Cpu).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io, "{error}");
}

#[test]
fn st_11_values_that_are_not_numbers_load() {
    let mut file = valid(&["a"]);
    let end = file.len();
    file[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    file[end - 8..end - 4].copy_from_slice(&f32::INFINITY.to_le_bytes());
    let values = open(&file)
        .unwrap()
        .dense("a", DType::F32, &Device::Cpu)
        .unwrap();
    let values = values.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    assert!(values[5].is_nan() && values[4].is_infinite() && values[0] == 0.0);
}

/// A folder with an index and two shards, `one` with tensor `a` and `two` with tensor `b`.
fn sharded(weight_map: &Value) -> (tempfile::TempDir, Result<Checkpoint, Error>) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("config.json"), "{}").unwrap();
    std::fs::write(folder.path().join("one.safetensors"), valid(&["a"])).unwrap();
    std::fs::write(folder.path().join("two.safetensors"), valid(&["b", "c"])).unwrap();
    let result = with_index(folder.path(), weight_map);
    (folder, result)
}

fn with_index(folder: &Path, weight_map: &Value) -> Result<Checkpoint, Error> {
    let index = json!({"metadata": {"total_size": 72}, "weight_map": weight_map});
    std::fs::write(
        folder.join("model.safetensors.index.json"),
        index.to_string(),
    )
    .unwrap();
    Checkpoint::open(&ModelSource::from_path(folder), &OpenOptions::default())
}

#[test]
fn si_01_shard_names_that_are_paths() {
    let bad = [
        "../x.safetensors",
        "/etc/passwd",
        "C:\\x",
        "a/../../b",
        "",
        "a\0b",
        ".",
        "..",
        "a/b.safetensors",
    ];
    for name in bad {
        let (_folder, result) = sharded(&json!({"a": name}));
        let error = result.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidModel, "{name:?}: {error}");
        assert!(
            error.to_string().contains("not a plain file name"),
            "{error}"
        );
    }
    let (_folder, result) = sharded(&json!({"a": 7}));
    assert_eq!(result.unwrap_err().kind(), ErrorKind::InvalidModel);
}

#[test]
fn si_02_index_and_shards_disagree() {
    let (_folder, missing) = sharded(&json!({"a": "one.safetensors", "b": "three.safetensors"}));
    let missing = missing.unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    assert!(
        missing.to_string().contains("three.safetensors"),
        "{missing}"
    );

    let (_folder, absent) = sharded(&json!({"a": "one.safetensors", "z": "one.safetensors"}));
    let absent = absent.unwrap_err().to_string();
    assert!(
        absent.contains("\"z\"") && absent.contains("in no file"),
        "{absent}"
    );

    let (_folder, elsewhere) = sharded(&json!({"a": "two.safetensors", "b": "one.safetensors"}));
    assert_eq!(elsewhere.unwrap_err().kind(), ErrorKind::InvalidModel);

    let (folder, _) = sharded(&json!({}));
    std::fs::write(folder.path().join("two.safetensors"), valid(&["a", "b"])).unwrap();
    let twice = with_index(
        folder.path(),
        &json!({"a": "one.safetensors", "b": "two.safetensors"}),
    )
    .unwrap_err();
    let twice = twice.to_string();
    assert!(
        twice.contains("\"a\"")
            && twice.contains("one.safetensors")
            && twice.contains("two.safetensors"),
        "{twice}"
    );

    let (_folder, unlisted) = sharded(&json!({"a": "one.safetensors", "b": "two.safetensors"}));
    let tensors = unlisted.unwrap().tensors();
    assert!(tensors.info("b").is_some() && tensors.info("c").is_none());
    let needed = tensors.dense("c", DType::F32, &Device::Cpu).unwrap_err();
    assert!(matches!(needed, Error::MissingTensor { name } if name == "c"));
}

#[cfg(unix)]
#[test]
fn si_03_links_stay_inside_the_repository() {
    use lfm2_hub::Links;
    use std::os::unix::fs::symlink;

    let root = tempfile::tempdir().unwrap();
    let repository = root.path().join("models--org--name");
    let snapshot = repository.join("snapshots").join("0".repeat(40));
    std::fs::create_dir_all(&snapshot).unwrap();
    std::fs::create_dir_all(repository.join("blobs")).unwrap();
    std::fs::write(repository.join("blobs/w"), valid(&["a"])).unwrap();
    std::fs::write(snapshot.join("config.json"), "{}").unwrap();
    symlink("../../blobs/w", snapshot.join("model.safetensors")).unwrap();
    let source = ModelSource::from_path(&*snapshot);
    assert!(Checkpoint::open(&source, &OpenOptions::default()).is_ok());

    std::fs::write(root.path().join("elsewhere"), valid(&["a"])).unwrap();
    std::fs::remove_file(snapshot.join("model.safetensors")).unwrap();
    symlink(
        root.path().join("elsewhere"),
        snapshot.join("model.safetensors"),
    )
    .unwrap();
    let error = Checkpoint::open(&source, &OpenOptions::default()).unwrap_err();
    assert!(error.to_string().contains("link out of"), "{error}");
    assert!(Checkpoint::open(&source, &OpenOptions::default().links(Links::Trusted)).is_ok());
}

#[test]
fn si_04_too_many_shards() {
    let map: serde_json::Map<String, Value> = (0..1001)
        .map(|number| {
            (
                format!("t{number}"),
                json!(format!("s{number}.safetensors")),
            )
        })
        .collect();
    let (_folder, result) = sharded(&Value::Object(map));
    let error = result.unwrap_err();
    assert!(
        matches!(
            &error,
            Error::Limit {
                limit: 1000,
                found: 1001,
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn tensors_over_the_limit_are_refused() {
    let mut limits = Limits::default();
    limits.tensors = 1;
    let error = SafetensorsSource::from_bytes("memory", valid(&["a", "b"]), &limits).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Limit);
}

#[test]
fn folder_without_weights_opens_only_its_info() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(
        folder.path().join("config.json"),
        r#"{"model_type": "lfm2"}"#,
    )
    .unwrap();
    let source = ModelSource::from_path(folder.path());
    let info = lfm2_hub::CheckpointInfo::open(&source, &OpenOptions::default()).unwrap();
    assert_eq!(info.config()["model_type"], "lfm2");
    assert_eq!(
        Checkpoint::open(&source, &OpenOptions::default())
            .unwrap_err()
            .kind(),
        ErrorKind::NotFound
    );
    write_checkpoint(folder.path());
    assert!(Checkpoint::open(&source, &OpenOptions::default()).is_ok());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever happens to a file, it opens and all its tensors can be read, or it is refused.
    #[test]
    fn damaged_files_never_panic(position in 0_usize..200, byte: u8, cut in 0_usize..200, insert: bool) {
        let mut file = valid(&["a", "b"]);
        let position = position % file.len();
        if insert { file.insert(position, byte) } else { file[position] = byte }
        file.truncate(file.len() - (cut / 20).min(file.len()));
        if let Ok(source) = SafetensorsSource::from_bytes("memory", file, &Limits::default()) {
            for name in source.names() {
                prop_assert!(source.dense(&name, DType::F32, &Device::Cpu).is_ok());
            }
        }
    }

    /// What we write, the reference implementation and we read alike.
    #[test]
    fn written_files_read_back(rows in 1_usize..5, columns in 1_usize..5, seed in 0_u8..200) {
        use candle_core::Tensor;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.safetensors");
        let values: Vec<f32> = (0..rows * columns).map(|i| i as f32 + f32::from(seed)).collect();
        let wide = Tensor::from_vec(values.clone(), (rows, columns), &Device::Cpu).unwrap();
        let narrow = wide.to_dtype(DType::BF16).unwrap();
        let metadata = [("format".to_owned(), "pt".to_owned())].into();
        lfm2_hub::write_safetensors(&path, [("narrow", &narrow), ("wide", &wide)], &metadata, lfm2_hub::Overwrite::Refuse).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let reference = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let view = reference.tensor("narrow").unwrap();
        prop_assert_eq!(view.shape(), &[rows, columns]);
        let source = SafetensorsSource::open(&path, Mapping::Read, &Limits::default()).unwrap();
        prop_assert_eq!(source.info("narrow").unwrap().stored, StoredType::Dense(DType::BF16));
        let read = source.dense("wide", DType::F32, &Device::Cpu).unwrap();
        prop_assert_eq!(read.flatten_all().unwrap().to_vec1::<f32>().unwrap(), values);
    }
}
