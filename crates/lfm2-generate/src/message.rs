//! [`Message`]: one turn of a conversation, in the JSON form that Python and HTTP clients use.
//!
//! Knows nothing of templates or tokens: what a message looks like to the model is decided by the
//! checkpoint's chat template.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use crate::tools::ToolCall;
use crate::{Error, Result};

/// Who speaks in a [`Message`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Instructions of the developer, at most once and first.
    System,
    /// The person.
    User,
    /// The model.
    Assistant,
    /// The result of a tool call.
    Tool,
}

impl Role {
    const ALL: [Self; 4] = [Self::System, Self::User, Self::Assistant, Self::Tool];

    /// The name in JSON and in templates.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
            Self::Tool => "tool",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|role| role.as_str() == name)
            .ok_or_else(|| {
                Error::InvalidInput(format!(
                    "role: expected system, user, assistant or tool, found {name:?}"
                ))
            })
    }
}

/// What a content part holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PartKind {
    /// `{"type": "text", "text": ...}`.
    Text,
    /// A picture, of which the template writes a placeholder.
    Image,
    /// Sound, of which the template writes a placeholder.
    Audio,
    /// A type that this crate does not know.
    Other,
}

/// One entry of a content list: a JSON object with a `type`.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Part {
    fields: Map<String, Value>,
}

impl Part {
    /// A part of plain text.
    pub fn text(text: impl Into<String>) -> Self {
        let fields = [
            ("type".to_owned(), Value::from("text")),
            ("text".to_owned(), Value::from(text.into())),
        ];
        Self {
            fields: fields.into_iter().collect(),
        }
    }

    /// The placeholder of a picture that is handed over beside the messages.
    pub fn image() -> Self {
        Self {
            fields: [("type".to_owned(), Value::from("image"))]
                .into_iter()
                .collect(),
        }
    }

    /// A picture that is handed over beside the messages under this name, which may be its path.
    pub fn picture(name: impl Into<String>) -> Self {
        let mut part = Self::image();
        part.fields.insert("image".to_owned(), name.into().into());
        part
    }

    /// The name of a [picture](Self::picture).
    pub fn picture_name(&self) -> Option<&str> {
        self.fields.get("image")?.as_str()
    }

    /// The `type` as written.
    pub fn type_name(&self) -> &str {
        self.fields
            .get("type")
            .and_then(Value::as_str)
            .unwrap_or_default()
    }

    /// What the part holds, from its `type`.
    pub fn kind(&self) -> PartKind {
        match self.type_name() {
            "text" => PartKind::Text,
            "image" | "image_url" => PartKind::Image,
            "audio" | "input_audio" => PartKind::Audio,
            _ => PartKind::Other,
        }
    }

    /// All fields, in the order given.
    pub fn fields(&self) -> &Map<String, Value> {
        &self.fields
    }

    /// `Some` when `value` is an object with a textual `type`.
    fn from_json(value: &Value) -> Option<Self> {
        let fields = value.as_object()?;
        fields.get("type")?.as_str()?;
        Some(Self {
            fields: fields.clone(),
        })
    }
}

/// The content of a [`Message`].
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Content {
    /// Plain text.
    Text(String),
    /// A list of typed parts.
    Parts(Vec<Part>),
    /// Anything else, such as the result of a tool; templates write it as JSON.
    Json(Value),
}

impl From<Value> for Content {
    fn from(value: Value) -> Self {
        match value {
            Value::String(text) => Self::Text(text),
            Value::Array(items) if !items.is_empty() => {
                match items.iter().map(Part::from_json).collect() {
                    Some(parts) => Self::Parts(parts),
                    None => Self::Json(Value::Array(items)),
                }
            }
            other => Self::Json(other),
        }
    }
}

impl From<String> for Content {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<&str> for Content {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<Vec<Part>> for Content {
    fn from(parts: Vec<Part>) -> Self {
        Self::Parts(parts)
    }
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Value::deserialize(deserializer).map(Self::from)
    }
}

/// One turn of a conversation.
///
/// Reads and writes the JSON of the OpenAI and Hugging Face chat formats. `null` counts as absent,
/// and unknown fields are kept, because a template may ask for them.
///
/// ```
/// use lfm2_generate::{Message, Role};
/// let message: Message = serde_json::from_str(r#"{"role": "user", "content": "Hello"}"#)?;
/// assert_eq!(message, Message::user("Hello"));
/// assert_eq!(message.role, Role::User);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said; absent in a turn that only calls tools.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<Content>,
    /// The reasoning in front of an answer, without its marks.
    #[serde(
        default,
        alias = "reasoning_content",
        skip_serializing_if = "Option::is_none"
    )]
    pub thinking: Option<String>,
    /// Tools that the assistant called in this turn.
    #[serde(
        default,
        deserialize_with = "null_is_empty",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub tool_calls: Vec<ToolCall>,
    /// Which call a tool message answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_call_id: Option<String>,
    /// The speaker's or the tool's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Every other field.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl Message {
    /// A message with content and nothing else.
    pub fn new(role: Role, content: impl Into<Content>) -> Self {
        Self {
            role,
            content: Some(content.into()),
            thinking: None,
            tool_calls: Vec::new(),
            tool_call_id: None,
            name: None,
            extra: Map::new(),
        }
    }

    /// A system message.
    pub fn system(content: impl Into<Content>) -> Self {
        Self::new(Role::System, content)
    }

    /// A user message.
    pub fn user(content: impl Into<Content>) -> Self {
        Self::new(Role::User, content)
    }

    /// An assistant message.
    pub fn assistant(content: impl Into<Content>) -> Self {
        Self::new(Role::Assistant, content)
    }

    /// The result of a tool call.
    pub fn tool(content: impl Into<Content>) -> Self {
        Self::new(Role::Tool, content)
    }

    /// The same message with reasoning.
    #[must_use]
    pub fn with_thinking(mut self, thinking: impl Into<String>) -> Self {
        self.thinking = Some(thinking.into());
        self
    }

    /// The same message with tool calls.
    #[must_use]
    pub fn with_tool_calls(mut self, calls: Vec<ToolCall>) -> Self {
        self.tool_calls = calls;
        self
    }

    /// The text of the content: all of it when it is text, the text parts joined when it is a list.
    pub fn text(&self) -> String {
        match &self.content {
            Some(Content::Text(text)) => text.clone(),
            Some(Content::Parts(parts)) => parts
                .iter()
                .filter_map(|part| part.fields.get("text")?.as_str())
                .collect(),
            Some(Content::Json(value)) => value.to_string(),
            None => String::new(),
        }
    }
}

fn null_is_empty<'de, D>(deserializer: D) -> Result<Vec<ToolCall>, D::Error>
where
    D: Deserializer<'de>,
{
    Option::<Vec<ToolCall>>::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// How much of everything a conversation may have.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MessageLimits {
    /// Messages of one conversation.
    pub messages: usize,
    /// Parts of one message.
    pub parts: usize,
    /// Tools of one conversation.
    pub tools: usize,
    /// Bytes of one tool definition, written as JSON.
    pub schema_bytes: usize,
    /// Nesting of one tool definition.
    pub schema_depth: usize,
    /// Nesting of content, arguments and unknown fields.
    pub json_depth: usize,
}

impl Default for MessageLimits {
    fn default() -> Self {
        Self {
            messages: 1024,
            parts: 64,
            tools: 128,
            schema_bytes: 256 << 10,
            schema_depth: 32,
            json_depth: 64,
        }
    }
}

impl MessageLimits {
    /// Checks numbers, nesting and the types of content parts.
    ///
    /// The order of roles is left to the template, which may have its own opinion.
    ///
    /// # Errors
    /// [`Error::Limit`], and [`Error::InvalidInput`] naming the message and the part.
    pub fn check(&self, messages: &[Message]) -> Result<()> {
        Error::check_limit("messages", self.messages, messages.len())?;
        messages
            .iter()
            .enumerate()
            .try_for_each(|(index, message)| self.check_one(index, message))
    }

    fn check_one(&self, index: usize, message: &Message) -> Result<()> {
        match &message.content {
            Some(Content::Parts(parts)) => {
                let what = format!("messages[{index}].content parts");
                Error::check_limit(what, self.parts, parts.len())?;
                for (at, part) in parts.iter().enumerate() {
                    let place = || format!("messages[{index}].content[{at}]");
                    // The result of a tool is data, whatever its objects call themselves.
                    if message.role != Role::Tool {
                        check_part(part)
                            .map_err(|e| Error::InvalidInput(format!("{}: {e}", place())))?;
                    }
                    self.check_depth(part.fields.values(), place)?;
                }
            }
            Some(Content::Json(value)) => {
                self.check_depth([value], || format!("messages[{index}].content"))?;
            }
            Some(Content::Text(_)) | None => {}
        }
        for (at, call) in message.tool_calls.iter().enumerate() {
            let place = || format!("messages[{index}].tool_calls[{at}]");
            self.check_depth(call.arguments.values(), place)?;
        }
        self.check_depth(message.extra.values(), || format!("messages[{index}]"))
    }

    fn check_depth<'a>(
        &self,
        values: impl IntoIterator<Item = &'a Value>,
        place: impl Fn() -> String,
    ) -> Result<()> {
        if values
            .into_iter()
            .all(|value| is_within_depth(value, self.json_depth))
        {
            return Ok(());
        }
        let limit = self.json_depth;
        Error::check_limit(format!("{}: nesting", place()), limit, limit + 1)
    }
}

/// Checks that no message asks for more than reading text.
///
/// # Errors
/// [`Error::Unsupported`] naming the message and the part.
pub fn require_text(messages: &[Message]) -> Result<()> {
    for (index, message) in messages.iter().enumerate() {
        let Some(Content::Parts(parts)) = &message.content else {
            continue;
        };
        let media = |part: &Part| matches!(part.kind(), PartKind::Image | PartKind::Audio);
        if let Some(at) = parts.iter().position(media) {
            let kind = parts.get(at).map(Part::type_name).unwrap_or_default();
            return Err(Error::Unsupported {
                what: format!("messages[{index}].content[{at}]: a part of type {kind:?}"),
                hint: "this model reads text only".to_owned(),
            });
        }
    }
    Ok(())
}

fn check_part(part: &Part) -> Result<(), String> {
    match part.kind() {
        PartKind::Text if !part.fields.get("text").is_some_and(Value::is_string) => {
            Err("expected a string under \"text\"".to_owned())
        }
        PartKind::Text | PartKind::Image | PartKind::Audio => Ok(()),
        PartKind::Other => Err(format!(
            "type: expected text, image or audio, found {:?}",
            part.type_name()
        )),
    }
}

/// Whether arrays and objects nest at most `depth` times; never looks deeper than that.
pub(crate) fn is_within_depth(value: &Value, depth: usize) -> bool {
    let below = |mut values: Box<dyn Iterator<Item = &Value> + '_>| match depth.checked_sub(1) {
        Some(depth) => values.all(|value| is_within_depth(value, depth)),
        None => false,
    };
    match value {
        Value::Array(items) => below(Box::new(items.iter())),
        Value::Object(fields) => below(Box::new(fields.values())),
        _ => true,
    }
}
