//! Text that arrives token by token.

use lfm2_hub::{Result, Tokenizer};

/// Collects the bytes of tokens and gives them out in whole characters. Special tokens are no text.
#[derive(Debug, Default)]
pub(super) struct TextPieces {
    pending: Vec<u8>,
}

impl TextPieces {
    /// The characters that `id` completes.
    pub(super) fn push(&mut self, tokenizer: &Tokenizer, id: u32) -> Result<String> {
        if !tokenizer.is_special(id) {
            self.pending.extend_from_slice(tokenizer.token_bytes(id)?);
        }
        Ok(self.take_whole())
    }

    /// What is left of a character that was never completed.
    pub(super) fn finish(&mut self) -> String {
        let rest = std::mem::take(&mut self.pending);
        String::from_utf8_lossy(&rest).into_owned()
    }

    fn take_whole(&mut self) -> String {
        let whole = match std::str::from_utf8(&self.pending) {
            Ok(_) => self.pending.len(),
            // Bytes that can still become a character wait; others never will.
            Err(error) if error.error_len().is_none() => error.valid_up_to(),
            Err(_) => self.pending.len(),
        };
        let rest = self.pending.split_off(whole);
        let taken = std::mem::replace(&mut self.pending, rest);
        String::from_utf8_lossy(&taken).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_come_whole_and_broken_ones_are_replaced() {
        let mut pieces = TextPieces::default();
        let mut push = |bytes: &[u8]| {
            pieces.pending.extend_from_slice(bytes);
            pieces.take_whole()
        };
        assert_eq!(push(&[b'a', 0xE2, 0x82]), "a");
        assert_eq!(push(&[0xAC, b'b']), "€b");
        assert_eq!(push(&[0xFF, b'c']), "\u{FFFD}c");
        assert_eq!(push(&[0xC3]), "");
        assert_eq!(pieces.finish(), "\u{FFFD}");
    }
}
