//! [`ChatTemplate`]: the Jinja template of a checkpoint, rendered as the reference renders it.
//!
//! Templates come with models and are not trusted: there is no loader, and source size, steps,
//! recursion and output are bounded, and so is every text that operators and filters build. What
//! is not bounded, because the engine offers no hook: how many values a template holds at once (as
//! many as it has steps; lower [`TemplateLimits::fuel`] where memory is tight), and comparing lists
//! that share their parts many levels deep, which is one step that can take very long.

mod clock;
mod encode;
mod filters;
mod halt;
mod lexer;
mod protect;
mod python;
mod rewrite;

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, ErrorKind, UndefinedBehavior};
use serde_json::{Map, Value};

pub use encode::Rendered;
use halt::Halt;
use protect::{GENERATION_MARKS, Marks, Unmarked};

use crate::message::{Message, MessageLimits, Role};
use crate::tools::{Tool, check_tools};
use crate::{Error, Result};

const NAME: &str = "chat";

/// What templates of the family write where a message has a picture.
const PICTURE: &str = "<image>";

/// Bounds on templates and on what goes into them.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TemplateLimits {
    /// Bytes of the template.
    pub source_bytes: usize,
    /// Steps of one rendering.
    pub fuel: u64,
    /// Bytes of one rendering, and of every text built on the way.
    pub output_bytes: usize,
    /// Macros inside macros.
    pub recursion: usize,
    /// Bounds on the conversation.
    pub messages: MessageLimits,
}

impl Default for TemplateLimits {
    fn default() -> Self {
        Self {
            source_bytes: 256 << 10,
            fuel: 10_000_000,
            output_bytes: 8 << 20,
            recursion: 100,
            messages: MessageLimits::default(),
        }
    }
}

/// Whether a prompt ends with the beginning of the model's turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum GenerationPrompt {
    /// For generating.
    #[default]
    Add,
    /// For training, and for conversations that end with the model's turn.
    Omit,
}

/// What special tokens spelled in user and tool messages mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum UserText {
    /// They are tokens, as in the reference. A user can end their own turn.
    #[default]
    Parsed,
    /// They are text. [`Rendered::literal`] says where; [`Rendered::encode`] honours it. So is the
    /// placeholder of pictures where anybody spells it, as a model may have done in an answer.
    Literal,
}

/// Whether to find out what the model would have written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Spans {
    /// No.
    #[default]
    Skip,
    /// Fill [`Rendered::generation`].
    Generation,
}

/// How to render a conversation.
///
/// ```
/// use lfm2_generate::{GenerationPrompt, RenderOptions};
/// let options = RenderOptions::default()
///     .generation_prompt(GenerationPrompt::Omit)
///     .variable("bos_token", "<|startoftext|>");
/// ```
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct RenderOptions {
    /// Whether the prompt ends with the beginning of the model's turn.
    pub generation_prompt: GenerationPrompt,
    /// What special tokens in the words of users mean.
    pub user_text: UserText,
    /// Whether to find the model's turns.
    pub spans: Spans,
    /// Further variables: `bos_token`, and switches of the template such as `keep_past_thinking`.
    pub variables: Map<String, Value>,
}

impl RenderOptions {
    /// Sets whether the prompt ends with the beginning of the model's turn.
    #[must_use]
    pub fn generation_prompt(mut self, prompt: GenerationPrompt) -> Self {
        self.generation_prompt = prompt;
        self
    }

    /// Sets what special tokens in the words of users mean.
    #[must_use]
    pub fn user_text(mut self, user_text: UserText) -> Self {
        self.user_text = user_text;
        self
    }

    /// Sets whether to find the model's turns.
    #[must_use]
    pub fn spans(mut self, spans: Spans) -> Self {
        self.spans = spans;
        self
    }

    /// Sets a variable of the template.
    #[must_use]
    pub fn variable(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.variables.insert(name.into(), value.into());
        self
    }
}

/// A compiled chat template. Cloning is cheap.
///
/// ```
/// use lfm2_generate::{ChatTemplate, Message, RenderOptions};
/// let template = ChatTemplate::new(
///     "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}",
/// )?;
/// let prompt = template.render(&[Message::user("Hello")], &[], &RenderOptions::default())?;
/// assert_eq!(prompt.text, "<|im_start|>user\nHello<|im_end|>\n");
/// # Ok::<(), lfm2_generate::Error>(())
/// ```
#[derive(Clone)]
pub struct ChatTemplate {
    environment: Arc<Environment<'static>>,
    source: Arc<str>,
    limits: TemplateLimits,
    marks_generation: bool,
}

impl ChatTemplate {
    /// Compiles a template within the default limits.
    ///
    /// # Errors
    /// [`Error::TemplateSyntax`], [`Error::Limit`].
    pub fn new(source: &str) -> Result<Self> {
        Self::with_limits(source, TemplateLimits::default())
    }

    /// Compiles a template within limits.
    ///
    /// # Errors
    /// As [`ChatTemplate::new`].
    pub fn with_limits(source: &str, limits: TemplateLimits) -> Result<Self> {
        Error::check_limit(
            "bytes of the chat template",
            limits.source_bytes,
            source.len(),
        )?;
        let rewritten = rewrite::rewrite(source)?;
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder()
            .trim_blocks(true)
            .lstrip_blocks(true)
            .build();
        environment.set_syntax(syntax.map_err(|error| classify(error, &limits))?);
        environment.set_undefined_behavior(UndefinedBehavior::Lenient);
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        environment.set_debug(false);
        environment.set_fuel(Some(limits.fuel));
        environment.set_recursion_limit(limits.recursion);
        filters::install(&mut environment, &limits);
        environment
            .add_template_owned(NAME, rewritten.source)
            .map_err(|error| classify(error, &limits))?;
        Ok(Self {
            environment: Arc::new(environment),
            source: source.into(),
            limits,
            marks_generation: rewritten.marks_generation,
        })
    }

    /// The template of a checkpoint, where there has to be one.
    ///
    /// # Errors
    /// [`Error::NoChatTemplate`], and as [`ChatTemplate::new`].
    pub fn require(source: Option<&str>) -> Result<Self> {
        Self::new(source.ok_or(Error::NoChatTemplate)?)
    }

    /// The source as given.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Whether the template says with `{% generation %}` what the model writes.
    pub fn marks_generation(&self) -> bool {
        self.marks_generation
    }

    /// Renders a conversation.
    ///
    /// # Errors
    /// [`Error::InvalidInput`] and [`Error::Limit`] for messages and tools that no template
    /// should see; [`Error::TemplateRaised`] and [`Error::TemplateRender`] where the template
    /// refuses them; [`Error::Exhausted`] where it takes too long or writes too much;
    /// [`Error::Unsupported`] where it changes text in ways that positions cannot follow.
    pub fn render(
        &self,
        messages: &[Message],
        tools: &[Tool],
        options: &RenderOptions,
    ) -> Result<Rendered> {
        self.limits.messages.check(messages)?;
        check_tools(tools, &self.limits.messages)?;
        let mut context = context(messages, tools, options)?;
        let text = self.run(&context)?;
        let with_literal = options.user_text == UserText::Literal;
        if !with_literal && options.spans == Spans::Skip {
            return Ok(Rendered {
                text,
                ..Rendered::default()
            });
        }
        let input = serde_json::to_string(&context).unwrap_or_default();
        let marks = Marks::unused_in([self.source.as_ref(), &input]).ok_or_else(cannot_follow)?;
        if options.spans == Spans::Generation {
            context.insert(GENERATION_MARKS.to_owned(), Value::from(marks.generation()));
        }
        if with_literal {
            mark_users(&mut context, messages, &marks);
        }
        let marked = self.run(&context)?;
        let unmarked = marks
            .unmark(&marked)
            .filter(|unmarked| unmarked.text == text);
        let Unmarked {
            text,
            generation,
            literal,
        } = unmarked.ok_or_else(cannot_follow)?;
        Ok(Rendered {
            text,
            generation,
            literal,
        })
    }

    fn run(&self, context: &Map<String, Value>) -> Result<String> {
        let fail = |error| classify(error, &self.limits);
        let template = self.environment.get_template(NAME).map_err(fail)?;
        let mut output = CappedOutput {
            bytes: Vec::new(),
            cap: self.limits.output_bytes,
        };
        let context = minijinja::Value::from(minijinja::value::Serde(context));
        template
            .render_captured_to(context, &mut output)
            .map_err(fail)?;
        String::from_utf8(output.bytes).map_err(|error| Error::TemplateSyntax {
            line: None,
            detail: format!("rendered text is not utf-8: {error}"),
        })
    }
}

impl fmt::Debug for ChatTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChatTemplate")
            .field("source_bytes", &self.source.len())
            .field("marks_generation", &self.marks_generation)
            .finish_non_exhaustive()
    }
}

/// The variables of a template.
fn context(
    messages: &[Message],
    tools: &[Tool],
    options: &RenderOptions,
) -> Result<Map<String, Value>> {
    let json = |what: &str, value: serde_json::Result<Value>| {
        value.map_err(|error| Error::InvalidInput(format!("{what}: {error}")))
    };
    let mut context = options.variables.clone();
    context.insert(
        "messages".to_owned(),
        json("messages", serde_json::to_value(messages))?,
    );
    // Templates ask `if tools`; the reference passes none rather than an empty list.
    let tools = match tools {
        [] => Value::Null,
        tools => json("tools", serde_json::to_value(tools))?,
    };
    context.insert("tools".to_owned(), tools);
    let add = options.generation_prompt == GenerationPrompt::Add;
    context.insert("add_generation_prompt".to_owned(), Value::Bool(add));
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    context.insert(filters::NOW.to_owned(), Value::from(now.as_secs()));
    Ok(context)
}

/// Marks what users and tools say, and what others say that only looks like a picture.
fn mark_users(context: &mut Map<String, Value>, messages: &[Message], marks: &Marks) {
    let Some(Value::Array(rendered)) = context.get_mut("messages") else {
        return;
    };
    for (json, message) in rendered.iter_mut().zip(messages) {
        let Some(content) = json.get_mut("content") else {
            continue;
        };
        match message.role {
            Role::User | Role::Tool => marks.mark_content(content),
            Role::System | Role::Assistant => marks.mark_word(content, PICTURE),
        }
    }
}

fn cannot_follow() -> Error {
    Error::Unsupported {
        what: "positions of text in this chat template's output".to_owned(),
        hint: "the template changes the text it is given, so render without positions".to_owned(),
    }
}

/// An engine error as one of ours.
fn classify(error: minijinja::Error, limits: &TemplateLimits) -> Error {
    match Halt::of(&error) {
        Some(Halt::Raised(message)) => return Error::TemplateRaised(message.clone()),
        Some(Halt::Limit { what, limit }) => {
            return Error::Exhausted {
                what,
                limit: *limit as u64,
            };
        }
        None => {}
    }
    let line = error.line();
    let detail = error
        .detail()
        .map_or_else(|| error.kind().to_string(), str::to_owned);
    match error.kind() {
        ErrorKind::OutOfFuel => Error::Exhausted {
            what: "steps of the chat template",
            limit: limits.fuel,
        },
        // The output is memory, which fails only at its cap.
        ErrorKind::WriteFailure => Error::Exhausted {
            what: "output bytes of the chat template",
            limit: limits.output_bytes as u64,
        },
        // The engine has no kinds of their own for these.
        _ if detail.contains("recursion limit") => Error::Exhausted {
            what: "recursion of the chat template",
            limit: limits.recursion as u64,
        },
        _ if detail.contains("is too large") => Error::Exhausted {
            what: "bytes of one text in the chat template",
            limit: limits.output_bytes as u64,
        },
        ErrorKind::SyntaxError
        | ErrorKind::UnknownFilter
        | ErrorKind::UnknownTest
        | ErrorKind::UnknownFunction
        | ErrorKind::UnknownMethod => Error::TemplateSyntax { line, detail },
        _ => Error::TemplateRender {
            line,
            detail,
            source: Box::new(error),
        },
    }
}

/// Output that stops growing.
struct CappedOutput {
    bytes: Vec<u8>,
    cap: usize,
}

impl io::Write for CappedOutput {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() > self.cap - self.bytes.len() {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
