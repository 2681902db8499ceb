//! Config files that must be refused before anybody asks what they mean.
#![allow(clippy::unwrap_used, clippy::panic)] // also in the helpers of tests

use proptest::prelude::*;

use lfm2_hub::{CheckpointInfo, Error, ErrorKind, Limits, ModelSource, OpenOptions};

fn open_with(config: &[u8], options: &OpenOptions) -> Result<CheckpointInfo, Error> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("config.json"), config).unwrap();
    CheckpointInfo::open(&ModelSource::from_path(folder.path()), options)
}

fn open(config: &[u8]) -> Result<CheckpointInfo, Error> {
    open_with(config, &OpenOptions::default())
}

#[track_caller]
fn rejected(config: &[u8], part: &str) {
    let error = open(config).expect_err("the config is bad");
    assert_eq!(error.kind(), ErrorKind::InvalidModel, "{error}");
    let text = error.to_string();
    assert!(
        text.contains("config.json") && text.contains(part),
        "{text:?} lacks {part:?}"
    );
}

#[test]
fn cf_01_missing_file_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let error = CheckpointInfo::open(
        &ModelSource::from_path(folder.path()),
        &OpenOptions::default(),
    )
    .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("config.json"), "{error}");
}

#[test]
fn cf_01_empty_comments_and_garbage() {
    rejected(b"", "empty");
    rejected(b" \n", "empty");
    rejected(b"\xEF\xBB\xBF", "empty");
    rejected(b"{\"a\": 1 // why\n}", "line 1");
    rejected(b"{\"a\": 1,}", "json");
    rejected(b"{} {}", "json");
    rejected(b"{\"a\": \xFF}", "json");
}

#[test]
fn cf_01_byte_order_mark_is_skipped() {
    let info = open(b"\xEF\xBB\xBF{\"hidden_size\": 64}").unwrap();
    assert_eq!(info.config()["hidden_size"], 64);
}

#[test]
fn cf_01_duplicate_keys_on_any_level() {
    rejected(br#"{"a": 1, "a": 1}"#, "\"a\" is given twice");
    rejected(
        br#"{"x": [{"deep": 1, "deep": 2}]}"#,
        "\"deep\" is given twice",
    );
    // Escapes spell the same key.
    rejected(br#"{"a": 1, "\u0061": 2}"#, "\"a\" is given twice");
    assert!(open(br#"{"x": {"a": 1}, "y": {"a": 1}}"#).is_ok());
}

#[test]
fn cf_01_too_deep_or_too_large() {
    let nested = |depth: usize| format!("{}1{}", "[".repeat(depth), "]".repeat(depth)).into_bytes();
    assert!(open(&nested(64)).is_ok());
    rejected(&nested(65), "deep");
    rejected(&nested(100_000), "json");
    let mut limits = Limits::default();
    limits.json_bytes = 16;
    let options = OpenOptions::default().limits(limits);
    assert!(open_with(b"{\"a\": 1}", &options).is_ok());
    let error = open_with(b"{\"aaaaaaaaaaaa\": 1}", &options).unwrap_err();
    assert!(
        matches!(
            &error,
            Error::Limit {
                limit: 16,
                found: 19,
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn cf_10_unknown_keys_are_kept() {
    let info = open(br#"{"anything": {"goes": [1, 2.5, null, true]}}"#).unwrap();
    assert_eq!(info.config()["anything"]["goes"][1], 2.5);
}

#[test]
fn cf_13_numbers_that_no_type_holds() {
    for number in [
        "1e400",
        "-1e400",
        "-0",
        "-0.0",
        "1180591620717411303424",
        "1e30",
        "NaN",
        "Infinity",
        "0x10",
        "01",
    ] {
        rejected(format!("{{\"hidden_size\": {number}}}").as_bytes(), "json");
    }
    let info = open(br#"{"a": 18446744073709551615, "b": -1, "c": 1e-5, "d": 1000000.0}"#).unwrap();
    assert_eq!(info.config()["a"].as_u64(), Some(u64::MAX));
    assert_eq!(info.config()["c"].as_f64(), Some(1e-5));
}

#[test]
fn tokenizer_config_may_say_unlimited() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("config.json"), "{}").unwrap();
    let text = r#"{"model_max_length": 1000000000000000019884624838656, "chat_template": "x"}"#;
    std::fs::write(folder.path().join("tokenizer_config.json"), text).unwrap();
    let info = CheckpointInfo::open(
        &ModelSource::from_path(folder.path()),
        &OpenOptions::default(),
    )
    .unwrap();
    assert_eq!(info.chat_template().unwrap().as_deref(), Some("x"));
}

#[test]
fn chat_template_file_wins_over_the_config() {
    let folder = tempfile::tempdir().unwrap();
    let open = || {
        CheckpointInfo::open(
            &ModelSource::from_path(folder.path()),
            &OpenOptions::default(),
        )
        .unwrap()
    };
    let configured =
        |text: &str| std::fs::write(folder.path().join("tokenizer_config.json"), text).unwrap();
    std::fs::write(folder.path().join("config.json"), "{}").unwrap();
    assert_eq!(open().chat_template().unwrap(), None);
    configured(
        r#"{"chat_template": [{"name": "rag", "template": "r"}, {"name": "default", "template": "d"}]}"#,
    );
    assert_eq!(open().chat_template().unwrap().as_deref(), Some("d"));
    configured(r#"{"chat_template": [{"name": "rag", "template": "r"}]}"#);
    assert_eq!(open().chat_template().unwrap().as_deref(), Some("r"));
    for bad in [
        r#"{"chat_template": 7}"#,
        r#"{"chat_template": []}"#,
        r#"{"chat_template": [{"name": "default"}]}"#,
    ] {
        configured(bad);
        assert_eq!(
            open().chat_template().unwrap_err().kind(),
            ErrorKind::InvalidModel,
            "{bad}"
        );
    }
    std::fs::write(folder.path().join("chat_template.jinja"), "file").unwrap();
    assert_eq!(open().chat_template().unwrap().as_deref(), Some("file"));
    std::fs::write(
        folder.path().join("chat_template.jinja"),
        "x".repeat(300_000),
    )
    .unwrap();
    assert_eq!(open().chat_template().unwrap_err().kind(), ErrorKind::Limit);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Any text is a config or a typed error, and what is accepted is what serde_json reads.
    #[test]
    fn any_text_is_read_or_refused(text in r#"[\[\]{}",:0-9eE.\\ a-c\-]{0,40}"#) {
        if let Ok(info) = open(text.as_bytes()) {
            let reference: serde_json::Value = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(info.config(), &reference);
        }
    }

    /// A document that serde_json wrote comes back whole.
    #[test]
    fn valid_configs_come_back(keys in proptest::collection::btree_map("[a-z\\\\\"é]{1,6}", any::<i64>(), 0..8)) {
        let value = serde_json::json!({ "outer": keys });
        let info = open(value.to_string().as_bytes()).unwrap();
        prop_assert_eq!(info.config(), &value);
    }
}
