//! Cutting documents into pieces that a model reads in one go.
//!
//! Pieces end where the text does: at the end of a paragraph, else of a sentence, else of a line,
//! else between words, and never inside a character. Neighbours share some text, so that what
//! stands across a cut is whole in one of them. Title and headings stay with every piece.

use std::ops::Range;

use lfm2_hub::{Bos, Error as HubError, SpecialTokens, Tokenizer};

use crate::Result;
use crate::documents::TextDocument;

/// Bytes that are tokenised at once: far below what a tokenizer takes, far above a sentence.
const PIECE_BYTES: usize = 64 << 10;
/// The fewest tokens that a piece can be made of.
const LEAST_TOKENS: usize = 32;
/// Title and headings take at most this part of a piece.
const HEADER_SHARE: usize = 3;
/// Tokens that may come out differently when header and text are read as one.
const SEAMS: usize = 4;
/// Characters of a word that are counted together.
const WORD_CHARACTERS: usize = 24;
/// Characters around a place that say how good it is to cut there.
const SIGHT: usize = 32;

/// How documents are cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ChunkOptions {
    /// Tokens of a piece, with its title and headings.
    pub max_tokens: usize,
    /// Tokens at the start of a piece that are also the end of the one before, about.
    pub overlap: usize,
}

impl Default for ChunkOptions {
    fn default() -> Self {
        Self {
            max_tokens: 256,
            overlap: 32,
        }
    }
}

impl ChunkOptions {
    /// Makes pieces of at most `tokens` tokens.
    pub fn with_max_tokens(mut self, tokens: usize) -> Self {
        self.max_tokens = tokens;
        self
    }

    /// Makes neighbours share about `tokens` tokens.
    pub fn with_overlap(mut self, tokens: usize) -> Self {
        self.overlap = tokens;
        self
    }

    fn check(self) -> Result<Self> {
        let (most, overlap) = (self.max_tokens, self.overlap);
        if most < LEAST_TOKENS {
            let text = format!("chunk tokens: expected at least {LEAST_TOKENS}, found {most}");
            return Err(HubError::InvalidInput(text).into());
        }
        if overlap > most / 4 {
            let text = format!(
                "chunk overlap: expected at most a quarter of the {most} chunk tokens, found {overlap}"
            );
            return Err(HubError::InvalidInput(text).into());
        }
        Ok(self)
    }
}

/// A piece of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Chunk {
    /// The document's id, `#`, and the number of the piece from 0.
    pub id: String,
    /// The document's title.
    pub title: String,
    /// The headings above the piece, outermost first, between ` > `.
    pub heading: String,
    /// The piece of text.
    pub text: String,
    /// Where it is in the document's text, in bytes.
    pub bytes: Range<usize>,
    /// The line on which it begins, from 1.
    pub line: usize,
}

impl Chunk {
    /// What a model reads: title, headings and text on lines of their own.
    pub fn passage(&self) -> String {
        passage(&self.title, &self.heading, &self.text)
    }

    /// The id of piece `number` of a document.
    pub fn id_of(document: &str, number: usize) -> String {
        format!("{document}#{number}")
    }
}

/// Title, headings and text as a model reads them.
pub(crate) fn passage(title: &str, heading: &str, text: &str) -> String {
    let parts = [title, heading, text]
        .into_iter()
        .filter(|part| !part.is_empty());
    parts.collect::<Vec<_>>().join("\n")
}

/// Cuts documents by the tokens of one tokenizer.
#[derive(Debug, Clone)]
pub struct Chunker {
    tokenizer: Tokenizer,
    options: ChunkOptions,
}

impl Chunker {
    /// A chunker for the model with this tokenizer.
    ///
    /// # Errors
    /// Fewer than 32 tokens for a piece, or an overlap of more than a quarter of it.
    pub fn new(tokenizer: Tokenizer, options: ChunkOptions) -> Result<Self> {
        let options = options.check()?;
        Ok(Self { tokenizer, options })
    }

    /// The pieces of a document, in order. Blank text has none, whatever its title.
    ///
    /// # Errors
    /// A text that cannot be tokenised.
    pub fn chunks(&self, document: &TextDocument) -> Result<Vec<Chunk>> {
        let text = document.text.as_str();
        let mut lines = LineCounter::new(text);
        let mut chunks = Vec::new();
        let mut covered = 0;
        for section in document.outline().sections {
            let (title, heading, used) = self.header(&document.title, &section.heading)?;
            let body = text.get(section.bytes.clone()).unwrap_or_default();
            if body.trim().is_empty() {
                continue;
            }
            let ends = self.token_ends(body)?;
            let windows = Windows {
                text: body,
                ends: &ends,
                most: self.options.max_tokens.saturating_sub(used + SEAMS),
                overlap: self.options.overlap,
            };
            for window in windows.cut() {
                let bytes = trim(text, offset(window, section.bytes.start));
                let piece = text.get(bytes.clone()).unwrap_or_default();
                // A window over blanks only repeats what it shares with the one before.
                if piece.is_empty() || bytes.end <= covered {
                    continue;
                }
                covered = bytes.end;
                chunks.push(Chunk {
                    id: Chunk::id_of(&document.id, chunks.len()),
                    title: title.clone(),
                    heading: heading.clone(),
                    text: piece.to_owned(),
                    line: lines.line_of(bytes.start),
                    bytes,
                });
            }
        }
        Ok(chunks)
    }

    /// Title and headings, shortened to their share of a piece, and how many tokens they take.
    fn header(&self, title: &str, heading: &str) -> Result<(String, String, usize)> {
        let most = self.options.max_tokens / HEADER_SHARE;
        let (title, in_title) = self.shorten(title, most)?;
        let (heading, in_heading) = self.shorten(heading, most - in_title)?;
        Ok((title, heading, in_title + in_heading))
    }

    /// The first `most` tokens of a text of one line.
    fn shorten(&self, text: &str, most: usize) -> Result<(String, usize)> {
        let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let ends = self.token_ends(&line)?;
        let fitting = ends.get(..most).unwrap_or(&ends);
        let mut whole = fitting.iter().rev().copied();
        let end = whole.find(|end| line.is_char_boundary(*end)).unwrap_or(0);
        let kept = line.get(..end).unwrap_or_default();
        Ok((kept.to_owned(), fitting.len()))
    }

    /// Where every token of a text ends, in bytes.
    fn token_ends(&self, text: &str) -> Result<Vec<usize>> {
        let mut ends = Vec::with_capacity(text.len() / 3);
        let mut start = 0;
        for piece in pieces(text) {
            let before = ends.len();
            let mut at = start;
            for id in self.encode(piece)? {
                at += self.tokenizer.token_bytes(id)?.len();
                ends.push(at);
            }
            if at - start != piece.len() {
                // The tokenizer changes what it reads, so its tokens do not say where they stand.
                ends.truncate(before);
                self.push_word_ends(piece, start, &mut ends)?;
            }
            start += piece.len();
        }
        Ok(ends)
    }

    /// Where words of a text end that begins at `start`, once for each of their tokens.
    fn push_word_ends(&self, text: &str, start: usize, ends: &mut Vec<usize>) -> Result<()> {
        let mut at = start;
        for word in text.split_inclusive(char::is_whitespace) {
            let mut rest = word;
            while !rest.is_empty() {
                let cut = rest.char_indices().nth(WORD_CHARACTERS);
                let (head, tail) = rest.split_at(cut.map_or(rest.len(), |(cut, _)| cut));
                at += head.len();
                ends.extend(self.encode(head)?.iter().map(|_| at));
                rest = tail;
            }
        }
        Ok(())
    }

    fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let ids = self
            .tokenizer
            .encode(text, SpecialTokens::Literal, Bos::Omit)?;
        Ok(ids)
    }
}

/// A text in parts that a tokenizer takes, cut after a line where there is one.
fn pieces(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let mut end = rest.len().min(PIECE_BYTES);
        while !rest.is_char_boundary(end) {
            end -= 1;
        }
        if end < rest.len() {
            let line = rest.get(..end).and_then(|head| head.rfind('\n'));
            end = line.map_or(end, |newline| newline + 1);
        }
        let (piece, after) = rest.split_at(end);
        rest = after;
        Some(piece)
    })
}

/// How good a place is to end a piece: the larger the better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Break {
    /// Inside a character: not at all.
    Never,
    Word,
    Space,
    Line,
    Sentence,
    Paragraph,
}

impl Break {
    /// What a cut at `at` would separate.
    fn of(text: &str, at: usize) -> Self {
        let (Some(before), Some(after)) = (text.get(..at), text.get(at..)) else {
            return Self::Never;
        };
        // A long run of blanks is looked at in part, since it is met at each of its tokens.
        let (before, after) = (before.chars().rev().take(SIGHT), after.chars().take(SIGHT));
        let is_blank = |c: &char| c.is_whitespace();
        let blanks = before.clone().take_while(is_blank);
        let blanks = blanks.chain(after.take_while(is_blank));
        let newlines = blanks.clone().filter(|c| *c == '\n').count();
        let is_spaced = blanks.count() > 0;
        let last = before.clone().find(|c| !c.is_whitespace());
        let ends_sentence = match last {
            Some('。' | '！' | '？') => true,
            Some('.' | '!' | '?') => is_spaced,
            _ => false,
        };
        if newlines > 1 {
            Self::Paragraph
        } else if ends_sentence {
            Self::Sentence
        } else if newlines == 1 {
            Self::Line
        } else if is_spaced {
            Self::Space
        } else {
            Self::Word
        }
    }
}

/// The windows of one section.
struct Windows<'a> {
    text: &'a str,
    /// Where tokens end.
    ends: &'a [usize],
    most: usize,
    overlap: usize,
}

impl Windows<'_> {
    /// The byte ranges of the windows.
    fn cut(&self) -> Vec<Range<usize>> {
        let mut windows = Vec::new();
        let mut start = 0;
        loop {
            let end = self.end_after(start);
            windows.push(self.at(start)..self.at(end));
            if end >= self.ends.len() {
                return windows;
            }
            start = self.start_before(end);
        }
    }

    /// The byte in front of token `token`.
    fn at(&self, token: usize) -> usize {
        match token.checked_sub(1) {
            None => 0,
            // What the tokenizer leaves out at the end belongs to the last window.
            Some(_) if token >= self.ends.len() => self.text.len(),
            Some(last) => self.ends.get(last).copied().unwrap_or(self.text.len()),
        }
    }

    /// How good it is to cut in front of token `token`.
    fn place(&self, token: usize) -> Break {
        let last = token.checked_sub(1).and_then(|last| self.ends.get(last));
        match last.is_some() && last == self.ends.get(token) {
            true => Break::Never,
            false => Break::of(self.text, self.at(token)),
        }
    }

    /// The token at which the window that starts at `start` best ends: the last of the best places
    /// of its last third.
    fn end_after(&self, start: usize) -> usize {
        let most = start + self.most;
        if most >= self.ends.len() {
            return self.ends.len();
        }
        let least = most - self.most / 3;
        let rated = (least..=most).map(|end| (self.place(end), end));
        rated.max().map_or(most, |(_, end)| end)
    }

    /// The token at which the next window starts: the first of the best places of the overlap.
    fn start_before(&self, end: usize) -> usize {
        let starts = end.saturating_sub(self.overlap)..end;
        let says_something = |start: &usize| {
            let shared = self.text.get(self.at(*start)..self.at(end));
            shared.is_some_and(|shared| !shared.trim().is_empty())
        };
        let shared = starts
            .filter(says_something)
            .map(|start| (self.place(start).min(Break::Sentence), start));
        let best = shared.max_by(|a, b| a.0.cmp(&b.0).then(b.1.cmp(&a.1)));
        best.map_or(end, |(_, start)| start)
    }
}

fn offset(range: Range<usize>, by: usize) -> Range<usize> {
    range.start + by..range.end + by
}

/// The range without white space at its ends.
fn trim(text: &str, bytes: Range<usize>) -> Range<usize> {
    let piece = text.get(bytes.clone()).unwrap_or_default();
    let start = bytes.end - piece.trim_start().len();
    start..start + piece.trim().len()
}

/// Counts lines up to places that come one after another.
struct LineCounter<'a> {
    text: &'a str,
    at: usize,
    line: usize,
}

impl<'a> LineCounter<'a> {
    fn new(text: &'a str) -> Self {
        Self {
            text,
            at: 0,
            line: 1,
        }
    }

    /// The line of a byte, from 1.
    fn line_of(&mut self, byte: usize) -> usize {
        let passed = self.text.as_bytes().get(self.at..byte).unwrap_or_default();
        self.line += passed.iter().filter(|byte| **byte == b'\n').count();
        self.at = byte;
        self.line
    }
}

#[cfg(test)]
mod tests;
