//! Conversations: [`Chat`] keeps the messages and the cache, [`ChatStream`] is an answer on its way.
//!
//! The conversation is rendered as a whole for every answer, and only what the cache does not hold
//! yet is fed. That needs no bookkeeping about what a template does to older turns: where it drops
//! their reasoning, the rendered ids differ from the cached ones, and the cache is cut there.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use lfm2_nn::{Cache, CacheSpec};

use crate::{
    Cancel, ChatPrompt, ChatTemplate, Content, Error, Finish, FinishReason, Generation,
    GenerationOptions, Generator, Media, Message, PrefillProgress, RenderOptions, Result, Role,
    Tool, ToolCall, ToolCallStream, ToolEvent, require_text,
};

/// A conversation with a model.
///
/// An answer becomes part of the conversation when its stream is dropped, as far as it came. A turn
/// that fails, or that is given up before the first text, leaves no trace: neither the answer nor
/// the question.
pub struct Chat {
    generator: Generator,
    template: ChatTemplate,
    options: GenerationOptions,
    render_options: RenderOptions,
    tools: Vec<Tool>,
    media: Option<Arc<dyn Media>>,
    messages: Vec<Message>,
    cache: Cache,
    /// Of the generator's draft model.
    draft_cache: Option<Cache>,
}

impl fmt::Debug for Chat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chat")
            .field("generator", &self.generator)
            .field("options", &self.options)
            .field("messages", &self.messages)
            .field("cached_tokens", &self.cache.len(0))
            .finish_non_exhaustive()
    }
}

impl Chat {
    /// An empty conversation with the default options.
    pub fn new(generator: Generator, template: ChatTemplate) -> Self {
        let cache = generator.decoder().new_cache(CacheSpec::rows(1));
        let draft_cache = generator
            .draft()
            .map(|draft| draft.new_cache(CacheSpec::rows(1)));
        Self {
            generator,
            template,
            options: GenerationOptions::default(),
            render_options: RenderOptions::default(),
            tools: Vec::new(),
            media: None,
            messages: Vec::new(),
            cache,
            draft_cache,
        }
    }

    /// Sets how answers are generated.
    pub fn with_options(mut self, options: GenerationOptions) -> Self {
        self.options = options;
        self
    }

    /// Sets how messages are rendered.
    pub fn with_render_options(mut self, options: RenderOptions) -> Self {
        self.render_options = options;
        self
    }

    /// Sets the tools that the model may call.
    pub fn with_tools(mut self, tools: Vec<Tool>) -> Self {
        self.tools = tools;
        self
    }

    /// Lets messages have parts that are no text, which `media` puts into the prompt.
    pub fn with_media(mut self, media: Arc<dyn Media>) -> Self {
        self.media = Some(media);
        self
    }

    /// Starts with these instructions.
    pub fn with_system(mut self, text: impl Into<String>) -> Self {
        self.messages.retain(|message| message.role != Role::System);
        self.messages.insert(0, Message::system(text.into()));
        self
    }

    /// Goes on from these messages.
    pub fn with_messages(mut self, messages: Vec<Message>) -> Self {
        self.messages = messages;
        self
    }

    /// How answers are generated, to be changed for the next one.
    pub fn options_mut(&mut self) -> &mut GenerationOptions {
        &mut self.options
    }

    /// The conversation. Answers are kept as the model wrote them, with reasoning and calls in the
    /// text, because that is what the template has to show it again.
    pub fn messages(&self) -> &[Message] {
        &self.messages
    }

    /// Tokens in the cache.
    pub fn cached_tokens(&self) -> usize {
        self.cache.len(0)
    }

    /// Says `content` as the user, which is text or a list of [parts](crate::Part), and answers.
    ///
    /// # Errors
    /// As [`Chat::reply`]; what was said is then not part of the conversation.
    pub fn send(&mut self, content: impl Into<Content>) -> Result<ChatStream<'_>> {
        let before = self.messages.len();
        self.messages.push(Message::user(content));
        self.answer(before)
    }

    /// Answers the conversation as it is, for instance after
    /// [`add_tool_result`](Self::add_tool_result).
    ///
    /// # Errors
    /// When the template refuses the messages, a part of them is none that the model reads, the
    /// conversation is longer than the context, or an option is not valid.
    pub fn reply(&mut self) -> Result<ChatStream<'_>> {
        self.answer(self.messages.len())
    }

    /// Adds what a tool that the model called has returned.
    pub fn add_tool_result(&mut self, result: impl Into<Content>) {
        self.messages.push(Message::tool(result));
    }

    /// Forgets everything but the instructions at the start.
    pub fn clear(&mut self) {
        self.messages.retain(|message| message.role == Role::System);
        self.cache.clear();
        if let Some(cache) = &mut self.draft_cache {
            cache.clear();
        }
    }

    /// Forgets the last question and what followed it, and returns the question, so that it can be
    /// asked again or differently; `None` when there is none.
    pub fn undo(&mut self) -> Option<String> {
        let at = self
            .messages
            .iter()
            .rposition(|message| message.role == Role::User)?;
        let question = self.messages.get(at).map(Message::text);
        self.messages.truncate(at);
        question
    }

    fn answer(&mut self, before: usize) -> Result<ChatStream<'_>> {
        // Made first, so that every way out of here undoes the question.
        let turn = Turn {
            messages: &mut self.messages,
            before,
            raw: String::new(),
            outcome: Outcome::Open,
        };
        let tokenizer = self.generator.tokenizer();
        let prompt = ChatPrompt::new(
            tokenizer,
            &self.template,
            turn.messages,
            &self.tools,
            &self.render_options,
        )?;
        let ids = match &self.media {
            Some(media) => media.fill(prompt.ids(), turn.messages)?,
            None => {
                require_text(turn.messages)?;
                prompt.ids().to_vec()
            }
        };
        let mut generation = self
            .generator
            .generate_in(&mut self.cache, 0, ids, &self.options)?;
        if let Some(cache) = &mut self.draft_cache {
            generation = generation.with_draft_cache(cache, 0)?;
        }
        let mut stream = ChatStream::new(generation, &prompt);
        stream.turn = Some(turn);
        Ok(stream)
    }
}

/// A part of an answer.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum ChatEvent {
    /// Reasoning before the answer.
    Reasoning(String),
    /// Text of the answer.
    Text(String),
    /// A tool that the model wants called.
    ToolCall(ToolCall),
    /// The answer is over; always the last event.
    Done(Finish),
}

/// Writes the text of the answer and nothing else.
impl fmt::Display for ChatEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Reasoning(_) | Self::ToolCall(_) | Self::Done(_) => Ok(()),
        }
    }
}

impl From<ToolEvent> for ChatEvent {
    fn from(event: ToolEvent) -> Self {
        match event {
            ToolEvent::Reasoning(text) => Self::Reasoning(text),
            ToolEvent::Content(text) => Self::Text(text),
            ToolEvent::Call(call) => Self::ToolCall(call),
        }
    }
}

/// A whole answer, taken apart.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Reply {
    /// Text of the answer.
    pub text: String,
    /// Reasoning before it.
    pub reasoning: String,
    /// Tools that the model wants called, in order.
    pub tool_calls: Vec<ToolCall>,
    /// How it ended.
    pub finish: Finish,
}

/// An answer while it is written: an iterator over [`ChatEvent`]s. Dropping it stops the work.
#[derive(Debug)]
pub struct ChatStream<'a> {
    generation: Generation<'a>,
    parts: ToolCallStream,
    ready: VecDeque<ChatEvent>,
    is_over: bool,
    turn: Option<Turn<'a>>,
}

impl<'a> ChatStream<'a> {
    /// Takes apart what `generation` writes behind `prompt`.
    pub fn new(generation: Generation<'a>, prompt: &ChatPrompt) -> Self {
        let special = prompt.special_text(generation.tokenizer());
        Self {
            generation: generation.with_special_text(special),
            parts: prompt.answer_stream(),
            ready: VecDeque::new(),
            is_over: false,
            turn: None,
        }
    }

    /// As [`Generation::with_cancel`].
    pub fn with_cancel(self, cancel: &Cancel) -> Self {
        Self {
            generation: self.generation.with_cancel(cancel),
            ..self
        }
    }

    /// As [`Generation::with_prefill_chunk`].
    pub fn with_prefill_chunk(self, tokens: usize) -> Self {
        Self {
            generation: self.generation.with_prefill_chunk(tokens),
            ..self
        }
    }

    /// As [`Generation::on_prefill`].
    pub fn on_prefill(self, report: impl FnMut(PrefillProgress) + Send + 'a) -> Self {
        Self {
            generation: self.generation.on_prefill(report),
            ..self
        }
    }

    /// Runs to the end and collects everything.
    ///
    /// # Errors
    /// As [`Generation::complete`].
    pub fn complete(self) -> Result<Reply> {
        let (mut text, mut reasoning, mut tool_calls) = (String::new(), String::new(), Vec::new());
        for event in self {
            match event? {
                ChatEvent::Text(piece) => text.push_str(&piece),
                ChatEvent::Reasoning(piece) => reasoning.push_str(&piece),
                ChatEvent::ToolCall(call) => tool_calls.push(call),
                ChatEvent::Done(finish) => {
                    return Ok(Reply {
                        text,
                        reasoning,
                        tool_calls,
                        finish,
                    });
                }
            }
        }
        Err(Error::InvalidInput(
            "the answer was read to its end before".to_owned(),
        ))
    }

    fn advance(&mut self) -> Result<()> {
        let Some(piece) = self.generation.next().transpose()? else {
            self.ready
                .extend(self.parts.finish().into_iter().map(ChatEvent::from));
            self.is_over = true;
            if let Some(finish) = self.generation.finish().cloned() {
                if finish.reason != FinishReason::Cancelled {
                    self.settle(Outcome::Whole);
                }
                self.ready.push_back(ChatEvent::Done(finish));
            }
            return Ok(());
        };
        self.ready.extend(
            self.parts
                .push(&piece.text)
                .into_iter()
                .map(ChatEvent::from),
        );
        if let Some(turn) = &mut self.turn {
            turn.raw.push_str(&piece.text);
        }
        Ok(())
    }

    fn settle(&mut self, outcome: Outcome) {
        if let Some(turn) = &mut self.turn {
            turn.outcome = outcome;
        }
    }
}

impl Iterator for ChatStream<'_> {
    type Item = Result<ChatEvent>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(Ok(event));
            }
            if self.is_over {
                return None;
            }
            if let Err(error) = self.advance() {
                self.is_over = true;
                self.settle(Outcome::Failed);
                return Some(Err(error));
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Open,
    Whole,
    Failed,
}

/// Puts the answer into the conversation when its stream goes away, however that happens.
#[derive(Debug)]
struct Turn<'a> {
    messages: &'a mut Vec<Message>,
    /// Messages before this turn.
    before: usize,
    /// The answer as the model wrote it.
    raw: String,
    outcome: Outcome,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let nothing_said = self.outcome == Outcome::Open && self.raw.is_empty();
        if nothing_said || self.outcome == Outcome::Failed {
            self.messages.truncate(self.before);
        } else {
            self.messages
                .push(Message::assistant(std::mem::take(&mut self.raw)));
        }
    }
}
