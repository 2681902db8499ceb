//! [`Tokenizer`]: text to ids and back.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use tokenizers::{DecoderWrapper, ModelWrapper};

use crate::files::read_capped;
use crate::{Error, Limits, Result};

/// What text that spells a special token means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SpecialTokens {
    /// It is the token. For rendered chats, which are made of such tokens.
    Parse,
    /// It is ordinary text. For words of a user, who must not be able to end their own turn.
    Literal,
}

/// Whether encoding starts with the beginning-of-sequence token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Bos {
    /// As the tokenizer's own post-processor says, which for LFM2 puts the token first.
    Add,
    /// Without. Chat templates spell the token themselves.
    Omit,
}

/// What to do with special tokens when ids become text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Specials {
    /// Spell them.
    Keep,
    /// Leave them out.
    Skip,
}

/// A byte-level BPE tokenizer. Cloning is cheap.
///
/// ```
/// # fn main() -> lfm2_hub::Result<()> {
/// use lfm2_hub::{Bos, SpecialTokens, Specials, Tokenizer};
/// # let json = r#"{"model": {"type": "BPE", "vocab": {"h": 0, "i": 1, "hi": 2}, "merges": ["h i"]},
/// #   "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true}}"#;
/// let tokenizer = Tokenizer::from_bytes(json, &Default::default())?;
/// let ids = tokenizer.encode("hi", SpecialTokens::Parse, Bos::Add)?;
/// assert_eq!(tokenizer.decode(&ids, Specials::Skip)?, "hi");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Tokenizer {
    inner: Arc<Inner>,
}

struct Inner {
    parse: tokenizers::Tokenizer,
    // The library keeps the choice inside the tokenizer, so literal encoding needs a second one.
    literal: OnceLock<tokenizers::Tokenizer>,
    // By id; `None` in holes of the vocabulary.
    tokens: Vec<Option<Token>>,
    encode_bytes: usize,
}

struct Token {
    bytes: Box<[u8]>,
    special: bool,
}

impl Tokenizer {
    /// Reads a `tokenizer.json`.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Limit`], [`Error::InvalidFile`] for broken contents,
    /// [`Error::Unsupported`] for a tokenizer that is not byte-level BPE.
    pub fn from_file(path: &Path, limits: &Limits) -> Result<Self> {
        let bytes = read_capped(path, limits.tokenizer_bytes, "tokenizer bytes")?;
        Self::parse(path, &bytes, limits)
    }

    /// Reads the contents of a `tokenizer.json`.
    ///
    /// # Errors
    /// As [`Tokenizer::from_file`].
    pub fn from_bytes(bytes: impl AsRef<[u8]>, limits: &Limits) -> Result<Self> {
        let bytes = bytes.as_ref();
        let found = bytes.len() as u64;
        if found > limits.tokenizer_bytes {
            return Err(Error::Limit {
                what: "tokenizer bytes".to_owned(),
                limit: limits.tokenizer_bytes,
                found,
            });
        }
        Self::parse(Path::new("tokenizer.json"), bytes, limits)
    }

    fn parse(path: &Path, bytes: &[u8], limits: &Limits) -> Result<Self> {
        let tokenizer = tokenizers::Tokenizer::from_bytes(bytes)
            .map_err(|source| Error::invalid_file(path, format!("not a tokenizer: {source}")))?;
        Self::new(path, tokenizer, limits)
    }

    /// Takes a tokenizer of the `tokenizers` crate; `path` says in messages where it came from.
    pub(crate) fn new(
        path: &Path,
        mut tokenizer: tokenizers::Tokenizer,
        limits: &Limits,
    ) -> Result<Self> {
        check_kind(&tokenizer)?;
        // Leftovers of training runs: neither may change what a text means.
        tokenizer.with_padding(None);
        tokenizer
            .with_truncation(None)
            .map_err(|source| Error::invalid_file(path, format!("truncation: {source}")))?;
        let vocabulary = tokenizer.get_vocab(true);
        // Ids can have holes, so the highest one is what bounds the table.
        let size = vocabulary.values().max().map_or(0, |id| *id as usize + 1);
        if size > limits.vocabulary {
            let what = format!("{}: vocabulary", path.display());
            return Err(Error::Limit {
                what,
                limit: limits.vocabulary as u64,
                found: size as u64,
            });
        }
        let added = tokenizer.get_added_tokens_decoder();
        let bytes_of = byte_alphabet();
        let mut tokens: Vec<Option<Token>> = Vec::new();
        tokens.resize_with(size, || None);
        for (text, id) in &vocabulary {
            let (bytes, special) = match added.get(id) {
                Some(token) => (token.content.clone().into_bytes(), token.special),
                None => (token_bytes(text, &bytes_of), false),
            };
            if let Some(slot) = tokens.get_mut(*id as usize) {
                *slot = Some(Token {
                    bytes: bytes.into_boxed_slice(),
                    special,
                });
            }
        }
        let encode_bytes = limits.encode_bytes;
        Ok(Self {
            inner: Arc::new(Inner {
                parse: tokenizer,
                literal: OnceLock::new(),
                tokens,
                encode_bytes,
            }),
        })
    }

    /// The ids of `text`.
    ///
    /// # Errors
    /// [`Error::Limit`] when the text has more bytes than [`Limits::encode_bytes`],
    /// [`Error::InvalidInput`] when the tokenizer has no tokens for it.
    pub fn encode(&self, text: &str, special: SpecialTokens, bos: Bos) -> Result<Vec<u32>> {
        if text.len() > self.inner.encode_bytes {
            return Err(Error::Limit {
                what: "bytes of text to tokenise".to_owned(),
                limit: self.inner.encode_bytes as u64,
                found: text.len() as u64,
            });
        }
        let tokenizer = match special {
            SpecialTokens::Parse => &self.inner.parse,
            SpecialTokens::Literal => self.inner.literal.get_or_init(|| {
                let mut literal = self.inner.parse.clone();
                literal.set_encode_special_tokens(true);
                literal
            }),
        };
        let encoding = tokenizer
            .encode_fast(text, bos == Bos::Add)
            .map_err(|source| Error::InvalidInput(format!("text cannot be tokenised: {source}")))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The text of `ids`. Bytes that are not whole characters become U+FFFD; for text that arrives
    /// token by token, collect [`Tokenizer::token_bytes`] instead.
    ///
    /// # Errors
    /// [`Error::InvalidInput`] for an id outside the vocabulary.
    pub fn decode(&self, ids: &[u32], specials: Specials) -> Result<String> {
        let mut bytes = Vec::with_capacity(ids.len() * 4);
        for &id in ids {
            let token = self.token(id)?;
            if specials == Specials::Keep || !token.special {
                bytes.extend_from_slice(&token.bytes);
            }
        }
        Ok(match String::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
        })
    }

    /// The bytes that one token stands for: the joined bytes of a sequence are its text.
    ///
    /// # Errors
    /// [`Error::InvalidInput`] for an id outside the vocabulary.
    pub fn token_bytes(&self, id: u32) -> Result<&[u8]> {
        self.token(id).map(|token| &*token.bytes)
    }

    /// Whether `id` is a special token, whose text is for the model and not for people.
    pub fn is_special(&self, id: u32) -> bool {
        self.token(id).is_ok_and(|token| token.special)
    }

    /// The id of a token, given as it is spelled in the vocabulary.
    pub fn id_of(&self, token: &str) -> Option<u32> {
        self.inner.parse.token_to_id(token)
    }

    /// How a token is spelled in the vocabulary; ordinary tokens in the byte-level alphabet.
    pub fn token_text(&self, id: u32) -> Option<String> {
        self.inner.parse.id_to_token(id)
    }

    /// One more than the highest id. Embedding tables may have more rows than this, never fewer.
    pub fn vocab_size(&self) -> usize {
        self.inner.tokens.len()
    }

    /// The ids of all special tokens, ascending.
    pub fn special_ids(&self) -> Vec<u32> {
        let special = |(id, token): (u32, &Option<Token>)| {
            token.as_ref().is_some_and(|t| t.special).then_some(id)
        };
        (0..).zip(&self.inner.tokens).filter_map(special).collect()
    }

    /// The contents of a `tokenizer.json` that gives this tokenizer.
    ///
    /// # Errors
    /// [`Error::InvalidInput`] when a part cannot be written as JSON.
    pub fn to_json(&self) -> Result<String> {
        self.inner
            .parse
            .to_string(false)
            .map_err(|source| Error::InvalidInput(format!("tokenizer: {source}")))
    }

    fn token(&self, id: u32) -> Result<&Token> {
        let found = usize::try_from(id)
            .ok()
            .and_then(|id| self.inner.tokens.get(id))
            .and_then(Option::as_ref);
        found.ok_or_else(|| {
            let size = self.vocab_size();
            Error::InvalidInput(format!(
                "token id {id} is not in the vocabulary of {size} tokens"
            ))
        })
    }
}

impl fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokenizer")
            .field("vocab_size", &self.vocab_size())
            .finish_non_exhaustive()
    }
}

/// The family uses byte-level BPE only; taking the bytes of a token relies on it.
fn check_kind(tokenizer: &tokenizers::Tokenizer) -> Result<()> {
    let unsupported = |what: &str| Error::Unsupported {
        what: what.to_owned(),
        hint: "byte-level bpe is".to_owned(),
    };
    let name = match tokenizer.get_model() {
        ModelWrapper::BPE(_) => None,
        ModelWrapper::WordPiece(_) => Some("a wordpiece tokenizer"),
        ModelWrapper::WordLevel(_) => Some("a word-level tokenizer"),
        ModelWrapper::Unigram(_) => Some("a unigram tokenizer"),
    };
    match (name, tokenizer.get_decoder()) {
        (Some(name), _) => Err(unsupported(name)),
        (None, Some(DecoderWrapper::ByteLevel(_))) => Ok(()),
        (None, _) => Err(unsupported("a tokenizer without byte-level decoder")),
    }
}

/// The printable character that byte-level BPE writes for each byte.
fn byte_alphabet() -> HashMap<char, u8> {
    let printable = |byte: &u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    let mut alphabet: HashMap<char, u8> = (0..=u8::MAX)
        .filter(printable)
        .map(|byte| (char::from(byte), byte))
        .collect();
    // All others follow each other from U+0100 on.
    alphabet.extend(('\u{100}'..).zip((0..=u8::MAX).filter(|byte| !printable(byte))));
    alphabet
}

/// The bytes of a token of the model. A token with a character outside the alphabet cannot come
/// from byte-level training; the reference decoder then takes its text as it is, and so do we.
fn token_bytes(text: &str, alphabet: &HashMap<char, u8>) -> Vec<u8> {
    let bytes: Option<Vec<u8>> = text.chars().map(|c| alphabet.get(&c).copied()).collect();
    bytes.unwrap_or_else(|| text.as_bytes().to_vec())
}
