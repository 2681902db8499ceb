//! Passages: pieces of a text that a query can be about.

use std::ops::Range;

use crate::data::DataFile;
use crate::rng::Rng;

/// Some sentences of one section of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Passage {
    text: String,
    sentences: Vec<Range<usize>>,
}

impl Passage {
    fn of(sentences: &[&str]) -> Self {
        let mut text = String::new();
        let mut places = Vec::with_capacity(sentences.len());
        for sentence in sentences {
            if !text.is_empty() {
                text.push(' ');
            }
            let start = text.len();
            text.push_str(sentence);
            places.push(start..text.len());
        }
        Self {
            text,
            sentences: places,
        }
    }

    /// The whole text.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// The number of sentences.
    pub(crate) fn sentences(&self) -> usize {
        self.sentences.len()
    }

    /// One sentence; empty when there are fewer.
    pub(crate) fn sentence(&self, index: usize) -> &str {
        let range = self.sentences.get(index).cloned().unwrap_or_default();
        self.text.get(range).unwrap_or_default()
    }

    /// The text without one sentence.
    pub(crate) fn without(&self, index: usize) -> String {
        let others = (0..self.sentences()).filter(|&i| i != index);
        let others: Vec<&str> = others.map(|i| self.sentence(i)).collect();
        others.join(" ")
    }
}

/// A rest shorter than this many words is dropped.
const FEWEST_WORDS: usize = 8;

/// The passages of a text whose sections are separated by empty lines and whose lines are
/// paragraphs. Each has at least as many words as a number drawn from `words`, but for the last of a
/// section.
pub(crate) fn passages(file: &DataFile, words: [usize; 2], rng: &mut Rng) -> Vec<Passage> {
    let mut found = Vec::new();
    for section in file.blocks() {
        let mut open: Vec<&str> = Vec::new();
        let (mut count, mut wanted) = (0, draw(words, rng));
        for sentence in section.lines().flat_map(sentences) {
            open.push(sentence);
            count += sentence.split_whitespace().count();
            if count >= wanted {
                found.push(Passage::of(&open));
                open.clear();
                (count, wanted) = (0, draw(words, rng));
            }
        }
        if count >= FEWEST_WORDS {
            found.push(Passage::of(&open));
        }
    }
    found
}

fn draw([least, most]: [usize; 2], rng: &mut Rng) -> usize {
    least + rng.below(most.saturating_sub(least) + 1)
}

/// The sentences of a paragraph: up to a mark that ends one, before something that may begin one.
pub(crate) fn sentences(paragraph: &str) -> Vec<&str> {
    let (mut found, mut start) = (Vec::new(), 0);
    let mut chars = paragraph.char_indices().peekable();
    while let Some((at, mark)) = chars.next() {
        if !matches!(mark, '.' | '!' | '?') {
            continue;
        }
        let mut end = at + mark.len_utf8();
        while let Some((_, closing)) =
            chars.next_if(|(_, c)| matches!(c, '.' | '!' | '?' | '"' | '\'' | ')' | ']'))
        {
            end += closing.len_utf8();
        }
        let rest = &paragraph[end..];
        let next = rest.trim_start();
        let ends = next.len() < rest.len() && next.starts_with(|c: char| !c.is_lowercase());
        if ends && !(mark == '.' && is_short_form(&paragraph[start..at])) {
            found.push(paragraph[start..end].trim());
            start = end;
        }
    }
    found.push(paragraph[start..].trim());
    found.retain(|sentence| !sentence.is_empty());
    found
}

/// Whether a full stop after `before` belongs to a word such as "Mr." or to an initial.
fn is_short_form(before: &str) -> bool {
    let word = before
        .rsplit(char::is_whitespace)
        .next()
        .unwrap_or_default();
    let word = word.trim_start_matches(|c: char| !c.is_alphanumeric());
    word.chars().count() <= 3 && word.starts_with(char::is_uppercase)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> (tempfile::TempDir, DataFile) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("text.txt");
        std::fs::write(&path, text).unwrap();
        let file = DataFile::read(&path).unwrap();
        (folder, file)
    }

    #[test]
    fn sentences_end_where_readers_see_an_end() {
        let found = sentences(
            "Mr. Fox ran (it was 2.5 miles). \"Stop!\" cried T. Bear. \"Why? Well...\" so he did",
        );
        assert_eq!(
            found,
            [
                "Mr. Fox ran (it was 2.5 miles).",
                "\"Stop!\" cried T. Bear.",
                "\"Why?",
                "Well...\" so he did"
            ]
        );
        assert!(sentences("  ").is_empty());
    }

    #[test]
    fn passages_stay_in_their_section_and_lose_nothing_but_short_rests() {
        let sentence = "One two three four five.";
        let section = [sentence; 7].join(" ");
        let (_folder, file) = file(&format!("{section}\n{section}\n\nToo short.\n\n{section}"));
        let found = passages(&file, [12, 12], &mut Rng::new(1));
        // 14 sentences by threes and a rest of two, then 7 of which one is dropped.
        let counts: Vec<usize> = found.iter().map(Passage::sentences).collect();
        assert_eq!(counts, [3, 3, 3, 3, 2, 3, 3]);
        assert!(found.iter().all(|p| p.text().starts_with("One two")));
    }

    #[test]
    fn a_sentence_can_be_taken_out() {
        let passage = Passage::of(&["A b.", "C d.", "E f."]);
        assert_eq!(passage.text(), "A b. C d. E f.");
        assert_eq!((passage.sentence(1), passage.sentence(3)), ("C d.", ""));
        assert_eq!(passage.without(1), "A b. E f.");
    }
}
