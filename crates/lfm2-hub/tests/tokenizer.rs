//! The tokenizer against the reference's ids, and against inputs that try to trick it.
#![allow(clippy::unwrap_used, clippy::panic)] // also in the helpers of tests

mod support;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use lfm2_hub::{Bos, ErrorKind, Limits, SpecialTokens, Specials, Tokenizer};
use proptest::prelude::*;
use serde_json::{Value, json};
use support::tokenizer_json;

/// The committed cases, or all of those in the folder that `LFM2_GOLDEN` names.
fn golden() -> PathBuf {
    lfm2_golden::folder().unwrap_or_else(|| PathBuf::from("tests/golden"))
}

fn folders() -> Result<Vec<PathBuf>> {
    let root = golden().join("text");
    let entries = std::fs::read_dir(&root).with_context(|| root.display().to_string())?;
    Ok(entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?)
}

fn small() -> Tokenizer {
    Tokenizer::from_bytes(tokenizer_json(), &Limits::default()).unwrap()
}

fn ids(value: &Value) -> Result<Vec<u32>> {
    Ok(serde_json::from_value(value.clone())?)
}

#[test]
fn golden_texts_have_the_reference_ids_and_come_back() -> Result<()> {
    let mut cases = 0;
    for folder in folders()? {
        let (tokenizer, golden) = (folder.join("tokenizer.json"), folder.join("golden.json"));
        if !tokenizer.is_file() || !golden.is_file() {
            continue;
        }
        let golden: Value = serde_json::from_slice(&std::fs::read(&golden)?)?;
        let tokenizer = Tokenizer::from_file(&tokenizer, &Limits::default())?;
        for case in golden["tokenizer"].as_array().into_iter().flatten() {
            check_case(&tokenizer, case)
                .with_context(|| format!("{} {}", folder.display(), case["text"]))?;
            cases += 1;
        }
        for case in golden["chat"].as_array().into_iter().flatten() {
            let prompt = case["prompt"].as_str().context("prompt")?;
            assert_eq!(
                tokenizer.encode(prompt, SpecialTokens::Parse, Bos::Omit)?,
                ids(&case["ids"])?,
                "{prompt:?}"
            );
        }
    }
    assert!(cases > 0, "no tokenizer cases under {}", golden().display());
    Ok(())
}

fn check_case(tokenizer: &Tokenizer, case: &Value) -> Result<()> {
    let text = case["text"].as_str().context("text")?;
    let with_bos = ids(&case["ids"])?;
    assert_eq!(
        tokenizer.encode(text, SpecialTokens::Parse, Bos::Add)?,
        with_bos
    );
    assert_eq!(
        tokenizer.encode(text, SpecialTokens::Parse, Bos::Omit)?,
        ids(&case["ids_no_special"])?
    );
    assert_eq!(
        tokenizer.decode(&with_bos, Specials::Keep)?,
        case["decoded"].as_str().context("decoded")?
    );
    let skipped = case["decoded_skip_special"]
        .as_str()
        .context("decoded_skip_special")?;
    assert_eq!(tokenizer.decode(&with_bos, Specials::Skip)?, skipped);
    let joined: Vec<u8> = with_bos
        .iter()
        .map(|id| tokenizer.token_bytes(*id))
        .collect::<Result<Vec<_>, _>>()?
        .concat();
    assert_eq!(
        String::from_utf8(joined)?,
        case["decoded"].as_str().context("decoded")?
    );
    // Spelled literally, the same text has no special token and is still the same text.
    let literal = tokenizer.encode(text, SpecialTokens::Literal, Bos::Omit)?;
    assert!(
        literal.iter().all(|id| !tokenizer.is_special(*id)),
        "{literal:?}"
    );
    assert_eq!(tokenizer.decode(&literal, Specials::Skip)?, text);
    Ok(())
}

#[test]
fn tk_01_files_that_are_no_byte_level_bpe() {
    let open = |text: &str| Tokenizer::from_bytes(text, &Limits::default());
    for text in [
        "",
        "{",
        "[]",
        "{}",
        "{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": -1}, \"merges\": []}}",
    ] {
        assert_eq!(
            open(text).unwrap_err().kind(),
            ErrorKind::InvalidModel,
            "{text:?}"
        );
    }
    let valid: Value = serde_json::from_str(&tokenizer_json()).unwrap();
    let with = |pointer: &str, value: Value| {
        let mut changed = valid.clone();
        *changed.pointer_mut(pointer).unwrap() = value;
        open(&changed.to_string()).unwrap_err().kind()
    };
    let unigram = json!({"type": "Unigram", "unk_id": 0, "vocab": [["<s>", 0.0], ["a", -1.0]], "byte_fallback": false});
    assert_eq!(with("/model", unigram), ErrorKind::Unsupported);
    assert_eq!(with("/decoder", Value::Null), ErrorKind::Unsupported);
    let split = json!({"type": "Split", "pattern": {"Regex": "(unclosed"}, "behavior": "Isolated", "invert": false});
    assert_eq!(with("/pre_tokenizer", split), ErrorKind::InvalidModel);
    assert_eq!(
        with("/model/merges", json!([["a", "nothing"]])),
        ErrorKind::InvalidModel
    );
}

#[test]
fn sizes_over_the_limits_are_refused() {
    let mut limits = Limits::default();
    limits.tokenizer_bytes = 10;
    assert_eq!(
        Tokenizer::from_bytes(tokenizer_json(), &limits)
            .unwrap_err()
            .kind(),
        ErrorKind::Limit
    );
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokenizer.json");
    std::fs::write(&path, tokenizer_json()).unwrap();
    assert_eq!(
        Tokenizer::from_file(&path, &limits).unwrap_err().kind(),
        ErrorKind::Limit
    );
    let mut limits = Limits::default();
    limits.vocabulary = 10;
    assert_eq!(
        Tokenizer::from_bytes(tokenizer_json(), &limits)
            .unwrap_err()
            .kind(),
        ErrorKind::Limit
    );
    // An id near 2^32 must not become a table of that size.
    let sparse = tokenizer_json().replace("\"ab\":10", "\"ab\":4294967295");
    assert_eq!(
        Tokenizer::from_bytes(sparse, &Limits::default())
            .unwrap_err()
            .kind(),
        ErrorKind::Limit
    );
}

#[test]
fn tk_03_worst_cases_for_bpe_are_bounded() -> Result<()> {
    let limits = Limits::default();
    let tokenizer = Tokenizer::from_file(&golden().join("text/common/tokenizer.json"), &limits)?;
    for unit in [
        "a", " ", "e\u{301}", "\u{301}", "🙂", "ab", "\n", "1", "'", "<|im_",
    ] {
        let text = unit.repeat(limits.encode_bytes / unit.len());
        let start = Instant::now();
        let ids = tokenizer.encode(&text, SpecialTokens::Parse, Bos::Omit)?;
        assert!(
            start.elapsed() < Duration::from_secs(2),
            "{unit:?} took {:?}",
            start.elapsed()
        );
        assert_eq!(tokenizer.decode(&ids, Specials::Keep)?, text, "{unit:?}");
    }
    let over = "a".repeat(10 << 20);
    let error = tokenizer
        .encode(&over, SpecialTokens::Parse, Bos::Omit)
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Limit);
    Ok(())
}

#[test]
fn tk_04_unusual_characters_survive() -> Result<()> {
    let tokenizer = Tokenizer::from_file(
        &golden().join("text/common/tokenizer.json"),
        &Limits::default(),
    )?;
    for text in [
        "\0",
        "\u{FFFD}",
        "\u{202E}abc",
        "\u{10FFFF}",
        "a\u{0}b",
        "\u{FEFF}x",
    ] {
        let ids = tokenizer.encode(text, SpecialTokens::Parse, Bos::Omit)?;
        assert_eq!(tokenizer.decode(&ids, Specials::Keep)?, text, "{text:?}");
    }
    Ok(())
}

#[test]
fn tk_06_literal_text_cannot_spell_a_special_token() -> Result<()> {
    let tokenizer = small();
    assert_eq!(
        tokenizer.encode("a<e>b", SpecialTokens::Parse, Bos::Omit)?,
        [2, 1, 3]
    );
    assert_eq!(
        tokenizer.encode("a<e>b", SpecialTokens::Literal, Bos::Omit)?,
        [2, 6, 9, 7, 3]
    );
    // The beginning-of-sequence token is ours and not the text's.
    assert_eq!(
        tokenizer.encode("<s>ab", SpecialTokens::Literal, Bos::Add)?,
        [0, 6, 8, 7, 10]
    );
    Ok(())
}

#[test]
fn tk_07_ids_outside_the_vocabulary() {
    let tokenizer = small();
    for id in [11, u32::MAX] {
        for result in [
            tokenizer.decode(&[2, id], Specials::Skip).map(drop),
            tokenizer.token_bytes(id).map(drop),
        ] {
            let error = result.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(error.to_string().contains(&id.to_string()), "{error}");
        }
        assert!(!tokenizer.is_special(id));
    }
}

#[test]
fn vocabulary_can_be_asked() {
    let tokenizer = small();
    assert_eq!(tokenizer.vocab_size(), 11);
    assert_eq!(tokenizer.id_of("<e>"), Some(1));
    assert_eq!(tokenizer.id_of("nothing"), None);
    assert_eq!(tokenizer.token_text(10).as_deref(), Some("ab"));
    assert_eq!(tokenizer.special_ids(), [0, 1]);
}

#[test]
fn truncation_in_a_file_does_not_shorten_text() {
    let mut file: Value = serde_json::from_str(&tokenizer_json()).unwrap();
    file["truncation"] =
        json!({"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0});
    let tokenizer = Tokenizer::from_bytes(file.to_string(), &Limits::default()).unwrap();
    assert_eq!(
        tokenizer
            .encode("abcd", SpecialTokens::Parse, Bos::Add)
            .unwrap(),
        [0, 10, 4, 5]
    );
}

#[test]
fn a_tokenizer_written_and_read_is_the_same() {
    let again = Tokenizer::from_bytes(small().to_json().unwrap(), &Limits::default()).unwrap();
    let encode = |tokenizer: &Tokenizer| {
        tokenizer
            .encode("abc<e>d", SpecialTokens::Parse, Bos::Add)
            .unwrap()
    };
    assert_eq!(encode(&again), encode(&small()));
    assert!(Path::new("tests/golden").is_dir());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Any text comes back from its ids, in both readings, and joined bytes are the text.
    #[test]
    fn any_text_comes_back(text in "(\\PC|<\\|im_end\\|>|\n| ){0,40}") {
        let path = golden().join("text/common/tokenizer.json");
        thread_local!(static SHARED: std::cell::OnceCell<Tokenizer> = const { std::cell::OnceCell::new() });
        let tokenizer = SHARED.with(|cell| {
            cell.get_or_init(|| Tokenizer::from_file(&path, &Limits::default()).unwrap()).clone()
        });
        for special in [SpecialTokens::Parse, SpecialTokens::Literal] {
            let ids = tokenizer.encode(&text, special, Bos::Omit).unwrap();
            prop_assert_eq!(&tokenizer.decode(&ids, Specials::Keep).unwrap(), &text);
            if special == SpecialTokens::Literal {
                prop_assert!(ids.iter().all(|id| !tokenizer.is_special(*id)));
            }
        }
    }
}
