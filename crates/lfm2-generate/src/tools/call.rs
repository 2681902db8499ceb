//! [`ToolCall`]: one call, and its JSON form.

use serde::de::Error as _;
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value, json};

/// A call of a tool by the model.
///
/// In JSON it is `{"type": "function", "function": {"name": ..., "arguments": {...}}}`. Reading
/// also takes the bare inner object, and arguments that are a string of JSON.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ToolCall {
    /// The name of the call in APIs that match results with calls; the model writes none.
    pub id: Option<String>,
    /// The tool's name; may contain dots.
    pub name: String,
    /// The arguments by name, in the order written.
    pub arguments: Map<String, Value>,
}

impl ToolCall {
    /// A call without id.
    pub fn new(name: impl Into<String>, arguments: Map<String, Value>) -> Self {
        Self {
            id: None,
            name: name.into(),
            arguments,
        }
    }
}

/// Whether a tool can be called by this name: letters, digits, `_`, `-`, and dots inside.
pub(super) fn is_name(name: &str) -> bool {
    let plain = |c: char| c.is_alphanumeric() || c == '_';
    name.chars().all(|c| plain(c) || matches!(c, '-' | '.'))
        && name.starts_with(plain)
        && name.ends_with(plain)
}

impl Serialize for ToolCall {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        if let Some(id) = &self.id {
            map.serialize_entry("id", id)?;
        }
        map.serialize_entry("type", "function")?;
        let function = json!({ "name": self.name, "arguments": self.arguments });
        map.serialize_entry("function", &function)?;
        map.end()
    }
}

impl<'de> Deserialize<'de> for ToolCall {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Function {
            name: String,
            #[serde(default)]
            arguments: Value,
        }
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Wrapped {
                id: Option<String>,
                function: Function,
            },
            Bare(Function),
        }
        let (id, function) = match Form::deserialize(deserializer)? {
            Form::Wrapped { id, function } => (id, function),
            Form::Bare(function) => (None, function),
        };
        let arguments = match function.arguments {
            Value::Null => Map::new(),
            Value::Object(map) => map,
            Value::String(text) => serde_json::from_str(&text).map_err(|error| {
                D::Error::custom(format!(
                    "arguments of {:?}: not a json object: {error}",
                    function.name
                ))
            })?,
            _ => {
                let name = function.name;
                return Err(D::Error::custom(format!(
                    "arguments of {name:?}: expected an object"
                )));
            }
        };
        Ok(Self {
            id,
            name: function.name,
            arguments,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_forms_mean_the_same_call() {
        let forms = [
            r#"{"type": "function", "function": {"name": "f", "arguments": {"a": 1}}}"#,
            r#"{"name": "f", "arguments": {"a": 1}}"#,
            r#"{"type": "function", "function": {"name": "f", "arguments": "{\"a\": 1}"}}"#,
        ];
        for form in forms {
            let call: ToolCall = serde_json::from_str(form).unwrap();
            assert_eq!(call.name, "f");
            assert_eq!(Value::Object(call.arguments), json!({ "a": 1 }));
        }
    }

    #[test]
    fn ids_survive_a_round_trip() {
        let mut call = ToolCall::new("f", Map::new());
        call.id = Some("call_1".into());
        let text = serde_json::to_string(&call).unwrap();
        assert_eq!(serde_json::from_str::<ToolCall>(&text).unwrap(), call);
    }

    #[test]
    fn arguments_that_are_no_object_are_refused() {
        for arguments in ["[1]", "3", r#""[1]""#, r#""{""#] {
            let text = format!(r#"{{"name": "f", "arguments": {arguments}}}"#);
            assert!(serde_json::from_str::<ToolCall>(&text).is_err(), "{text}");
        }
    }

    #[test]
    fn names_have_letters_digits_and_inner_dots() {
        for name in ["f", "a.b", "get-weather", "_x1", "größe", "2fa"] {
            assert!(is_name(name), "{name}");
        }
        for name in ["", ".", "a.", "-a", "a b", "f()", "a/b"] {
            assert!(!is_name(name), "{name}");
        }
    }
}
