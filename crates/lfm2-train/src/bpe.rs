//! Training a tokenizer of the family's form: byte-level BPE with the family's special tokens.
//!
//! Knows text and files, not models. The `tokenizers` crate counts and merges; what is written down
//! here is the form: the split pattern, the byte alphabet, the special tokens at their ids and the
//! files that stand beside `tokenizer.json` in a checkpoint.

use lfm2_hub::{Limits, Tokenizer};
use serde_json::{Value, json};
use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::BpeTrainer;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, Tokenizer as Trained};

use crate::{Error, Result};

/// The special tokens of the family's 65,536-token vocabulary, in the order of their ids; the last
/// two fill the gap so that ordinary tokens begin at 16.
pub const SPECIAL_TOKENS: [&str; 16] = [
    "<|pad|>",
    "<|startoftext|>",
    "<|endoftext|>",
    "<|fim_pre|>",
    "<|fim_mid|>",
    "<|fim_suf|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|tool_list_start|>",
    "<|tool_list_end|>",
    "<|tool_call_start|>",
    "<|tool_call_end|>",
    "<|tool_response_start|>",
    "<|tool_response_end|>",
    "<|reserved_4|>",
    "<|reserved_5|>",
];

/// Id of the padding token.
pub const PAD: u32 = 0;
/// Id of the token that begins every text.
pub const BOS: u32 = 1;
/// Id of the token that ends a turn or a text.
pub const EOS: u32 = 7;

/// What the config of a model says of its tokenizer.
pub(crate) fn config_facts(tokenizer: &Tokenizer) -> [(&'static str, Value); 4] {
    [
        ("vocab_size", json!(tokenizer.vocab_size())),
        ("bos_token_id", json!(BOS)),
        ("eos_token_id", json!(EOS)),
        ("pad_token_id", json!(PAD)),
    ]
}

/// A chat template in the family's form, with the assistant's words marked for training.
pub const CHAT_TEMPLATE: &str = include_str!("assets/chat_template.jinja");

/// Where words end: the pattern of the family's published tokenizers.
const SPLIT: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Special tokens and the 256 bytes: no vocabulary can be smaller.
pub const SMALLEST_VOCABULARY: usize = SPECIAL_TOKENS.len() + 256;

/// Trains a tokenizer of at most `vocab_size` tokens on `texts`. Equal texts give equal tokenizers.
///
/// A small corpus may run out of pairs to merge and give a smaller vocabulary.
///
/// # Errors
/// [`Error::InvalidOption`] when `vocab_size` is below [`SMALLEST_VOCABULARY`];
/// [`Error::Tokenizer`] when the trainer fails.
pub fn train_tokenizer<'a>(
    texts: impl Iterator<Item = &'a str> + Send,
    vocab_size: usize,
) -> Result<Tokenizer> {
    train(&untrained(), texts, vocab_size)
}

/// [`train_tokenizer`] for a tokenizer of the form `form`, a `tokenizer.json` without a vocabulary.
pub(crate) fn train<'a>(
    form: &Value,
    texts: impl Iterator<Item = &'a str> + Send,
    vocab_size: usize,
) -> Result<Tokenizer> {
    if vocab_size < SMALLEST_VOCABULARY {
        let detail = format!("expected at least {SMALLEST_VOCABULARY}, found {vocab_size}");
        return Err(Error::option("tokenizer.vocab_size", detail));
    }
    let failed = |e: tokenizers::Error| Error::Tokenizer(e.to_string());
    let mut tokenizer = Trained::from_bytes(form.to_string()).map_err(failed)?;
    let trainer = BpeTrainer::builder()
        .vocab_size(vocab_size)
        .min_frequency(2)
        .show_progress(false)
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .special_tokens(
            SPECIAL_TOKENS
                .map(|token| AddedToken::from(token, true))
                .to_vec(),
        )
        .build();
    tokenizer
        .train(&mut TrainerWrapper::BpeTrainer(trainer), texts)
        .map_err(failed)?;
    let json = tokenizer.to_string(true).map_err(failed)?;
    Ok(Tokenizer::from_bytes(json, &Limits::default())?)
}

/// What a token that is added to a vocabulary is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Added {
    /// An ordinary piece of text.
    Text,
    /// A sign that no text has, such as the place of a picture.
    Special,
}

/// The tokenizer with `tokens` behind its vocabulary.
///
/// # Errors
/// When the tokenizer is none that can be read.
pub(crate) fn with_added(tokenizer: &Tokenizer, tokens: &[&str], kind: Added) -> Result<Tokenizer> {
    let unreadable = |e: serde_json::Error| Error::Tokenizer(e.to_string());
    let mut json: Value = serde_json::from_str(&tokenizer.to_json()?).map_err(unreadable)?;
    let Some(added) = json["added_tokens"].as_array_mut() else {
        return Err(Error::Tokenizer("expected a list of added tokens".into()));
    };
    added.extend((tokenizer.vocab_size()..).zip(tokens).map(|(id, text)| {
        json!({
            "id": id, "content": text, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": kind == Added::Special,
        })
    }));
    Ok(Tokenizer::from_bytes(json.to_string(), &Limits::default())?)
}

/// The form of a `tokenizer.json` before its vocabulary is known.
pub(crate) fn untrained() -> Value {
    let byte_level = |use_regex: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": use_regex});
    let bos = json!({"SpecialToken": {"id": SPECIAL_TOKENS[BOS as usize], "type_id": 0}});
    let sequence = |id: &str| json!({"Sequence": {"id": id, "type_id": 0}});
    let bos_id = json!({"id": SPECIAL_TOKENS[BOS as usize], "ids": [BOS], "tokens": [SPECIAL_TOKENS[BOS as usize]]});
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": [],
        "normalizer": null,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": SPLIT}, "behavior": "Isolated", "invert": false},
            byte_level(false),
        ]},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [bos, sequence("A")],
            "pair": [bos, sequence("A"), bos, sequence("B")],
            "special_tokens": {SPECIAL_TOKENS[BOS as usize]: bos_id},
        },
        "decoder": byte_level(true),
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            "vocab": {}, "merges": [],
        },
    })
}

/// The text side of a checkpoint, as file names with contents: `tokenizer.json`,
/// `tokenizer_config.json`, `special_tokens_map.json`, `generation_config.json` and
/// `chat_template.jinja`.
///
/// # Errors
/// [`Error::Hub`] when the tokenizer cannot be written as JSON.
pub fn tokenizer_files(
    tokenizer: &Tokenizer,
    chat_template: &str,
) -> Result<Vec<(String, String)>> {
    let named = |id: u32| SPECIAL_TOKENS[id as usize];
    let map = json!({"bos_token": named(BOS), "eos_token": named(EOS), "pad_token": named(PAD)});
    let ids = (0u32..).take(tokenizer.vocab_size());
    let special = ids.filter(|id| tokenizer.is_special(*id));
    let added = special.map(|id| {
        let entry = json!({
            "content": tokenizer.token_text(id), "lstrip": false, "normalized": false, "rstrip": false, "single_word": false,
            "special": true,
        });
        (id.to_string(), entry)
    });
    let config = json!({
        "add_bos_token": true,
        "add_eos_token": false,
        "added_tokens_decoder": added.collect::<serde_json::Map<_, _>>(),
        "bos_token": named(BOS),
        "clean_up_tokenization_spaces": false,
        "eos_token": named(EOS),
        "pad_token": named(PAD),
        "tokenizer_class": "PreTrainedTokenizerFast",
    });
    let generation = json!({"bos_token_id": BOS, "eos_token_id": EOS, "pad_token_id": PAD});
    let files = [
        ("tokenizer.json", tokenizer.to_json()?),
        ("tokenizer_config.json", format!("{config:#}\n")),
        ("special_tokens_map.json", format!("{map:#}\n")),
        ("generation_config.json", format!("{generation:#}\n")),
        ("chat_template.jinja", chat_template.to_string()),
    ];
    Ok(files.map(|(name, text)| (name.to_string(), text)).to_vec())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use lfm2_hub::{Bos, SpecialTokens, Specials};

    const TEXTS: [&str; 3] = [
        "Once upon a time there was a fox.",
        "The fox was sad. The fox ran.",
        "\"Oh no,\" said the fox.",
    ];

    fn trained() -> Tokenizer {
        train_tokenizer(TEXTS.into_iter(), 300).unwrap()
    }

    #[test]
    fn special_tokens_have_the_familys_ids_and_words_follow() {
        let tokenizer = trained();
        for (id, token) in (0..).zip(SPECIAL_TOKENS) {
            assert_eq!(tokenizer.id_of(token), Some(id), "{token}");
            assert!(tokenizer.is_special(id));
        }
        assert!(!tokenizer.is_special(16));
        assert!(tokenizer.vocab_size() > SMALLEST_VOCABULARY && tokenizer.vocab_size() <= 300);
        assert!(
            tokenizer.id_of("Ġfox").is_some(),
            "a frequent word is one token"
        );
    }

    #[test]
    fn any_text_survives_and_begins_with_the_beginning_token() {
        let tokenizer = trained();
        for text in ["The fox.", "naïve 🦊 \u{0}\r\n\t", "  spaces  "] {
            let ids = tokenizer
                .encode(text, SpecialTokens::Literal, Bos::Add)
                .unwrap();
            assert_eq!(ids[0], BOS);
            assert_eq!(tokenizer.decode(&ids, Specials::Skip).unwrap(), text);
        }
    }

    #[test]
    fn training_twice_gives_the_same_tokenizer() {
        assert_eq!(trained().to_json().unwrap(), trained().to_json().unwrap());
    }

    #[test]
    fn a_vocabulary_without_room_for_bytes_is_refused() {
        assert!(train_tokenizer(TEXTS.into_iter(), 271).is_err());
    }

    #[test]
    fn the_files_of_a_checkpoint_agree_with_each_other() {
        let tokenizer = trained();
        let files: BTreeMap<_, _> = tokenizer_files(&tokenizer, CHAT_TEMPLATE)
            .unwrap()
            .into_iter()
            .collect();
        let json = |name: &str| serde_json::from_str::<Value>(&files[name]).unwrap();
        let read = Tokenizer::from_bytes(&files["tokenizer.json"], &Limits::default()).unwrap();
        let eos = json("generation_config.json")["eos_token_id"]
            .as_u64()
            .unwrap() as u32;
        assert_eq!(
            read.token_text(eos).as_deref(),
            json("tokenizer_config.json")["eos_token"].as_str()
        );
        assert_eq!(
            json("special_tokens_map.json")["bos_token"],
            "<|startoftext|>"
        );
        assert_eq!(
            json("tokenizer_config.json")["added_tokens_decoder"]
                .as_object()
                .unwrap()
                .len(),
            16
        );
    }
}
