//! The delimiters of a Jinja template: which parts are tags, and what is inside them.
//!
//! Only as much of the language as is needed to change tags without touching strings, comments and
//! raw blocks. Where a template is broken, the rest is taken as text and the engine reports it.

/// A stretch of a template. The stretches joined are the template.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Piece<'s> {
    /// Text, comments and raw blocks, unchanged.
    Verbatim(&'s str),
    /// `{{ ... }}` or `{% ... %}`.
    Tag(Tag<'s>),
}

/// A tag, in three parts: `{%-`, ` set x = 1 `, `%}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tag<'s> {
    pub(super) kind: TagKind,
    /// The opening delimiter with its whitespace mark.
    pub(super) open: &'s str,
    pub(super) body: &'s str,
    /// The closing delimiter with its whitespace mark.
    pub(super) close: &'s str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TagKind {
    Print,
    Statement,
}

/// A word of a tag's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Token<'s> {
    Blank(&'s str),
    Name(&'s str),
    Number(&'s str),
    Text(&'s str),
    Open(&'s str),
    Close(&'s str),
    Operator(&'s str),
}

impl<'s> Token<'s> {
    pub(super) fn source(self) -> &'s str {
        match self {
            Self::Blank(s)
            | Self::Name(s)
            | Self::Number(s)
            | Self::Text(s)
            | Self::Open(s)
            | Self::Close(s)
            | Self::Operator(s) => s,
        }
    }
}

/// Cuts a template into pieces.
pub(super) fn pieces(source: &str) -> Pieces<'_> {
    Pieces { rest: source }
}

/// The iterator of [`pieces`].
#[derive(Debug, Clone)]
pub(super) struct Pieces<'s> {
    rest: &'s str,
}

impl<'s> Iterator for Pieces<'s> {
    type Item = Piece<'s>;

    fn next(&mut self) -> Option<Piece<'s>> {
        if self.rest.is_empty() {
            return None;
        }
        // Text runs up to the next tag that can be read; an unreadable one ends the search.
        let mut from = 0;
        while let Some(at) = find_delimiter(self.rest, from) {
            let (before, here) = self.rest.split_at(at);
            if let Some(length) = verbatim_length(here) {
                from = at + length;
                continue;
            }
            let Some((tag, rest)) = read_tag(here) else {
                break;
            };
            if before.is_empty() {
                self.rest = rest;
                return Some(Piece::Tag(tag));
            }
            self.rest = here;
            return Some(Piece::Verbatim(before));
        }
        Some(Piece::Verbatim(std::mem::take(&mut self.rest)))
    }
}

/// The next `{{`, `{%` or `{#` at or after `from`.
fn find_delimiter(source: &str, from: usize) -> Option<usize> {
    let is_delimiter = |pair: &[u8]| matches!(pair, [b'{', b'{' | b'%' | b'#']);
    let at = source
        .as_bytes()
        .get(from..)?
        .windows(2)
        .position(is_delimiter)?;
    Some(from + at)
}

/// The length of a comment or raw block that starts here. One without end goes to the end.
fn verbatim_length(source: &str) -> Option<usize> {
    if let Some(comment) = source.strip_prefix("{#") {
        return Some(comment.find("#}").map_or(source.len(), |end| end + 4));
    }
    let body = source.strip_prefix("{%")?;
    let mut after = simple_tag(body.strip_prefix(['-', '+']).unwrap_or(body), "raw")?;
    loop {
        let Some(at) = after.find("{%") else {
            return Some(source.len());
        };
        after = after.get(at + 2..)?;
        let end = simple_tag(after.strip_prefix(['-', '+']).unwrap_or(after), "endraw");
        if let Some(rest) = end {
            return Some(source.len() - rest.len());
        }
    }
}

/// What follows ` name %}`, when that is what comes here.
fn simple_tag<'s>(source: &'s str, name: &str) -> Option<&'s str> {
    let blank = |c: char| c.is_ascii_whitespace();
    let rest = source
        .trim_start_matches(blank)
        .strip_prefix(name)?
        .trim_start_matches(blank);
    rest.strip_prefix(['-', '+'])
        .unwrap_or(rest)
        .strip_prefix("%}")
}

/// The tag that starts here, and what follows it.
fn read_tag(source: &str) -> Option<(Tag<'_>, &str)> {
    let (kind, close) = match source.get(..2)? {
        "{{" => (TagKind::Print, "}}"),
        "{%" => (TagKind::Statement, "%}"),
        _ => return None,
    };
    let opening = if matches!(source.as_bytes().get(2), Some(b'-' | b'+')) {
        3
    } else {
        2
    };
    let (open, inside) = source.split_at_checked(opening)?;
    let mut rest = inside;
    let mut nesting = 0_usize;
    loop {
        let marked = rest.strip_prefix(['-', '+']).unwrap_or(rest);
        let end = [marked, rest]
            .into_iter()
            .find_map(|rest| rest.strip_prefix(close));
        if let Some(after) = end.filter(|_| nesting == 0) {
            let body = inside.get(..inside.len() - rest.len())?;
            let close = rest.get(..rest.len() - after.len())?;
            return Some((
                Tag {
                    kind,
                    open,
                    body,
                    close,
                },
                after,
            ));
        }
        let token = next_token(rest)?;
        match token {
            Token::Open(_) => nesting += 1,
            Token::Close(_) => nesting = nesting.checked_sub(1)?,
            _ => {}
        }
        rest = rest.get(token.source().len()..)?;
    }
}

/// Cuts the body of a tag into words.
pub(super) fn tokens(body: &str) -> impl Iterator<Item = Token<'_>> {
    let mut rest = body;
    std::iter::from_fn(move || {
        let token = next_token(rest)?;
        rest = rest.get(token.source().len()..)?;
        Some(token)
    })
}

/// The word that starts here; `None` at the end and at a string without end.
fn next_token(source: &str) -> Option<Token<'_>> {
    let first = source.chars().next()?;
    let run = |accept: fn(char) -> bool| {
        let end = source.find(|c| !accept(c)).unwrap_or(source.len());
        source.get(..end)
    };
    match first {
        '"' | '\'' => text_length(source, first)
            .and_then(|end| source.get(..end))
            .map(Token::Text),
        '(' | '[' | '{' => source.get(..1).map(Token::Open),
        ')' | ']' | '}' => source.get(..1).map(Token::Close),
        '0'..='9' => run(|c| c.is_alphanumeric() || c == '_').map(Token::Number),
        c if c.is_whitespace() => run(char::is_whitespace).map(Token::Blank),
        c if c.is_alphabetic() || c == '_' => {
            run(|c| c.is_alphanumeric() || c == '_').map(Token::Name)
        }
        _ if source.starts_with("**") || source.starts_with("//") => {
            source.get(..2).map(Token::Operator)
        }
        c => source.get(..c.len_utf8()).map(Token::Operator),
    }
}

/// The length of a string literal with its quotes.
fn text_length(source: &str, quote: char) -> Option<usize> {
    let mut escaped = false;
    source.char_indices().skip(1).find_map(|(at, c)| {
        let ends = c == quote && !escaped;
        escaped = c == '\\' && !escaped;
        ends.then_some(at + 1)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags(source: &str) -> Vec<(&str, &str, &str)> {
        let tag = |piece| match piece {
            Piece::Tag(tag) => Some((tag.open, tag.body, tag.close)),
            Piece::Verbatim(_) => None,
        };
        pieces(source).filter_map(tag).collect()
    }

    #[test]
    fn whitespace_marks_belong_to_the_delimiters() {
        let source = "a{%- if x -%}b{{+ y +}}c{% endif %}";
        let expected = [
            ("{%-", " if x ", "-%}"),
            ("{{+", " y ", "+}}"),
            ("{%", " endif ", "%}"),
        ];
        assert_eq!(tags(source), expected);
    }

    #[test]
    fn delimiters_inside_strings_and_brackets_do_not_count() {
        let source = r#"{{ "%} }} \" }}" ~ {'a': {'b': 1}} }}x{% set a = '{{ "%}' %}"#;
        let expected = [
            ("{{", r#" "%} }} \" }}" ~ {'a': {'b': 1}} "#, "}}"),
            ("{%", r#" set a = '{{ "%}' "#, "%}"),
        ];
        assert_eq!(tags(source), expected);
    }

    #[test]
    fn comments_and_raw_blocks_hide_tags() {
        let source = "{# {% a %} #}{%- raw -%}{{ x }}{% if %}{%- endraw +%}{{ y }}";
        assert_eq!(tags(source), [("{{", " y ", "}}")]);
        assert_eq!(tags("{% raw %}{{ x }}"), []);
        assert_eq!(tags("{# {{ x }}"), []);
    }

    #[test]
    fn pieces_joined_are_the_source() {
        let sources = [
            "",
            "{",
            "{{",
            "{% 'x",
            "a{{ b }}c",
            "{{ ) }}{{ x }}",
            "{{ x }}{#",
            "é{{ 'é' }}",
        ];
        for source in sources {
            let joined: String = pieces(source)
                .map(|piece| match piece {
                    Piece::Verbatim(text) => text.to_owned(),
                    Piece::Tag(tag) => [tag.open, tag.body, tag.close].concat(),
                })
                .collect();
            assert_eq!(joined, source);
        }
    }
}
