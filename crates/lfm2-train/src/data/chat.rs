//! Conversations as documents, rendered by the model's chat template.

use std::ops::Range;

use lfm2_hub::{Bos, SpecialTokens};
use serde::Deserialize;

use super::{DataFile, Document, Encoder, JsonLine, Score};
use crate::template::{Message, Rendered, Role};
use crate::{Error, Result};

/// Ends a turn. Where a template marks only the words of the assistant, the end is learnt as well,
/// or the model would never stop.
const END_OF_TURN: &str = "<|im_end|>";

#[derive(Deserialize)]
struct ChatRow {
    messages: Vec<Message>,
}

#[derive(Deserialize)]
struct PreferenceRow {
    prompt: String,
    chosen: String,
}

/// Rows of `{"messages": [..]}`.
pub(super) fn conversations(file: &DataFile, score: Score, encoder: &Encoder<'_>) -> Result<Vec<Document>> {
    let rows = file.json_lines::<ChatRow>()?;
    rows.into_iter().map(|JsonLine { line, row }| document(file, line, &row.messages, score, encoder)).collect()
}

/// Rows of `{"prompt", "chosen", ..}`: the chosen answer is what is learnt.
pub(super) fn preferences(file: &DataFile, score: Score, encoder: &Encoder<'_>) -> Result<Vec<Document>> {
    let rows = file.json_lines::<PreferenceRow>()?;
    let documents = rows.into_iter().map(|JsonLine { line, row }| {
        let messages = [Message::user(row.prompt), Message::assistant(row.chosen)];
        document(file, line, &messages, score, encoder)
    });
    documents.collect()
}

fn document(
    file: &DataFile,
    line: usize,
    messages: &[Message],
    score: Score,
    encoder: &Encoder<'_>,
) -> Result<Document> {
    if messages.is_empty() {
        return Err(Error::data(file.path(), line, "expected at least one message, found none"));
    }
    let rendered = encoder.template.render(messages, false).map_err(|e| Error::data(file.path(), line, e.to_string()))?;
    let spans = match score {
        Score::All => std::iter::once(0..rendered.text.len()).collect(),
        Score::Assistant => turns(&rendered),
        Score::LastTurn => turns(&rendered).split_off(rendered.generation_spans.len().saturating_sub(1)),
    };
    if spans.is_empty() && messages.iter().any(|m| m.role == Role::Assistant) {
        let detail = "the chat template marks no assistant text with {% generation %}; score all tokens instead";
        return Err(Error::data(file.path(), line, detail));
    }
    tokenize(&rendered.text, &spans, encoder)
}

/// The marked spans, each with the end of its turn.
fn turns(rendered: &Rendered) -> Vec<Range<usize>> {
    let spans = rendered.generation_spans.iter().map(|span| {
        let after = rendered.text.get(span.end..).unwrap_or_default();
        let end = if after.starts_with(END_OF_TURN) { span.end + END_OF_TURN.len() } else { span.end };
        span.start..end
    });
    spans.collect()
}

/// Tokenises piece by piece, borders at the spans. That is how the model meets the text: the prompt
/// is tokenised up to the answer, and the answer begins with a token of its own.
fn tokenize(text: &str, spans: &[Range<usize>], encoder: &Encoder<'_>) -> Result<Document> {
    let (mut tokens, mut scored) = (Vec::new(), Vec::new());
    let mut piece = |range: Range<usize>, learn: bool| -> Result<()> {
        let text = text.get(range).unwrap_or_default();
        if !text.is_empty() {
            tokens.extend(encoder.tokenizer.encode(text, SpecialTokens::Parse, Bos::Omit)?);
            scored.resize(tokens.len(), learn);
        }
        Ok(())
    };
    let mut done = 0;
    for span in spans {
        piece(done..span.start, false)?;
        piece(span.clone(), true)?;
        done = span.end;
    }
    piece(done..text.len(), false)?;
    Document::new(tokens, scored)
}
