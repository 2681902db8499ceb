//! Conditions on documents, and how they are written.

use std::str::FromStr;

use serde_json::Value;

use super::{Document, IndexError, Result};

/// What documents must be like: all conditions hold.
///
/// Written as `lang = de`, `year in [2024, 2025]`, `path ^= "docs/"`, and several joined by `and`. A
/// word without quotes stands for the text, the number or the truth value spelled like it.
///
/// ```
/// use lfm2_colbert::index::{Document, Filter};
///
/// let filter: Filter = "path ^= docs/ and lang in [de, en]".parse()?;
/// let document = Document::new("1").with_field("path", "docs/cli.md").with_field("lang", "en");
/// assert!(filter.matches(&document));
/// # Ok::<(), lfm2_colbert::index::IndexError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Filter {
    /// The conditions.
    pub all: Vec<Condition>,
}

/// What one field of a document must be like.
#[derive(Debug, Clone, PartialEq)]
pub struct Condition {
    /// The name of a field; `id`, `title` and `path` are a document's own unless it has fields of
    /// these names. Documents without it do not match.
    pub field: String,
    /// What its value must be. Of a list, one value has to.
    pub test: Test,
}

/// What a value must be.
#[derive(Debug, Clone, PartialEq)]
pub enum Test {
    /// One of these.
    OneOf(Vec<Value>),
    /// A text that begins with this.
    Prefix(String),
}

impl Filter {
    /// Whether a document matches.
    pub fn matches(&self, document: &Document) -> bool {
        self.all.iter().all(|condition| condition.matches(document))
    }
}

impl Condition {
    fn matches(&self, document: &Document) -> bool {
        if let Some(value) = document.fields.get(&self.field) {
            return match value {
                Value::Array(values) => values.iter().any(|value| self.test.accepts(value)),
                value => self.test.accepts(value),
            };
        }
        let own = match self.field.as_str() {
            "id" => Some(&document.id),
            "title" => document.title.as_ref(),
            "path" => document.location.as_ref().map(|location| &location.path),
            _ => None,
        };
        own.is_some_and(|text| self.test.accepts_text(text))
    }
}

impl Test {
    fn accepts(&self, value: &Value) -> bool {
        match (self, value) {
            (_, Value::String(text)) => self.accepts_text(text),
            (Self::OneOf(values), Value::Number(number)) => values.iter().any(|value| {
                value.as_number() == Some(number)
                    || value.as_f64().is_some_and(|v| Some(v) == number.as_f64())
            }),
            (Self::OneOf(values), value) => values.contains(value),
            (Self::Prefix(_), _) => false,
        }
    }

    fn accepts_text(&self, text: &str) -> bool {
        match self {
            Self::OneOf(values) => values.iter().any(|value| value.as_str() == Some(text)),
            Self::Prefix(prefix) => text.starts_with(prefix),
        }
    }
}

impl FromStr for Filter {
    type Err = IndexError;

    fn from_str(text: &str) -> Result<Self> {
        let mut parser = Parser { text, at: 0 };
        let mut all = vec![parser.condition()?];
        while !parser.at_end() {
            if parser.word().as_deref() != Some("and") {
                return Err(parser.expected("\"and\" or the end"));
            }
            all.push(parser.condition()?);
        }
        Ok(Self { all })
    }
}

struct Parser<'a> {
    text: &'a str,
    /// In bytes, always between two characters.
    at: usize,
}

impl Parser<'_> {
    fn rest(&self) -> &str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn skip_space(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start().len();
    }

    fn at_end(&mut self) -> bool {
        self.skip_space();
        self.rest().is_empty()
    }

    fn expected(&self, expected: &'static str) -> IndexError {
        let before = self.text.get(..self.at).unwrap_or_default();
        IndexError::Filter {
            at: before.chars().count() + 1,
            expected,
        }
    }

    fn take(&mut self, sign: &str) -> bool {
        self.skip_space();
        let found = self.rest().starts_with(sign);
        if found {
            self.at += sign.len();
        }
        found
    }

    /// Letters up to a space or a sign; nothing is taken when there are none.
    fn word(&mut self) -> Option<String> {
        self.skip_space();
        let rest = self.rest();
        let ends = |c: char| c.is_whitespace() || matches!(c, '=' | '^' | ',' | '[' | ']' | '"');
        let word = rest.split(ends).next().unwrap_or_default().to_owned();
        self.at += word.len();
        (!word.is_empty()).then_some(word)
    }

    /// A text in quotes, with the escapes of json.
    fn quoted(&mut self) -> Result<Option<String>> {
        self.skip_space();
        if !self.rest().starts_with('"') {
            return Ok(None);
        }
        let mut values = serde_json::Deserializer::from_str(self.rest()).into_iter::<String>();
        let Some(Ok(text)) = values.next() else {
            return Err(self.expected("a text in quotes that ends"));
        };
        let length = values.byte_offset();
        self.at += length;
        Ok(Some(text))
    }

    fn text(&mut self, expected: &'static str) -> Result<String> {
        match self.quoted()? {
            Some(text) => Ok(text),
            None => self.word().ok_or_else(|| self.expected(expected)),
        }
    }

    /// A value: what the word is as json, and the word itself.
    fn values(&mut self) -> Result<Vec<Value>> {
        if let Some(text) = self.quoted()? {
            return Ok(vec![Value::String(text)]);
        }
        let word = self.word().ok_or_else(|| self.expected("a value"))?;
        let json = serde_json::from_str(&word).ok();
        let json = json.filter(|value: &Value| value.is_number() || value.is_boolean());
        Ok(json.into_iter().chain([Value::String(word)]).collect())
    }

    fn condition(&mut self) -> Result<Condition> {
        let field = self.text("the name of a field")?;
        let test = if self.take("^=") {
            Test::Prefix(self.text("a text")?)
        } else if self.take("=") {
            Test::OneOf(self.values()?)
        } else if self.word().as_deref() == Some("in") {
            Test::OneOf(self.list()?)
        } else {
            return Err(self.expected("\"=\", \"^=\" or \"in\""));
        };
        Ok(Condition { field, test })
    }

    fn list(&mut self) -> Result<Vec<Value>> {
        if !self.take("[") {
            return Err(self.expected("\"[\""));
        }
        let mut values = self.values()?;
        while self.take(",") {
            values.extend(self.values()?);
        }
        if self.take("]") {
            Ok(values)
        } else {
            Err(self.expected("\",\" or \"]\""))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::index::Location;

    fn parse(text: &str) -> Filter {
        text.parse().unwrap()
    }

    fn document() -> Document {
        Document::new("a#1")
            .with_title("Über alles")
            .with_field("year", 2024)
            .with_field("tags", json!(["x", "y z"]))
            .with_field("draft", false)
            .with_location(Location {
                path: "docs/a.md".to_owned(),
                start: 0,
                end: 9,
            })
    }

    #[test]
    fn every_test_of_every_kind_of_value() {
        for (text, expected) in [
            ("year = 2024", true),
            ("year = 2024.0", true),
            ("year = \"2024\"", false),
            ("year in [1, 2024]", true),
            ("year in [1,2]", false),
            ("tags = x", true),
            ("tags=\"y z\"", true),
            ("tags ^= y", true),
            ("tags = z", false),
            ("draft = false", true),
            ("draft = true", false),
            ("path ^= docs/ and year = 2024", true),
            ("path ^= docs/ and year = 2023", false),
            ("title ^= \"\\u00dcber \"", true),
            ("id = a#1", true),
            ("nothing = 1", false),
            ("year ^= 20", false),
        ] {
            assert_eq!(parse(text).matches(&document()), expected, "{text}");
        }
    }

    #[test]
    fn a_field_hides_what_a_document_has_of_that_name() {
        let document = document().with_field("path", "elsewhere");
        assert!(parse("path = elsewhere").matches(&document));
        assert!(!parse("path ^= docs").matches(&document));
    }

    proptest::proptest! {
        #![proptest_config(proptest::test_runner::Config {
            failure_persistence: None,
            ..proptest::test_runner::Config::with_cases(64)
        })]

        #[test]
        fn any_text_is_a_filter_or_an_error_inside_it(text in "[a=^in \\[\\],\"\\\\ü1-]{0,20}|.{0,20}") {
            match text.parse::<Filter>() {
                Ok(filter) => assert!(!filter.all.is_empty()),
                Err(IndexError::Filter { at, .. }) => assert!(at <= text.chars().count() + 1),
                Err(error) => panic!("{error}"),
            }
        }
    }

    #[test]
    fn mistakes_are_placed() {
        for (text, at) in [
            ("", 1),
            ("ü", 2),
            ("a b c", 4),
            ("a = ", 5),
            ("a = \"b", 5),
            ("a in b", 6),
            ("a in [b", 8),
            ("a in [b c]", 9),
            ("a = b or c = d", 9),
            ("a = b and", 10),
            ("= b", 1),
        ] {
            let error = text.parse::<Filter>().unwrap_err();
            assert!(
                matches!(error, IndexError::Filter { at: found, .. } if found == at),
                "{text}: {error}"
            );
        }
    }
}
