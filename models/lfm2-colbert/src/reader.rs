//! [`TextReader`]: from a text to the ids that a late-interaction model reads.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;

use lfm2_hub::{Bos, CheckpointInfo, Error as HubError, SpecialTokens, Tokenizer};
use lfm2_text::TextConfig;
use serde_json::Value;

use crate::settings::{Expansion, Letters, OuterSpace, RetrievalSettings};
use crate::{Error, Result};

/// Bytes per token wanted that are tokenised at first: more than most languages need.
const BYTES_PER_TOKEN: usize = 16;
/// Tokens at the end of the beginning of a text that may not be those of the whole.
const SEAM: usize = 64;

/// The ids of one text, and what becomes of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenInput {
    ids: Vec<u32>,
    attended: usize,
    kept: Vec<u32>,
    cut: bool,
}

impl TokenInput {
    /// Ids of which the vector of the first is kept.
    pub(crate) fn keeping_first(ids: Vec<u32>, cut: bool) -> Self {
        Self {
            attended: ids.len(),
            kept: if ids.is_empty() { Vec::new() } else { vec![0] },
            ids,
            cut,
        }
    }

    /// What the model reads: beginning, prefix, text, filler.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// How many of these, from the first on, are attended to: all but hidden filler.
    pub fn attended(&self) -> usize {
        self.attended
    }

    /// The places of those whose vectors are kept, ascending.
    pub fn kept(&self) -> &[u32] {
        &self.kept
    }

    /// Whether the text was longer than the model reads, and its end is missing.
    pub fn is_cut(&self) -> bool {
        self.cut
    }

    /// The ids whose vectors are kept.
    pub(crate) fn kept_ids(&self) -> Vec<u32> {
        let id = |&place: &u32| self.ids.get(place as usize).copied();
        self.kept.iter().filter_map(id).collect()
    }
}

/// Turns texts into ids: a tokenizer, the settings, and the ids that follow from both.
#[derive(Debug, Clone)]
pub struct TextReader {
    tokenizer: Tokenizer,
    settings: RetrievalSettings,
    query_prefix: Option<u32>,
    document_prefix: Option<u32>,
    /// `None` only where there is no expansion.
    filler: Option<u32>,
    skiplist: BTreeSet<u32>,
}

impl TextReader {
    /// A reader for `settings`, which fills queries with `filler`.
    ///
    /// # Errors
    /// [`HubError::InvalidInput`] when a prefix is no token of the tokenizer, a length is too small
    /// for the prefix, or queries are expanded and there is no filler.
    pub fn new(
        tokenizer: Tokenizer,
        settings: RetrievalSettings,
        filler: Option<u32>,
    ) -> Result<Self> {
        settings.check(Path::new("retrieval settings"))?;
        let prefix = |key: &str, text: &str| match (text, tokenizer.id_of(text)) {
            ("", _) => Ok(None),
            (_, Some(id)) => Ok(Some(id)),
            (_, None) => Err(Error::input(format!(
                "{key} {text:?} is not a token of the model's tokenizer"
            ))),
        };
        if settings.expansion != Expansion::Off && filler.is_none() {
            return Err(Error::input(
                "do_query_expansion: the tokenizer has no mask, end or padding token to fill queries with",
            ));
        }
        let words = settings.skiplist_words.iter();
        Ok(Self {
            query_prefix: prefix("query_prefix", &settings.query_prefix)?,
            document_prefix: prefix("document_prefix", &settings.document_prefix)?,
            skiplist: words.filter_map(|word| tokenizer.id_of(word)).collect(),
            tokenizer,
            settings,
            filler,
        })
    }

    /// The settings.
    pub fn settings(&self) -> &RetrievalSettings {
        &self.settings
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The id in front of queries.
    pub fn query_prefix(&self) -> Option<u32> {
        self.query_prefix
    }

    /// The id in front of documents.
    pub fn document_prefix(&self) -> Option<u32> {
        self.document_prefix
    }

    /// The id that queries are filled up with.
    pub fn filler(&self) -> Option<u32> {
        self.filler
    }

    /// The ids whose vectors documents do not keep.
    pub fn skiplist(&self) -> &BTreeSet<u32> {
        &self.skiplist
    }

    /// The same reader with other settings.
    pub(crate) fn with_settings(&self, settings: RetrievalSettings) -> Result<Self> {
        Self::new(self.tokenizer.clone(), settings, self.filler)
    }

    /// The ids of a query.
    ///
    /// # Errors
    /// When the text cannot be tokenised.
    pub fn query(&self, text: &str) -> Result<TokenInput> {
        let length = self.settings.query_length;
        let (mut ids, cut) = self.ids(text, self.query_prefix, length)?;
        let real = ids.len();
        if let (Some(filler), true) = (self.filler, self.settings.expansion != Expansion::Off)
            && real > 0
        {
            ids.resize(length.max(real), filler);
        }
        Ok(TokenInput {
            attended: match self.settings.expansion {
                Expansion::Attended => ids.len(),
                Expansion::Off | Expansion::Hidden => real,
            },
            kept: (0..).take(ids.len()).collect(),
            ids,
            cut,
        })
    }

    /// The ids of a document.
    ///
    /// # Errors
    /// When the text cannot be tokenised.
    pub fn document(&self, text: &str) -> Result<TokenInput> {
        let length = self.settings.document_length;
        let (ids, cut) = self.ids(text, self.document_prefix, length)?;
        let places = (0..).zip(&ids);
        let kept = places.filter_map(|(place, id)| (!self.skiplist.contains(id)).then_some(place));
        Ok(TokenInput {
            attended: ids.len(),
            kept: kept.collect(),
            ids,
            cut,
        })
    }

    /// The bytes of `text` that each id of `input`, which was read from it, stands for; `None` for
    /// beginning, prefix and filler, and where letters were changed.
    ///
    /// A token may end inside a character.
    ///
    /// # Errors
    /// When the text cannot be tokenised.
    pub fn places(&self, text: &str, input: &TokenInput) -> Result<Vec<Option<Range<usize>>>> {
        let own = self.prepare(text);
        let mut places = vec![None; input.ids.len()];
        let Cow::Borrowed(own) = own else {
            return Ok(places);
        };
        let mut at = own.as_ptr().addr() - text.as_ptr().addr();
        let prefixed = [self.query_prefix, self.document_prefix]
            .iter()
            .any(|prefix| prefix.is_some() && input.ids.get(1) == prefix.as_ref());
        let lead = self.beginning()? + usize::from(prefixed);
        let words = input.ids.iter().zip(&mut places).skip(lead);
        for (&id, place) in words {
            let bytes = self.tokenizer.token_bytes(id)?;
            let end = at + bytes.len();
            if bytes.is_empty() || text.as_bytes().get(at..end) != Some(bytes) {
                break;
            }
            *place = Some(at..end);
            at = end;
        }
        Ok(places)
    }

    /// How many ids the tokenizer puts in front of every text.
    fn beginning(&self) -> Result<usize> {
        let ids = self.tokenizer.encode("", SpecialTokens::Parse, Bos::Add)?;
        Ok(ids.len())
    }

    /// Beginning, prefix and text, at most `length` ids, and whether that left out the end.
    fn ids(&self, text: &str, prefix: Option<u32>, length: usize) -> Result<(Vec<u32>, bool)> {
        let text = self.prepare(text);
        let limit = length - usize::from(prefix.is_some()).min(length);
        let (mut ids, cut) = first_ids(&self.tokenizer, &text, limit)?;
        if let Some(prefix) = prefix {
            ids.insert(ids.len().min(1), prefix);
        }
        Ok((ids, cut))
    }

    fn prepare<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let text = match self.settings.outer_space {
            OuterSpace::Strip => strip(text),
            OuterSpace::Keep => text,
        };
        match self.settings.letters {
            Letters::Keep => Cow::Borrowed(text),
            Letters::Lower => Cow::Owned(text.to_lowercase()),
        }
    }
}

/// Drops the white space around a text, and what Python counts as such beyond Unicode.
pub(crate) fn strip(text: &str) -> &str {
    text.trim_matches(|c: char| c.is_whitespace() || ('\x1c'..='\x1f').contains(&c))
}

/// The first `limit` ids of a text, and whether there are more. Of a long text only the beginning is
/// tokenised.
pub(crate) fn first_ids(
    tokenizer: &Tokenizer,
    text: &str,
    limit: usize,
) -> Result<(Vec<u32>, bool)> {
    let mut bytes = limit.saturating_mul(BYTES_PER_TOKEN).max(1 << 10);
    loop {
        let head = head(text, bytes);
        let mut ids = tokenizer.encode(head, SpecialTokens::Parse, Bos::Add)?;
        let whole = head.len() == text.len();
        if whole || ids.len() > limit.saturating_add(SEAM) {
            let cut = ids.len() > limit;
            ids.truncate(limit);
            return Ok((ids, cut));
        }
        bytes = bytes.saturating_mul(4);
    }
}

/// The beginning of a text of about `bytes` bytes, up to a blank between words, where no tokenizer joins
/// what stands on both sides.
fn head(text: &str, bytes: usize) -> &str {
    let Some(rest) = text.as_bytes().get(bytes..) else {
        return text;
    };
    let mut before = text.as_bytes().get(bytes.wrapping_sub(1)).copied();
    for (offset, &byte) in rest.iter().enumerate() {
        if byte == b' ' && before.is_some_and(|before| !before.is_ascii_whitespace()) {
            // A blank is a character of its own, so this is a border between characters.
            return text.get(..bytes + offset).unwrap_or(text);
        }
        before = Some(byte);
    }
    text
}

/// The id that queries are filled up with: the tokenizer's mask token if it has one, else its end, else
/// its padding.
///
/// # Errors
/// [`HubError::InvalidFile`] when a file names a token that the tokenizer does not have.
pub(crate) fn filler_of(
    info: &CheckpointInfo,
    tokenizer: &Tokenizer,
    config: &TextConfig,
) -> Result<Option<u32>> {
    let map = info.json("special_tokens_map.json")?;
    let files = [
        ("tokenizer_config.json", info.tokenizer_config()),
        ("special_tokens_map.json", map.as_ref()),
    ];
    let named = |key: &str| -> Result<Option<u32>> {
        for (file, json) in files {
            let entry = json.and_then(|json| json.get(key));
            let Some(token) = entry.and_then(token_text) else {
                continue;
            };
            let id = tokenizer.id_of(token).ok_or_else(|| {
                let detail = format!("\"{key}\": {token:?} is not a token of the tokenizer");
                HubError::invalid_file(info.path_of(file), detail)
            })?;
            return Ok(Some(id));
        }
        Ok(None)
    };
    if let Some(mask) = named("mask_token")? {
        return Ok(Some(mask));
    }
    let end = named("eos_token")?.or(config.eos_token_ids.first().copied());
    match end {
        Some(end) => Ok(Some(end)),
        None => Ok(named("pad_token")?.or(config.pad_token_id)),
    }
}

/// A token in a tokenizer's files: its text, or an object with it.
fn token_text(entry: &Value) -> Option<&str> {
    entry.as_str().or_else(|| entry.get("content")?.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn white_space_is_pythons() {
        assert_eq!(strip("\u{1c} \u{a0}a b\u{3000}\n"), "a b");
    }

    #[test]
    fn heads_end_between_words() {
        assert_eq!(head("ab cd ef", 3), "ab cd");
        assert_eq!(head("ab  cd", 3), "ab  cd");
        assert_eq!(head("äöü ß ", 1), "äöü");
        assert_eq!(head("short", 9), "short");
    }
}
