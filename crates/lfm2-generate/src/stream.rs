//! Token ids to text, piece by piece: [`TextStream`].

use std::collections::BTreeSet;

use lfm2_hub::Tokenizer;

use crate::Result;

/// Which special tokens become text.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum SpecialText {
    /// None: text for people.
    #[default]
    Hidden,
    /// All, as they are spelled in the vocabulary.
    Shown,
    /// Those named here, for a reader behind the stream that understands them.
    Only(BTreeSet<u32>),
}

/// Turns ids into text without ever giving out half a character.
///
/// A character can be spread over several tokens; its bytes are held back until it is whole. Bytes
/// that can no longer become a character turn into U+FFFD. All pieces together, with
/// [`finish`](Self::finish), are exactly what decoding all ids at once gives.
#[derive(Debug, Clone)]
pub struct TextStream {
    tokenizer: Tokenizer,
    special: SpecialText,
    /// The beginning of a character: at most 3 bytes.
    held: Vec<u8>,
}

impl TextStream {
    /// An empty stream.
    pub fn new(tokenizer: Tokenizer, special: SpecialText) -> Self {
        Self {
            tokenizer,
            special,
            held: Vec::new(),
        }
    }

    /// The text that is certain now that `id` has come; often empty for scripts with long characters.
    ///
    /// # Errors
    /// When the tokenizer has no such token.
    pub fn push(&mut self, id: u32) -> Result<String> {
        let bytes = self.tokenizer.token_bytes(id)?;
        let shown = match &self.special {
            SpecialText::Shown => true,
            SpecialText::Hidden => !self.tokenizer.is_special(id),
            SpecialText::Only(ids) => ids.contains(&id) || !self.tokenizer.is_special(id),
        };
        if shown {
            self.held.extend_from_slice(bytes);
        }
        Ok(self.release())
    }

    /// What is left when no more ids come: U+FFFD for a character that was not finished. The stream
    /// is empty afterwards and can be used again.
    pub fn finish(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.held)).into_owned()
    }

    fn release(&mut self) -> String {
        let mut text = String::with_capacity(self.held.len());
        let mut unfinished = 0;
        let mut rest = self.held.len();
        for chunk in self.held.utf8_chunks() {
            text.push_str(chunk.valid());
            let invalid = chunk.invalid();
            rest -= chunk.valid().len() + invalid.len();
            if invalid.is_empty() {
                continue;
            }
            // No error length means that the bytes are only too few; the next ones can help at the end.
            let too_few =
                std::str::from_utf8(invalid).is_err_and(|error| error.error_len().is_none());
            if rest == 0 && too_few {
                unfinished = invalid.len();
            } else {
                text.push(char::REPLACEMENT_CHARACTER);
            }
        }
        self.held.drain(..self.held.len() - unfinished);
        text
    }
}
