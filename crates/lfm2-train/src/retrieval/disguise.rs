//! Words in the place of others that are as rare.
//!
//! A small model learns the words of its texts by heart, and knows less and less what to do with any
//! other. In a disguised batch every word is another one, the same everywhere in the batch: what is left
//! to learn is which words tell, and that equal words belong together.

use std::collections::{BTreeMap, HashMap};

use crate::rng::Rng;

/// The words of all texts, in groups of about the same frequency.
#[derive(Debug, Default)]
pub(crate) struct Words {
    groups: Vec<Vec<String>>,
    places: HashMap<String, (usize, usize)>,
}

/// A choice of another word for every word.
#[derive(Debug)]
pub(crate) struct Disguise<'a> {
    words: &'a Words,
    /// Per group, how far places are moved.
    offsets: Vec<usize>,
}

/// Words that are more frequent than this many others keep their place: they are what sentences are
/// made of.
const COMMON: usize = 160;
/// How many times as frequent the first word of a group may be as the last.
const SPREAD: usize = 2;

impl Words {
    /// Groups the words of `counts`, which says how often each occurs.
    pub(crate) fn new(counts: &BTreeMap<String, usize>) -> Self {
        let usable = |word: &str| word.chars().count() > 1 && word.chars().all(char::is_alphabetic);
        let mut all: Vec<(usize, &String)> = counts
            .iter()
            .filter(|(word, _)| usable(word))
            .map(|(word, &count)| (count, word))
            .collect();
        all.sort_by(|a, b| b.cmp(a));
        let mut words = Self::default();
        let mut most = 0;
        for (count, word) in all.into_iter().skip(COMMON) {
            if words.groups.is_empty() || count * SPREAD < most {
                words.groups.push(Vec::new());
                most = count;
            }
            let number = words.groups.len() - 1;
            if let Some(group) = words.groups.last_mut() {
                words.places.insert(word.clone(), (number, group.len()));
                group.push(word.clone());
            }
        }
        words
    }

    /// A disguise drawn by chance.
    pub(crate) fn disguise(&self, rng: &mut Rng) -> Disguise<'_> {
        let offsets = self.groups.iter().map(|group| rng.below(group.len()));
        Disguise {
            words: self,
            offsets: offsets.collect(),
        }
    }
}

impl Disguise<'_> {
    /// `text` with all its words replaced.
    pub(crate) fn of(&self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while !rest.is_empty() {
            let letters = |s: &str, want: bool| {
                let end = s.find(|c: char| c.is_alphanumeric() != want);
                end.unwrap_or(s.len())
            };
            let (word, after) = rest.split_at(letters(rest, true));
            out.push_str(self.other(&word.to_lowercase()).unwrap_or(word));
            let (between, after) = after.split_at(letters(after, false));
            out.push_str(between);
            rest = after;
        }
        out
    }

    fn other(&self, word: &str) -> Option<&str> {
        let &(number, place) = self.words.places.get(word)?;
        let group = self.words.groups.get(number)?;
        let moved = (place + self.offsets.get(number)?) % group.len().max(1);
        group.get(moved).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 160 common words, then 40 of each of two frequencies.
    fn words() -> Words {
        let name = |i: usize| {
            format!(
                "w{}",
                ["a", "b", "c", "d", "e"]
                    .map(|c| c.repeat(1 + i % 7))
                    .join("")
            ) + &"x".repeat(i / 7)
        };
        let count = |i: usize| match i {
            0..160 => 10_000,
            160..200 => 500,
            _ => 3,
        };
        Words::new(&(0..240).map(|i| (name(i), count(i))).collect())
    }

    #[test]
    fn words_change_within_their_group_and_back_to_none_other() {
        let words = words();
        assert_eq!(
            words.groups.iter().map(Vec::len).collect::<Vec<_>>(),
            [40, 40]
        );
        let disguise = words.disguise(&mut Rng::new(3));
        for group in &words.groups {
            let mut others: Vec<String> = group.iter().map(|word| disguise.of(word)).collect();
            assert_ne!(&others, group);
            others.sort();
            let mut same = group.clone();
            same.sort();
            assert_eq!(others, same);
        }
    }

    #[test]
    fn marks_numbers_and_common_words_stay() {
        let words = words();
        let disguise = words.disguise(&mut Rng::new(4));
        let word = &words.groups[0][0];
        let text = format!(" (the 12 {word}s, {}!) ", word.to_uppercase());
        let expected = format!(" (the 12 {word}s, {}!) ", disguise.of(word));
        assert_eq!(disguise.of(&text), expected);
        assert_eq!(disguise.of(""), "");
    }
}
