//! [`RetrievalSettings`]: how texts become the ids that a retrieval model reads.

use std::path::Path;

use lfm2_hub::Error as HubError;
use lfm2_nn::FillerStates;
use serde_json::{Map, Value};

use crate::Result;

/// The characters whose tokens published models leave out of documents: ASCII punctuation.
const PUNCTUATION: &str = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~";

/// The longest query or document, in tokens, that anybody may ask for.
const MAX_LENGTH: usize = 1 << 17;

/// What stands behind the words of a query, up to its length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expansion {
    /// Nothing: a query has as many vectors as it has tokens.
    Off,
    /// Filler, which takes part in scores but is not attended to.
    Hidden,
    /// Filler that is attended to like any token.
    Attended,
}

/// What happens to white space around a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OuterSpace {
    /// It is left out, as with sentence-transformers 5.
    #[default]
    Strip,
    /// It is kept, as with sentence-transformers 6.
    Keep,
}

/// What happens to capital letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Letters {
    /// They stay.
    #[default]
    Keep,
    /// They become small ones.
    Lower,
}

/// How texts become ids, and which of their vectors are kept: what `config_sentence_transformers.json`
/// says, and what can be said on top.
///
/// ```
/// use lfm2_colbert::{Expansion, RetrievalSettings};
///
/// let settings = RetrievalSettings::default()
///     .with_query_length(48)
///     .with_expansion(Expansion::Off);
/// assert_eq!(settings.document_prefix, "[D] ");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RetrievalSettings {
    /// The token behind the beginning of a query; empty for none.
    pub query_prefix: String,
    /// The token behind the beginning of a document; empty for none.
    pub document_prefix: String,
    /// Tokens of a query, beginning and prefix included.
    pub query_length: usize,
    /// The most tokens of a document, beginning and prefix included.
    pub document_length: usize,
    /// What stands behind the words of a query.
    pub expansion: Expansion,
    /// Words whose vectors documents do not keep, each the whole text of one token.
    pub skiplist_words: Vec<String>,
    /// White space around a text.
    pub outer_space: OuterSpace,
    /// Capital letters.
    pub letters: Letters,
    /// What convolutions see of hidden filler.
    pub filler_states: FillerStates,
}

impl Default for RetrievalSettings {
    /// What the reference assumes where a model does not say.
    fn default() -> Self {
        Self {
            query_prefix: "[Q] ".to_owned(),
            document_prefix: "[D] ".to_owned(),
            query_length: 32,
            document_length: 180,
            expansion: Expansion::Hidden,
            skiplist_words: PUNCTUATION.chars().map(String::from).collect(),
            outer_space: OuterSpace::Strip,
            letters: Letters::Keep,
            filler_states: FillerStates::Flow,
        }
    }
}

impl RetrievalSettings {
    /// Reads the settings of a model; `path` names the file in messages. Keys that are missing or null
    /// have their [default](Self::default).
    ///
    /// # Errors
    /// [`HubError::InvalidFile`] naming the key, [`HubError::Unsupported`] for a score other than
    /// MaxSim or a text in front of every input.
    pub fn from_json(json: &Value, path: &Path) -> Result<Self> {
        let mut settings = Self::default();
        settings.read(&Keys::new(json, path)?)?;
        Ok(settings)
    }

    /// Takes over the keys that `json` has, in the spelling of the file: every setting can be changed
    /// by whoever uses a model. Other keys are refused.
    ///
    /// # Errors
    /// [`HubError::InvalidFile`] naming the key.
    pub fn with_json(mut self, json: &Value) -> Result<Self> {
        let keys = Keys::new(json, Path::new("retrieval settings"))?;
        if let Some(unknown) = keys.map.keys().find(|key| !KEYS.contains(&key.as_str())) {
            let detail = format!("\"{unknown}\" is no setting; there are {}", KEYS.join(", "));
            return Err(HubError::invalid_file(keys.path, detail).into());
        }
        self.read(&keys)?;
        Ok(self)
    }

    fn read(&mut self, keys: &Keys<'_>) -> Result<()> {
        let text = |key: &str| Ok::<_, HubError>(keys.str(key)?.map(str::to_owned));
        set(&mut self.query_prefix, text("query_prefix")?);
        set(&mut self.document_prefix, text("document_prefix")?);
        set(&mut self.query_length, keys.length("query_length")?);
        set(&mut self.document_length, keys.length("document_length")?);
        set(&mut self.skiplist_words, keys.words("skiplist_words")?);
        let expands = keys.bool("do_query_expansion")?;
        let attends = keys.bool("attend_to_expansion_tokens")?;
        let expands = expands.unwrap_or(self.expansion != Expansion::Off);
        let attends = attends.unwrap_or(self.expansion == Expansion::Attended);
        self.expansion = match (expands, attends) {
            (false, _) => Expansion::Off,
            (true, false) => Expansion::Hidden,
            (true, true) => Expansion::Attended,
        };
        if let Some(name) = keys.str("similarity_fn_name")?
            && !name.eq_ignore_ascii_case("maxsim")
        {
            let what = format!("{}: similarity_fn_name \"{name}\"", keys.path.display());
            let hint = "late interaction scores with MaxSim".to_owned();
            return Err(HubError::Unsupported { what, hint }.into());
        }
        let prompts = keys.get("prompts").and_then(Value::as_object);
        let default = keys.str("default_prompt_name")?;
        let prompt = default.and_then(|name| prompts?.get(name)?.as_str());
        if prompt.is_some_and(|prompt| !prompt.is_empty()) {
            let what = format!("{}: default_prompt_name", keys.path.display());
            let hint = "late-interaction models have a prefix token instead of a text".to_owned();
            return Err(HubError::Unsupported { what, hint }.into());
        }
        self.check(keys.path)
    }

    /// Holds lengths to what the beginning and the prefix need.
    pub(crate) fn check(&self, path: &Path) -> Result<()> {
        let sides = [
            ("query_length", self.query_length, &self.query_prefix),
            (
                "document_length",
                self.document_length,
                &self.document_prefix,
            ),
        ];
        for (key, length, prefix) in sides {
            let least = 1 + usize::from(!prefix.is_empty());
            if length < least {
                let detail = format!("\"{key}\": expected at least {least}, found {length}");
                return Err(HubError::invalid_file(path, detail).into());
            }
            if length > MAX_LENGTH {
                return Err(HubError::Limit {
                    what: format!("{}: {key}", path.display()),
                    limit: MAX_LENGTH as u64,
                    found: length as u64,
                }
                .into());
            }
        }
        Ok(())
    }

    /// Sets the prefix token of queries.
    pub fn with_query_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.query_prefix = prefix.into();
        self
    }

    /// Sets the prefix token of documents.
    pub fn with_document_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.document_prefix = prefix.into();
        self
    }

    /// Sets the length of queries, in tokens.
    pub fn with_query_length(mut self, tokens: usize) -> Self {
        self.query_length = tokens;
        self
    }

    /// Sets the greatest length of documents, in tokens.
    pub fn with_document_length(mut self, tokens: usize) -> Self {
        self.document_length = tokens;
        self
    }

    /// Sets what stands behind the words of a query.
    pub fn with_expansion(mut self, expansion: Expansion) -> Self {
        self.expansion = expansion;
        self
    }

    /// Sets the words whose vectors documents do not keep.
    pub fn with_skiplist_words(mut self, words: Vec<String>) -> Self {
        self.skiplist_words = words;
        self
    }

    /// Sets what happens to white space around a text.
    pub fn with_outer_space(mut self, outer_space: OuterSpace) -> Self {
        self.outer_space = outer_space;
        self
    }

    /// Sets what happens to capital letters.
    pub fn with_letters(mut self, letters: Letters) -> Self {
        self.letters = letters;
        self
    }

    /// Sets what convolutions see of hidden filler.
    pub fn with_filler_states(mut self, states: FillerStates) -> Self {
        self.filler_states = states;
        self
    }
}

/// The settings that may be changed, as files spell them.
const KEYS: [&str; 7] = [
    "query_prefix",
    "document_prefix",
    "query_length",
    "document_length",
    "do_query_expansion",
    "attend_to_expansion_tokens",
    "skiplist_words",
];

fn set<T>(slot: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *slot = value;
    }
}

/// Typed access to the keys of a JSON object; null counts as absent, and errors name file and key.
pub(crate) struct Keys<'a> {
    map: &'a Map<String, Value>,
    pub(crate) path: &'a Path,
}

impl<'a> Keys<'a> {
    pub(crate) fn new(json: &'a Value, path: &'a Path) -> Result<Self, HubError> {
        match json.as_object() {
            Some(map) => Ok(Self { map, path }),
            None => Err(HubError::invalid_file(path, "expected a json object")),
        }
    }

    pub(crate) fn get(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    /// The value of `key` as `read` sees it, `expected` in the words of an error.
    fn typed<T>(
        &self,
        key: &str,
        expected: &str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, HubError> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        read(value).map(Some).ok_or_else(|| {
            let shown: String = value.to_string().chars().take(80).collect();
            HubError::invalid_file(
                self.path,
                format!("\"{key}\": expected {expected}, found {shown}"),
            )
        })
    }

    pub(crate) fn str(&self, key: &str) -> Result<Option<&'a str>, HubError> {
        self.typed(key, "a string", Value::as_str)
    }

    pub(crate) fn bool(&self, key: &str) -> Result<Option<bool>, HubError> {
        self.typed(key, "true or false", Value::as_bool)
    }

    pub(crate) fn length(&self, key: &str) -> Result<Option<usize>, HubError> {
        self.typed(key, "a whole number from 0", |value| {
            value.as_u64().and_then(|n| usize::try_from(n).ok())
        })
    }

    fn words(&self, key: &str) -> Result<Option<Vec<String>>, HubError> {
        self.typed(key, "a list of strings", |value| {
            let words = value.as_array()?.iter();
            words.map(|word| word.as_str().map(str::to_owned)).collect()
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const FILE: &str = "config_sentence_transformers.json";

    fn read(json: &Value) -> Result<RetrievalSettings> {
        RetrievalSettings::from_json(json, Path::new(FILE))
    }

    #[test]
    fn missing_and_null_keys_have_the_references_defaults() {
        let settings = read(&json!({"query_length": null, "prompts": {}})).unwrap();
        assert_eq!(settings, RetrievalSettings::default());
        assert_eq!((settings.query_length, settings.document_length), (32, 180));
        assert_eq!(settings.skiplist_words.len(), 32);
        assert_eq!(settings.expansion, Expansion::Hidden);
    }

    #[test]
    fn expansion_follows_from_two_keys_and_each_can_be_changed_alone() {
        let of = |expand: bool, attend: bool| {
            let keys = json!({"do_query_expansion": expand, "attend_to_expansion_tokens": attend});
            read(&keys).unwrap()
        };
        assert_eq!(of(false, true).expansion, Expansion::Off);
        assert_eq!(of(true, true).expansion, Expansion::Attended);
        let changed = of(true, false).with_json(&json!({"attend_to_expansion_tokens": true}));
        assert_eq!(changed.unwrap().expansion, Expansion::Attended);
        let changed = of(true, false).with_json(&json!({"do_query_expansion": false}));
        assert_eq!(changed.unwrap().expansion, Expansion::Off);
        let kept = of(true, true)
            .with_json(&json!({"query_length": 12}))
            .unwrap();
        assert_eq!(
            (kept.expansion, kept.query_length),
            (Expansion::Attended, 12)
        );
    }

    #[test]
    fn wrong_values_name_file_and_key() {
        let cases = [
            json!({"query_length": "32"}),
            json!({"document_length": -1}),
            json!({"query_length": 1}),
            json!({"document_length": 10_000_000}),
            json!({"skiplist_words": [1]}),
            json!({"do_query_expansion": 1}),
            json!({"query_prefix": 3}),
            json!({"similarity_fn_name": "cosine"}),
            json!({"default_prompt_name": "query", "prompts": {"query": "query: "}}),
        ];
        for case in cases {
            let key = case.as_object().unwrap().keys().next().unwrap().clone();
            let text = read(&case).unwrap_err().to_string();
            assert!(text.contains(FILE) && text.contains(&key), "{text}");
        }
        assert!(read(&json!([])).is_err());
    }

    #[test]
    fn a_text_without_prefix_may_be_one_token() {
        let settings = read(&json!({"query_prefix": "", "query_length": 1})).unwrap();
        assert_eq!(settings.query_length, 1);
    }

    #[test]
    fn changes_of_unknown_keys_are_refused() {
        let error = RetrievalSettings::default().with_json(&json!({"query_len": 3}));
        let text = error.unwrap_err().to_string();
        assert!(
            text.contains("query_len") && text.contains("query_length"),
            "{text}"
        );
    }
}
