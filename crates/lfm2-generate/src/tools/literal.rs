//! Python literals, with JSON's names for the constants: the arguments of a tool call.
//!
//! Total and bounded: every text is either a literal or `None`, nesting is capped, and the work is
//! linear in the text. Python syntax that computes something (`1 + 2`, `f"{x}"`) is no literal.
//! Neither is a number that JSON cannot hold, such as `NaN` or an integer of more than 64 bits,
//! because a rounded argument would be worse than a call shown as text.

use std::borrow::Cow;

use serde_json::{Map, Number, Value};

/// Containers inside containers; JSON readers stop at 128.
const DEPTH: usize = 64;

/// A position in a text of literals.
#[derive(Debug, Clone)]
pub(super) struct Cursor<'a> {
    rest: &'a str,
    depth: usize,
}

/// Whether a list had a comma.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Commas {
    Absent,
    Present,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self {
            rest: text,
            depth: 0,
        }
    }

    fn skip_blank(&mut self) {
        self.rest = self.rest.trim_start();
    }

    /// Skips blanks and says whether nothing is left.
    pub(super) fn is_at_end(&mut self) -> bool {
        self.skip_blank();
        self.rest.is_empty()
    }

    /// Skips blanks and says what comes next, without taking it.
    pub(super) fn next_is(&mut self, token: &str) -> bool {
        self.skip_blank();
        self.rest.starts_with(token)
    }

    /// Skips blanks and takes `token` when it comes next.
    pub(super) fn eat(&mut self, token: &str) -> bool {
        self.skip_blank();
        let rest = self.rest.strip_prefix(token);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    /// Skips blanks and takes the longest run of characters that `accept` allows; may be empty.
    pub(super) fn take_while(&mut self, accept: impl Fn(char) -> bool) -> &'a str {
        self.skip_blank();
        let end = self.rest.find(|c| !accept(c)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at(end);
        self.rest = rest;
        taken
    }

    /// Items up to `close`, separated by commas, of which one may trail.
    pub(super) fn list(
        &mut self,
        close: &str,
        mut item: impl FnMut(&mut Self) -> Option<()>,
    ) -> Option<Commas> {
        let mut commas = Commas::Absent;
        loop {
            if self.eat(close) {
                return Some(commas);
            }
            item(self)?;
            if !self.eat(",") {
                return self.eat(close).then_some(commas);
            }
            commas = Commas::Present;
        }
    }

    /// A literal.
    pub(super) fn value(&mut self) -> Option<Value> {
        self.skip_blank();
        match self.rest.chars().next()? {
            '"' | '\'' => self.string().map(Value::String),
            '[' | '(' | '{' => self.container(),
            '0'..='9' | '.' | '+' | '-' => self.number().map(Value::Number),
            _ => self.constant(),
        }
    }

    fn constant(&mut self) -> Option<Value> {
        match self.take_while(|c| c.is_alphanumeric() || c == '_') {
            "True" | "true" => Some(Value::Bool(true)),
            "False" | "false" => Some(Value::Bool(false)),
            "None" | "null" => Some(Value::Null),
            _ => None,
        }
    }

    fn container(&mut self) -> Option<Value> {
        if self.depth == DEPTH {
            return None;
        }
        self.depth += 1;
        let value = if self.next_is("{") {
            self.dict().map(Value::Object)
        } else if self.eat("[") {
            self.items("]").map(|(items, _)| Value::Array(items))
        } else if self.eat("(") {
            self.items(")")
                .map(|(mut items, commas)| match (items.len(), commas) {
                    // Parentheses around one value are no tuple; the comma makes it one.
                    (1, Commas::Absent) => items.remove(0),
                    _ => Value::Array(items),
                })
        } else {
            None
        };
        self.depth -= 1;
        value
    }

    fn items(&mut self, close: &str) -> Option<(Vec<Value>, Commas)> {
        let mut items = Vec::new();
        let commas = self.list(close, |cursor| {
            items.push(cursor.value()?);
            Some(())
        })?;
        Some((items, commas))
    }

    /// A dict from its opening brace. Repeated keys: the last one counts, as in Python and JSON.
    pub(super) fn dict(&mut self) -> Option<Map<String, Value>> {
        if !self.eat("{") {
            return None;
        }
        let mut fields = Map::new();
        self.list("}", |cursor| {
            let key = match cursor.value()? {
                Value::String(text) => text,
                Value::Array(_) | Value::Object(_) => return None,
                // JSON has textual keys only; this is how Python writes the others.
                scalar => scalar.to_string(),
            };
            if !cursor.eat(":") {
                return None;
            }
            fields.insert(key, cursor.value()?);
            Some(())
        })?;
        Some(fields)
    }

    fn number(&mut self) -> Option<Number> {
        let negative = self.eat("-");
        if !negative {
            self.eat("+");
        }
        self.skip_blank();
        let mut previous = ' ';
        let end = self.rest.find(|c: char| {
            let exponent_sign = matches!(c, '+' | '-') && matches!(previous, 'e' | 'E');
            previous = c;
            !(c.is_ascii_alphanumeric() || matches!(c, '.' | '_') || exponent_sign)
        });
        let (digits, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        self.rest = rest;
        number_value(&ungroup(digits)?, negative)
    }

    fn string(&mut self) -> Option<String> {
        let quote = self.rest.get(..1)?;
        let triple = quote.repeat(3);
        let close = if self.rest.starts_with(&triple) {
            triple.as_str()
        } else {
            quote
        };
        let mut rest = self.rest.get(close.len()..)?;
        let mut text = String::new();
        loop {
            if let Some(after) = rest.strip_prefix(close) {
                self.rest = after;
                return Some(text);
            }
            if let Some(escape) = rest.strip_prefix('\\') {
                rest = unescape(escape, &mut text)?;
                continue;
            }
            let c = rest.chars().next()?;
            text.push(c);
            rest = rest.get(c.len_utf8()..)?;
        }
    }
}

/// Digits without Python's underscores, of which one may stand between two digits.
fn ungroup(digits: &str) -> Option<Cow<'_, str>> {
    if !digits.contains('_') {
        return Some(Cow::Borrowed(digits));
    }
    let is_digit = |c: Option<char>| c.is_some_and(|c| c.is_ascii_hexdigit());
    digits
        .split('_')
        .all(|group| is_digit(group.chars().next()) && is_digit(group.chars().next_back()))
        .then(|| Cow::Owned(digits.replace('_', "")))
}

fn number_value(digits: &str, negative: bool) -> Option<Number> {
    let radix = match digits.get(..2) {
        Some("0x" | "0X") => Some(16),
        Some("0o" | "0O") => Some(8),
        Some("0b" | "0B") => Some(2),
        _ => None,
    };
    if let Some(radix) = radix {
        let digits = digits.get(2..).filter(|digits| !digits.starts_with('+'))?;
        return integer(u64::from_str_radix(digits, radix).ok()?, negative);
    }
    if digits.bytes().all(|b| b.is_ascii_digit()) {
        // As in Python, a code with leading zeros is no number.
        let padded = digits.len() > 1 && digits.starts_with('0');
        return if padded {
            None
        } else {
            integer(digits.parse().ok()?, negative)
        };
    }
    let is_decimal = |c: char| c.is_ascii_digit() || matches!(c, '.' | 'e' | 'E' | '+' | '-');
    if !digits.chars().all(is_decimal) {
        return None;
    }
    let magnitude: f64 = digits.parse().ok()?;
    // `from_f64` refuses what JSON has no word for, here the result of a huge exponent.
    Number::from_f64(if negative { -magnitude } else { magnitude })
}

fn integer(magnitude: u64, negative: bool) -> Option<Number> {
    if negative {
        return i64::try_from(-i128::from(magnitude)).ok().map(Number::from);
    }
    Some(Number::from(magnitude))
}

/// Reads one escape after its backslash into `text`; returns what follows it.
///
/// An escape that Python does not know stands for itself, backslash included. So does one that
/// Python would refuse, such as the `\U` of an unescaped Windows path.
fn unescape<'a>(escape: &'a str, text: &mut String) -> Option<&'a str> {
    let c = escape.chars().next()?;
    let rest = escape.get(c.len_utf8()..)?;
    let plain = match c {
        'n' => '\n',
        't' => '\t',
        'r' => '\r',
        '\\' | '\'' | '"' => c,
        'a' => '\u{7}',
        'b' => '\u{8}',
        'f' => '\u{c}',
        'v' => '\u{b}',
        '\n' => return Some(rest),
        '0'..='7' => return octal(escape, text),
        _ => {
            let (decoded, rest) = hexadecimal(escape).unwrap_or(('\\', escape));
            text.push(decoded);
            return Some(rest);
        }
    };
    text.push(plain);
    Some(rest)
}

/// One to three octal digits.
fn octal<'a>(escape: &'a str, text: &mut String) -> Option<&'a str> {
    let end = escape
        .bytes()
        .take(3)
        .take_while(|b| matches!(b, b'0'..=b'7'))
        .count();
    let (digits, rest) = escape.split_at_checked(end)?;
    text.push(char::from_u32(u32::from_str_radix(digits, 8).ok()?)?);
    Some(rest)
}

/// `xHH`, `uHHHH` or `UHHHHHHHH`. JSON writes characters beyond U+FFFF as two of the second kind;
/// half of such a pair has no character and becomes U+FFFD.
fn hexadecimal(escape: &str) -> Option<(char, &str)> {
    if let Some((code, rest)) = code_unit(escape, 'x', 2).or_else(|| code_unit(escape, 'U', 8)) {
        return Some((char::from_u32(code)?, rest));
    }
    let (code, rest) = code_unit(escape, 'u', 4)?;
    let low = rest
        .strip_prefix('\\')
        .and_then(|low| code_unit(low, 'u', 4));
    if let (0xD800..=0xDBFF, Some((low @ 0xDC00..=0xDFFF, rest))) = (code, low) {
        let joined = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
        return Some((char::from_u32(joined)?, rest));
    }
    Some((
        char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER),
        rest,
    ))
}

fn code_unit(escape: &str, kind: char, digits: usize) -> Option<(u32, &str)> {
    let (digits, rest) = escape.strip_prefix(kind)?.split_at_checked(digits)?;
    let valid = digits.bytes().all(|b| b.is_ascii_hexdigit());
    Some((valid.then(|| u32::from_str_radix(digits, 16).ok())??, rest))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(text: &str) -> Option<Value> {
        let mut cursor = Cursor::new(text);
        let value = cursor.value()?;
        cursor.is_at_end().then_some(value)
    }

    #[test]
    fn numbers_follow_python() {
        let cases = [
            ("1_000", json!(1000)),
            ("0x1F", json!(31)),
            ("-0b11", json!(-3)),
            ("1.", json!(1.0)),
            (".5", json!(0.5)),
            ("- 2", json!(-2)),
            ("1e-3", json!(0.001)),
            ("18446744073709551615", json!(u64::MAX)),
            ("-9223372036854775808", json!(i64::MIN)),
            ("00.5", json!(0.5)),
        ];
        for (text, value) in cases {
            assert_eq!(read(text), Some(value), "{text}");
        }
        for text in [
            "1__0", "_1", "0x", "0x+1", ".", "e5", "02134", "1+2", "--1", "5j", "1f",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn ct_09_numbers_without_json_form_are_no_literals() {
        let big = ["18446744073709551616", "-9223372036854775809", "1e999"];
        for text in ["NaN", "nan", "inf", "-inf", "Infinity"]
            .into_iter()
            .chain(big)
        {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn ct_09_escapes_stand_for_themselves_when_python_has_none() {
        let cases = [
            (r#""\d\d""#, r"\d\d".to_owned()),
            (r#""C:\Users\x""#, r"C:\Users\x".to_owned()),
            (
                r#""\x41\101\u00e9\U0001F642""#,
                "AA\u{e9}\u{1F642}".to_owned(),
            ),
            (
                r#""\ud83d\ude42 \ud83d!""#,
                "\u{1F642} \u{FFFD}!".to_owned(),
            ),
            ("\"a\\\nb\"", "ab".to_owned()),
        ];
        for (text, value) in cases {
            assert_eq!(read(text), Some(Value::String(value)), "{text}");
        }
    }

    #[test]
    fn ct_09_the_last_of_repeated_keys_counts() {
        let value = json!({"a": 2, "3": 4, "null": 5});
        assert_eq!(read(r#"{"a": 1, 'a': 2, 3: 4, None: 5}"#), Some(value));
    }

    #[test]
    fn parentheses_make_a_tuple_only_with_a_comma() {
        assert_eq!(read("(1)"), Some(json!(1)));
        assert_eq!(read("(1,)"), Some(json!([1])));
        assert_eq!(read("()"), Some(json!([])));
        assert_eq!(read("[,]"), None);
        assert_eq!(read("[1 2]"), None);
    }

    #[test]
    fn strings_have_one_or_three_quotes() {
        assert_eq!(read("'''it's\n\"x\"'''"), Some(json!("it's\n\"x\"")));
        assert_eq!(read(r#""""#), Some(json!("")));
        assert_eq!(read(r#""""""""#), Some(json!("")));
        assert_eq!(read(r#""open"#), None);
        assert_eq!(read(r#""open\"#), None);
    }

    #[test]
    fn nesting_is_bounded() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(read(&nested(DEPTH)).is_some());
        assert!(read(&nested(DEPTH + 1)).is_none());
        assert!(read(&"[".repeat(1_000_000)).is_none());
    }
}
