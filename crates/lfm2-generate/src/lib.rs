//! From a conversation to the text a model answers with.
//!
//! | I want | use |
//! |---|---|
//! | a prompt continued | [`Generator`], [`Generation`] |
//! | many texts at once | [`Batch`], [`Request`] |
//! | the same text in fewer passes | [`Speculation`], [`Generator::with_draft`] |
//! | a conversation that feeds only what is new | [`Chat`], [`ChatStream`] |
//! | other settings, or the recommended ones | [`GenerationOptions`], [`recommended`] |
//! | one token from logits, in my own loop | [`Sampler`], [`StopRules`], [`TextStream`] |
//! | a conversation as text or tokens | [`ChatTemplate`], [`ChatPrompt`] |
//! | pictures or sound in a conversation | [`Media`], [`Chat::with_media`] |
//! | the model to call functions | [`Tool`], [`ToolCall`], [`tools`] |
//! | reasoning apart from the answer | [`ReasoningStream`], [`split_reasoning`] |
//!
//! Models are known by the trait [`Decoder`](lfm2_nn::Decoder) alone.

mod batch;
mod cancel;
mod chat;
mod error;
mod generate;
mod generator;
mod logits;
mod media;
mod message;
mod options;
mod output;
mod place;
mod prefix;
mod presets;
mod prompt;
mod reasoning;
mod sample;
mod sequence;
mod speculate;
mod stop;
mod stream;
mod template;
pub mod tools;

pub use batch::{Batch, BatchEvent, BatchOptions, Request, RequestId};
pub use cancel::Cancel;
pub use chat::{Chat, ChatEvent, ChatStream, Reply};
pub use error::{Error, Result};
pub use generate::{Generation, PrefillProgress};
pub use generator::Generator;
pub use media::Media;
pub use message::{Content, Message, MessageLimits, Part, PartKind, Role, require_text};
pub use options::{
    EndTokens, GenerationOptions, MAX_LOGIT_BIAS, MAX_STOP_BYTES, MAX_STOP_IDS, MAX_STOP_STRINGS,
    MAX_TOP_LOGPROBS,
};
pub use output::{Finish, FinishReason, Output, Piece};
pub use presets::{Preset, Turns, recommended};
pub use prompt::ChatPrompt;
pub use reasoning::{ReasoningEvent, ReasoningStream, split_reasoning};
pub use sample::{Candidate, Proposal, Sampler, Token, TokenLogprob};
pub use speculate::{DraftChoice, MAX_DRAFT, Pace, Speculation};
pub use stop::{Released, StopCause, StopRules, stop_ids};
pub use stream::{SpecialText, TextStream};
pub use template::{
    ChatTemplate, GenerationPrompt, RenderOptions, Rendered, Spans, TemplateLimits, UserText,
};
pub use tools::{Tool, ToolCall, ToolCallStream, ToolEvent, ToolOutput, check_tools, write_calls};
