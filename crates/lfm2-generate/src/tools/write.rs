//! Calls in the form the model writes them: the inverse of parsing.

use std::fmt::Write;

use serde_json::Value;

use super::call::is_name;
use super::parse::is_identifier;
use super::{TOOL_CALL_END, TOOL_CALL_START, ToolCall};
use crate::{Error, Result};

/// The calls as the model would write them, markers included; nothing for no calls.
///
/// For assistant turns of templates that show only the content of a message. Parsing the result
/// gives the same calls, whatever text the arguments hold; ids are not part of the text.
///
/// # Errors
/// [`Error::InvalidInput`] for a name that no call can have.
///
/// ```
/// use lfm2_generate::{ToolCall, write_calls};
/// let arguments = serde_json::json!({"city": "Rome", "days": 2});
/// let call = ToolCall::new("get_weather", arguments.as_object().cloned().unwrap_or_default());
/// let text = write_calls(&[call])?;
/// assert_eq!(text, r#"<|tool_call_start|>[get_weather(city="Rome", days=2)]<|tool_call_end|>"#);
/// # Ok::<(), lfm2_generate::Error>(())
/// ```
pub fn write_calls(calls: &[ToolCall]) -> Result<String> {
    if calls.is_empty() {
        return Ok(String::new());
    }
    let mut out = format!("{TOOL_CALL_START}[");
    for (index, call) in calls.iter().enumerate() {
        if !is_name(&call.name) {
            return Err(Error::InvalidInput(format!(
                "tool call: {:?} is no name",
                call.name
            )));
        }
        out.push_str(if index == 0 { "" } else { ", " });
        out.push_str(&call.name);
        out.push('(');
        write_arguments(&mut out, call);
        out.push(')');
    }
    out.push(']');
    out.push_str(TOOL_CALL_END);
    Ok(out)
}

fn write_arguments(out: &mut String, call: &ToolCall) {
    for (index, (name, value)) in call.arguments.iter().enumerate() {
        out.push_str(if index == 0 { "" } else { ", " });
        if is_identifier(name) {
            out.push_str(name);
            out.push('=');
            write_value(out, value);
        } else {
            out.push_str("**{");
            write_string(out, name);
            out.push_str(": ");
            write_value(out, value);
            out.push('}');
        }
    }
}

fn write_value(out: &mut String, value: &Value) {
    match value {
        Value::Null => out.push_str("None"),
        Value::Bool(true) => out.push_str("True"),
        Value::Bool(false) => out.push_str("False"),
        Value::Number(number) => out.push_str(&number.to_string()),
        Value::String(text) => write_string(out, text),
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                out.push_str(if index == 0 { "" } else { ", " });
                write_value(out, item);
            }
            out.push(']');
        }
        Value::Object(fields) => {
            out.push('{');
            for (index, (key, value)) in fields.iter().enumerate() {
                out.push_str(if index == 0 { "" } else { ", " });
                write_string(out, key);
                out.push_str(": ");
                write_value(out, value);
            }
            out.push('}');
        }
    }
}

fn write_string(out: &mut String, text: &str) {
    out.push('"');
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            // No argument may spell a marker: it would end the call.
            '<' if chars.peek() == Some(&'|') => out.push_str("\\x3c"),
            c if c.is_control() => {
                // Writing to a string cannot fail.
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}
