//! Conversations as documents, rendered by the model's chat template.

use std::ops::Range;

use lfm2_generate::{GenerationPrompt, Message, RenderOptions, Rendered, Role, Spans};
use lfm2_hub::{Bos, SpecialTokens};
use serde::Deserialize;

use super::{DataFile, Document, Encoder, JsonLine, Score, SourceOptions};
use crate::{Error, Result};

/// Ends a turn. Where a template marks only the words of the assistant, the end is learnt as well,
/// or the model would never stop.
const END_OF_TURN: &str = "<|im_end|>";

#[derive(Deserialize)]
struct ChatRow {
    messages: Vec<Message>,
}

/// A prompt and two answers; a row without the worse one is enough to imitate the better.
#[derive(Deserialize)]
pub(super) struct PreferenceRow {
    prompt: Turns,
    chosen: Turns,
    rejected: Option<Turns>,
}

/// Plain text, or messages.
#[derive(Deserialize)]
#[serde(untagged)]
enum Turns {
    Text(String),
    Messages(Vec<Message>),
}

impl Turns {
    fn messages(self, from_text: fn(String) -> Message) -> Vec<Message> {
        match self {
            Self::Text(text) => vec![from_text(text)],
            Self::Messages(messages) => messages,
        }
    }
}

/// Rows of `{"messages": [..]}`.
pub(super) fn conversations(
    file: &DataFile,
    options: &SourceOptions,
    encoder: &Encoder<'_>,
) -> Result<Vec<Document>> {
    let rows = file.json_lines::<ChatRow>()?;
    rows.into_iter()
        .map(|JsonLine { line, row }| document(file, line, &row.messages, options, encoder))
        .collect()
}

/// Rows of `{"prompt", "chosen", ..}`: the chosen answer is what is learnt.
pub(super) fn preferences(
    file: &DataFile,
    options: &SourceOptions,
    encoder: &Encoder<'_>,
) -> Result<Vec<Document>> {
    let rows = file.json_lines::<PreferenceRow>()?;
    let documents = rows.into_iter().map(|JsonLine { line, row }| {
        let mut messages = row.prompt.messages(Message::user);
        messages.extend(row.chosen.messages(Message::assistant));
        document(file, line, &messages, options, encoder)
    });
    documents.collect()
}

/// Rows of `{"prompt", "chosen", "rejected"}`: both conversations of each, the better one first.
pub(super) fn pairs(
    file: &DataFile,
    options: &SourceOptions,
    encoder: &Encoder<'_>,
) -> Result<Vec<(Document, Document)>> {
    let rows = file.json_lines::<PreferenceRow>()?;
    let pairs = rows.into_iter().map(|JsonLine { line, row }| {
        let missing = || Error::data(file.path(), line, "missing field `rejected`");
        let rejected = row.rejected.ok_or_else(missing)?;
        let prompt = row.prompt.messages(Message::user);
        let with = |answer: Turns| -> Result<Document> {
            let mut messages = prompt.clone();
            messages.extend(answer.messages(Message::assistant));
            document(file, line, &messages, options, encoder)
        };
        Ok((with(row.chosen)?, with(rejected)?))
    });
    pairs.collect()
}

fn document(
    file: &DataFile,
    line: usize,
    messages: &[Message],
    options: &SourceOptions,
    encoder: &Encoder<'_>,
) -> Result<Document> {
    if messages.is_empty() {
        return Err(Error::data(
            file.path(),
            line,
            "expected at least one message, found none",
        ));
    }
    let rendered =
        render(messages, encoder).map_err(|e| Error::data(file.path(), line, e.to_string()))?;
    let mut spans = turns(&rendered);
    let others = match options.score {
        Score::All => 1.0,
        Score::Assistant => 0.0,
        Score::LastTurn => {
            spans = spans.split_off(spans.len().saturating_sub(1));
            0.0
        }
    };
    if spans.is_empty()
        && options.score != Score::All
        && messages.iter().any(|m| m.role == Role::Assistant)
    {
        let detail = "the chat template marks no assistant text with {% generation %}; score all tokens instead";
        return Err(Error::data(file.path(), line, detail));
    }
    tokenize(
        &rendered.text,
        &spans,
        (options.answer_weight, others),
        encoder,
    )
}

/// A conversation in which what the assistant says is scored.
///
/// # Errors
/// When the template refuses the messages or marks nothing.
pub(crate) fn answers(messages: &[Message], encoder: &Encoder<'_>) -> Result<Document> {
    let rendered = render(messages, encoder)?;
    tokenize(&rendered.text, &turns(&rendered), (1.0, 0.0), encoder)
}

fn render(messages: &[Message], encoder: &Encoder<'_>) -> Result<Rendered> {
    let bos = encoder
        .tokenizer
        .encode("", SpecialTokens::Parse, Bos::Add)?;
    let bos = bos
        .first()
        .and_then(|id| encoder.tokenizer.token_text(*id))
        .unwrap_or_default();
    let options = RenderOptions::default()
        .generation_prompt(GenerationPrompt::Omit)
        .spans(Spans::Generation)
        .variable("bos_token", bos);
    Ok(encoder.template.render(messages, &[], &options)?)
}

/// The marked spans, each with the end of its turn.
fn turns(rendered: &Rendered) -> Vec<Range<usize>> {
    let spans = rendered.generation.iter().map(|span| {
        let after = rendered.text.get(span.end..).unwrap_or_default();
        let end = if after.starts_with(END_OF_TURN) {
            span.end + END_OF_TURN.len()
        } else {
            span.end
        };
        span.start..end
    });
    spans.collect()
}

/// Tokenises piece by piece, borders at the spans. That is how the model meets the text: the prompt
/// is tokenised up to the answer, and the answer begins with a token of its own. Tokens inside the
/// spans get the first weight, others the second.
fn tokenize(
    text: &str,
    spans: &[Range<usize>],
    (inside, outside): (f32, f32),
    encoder: &Encoder<'_>,
) -> Result<Document> {
    let (mut tokens, mut weights) = (Vec::new(), Vec::new());
    let mut piece = |range: Range<usize>, weight: f32| -> Result<()> {
        let text = text.get(range).unwrap_or_default();
        if !text.is_empty() {
            tokens.extend(
                encoder
                    .tokenizer
                    .encode(text, SpecialTokens::Parse, Bos::Omit)?,
            );
            weights.resize(tokens.len(), weight);
        }
        Ok(())
    };
    let mut done = 0;
    for span in spans {
        piece(done..span.start, outside)?;
        piece(span.clone(), inside)?;
        done = span.end;
    }
    piece(done..text.len(), outside)?;
    Document::new(tokens, weights)
}
