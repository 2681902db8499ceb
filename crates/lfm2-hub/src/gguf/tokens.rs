//! The tokenizer inside a GGUF file: read into a [`tokenizers::Tokenizer`], written from a
//! `tokenizer.json`.
//!
//! The format stores the vocabulary, the merges and the *name* of the way text is split before
//! merging. Only the name `lfm2` is known here; any other is refused, as a wrong split gives
//! plausible but wrong ids.

use std::collections::HashSet;

use serde::de::DeserializeOwned;
use serde_json::{Value as Json, json};
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::{
    AddedToken, DecoderWrapper, PostProcessorWrapper, PreTokenizerWrapper, Tokenizer,
};

use super::metadata::{Array, Metadata, Value};
use crate::{Error, Limits, Result};

pub(super) const TOKENS_KEY: &str = "tokenizer.ggml.tokens";
const MODEL_KEY: &str = "tokenizer.ggml.model";
const PRE_KEY: &str = "tokenizer.ggml.pre";
const TYPES_KEY: &str = "tokenizer.ggml.token_type";
const MERGES_KEY: &str = "tokenizer.ggml.merges";
const IGNORE_MERGES_KEY: &str = "tokenizer.ggml.ignore_merges";
const BOS_KEY: &str = "tokenizer.ggml.bos_token_id";
const EOS_KEY: &str = "tokenizer.ggml.eos_token_id";
const EOT_KEY: &str = "tokenizer.ggml.eot_token_id";
const PAD_KEY: &str = "tokenizer.ggml.padding_token_id";
const ADD_BOS_KEY: &str = "tokenizer.ggml.add_bos_token";
const TEMPLATE_KEY: &str = "tokenizer.chat_template";

/// What `tokenizer.ggml.model` says for byte-level BPE.
const MODEL: &str = "gpt2";
/// The name of the family's way to split text.
const PRE: &str = "lfm2";
/// How the family splits text before merging.
const SPLIT: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// The `token_type` numbers.
const NORMAL: i32 = 1;
const UNKNOWN: i32 = 2;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
const UNUSED: i32 = 5;
const BYTE: i32 = 6;

/// The ids that frame a text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TokenIds {
    /// The token every text begins with.
    pub bos: Option<u32>,
    /// The tokens that end a text, the usual one first.
    pub eos: Vec<u32>,
    /// The token that fills up batches.
    pub pad: Option<u32>,
}

impl TokenIds {
    /// The ids in a file's metadata.
    ///
    /// # Errors
    /// [`Error::InvalidFile`] for an id outside the vocabulary or of a wrong type.
    pub(super) fn from_metadata(metadata: &Metadata) -> Result<Self> {
        let size = match metadata.get(TOKENS_KEY) {
            Some(_) => metadata.strings(TOKENS_KEY)?.len(),
            None => usize::MAX,
        };
        let id = |key: &str| -> Result<Option<u32>> {
            let Some(id) = metadata.usize_opt(key)? else {
                return Ok(None);
            };
            let valid = u32::try_from(id).ok().filter(|_| id < size);
            let outside = || {
                metadata.invalid(format!(
                    "metadata key \"{key}\": {id} is outside the vocabulary of {size}"
                ))
            };
            valid.map(Some).ok_or_else(outside)
        };
        let mut eos: Vec<u32> = [id(EOS_KEY)?, id(EOT_KEY)?].into_iter().flatten().collect();
        eos.dedup();
        Ok(Self {
            bos: id(BOS_KEY)?,
            eos,
            pad: id(PAD_KEY)?,
        })
    }

    /// The ids of a `generation_config.json`, and where that is silent of a `config.json`.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`] for ids that are no ids.
    pub(super) fn from_configs(generation: Option<&Json>, config: &Json) -> Result<Self> {
        let ids = |key: &str| -> Result<Vec<u32>> {
            let found = [generation, Some(config)]
                .into_iter()
                .flatten()
                .map(|c| &c[key])
                .find(|v| !v.is_null());
            let list = match found {
                None => return Ok(Vec::new()),
                Some(Json::Array(list)) => list.as_slice(),
                Some(one) => std::slice::from_ref(one),
            };
            let id = |value: &Json| {
                let id = value.as_u64().and_then(|id| u32::try_from(id).ok());
                id.ok_or_else(|| Error::config(key, format!("expected a token id, found {value}")))
            };
            list.iter().map(id).collect()
        };
        let first = |ids: Vec<u32>| ids.first().copied();
        Ok(Self {
            bos: first(ids("bos_token_id")?),
            eos: ids("eos_token_id")?,
            pad: first(ids("pad_token_id")?),
        })
    }
}

/// The chat template of a file.
///
/// # Errors
/// [`Error::InvalidFile`] when it is no string, [`Error::Limit`].
pub(super) fn chat_template<'a>(
    metadata: &'a Metadata,
    limits: &Limits,
) -> Result<Option<&'a str>> {
    let template = metadata.str_opt(TEMPLATE_KEY)?;
    let found = template.map_or(0, |text| text.len() as u64);
    if found > limits.chat_template_bytes {
        let what = format!("{}: bytes of the chat template", metadata.path().display());
        return Err(Error::Limit {
            what,
            limit: limits.chat_template_bytes,
            found,
        });
    }
    Ok(template)
}

/// Builds the tokenizer of a file.
///
/// Merges are applied to every word, also to one that is a token as a whole: that is what the
/// published `tokenizer.json` files of the family say (`ignore_merges: false`). Other programs that
/// read GGUF look whole words up first; for a vocabulary made by byte-pair training both give the
/// same ids. A file can ask for the look-up with `tokenizer.ggml.ignore_merges`.
///
/// # Errors
/// [`Error::Unsupported`] for another kind of tokenizer, [`Error::InvalidFile`] for a vocabulary
/// that contradicts itself, [`Error::Limit`].
pub(super) fn tokenizer(metadata: &Metadata, limits: &Limits) -> Result<Tokenizer> {
    require(metadata, MODEL_KEY, MODEL)?;
    require(metadata, PRE_KEY, PRE)?;
    let tokens = metadata.strings(TOKENS_KEY)?;
    if tokens.len() > limits.vocabulary {
        let what = format!("{}: vocabulary", metadata.path().display());
        return Err(Error::Limit {
            what,
            limit: limits.vocabulary as u64,
            found: tokens.len() as u64,
        });
    }
    let types = token_types(metadata, tokens)?;
    let vocabulary = vocabulary(metadata, tokens, &types)?;
    let merges = merges(metadata, &vocabulary)?;
    let ids = TokenIds::from_metadata(metadata)?;
    let broken = |error: tokenizers::Error| metadata.invalid(format!("tokenizer: {error}"));

    let model = BPE::builder()
        .vocab_and_merges(vocabulary, merges)
        .ignore_merges(metadata.bool_opt(IGNORE_MERGES_KEY)?.unwrap_or(false))
        .build()
        .map_err(broken)?;
    let mut tokenizer = Tokenizer::new(model);
    tokenizer.with_pre_tokenizer(Some(part::<PreTokenizerWrapper>(pre_tokenizer())?));
    tokenizer.with_decoder(Some(part::<DecoderWrapper>(byte_level(true))?));
    tokenizer.with_post_processor(Some(part::<PostProcessorWrapper>(post_processor(
        metadata, tokens, &ids,
    )?)?));
    let added = tokens
        .iter()
        .zip(&types)
        .filter_map(|(token, kind)| match *kind {
            CONTROL | UNKNOWN => Some(AddedToken::from(token.clone(), true)),
            USER_DEFINED => Some(AddedToken::from(token.clone(), false)),
            _ => None,
        });
    tokenizer
        .add_tokens(added.map(|token| token.normalized(false)))
        .map_err(broken)?;
    Ok(tokenizer)
}

fn require(metadata: &Metadata, key: &str, expected: &str) -> Result<()> {
    let found = metadata.str(key)?;
    if found == expected {
        return Ok(());
    }
    Err(Error::Unsupported {
        what: format!("\"{found}\" as \"{key}\" of {}", metadata.path().display()),
        hint: format!("LFM2 models have \"{expected}\""),
    })
}

fn token_types(metadata: &Metadata, tokens: &[String]) -> Result<Vec<i32>> {
    let types = metadata.integers_opt(TYPES_KEY)?;
    let types = types
        .ok_or_else(|| metadata.invalid(format!("metadata key \"{TYPES_KEY}\" is missing")))?;
    if types.len() != tokens.len() {
        let (expected, found) = (tokens.len(), types.len());
        return Err(metadata.invalid(format!(
            "metadata key \"{TYPES_KEY}\": expected {expected} values, found {found}"
        )));
    }
    let known = |(id, kind): (usize, i64)| match i32::try_from(kind) {
        Ok(BYTE) => {
            let text = tokens.get(id).map_or("", String::as_str);
            Err(metadata.invalid(format!(
                "token {id} {text:?}: byte tokens do not belong into a byte-level vocabulary"
            )))
        }
        Ok(kind @ NORMAL..=UNUSED) => Ok(kind),
        _ => Err(metadata.invalid(format!(
            "metadata key \"{TYPES_KEY}\": unknown type {kind} of token {id}"
        ))),
    };
    types.into_iter().enumerate().map(known).collect()
}

/// The tokens that are in use, with their ids. The others are names of spare rows of the embedding.
fn vocabulary(metadata: &Metadata, tokens: &[String], types: &[i32]) -> Result<Vocab> {
    let mut vocabulary = Vocab::with_capacity(tokens.len());
    for ((id, token), kind) in (0u32..).zip(tokens).zip(types) {
        if *kind == UNUSED {
            continue;
        }
        if let Some(first) = vocabulary.insert(token.clone(), id) {
            return Err(metadata.invalid(format!("tokens {first} and {id} are both {token:?}")));
        }
    }
    Ok(vocabulary)
}

fn merges(metadata: &Metadata, vocabulary: &Vocab) -> Result<Vec<(String, String)>> {
    let merges = metadata.strings(MERGES_KEY)?;
    let mut pairs = Vec::with_capacity(merges.len());
    for (rank, merge) in merges.iter().enumerate() {
        let Some((left, right)) = merge.split_once(' ') else {
            return Err(metadata.invalid(format!("merge {rank} {merge:?} has no space")));
        };
        for token in [left, right, &format!("{left}{right}")] {
            if !vocabulary.contains_key(token) {
                return Err(metadata.invalid(format!(
                    "merge {rank} {merge:?}: {token:?} is not in the vocabulary"
                )));
            }
        }
        pairs.push((left.to_owned(), right.to_owned()));
    }
    Ok(pairs)
}

/// A part of a tokenizer from the way `tokenizer.json` spells it.
fn part<T: DeserializeOwned>(json: Json) -> Result<T> {
    serde_json::from_value(json).map_err(|error| Error::InvalidInput(format!("tokenizer: {error}")))
}

fn byte_level(trim_offsets: bool) -> Json {
    json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": trim_offsets, "use_regex": false})
}

fn pre_tokenizer() -> Json {
    json!({"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": SPLIT}, "behavior": "Isolated", "invert": false},
        byte_level(true),
    ]})
}

fn post_processor(metadata: &Metadata, tokens: &[String], ids: &TokenIds) -> Result<Json> {
    if !metadata.bool_opt(ADD_BOS_KEY)?.unwrap_or(false) {
        return Ok(byte_level(false));
    }
    let bos = ids
        .bos
        .and_then(|id| Some((id, tokens.get(usize::try_from(id).ok()?)?)));
    let missing = || {
        metadata.invalid(format!(
            "metadata key \"{ADD_BOS_KEY}\" is true, \"{BOS_KEY}\" is missing"
        ))
    };
    let (id, bos) = bos.ok_or_else(missing)?;
    let special = |part: u8| json!({"SpecialToken": {"id": bos, "type_id": part}});
    let sequence = |name: &str, part: u8| json!({"Sequence": {"id": name, "type_id": part}});
    Ok(json!({"type": "Sequence", "processors": [
        byte_level(false),
        {
            "type": "TemplateProcessing",
            "single": [special(0), sequence("A", 0)],
            "pair": [special(0), sequence("A", 0), special(1), sequence("B", 1)],
            "special_tokens": {bos: {"id": bos, "ids": [id], "tokens": [bos]}},
        },
    ]}))
}

/// Adds the tokenizer keys for the contents of a `tokenizer.json` and a vocabulary of `size` rows.
///
/// # Errors
/// [`Error::Unsupported`] for a tokenizer that the format cannot describe,
/// [`Error::InvalidConfig`] when it does not fit the vocabulary or the ids.
pub(super) fn write_metadata(
    metadata: &mut Metadata,
    tokenizer: &Json,
    ids: &TokenIds,
    size: usize,
) -> Result<()> {
    let model = &tokenizer["model"];
    let is_split = tokenizer["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] == SPLIT;
    if model["type"] != "BPE" || !is_split {
        return Err(Error::Unsupported {
            what: "this tokenizer.json in a GGUF file".to_owned(),
            hint: "byte-level bpe with the split pattern of LFM2 can be written".to_owned(),
        });
    }
    let (tokens, types) = token_table(tokenizer, size)?;
    let merges = model["merges"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    let merges = merges.iter().map(merge_text).collect::<Result<_>>()?;
    metadata.insert(MODEL_KEY, Value::String(MODEL.to_owned()))?;
    metadata.insert(PRE_KEY, Value::String(PRE.to_owned()))?;
    metadata.insert(TOKENS_KEY, Value::Array(Array::String(tokens)))?;
    metadata.insert(TYPES_KEY, Value::Array(Array::I32(types)))?;
    metadata.insert(MERGES_KEY, Value::Array(Array::String(merges)))?;
    let (eos, eot) = match ids.eos.as_slice() {
        [] => (None, None),
        [eos] => (Some(*eos), None),
        [eos, eot] => (Some(*eos), Some(*eot)),
        more => {
            return Err(Error::config(
                "eos_token_id",
                format!("a GGUF file holds at most 2 ids, found {}", more.len()),
            ));
        }
    };
    for (key, id) in [
        (BOS_KEY, ids.bos),
        (EOS_KEY, eos),
        (EOT_KEY, eot),
        (PAD_KEY, ids.pad),
    ] {
        let Some(id) = id else { continue };
        if usize::try_from(id).map_or(true, |id| id >= size) {
            return Err(Error::config(
                key,
                format!("{id} is outside the vocabulary of {size}"),
            ));
        }
        metadata.insert(key, Value::U32(id))?;
    }
    metadata.insert(
        ADD_BOS_KEY,
        Value::Bool(adds_bos(&tokenizer["post_processor"])),
    )
}

/// Adds the chat template.
///
/// # Errors
/// [`Error::InvalidFile`] when there is one already.
pub(super) fn write_chat_template(metadata: &mut Metadata, template: &str) -> Result<()> {
    metadata.insert(TEMPLATE_KEY, Value::String(template.to_owned()))
}

/// Text and type of every row; rows without a token get the customary name of a spare one.
fn token_table(tokenizer: &Json, size: usize) -> Result<(Vec<String>, Vec<i32>)> {
    let mut tokens: Vec<Option<String>> = vec![None; size];
    let mut types = vec![UNUSED; size];
    let mut put = |id: &Json, text: &str, kind: i32| -> Result<()> {
        let row = id
            .as_u64()
            .and_then(|id| usize::try_from(id).ok())
            .filter(|row| *row < size);
        let outside = || {
            Error::config(
                "vocab_size, tokenizer.json",
                format!("token {text:?} has id {id} of {size} rows"),
            )
        };
        let row = row.ok_or_else(outside)?;
        tokens[row] = Some(text.to_owned());
        types[row] = kind;
        Ok(())
    };
    let vocabulary = tokenizer["model"]["vocab"].as_object();
    for (text, id) in
        vocabulary.ok_or_else(|| Error::config("tokenizer.json", "model.vocab is missing"))?
    {
        put(id, text, NORMAL)?;
    }
    for added in tokenizer["added_tokens"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default()
    {
        let text = added["content"].as_str();
        let text =
            text.ok_or_else(|| Error::config("tokenizer.json", "an added token has no content"))?;
        let kind = if added["special"] == true {
            CONTROL
        } else {
            USER_DEFINED
        };
        put(&added["id"], text, kind)?;
    }
    let mut seen = HashSet::new();
    if let Some(twice) = tokens
        .iter()
        .flatten()
        .find(|text| !seen.insert(text.as_str()))
    {
        return Err(Error::config(
            "tokenizer.json",
            format!("token {twice:?} has two ids"),
        ));
    }
    let named =
        |(row, text): (usize, Option<String>)| text.unwrap_or_else(|| format!("[PAD{row}]"));
    Ok((tokens.into_iter().enumerate().map(named).collect(), types))
}

/// Merges are strings in older files and pairs in newer ones.
fn merge_text(merge: &Json) -> Result<String> {
    let text = match merge {
        Json::String(text) => Some(text.clone()),
        Json::Array(pair) => match pair.as_slice() {
            [Json::String(left), Json::String(right)] => Some(format!("{left} {right}")),
            _ => None,
        },
        _ => None,
    };
    text.ok_or_else(|| Error::config("tokenizer.json", format!("{merge} is no merge")))
}

/// Whether a post-processor puts a special token in front of a single text.
fn adds_bos(post_processor: &Json) -> bool {
    let all = post_processor["processors"]
        .as_array()
        .map_or(std::slice::from_ref(post_processor), Vec::as_slice);
    all.iter().any(|part| {
        part["type"] == "TemplateProcessing" && part["single"][0]["SpecialToken"].is_object()
    })
}
