//! [`Tool`]: what the model may call.

use std::collections::HashSet;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use super::call::is_name;
use crate::message::{MessageLimits, is_within_depth};
use crate::{Error, Result};

/// Longer names are a mistake or an attack; other systems stop at 64.
const NAME_BYTES: usize = 128;

/// References inside the targets of references; real schemas have a handful.
const REFERENCE_DEPTH: usize = 32;

/// A function that the model may call: a name, a description and a JSON schema of its parameters.
///
/// Keeps the JSON as given, because that is what the template shows to the model: bare
/// (`{"name": ...}`) or wrapped (`{"type": "function", "function": {"name": ...}}`).
///
/// ```
/// use lfm2_generate::Tool;
/// let tool = Tool::from_json(serde_json::json!({
///     "name": "get_weather",
///     "description": "Weather at a place",
///     "parameters": {"type": "object", "properties": {"place": {"type": "string"}}},
/// }))?;
/// assert_eq!(tool.name(), "get_weather");
/// # Ok::<(), lfm2_generate::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Tool {
    definition: Map<String, Value>,
}

impl Tool {
    /// Takes a definition in either form.
    ///
    /// # Errors
    /// [`Error::InvalidInput`] when it is no object, has no usable name, or has parameters that
    /// are no object.
    pub fn from_json(definition: Value) -> Result<Self> {
        let Value::Object(definition) = definition else {
            return Err(Error::InvalidInput(
                "tool: expected a json object".to_owned(),
            ));
        };
        let tool = Self { definition };
        let function = tool.function();
        let Some(name) = function.get("name").and_then(Value::as_str) else {
            return Err(Error::InvalidInput(
                "tool: expected a string under \"name\"".to_owned(),
            ));
        };
        Error::check_limit("bytes of a tool's name", NAME_BYTES, name.len())?;
        if !is_name(name) {
            return Err(Error::InvalidInput(format!(
                "tool name: expected letters, digits, \"_\", \"-\" and inner dots, found {name:?}"
            )));
        }
        match function.get("parameters") {
            None | Some(Value::Null | Value::Object(_)) => Ok(tool),
            Some(_) => Err(Error::InvalidInput(format!(
                "tool {name:?}: parameters: expected a json schema object"
            ))),
        }
    }

    /// The name to call it by.
    pub fn name(&self) -> &str {
        self.function()
            .get("name")
            .and_then(Value::as_str)
            .unwrap_or_default()
    }

    /// The JSON schema of the parameters, if there is one.
    pub fn parameters(&self) -> Option<&Value> {
        self.function().get("parameters")
    }

    /// The definition without its `{"type": "function"}` wrapping.
    fn function(&self) -> &Map<String, Value> {
        self.definition
            .get("function")
            .and_then(Value::as_object)
            .unwrap_or(&self.definition)
    }
}

impl<'de> Deserialize<'de> for Tool {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::from_json(Value::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// Checks the number of tools and the size, nesting and references of each.
///
/// # Errors
/// [`Error::Limit`], and [`Error::InvalidInput`] for a schema that refers to itself.
pub fn check_tools(tools: &[Tool], limits: &MessageLimits) -> Result<()> {
    Error::check_limit("tools", limits.tools, tools.len())?;
    for tool in tools {
        let name = tool.name();
        if !tool
            .definition
            .values()
            .all(|value| is_within_depth(value, limits.schema_depth))
        {
            let what = format!("tool {name:?}: nesting");
            Error::check_limit(what, limits.schema_depth, limits.schema_depth + 1)?;
        }
        let bytes = serde_json::to_vec(&tool.definition).map_or(usize::MAX, |json| json.len());
        Error::check_limit(format!("tool {name:?}: bytes"), limits.schema_bytes, bytes)?;
        if let Some(schema) = tool.parameters() {
            References {
                root: schema,
                open: Vec::new(),
                done: HashSet::new(),
            }
            .visit(schema)
            .map_err(|to| {
                Error::InvalidInput(format!(
                    "tool {name:?}: $ref {to:?} is recursive or nested too deeply"
                ))
            })?;
        }
    }
    Ok(())
}

/// Follows local `$ref`s, to find those that have no finite expansion.
struct References<'a> {
    root: &'a Value,
    /// References that are being followed.
    open: Vec<&'a str>,
    /// References known to end, so that shared definitions are walked once.
    done: HashSet<&'a str>,
}

impl<'a> References<'a> {
    fn visit(&mut self, value: &'a Value) -> Result<(), &'a str> {
        match value {
            Value::Array(items) => items.iter().try_for_each(|item| self.visit(item)),
            Value::Object(fields) => {
                if let Some(Value::String(to)) = fields.get("$ref") {
                    self.follow(to)?;
                }
                fields.values().try_for_each(|field| self.visit(field))
            }
            _ => Ok(()),
        }
    }

    fn follow(&mut self, to: &'a str) -> Result<(), &'a str> {
        // The whole schema contains every reference, also this one.
        if to == "#" || self.open.contains(&to) || self.open.len() >= REFERENCE_DEPTH {
            return Err(to);
        }
        let target = to
            .strip_prefix('#')
            .and_then(|pointer| self.root.pointer(pointer));
        let Some(target) = target.filter(|_| !self.done.contains(to)) else {
            return Ok(());
        };
        self.open.push(to);
        self.visit(target)?;
        self.open.pop();
        self.done.insert(to);
        Ok(())
    }
}
