//! Marks in rendered text: where the model's turns are, and where the words of users are.
//!
//! A template can do anything with the text it is given, so positions have to travel inside the
//! text. They do as pairs of private-use characters that occur nowhere in the input. The rendering
//! with marks is compared with one without: where a template cut, changed or measured marked text,
//! the two differ, and the caller gets an error instead of wrong positions.

use std::collections::HashSet;
use std::ops::Range;

use serde_json::Value;

/// The template variable with the two marks of generated text.
pub(super) const GENERATION_MARKS: &str = "_lfm2_generation_marks";

/// Supplementary Private Use Area-B, which no one types.
const CANDIDATES: std::ops::RangeInclusive<char> = '\u{100000}'..='\u{10FFFD}';

/// Characters that do not occur in the input of one rendering.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Marks {
    generation: [char; 2],
    literal: [char; 2],
}

/// Text without marks, and what was marked, as sorted byte ranges.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unmarked {
    pub(super) text: String,
    pub(super) generation: Vec<Range<usize>>,
    pub(super) literal: Vec<Range<usize>>,
}

impl Marks {
    /// Marks that none of the texts contains; `None` when all are taken.
    pub(super) fn unused_in<'a>(texts: impl IntoIterator<Item = &'a str>) -> Option<Self> {
        let is_candidate = |c: &char| CANDIDATES.contains(c);
        let used: HashSet<char> = texts
            .into_iter()
            .flat_map(str::chars)
            .filter(is_candidate)
            .collect();
        let mut free = CANDIDATES.filter(|c| !used.contains(c));
        let mut pair = || Some([free.next()?, free.next()?]);
        Some(Self {
            generation: pair()?,
            literal: pair()?,
        })
    }

    /// The value of [`GENERATION_MARKS`].
    pub(super) fn generation(&self) -> String {
        self.generation.iter().collect()
    }

    /// Marks every text inside the content of a message.
    pub(super) fn mark_content(&self, content: &mut Value) {
        match content {
            Value::String(text) => *text = self.mark(text),
            Value::Array(items) => items.iter_mut().for_each(|item| self.mark_content(item)),
            Value::Object(fields) => {
                let is_part = fields.get("type").is_some_and(Value::is_string);
                let old = std::mem::take(fields);
                fields.extend(old.into_iter().map(|(name, mut value)| {
                    // Templates choose by these, and the type of a part is one of a few words.
                    let is_structure = is_part && matches!(name.as_str(), "type" | "text");
                    if name != "type" || !is_part {
                        self.mark_content(&mut value);
                    }
                    (if is_structure { name } else { self.mark(&name) }, value)
                }));
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    /// Marks `word` wherever a text inside the content of a message has it.
    pub(super) fn mark_word(&self, content: &mut Value, word: &str) {
        match content {
            Value::String(text) if text.contains(word) => {
                let [open, close] = self.literal;
                *text = text.replace(word, &format!("{open}{word}{close}"));
            }
            Value::Array(items) => items.iter_mut().for_each(|item| self.mark_word(item, word)),
            Value::Object(fields) => fields
                .values_mut()
                .for_each(|value| self.mark_word(value, word)),
            Value::String(_) | Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    /// Blanks at both ends stay outside, because templates trim them; no token begins with one.
    fn mark(&self, text: &str) -> String {
        let core = text.trim();
        let [open, close] = self.literal;
        match text.find(core).filter(|_| !core.is_empty()) {
            None => text.to_owned(),
            Some(at) => {
                let (before, rest) = text.split_at(at);
                let (core, after) = rest.split_at(core.len());
                format!("{before}{open}{core}{close}{after}")
            }
        }
    }

    /// Takes the marks out; `None` when they do not come in pairs.
    pub(super) fn unmark(&self, marked: &str) -> Option<Unmarked> {
        let mut text = String::with_capacity(marked.len());
        let mut generation = Spans::default();
        let mut literal = Spans::default();
        for c in marked.chars() {
            let at = text.len();
            if c == self.generation[0] {
                generation.open(at)?;
            } else if c == self.generation[1] {
                generation.close(at)?;
            } else if c == self.literal[0] {
                literal.open(at)?;
            } else if c == self.literal[1] {
                literal.close(at)?;
            } else {
                text.push(c);
            }
        }
        Some(Unmarked {
            text,
            generation: generation.finish()?,
            literal: literal.finish()?,
        })
    }
}

/// Spans of one kind, which do not nest.
#[derive(Debug, Default)]
struct Spans {
    open: Option<usize>,
    done: Vec<Range<usize>>,
}

impl Spans {
    fn open(&mut self, at: usize) -> Option<()> {
        self.open.replace(at).is_none().then_some(())
    }

    fn close(&mut self, at: usize) -> Option<()> {
        let start = self.open.take()?;
        self.done.push(start..at);
        Some(())
    }

    fn finish(self) -> Option<Vec<Range<usize>>> {
        self.open.is_none().then_some(self.done)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn marks_avoid_what_the_input_uses() {
        let first = Marks::unused_in(["abc"]).unwrap();
        assert_eq!(first.generation(), "\u{100000}\u{100001}");
        let second = Marks::unused_in(["a\u{100000}", "\u{100002}\u{100003}"]).unwrap();
        assert_eq!(second.generation(), "\u{100001}\u{100004}");
    }

    #[test]
    fn marking_and_unmarking_finds_the_text_again() {
        let marks = Marks::unused_in([]).unwrap();
        let mut content = json!("  héllo\n");
        marks.mark_content(&mut content);
        let unmarked = marks.unmark(content.as_str().unwrap()).unwrap();
        assert_eq!(unmarked.text, "  héllo\n");
        assert_eq!(
            (unmarked.literal.len(), unmarked.literal[0].clone()),
            (1, 2..8)
        );
    }

    #[test]
    fn every_text_of_a_structure_is_marked_but_the_type_of_a_part() {
        let marks = Marks::unused_in([]).unwrap();
        let original = json!([{"type": "text", "text": "a"}, {"k": ["b", 1, null]}]);
        let mut content = original.clone();
        marks.mark_content(&mut content);
        assert_eq!(content[0]["type"], "text");
        let unmarked = marks.unmark(&content.to_string()).unwrap();
        assert_eq!(unmarked.text, original.to_string());
        assert_eq!(unmarked.literal.len(), 3);
    }

    #[test]
    fn a_word_is_marked_wherever_it_is() {
        let marks = Marks::unused_in([]).unwrap();
        let mut content = json!([{"type": "text", "text": "an <image> <image>"}, "none"]);
        let original = content.clone();
        marks.mark_word(&mut content, "<image>");
        let unmarked = marks.unmark(&content.to_string()).unwrap();
        assert_eq!(unmarked.text, original.to_string());
        let found = unmarked.literal.iter().map(|at| &unmarked.text[at.clone()]);
        assert_eq!(found.collect::<Vec<_>>(), ["<image>"; 2]);
    }

    #[test]
    fn lone_marks_are_noticed() {
        let marks = Marks::unused_in([]).unwrap();
        let [open, close] = marks.literal;
        for text in [
            format!("{open}a"),
            format!("a{close}"),
            format!("{open}{open}{close}"),
        ] {
            assert_eq!(marks.unmark(&text), None);
        }
    }
}
