//! What can go wrong between a conversation and the text a model answers with.

use lfm2_hub::ErrorKind;

/// The result of anything in this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Errors of prompts, templates, options and generation.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The caller passed messages, tools or text that make no sense.
    #[error("{0}")]
    InvalidInput(String),
    /// An option is outside the range in which it has a meaning.
    #[error("{option}: expected {expected}, found {found}")]
    InvalidOption {
        /// The option's name.
        option: &'static str,
        /// The accepted values.
        expected: String,
        /// The value given.
        found: String,
    },
    /// A configured limit was exceeded by a known amount.
    #[error("{what}: {found} is over the limit of {limit}")]
    Limit {
        /// The limited thing.
        what: String,
        /// The limit.
        limit: u64,
        /// What was found.
        found: u64,
    },
    /// Work was stopped because it reached a configured limit.
    #[error("{what}: stopped at the limit of {limit}")]
    Exhausted {
        /// The limited thing.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// There is more to do than was agreed on.
    #[error("{waiting} requests are waiting already: try again later")]
    Busy {
        /// Requests that wait.
        waiting: usize,
    },
    /// The prompt leaves the context no room.
    #[error("the prompt has {prompt} tokens, the context has room for {context}")]
    PromptTooLong {
        /// Tokens of the prompt.
        prompt: usize,
        /// Tokens the model can read and write together.
        context: usize,
    },
    /// The model computed a logit that no probability follows from.
    #[error("the model's logit for token {token} is {found}: weights or activations are damaged")]
    Logits {
        /// The first such token.
        token: usize,
        /// The logit.
        found: f32,
    },
    /// Every token of the vocabulary is forbidden.
    #[error("no token is left to draw from: every logit is negative infinity")]
    NothingLeft,
    /// The model comes without a chat template.
    #[error(
        "the model has no chat template: give one, use plain completion, or choose an instruct checkpoint"
    )]
    NoChatTemplate,
    /// A chat template cannot be compiled.
    #[error("chat template{}: {detail}", at_line(*line))]
    TemplateSyntax {
        /// The line of the template, from one, where known.
        line: Option<usize>,
        /// What is wrong there.
        detail: String,
    },
    /// A chat template cannot render these messages.
    #[error("chat template{}: {detail}", at_line(*line))]
    TemplateRender {
        /// The line of the template, from one, where known.
        line: Option<usize>,
        /// What is wrong there.
        detail: String,
        /// The template engine's own account.
        #[source]
        source: Box<minijinja::Error>,
    },
    /// A chat template refused the messages with a text of its own.
    #[error("chat template refused the messages: {0}")]
    TemplateRaised(String),
    /// The input is well formed, but this model cannot use it.
    #[error("{what} is not supported: {hint}")]
    Unsupported {
        /// The thing found.
        what: String,
        /// What is supported instead.
        hint: String,
    },
    /// The caller stopped the work.
    #[error("stopped")]
    Cancelled,
    /// Opening or reading a part of the checkpoint failed.
    #[error(transparent)]
    Hub(#[from] lfm2_hub::Error),
    /// A tensor operation failed.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}

impl Error {
    /// The coarse class of this error.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::InvalidInput(_)
            | Self::InvalidOption { .. }
            | Self::PromptTooLong { .. }
            | Self::NothingLeft
            | Self::TemplateRender { .. }
            | Self::TemplateRaised(_) => ErrorKind::InvalidInput,
            Self::Limit { .. } | Self::Exhausted { .. } => ErrorKind::Limit,
            Self::Busy { .. } => ErrorKind::Busy,
            Self::NoChatTemplate | Self::Unsupported { .. } => ErrorKind::Unsupported,
            Self::TemplateSyntax { .. } => ErrorKind::InvalidModel,
            Self::Cancelled => ErrorKind::Cancelled,
            Self::Hub(error) => error.kind(),
            Self::Logits { .. } | Self::Candle(_) => ErrorKind::Internal,
        }
    }

    /// An [`Error::InvalidOption`].
    pub(crate) fn option(
        option: &'static str,
        expected: impl Into<String>,
        found: &impl ToString,
    ) -> Self {
        Self::InvalidOption {
            option,
            expected: expected.into(),
            found: found.to_string(),
        }
    }

    /// Fails with [`Error::Limit`] when `found` is over `limit`.
    pub(crate) fn check_limit(what: impl Into<String>, limit: usize, found: usize) -> Result<()> {
        if found <= limit {
            return Ok(());
        }
        Err(Self::Limit {
            what: what.into(),
            limit: limit as u64,
            found: found as u64,
        })
    }
}

/// The place in front of a template error, empty when the line is unknown.
fn at_line(line: Option<usize>) -> String {
    line.map(|line| format!(" line {line}")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_follow_the_cause() {
        let raised = Error::TemplateRaised("no".into());
        assert_eq!(raised.kind(), ErrorKind::InvalidInput);
        assert_eq!(Error::NoChatTemplate.kind(), ErrorKind::Unsupported);
        let hub = Error::from(lfm2_hub::Error::MissingTensor { name: "x".into() });
        assert_eq!(hub.kind(), ErrorKind::InvalidModel);
    }

    #[test]
    fn limits_are_inclusive() {
        assert!(Error::check_limit("messages", 4, 4).is_ok());
        let error = Error::check_limit("messages", 4, 5).unwrap_err();
        assert_eq!(error.to_string(), "messages: 5 is over the limit of 4");
        assert_eq!(error.kind(), ErrorKind::Limit);
    }

    #[test]
    fn the_line_is_named_where_known() {
        let known = Error::TemplateSyntax {
            line: Some(3),
            detail: "unexpected end".into(),
        };
        assert_eq!(known.to_string(), "chat template line 3: unexpected end");
        let unknown = Error::TemplateSyntax {
            line: None,
            detail: "unexpected end".into(),
        };
        assert_eq!(unknown.to_string(), "chat template: unexpected end");
    }
}
