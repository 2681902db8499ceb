//! Tools: what the model may call, and the calls it writes.
//!
//! Definitions go into the prompt through the chat template. The model answers with calls between
//! two markers, `<|tool_call_start|>[get_weather(city="Rome")]<|tool_call_end|>`, a Python list of
//! calls with keyword arguments, or with JSON objects where the system prompt asks for JSON.
//! [`parse`] and [`ToolCallStream`] turn that into [`ToolCall`] values; running a tool is left to
//! the caller.

mod call;
mod definition;
mod literal;
mod parse;
mod scan;
mod stream;
mod write;

pub use call::ToolCall;
pub use definition::{Tool, check_tools};
pub(crate) use scan::{Event, Mode, Scanner};
pub use stream::{ToolCallStream, ToolEvent, ToolOutput, parse};
pub use write::write_calls;

/// The token in front of a list of calls.
pub const TOOL_CALL_START: &str = "<|tool_call_start|>";
/// The token after a list of calls.
pub const TOOL_CALL_END: &str = "<|tool_call_end|>";
