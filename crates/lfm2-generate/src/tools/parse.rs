//! The text between the markers of a tool call.

use serde_json::{Map, Value};

use super::ToolCall;
use super::call::is_name;
use super::literal::Cursor;

/// The calls of a text such as `[f(a=1), g(b="x")]`, in Python or JSON form.
///
/// `None` when the text is anything but a complete list of at least one call with keyword
/// arguments, or of JSON objects with `name` and `arguments` (one such object may stand alone).
pub(super) fn calls(text: &str) -> Option<Vec<ToolCall>> {
    let calls = json_calls(text).or_else(|| python_calls(text))?;
    (!calls.is_empty()).then_some(calls)
}

/// JSON first, because its strings have other escapes than Python's.
fn json_calls(text: &str) -> Option<Vec<ToolCall>> {
    let text = text.trim();
    if !text.trim_start_matches('[').trim_start().starts_with('{') {
        return None;
    }
    match serde_json::from_str(text).ok()? {
        Value::Array(items) => items.into_iter().map(json_call).collect(),
        object => json_call(object).map(|call| vec![call]),
    }
}

fn json_call(value: Value) -> Option<ToolCall> {
    let call: ToolCall = serde_json::from_value(value).ok()?;
    is_name(&call.name).then_some(call)
}

fn python_calls(text: &str) -> Option<Vec<ToolCall>> {
    let mut cursor = Cursor::new(text);
    let mut calls = Vec::new();
    if !cursor.eat("[") {
        return None;
    }
    cursor.list("]", |cursor| {
        calls.push(python_call(cursor)?);
        Some(())
    })?;
    cursor.is_at_end().then_some(calls)
}

fn python_call(cursor: &mut Cursor<'_>) -> Option<ToolCall> {
    if cursor.next_is("{") {
        // A dict in Python's spelling, which JSON did not take.
        return json_call(Value::Object(cursor.dict()?));
    }
    let name = cursor.take_while(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.'));
    if !is_name(name) || !cursor.eat("(") {
        return None;
    }
    let mut arguments = Map::new();
    cursor.list(")", |cursor| argument(cursor, &mut arguments))?;
    Some(ToolCall::new(name, arguments))
}

/// `name=value`, or `**{...}` for names that are no Python identifiers.
fn argument(cursor: &mut Cursor<'_>, arguments: &mut Map<String, Value>) -> Option<()> {
    let fields = if cursor.eat("**") {
        cursor.dict()?
    } else {
        let name = cursor.take_while(is_identifier_char);
        if !is_identifier(name) || !cursor.eat("=") {
            return None;
        }
        Map::from_iter([(name.to_owned(), cursor.value()?)])
    };
    for (name, value) in fields {
        // Python refuses a repeated argument, and nobody can say which one was meant.
        if arguments.insert(name, value).is_some() {
            return None;
        }
    }
    Some(())
}

/// Whether `name` can be written in front of `=`.
pub(super) fn is_identifier(name: &str) -> bool {
    !name.is_empty()
        && name.chars().all(is_identifier_char)
        && !name.starts_with(|c: char| c.is_numeric())
}

fn is_identifier_char(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn one(text: &str) -> Option<(String, Value)> {
        let mut calls = calls(text)?;
        assert_eq!(calls.len(), 1, "{text}");
        let call = calls.remove(0);
        Some((call.name, Value::Object(call.arguments)))
    }

    #[test]
    fn json_objects_are_calls() {
        let forms = [
            r#"[{"name": "f", "arguments": {"a": "\/"}}]"#,
            r#"{"name": "f", "arguments": {"a": "/"}}"#,
            r#"[{'name': 'f', 'arguments': {'a': '/'}}]"#,
        ];
        for form in forms {
            assert_eq!(one(form), Some(("f".into(), json!({"a": "/"}))), "{form}");
        }
        assert_eq!(one(r#"[{"name": "f"}]"#), Some(("f".into(), json!({}))));
        assert_eq!(one(r#"[{"nom": "f", "arguments": {}}]"#), None);
        assert_eq!(one(r#"[{"name": "f g", "arguments": {}}]"#), None);
    }

    #[test]
    fn ct_08_anything_else_is_no_call() {
        let texts = [
            "",
            "[]",
            "[",
            "f",
            "f(a=1)",
            "[f]",
            "[f(]",
            "[f(a)]",
            "[f(a=)]",
            "[f(1)]",
            "[f(a=1)",
            "[f(a=1)] x",
            "[f(a=1) g()]",
            "[f(a=g(1))]",
            "[f(a=1, a=2)]",
            "[f(a.b=1)]",
            "[f(1a=1)]",
            "[.f()]",
            "[f(*[1])]",
            "[f(a=[1)]",
            "[f(a='x)]",
            "[text](url)",
            "[f(a==1)]",
            "[[f()]]",
        ];
        for text in texts {
            assert_eq!(calls(text), None, "{text}");
        }
    }

    #[test]
    fn argument_names_may_be_any_text_in_a_dict() {
        let (_, arguments) = one(r#"[f(a=1, **{"my key": 2, "b": 3})]"#).unwrap();
        assert_eq!(arguments, json!({"a": 1, "my key": 2, "b": 3}));
        assert_eq!(one(r#"[f(a=1, **{"a": 2})]"#), None);
    }
}
