//! [`Rendered`]: a prompt as text, and as tokens.

use std::ops::Range;

use lfm2_hub::{Bos, SpecialTokens, Tokenizer};

use super::Result;

/// A rendered conversation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rendered {
    /// The whole prompt.
    pub text: String,
    /// Byte ranges of `text` that the model would have written, for training masks. Filled with
    /// [`super::Spans::Generation`], from the template's `{% generation %}` blocks.
    pub generation: Vec<Range<usize>>,
    /// Byte ranges of `text` that are words of users and tools. Filled with
    /// [`super::UserText::Literal`].
    pub literal: Vec<Range<usize>>,
}

/// A stretch of a prompt.
#[derive(Debug, PartialEq, Eq)]
enum Stretch<'a> {
    Special(u32),
    Text(&'a str),
}

impl Rendered {
    /// The token ids of the prompt, without another beginning-of-sequence token.
    ///
    /// Special tokens spelled by the template are tokens; those spelled inside
    /// [`Rendered::literal`] are ordinary text. All other text has the same ids either way.
    ///
    /// # Errors
    /// What [`Tokenizer::encode`] says.
    pub fn encode(&self, tokenizer: &Tokenizer) -> Result<Vec<u32>> {
        if self.literal.is_empty() {
            return Ok(tokenizer.encode(&self.text, SpecialTokens::Parse, Bos::Omit)?);
        }
        let specials: Vec<(String, u32)> = tokenizer
            .special_ids()
            .into_iter()
            .filter_map(|id| Some((tokenizer.token_text(id)?, id)))
            .filter(|(text, _)| !text.is_empty())
            .collect();
        let mut ids = Vec::new();
        for stretch in self.stretches(&specials) {
            match stretch {
                Stretch::Special(id) => ids.push(id),
                Stretch::Text(text) => {
                    ids.extend(tokenizer.encode(text, SpecialTokens::Literal, Bos::Omit)?);
                }
            }
        }
        Ok(ids)
    }

    /// Cuts the text at the special tokens that share no byte with a user's words. The tokenizer
    /// itself cuts there first, so that what lies between is tokenised as it would be whole.
    fn stretches(&self, specials: &[(String, u32)]) -> Vec<Stretch<'_>> {
        let mut stretches = Vec::new();
        let (mut start, mut at) = (0, 0);
        while let Some(rest) = self.text.get(at..) {
            let Some(first) = rest.chars().next() else {
                break;
            };
            // The longest one, as the tokenizer does.
            let hit = specials
                .iter()
                .filter(|(special, _)| rest.starts_with(special.as_str()))
                .max_by_key(|(special, _)| special.len())
                .filter(|(special, _)| !self.is_literal(at..at + special.len()));
            let Some((special, id)) = hit else {
                at += first.len_utf8();
                continue;
            };
            stretches.extend(
                self.text
                    .get(start..at)
                    .filter(|t| !t.is_empty())
                    .map(Stretch::Text),
            );
            stretches.push(Stretch::Special(*id));
            at += special.len();
            start = at;
        }
        stretches.extend(
            self.text
                .get(start..)
                .filter(|t| !t.is_empty())
                .map(Stretch::Text),
        );
        stretches
    }

    /// Whether a byte range shares a byte with a user's words.
    fn is_literal(&self, range: Range<usize>) -> bool {
        let next = self
            .literal
            .partition_point(|literal| literal.end <= range.start);
        self.literal
            .get(next)
            .is_some_and(|literal| literal.start < range.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn specials() -> Vec<(String, u32)> {
        vec![("<e>".into(), 1), ("<s>".into(), 2), ("<s>x".into(), 3)]
    }

    fn stretches(text: &str, literal: &[(usize, usize)]) -> Vec<(u32, String)> {
        let literal = literal.iter().map(|(start, end)| *start..*end).collect();
        let rendered = Rendered {
            text: text.into(),
            generation: Vec::new(),
            literal,
        };
        let pair = |stretch| match stretch {
            Stretch::Special(id) => (id, String::new()),
            Stretch::Text(text) => (0, text.to_owned()),
        };
        rendered
            .stretches(&specials())
            .into_iter()
            .map(pair)
            .collect()
    }

    #[test]
    fn specials_of_the_template_are_cut_out() {
        let expected = [(2, ""), (0, "é"), (1, ""), (3, ""), (0, "<")];
        let expected = expected.map(|(id, text)| (id, text.to_owned()));
        assert_eq!(stretches("<s>é<e><s>x<", &[(4, 4)]), expected);
    }

    #[test]
    fn tk_06_specials_that_touch_user_text_are_text() {
        // Whole, first half and second half of a token inside the user's words.
        assert_eq!(stretches("a<e>b", &[(0, 5)]), [(0, "a<e>b".to_owned())]);
        assert_eq!(stretches("a<e>b", &[(0, 2)]), [(0, "a<e>b".to_owned())]);
        assert_eq!(stretches("a<e>b", &[(3, 5)]), [(0, "a<e>b".to_owned())]);
        // Right behind them it is the template's.
        let cut = [(0, "a".to_owned()), (1, String::new()), (0, "b".to_owned())];
        assert_eq!(stretches("a<e>b", &[(0, 1), (4, 5)]), cut);
    }
}
