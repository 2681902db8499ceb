//! From a text to ids, and which of them a mean is over.

use std::path::Path;

use lfm2_colbert::{ColbertModel, TokenInput};
use lfm2_hub::{Bos, CheckpointInfo, Error as HubError, SpecialTokens, Tokenizer};
use tokenizers::TruncationParams;

use crate::site::Frame;
use crate::{Error, Result};

/// A text as a model reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sentence {
    pub(crate) ids: Vec<u32>,
    /// The places of the ids that take part in means.
    pub(crate) averaged: Vec<u32>,
    /// Whether the end of the text was left out.
    pub(crate) cut: bool,
}

impl Sentence {
    fn new(ids: Vec<u32>, averaged: Vec<u32>, cut: bool, text: &str) -> Result<Self> {
        if averaged.is_empty() {
            let shown: String = text.chars().take(60).collect();
            return Err(Error::input(format!(
                "the sentence {shown:?} has no token that a mean could be over"
            )));
        }
        Ok(Self { ids, averaged, cut })
    }
}

/// Reads a text for a text model: at most `length` tokens, with the beginning that its tokenizer adds.
pub(crate) fn text(
    tokenizer: &Tokenizer,
    text: &str,
    frame: Frame,
    length: usize,
) -> Result<Sentence> {
    let encode = |text, bos| tokenizer.encode(text, SpecialTokens::Literal, bos);
    let mut ids = encode(text, Bos::Add)?;
    let lead = ids.len() - encode(text, Bos::Omit)?.len().min(ids.len());
    let cut = ids.len() > length;
    ids.truncate(length);
    let first = match frame {
        Frame::In => 0,
        Frame::Out => lead,
    };
    let averaged = places(ids.len()).skip(first).collect();
    Sentence::new(ids, averaged, cut, text)
}

/// Reads a text as a document of a retrieval model: the tokens whose vectors it keeps are averaged.
pub(crate) fn document(
    model: &ColbertModel,
    text: &str,
    frame: Frame,
) -> Result<(Sentence, TokenInput)> {
    let reader = model.reader();
    let input = reader.document(text)?;
    let beginning = model
        .tokenizer()
        .encode("", SpecialTokens::Parse, Bos::Add)?;
    let lead = match frame {
        Frame::In => 0,
        Frame::Out => beginning.len() + usize::from(reader.document_prefix().is_some()),
    };
    let kept = input.kept().iter().copied();
    let averaged = kept.filter(|&place| place as usize >= lead).collect();
    let sentence = Sentence::new(input.ids().to_vec(), averaged, input.is_cut(), text)?;
    Ok((sentence, input))
}

/// The tokenizer of a BERT-style encoder.
#[derive(Debug, Clone)]
pub(crate) struct WordPieces {
    tokenizer: tokenizers::Tokenizer,
    lower: bool,
    encode_bytes: usize,
}

impl WordPieces {
    /// Reads the tokenizer of a checkpoint, which cuts texts at `length` tokens.
    pub(crate) fn open(info: &CheckpointInfo, length: usize, lower: bool) -> Result<Self> {
        let path = info.path_of("tokenizer.json");
        let json = info.tokenizer_json()?.ok_or_else(|| HubError::NotFound {
            what: path.display().to_string(),
            hint: "text needs a tokenizer; copy the model's own next to its weights".to_owned(),
        })?;
        let wrong = |source| HubError::invalid_file(&path, format!("not a tokenizer: {source}"));
        let mut tokenizer = tokenizers::Tokenizer::from_bytes(&json).map_err(wrong)?;
        let truncation = TruncationParams {
            max_length: length,
            ..TruncationParams::default()
        };
        tokenizer.with_padding(None);
        tokenizer.with_truncation(Some(truncation)).map_err(wrong)?;
        Ok(Self {
            tokenizer,
            lower,
            encode_bytes: info.limits().encode_bytes,
        })
    }

    /// One more than the highest id.
    pub(crate) fn size(&self) -> usize {
        let vocabulary = self.tokenizer.get_vocab(true);
        vocabulary.values().max().map_or(0, |id| *id as usize + 1)
    }

    pub(crate) fn read(&self, text: &str, frame: Frame) -> Result<Sentence> {
        if text.len() > self.encode_bytes {
            return Err(HubError::Limit {
                what: "bytes of text to tokenise".to_owned(),
                limit: self.encode_bytes as u64,
                found: text.len() as u64,
            }
            .into());
        }
        let encoding = match self.lower {
            true => self.tokenizer.encode_fast(text.to_lowercase(), true),
            false => self.tokenizer.encode_fast(text, true),
        };
        let encoding = encoding
            .map_err(|source| Error::input(format!("text cannot be tokenised: {source}")))?;
        let ids = encoding.get_ids().to_vec();
        let added = encoding.get_special_tokens_mask();
        let wanted = |&place: &u32| match frame {
            Frame::In => true,
            Frame::Out => added.get(place as usize) != Some(&1),
        };
        let averaged = places(ids.len()).filter(wanted).collect();
        Sentence::new(ids, averaged, !encoding.get_overflowing().is_empty(), text)
    }
}

/// How many tokens of a text a sentence-transformers model reads, and whether it lowers letters first.
pub(crate) fn transformer_settings(info: &CheckpointInfo) -> Result<(Option<usize>, bool)> {
    const FILE: &str = "sentence_bert_config.json";
    let Some(json) = info.json(FILE)? else {
        return Ok((None, false));
    };
    let keys = lfm2_text::ConfigKeys::new(FILE, &json)?;
    let length = keys.size("max_seq_length")?;
    if length.is_some_and(|length| length < 3) {
        let path = info.path_of(FILE);
        let detail = "\"max_seq_length\": expected at least 3, for a token between two others";
        return Err(HubError::invalid_file(Path::new(&path), detail).into());
    }
    Ok((length, keys.bool("do_lower_case")?.unwrap_or(false)))
}

fn places(count: usize) -> impl Iterator<Item = u32> {
    (0u32..).take(count)
}
