//! Values as Python writes them: `str()`, `repr()` and `json.dumps()`.
//!
//! Models were trained on prompts made by Python, so `1e+16`, `True` and `', '` matter.

use std::fmt::Write;

use minijinja::value::{Value, ValueKind};
use minijinja::{Error, ErrorKind};

use super::halt::Halt;

/// Values nested deeper come from nowhere but an attack.
const DEPTH: usize = 100;

/// `str(value)` of at most about `cap` bytes; undefined is empty, as in Jinja.
pub(super) fn to_str(value: &Value, cap: usize) -> Result<String, Error> {
    match value.kind() {
        ValueKind::Undefined => Ok(String::new()),
        ValueKind::String => Ok(value.as_str().unwrap_or_default().to_owned()),
        _ => {
            let mut writer = ReprWriter {
                out: String::new(),
                cap,
                level: 0,
            };
            writer.value(value)?;
            Ok(writer.out)
        }
    }
}

/// The layout of [`to_json`], by the parameters of `json.dumps`.
#[derive(Debug, Clone)]
pub(super) struct JsonStyle {
    pub(super) item_separator: String,
    pub(super) key_separator: String,
    /// One level of indentation; `None` for one line.
    pub(super) indent: Option<String>,
    pub(super) characters: Characters,
    pub(super) keys: Keys,
}

/// Characters beyond ASCII in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Characters {
    Keep,
    Escape,
}

/// The order of keys in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keys {
    AsGiven,
    Sorted,
}

impl Default for JsonStyle {
    fn default() -> Self {
        Self {
            item_separator: ", ".to_owned(),
            key_separator: ": ".to_owned(),
            indent: None,
            characters: Characters::Keep,
            keys: Keys::AsGiven,
        }
    }
}

/// `json.dumps(value)` of at most about `cap` bytes. As there, an undefined value is an error.
pub(super) fn to_json(value: &Value, style: &JsonStyle, cap: usize) -> Result<String, Error> {
    let mut writer = JsonWriter {
        out: String::new(),
        style,
        cap,
        level: 0,
    };
    writer.value(value)?;
    Ok(writer.out)
}

struct JsonWriter<'a> {
    out: String,
    style: &'a JsonStyle,
    cap: usize,
    level: usize,
}

impl JsonWriter<'_> {
    fn value(&mut self, value: &Value) -> Result<(), Error> {
        // Values that share parts can be exponentially longer as text than in memory.
        Halt::check_text(self.out.len(), self.cap)?;
        match value.kind() {
            ValueKind::None => self.out.push_str("null"),
            ValueKind::Bool => self
                .out
                .push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => write_number(&mut self.out, value),
            ValueKind::String => self.string(value.as_str().unwrap_or_default()),
            ValueKind::Seq | ValueKind::Iterable => {
                let items: Vec<Value> = value.try_iter()?.collect();
                self.container('[', ']', &items, Self::value)?;
            }
            ValueKind::Map => {
                let mut fields = fields_of(value)?;
                if self.style.keys == Keys::Sorted {
                    fields.sort_by_key(|(key, _)| key.to_string());
                }
                self.container('{', '}', &fields, |writer, (key, value)| {
                    writer.key(key)?;
                    writer.out.push_str(&writer.style.key_separator);
                    writer.value(value)
                })?;
            }
            kind => return Err(not_serializable(kind)),
        }
        Ok(())
    }

    fn container<T>(
        &mut self,
        open: char,
        close: char,
        items: &[T],
        write: impl Fn(&mut Self, &T) -> Result<(), Error>,
    ) -> Result<(), Error> {
        if self.level == DEPTH {
            return Err(too_deep());
        }
        self.out.push(open);
        self.level += 1;
        for (index, item) in items.iter().enumerate() {
            if index > 0 {
                self.out.push_str(&self.style.item_separator);
            }
            self.new_line();
            write(self, item)?;
        }
        self.level -= 1;
        if !items.is_empty() {
            self.new_line();
        }
        self.out.push(close);
        Ok(())
    }

    fn new_line(&mut self) {
        if let Some(indent) = &self.style.indent {
            self.out.push('\n');
            self.out.push_str(&indent.repeat(self.level));
        }
    }

    fn key(&mut self, key: &Value) -> Result<(), Error> {
        match key.kind() {
            ValueKind::String => self.string(key.as_str().unwrap_or_default()),
            ValueKind::None | ValueKind::Bool | ValueKind::Number => {
                self.out.push('"');
                self.value(key)?;
                self.out.push('"');
            }
            kind => return Err(not_serializable(kind)),
        }
        Ok(())
    }

    fn string(&mut self, text: &str) {
        self.out.push('"');
        for c in text.chars() {
            match c {
                '"' | '\\' => self.out.extend(['\\', c]),
                '\n' => self.out.push_str("\\n"),
                '\r' => self.out.push_str("\\r"),
                '\t' => self.out.push_str("\\t"),
                '\u{8}' => self.out.push_str("\\b"),
                '\u{c}' => self.out.push_str("\\f"),
                c if c < ' '
                    || (self.style.characters == Characters::Escape
                        && !(' '..='~').contains(&c)) =>
                {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        push(&mut self.out, format_args!("\\u{unit:04x}"));
                    }
                }
                c => self.out.push(c),
            }
        }
        self.out.push('"');
    }
}

/// Writes `repr(value)`.
struct ReprWriter {
    out: String,
    cap: usize,
    level: usize,
}

impl ReprWriter {
    fn value(&mut self, value: &Value) -> Result<(), Error> {
        // Values that share parts can be exponentially longer as text than in memory.
        Halt::check_text(self.out.len(), self.cap)?;
        match value.kind() {
            ValueKind::None => self.out.push_str("None"),
            ValueKind::Bool => self
                .out
                .push_str(if value.is_true() { "True" } else { "False" }),
            ValueKind::Number => write_number(&mut self.out, value),
            ValueKind::String => {
                write_repr_string(&mut self.out, value.as_str().unwrap_or_default());
            }
            ValueKind::Seq | ValueKind::Iterable => {
                let (open, close) = if value.is_tuple() {
                    ("(", ")")
                } else {
                    ("[", "]")
                };
                let count = self.container(open, value.try_iter()?, Self::value)?;
                // The comma makes the tuple.
                self.out.push_str(if value.is_tuple() && count == 1 {
                    ","
                } else {
                    ""
                });
                self.out.push_str(close);
            }
            ValueKind::Map => {
                self.container("{", fields_of(value)?, |writer, (key, value)| {
                    writer.value(key)?;
                    writer.out.push_str(": ");
                    writer.value(value)
                })?;
                self.out.push('}');
            }
            // What is left has no Python form: undefined inside a list, functions, loops.
            _ => push(&mut self.out, format_args!("{value}")),
        }
        Ok(())
    }

    /// Writes the opening bracket and the items; returns their number.
    fn container<T>(
        &mut self,
        open: &str,
        items: impl IntoIterator<Item = T>,
        write: impl Fn(&mut Self, &T) -> Result<(), Error>,
    ) -> Result<usize, Error> {
        if self.level == DEPTH {
            return Err(too_deep());
        }
        self.level += 1;
        self.out.push_str(open);
        let mut count = 0;
        for item in items {
            self.out.push_str(if count == 0 { "" } else { ", " });
            write(self, &item)?;
            count += 1;
        }
        self.level -= 1;
        Ok(count)
    }
}

fn write_repr_string(out: &mut String, text: &str) {
    let quote = if text.contains('\'') && !text.contains('"') {
        '"'
    } else {
        '\''
    };
    out.push(quote);
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c == quote => out.extend(['\\', c]),
            c if c.is_control() => push(out, format_args!("\\x{:02x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push(quote);
}

/// A number as Python writes it, in text and in JSON alike.
fn write_number(out: &mut String, value: &Value) {
    if value.is_integer() {
        return push(out, format_args!("{value}"));
    }
    match f64::try_from(value.clone()) {
        Ok(number) => write_float(out, number),
        Err(_) => push(out, format_args!("{value}")),
    }
}

/// `repr(float)`: the shortest digits, with an exponent below 1e-4 and from 1e16.
fn write_float(out: &mut String, number: f64) {
    if number.is_nan() {
        return out.push_str("NaN");
    }
    if number.is_infinite() {
        return out.push_str(if number > 0.0 {
            "Infinity"
        } else {
            "-Infinity"
        });
    }
    let magnitude = number.abs();
    if magnitude == 0.0 || (1e-4..1e16).contains(&magnitude) {
        return push(out, format_args!("{number:?}"));
    }
    // Rust writes 1e16 and 1e-5, Python 1e+16 and 1e-05.
    let text = format!("{number:e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, exponent) = match exponent.strip_prefix('-') {
        Some(exponent) => ('-', exponent),
        None => ('+', exponent),
    };
    push(out, format_args!("{digits}e{sign}{exponent:0>2}"));
}

fn fields_of(map: &Value) -> Result<Vec<(Value, Value)>, Error> {
    map.try_iter()?
        .map(|key| map.get_item(&key).map(|value| (key, value)))
        .collect()
}

/// Writing to a string cannot fail.
fn push(out: &mut String, text: std::fmt::Arguments<'_>) {
    let _ = out.write_fmt(text);
}

fn not_serializable(kind: ValueKind) -> Error {
    Error::new(
        ErrorKind::BadSerialization,
        format!("a value of type {kind} has no json form"),
    )
}

fn too_deep() -> Error {
    Error::new(
        ErrorKind::InvalidOperation,
        format!("values are nested more than {DEPTH} times"),
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const CAP: usize = 1 << 20;

    fn value(json: serde_json::Value) -> Value {
        Value::from(minijinja::value::Serde(json))
    }

    #[test]
    fn floats_are_written_as_python_does() {
        let cases = [
            (0.1, "0.1"),
            (-0.0, "-0.0"),
            (1.0, "1.0"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (1.5e300, "1.5e+300"),
            (1e-4, "0.0001"),
            (1e-5, "1e-05"),
            (1.25e-7, "1.25e-07"),
            (123456789.125, "123456789.125"),
        ];
        for (number, text) in cases {
            assert_eq!(to_str(&Value::from(number), CAP).unwrap(), text);
            assert_eq!(
                to_json(&Value::from(number), &JsonStyle::default(), CAP).unwrap(),
                text
            );
        }
    }

    #[test]
    fn str_of_containers_is_their_repr() {
        let list = value(json!(["it's", "a\n", 1, 2.5, true, null, {"k": ["x"]}]));
        assert_eq!(
            to_str(&list, CAP).unwrap(),
            r#"["it's", 'a\n', 1, 2.5, True, None, {'k': ['x']}]"#
        );
        assert_eq!(to_str(&Value::from("it's"), CAP).unwrap(), "it's");
        assert_eq!(to_str(&Value::UNDEFINED, CAP).unwrap(), "");
    }

    #[test]
    fn json_keeps_order_and_characters() {
        let map = value(json!({"z": "<é> & 'x'", "a": [1, {}, []], "c": "\u{1}\u{7f}"}));
        let expected = "{\"z\": \"<é> & 'x'\", \"a\": [1, {}, []], \"c\": \"\\u0001\u{7f}\"}";
        assert_eq!(to_json(&map, &JsonStyle::default(), CAP).unwrap(), expected);
    }

    #[test]
    fn json_styles_follow_json_dumps() {
        let map = value(json!({"z": "é🙂", "a": [1, {}]}));
        let style = JsonStyle {
            item_separator: ",".to_owned(),
            indent: Some("  ".to_owned()),
            characters: Characters::Escape,
            keys: Keys::Sorted,
            ..JsonStyle::default()
        };
        let expected = "{\n  \"a\": [\n    1,\n    {}\n  ],\n  \"z\": \"\\u00e9\\ud83d\\ude42\"\n}";
        assert_eq!(to_json(&map, &style, CAP).unwrap(), expected);
    }

    #[test]
    fn undefined_has_no_json_form() {
        assert!(to_json(&Value::UNDEFINED, &JsonStyle::default(), CAP).is_err());
    }

    #[test]
    fn nesting_is_bounded() {
        let mut deep = Value::from(Vec::<Value>::new());
        for _ in 0..200 {
            deep = Value::from(vec![deep]);
        }
        assert!(to_json(&deep, &JsonStyle::default(), CAP).is_err());
        assert!(to_str(&deep, CAP).is_err());
    }

    #[test]
    fn ct_02_shared_lists_stop_at_the_cap() {
        let mut shared = Value::from(vec![1]);
        for _ in 0..60 {
            shared = Value::from(vec![shared.clone(), shared]);
        }
        assert!(to_json(&shared, &JsonStyle::default(), CAP).is_err());
        assert!(to_str(&shared, CAP).is_err());
    }
}
