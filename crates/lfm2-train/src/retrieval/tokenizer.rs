//! Training the tokenizer of a small retrieval model.
//!
//! A vocabulary of a few thousand tokens has no room for several spellings of a word. So capital
//! letters become small ones, and a word is the same whether a blank, a bracket or a hyphen stands in
//! front of it or it begins the text.

use std::collections::BTreeMap;

use lfm2_hub::Tokenizer;
use serde_json::json;

use crate::Result;
use crate::bpe;

/// How often a word counts in training, as a power of how often it occurs. Below 1, parts that many rare
/// words share win over whole frequent words, and words that are in none of the texts have shorter
/// spellings.
const DAMPING: f64 = 0.5;

/// What is a word: letters with their marks, up to three digits, or any other character.
const WORDS: &str = r"[\p{L}\p{M}]+|\p{N}{1,3}|[^\s\p{L}\p{M}\p{N}]";

/// How often each word occurs in small letters, and each of the common marks.
pub(crate) fn count<'a>(texts: impl Iterator<Item = &'a str>) -> BTreeMap<String, usize> {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for text in texts {
        let marks = text.matches(|c: char| c.is_ascii_punctuation());
        let words = text.split(|c: char| !c.is_alphanumeric());
        for word in words.chain(marks).filter(|word| !word.is_empty()) {
            *counts.entry(word.to_lowercase()).or_default() += 1;
        }
    }
    counts
}

/// Trains a tokenizer of at most `vocab_size` tokens on words that occur as often as `counts` says; the
/// last tokens are `prefixes`.
///
/// # Errors
/// As [`train_tokenizer`](crate::train_tokenizer).
pub(crate) fn train(
    counts: &BTreeMap<String, usize>,
    vocab_size: usize,
    prefixes: &[&str],
) -> Result<Tokenizer> {
    let mut form = bpe::untrained();
    form["normalizer"] = json!({"type": "Lowercase"});
    form["pre_tokenizer"] = json!({"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": WORDS}, "behavior": "Removed", "invert": true},
        {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": false},
    ]});
    let words = vocab_size.saturating_sub(prefixes.len());
    // A single occurrence is a name or a slip as often as not.
    let repeated = counts.iter().filter(|(_, count)| **count > 1);
    let texts: Vec<String> = repeated
        .map(|(word, &count)| {
            let times = (count as f64).powf(DAMPING).round() as usize;
            vec![word.as_str(); times].join(" ")
        })
        .collect();
    let trained = bpe::train(&form, texts.iter().map(String::as_str), words)?;
    bpe::with_added(&trained, prefixes, bpe::Added::Text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use lfm2_hub::{Bos, SpecialTokens};

    fn trained() -> Tokenizer {
        let texts = [
            "The flow over a wing.",
            "The flow of heat (flow-rate).",
            "Flow!",
        ];
        train(&count(texts.into_iter()), 400, &["[Q] ", "[D] "]).unwrap()
    }

    fn ids(text: &str) -> Vec<u32> {
        let encoded = trained().encode(text, SpecialTokens::Literal, Bos::Omit);
        encoded.unwrap()
    }

    #[test]
    fn a_word_is_one_token_wherever_it_stands() {
        let flow = ids("flow");
        assert_eq!(flow.len(), 1);
        for text in ["Flow", " FLOW ", "\nflow\t"] {
            assert_eq!(ids(text), flow, "{text:?}");
        }
        for text in ["(flow)", "the flow", "flow-flow", "_flow"] {
            assert!(ids(text).contains(&flow[0]), "{text:?}");
        }
        assert!(ids("flow.").len() > 1 && ids("flow.").starts_with(&flow));
    }

    #[test]
    fn words_and_marks_are_counted() {
        let counts = count(["The Flow, the flow.", "(12)"].into_iter());
        let pairs: Vec<(&str, usize)> = counts.iter().map(|(w, n)| (w.as_str(), *n)).collect();
        let expected = [
            ("(", 1),
            (")", 1),
            (",", 1),
            (".", 1),
            ("12", 1),
            ("flow", 2),
            ("the", 2),
        ];
        assert_eq!(pairs, expected);
    }

    #[test]
    fn prefixes_are_the_last_tokens() {
        let tokenizer = trained();
        let size = tokenizer.vocab_size() as u32;
        assert_eq!(tokenizer.id_of("[Q] "), Some(size - 2));
        assert_eq!(tokenizer.id_of("[D] "), Some(size - 1));
        assert!(!tokenizer.is_special(size - 1) && size <= 400);
    }

    #[test]
    fn every_text_has_tokens() {
        assert!(ids("naïve 東京 1234567 ½ \u{301}").len() >= 10);
        assert!(ids(" \n ").is_empty());
    }
}
