//! A conversation as the tokens a model reads: [`ChatPrompt`].

use std::borrow::Cow;

use lfm2_hub::{Bos, SpecialTokens, Tokenizer};

use crate::tools::{TOOL_CALL_END, TOOL_CALL_START};
use crate::{ChatTemplate, Message, RenderOptions, Result, SpecialText, Tool, ToolCallStream};

/// Special tokens that mean something to the reader of an answer rather than to the model.
const MARKS: [&str; 4] = [
    TOOL_CALL_START,
    TOOL_CALL_END,
    "<|cot_start|>",
    "<|cot_end|>",
];

/// What the prompt leaves the model to begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Opening {
    Answer,
    Reasoning,
}

/// The tokens of a rendered conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChatPrompt {
    ids: Vec<u32>,
    opening: Opening,
}

impl ChatPrompt {
    /// Renders and tokenises a conversation. The template's `bos_token` is the tokenizer's, unless
    /// `options` have another.
    ///
    /// # Errors
    /// As [`ChatTemplate::render`] and [`Tokenizer::encode`].
    pub fn new(
        tokenizer: &Tokenizer,
        template: &ChatTemplate,
        messages: &[Message],
        tools: &[Tool],
        options: &RenderOptions,
    ) -> Result<Self> {
        let mut options = Cow::Borrowed(options);
        if !options.variables.contains_key("bos_token") {
            options = Cow::Owned(
                options
                    .into_owned()
                    .variable("bos_token", bos_text(tokenizer)?),
            );
        }
        let rendered = template.render(messages, tools, &options)?;
        // Some templates of reasoning models open the block themselves.
        let opening = match rendered.text.trim_end().ends_with("<think>") {
            true => Opening::Reasoning,
            false => Opening::Answer,
        };
        Ok(Self {
            ids: rendered.encode(tokenizer)?,
            opening,
        })
    }

    /// The tokens.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// The special tokens that [`answer_stream`](Self::answer_stream) has to see in the text.
    pub fn special_text(&self, tokenizer: &Tokenizer) -> SpecialText {
        SpecialText::Only(
            MARKS
                .iter()
                .filter_map(|mark| tokenizer.id_of(mark))
                .collect(),
        )
    }

    /// A stream that takes apart what the model writes behind this prompt.
    pub fn answer_stream(&self) -> ToolCallStream {
        match self.opening {
            Opening::Answer => ToolCallStream::new(),
            Opening::Reasoning => ToolCallStream::inside_think_block(),
        }
    }
}

/// How the token that begins every sequence is spelled; empty for a tokenizer that has none.
fn bos_text(tokenizer: &Tokenizer) -> Result<String> {
    let ids = tokenizer.encode("", SpecialTokens::Parse, Bos::Add)?;
    Ok(ids
        .first()
        .and_then(|id| tokenizer.token_text(*id))
        .unwrap_or_default())
}
